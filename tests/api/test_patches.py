"""Windows as columns and back: against torch, a loop, and each other."""

from __future__ import annotations

import tracemalloc
from itertools import product

import array_api_compat
import numpy as np
import pytest
import torch
from cases import NUMPY_MODES
from cases import WindowCase as Case
from families import quiet_torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import whole_numbers

from xpconv import conv, fold, options, unfold

INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


# Against torch.


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize(
    ("size", "kernel", "parameters"),
    [
        ((5, 6), (2, 3), {}),
        ((7, 8), (3, 2), {"stride": (2, 3), "padding": (1, 2), "dilation": (2, 1)}),
        ((4, 4), (3, 3), {"padding": 1}),
        ((5, 4), (1, 1), {}),
        ((9, 9), (2, 2), {"stride": 4, "dilation": 3}),
        ((3, 5), (3, 5), {}),
    ],
)
def test_as_torch(backend, rng, size, kernel, parameters, dtype):
    x = whole_numbers(rng, (2, 3, *size), dtype)
    theirs = torch.nn.functional.unfold(torch.asarray(x, device=backend.torch_device), kernel, **parameters)
    columns = backend.numpy(unfold(backend.array(x), kernel, **parameters))
    assert columns.dtype == x.dtype
    np.testing.assert_array_equal(columns, theirs.cpu().numpy())

    c = whole_numbers(rng, columns.shape, dtype)
    theirs = torch.nn.functional.fold(torch.asarray(c, device=backend.torch_device), size, kernel, **parameters)
    folded = backend.numpy(fold(backend.array(c), size, kernel, **parameters))
    assert folded.dtype == x.dtype
    np.testing.assert_array_equal(folded, theirs.cpu().numpy())


# Against a loop.


CASES = {
    "no axes": Case((), ()),
    "1-D": Case((6,), (3,), {"stride": 2}),
    "2-D": Case((5, 4), (2, 3), {"dilation": (2, 1)}),
    "3-D": Case((3, 4, 3), (2, 2, 3), {"stride": (1, 2, 1), "padding": 1}, ((1, 1),) * 3),
    "4-D": Case(
        (2, 3, 2, 3),
        (2, 2, 1, 2),
        {"padding": [(0, 1), (1, 0), (0, 0), (0, 0)]},
        ((0, 1), (1, 0), (0, 0), (0, 0)),
    ),
    "stride over kernel": Case((9,), (2,), {"stride": 4}),
    "one tap": Case((3, 4), (1, 1)),
    "one tap, a stride": Case((5, 4), (1, 1), {"stride": 2}),
    "one position": Case((3, 4), (3, 4)),
    "more taps than positions": Case((6,), (5,)),
    "uneven": Case((4, 3), (3, 2), {"padding": [(0, 2), (3, 1)]}, ((0, 2), (3, 1))),
    "negative": Case((6, 7), (2, 2), {"padding": [(-1, 0), (1, -2)]}, ((-1, 0), (1, -2))),
    "negative on both sides": Case((6,), (2,), {"padding": [(-2, -1)]}, ((-2, -1),)),
    "valid": Case((4,), (2,), {"padding": "valid"}),
    "same": Case((7, 6), (4, 3), {"stride": (2, 3), "padding": "same"}, ((1, 2), (0, 0))),
    "same lower": Case((7,), (4,), {"stride": 2, "padding": "same_lower"}, ((2, 1),)),
    "full": Case((3, 2), (3, 2), {"padding": "full", "dilation": (1, 2)}, ((2, 2), (2, 2))),
    "causal": Case((5,), (3,), {"padding": "causal", "dilation": 2}, ((4, 0),)),
    "reflect": Case((5, 3), (3, 2), {"padding": (2, 1), "padding_mode": "reflect"}, ((2, 2), (1, 1))),
    "reflect far": Case((6,), (2,), {"padding": 3, "padding_mode": "reflect"}, ((3, 3),)),
    "reflect again and again": Case((3,), (2,), {"padding": [(5, 8)], "padding_mode": "reflect"}, ((5, 8),)),
    "reflect one": Case((1,), (2,), {"padding": 3, "padding_mode": "reflect"}, ((3, 3),)),
    "replicate": Case((3, 3), (2, 2), {"padding": [(0, 3), (2, 0)], "padding_mode": "replicate"}, ((0, 3), (2, 0))),
    "circular": Case((3, 4), (2, 3), {"padding": [(4, 7), (1, 1)], "padding_mode": "circular"}, ((4, 7), (1, 1))),
    "mixed modes": Case(
        (4, 3, 2, 3),
        (2, 2, 2, 2),
        {"padding": 1, "padding_mode": ("reflect", "zeros", "circular", "replicate"), "stride": (2, 1, 1, 2)},
        ((1, 1),) * 4,
    ),
    "cropped and repeated": Case((6,), (3,), {"padding": [(-1, 2)], "padding_mode": "reflect"}, ((-1, 2),)),
    "same, circular": Case((5, 4), (3, 2), {"padding": "same", "padding_mode": "circular"}, ((1, 1), (0, 1))),
}

VALUES = [
    *((name, "float64") for name in CASES),
    *product(
        ("2-D", "mixed modes", "reflect far", "negative"), ("float32", "complex64", "complex128", *INTEGERS, "bool")
    ),
]


@pytest.mark.parametrize(("name", "dtype"), VALUES)
def test_against_the_loop(backend, rng, name, dtype):
    case = CASES[name]
    x = whole_numbers(rng, (2, 3, *case.size), dtype)
    before, array = x.tobytes(), backend.array(x)
    columns = backend.numpy(unfold(array, case.kernel, **case.parameters))
    assert columns.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(columns, case.unfolded(x))
    assert backend.numpy(array).tobytes() == before

    c = whole_numbers(rng, columns.shape, dtype)
    before, array = c.tobytes(), backend.array(c)
    folded = backend.numpy(fold(array, case.size, case.kernel, **case.parameters))
    assert folded.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(folded, case.folded(c))
    assert backend.numpy(array).tobytes() == before


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_of_padded_is_of_what_numpy_pads(backend, rng, case):
    """Padding first and then windows without any."""
    x = whole_numbers(rng, (2, 2, *case.size))
    modes = case.parameters.get("padding_mode", "zeros")
    modes = (modes,) * len(case.size) if isinstance(modes, str) else modes
    padded = x
    for axis, ((lo, hi), mode) in enumerate(zip(case.pad or ((0, 0),) * len(case.size), modes, strict=True), 2):
        width = [(0, 0)] * padded.ndim
        width[axis] = (max(lo, 0), max(hi, 0))
        padded = np.pad(padded, width, NUMPY_MODES[mode])
        padded = np.take(padded, range(max(-lo, 0), padded.shape[axis] - max(-hi, 0)), axis)
    steps = {key: value for key, value in case.parameters.items() if key in ("stride", "dilation")}
    ours = unfold(backend.array(x), case.kernel, **case.parameters)
    theirs = unfold(backend.array(padded), case.kernel, **steps)
    np.testing.assert_array_equal(backend.numpy(ours), backend.numpy(theirs))


@st.composite
def geometries(draw):
    ndim = draw(st.integers(0, 4))

    def per_axis(low, high):
        return draw(st.tuples(*(st.integers(low, high) for _ in range(ndim))))

    size, kernel, stride, dilation, lo, hi = (per_axis(*r) for r in ((1, 4), (1, 3), (1, 3), (1, 3), (-1, 3), (-1, 3)))
    pads = tuple(zip(lo, hi, strict=True))
    for n, k, d, (before, after) in zip(size, kernel, dilation, pads, strict=True):
        assume(n + before + after >= d * (k - 1) + 1)
        assume(n + min(before, 0) + min(after, 0) > 0)
    modes = draw(st.tuples(*(st.sampled_from(list(NUMPY_MODES)) for _ in range(ndim))))
    parameters = {"stride": stride, "dilation": dilation, "padding": pads, "padding_mode": modes}
    return Case(size, kernel, parameters, pads)


@settings(max_examples=60)
@given(case=geometries(), seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(["float64", "complex128", "int64"]))
def test_any_geometry(backend, case, seed, dtype):
    """The loop, and <unfold(x), c> == <x, fold(c)>: all to the last bit."""
    rng = np.random.default_rng(seed)
    x = whole_numbers(rng, (2, 2, *case.size), dtype)
    columns = backend.numpy(unfold(backend.array(x), case.kernel, **case.parameters))
    np.testing.assert_array_equal(columns, case.unfolded(x))
    c = whole_numbers(rng, columns.shape, dtype)
    folded = backend.numpy(fold(backend.array(c), case.size, case.kernel, **case.parameters))
    np.testing.assert_array_equal(folded, case.folded(c))
    assert np.vdot(columns, c) == np.vdot(x, folded)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_fold_of_unfolded_ones_counts(backend, case):
    ones = backend.array(np.ones((1, 2, *case.size), dtype="int32"))
    counts = fold(unfold(ones, case.kernel, **case.parameters), case.size, case.kernel, **case.parameters)
    expected = np.zeros((1, 2, *case.size), dtype="int32")
    for row in case.sources():
        for i in row:
            if i is not None:
                expected[(slice(None), slice(None), *i)] += 1
    np.testing.assert_array_equal(backend.numpy(counts), expected)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_conv_is_a_product_with_the_columns(backend, rng, case):
    x, w = whole_numbers(rng, (2, 3, *case.size)), whole_numbers(rng, (4, 3, *case.kernel))
    columns = unfold(backend.array(x), case.kernel, **case.parameters)
    with backend.here():
        by_product = backend.xp.matmul(backend.array(w.reshape(4, -1)), columns)
    with options(method="lowering"):
        y = backend.numpy(conv(backend.array(x), backend.array(w), **case.parameters))
    np.testing.assert_array_equal(backend.numpy(by_product), y.reshape(2, 4, -1))


# Shapes.


def test_kernel_size_as_an_integer(backend, rng):
    for ndim in range(1, 4):
        x = backend.array(whole_numbers(rng, (2, 3, 4, 5, 3)[: 2 + ndim]))
        columns = unfold(x, 2, padding=1)
        same = unfold(x, (2,) * ndim, padding=1)
        np.testing.assert_array_equal(backend.numpy(columns), backend.numpy(same))
        assert columns.shape[1] == 3 * 2**ndim
    c = backend.array(whole_numbers(rng, (2, 8, 6)))
    folded = backend.numpy(fold(c, (3, 4), 2))
    np.testing.assert_array_equal(folded, backend.numpy(fold(c, (3, 4), (2, 2))))
    nine = backend.array(whole_numbers(rng, (2, 8, 9)))
    np.testing.assert_array_equal(backend.numpy(fold(nine, 4, (2, 2))), backend.numpy(fold(nine, (4, 4), (2, 2))))
    one = backend.numpy(fold(nine, 10, 2))
    assert one.shape == (2, 4, 10)
    np.testing.assert_array_equal(one, backend.numpy(fold(nine, (10,), (2,))))
    numpys = fold(nine, np.asarray([4, 4]), np.int64(2), stride=np.uint8(1))
    np.testing.assert_array_equal(backend.numpy(numpys), backend.numpy(fold(nine, (4, 4), 2)))


@pytest.mark.parametrize("batch", [(), (4,), (2, 2), (1, 2, 2), (0, 3)])
@pytest.mark.parametrize("name", ["no axes", "2-D", "mixed modes"])
def test_batch_axes(backend, rng, batch, name):
    case = CASES[name]
    x = whole_numbers(rng, (int(np.prod(batch)), 3, *case.size))
    columns = case.unfolded(x)
    ours = backend.numpy(unfold(backend.array(x.reshape(*batch, *x.shape[1:])), case.kernel, **case.parameters))
    np.testing.assert_array_equal(ours, columns.reshape(*batch, *columns.shape[1:]))
    c = whole_numbers(rng, columns.shape)
    array = backend.array(c.reshape(*batch, *c.shape[1:]))
    folded = backend.numpy(fold(array, case.size, case.kernel, **case.parameters))
    np.testing.assert_array_equal(folded, case.folded(c).reshape(*batch, 3, *case.size))


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("axis", [0, 2, 3, -1, -2, -4])
def test_channels_on_any_axis(backend, rng, axis, batch):
    """The rows of the columns are where the channels are: before the batch, before the positions or behind them."""
    case = CASES["circular"]
    values = whole_numbers(rng, (*batch, 3, *case.size))
    expected = case.unfolded(values.reshape(-1, 3, *case.size))
    expected = expected.reshape(*batch, *expected.shape[1:])
    inner = axis + 4 if axis < 0 else axis  # as if there were one batch axis
    channels = len(batch) + inner - 1 if inner else 0
    rows = min(channels, len(batch) + 1)

    x = backend.array(np.moveaxis(values, len(batch), channels))
    columns = backend.numpy(unfold(x, case.kernel, channel_axis=axis, **case.parameters))
    np.testing.assert_array_equal(columns, np.moveaxis(expected, len(batch), rows))

    folded = fold(backend.array(columns), case.size, case.kernel, channel_axis=axis, **case.parameters)
    expected = case.folded(expected.reshape(-1, *expected.shape[-2:])).reshape(values.shape)
    np.testing.assert_array_equal(backend.numpy(folded), np.moveaxis(expected, len(batch), channels))


@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (0, 0)])
@pytest.mark.parametrize("name", ["no axes", "2-D", "reflect"])
def test_of_nothing(backend, name, shape):
    case = CASES[name]
    taps, positions = len(case.sources()), len(case.sources()[0])
    columns = unfold(backend.array(np.ones((*shape, *case.size))), case.kernel, **case.parameters)
    assert backend.numpy(columns).shape == (shape[0], shape[1] * taps, positions)
    folded = backend.numpy(fold(columns, case.size, case.kernel, **case.parameters))
    np.testing.assert_array_equal(folded, np.zeros((*shape, *case.size)))


def test_windows_of_padding_alone(backend):
    x = backend.array(np.ones((1, 1, 0, 2)))
    columns = unfold(x, (2, 2), padding=[(1, 1), (0, 0)])
    np.testing.assert_array_equal(backend.numpy(columns), np.zeros((1, 4, 1)))
    assert backend.numpy(fold(columns, (0, 2), (2, 2), padding=[(1, 1), (0, 0)])).shape == (1, 1, 0, 2)


# Numbers.


def test_fold_of_bool_is_any(backend, rng):
    case = CASES["mixed modes"]
    x = rng.random((2, 2, *case.size)) < 0.5
    columns = backend.numpy(unfold(backend.array(x), case.kernel, **case.parameters))
    assert columns.dtype == np.bool_
    np.testing.assert_array_equal(columns, case.unfolded(x))
    c = rng.random(columns.shape) < 0.1
    folded = backend.numpy(fold(backend.array(c), case.size, case.kernel, **case.parameters))
    assert folded.dtype == np.bool_
    np.testing.assert_array_equal(folded, case.folded(c.astype("int64")) > 0)
    assert 0 < np.sum(folded) < folded.size
    # 256 and more, which a sum in 8 bits would lose.
    many = backend.numpy(fold(backend.array(np.ones((1, 512, 1), dtype="bool")), 1, 512, padding=[(0, 511)]))
    np.testing.assert_array_equal(many, [[[True]]])
    many = fold(backend.array(np.ones((1, 1, 512), dtype="bool")), 1, 1, padding=[(0, 511)], padding_mode="replicate")
    np.testing.assert_array_equal(backend.numpy(many), [[[True]]])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_wrap_around(backend, dtype):
    largest = np.iinfo(dtype).max
    columns = np.full((1, 2, 2), largest, dtype=dtype)
    folded = backend.numpy(fold(backend.array(columns), 3, 2))
    middle = int(largest) * 2 % 2 ** np.iinfo(dtype).bits
    middle -= 2 ** np.iinfo(dtype).bits if middle > largest else 0
    assert folded.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(folded, np.asarray([[[largest, middle, largest]]], dtype=dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_summed_in_float32(backend, dtype):
    xp, narrow = backend.xp, backend.dtype(dtype)
    if narrow is None:
        pytest.xfail(f"{backend.name} has no {dtype}")

    def array(values):
        with backend.here():
            return xp.astype(backend.array(np.asarray(values, dtype="float32")), narrow)

    def wide(result):
        assert result.dtype == narrow
        with backend.here():
            return backend.numpy(xp.astype(result, xp.float32))

    # A large number and 16 ones, each of which would be lost; on one place, by the windows and by the border.
    large = 2048 if dtype == "float16" else 256
    column = np.ones((1, 17, 1))
    column[0, 0] = large
    one_tap = wide(fold(array(column.reshape(1, 1, 17)), 1, 1, padding=8, padding_mode="replicate"))
    np.testing.assert_array_equal(one_tap, [[[large + 16]]])
    diagonal = np.zeros((1, 17, 17))
    diagonal[0, range(17), range(16, -1, -1)] = column[0, :, 0]
    by_windows = wide(fold(array(diagonal), 33, 17))
    assert by_windows[0, 0, 16] == large + 16
    if dtype == "float16":  # 80000 on the way, which is no float16
        columns = np.zeros((1, 3, 3))
        columns[0, [0, 1, 2], [2, 1, 0]] = [40000, 40000, -40000]
        np.testing.assert_array_equal(wide(fold(array(columns), 5, 3)), [[[0, 0, 40000, 0, 0]]])
    x = array([[[1.5, -2.0, 3.0]]])
    np.testing.assert_array_equal(wide(unfold(x, 2)), [[[1.5, -2.0], [-2.0, 3.0]]])


def test_nan_and_inf_reach_just_what_sees_them(backend):
    x = np.zeros((1, 1, 5))
    x[0, 0, 1], x[0, 0, 3] = np.nan, np.inf
    columns = backend.numpy(unfold(backend.array(x), 2, padding=1))
    np.testing.assert_array_equal(columns, [[[0, 0, np.nan, 0, np.inf, 0], [0, np.nan, 0, np.inf, 0, 0]]])
    folded = backend.numpy(fold(backend.array(columns), 5, 2, padding=1))
    np.testing.assert_array_equal(folded, [[[0, np.nan, 0, np.inf, 0]]])


# Nothing of the caller's.


@pytest.mark.writable_too
@pytest.mark.parametrize(
    ("kernel", "parameters"),
    [((1, 1), {}), ((1, 1), {"stride": 2}), ((3, 4), {}), ((2, 2), {}), ((1, 1), {"padding_mode": "circular"})],
)
def test_results_are_fresh(backend, rng, kernel, parameters):
    """Writing to a result changes no input, and the other way around; no two places of it are one."""
    values = whole_numbers(rng, (2, 3, 3, 4))
    x = backend.array(values.copy())
    columns = unfold(x, kernel, **parameters)
    expected = backend.numpy(columns).copy()
    with backend.here():
        columns[0, 0, 0] = 99
    np.testing.assert_array_equal(backend.numpy(x), values)
    np.testing.assert_array_equal(backend.numpy(columns).reshape(-1)[1:], expected.reshape(-1)[1:])
    assert backend.numpy(columns).reshape(-1)[0] == 99

    c = backend.array(expected.copy())
    folded = fold(c, (3, 4), kernel, **parameters)
    with backend.here():
        folded[0, 0, 0, 0] = 99
    np.testing.assert_array_equal(backend.numpy(c), expected)
    if array_api_compat.is_numpy_array(x):
        assert columns.flags.writeable
        assert folded.flags.writeable
        assert not np.shares_memory(columns, x)
        assert not np.shares_memory(folded, c)


@pytest.mark.writable_too
def test_views_of_any_strides(backend, rng):
    values = whole_numbers(rng, (2, 4, 6, 5))
    x = backend.xp.permute_dims(backend.array(np.ascontiguousarray(values.transpose(3, 1, 0, 2))), (2, 1, 3, 0))
    case = Case((6, 5), (2, 3), {"padding": (1, 0), "padding_mode": "reflect"}, ((1, 1), (0, 0)))
    np.testing.assert_array_equal(backend.numpy(unfold(x, (2, 3), **case.parameters)), case.unfolded(values))
    sparse = backend.array(np.repeat(values, 2, axis=3))[..., ::2]
    np.testing.assert_array_equal(backend.numpy(unfold(sparse, (2, 3), **case.parameters)), case.unfolded(values))
    c = whole_numbers(rng, case.unfolded(values).shape)
    turned = backend.xp.permute_dims(backend.array(np.ascontiguousarray(c.T)), (2, 1, 0))
    folded = fold(turned, (6, 5), (2, 3), **case.parameters)
    np.testing.assert_array_equal(backend.numpy(folded), case.folded(c))


# Errors.

X, C = np.ones((2, 3, 5, 6)), np.ones((2, 12, 20))
PADDING = (
    "padding must be 'valid', 'same', 'same_lower', 'full', 'causal', an integer, or 2 integers or (lo, hi) pairs, "
    "one per spatial axis: got"
)
MODES = (
    "padding_mode must be one of 'zeros', 'reflect', 'replicate', 'circular', 'symmetric', 'constant', or a sequence "
    "of 2 of them: got"
)
NO_FIT = (
    "the kernel must fit into the padded input: on spatial axis 0 it spans 6 (6 taps, dilation 1), "
    "the padded input has 5"
)
PLAIN = "must be a plain array of a library that speaks the Array API: got"

BAD = [
    (TypeError, f"x {PLAIN} list; pass np.asarray(x)", lambda: unfold([[[1.0]]], 1)),
    (TypeError, f"columns {PLAIN} NoneType", lambda: fold(None, 5, 2)),
    (
        TypeError,
        f"x {PLAIN} numpy.ma.MaskedArray; fill it first, or pass its .data, which forgets the mask",
        lambda: unfold(np.ma.ones((1, 1, 3)), 2),
    ),
    (
        TypeError,
        "columns must be of real or complex numbers of 16, 32 or 64 bits, or of integers: got object",
        lambda: fold(C.astype(object), (5, 6), 2),
    ),
    (
        ValueError,
        "x must have at least 3 axes (channels, 2 spatial; any number for the batch before them): got 2",
        lambda: unfold(X[0, 0], (2, 2)),
    ),
    (
        ValueError,
        "x must have at least 1 axes (channels, 0 spatial; any number for the batch before them): got 0",
        lambda: unfold(np.ones(()), ()),
    ),
    (
        ValueError,
        "kernel_size must be a sequence of integers of at least 1, one per spatial axis: got (2, 0)",
        lambda: unfold(X, (2, 0)),
    ),
    (
        ValueError,
        "kernel_size must be an integer of at least 1, or a sequence of 2, one per spatial axis: got 0",
        lambda: unfold(X, 0),
    ),
    (
        TypeError,
        "kernel_size must be an integer of at least 1, or a sequence of 2, one per spatial axis: got 2.0",
        lambda: unfold(X, 2.0),
    ),
    (
        ValueError,
        "kernel_size must be an integer of at least 1, or a sequence of 2, one per spatial axis: got (2,)",
        lambda: fold(C, (5, 6), (2,)),
    ),
    (
        ValueError,
        "stride must be an integer of at least 1, or a sequence of 2, one per spatial axis: got 0",
        lambda: unfold(X, 2, stride=0),
    ),
    (
        TypeError,
        "dilation must be an integer of at least 1, or a sequence of 2, one per spatial axis: got True",
        lambda: fold(C, (5, 6), 2, dilation=True),
    ),
    (ValueError, f"{PADDING} 'some' (did you mean 'same'?)", lambda: unfold(X, 2, padding="some")),
    (ValueError, f"{MODES} 'edge'", lambda: unfold(X, 2, padding_mode="edge")),
    (ValueError, f"{MODES} ('zeros',)", lambda: fold(C, (5, 6), 2, padding_mode=("zeros",))),
    (TypeError, f"{MODES} None", lambda: fold(C, (5, 6), 2, padding_mode=None)),
    (
        ValueError,
        "padding_value must be a number that x's dtype has: got 2 for bool",
        lambda: unfold(X > 0, 2, padding=1, padding_mode="constant", padding_value=2),
    ),
    (
        ValueError,
        "padding_value must be 0 where padding_mode is not 'constant': got 2, 'zeros'",
        lambda: fold(C, (5, 6), 2, padding_value=2),
    ),
    (
        ValueError,
        "padding_mode must be 'zeros' where there is nothing to repeat: got 'circular' on spatial axis 0",
        lambda: unfold(np.ones((1, 1, 0, 2)), 2, padding=1, padding_mode="circular"),
    ),
    (ValueError, NO_FIT, lambda: unfold(X, 6)),
    (ValueError, NO_FIT, lambda: fold(np.ones((2, 36, 1)), (5, 6), 6)),
    (
        ValueError,
        "padding must not crop more than there is: got (-6, 3) on spatial axis 0, which has 5",
        lambda: unfold(X, (1, 1), padding=[(-6, 3), (0, 0)]),
    ),
    (
        ValueError,
        "output_size must be an integer of at least 0, or a sequence of 2, one per spatial axis: got (5, -6)",
        lambda: fold(C, (5, -6), 2),
    ),
    (
        TypeError,
        "output_size must be an integer of at least 0, or a sequence of 1, one per spatial axis: got None",
        lambda: fold(C, None, 2),
    ),
    (
        ValueError,
        "columns must have at least 2 axes (channels * taps, positions): got 1",
        lambda: fold(np.ones(3), 5, 3),
    ),
    (
        ValueError,
        "columns must have a multiple of 9 rows, one for each tap: got 12",
        lambda: fold(C, (5, 6), 3),
    ),
    (
        ValueError,
        "channel_axis must be an integer from -4 to 3: got 4",
        lambda: unfold(X, (2, 2), channel_axis=4),
    ),
    (
        TypeError,
        "channel_axis must be an integer from -4 to 3: got 'last'",
        lambda: fold(C, (5, 6), 2, channel_axis="last"),
    ),
    (
        ValueError,
        "columns must have 24 positions on the last axis: got 20",
        lambda: fold(C, (5, 7), 2),
    ),
    (
        ValueError,
        "columns must have 20 positions on the last axis: got 0",
        lambda: fold(C[..., :0], (5, 6), 2),
    ),
]


@pytest.mark.parametrize(("error", "sentence", "call"), BAD)
def test_sentence(error, sentence, call):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == sentence
    for array in (X, C):
        assert (array == 1).all()


def test_an_integer_needs_an_array_with_batch_and_space():
    with pytest.raises(ValueError, match=r"^kernel_size must be a sequence where x is not .*: got 3, x with 2 axes$"):
        unfold(np.ones((2, 5)), 3)
    assert unfold(np.ones((2, 5)), (3,)).shape == (6, 3)


# What is not there takes no memory.


@pytest.mark.parametrize("said", [{"padding": 10_000, "stride": 10_000}, {"padding": 10_000, "dilation": 10_000}])
def test_no_array_of_the_padded_size(backend, rng, said):
    kernel = 3 if "dilation" in said else 1
    x = whole_numbers(rng, (1, 2, 4, 4))
    expected = torch.nn.functional.unfold(torch.asarray(x), kernel, **said)
    c = whole_numbers(rng, tuple(expected.shape))
    tracemalloc.start()
    columns = unfold(backend.array(x), kernel, **said)
    folded = fold(backend.array(c), (4, 4), kernel, **said)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(backend.numpy(columns), expected)
    theirs = torch.nn.functional.fold(torch.asarray(c), (4, 4), kernel, **said)
    np.testing.assert_array_equal(backend.numpy(folded), theirs)
    assert most < 2**22  # of NumPy's arrays; the padded input has 3 GiB


@pytest.mark.parametrize("kernel", [(1, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("modes", [("constant", "constant"), ("constant", "symmetric"), ("zeros", "constant")])
def test_a_constant_border(backend, rng, kernel, modes):
    """It is seen, and nothing is added to it."""
    said = {"padding": ((1, 2), (3, 0)), "stride": (2, 1), "padding_mode": modes}
    x = whole_numbers(rng, (2, 2, 4, 3))
    padded = x
    for i in sorted(range(2), key=lambda i: modes[i] == "zeros"):
        value = {"constant_values": 7.0 if modes[i] == "constant" else 0.0} if modes[i] != "symmetric" else {}
        pairs = [(0, 0)] * 4
        pairs[2 + i] = said["padding"][i]
        padded = np.pad(padded, pairs, "constant" if value else modes[i], **value)
    expected = unfold(padded, kernel, stride=(2, 1))
    columns = unfold(backend.array(x), kernel, padding_value=7, **said)
    np.testing.assert_array_equal(backend.numpy(columns), expected)
    c = backend.array(whole_numbers(rng, expected.shape))
    zeros = {**said, "padding_mode": tuple("zeros" if mode == "constant" else mode for mode in modes)}
    folded = fold(c, (4, 3), kernel, padding_value=7, **said)
    np.testing.assert_array_equal(backend.numpy(folded), backend.numpy(fold(c, (4, 3), kernel, **zeros)))


def test_a_constant_border_of_bool(backend):
    x = backend.array(np.zeros((1, 1, 2), dtype="bool"))
    columns = unfold(x, 2, padding=1, padding_mode="constant", padding_value=1)
    np.testing.assert_array_equal(backend.numpy(columns), [[[True, False, False], [False, False, True]]])


@quiet_torch
@pytest.mark.parametrize("kernel", [2, 5])
def test_a_constant_border_on_the_tape(rng, kernel):
    x = torch.asarray(whole_numbers(rng, (1, 2, 4)), dtype=torch.float64).requires_grad_()

    def columns(x):
        return unfold(x, kernel, padding=2, padding_mode="constant", padding_value=3.0)

    assert torch.autograd.gradcheck(columns, (x,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: columns(x) ** 2, (x,))
