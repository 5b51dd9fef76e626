"""Forward and every gradient against the trilinear form as written (oracle.py), on every backend."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from cases import Case
from support import assert_within, draw

from xpconv import conv, conv_backward, conv_input_grad, conv_weight_grad

CASES = {
    "1-D": Case((2, 3, 7), (4, 3, 3)),
    "2-D": Case((2, 2, 5, 6), (3, 2, 2, 3)),
    "3-D": Case((1, 2, 3, 4, 3), (2, 2, 2, 2, 3), padding=1),
    "4-D": Case((1, 2, 3, 2, 3, 2), (2, 1, 2, 2, 2, 1), groups=2),
    "5-D": Case((2, 1, 2, 3, 2, 2, 3), (2, 1, 2, 2, 1, 2, 2), stride=(1, 1, 1, 1, 2)),
    "no spatial axes": Case((3, 4), (2, 4)),
    "stride": Case((2, 2, 9, 8), (3, 2, 3, 2), stride=(3, 2)),
    "stride over kernel": Case((2, 2, 11), (3, 2, 2), stride=4),
    "stride over input": Case((1, 2, 4, 5), (1, 2, 2, 2), stride=1000),
    "stride that does not divide": Case((2, 1, 8, 8), (2, 1, 3, 3), stride=2),
    "kernel over output": Case((1, 2, 9, 12), (2, 2, 8, 5), stride=(1, 3), dilation=(1, 2)),
    "dilation": Case((2, 2, 9, 7), (2, 2, 3, 2), dilation=(3, 2)),
    "padding": Case((2, 2, 4, 3), (2, 2, 3, 3), padding=(2, 1)),
    "uneven padding": Case((2, 2, 4, 3), (2, 2, 3, 2), padding=[(0, 2), (3, 0)]),
    "padding over kernel": Case((1, 2, 2), (2, 2, 2), padding=5, stride=3),
    "cropping": Case((1, 2, 6, 7), (2, 2, 2, 2), padding=[(-1, 0), (1, -2)]),
    "valid": Case((1, 2, 5), (2, 2, 2), padding="valid", sides=((0, 0),)),
    "same": Case((2, 2, 7, 6), (2, 2, 4, 3), stride=(2, 3), padding="same", sides=((1, 2), (0, 0))),
    "same lower": Case((2, 2, 7, 6), (2, 2, 4, 3), stride=(2, 4), padding="same_lower", sides=((2, 1), (1, 0))),
    "groups": Case((2, 6, 5), (4, 3, 2), groups=2),
    "depthwise": Case((2, 3, 5, 4), (3, 1, 2, 2), groups=3, padding=1),
    "depthwise with multiplier": Case((2, 3, 5, 4), (6, 1, 3, 2), groups=3),
    "pointwise": Case((2, 3, 4, 5), (4, 3, 1, 1)),
    "kernel as large as input": Case((2, 2, 4, 3), (3, 2, 4, 3)),
    "one of everything": Case((1, 1, 1, 1), (1, 1, 1, 1)),
    "all at once": Case((2, 4, 8, 7), (6, 2, 3, 2), stride=(2, 3), padding=[(1, 2), (0, 3)], dilation=(2, 3), groups=2),
}

# Every geometry in two dtypes, and every dtype in three geometries.
VALUES = [
    *product(CASES, ("float64", "complex64")),
    *product(("3-D", "same", "all at once"), ("float32", "complex128", "int64", "int32", "int16", "int8", "uint8")),
]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(("name", "dtype"), VALUES)
def test_against_the_loop(backend, rng, name, dtype):
    case = CASES[name]
    shapes = (case.y, case.x, case.w, case.w[:1])
    operands = [draw(rng, shape, dtype) for shape in shapes]
    before = [operand.copy() for operand in operands]
    dy, x, w, bias = map(backend.array, operands)

    y = conv(x, w, bias, **case.parameters)
    plain = conv(x, w, **case.parameters)
    dx, dw, db = conv_backward(dy, x, w, **case.parameters)

    expected = case.expected(*operands)
    magnitude = case.expected(*(np.abs(operand) for operand in operands))
    taps, positions = int(np.prod(case.w[2:])), case.x[0] * int(np.prod(case.y[2:]))
    columns, filters = case.w[1] * taps, case.w[0] // case.groups * taps
    for result, *rest in (
        (y, expected.y, magnitude.y, columns + 1),
        (plain, case.expected(*operands[:3]).y, magnitude.y, columns),
        (dx, expected.dx, magnitude.dx, filters),
        (dw, expected.dw, magnitude.dw, positions),
        (db, expected.db, magnitude.db, positions),
    ):
        values = backend.numpy(result)
        assert values.dtype == np.dtype(dtype)
        assert_within(values, *rest)
    for operand, copy in zip(operands, before, strict=True):
        assert operand.tobytes() == copy.tobytes()
    for operand, copy in zip((dy, x, w, bias), before, strict=True):
        assert backend.numpy(operand).tobytes() == copy.tobytes()


@pytest.mark.writable_too
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_single_gradients_are_those_of_conv_backward(backend, rng, case):
    dy, x, w = (backend.array(draw(rng, shape, "float64")) for shape in (case.y, case.x, case.w))
    before = [backend.numpy(array).tobytes() for array in (dy, x, w)]
    both = conv_backward(dy, x, w, **case.parameters)
    dx = conv_input_grad(dy, w, input_size=case.x[2:], **case.parameters)
    dw = conv_weight_grad(dy, x, kernel_size=case.w[2:], **case.parameters)
    np.testing.assert_array_equal(backend.numpy(dx), backend.numpy(both.dx))
    np.testing.assert_array_equal(backend.numpy(dw), backend.numpy(both.dweight))
    for array, copy in zip((dy, x, w), before, strict=True):
        assert backend.numpy(array).tobytes() == copy


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_without_a_batch_axis(backend, rng, case):
    case = case._replace(x=(1, *case.x[1:]))
    dy, x, w, bias = (draw(rng, shape, "float64") for shape in (case.y, case.x, case.w, case.w[:1]))
    weight, bias = backend.array(w), backend.array(bias)
    batch = {"dy": backend.array(dy), "x": backend.array(x)}
    single = {"dy": backend.array(dy[0]), "x": backend.array(x[0])}
    calls = [
        lambda a: conv(a["x"], weight, bias, **case.parameters),
        lambda a: conv_backward(a["dy"], a["x"], weight, **case.parameters).dx,
        lambda a: conv_input_grad(a["dy"], weight, input_size=case.x[2:], **case.parameters),
    ]
    for call in calls:
        np.testing.assert_array_equal(backend.numpy(call(single)), backend.numpy(call(batch))[0])
    same = [
        lambda a: conv_backward(a["dy"], a["x"], weight, **case.parameters).dweight,
        lambda a: conv_backward(a["dy"], a["x"], weight, **case.parameters).dbias,
        lambda a: conv_weight_grad(a["dy"], a["x"], kernel_size=case.w[2:], **case.parameters),
    ]
    for call in same:
        np.testing.assert_array_equal(backend.numpy(call(single)), backend.numpy(call(batch)))


@pytest.mark.parametrize(
    ("x", "w"),
    [
        ((0, 2, 5, 4), (3, 2, 2, 2)),  # no samples
        ((2, 0, 5, 4), (3, 0, 2, 2)),  # no input channels: nothing to sum, so zero (and the bias)
        ((2, 2, 5, 4), (0, 2, 2, 2)),  # no output channels
        ((0, 0, 5), (0, 0, 2)),
        ((2, 0, 0), (0, 0, 2)),  # not even positions
        ((2, 0, 0), (3, 0, 2)),
        ((2, 2, 0), (0, 2, 2)),
    ],
)
def test_of_nothing(backend, rng, x, w):
    case = Case(x, w, padding=1)
    dy, x, w, bias = (draw(rng, shape, "float64") for shape in (case.y, x, w, w[:1]))
    expected = case.expected(dy, x, w, bias)
    results = (
        conv(backend.array(x), backend.array(w), backend.array(bias), padding=1),
        *conv_backward(*map(backend.array, (dy, x, w)), padding=1),
    )
    for result, values in zip(results, expected, strict=True):
        result = backend.numpy(result)
        assert result.shape == values.shape
        np.testing.assert_allclose(result, values, rtol=0, atol=1e-14)


def test_an_input_of_padding_alone(backend):
    # The input has no rows at all: every window sees zeros.
    x, w = backend.array(np.zeros((1, 1, 0, 2))), backend.array(np.ones((1, 1, 2, 2)))
    y = conv(x, w, padding=[(1, 1), (0, 0)])
    np.testing.assert_array_equal(backend.numpy(y), [[[[0.0]]]])
    dx, dw, _ = conv_backward(y, x, w, padding=[(1, 1), (0, 0)])
    assert dx.shape == (1, 1, 0, 2)
    np.testing.assert_array_equal(backend.numpy(dw), np.zeros((1, 1, 2, 2)))


@pytest.mark.writable_too
@pytest.mark.usefixtures("blocks")
def test_views_of_any_strides(backend, rng):
    xp, parameters = backend.xp, {"stride": 2, "padding": "same"}
    x, w = draw(rng, (2, 3, 7, 6), "float64"), draw(rng, (4, 3, 3, 2), "float64")
    dy = draw(rng, conv(x, w, **parameters).shape, "float64")
    expected = (conv(x, w, **parameters), *conv_backward(dy, x, w, **parameters))

    def transposed(values):
        return xp.permute_dims(backend.array(np.ascontiguousarray(values.T)), tuple(reversed(range(values.ndim))))

    def sparse(values):
        wide = np.full([2 * n + 1 for n in values.shape], np.nan)
        every_other = (slice(1, None, 2),) * values.ndim
        wide[every_other] = values
        return backend.array(wide)[every_other]

    def flipped(values):
        return xp.flip(backend.array(np.ascontiguousarray(np.flip(values))))

    def repeated(values):
        return xp.broadcast_to(backend.array(values)[None, ...], (3, *values.shape))[1, ...]

    for view in (transposed, sparse, flipped, repeated):
        operands = [view(values) for values in (dy, x, w)]
        results = (conv(*operands[1:], **parameters), *conv_backward(*operands, **parameters))
        for result, values in zip(results, expected, strict=True):
            np.testing.assert_allclose(backend.numpy(result), values, rtol=1e-13, atol=1e-13)


@pytest.mark.writable_too
def test_one_broadcast_value_for_all(backend):
    xp = backend.xp
    x = xp.broadcast_to(backend.array(np.ones((1, 1, 1, 1))), (2, 3, 5, 5))
    w = xp.broadcast_to(backend.array(np.ones((1, 1, 1, 1))), (4, 3, 3, 3))
    np.testing.assert_array_equal(backend.numpy(conv(x, w)), np.full((2, 4, 3, 3), 27.0))
    dx, dw, db = conv_backward(xp.broadcast_to(backend.array(np.ones((1, 1, 1, 1))), (2, 4, 3, 3)), x, w)
    assert float(backend.numpy(dx)[0, 0, 2, 2]) == 36.0
    np.testing.assert_array_equal(backend.numpy(dw), np.full((4, 3, 3, 3), 18.0))
    np.testing.assert_array_equal(backend.numpy(db), np.full(4, 18.0))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_inf_reach_just_the_windows_that_see_them(backend, value):
    x = np.ones((1, 2, 6, 7))
    x[0, 1, 3, 2] = value
    y = backend.numpy(conv(backend.array(x), backend.array(np.ones((3, 2, 2, 3))), padding=1))
    reached = np.zeros_like(y, dtype=bool)
    reached[:, :, 3:5, 1:4] = True
    np.testing.assert_array_equal(~np.isfinite(y), reached)

    dy = np.ones((1, 3, 7, 7))
    dy[0, 2, 4, 5] = value
    dx = backend.numpy(
        conv_input_grad(backend.array(dy), backend.array(np.ones((3, 2, 2, 3))), input_size=(6, 7), padding=1)
    )
    reached = np.zeros_like(dx, dtype=bool)
    reached[:, :, 3:5, 4:7] = True
    np.testing.assert_array_equal(~np.isfinite(dx), reached)


def test_integers_wrap_around_as_the_library_does(backend):
    x, w = np.full((1, 1, 3), 100, dtype="int8"), np.full((1, 1, 3), 100, dtype="int8")
    y = backend.numpy(conv(backend.array(x), backend.array(w)))
    assert y.dtype == np.int8
    assert y.item() == (30000 + 128) % 256 - 128


def test_large_integers_are_exact(backend):
    x, w = np.full((1, 1, 2), 2**60 + 1), np.asarray([[[1, 3]]])
    assert backend.numpy(conv(backend.array(x), backend.array(w))).item() == 4 * (2**60 + 1)


def test_foreign_byte_order():
    x, w = np.arange(4.0).reshape(1, 1, 4).astype(">f8"), np.asarray([[[-1.0, 1.0]]], dtype=">f8")
    y = conv(x, w)
    results = (y, *conv_backward(y, x, w))
    for result, expected in zip(results, ([[[1, 1, 1]]], [[[-1, 0, 0, 1]]], [[[3, 6]]], [3]), strict=True):
        assert result.dtype == np.dtype("float64")  # the native one
        np.testing.assert_array_equal(result, expected)


def test_a_step_longer_than_the_input_is_one_step(backend):
    x, w = backend.array(np.arange(6.0).reshape(1, 1, 6)), backend.array(np.asarray([[[2.0]]]))
    np.testing.assert_array_equal(backend.numpy(conv(x, w, stride=2**70, dilation=2**70)), [[[0.0]]])
    np.testing.assert_array_equal(backend.numpy(conv(x, w, stride=5, dilation=2**70)), [[[0.0, 10.0]]])


def test_memory_maps_are_arrays(tmp_path):
    x = np.memmap(tmp_path / "x", dtype="float64", mode="w+", shape=(1, 1, 4))
    x[:] = [0, 1, 4, 9]
    y = conv(x, np.asarray([[[-1.0, 1.0]]]))
    assert type(y) is np.ndarray
    np.testing.assert_array_equal(y, [[[1, 3, 5]]])
