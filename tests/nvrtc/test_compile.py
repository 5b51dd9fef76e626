"""NVIDIA's compiler takes the kernels, with CuPy's own options; to load and run what it makes would take a GPU."""

from __future__ import annotations

import pytest
from cupy._core.core import assemble_cupy_compiler_options
from cupy.cuda import nvrtc

from xpconv._arrays.direct import TYPES, kernel_source

FLOAT = ("float", "float", "float")
HALVES = ("Half", "BFloat16")
KINDS = [(name, "float" if name in HALVES else name, name) for name in TYPES.values()]
OLDEST, NEWEST = min(nvrtc.getSupportedArchs()), max(nvrtc.getSupportedArchs())


def compiled(source, arch):
    program = nvrtc.createProgram(source, "direct.cu", (), ())
    try:
        nvrtc.compileProgram(program, (*assemble_cupy_compiler_options(()), f"--gpu-architecture=sm_{arch}"))
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    assert not nvrtc.getProgramLog(program), "the compiler warns"
    return nvrtc.getCUBIN(program)


def assert_compiles(*variant, arch=OLDEST):
    code = compiled(kernel_source(*variant), arch)
    assert b"direct_forward" in code
    assert b"direct_weight_grad" in code


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("types", KINDS, ids=lambda types: types[0])
def test_each_type(types, channels):
    assert_compiles(2, channels, False, types)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("rank", [2, 3, 5])
def test_each_rank_and_width_of_indices(rank, wide):
    assert_compiles(rank, 4, wide, FLOAT)


def test_each_kind_of_gpu():
    assert_compiles(2, 4, True, ("Half", "float", "BFloat16"), arch=NEWEST)


def test_a_mistake_is_found():
    source = kernel_source(2, 1, False, FLOAT)
    with pytest.raises(pytest.fail.Exception, match="sample_slice"):
        compiled(source.replace("sample_slice = take", "other_slice = take"), OLDEST)
