"""Every algorithm in every slot: by the oracle, by the contract of precision, and in what it does to NaN."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from itertools import product

import array_api_compat
import numpy as np
import oracle
import pytest
import torch
from support import draw

from xpconv import conv, conv_backward, conv_input_grad, conv_weight_grad, options
from xpconv._algorithms import contract, contractions
from xpconv._algorithms.banded import Banded
from xpconv._algorithms.choose import Wanted, choose
from xpconv._algorithms.flat import Flat
from xpconv._algorithms.fourier import Fourier
from xpconv._algorithms.lowering import Lowering, TapsFirst
from xpconv._algorithms.plan import BUFFERS, Limits, plan
from xpconv._algorithms.split import Split
from xpconv._algorithms.weight import Weight
from xpconv._algorithms.winograd import Winograd
from xpconv._spec.geometry import parse

# A basis, and the shapes and parameters of a convolution that it can do; tiles that divide the output and that do not.
CASES = [
    (Lowering(), (2, 4, 7, 6), (6, 2, 3, 2), {"stride": (2, 1), "padding": 2, "groups": 2}),
    (Lowering(), (2, 3, 9), (2, 3, 3), {"stride": 4, "dilation": 3, "padding": 1}),
    (TapsFirst(), (2, 4, 7, 6), (6, 2, 3, 2), {"stride": (2, 1), "padding": 2, "groups": 2}),
    (TapsFirst(), (2, 3, 9), (2, 3, 3), {"dilation": 3, "padding": 1}),
    (Flat(), (2, 4, 7, 6), (6, 2, 3, 2), {"stride": (2, 1), "dilation": (1, 2), "padding": 2, "groups": 2}),
    (Flat(), (2, 3, 4, 5, 3), (3, 1, 2, 3, 2), {"padding": (0, 1, 1), "groups": 3}),
    (Winograd((2, 2)), (2, 4, 6, 7), (6, 2, 3, 3), {"padding": 1, "groups": 2}),
    (Winograd((4, 4)), (1, 2, 8, 11), (3, 2, 3, 3), {}),
    (Winograd((4,)), (3, 2, 9), (2, 2, 3), {"padding": 2}),
    (Winograd((2, 4, 1)), (1, 2, 4, 7, 3), (2, 2, 3, 3, 1), {"padding": (1, 1, 0)}),
    (Winograd((2, 2)), (1, 2, 7, 6), (2, 2, 5, 3), {"padding": (2, 1)}),
    (Banded(4), (2, 4, 7, 9), (6, 2, 3, 2), {"stride": (1, 2), "padding": 1, "groups": 2}),
    (Banded(3), (2, 3, 8, 10), (3, 1, 3, 3), {"dilation": 2, "padding": 2, "groups": 3}),
    (Banded(5), (2, 2, 5), (3, 2, 1), {}),
    (Banded(4), (2, 2, 9, 8), (4, 1, 2, 1), {"stride": (2, 1), "dilation": (2, 1), "groups": 2}),
    (Fourier((8, 10)), (2, 4, 9, 8), (6, 2, 3, 4), {"padding": 2, "groups": 2}),
    (Fourier((6, 5)), (1, 2, 9, 8), (3, 2, 2, 3), {"stride": (2, 1), "dilation": (3, 1), "padding": (1, 0)}),
    (Fourier((16,)), (2, 3, 40), (3, 1, 7), {"groups": 3}),
    (Split(3), (2, 4, 7, 12), (6, 2, 2, 6), {"stride": (2, 1), "dilation": (1, 2), "padding": 2, "groups": 2}),
    (Split(4), (2, 3, 20), (2, 3, 12), {"padding": 3}),
]
WAYS = ["one part", "many parts"]


def planned(case, slot, way, dtype):
    basis, x_shape, w_shape, parameters = case
    whole = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **parameters}
    geometry = parse(x_shape, w_shape, *(whole[name] for name in ("stride", "padding", "dilation", "groups")))
    item_bytes = np.dtype(dtype).itemsize
    one = plan(geometry, slot, basis, Limits(item_bytes, 2**26, 2**26))
    if way == "one part":
        return geometry, one
    # The input's gradient is cut into single inputs otherwise, which are a thousand and all alike.
    block = max((one.part_bytes - BUFFERS) // 16, 500) if slot == "x" else 500
    return geometry, plan(geometry, slot, basis, Limits(item_bytes, 2**26, block))


def expected(geometry, dy, x, w):
    rows = zip(*geometry.axes, strict=True)
    _, _, stride, dilation, lo, *_ = rows
    return oracle.contract(dy, x, w, stride=stride, lo=lo, dilation=dilation, groups=geometry.groups)


@pytest.mark.parametrize("dtype", ["float64", "complex64"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_slot_of_every_algorithm(backend, rng, case, way, dtype):
    geometry, forward = planned(case, "y", way, dtype)
    _, input_grad = planned(case, "x", way, dtype)
    _, weight_grad = planned(case, "w", way, dtype)
    assert all((one.parts.count == 1) == (way == "one part") for one in (forward, input_grad))
    dy, x, w = (draw(rng, shape, dtype) for shape in (geometry.y_shape, geometry.x_shape, geometry.w_shape))
    arrays = [backend.array(operand) for operand in (dy, x, w)]
    before = [backend.numpy(array).tobytes() for array in arrays]
    xp = np if backend.name.startswith("numpy") else backend.xp

    def conj(array):
        return xp.conj(array) if dtype == "complex64" else array

    with backend.here():
        here = {"dtype": arrays[2].dtype, "device": array_api_compat.device(arrays[2])}
        target = contractions.Target(here["dtype"])
        weight, conjugate = Weight(arrays[2]), Weight(conj(arrays[2]))
        results = (
            contractions.forward(forward, arrays[1], weight, None, target, xp=xp),
            contractions.input_grad(input_grad, arrays[0], conjugate, None, target, xp=xp),
            contractions.weight_grad(weight_grad, arrays[0], conj(arrays[1]), xp=xp),
        )
    sums = expected(geometry, dy, x, w)
    for result, values in zip(results, sums, strict=False):
        values_here = backend.numpy(result)
        assert values_here.shape == values.shape
        assert values_here.dtype == np.dtype(dtype)
        # Winograd's tiles of 4 lose about a digit, of the largest number rather than of each.
        bound = 100 * np.finfo(dtype).eps * np.max(np.abs(values))
        assert np.max(np.abs(values_here - values)) <= bound
    for array, copy in zip(arrays, before, strict=True):
        assert backend.numpy(array).tobytes() == copy


@pytest.mark.parametrize("case", CASES, ids=str)
def test_parts_of_the_input_gradient_may_overlap(backend, rng, case):
    """As they do with long kernels: parts of the output, the gradients of which are added up, and a bias once."""
    geometry, forward = planned(case, "y", "many parts", "float64")
    _, input_grad = planned(case, "x", "many parts", "float64")
    parts = replace(input_grad.parts, lengths=forward.parts.lengths, by_input=False)
    input_grad = replace(input_grad, parts=parts, largest=forward.largest, overlapping=True)
    dy, x, w = (draw(rng, shape, "float64") for shape in (geometry.y_shape, geometry.x_shape, geometry.w_shape))
    bias = draw(rng, x.shape[1:2], "float64")
    xp = np if backend.name.startswith("numpy") else backend.xp
    dy_, w_, bias_ = (backend.array(operand) for operand in (dy, w, bias))
    with backend.here():
        dx = contractions.input_grad(input_grad, dy_, Weight(w_), bias_, contractions.Target(dy_.dtype), xp=xp)
    values = expected(geometry, dy, x, w).dx + bias.reshape(-1, *(1,) * (x.ndim - 2))
    assert np.max(np.abs(backend.numpy(dx) - values)) <= 100 * np.finfo("float64").eps * np.max(np.abs(values))


@pytest.mark.parametrize("memory", [(2, 3, 1, 0), (0, 2, 3, 1)], ids=["HWIO", "OHWI"])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_weight_is_read_as_it_lies_in_memory(rng, memory, groups):
    """As TensorFlow and channels-last layouts have it: the same values as of a contiguous weight, and no copy of it."""
    x, w, dy = (rng.standard_normal(shape) for shape in ((1, 32, 3, 2), (256, 32 // groups, 3, 3), (1, 256, 3, 2)))
    there = np.ascontiguousarray(w.transpose(memory)).transpose(np.argsort(memory))
    assert there.strides != w.strides
    calls = {
        "y": lambda weight: conv(x, weight, padding=1, groups=groups),
        "x": lambda weight: conv_input_grad(dy, weight, input_size=(3, 2), padding=1, groups=groups),
    }
    sums = oracle.contract(dy, x, w, stride=(1, 1), lo=(1, 1), dilation=(1, 1), groups=groups)
    with options(method="lowering"):
        for call, values in zip(calls.values(), (sums.y, sums.dx), strict=True):
            assert np.max(np.abs(call(there) - values)) <= 1e-12 * np.max(np.abs(values))
        tracemalloc.start()
        try:
            calls["y"](there)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < w.nbytes // 2


METHODS = {
    "lowering": [((2, 6, 11, 9), (8, 3, 3, 2), {"stride": (2, 3), "dilation": (1, 2), "padding": 2, "groups": 2})],
    "winograd": [
        ((2, 6, 11, 9), (8, 3, 3, 3), {"padding": 1, "groups": 2}),
        ((2, 6, 30), (8, 6, 5), {"padding": "same"}),
        ((1, 4, 6, 7, 8), (2, 4, 3, 3, 3), {}),
    ],
    "banded": [
        ((2, 6, 11, 9), (6, 1, 3, 3), {"stride": 2, "padding": 1, "groups": 6}),
        ((2, 6, 11, 9), (6, 1, 3, 2), {"stride": (3, 1), "dilation": (2, 3), "padding": 3, "groups": 6}),
    ],
    "fft": [
        ((2, 6, 21, 19), (6, 1, 13, 12), {"padding": 6, "groups": 6}),
        ((2, 4, 60), (6, 2, 9), {"stride": 3, "dilation": 4, "padding": 5, "groups": 2}),
    ],
}
BY_METHOD = [(method, *case) for method, cases in METHODS.items() for case in cases]


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize(("method", "x_shape", "w_shape", "parameters"), BY_METHOD)
def test_methods_by_name(backend, rng, method, x_shape, w_shape, parameters, dtype):
    plain = options(method="lowering")
    x, w = draw(rng, x_shape, "complex128"), draw(rng, w_shape, "complex128")
    if np.dtype(dtype).kind == "f":
        x, w = x.real, w.real
    with plain:  # checked by the loop in float64 elsewhere
        dy = draw(rng, conv(x, w, **parameters).shape, x.dtype.name)
        sums = conv(x, w, **parameters), *conv_backward(dy, x, w, **parameters)
    arrays = [backend.array(operand.astype(dtype)) for operand in (dy, x, w)]
    with options(method=method):
        results = (
            conv(*arrays[1:], **parameters),
            conv_input_grad(arrays[0], arrays[2], input_size=x_shape[2:], **parameters),
            conv_weight_grad(*arrays[:2], kernel_size=w_shape[2:], **parameters),
        )
    for result, values in zip(results, sums, strict=False):
        values_here = backend.numpy(result)
        assert values_here.dtype == np.dtype(dtype)
        assert np.max(np.abs(values_here - values)) <= 100 * np.finfo(dtype).eps * np.max(np.abs(values))


def tensors(rng, x_shape, w_shape, parameters):
    """Operands of zero mean and what torch makes of them in float64."""
    x, w = (torch.from_numpy(rng.standard_normal(shape)).requires_grad_() for shape in (x_shape, w_shape))
    y = getattr(torch.nn.functional, f"conv{len(x_shape) - 2}d")(x, w, **parameters)
    dy = torch.from_numpy(rng.standard_normal(y.shape))
    dx, dw = torch.autograd.grad(y, (x, w), dy)
    return [a.detach().numpy() for a in (dy, x, w)], [a.detach().numpy() for a in (y, dx, dw)]


PRECISE = [
    ("lowering", (2, 48, 20, 20), (32, 48, 3, 3), {"padding": 1}),
    ("winograd", (2, 48, 20, 20), (32, 48, 3, 3), {"padding": 1}),
    ("winograd", (1, 3, 40, 40), (4, 3, 3, 3), {"padding": 1}),
    ("winograd", (2, 24, 25, 25), (16, 24, 5, 5), {"padding": 2}),
    ("winograd", (1, 8, 12, 12, 12), (8, 8, 3, 3, 3), {"padding": 1}),
    ("winograd", (2, 16, 500), (16, 16, 3), {"padding": 1}),
    ("winograd", (2, 16, 500), (16, 16, 5), {"padding": 2}),
    ("banded", (2, 32, 30, 30), (32, 1, 7, 7), {"padding": 3, "groups": 32}),
    ("fft", (2, 16, 30, 30), (16, 1, 31, 31), {"padding": 15, "groups": 16}),
    ("fft", (2, 16, 600), (16, 16, 100), {}),
    ("auto", (2, 32, 28, 28), (64, 32, 3, 3), {"padding": 1}),
]


@pytest.mark.parametrize(("method", "x_shape", "w_shape", "parameters"), PRECISE)
@pytest.mark.parametrize(
    ("dtype", "precision", "contract"),
    [("float32", "auto", 2e-5), ("float32", "highest", 2e-6), ("float64", "auto", 1e-13)],
)
def test_the_contract_of_precision(backend, rng, method, x_shape, w_shape, parameters, dtype, precision, contract):
    if method == "winograd" and precision == "highest" and 5 in w_shape[2:]:
        method = "auto"  # which does without it then
    operands, values = tensors(rng, x_shape, w_shape, parameters)
    dy, x, w = (backend.array(operand.astype(dtype)) for operand in operands)
    rounded = [operand.astype(dtype).astype("float64") for operand in operands]
    with options(method="lowering"):
        values = (
            (
                conv(*rounded[1:], **parameters),
                conv_input_grad(rounded[0], rounded[2], input_size=x_shape[2:], **parameters),
                conv_weight_grad(*rounded[:2], kernel_size=w_shape[2:], **parameters),
            )
            if dtype == "float32"
            else values
        )
    with options(method=method, precision=precision):
        results = (
            conv(x, w, **parameters),
            conv_input_grad(dy, w, input_size=x_shape[2:], **parameters),
            conv_weight_grad(dy, x, kernel_size=w_shape[2:], **parameters),
        )
    for result, exact in zip(results, values, strict=True):
        assert np.max(np.abs(backend.numpy(result) - exact)) <= contract * np.max(np.abs(exact))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e308])
@pytest.mark.parametrize(("method", "x_shape", "w_shape", "parameters"), BY_METHOD)
def test_nan_and_infinities_stay_where_lowering_puts_them(backend, rng, method, x_shape, w_shape, parameters, value):
    """In an operand that holds one, and where only the algorithm's own intermediate numbers would overflow.

    Where looking at values means to wait for a device nobody looks. There an algorithm that is asked for by name takes
    them further, and never loses them.
    """
    operands = [np.abs(draw(rng, shape, "float64")) + 0.5 for shape in (x_shape, w_shape)]
    operands.insert(0, np.ones_like(conv(*operands, **parameters)))
    for spoilt in range(3):
        dy, x, w = (operand.copy() for operand in operands)
        one = (dy, x, w)[spoilt]
        one[tuple(size // 2 for size in one.shape)] = value
        if value == 1e308:
            (x if spoilt != 1 else w)[...] *= 0.5**8
        both = []
        for name in ("lowering", method):
            arrays = [backend.array(operand) for operand in (dy, x, w)]
            with options(method=name), np.errstate(all="ignore"):
                y = conv(*arrays[1:], **parameters)
                dx, dw, _ = conv_backward(*arrays, **parameters)
            both.append([backend.numpy(result) for result in (y, dx, dw)])
        for plain, result in zip(*both, strict=True):
            if backend.can_look:
                np.testing.assert_array_equal(np.isfinite(result), np.isfinite(plain))
                np.testing.assert_array_equal(np.isnan(result), np.isnan(plain))
            assert not np.any(np.isfinite(result) & ~np.isfinite(plain))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("tap", [0, 1])
def test_a_weight_that_is_not_finite_reaches_what_meets_its_tap(backend, value, tap):
    # dx[i] = dy[i] w[0] + dy[i - 1] w[1], and beyond dy there is nothing: not even zeros.
    w = np.ones((1, 1, 2))
    w[0, 0, tap] = value
    expected = np.asarray([True, False, False, False, False] if tap else [False, False, False, False, True])
    for method in ("auto", "lowering", "banded", "fft"):
        with options(method=method):
            dx = conv_input_grad(backend.array(np.ones((1, 1, 4))), backend.array(w), input_size=5)
        finite = np.isfinite(backend.numpy(dx))[0, 0]
        if backend.can_look:
            np.testing.assert_array_equal(finite, expected)
        else:  # a weight meets the zeros around dy as well, and nothing is computed again
            assert not np.any(finite & ~expected)


@pytest.mark.parametrize("method", ["winograd", "banded", "fft"])
@pytest.mark.parametrize(
    ("x_shape", "w_shape"), [((1, 0, 6), (2, 0, 3)), ((1, 2, 6), (0, 2, 3)), ((0, 2, 6), (2, 2, 3))]
)
def test_nothing_by_any_method(backend, method, x_shape, w_shape):
    x, w = backend.array(np.ones(x_shape)), backend.array(np.ones(w_shape))
    with options(method=method):
        y = conv(x, w)
        dx, dw, _ = conv_backward(y, x, w)
    for result, shape in ((y, (x_shape[0], w_shape[0], 4)), (dx, x_shape), (dw, w_shape)):
        np.testing.assert_array_equal(backend.numpy(result), np.zeros(shape))


def test_a_method_that_cannot_do_a_gradient_says_so_before_any_work(monkeypatch):
    monkeypatch.setattr(contract, "forward", None)
    x, w = np.ones((1, 1, 20)), np.ones((1, 1, 6))
    with options(method="winograd"), pytest.raises(ValueError, match=r'^method must be "auto" or "lowering"'):
        conv_backward(np.ones((1, 1, 8)), x, w, stride=2)


def test_no_part_takes_more_than_the_plan_says():
    for case in [
        ((4, 96, 80, 80), (96, 1, 31, 31), {"padding": 15, "groups": 96}),
        ((1, 1, 400), (1, 1, 3), {"padding": -150}),
        ((2, 3, 50), (3, 3, 5), {"stride": 3, "padding": 7}),
    ]:
        for slot, block in product("yxw", (2**10, 2**17, 2**22)):
            x_shape, w_shape, parameters = case
            whole = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **parameters}
            geometry = parse(x_shape, w_shape, *(whole[n] for n in ("stride", "padding", "dilation", "groups")))
            planned = plan(geometry, slot, Lowering(), Limits(4, 2**26, block))
            for i in range(min(planned.parts.count, 300)):
                part = planned.parts[i].geometry
                x, _, y, *_ = Lowering().footprint(part)
                padded = part.samples * part.groups * part.inputs * math.prod(part.padded)
                assert 4 * (x + y + padded) <= planned.part_bytes


@pytest.mark.parametrize("installed", [True, False])
def test_fourier_transforms_of_scipy_or_numpy(rng, monkeypatch, installed):
    asked = []

    class Transforms:
        def __getattr__(self, name):
            asked.append(name)
            return getattr(np.fft, name)

    monkeypatch.setattr("xpconv._arrays.namespace._scipy_fft", lambda: Transforms() if installed else None)
    x, w = rng.standard_normal((1, 2, 50)), rng.standard_normal((2, 2, 20))
    with options(method="lowering"):
        expected = conv(x, w)
    with options(method="fft"):
        assert np.max(np.abs(conv(x, w) - expected)) < 1e-13 * np.max(np.abs(expected))
    assert set(asked) == ({"rfftn", "irfftn"} if installed else set())


def wanted(**changes):
    return Wanted(Limits(4, 2**26, 2**23, 2**62), True, True, True, "auto", "auto")._replace(**changes)


def names(geometry, **changes):
    chosen = [choose(geometry, slot, wanted(**changes)) for slot in "yxw"]
    return [piece.plan.basis.name for choice in chosen for piece in choice.pieces]


def test_each_algorithm_is_chosen_where_it_is_made_for():
    assert names(parse((8, 64, 56, 56), (64, 64, 1, 1), 1, 0, 1, 1)) == ["lowering"] * 3
    assert names(parse((8, 128, 56, 56), (128, 128, 3, 3), 1, 1, 1, 1))[0] == "winograd"
    assert names(parse((1, 1, 100_000), (1, 1, 5000), 1, 0, 1, 1)) == ["fft"] * 3
    assert "banded" in names(parse((8, 192, 28, 28), (192, 1, 7, 7), 1, 3, 1, 192))
    assert names(parse((3, 4), (2, 4), 1, 0, 1, 1)) == ["lowering"] * 3


def test_what_is_out_of_the_question_is_not_chosen():
    short = parse((8, 128, 56, 56), (128, 128, 3, 3), 1, 1, 1, 1)
    long = parse((1, 1, 100_000), (1, 1, 5000), 1, 0, 1, 1)
    assert names(short, floating=False) == names(long, floating=False) == ["lowering"] * 3
    # NaN would spread undetected.
    assert names(short, may_spread=False) == names(long, may_spread=False) == ["lowering"] * 3
    assert "fft" not in names(long, fourier=False)
    for choice in (choose(short, slot, wanted(precision="highest", method="winograd")) for slot in "yxw"):
        assert all(max(piece.plan.basis.tile) == 2 for piece in choice.pieces)


@pytest.mark.parametrize(
    ("method", "dtype", "parameters", "sentence"),
    [
        ("winograd", "float32", {"stride": 2}, "real or complex numbers, stride and dilation 1 and 3 or 5 taps"),
        ("winograd", "int32", {}, "real or complex numbers, stride and dilation 1 and 3 or 5 taps"),
        ("banded", "int32", {}, "real or complex numbers over at least one axis"),
        (
            "fft",
            "int32",
            {},
            "real or complex numbers over at least one axis, in a library that has Fourier transforms",
        ),
    ],
)
def test_a_method_that_cannot_do_it_says_so(method, dtype, parameters, sentence):
    x, w = np.ones((1, 1, 9), dtype=dtype), np.ones((1, 1, 3), dtype=dtype)
    start = f'^method must be "auto" or "lowering" for this convolution: got {method!r}, which is for {sentence}'
    with options(method=method), pytest.raises(ValueError, match=start):
        conv(x, w, **parameters)


def test_winograds_tile_is_a_product_of_polynomials_in_fewer_multiplications():
    for tile, taps in ((2, 3), (4, 3), (2, 5), (1, 3), (4, 1)):
        basis = Winograd((tile,))
        geometry = parse((1, 1, tile + taps - 1), (1, 1, taps), 1, 0, 1, 1)
        assert basis.footprint(geometry).products == tile + taps - 1
