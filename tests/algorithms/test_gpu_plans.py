"""What calls cost on a GPU, counted on the stand-in for CuPy: bytes, launches, products; and the values with them."""

from __future__ import annotations

import math
from functools import partial
from itertools import product

import ml_dtypes
import numpy as np
import pytest
import torch
from cupy_standin import trace
from support import draw

from xpconv import conv, conv_input_grad, conv_weight_grad, explain, options
from xpconv._algorithms.choose import Wanted, choose, ways
from xpconv._algorithms.plan import UNLIMITED, Copies, Limits
from xpconv._spec.geometry import parse

MIB = 2**20


# Of each: shapes, parameters; how often the bytes of operands and result are moved at most, for y, dx and dw; launches.
LEAN = {
    "dense": ((8, 64, 28, 28), (64, 64, 3, 3), {"padding": 1}, (12, 12, 13), 9),
    "depthwise": ((8, 32, 28, 28), (32, 1, 7, 7), {"padding": 3, "groups": 32}, (1.1, 1.1, 4.1), 3),
    "grouped": ((8, 64, 28, 28), (64, 4, 3, 3), {"padding": 1, "groups": 16}, (1.1, 1.1, 4), 3),
    "1x1": ((8, 128, 56, 56), (64, 128, 1, 1), {}, (1.2, 1.2, 1.7), 6),
    "3-D": ((2, 16, 8, 16, 16), (16, 16, 3, 3, 3), {"padding": 1}, (31, 31, 32), 9),
}


@pytest.mark.parametrize("case", LEAN)
def test_a_call_moves_few_bytes_in_few_launches(standin, rng, case):
    x_shape, w_shape, parameters, most, launches = LEAN[case]
    x, w = (draw(rng, shape, "float32") for shape in (x_shape, w_shape))
    dy = draw(rng, conv(x, w, **parameters).shape, "float32")
    calls = {
        "y": (lambda x, w, _: conv(x, w, **parameters), (x, w)),
        "dx": (lambda _, w, dy: conv_input_grad(dy, w, input_size=x_shape[2:], **parameters), (w, dy)),
        "dw": (lambda x, _, dy: conv_weight_grad(dy, x, kernel_size=w_shape[2:], **parameters), (x, dy)),
    }
    arrays = [standin.array(one) for one in (x, w, dy)]
    for (call, read), ratio in zip(calls.values(), most, strict=True):
        call(*arrays)
        with standin.here(), trace() as traced:
            result = call(*arrays)
        ideal = result.nbytes + sum(one.nbytes for one in read)
        assert traced.bytes <= ratio * ideal
        assert not {"sync", "h2d"} & traced.keys()
        assert traced.total() <= launches
        expected = call(x, w, dy)
        assert np.max(np.abs(standin.numpy(result) - expected)) <= 1e-5 * np.max(np.abs(expected))


def test_plans_for_a_gpu_are_not_plans_for_threads(standin):
    x, w = (standin.array(np.ones(shape, "float32")) for shape in ((32, 64, 56, 56), (64, 64, 3, 3)))
    for contraction in explain(x, w, padding=1).contractions:
        assert (contraction.parts, contraction.threads) == (1, 1)
        assert 64 * MIB < contraction.workspace <= 1024 * MIB
    with options(workspace=64 * MIB):
        for contraction in explain(x, w, padding=1).contractions:
            assert contraction.parts <= 6  # as few as the workspace allows
            assert contraction.workspace <= 64 * MIB


def test_a_block_as_large_as_the_workspace_keeps_to_it():
    """Wherever a block of half the workspace does."""
    geometries = [
        parse((8, 64, 56, 56), (64, 64, 3, 3), 1, 1, 1, 1),
        parse((64, 512, 7, 7), (512, 512, 3, 3), 1, 1, 1, 1),
        parse((64, 256, 56, 56), (64, 256, 1, 1), 1, 0, 1, 1),
        parse((1, 1, 1500, 1500), (1, 1, 201, 201), 1, 0, 1, 1),
        parse((8, 96, 56, 56), (96, 1, 7, 7), 1, 3, 1, 96),
    ]
    for geometry, slot, workspace, copies in product(
        geometries, "yxw", (4 * MIB, 64 * MIB, 2**30), (Copies(), Copies(3, 1))
    ):

        def fitting(block, copies=copies, workspace=workspace, geometry=geometry, slot=slot):
            limits = Limits(8, workspace, block, UNLIMITED, threaded=False, check_finite=False, copies=copies)
            try:
                return {way.name for way in ways(geometry, slot, Wanted(limits, gpu=True)) if not way.rewritten}
            except ValueError:
                return set()

        assert fitting(workspace // 2) <= fitting(workspace)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_multiplied_as_they_are(standin, rng, dtype):
    """In one product of two matrices, which sums in float32; the result is rounded once."""
    dtype = np.dtype(dtype if dtype == "float16" else ml_dtypes.bfloat16)
    x, w = draw(rng, (8, 64, 28, 28), "float32").astype(dtype), draw(rng, (64, 64, 3, 3), "float32").astype(dtype)
    dy = draw(rng, (8, 64, 28, 28), "float32").astype(dtype)
    tx, tw, tdy = (torch.from_numpy(one.astype("float64")) for one in (x, w, dy))
    tx.requires_grad_()
    tw.requires_grad_()
    ty = torch.nn.functional.conv2d(tx, tw, padding=1)
    ty.backward(tdy)
    gx, gw, gdy = map(standin.array, (x, w, dy))
    calls = {
        "y": (lambda: conv(gx, gw, padding=1), ty.detach()),
        "dx": (lambda: conv_input_grad(gdy, gw, input_size=(28, 28), padding=1), tx.grad),
        "dw": (lambda: conv_weight_grad(gdy, gx, kernel_size=(3, 3), padding=1), tw.grad),
    }
    for call, expected in calls.values():
        with standin.here(), trace() as traced:
            result = call()
        assert (traced["gemm"], traced["gemm-strided"], traced["gemm-pointers"]) == (1, 0, 0)
        assert traced.bytes <= 14 * (gx.nbytes + gw.nbytes + gdy.nbytes)
        assert result.dtype == dtype
        values = expected.numpy()
        error, terms = np.abs(standin.numpy(result).astype("float64") - values), 8 * 28 * 28
        summing = math.sqrt(terms) * 2**-23 * np.max(np.abs(values))
        assert np.all(error <= float(ml_dtypes.finfo(dtype).eps) * np.abs(values) + summing)


@pytest.mark.parametrize("backend_name", ["numpy", "cupy:standin"])
@pytest.mark.parametrize("case", [((1, 2, 200, 200), (2, 2, 61, 61)), ((16, 256, 56, 56), (256, 256, 3, 3))])
def test_the_word_that_numbers_are_finite_allows_every_algorithm(request, backend_name, case):
    found = [backend for backend in request.config.backends if backend.name.startswith(backend_name)]
    if not found:
        pytest.skip(f"without {backend_name}")
    like = [found[0].array(np.ones(shape, "float32")) for shape in case]

    def ways():
        return {way for one in explain(*like).contractions for way in (one.algorithm, *one.others)}

    before = ways()
    with options(finite=True):
        after = ways()
    spreading = ("Fourier", "Winograd", "Banded")
    assert any(name in algorithm for algorithm in after for name in spreading)
    if backend_name == "cupy:standin":
        assert not any(name in algorithm for algorithm in before for name in spreading)


def test_nothing_is_checked_where_the_caller_gave_the_word(rng):
    """NaN then spreads; without the word it stays where it belongs."""
    x, w = draw(rng, (1, 3, 40, 40), "float32"), draw(rng, (4, 3, 3, 3), "float32")
    x[0, 0, 0, 0] = np.nan
    with options(method="winograd"):
        assert np.isnan(conv(x, w)).sum() == 4
        with options(finite=True):
            assert np.isnan(conv(x, w)).sum() > 4
    with options(finite=True), options(method="lowering"):
        assert np.isnan(conv(x, w)).sum() == 4


def test_finite_is_true_or_false():
    with pytest.raises(TypeError, match="finite must be True or False: got 1"), options(finite=1):
        pass


def test_a_direct_sum_is_chosen_for_depthwise_layers_only_where_there_are_kernels():
    geometry = parse((8, 96, 56, 56), (96, 1, 7, 7), 1, 3, 1, 96)
    limits = Limits(4, 2**30, 2**30, threaded=False, check_finite=False)
    for slot in "yxw":
        names = [
            {piece.plan.basis.name for piece in choose(geometry, slot, wanted).pieces}
            for wanted in (Wanted(limits, may_spread=False, gpu=True, kernels=kernels) for kernels in (True, False))
        ]
        assert names == [{"direct"}, {"lowering"}]
    dense = parse((8, 64, 56, 56), (64, 64, 3, 3), 1, 1, 1, 1)
    for slot in "yxw":
        chosen = choose(dense, slot, Wanted(limits, may_spread=False, gpu=True, kernels=True))
        assert {piece.plan.basis.name for piece in chosen.pieces} == {"lowering"}


def test_direct_is_refused_where_there_are_no_kernels(rng):
    with options(method="direct"), pytest.raises(ValueError, match=r'method must be "auto" or "lowering".*CuPy'):
        conv(draw(rng, (1, 1, 8), "complex64"), draw(rng, (1, 1, 3), "complex64"))


def test_samples_by_themselves_keep_the_values(standin, rng):
    """Of several groups, strides and 1x1, where each sample has a product of its own."""
    for x_shape, w_shape, parameters in (
        ((3, 32, 9, 8), (32, 16, 3, 3), {"groups": 2, "stride": 2, "padding": 1}),
        ((3, 32, 9, 8), (64, 32, 1, 1), {}),
        ((3, 64, 40), (64, 32, 1), {"groups": 2}),
        ((1, 32, 9, 8), (64, 32, 1, 1), {}),
    ):
        x, w = (draw(rng, shape, "float64") for shape in (x_shape, w_shape))
        y = conv(x, w, **parameters)
        dy, bias = draw(rng, y.shape, "float64"), draw(rng, y.shape[1:2], "float64")
        calls = (
            (partial(conv, **parameters), (x, w, bias)),
            (partial(conv_input_grad, input_size=x_shape[2:], **parameters), (dy, w)),
            (partial(conv_weight_grad, kernel_size=w_shape[2:], **parameters), (dy, x)),
        )
        for call, arrays in calls:
            expected = call(*arrays)
            result = standin.numpy(call(*map(standin.array, arrays)))
            assert result.flags.c_contiguous
            terms = math.prod(w_shape[1:]) * x_shape[0] * math.prod(y.shape[2:])
            np.testing.assert_allclose(result, expected, rtol=0, atol=terms * 1e-16 * np.max(np.abs(expected)))
