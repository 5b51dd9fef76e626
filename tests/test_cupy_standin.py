"""The stand-in for CuPy is as CuPy is: it has the same signatures and refusals, and counts what would happen."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import cupy_standin
import numpy as np
import pytest
from cupy_standin import BFLOAT16, Device, PerformanceWarning, forbidden, ndarray, trace

MODULES = cupy_standin.modules()
cp = MODULES["cupy"]
as_strided = MODULES["cupy.lib.stride_tricks"].as_strided


def array(*shape, dtype="float64"):
    return cp.asarray(np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype))


# Signatures.


def signature(function):
    """Parameters, which for what CuPy has from Cython are in the first line of its documentation."""
    if type(function).__name__ == "ufunc":
        return "ufunc"
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        head = re.sub(r"^\w+\.|\b(int|Py_ssize_t|str|tuple|bool) | -> .*", "", function.__doc__.splitlines()[0])
        scope = {}
        exec(f"def {head}: pass", scope)
        parameters = inspect.signature(scope[head.partition("(")[0]]).parameters.values()
    return [(one.name, one.kind, one.default) for one in parameters]


def differences():
    """What is not as in the CuPy that is installed, in whose place the stand-in must not be."""
    compared = []
    for name, module in MODULES.items():
        theirs = importlib.import_module(name)
        assert theirs is not module
        names = [key for key in vars(module) if not key.startswith("__")]
        missing = [f"{name}.{key}" for key in names if not hasattr(theirs, key)]
        assert not missing, f"CuPy has no {missing}"
        for key in names:
            ours = vars(module)[key]
            if callable(ours) and not isinstance(ours, type | cupy_standin._Absent):
                compared.append((key, signature(ours), signature(getattr(theirs, key))))
    theirs = importlib.import_module("cupy").RawKernel
    compared.append(("RawKernel", signature(cp.RawKernel), signature(theirs)))
    theirs = importlib.import_module("cupy").ndarray
    for key, method in vars(ndarray).items():
        if inspect.isfunction(method) and not key.startswith("_"):
            compared.append((f"ndarray.{key}", signature(method)[1:], signature(getattr(theirs, key))[1:]))
    assert len(compared) > 70
    return [one for one in compared if one[1] != one[2]]


if importlib.util.find_spec("cupy_backends") is not None:  # where CuPy is installed, with or without a GPU

    def test_signatures_are_cupys():
        """In a process where CuPy is not stood in for."""
        code = "import sys; sys.path.insert(0, sys.argv[1]); import test_cupy_standin as t; print(t.differences())"
        command = [sys.executable, "-c", code, str(Path(__file__).parent)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (result.stdout, result.stderr) == ("[]\n", "")


@pytest.mark.parametrize("how", [["program.py"], ["-m", "program"]], ids=["a file", "a module"])
def test_a_program_is_run_with_it(how, tmp_path):
    (tmp_path / "program.py").write_text("import sys, cupy; print(cupy.__version__, __name__, sys.argv[1:])")
    command = [sys.executable, cupy_standin.__file__, *how, "argument"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.stdout == f"{cp.__version__} __main__ ['argument']\n", result.stderr


def test_it_takes_cupys_place_unless_cupy_is_there(monkeypatch):
    monkeypatch.setattr(sys, "modules", {})
    cupy_standin.install()
    there = dict(sys.modules)
    cupy_standin.install()
    assert sys.modules == there
    assert there.keys() == MODULES.keys()
    sys.modules["cupy"] = ModuleType("cupy")
    with pytest.raises(ImportError, match="CuPy itself has been imported"):
        cupy_standin.install()


# Refusals.


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x, y: x + y,
        lambda x, y: y + x,
        lambda x, y: x @ y,
        lambda x, y: y @ x,
        lambda x, y: np.add(x, y),
        lambda x, y: cp.concatenate([x, y]),
        lambda x, y: np.concatenate([x, y]),
        lambda x, y: cp.add(x, 1, out=y),
        lambda x, _: np.asarray(x),
        lambda x, _: hash(x),
        lambda x, _: hash(x.device),
        lambda x, _: cp.zeros(3, device=x.device),
    ],
)
def test_what_cupy_takes_for_a_mistake_is_a_type_error(mixed):
    with pytest.raises(TypeError):
        mixed(array(3, 3), np.ones((3, 3)))


def test_other_values_that_cupy_refuses():
    x = array(3)
    with pytest.raises(ValueError, match="non-scalar"):
        x[...] = np.ones(3)
    with pytest.raises(ValueError, match="Unsupported dtype object"):
        cp.asarray(np.asarray([None]))
    with pytest.raises(ValueError, match="Unsupported dtype float128"):
        cp.empty(3, np.longdouble)
    with pytest.raises(TypeError, match="imaginary part"):
        x.imag = 1
    with pytest.raises(NotImplementedError):
        cp.tensordot(x, x)


# Devices.


def test_arrays_are_made_on_the_device_that_is_current_in_a_thread():
    found = []
    with Device(1):
        assert cp.empty(2).device == array(2).device == Device() == Device(1) != Device(0)
        thread = threading.Thread(target=lambda: found.append(cp.empty(2).device))
        thread.start()
        thread.join()
    assert [*found, cp.empty(2).device] == [Device(0)] * 2
    with pytest.raises(RuntimeError, match="invalid device"), Device(2):
        pass


@pytest.mark.parametrize(
    "far",
    [
        lambda x: x + 1,
        lambda x: x @ x,
        lambda x: x.sum(),
        lambda x: cp.take(x, 0),
        lambda x: x.astype("float32"),
        lambda x: x.fill(0),
        lambda x: cp.concatenate([x, x]),
        lambda x: MODULES["cupy.fft"].rfftn(x),
    ],
)
def test_operations_on_another_device_are_warned_of(far):
    with Device(1):
        x = array(3, 3)
        far(x)
    with pytest.warns(PerformanceWarning, match=r"resides \(1\) is different from the current device \(0\)"):
        far(x)


def test_views_are_made_on_any_device_and_copies_on_the_current_one():
    with Device(1):
        x = array(4, 4)
    assert x.T[1:].reshape(3, 2, 2).device == Device(1)
    assert [one.device.id for one in (x.copy(), cp.array(x), cp.asarray(x), x[::2].copy(), x.T.reshape(16))] == [0] * 5
    assert (copy.deepcopy(x).device, pickle.loads(pickle.dumps(x)).device) == (Device(1), Device(0))
    with pytest.raises(NotImplementedError, match="non-contiguous array between devices"):
        cp.asarray(x[::2])


# Memory.


def test_fresh_memory_is_nan_and_no_view_leaves_it():
    for dtype in ("float16", BFLOAT16, "float32", "float64", "complex64", "complex128"):
        assert np.all(np.isnan(cp.empty((2, 3), dtype).get()))
    x = array(2, 6)
    view = as_strided(x[1], (3, 2), (16, 8))
    np.testing.assert_array_equal(view.get(), [[6, 7], [8, 9], [10, 11]])
    view[0, 0] = -1
    assert x[1, 0].item() == -1
    for shape, strides in (((4, 2), (16, 8)), ((3,), (-48,))):
        with pytest.raises(ValueError, match="incompatible"):
            as_strided(x[1], shape, strides)


def test_layouts():
    x = array(3, 4)
    assert (x.T + 0).strides == (24, 8)
    assert x.T[None].sum(axis=0).strides == (24, 8)
    assert (x.T @ x).strides == (32, 8)
    assert x.T.astype("float32").strides == (4, 16)
    assert x.T.copy().strides == (24, 8)
    assert cp.asarray(np.ones((3, 4)).T).strides == (8, 32)
    assert cp.take(x.T, cp.arange(2), axis=1).strides == (16, 8)


def test_indices_out_of_bounds_wrap_around():
    np.testing.assert_array_equal(cp.take(array(3), cp.asarray([0, 4, -1])).get(), [0, 1, 2])


# Numbers.


def test_halves_are_summed_in_float32():
    for dtype, large in (("float16", 2048), (BFLOAT16, 256)):
        x = cp.ones(17, "float32").astype(dtype)
        x[0] = large
        assert float(x.sum().get()) == large + 16
        assert float((x[None, :] @ (x * 0 + 1)[:, None]).get().item()) == large + 16
        assert (x + x).dtype == x.dtype
    with pytest.raises(TypeError, match="bfloat16"):
        x[None, None, :] @ x[None, :, None]


def test_transforms_have_the_precision_of_their_operand():
    for dtype, expected in (("float16", "F"), ("float32", "F"), ("float64", "D"), ("int32", "D")):
        transformed = MODULES["cupy.fft"].rfftn(array(8, dtype=dtype))
        assert transformed.dtype.char == expected
        np.testing.assert_allclose(transformed.get(), np.fft.rfft(np.arange(8)), rtol=1e-6, atol=1e-6)


# Kernels.

SOURCE = """
template <class T> __device__ T twice(T value) { return value + value; }

extern "C" __global__ void scale(const float* __restrict__ x, const int first, double* __restrict__ y) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  y[first + i] = twice(x[i]);
}
"""


def scale(x, first, y, grid=(2,), block=(3,), code=SOURCE):
    cp.RawKernel(code, "scale")(grid, block, (x, first, y))


def test_a_kernel_runs_in_all_threads():
    x, y = array(6, dtype="float32"), cp.zeros(8)
    with trace() as record:
        scale(x, np.int32(2), y)
    assert record == {"kernel": 1}
    np.testing.assert_array_equal(y.get(), [0, 0, 0, 2, 4, 6, 8, 10])
    np.testing.assert_array_equal(x.get(), range(6))
    scale(array(7, dtype="float32")[:6], np.int32(0), y[1:7])
    np.testing.assert_array_equal(y.get(), [0, 0, 2, 4, 6, 8, 10, 10])
    with Device(1), pytest.warns(PerformanceWarning):
        scale(x, np.int32(0), y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: scale(x, np.int32(3), y), "scale goes out of bounds"),
        (lambda x, y: scale(x, np.int32(-1), y), "scale goes out of bounds"),
        (lambda x, y: scale(x[:5], np.int32(0), y), "scale goes out of bounds"),
        (lambda x, y: scale(x[:0], np.int32(0), y), "scale goes out of bounds"),
        (lambda _, y: scale(np.uintp(0), np.int32(0), y), "scale goes out of bounds"),
        (lambda x, y: scale(x, 2, y), "scale has other parameters"),
        (lambda x, y: cp.RawKernel(SOURCE, "scale")((2,), (3,), (x, y)), "scale has other parameters"),
        (lambda x, y: scale(x, np.int32(0), y[::2]), "in C order"),
        (lambda x, y: scale(x, np.int32(0), y, grid=(0,)), "a grid of"),
        (lambda x, y: scale(x, np.int32(0), y, grid=(1, 2**16)), "a grid of"),
        (lambda x, y: scale(x, np.int32(0), y, block=(1025,)), "a block of"),
    ],
)
def test_launches_that_a_gpu_may_not_survive(call, message):
    with pytest.raises(AssertionError, match=message):
        call(array(6, dtype="float32"), cp.zeros(8))


def test_kernels_that_do_not_compile(monkeypatch):
    x = array(6, dtype="float32")
    with pytest.raises(RuntimeError, match=r"(?s)does not compile.*thrice"):
        scale(x, np.int32(0), x, code=SOURCE.replace("= twice", "= thrice"))
    with pytest.raises(AttributeError, match="launch_halve"):
        cp.RawKernel(SOURCE, "halve")((1,), (1,), ())
    with pytest.raises(NotImplementedError, match="shared memory"):
        cp.RawKernel(SOURCE, "scale")((1,), (1,), (), shared_mem=4)
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(RuntimeError, match=r"install a C\+\+ compiler"):
        scale(x, np.int32(0), x, code=SOURCE + "// another one")


# What is counted.


@pytest.mark.parametrize(
    ("operation", "counted"),
    [
        (lambda _: cp.asarray(np.ones(3)), {"h2d": 1}),
        (lambda x: cp.take(x, np.asarray([1])), {"h2d": 1, "kernel": 1}),
        (lambda x: cp.concatenate([x] * 9), {"h2d": 1, "kernel": 1}),
        (lambda _: cp.asarray(3.0), {"kernel": 1}),
        (lambda x: x + 1.0, {"kernel": 1}),
        (lambda x: x.fill(0), {"kernel": 1}),
        (lambda x: cp.sum(x), {"kernel": 1}),
        (lambda x: x[0].T.reshape(4, 1)[None], {}),
        (lambda x: x.T.reshape(-1), {"copy": 1}),
        (lambda x: x.astype("float32"), {"copy": 1}),
        (lambda x: x.astype("float64", copy=False), {}),
        (lambda x: x.__setitem__(0, x[1]), {"copy": 1}),
        (lambda x: x.get(), {"sync": 1}),
        (lambda x: x[0, 0].item(), {"sync": 1}),
        (lambda x: bool(x[0, 0]), {"sync": 1}),
        (lambda x: int(x[0, 0]), {"sync": 1}),
        (lambda x: float(x[0, 0]), {"sync": 1}),
        (lambda x: repr(x), {"sync": 1}),
        (lambda x: x[x > 1], {"sync": 1, "kernel": 2}),
        (lambda x: x @ x, {"gemm": 1}),
        (lambda x: x.T @ x, {"gemm": 1}),
        (lambda x: x[:, ::2] @ x[:2], {"gemm": 1, "copy": 1}),
        (lambda x: x[None] @ x[None], {"gemm-strided": 1}),
        (lambda x: x[None] @ x.T[None], {"gemm-strided": 1, "copy": 1}),
        (lambda x: x @ cp.stack([x, x]), {"gemm-pointers": 1, "kernel": 1}),
        (lambda x: x.astype("int32") @ x.astype("int32"), {"gemm-int": 1, "copy": 2}),
        (lambda x: MODULES["cupy.fft"].rfftn(x), {"fft": 1}),
    ],
)
def test_each_operation_is_counted_once(operation, counted):
    x = array(4, 4)
    with trace() as record:
        operation(x)
    assert record == counted
    operation(x)
    assert record == counted
    for kind in counted:
        with forbidden(kind), pytest.raises(AssertionError, match=f"{kind} is forbidden here"):
            operation(x)
