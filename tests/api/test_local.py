"""A filter for each place: against the loop, filter by filter, the adjoint law, and torch's tape."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from cases import Case, TransposedCase, placed
from support import whole_numbers

from xpconv import conv, conv_output_size, local_conv, local_conv_backward, local_conv_transpose, options

CASES = {
    "1-D": Case((2, 3, 7), (4, 3, 3), 1, stride=(2,)),
    "all": Case((2, 4, 5, 6), (6, 2, 3, 2), ((1, 0), (0, 2)), stride=(2, 1), dilation=(1, 2), groups=2),
    "no axes": Case((3, 4), (6, 2), (), groups=2),
    "3-D": Case((1, 2, 3, 4, 3), (2, 2, 2, 1, 2), (0, 1, 0), stride=(1, 2, 1)),
    "named": Case((2, 2, 5), (3, 2, 4), "same", ((1, 2),)),
    "cropped": Case((2, 2, 6), (2, 2, 2), ((-1, 2),)),
    "mixed modes": Case((1, 2, 4, 3), (2, 2, 3, 2), 1, padding_mode=("reflect", "circular")),
    "one place": Case((2, 3, 2, 2), (2, 3, 2, 2)),
    "depthwise": Case((2, 3, 4), (3, 1, 2), groups=3),
}
TRANSPOSED = {
    "1-D": TransposedCase((2, 3, 4), (3, 2, 3), (9,), {"stride": 2}),
    "all": TransposedCase(
        (2, 4, 3, 4),
        (4, 3, 3, 2),
        (6, 3),
        {"stride": (2, 1), "padding": (1, 1), "groups": 2, "output_padding": (1, 0)},
        1,
        1,
    ),
    "circular": TransposedCase((1, 2, 4), (2, 2, 3), (4,), {"padding": 1, "padding_mode": "circular"}, 1, 1),
    "no axes": TransposedCase((3, 4), (4, 2), (), {"groups": 2}),
}


def said(case):
    return {name: value for name, value in case.parameters.items() if name != "flip"}


def place_by_place(case, places, masked, dy, x, w, bias):
    """y, dx, dw and db by the loop, with one filter after the other, each at its own place alone."""
    zero = np.zeros_like(bias)
    y, dx, dw = 0, 0, np.zeros(w.shape, np.result_type(w, np.int64))
    db = case.expected(dy, x, w[(..., *(0,) * len(places))], zero).db
    for j in np.ndindex(places):
        here = (..., *j)
        only = np.zeros(places)
        only[j] = 1
        only = only.astype(dy.dtype)
        # In conv the place is one of y, in the transposed convolution one of x.
        sums = (
            case.expected(dy * only, x, w[here], zero) if masked == "y" else case.expected(dy, x * only, w[here], zero)
        )
        y = y + (sums.y * only if masked == "y" else sums.y)
        dx = dx + (sums.dx if masked == "y" else sums.dx * only)
        dw[here] = sums.dw
    return y + bias.reshape(-1, *(1,) * (y.ndim - 2)), dx, dw, db


def drawn(rng, case, places, dtype, most=5):
    dy, x, w, bias = case.shapes
    return [whole_numbers(rng, shape, dtype, most) for shape in (dy, x, (*w, *places), bias)]


@lru_cache
def known(name, dtype, transposed=False, most=5):
    """Operands, and what the loop makes of them: once for all backends."""
    case = (TRANSPOSED if transposed else CASES)[name]
    masked = "x" if transposed else "y"
    places = getattr(case, masked)[2:]
    values = drawn(np.random.default_rng(len(name)), case, places, dtype, most)
    return case, values, place_by_place(case, places, masked, *values)


@pytest.mark.parametrize("dtype", ["float32", "complex128", "int16"])
@pytest.mark.parametrize("name", CASES)
def test_place_by_place(backend, name, dtype):
    case, values, sums = known(name, dtype)
    dy, x, w, bias = map(backend.array, values)
    with options(method="lowering"):
        results = local_conv(x, w, bias, **said(case)), *local_conv_backward(dy, x, w, **said(case))
    for result, expected in zip(results, sums, strict=True):
        result = backend.numpy(result)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, expected.astype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "complex128", "int16"])
@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_place_by_place(backend, name, dtype):
    case, values, sums = known(name, dtype, transposed=True)
    _, x, w, bias = map(backend.array, values)
    with options(method="lowering"):
        result = backend.numpy(local_conv_transpose(x, w, bias, **case.parameters))
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, sums[0].astype(dtype))


@pytest.mark.parametrize("name", CASES)
def test_the_adjoint_law(backend, rng, name):
    case = CASES[name]
    values = drawn(rng, case, case.y[2:], "float64")
    dy, x, w, _ = map(backend.array, values)
    with options(method="lowering"):
        y, (dx, dw, _) = local_conv(x, w, **said(case)), local_conv_backward(dy, x, w, **said(case))
        z = local_conv_transpose(dy, w, output_size=case.x[2:], **said(case)) if case.ndim else dx
    y, dx, dw, z = map(backend.numpy, (y, dx, dw, z))
    law = np.sum(values[0] * y)
    assert law == np.sum(values[1] * dx) == np.sum(values[2] * dw) != 0
    np.testing.assert_array_equal(z, dx)


def test_the_same_filter_everywhere_is_a_convolution(backend, rng):
    x, w, bias = (whole_numbers(rng, shape) for shape in ((2, 3, 8, 7), (4, 3, 3, 2), (4,)))
    out = conv_output_size((8, 7), (3, 2), padding=1)
    everywhere = np.broadcast_to(w[..., None, None], (*w.shape, *out)).copy()
    found = local_conv(*map(backend.array, (x, everywhere, bias)), padding=1)
    np.testing.assert_array_equal(backend.numpy(found), conv(x, w, bias, padding=1))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_16_bits_are_rounded_once(backend, name):
    if (dtype := backend.dtype(name)) is None:
        pytest.xfail(f"{backend.name} has no {name}")
    case, values, (y, dx, dw, db) = known("all", "float32", most=50)  # exact in float32 alone
    with backend.here():
        dy, x, w, bias = (backend.xp.astype(backend.array(one), dtype) for one in values)
    results = [local_conv(x, w, bias, **said(case)), *local_conv_backward(dy, x, w, **said(case))]
    results.append(local_conv_transpose(dy, w, output_size=case.x[2:], **said(case)))
    for result, expected in zip(results, (y, dx, dw, db, dx), strict=True):
        assert result.dtype == dtype
        with backend.here():
            rounded = backend.xp.astype(backend.array(expected.astype("float32")), dtype)
            both = [backend.numpy(backend.xp.astype(one, backend.xp.float32)) for one in (result, rounded)]
        np.testing.assert_array_equal(*both)


@pytest.mark.parametrize(("dtype", "w_dtype"), [("float64", "complex128"), ("complex64", "float32")])
def test_real_numbers_with_complex_ones(backend, rng, dtype, w_dtype):
    case = CASES["all"]
    _, x, _, bias = drawn(rng, case, case.y[2:], dtype)
    dy, _, w, _ = drawn(rng, case, case.y[2:], w_dtype)
    dy = dy.astype(np.result_type(dtype, w_dtype))
    ours = tuple(map(backend.array, (dy, x, w, bias)))
    results = local_conv(*ours[1:], **said(case)), *local_conv_backward(*ours[:3], **said(case))
    for result, expected in zip(results, place_by_place(case, case.y[2:], "y", dy, x, w, bias), strict=True):
        result = backend.numpy(result)
        np.testing.assert_array_equal(result, expected.astype(result.dtype))
    assert [backend.numpy(one).dtype for one in results] == [dy.dtype, dtype, w_dtype, dy.dtype]


def test_a_wider_dtype(backend):
    x, w = (backend.array(np.full(shape, 100, dtype="int8")) for shape in ((1, 1, 3), (1, 1, 2, 2)))
    y = backend.numpy(local_conv(x, w, dtype=backend.xp.int32))
    assert y.dtype == "int32"
    np.testing.assert_array_equal(y, [[[20000, 20000]]])


@pytest.mark.parametrize(("batch", "channel_axis"), [((), -1), ((), 1), ((2, 1), 1), ((2,), -1), ((1, 2), 0)])
def test_axes_as_the_caller_has_them(backend, rng, batch, channel_axis):
    case = CASES["all"]
    if not batch:
        case = case._replace(x=(1, *case.x[1:]))
    dy, x, w, bias = drawn(rng, case, case.y[2:], "float64")
    there = [backend.array(placed(one, batch, channel_axis)) for one in (dy, x)]
    more = {**said(case), "channel_axis": channel_axis}
    expected = local_conv(x, w, bias, **said(case)), *local_conv_backward(dy, x, w, **said(case))
    ours = [backend.array(one) for one in (w, bias)]
    found = local_conv(there[1], *ours, **more), *local_conv_backward(*there, ours[0], **more)
    for i, (one, other) in enumerate(zip(found, expected, strict=True)):
        other = placed(other, batch, channel_axis) if i < 2 else other
        np.testing.assert_array_equal(backend.numpy(one), other)
    z = local_conv_transpose(there[0], ours[0], output_size=case.x[2:], **more)
    np.testing.assert_array_equal(backend.numpy(z), placed(expected[1], batch, channel_axis))


def test_no_samples_and_needs(backend):
    x, w, dy = (backend.array(np.ones(shape)) for shape in ((0, 2, 5), (4, 2, 2, 4), (0, 4, 4)))
    results = local_conv(x, w), *local_conv_backward(dy, x, w)
    assert [backend.numpy(one).shape for one in results] == [(0, 4, 4), (0, 2, 5), (4, 2, 2, 4), (4,)]
    assert not np.any(backend.numpy(results[2]))
    assert [one is None for one in local_conv_backward(dy, x, w, needs=(False, True, False))] == [True, False, True]


# Under torch's transforms.


def test_gradients_on_torchs_tape(rng):
    more = {"stride": 2, "padding": 1, "groups": 2}
    x, w, bias = (
        torch.asarray(rng.standard_normal(shape)).requires_grad_() for shape in ((2, 2, 5), (4, 1, 2, 3), (4,))
    )
    assert torch.autograd.gradcheck(lambda *operands: local_conv(*operands, **more), (x, w, bias))
    assert torch.autograd.gradgradcheck(lambda *operands: local_conv(*operands, **more), (x, w, bias))
    dy = torch.asarray(rng.standard_normal((2, 4, 3))).requires_grad_()
    taped = torch.autograd.grad(local_conv(x, w, bias, **more), (x, w, bias), dy)
    for one, other in zip(taped, local_conv_backward(dy, x, w, **more), strict=True):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradcheck(lambda *operands: local_conv_transpose(*operands, **more), (dy, w))


def test_mapped_and_compiled_by_torch(rng):
    x, w = (torch.asarray(rng.standard_normal(shape)) for shape in ((4, 3, 2, 5), (4, 3, 2, 2, 6)))
    expected = torch.stack([local_conv(a, b, padding=1) for a, b in zip(x, w, strict=True)])
    torch.testing.assert_close(torch.func.vmap(lambda x, w: local_conv(x, w, padding=1))(x, w), expected)
    compiled = torch.compile(lambda x, w: local_conv(x, w, padding=1), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x[0], w[0]), expected[0])
    assert local_conv(x[0].to("meta"), w[0].to("meta"), padding=1).shape == expected[0].shape


# What is wrong, in one sentence.

EVEN = "weight must have an even number of axes, at least 2"
X, W, DY = np.ones((2, 4, 5, 6)), np.ones((3, 4, 2, 2, 4, 5)), np.ones((2, 3, 4, 5))


@pytest.mark.parametrize(
    ("kind", "sentence", "call"),
    [
        (
            ValueError,
            f"{EVEN} (out channels, in channels / groups, *kernel, *out positions): got 5",
            lambda: local_conv(X, W[..., 0]),
        ),
        (
            ValueError,
            f"{EVEN} (in channels, out channels / groups, *kernel, *in positions): got 1",
            lambda: local_conv_transpose(DY, W[0, 0, 0, 0, 0]),
        ),
        (
            ValueError,
            "weight must have shape (3, 4, 2, 2, 5, 6): got (3, 4, 2, 2, 4, 5)",
            lambda: local_conv(X, W, padding=[(1, 0), (0, 1)]),
        ),
        (
            ValueError,
            "weight must have shape (3, 4, 2, 2, 4, 5): got (3, 4, 2, 2, 1, 1)",
            lambda: local_conv_backward(DY, X, W[..., :1, :1]),
        ),
        (ValueError, "weight must have 4 input channels (4 in 1 groups): got 2", lambda: local_conv(X, W[:, :2])),
        (
            ValueError,
            "weight must have 3 input channels, as many as x: got 2",
            lambda: local_conv_transpose(DY, W[:2]),
        ),
        (ValueError, "bias must have shape (3,): got (4,)", lambda: local_conv(X, W, np.ones(4))),
        (ValueError, "bias must have shape (4,): got (3,)", lambda: local_conv_transpose(DY, W, np.ones(3))),
        (ValueError, "dy must have shape (2, 3, 4, 5): got (1, 3, 4, 5)", lambda: local_conv_backward(DY[:1], X, W)),
        (TypeError, "dy must have dtype float64: got float32", lambda: local_conv_backward(DY.astype("f"), X, W)),
        (
            TypeError,
            "needs must be three bools, for dx, dweight and dbias: got True",
            lambda: local_conv_backward(DY, X, W, needs=True),
        ),
        (
            ValueError,
            "output_size must be from 5 to 5 on spatial axis 0: got 9",
            lambda: local_conv_transpose(DY, W, output_size=9),
        ),
    ],
)
def test_bad_input(kind, sentence, call):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == sentence
