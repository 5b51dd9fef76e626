"""Dtypes: numbers of 16 bits, integers of all widths, real and complex ones together, and results that are wider."""

from __future__ import annotations

import tracemalloc
from itertools import product

import array_api_compat
import array_api_strict
import numpy as np
import pytest
from cases import Case
from support import draw, whole_numbers

from xpconv import (
    conv,
    conv_backward,
    conv_double_backward,
    conv_input_grad,
    conv_jvp,
    conv_transpose,
    conv_transpose_backward,
    conv_weight_grad,
    fold,
    options,
    unfold,
)
from xpconv._algorithms import contractions
from xpconv._arrays.doors import integer_product

BITS = {"float16": 11, "bfloat16": 8}  # of the significand
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
PARAMETERS = {
    "plain": {},
    "all": {"stride": (2, 1), "padding": 2, "dilation": (1, 2), "groups": 2},
    "border": {"padding": [(2, 1), (2, 3)], "padding_mode": ("circular", "reflect"), "stride": (1, 2)},
    "dilated": {"padding": 2, "input_dilation": (2, 3), "flip": True, "stride": (1, 2)},
}


def halves(backend):
    """Those of 16 bits; array-api-strict has none: nothing is to be computed there."""
    return [name for name in BITS if backend.dtype(name) is not None]


def as_half(backend, values, name):
    """The values, which are numbers of that dtype, as such an array; read-only where the backend is."""
    with backend.here():
        array = backend.xp.astype(backend.array(values.astype("float32")), backend.dtype(name))
    if backend.name == "numpy:readonly":
        array.flags.writeable = False
    return array


def as_float64(backend, array, name):
    """The values of such an array, after a check that it is one."""
    assert array.dtype == backend.dtype(name)
    with backend.here():
        return backend.numpy(backend.xp.astype(array, backend.xp.float64))


def rounded(values, name):
    """To the nearest number of that dtype, to even in between, from float64 and once."""
    if name == "float16":
        return values.astype("float16").astype("float64")
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.rint(mantissa * 2.0 ** BITS[name]) / 2.0 ** BITS[name], exponent)


def by_loop(dy, x, w, bias, parameters):
    """What the loop makes of parameters as above."""
    return Case(x.shape, w.shape, **parameters).expected(dy, x, w, bias)


def shapes(parameters, x=(2, 4, 4, 3), w=(6, 4, 2, 3)):
    w = (w[0], w[1] // parameters.get("groups", 1), *w[2:])
    y = conv(np.zeros(x), np.zeros(w), **parameters).shape
    return y, x, w, w[:1]


# Numbers of 16 bits.


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("blocks", ["many blocks"], indirect=True)
@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=PARAMETERS)
def test_halves_are_rounded_once(backend, rng, parameters):
    """Whole numbers with sums that are exact in float32, and of more bits than 16 have: one rounding, to the bit."""
    operands = [rng.integers(-32, 33, shape).astype("float64") for shape in shapes(parameters, w=(20, 4, 2, 3))]
    expected = by_loop(*operands, parameters)
    for name in halves(backend):
        dy, x, w, bias = (as_half(backend, operand, name) for operand in operands)
        before = [as_float64(backend, a, name) for a in (dy, x, w, bias)]
        with options(method="lowering"):
            y = conv(x, w, bias, **parameters)
            dx, dw, db = conv_backward(dy, x, w, **parameters)
            dx_alone = conv_input_grad(dy, w, input_size=x.shape[2:], **parameters)
            dw_alone = conv_weight_grad(dy, x, kernel_size=w.shape[2:], **parameters)
        for result, sums in (
            (y, expected.y),
            (dx, expected.dx),
            (dw, expected.dw),
            (db, expected.db),
            (dx_alone, expected.dx),
            (dw_alone, expected.dw),
        ):
            np.testing.assert_array_equal(as_float64(backend, result, name), rounded(sums, name))
        assert np.any(rounded(expected.dx, name) != expected.dx)  # or there was nothing to round
        for array, copy in zip((dy, x, w, bias), before, strict=True):
            np.testing.assert_array_equal(as_float64(backend, array, name), copy)


@pytest.mark.parametrize("method", ["lowering", "auto"])
def test_halves_within_one_rounding_of_the_sum_in_float32(backend, rng, method):
    """Products of two halves are exact in float32, so n of them are wrong by less than n eps of their magnitude."""
    parameters = {"padding": 1}
    sizes = shapes(parameters, (2, 4, 8, 7), (5, 4, 3, 3))
    for name in halves(backend):
        operands = [rounded(draw(rng, shape, "float64"), name) for shape in sizes]
        expected = by_loop(*operands, parameters)
        magnitude = by_loop(*map(np.abs, operands), parameters)
        dy, x, w, bias = (as_half(backend, operand, name) for operand in operands)
        with options(method=method):
            results = conv(x, w, bias, **parameters), *conv_backward(dy, x, w, **parameters)
        positions = dy.shape[0] * dy.shape[2] * dy.shape[3]
        for result, sums, most, terms in zip(
            results, expected, magnitude, (4 * 9 + 1, 5 * 9, positions, positions), strict=True
        ):
            error = np.abs(as_float64(backend, result, name) - sums)
            if method == "lowering":
                in_float32 = terms * np.finfo("float32").eps * most
            else:
                in_float32 = 2e-5 * np.max(np.abs(sums))  # what `options` promises of float32
            half_a_place = 2.0 ** -BITS[name]
            assert np.all(error <= in_float32 + half_a_place * (np.abs(sums) + in_float32) + 2.0**-25)


@pytest.mark.parametrize("method", ["lowering", "auto"])
def test_sums_of_halves_may_overflow_in_between(backend, method):
    """Largest of float16 is 65504; bfloat16 reaches as far as float32."""
    for name in halves(backend):
        large = as_half(backend, np.asarray([[[60000.0, 60000.0, -60000.0]]]), name)
        square = as_half(backend, np.asarray([[[300.0, 300.0, 300.0]]]), name)
        signs = as_half(backend, np.asarray([[[300.0, -300.0, 1.0]]]), name)
        ones = as_half(backend, np.ones((1, 1, 3)), name)
        one = as_half(backend, np.ones((1, 1, 1)), name)
        number = float(rounded(np.asarray([60000.0]), name)[0])
        with options(method=method):
            assert as_float64(backend, conv(large, ones), name).item() == number
            assert as_float64(backend, conv(square, signs), name).item() == 300
            # The same sums as the gradients of x and of w, and of the bias.
            dx = conv_input_grad(square, signs, input_size=1, padding=2)
            assert as_float64(backend, dx, name).item() == 300
            dw = conv_weight_grad(square, signs, kernel_size=(1,))
            assert as_float64(backend, dw, name).item() == 300
            samples = [backend.xp.permute_dims(a, (2, 0, 1)) for a in (large, ones)]  # summed one by one on NumPy
            db = conv_backward(*samples, one).dbias
            assert as_float64(backend, db, name).item() == number


def test_the_bias_of_halves_is_added_before_the_rounding(backend):
    """2049 is no number of 16 bits, and 2048 + 1 rounds to 2048: only 2049 + 1 in float32 makes 2050."""
    ones, many = np.ones((1, 1, 1)), np.ones((1, 1, 2049))
    for name in halves(backend):
        bias = as_half(backend, np.ones(1), name)
        y = conv(as_half(backend, many, name), as_half(backend, many, name), bias)
        assert as_float64(backend, y, name).item() == rounded(np.asarray([2050.0]), name)[0]
        y = conv(as_half(backend, many, name), as_half(backend, many, name), bias, dtype=backend.xp.float32)
        assert y.dtype == backend.xp.float32
        assert backend.numpy(y).item() == 2050
        # In the dtype of the result as well.
        fine = backend.array(np.asarray([2.0**-20], dtype="float32"))
        y = conv(as_half(backend, ones, name), as_half(backend, ones, name), fine, dtype=backend.xp.float32)
        assert backend.numpy(y).item() == 1 + 2.0**-20


@pytest.mark.parametrize("count", [2050, 3000, 20000])
def test_the_bias_gradient_counts_further_than_halves(backend, count):
    """Added one by one in float16, ones stay at 2048."""
    for name in halves(backend):
        # Along the first axis NumPy adds one by one, in whatever dtype it is told.
        dy = as_half(backend, np.ones((count, 3, 1)), name)
        x, w = as_half(backend, np.ones((count, 1, 1)), name), as_half(backend, np.ones((3, 1, 1)), name)
        dx, dw, db = conv_backward(dy, x, w)
        total = rounded(np.asarray([float(count)]), name)[0]
        np.testing.assert_array_equal(as_float64(backend, db, name), np.full(3, total))
        np.testing.assert_array_equal(as_float64(backend, dw, name), np.full((3, 1, 1), total))
        np.testing.assert_array_equal(as_float64(backend, dx, name), np.full(x.shape, 3.0))


@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=PARAMETERS)
def test_a_wider_result_of_halves_is_the_sum_itself(backend, rng, parameters):
    operands = [rng.integers(-60, 61, shape).astype("float64") for shape in shapes(parameters)]
    expected = by_loop(*operands, parameters)
    for name, wide in product(halves(backend), ("float32", "float64")):
        x, w, bias = (as_half(backend, operand, name) for operand in operands[1:])
        dy = backend.array(operands[0].astype(wide))
        dtype = getattr(backend.xp, wide)
        with options(method="lowering"):
            y = conv(x, w, bias, dtype=dtype, **parameters)
            dx, dw, db = conv_backward(dy, x, w, dtype=dtype, **parameters)
        np.testing.assert_array_equal(as_float64(backend, y, wide), expected.y)
        np.testing.assert_array_equal(as_float64(backend, db, wide), expected.db)
        np.testing.assert_array_equal(as_float64(backend, dx, name), rounded(expected.dx, name))
        np.testing.assert_array_equal(as_float64(backend, dw, name), rounded(expected.dw, name))
        # A gradient alone is as wide as its own dtype says.
        dy = as_half(backend, operands[0], name)
        with options(method="lowering"):
            dx = conv_input_grad(dy, w, input_size=x.shape[2:], dtype=dtype, **parameters)
            dw = conv_weight_grad(dy, x, kernel_size=w.shape[2:], dtype=dtype, **parameters)
        np.testing.assert_array_equal(as_float64(backend, dx, wide), expected.dx)
        np.testing.assert_array_equal(as_float64(backend, dw, wide), expected.dw)


def test_numpy_takes_dtypes_by_name():
    x = np.full((1, 1, 2), 300, dtype="float16")
    for dtype in ("float32", np.float32, np.dtype("float32"), "f4"):
        y = conv(x, x, dtype=dtype)
        assert y.dtype == np.float32
        assert y.item() == 180000


def test_float32_accumulates_in_the_dtype_of_a_wider_result(backend):
    """2**24 and 1 are both float32, their sum is not."""
    x, w = np.asarray([[[2.0**24, 1.0]]], dtype="float32"), np.ones((1, 1, 2), dtype="float32")
    y = conv(backend.array(x), backend.array(w), dtype=backend.xp.float64)
    assert backend.numpy(y).dtype == np.float64
    assert backend.numpy(y).item() == 2**24 + 1


# Integers.


def wrapped(number, dtype):
    """What an integer of Python's is in so many bits."""
    bits, signed = np.iinfo(dtype).bits, np.dtype(dtype).kind == "i"
    number %= 2**bits
    return number - 2**bits if signed and number >= 2 ** (bits - 1) else number


def in_python(dy, x, w, bias, stride, lo, groups):
    """The loop over Python's integers, which do not wrap around; over one spatial axis."""
    y, dx, dw = ([[[0] * a.shape[2] for _ in range(a.shape[1])] for _ in range(a.shape[0])] for a in (dy, x, w))
    inputs, outputs = w.shape[1], w.shape[0] // groups
    dy, x, w, bias = (a.tolist() for a in (dy, x, w, bias))
    for n, o, j in product(range(len(dy)), range(len(w)), range(len(dy[0][0]))):
        for c, t in product(range(inputs), range(len(w[0][0]))):
            i, at = stride * j + t - lo, o // outputs * inputs + c
            if 0 <= i < len(x[0][0]):
                y[n][o][j] += x[n][at][i] * w[o][c][t]
                dx[n][at][i] += dy[n][o][j] * w[o][c][t]
                dw[o][c][t] += dy[n][o][j] * x[n][at][i]
        y[n][o][j] += bias[o]
    return y, dx, dw, [sum(number for sample in dy for number in sample[o]) for o in range(len(w))]


def assert_wrapped(backend, result, numbers, dtype):
    values = backend.numpy(result)
    assert values.dtype == np.dtype(dtype)
    flat = np.asarray(numbers, dtype=object)
    assert values.shape == flat.shape
    assert values.ravel().tolist() == [wrapped(number, dtype) for number in flat.ravel().tolist()]


def any_integers(rng, shape, dtype):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("method", ["lowering", "auto"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_wrap_around(backend, rng, dtype, groups, method):
    """All of their range, forward and backward, against Python's integers modulo 2**bits."""
    w_shape, said = (4, 4 // groups, 3), {"stride": 2, "padding": [(2, 1)], "groups": groups}
    operands = [any_integers(rng, shape, dtype) for shape in ((2, 4, 5), (2, 4, 8), w_shape, (4,))]
    expected = in_python(*operands, stride=2, lo=2, groups=groups)
    dy, x, w, bias = map(backend.array, operands)
    with options(method=method):
        y = conv(x, w, bias, **said)
        gradients = conv_backward(dy, x, w, **said)
        alone = (
            conv_input_grad(dy, w, input_size=8, **said),
            conv_weight_grad(dy, x, kernel_size=(3,), **said),
        )
    for result, numbers in zip((y, *gradients, *alone), (*expected, *expected[1:3]), strict=True):
        assert_wrapped(backend, result, numbers, dtype)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", ["border", "dilated"])
def test_integers_with_every_parameter(backend, rng, dtype, name):
    parameters = PARAMETERS[name]
    operands = [draw(rng, shape, dtype) for shape in shapes(parameters)]
    expected = by_loop(*operands, parameters)
    dy, x, w, bias = map(backend.array, operands)
    results = conv(x, w, bias, **parameters), *conv_backward(dy, x, w, **parameters)
    for result, values in zip(results, expected, strict=True):
        assert_wrapped(backend, result, values.tolist(), dtype)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_transposed_integers_wrap_around(backend, rng, dtype):
    operands = [any_integers(rng, shape, dtype) for shape in ((2, 3, 9), (2, 4, 4), (4, 3, 3), (4,))]
    dy, x, w, bias = operands
    _, y, dw, _ = in_python(x, dy, w, bias, stride=2, lo=0, groups=1)
    dx, *_ = in_python(x, dy, w, np.zeros_like(bias), stride=2, lo=0, groups=1)
    dy, x, w = map(backend.array, (dy, x, w))
    assert_wrapped(backend, conv_transpose(x, w, stride=2), y, dtype)
    gradients = conv_transpose_backward(dy, x, w, stride=2)
    assert_wrapped(backend, gradients.dx, dx, dtype)
    assert_wrapped(backend, gradients.dweight, dw, dtype)
    total = [int(number) for number in operands[0].astype(object).sum(axis=(0, 2))]
    assert_wrapped(backend, gradients.dbias, total, dtype)


@pytest.mark.parametrize(("number", "dtype"), [(-128, "int8"), (127, "int8"), (255, "uint8")])
def test_wide_sums_of_bytes_are_exact_at_the_extremes(backend, number, dtype):
    """Many more than float32 could count."""
    terms = (2**31 - 1) // (10 * number**2) * 10
    assert 2**30 < number**2 * terms < 2**31
    x = backend.array(np.full((1, terms // 10, 10), number, dtype=dtype))
    for wide in ("int32", "int64"):
        y = conv(x, x, dtype=getattr(backend.xp, wide))
        assert_wrapped(backend, y, [[[number**2 * terms]]], wide)
    y = conv(x, x, dtype=backend.xp.int16)
    assert_wrapped(backend, y, [[[number**2 * terms]]], "int16")


@pytest.mark.parametrize(
    ("x_dtype", "w_dtype", "wide"),
    [
        ("uint8", "int8", "int32"),
        ("int8", "uint8", "int16"),
        ("uint8", "int8", "int64"),
        ("int8", "int8", "int32"),
        ("uint8", "uint8", "uint32"),
        ("uint8", "uint8", "uint16"),
        ("int16", "int8", "int32"),
        ("uint16", "int8", "int32"),
        ("uint16", "int32", "int64"),
        ("uint32", "uint16", "uint64"),
        ("int32", "int32", "int64"),
    ],
)
def test_integers_of_several_dtypes_into_a_wider_one(backend, rng, x_dtype, w_dtype, wide):
    dtypes = (wide, x_dtype, w_dtype, wide)
    shapes = ((2, 4, 5), (2, 4, 8), (4, 2, 3), (4,))
    operands = [any_integers(rng, shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    expected = in_python(*operands, stride=2, lo=2, groups=2)
    said = {"stride": 2, "padding": [(2, 1)], "groups": 2, "dtype": getattr(backend.xp, wide)}
    dy, x, w, bias = map(backend.array, operands)
    assert_wrapped(backend, conv(x, w, bias, **said), expected[0], wide)
    gradients = conv_backward(dy, x, w, **said)
    for result, numbers, dtype in zip(gradients, expected[1:], (x_dtype, w_dtype, wide), strict=True):
        assert_wrapped(backend, result, numbers, dtype)
    # A bias of an operand's dtype is as good.
    narrow = any_integers(rng, (4,), w_dtype)
    expected = in_python(*operands[:3], narrow, stride=2, lo=2, groups=2)
    assert_wrapped(backend, conv(x, w, backend.array(narrow), **said), expected[0], wide)


@pytest.mark.parametrize("wide", ["int32", "int64"])
def test_a_gradient_alone_in_a_wider_dtype(backend, rng, wide):
    dy, x, w = (any_integers(rng, shape, "int8") for shape in ((2, 4, 6), (2, 2, 8), (4, 2, 3)))
    expected = in_python(dy, x, w, np.zeros(4, dtype="int8"), stride=1, lo=0, groups=1)
    dtype = getattr(backend.xp, wide)
    dy, x, w = map(backend.array, (dy, x, w))
    assert_wrapped(backend, conv_input_grad(dy, w, input_size=8, dtype=dtype), expected[1], wide)
    assert_wrapped(backend, conv_weight_grad(dy, x, kernel_size=(3,), dtype=dtype), expected[2], wide)


@pytest.mark.parametrize(
    ("ours", "wide"),
    [
        ("int32", "int16"),
        ("uint8", "int8"),
        ("int8", "uint8"),
        ("int16", "uint64"),
        ("int8", "complex64"),
        ("float64", "float32"),
        ("float32", "int64"),
        ("float32", "complex64"),
        ("complex128", "complex64"),
        ("complex64", "float64"),
    ],
)
def test_a_dtype_that_loses_something_is_refused(backend, ours, wide):
    ones = backend.array(np.ones((1, 1, 2), dtype=ours))
    dtype = getattr(backend.xp, wide)
    name = backend.xp.empty(0, dtype=dtype).dtype  # as arrays say it
    with pytest.raises(TypeError) as caught:
        conv(ones, ones, dtype=dtype)
    assert (
        str(caught.value) == f"dtype must be of the kind of x's and hold all its numbers: got {name} for {ones.dtype}"
    )


# Real and complex ones together.

PAIRS = [("float32", "complex64"), ("complex64", "float32"), ("float64", "complex128"), ("complex128", "float64")]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("blocks", ["many blocks"], indirect=True)
@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=PARAMETERS)
@pytest.mark.parametrize(("x_dtype", "w_dtype"), PAIRS)
def test_real_and_complex(backend, rng, x_dtype, w_dtype, parameters):
    """The result is complex, the gradient of a real operand is real; whole numbers, to the bit."""
    y_dtype = np.result_type(x_dtype, w_dtype).name
    dtypes = (y_dtype, x_dtype, w_dtype, y_dtype)
    operands = [whole_numbers(rng, s, d) for s, d in zip(shapes(parameters), dtypes, strict=True)]
    before = [operand.copy() for operand in operands]
    expected = by_loop(*operands, parameters)
    dy, x, w, bias = map(backend.array, operands)
    with options(method="lowering"):
        y, plain = conv(x, w, bias, **parameters), conv(x, w, **parameters)
        dx, dw, db = conv_backward(dy, x, w, **parameters)
    without = expected.y - operands[3].reshape(-1, 1, 1)
    for result, values, dtype in (
        (y, expected.y, y_dtype),
        (plain, without, y_dtype),
        (dx, expected.dx, x_dtype),
        (dw, expected.dw, w_dtype),
        (db, expected.db, y_dtype),
    ):
        result = backend.numpy(result)
        assert result.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(result, values)
    for operand, ours, copy in zip(operands, (dy, x, w, bias), before, strict=True):
        assert operand.tobytes() == backend.numpy(ours).tobytes() == copy.tobytes()
    # What neither needs is not made, and a real bias is as good.
    real = operands[3].real.copy()
    y = backend.numpy(conv(x, w, backend.array(real), **parameters))
    assert y.dtype == np.dtype(y_dtype)
    np.testing.assert_allclose(y, without + real.reshape(-1, 1, 1), rtol=0, atol=2e-5 * np.max(np.abs(without)))


@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=PARAMETERS)
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_real_and_complex_in_a_gradient_alone(backend, rng, one, other, parameters):
    """Either may be the complex one; the gradient is that of a complex operand."""
    wide = np.result_type(one, other).name
    y_shape, x_shape, w_shape, _ = shapes(parameters)
    with options(method="lowering"):
        dy, w = whole_numbers(rng, y_shape, one), whole_numbers(rng, w_shape, other)
        expected = by_loop(dy, whole_numbers(rng, x_shape, wide), w, None, parameters).dx
        dx = conv_input_grad(backend.array(dy), backend.array(w), input_size=x_shape[2:], **parameters)
        assert backend.numpy(dx).dtype == np.dtype(wide)
        np.testing.assert_array_equal(backend.numpy(dx), expected)

        dy, x = whole_numbers(rng, y_shape, one), whole_numbers(rng, x_shape, other)
        expected = by_loop(dy, x, whole_numbers(rng, w_shape, wide), None, parameters).dw
        dw = conv_weight_grad(backend.array(dy), backend.array(x), kernel_size=w_shape[2:], **parameters)
        assert backend.numpy(dw).dtype == np.dtype(wide)
        np.testing.assert_array_equal(backend.numpy(dw), expected)


@pytest.mark.parametrize("name", ["plain", "all"])
@pytest.mark.parametrize(("x_dtype", "w_dtype"), PAIRS)
def test_real_and_complex_transposed(backend, rng, x_dtype, w_dtype, name):
    """Against the loop with x for dy: <conv_transpose(x, w), dy> is T, and it conjugates nothing."""
    parameters, wide = PARAMETERS[name], np.result_type(x_dtype, w_dtype).name
    # The transposed convolution's input has the shape of a convolution's output.
    x_shape, y_shape, w_shape, _ = shapes(parameters, (2, 4, 5, 5))
    x, w, dy = (whole_numbers(rng, s, d) for s, d in ((x_shape, x_dtype), (w_shape, w_dtype), (y_shape, wide)))
    bias = whole_numbers(rng, (4,), wide)
    # The loop's gradients are Hermitian: with conjugates for dy and x its dx is the conjugate of y, its dw is dweight.
    backward = by_loop(np.conj(x).astype(wide), np.conj(dy), w.astype(wide), None, parameters)
    y_expected, dw_expected = np.conj(backward.dx), backward.dw
    dx_expected = by_loop(x.astype(wide), dy, np.conj(w).astype(wide), None, parameters).y
    dx_expected = dx_expected if x_dtype == wide else dx_expected.real
    dw_expected = dw_expected if w_dtype == wide else dw_expected.real
    with options(method="lowering"):
        ours = conv_transpose(
            backend.array(x), backend.array(w), backend.array(bias), output_size=y_shape[2:], **parameters
        )
        gradients = conv_transpose_backward(
            backend.array(dy), backend.array(x), backend.array(w), output_size=y_shape[2:], **parameters
        )
    for result, values, dtype in (
        (ours, y_expected + bias.reshape(-1, 1, 1), wide),
        (gradients.dx, dx_expected, x_dtype),
        (gradients.dweight, dw_expected, w_dtype),
        (gradients.dbias, dy.sum(axis=(0, 2, 3)), wide),
    ):
        result = backend.numpy(result)
        assert result.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(result, values)


def test_real_and_complex_of_a_wider_dtype(backend, rng):
    x, w = whole_numbers(rng, (2, 2, 5), "float32"), whole_numbers(rng, (3, 2, 2), "complex64")
    y = conv(backend.array(x), backend.array(w), dtype=backend.xp.complex128)
    expected = by_loop(np.zeros((2, 3, 4), dtype="complex128"), x, w, None, {}).y
    assert backend.numpy(y).dtype == np.complex128
    np.testing.assert_array_equal(backend.numpy(y), expected)
    dx, dw, _ = conv_backward(y, backend.array(x), backend.array(w), dtype=backend.xp.complex128)
    assert backend.numpy(dx).dtype == np.float32
    assert backend.numpy(dw).dtype == np.complex64


# Two dtypes of one kind.

PROMOTED = [
    ("float32", "float64", "float64"),
    ("float32", "complex128", "complex128"),
    ("complex64", "float64", "complex128"),
    ("complex128", "complex64", "complex128"),
    ("float16", "float32", "float32"),
    ("float64", "float16", "float64"),
    ("complex64", "float16", "complex64"),
    ("int8", "int16", "int16"),
    ("uint8", "int8", "int16"),
    ("uint16", "uint8", "uint16"),
    ("int32", "uint16", "int32"),
    ("uint32", "int8", "int64"),
]


@pytest.mark.parametrize("name", ["all", "border"])
@pytest.mark.parametrize(("x_dtype", "w_dtype", "y_dtype"), PROMOTED)
def test_the_wider_of_two_dtypes(backend, rng, x_dtype, w_dtype, y_dtype, name):
    """As NumPy and the standard promote; each gradient has its operand's dtype."""
    if backend.dtype(x_dtype) is None or backend.dtype(w_dtype) is None:
        pytest.xfail(f"{backend.name} has no float16")
    parameters = PARAMETERS[name]
    dtypes = y_dtype, x_dtype, w_dtype, w_dtype
    operands = [whole_numbers(rng, s, d, 3) for s, d in zip(shapes(parameters), dtypes, strict=True)]
    expected = by_loop(*operands, parameters)
    dy, x, w, bias = map(backend.array, operands)
    with options(method="lowering"):
        y = conv(x, w, bias, **parameters)
        gradients = conv_backward(dy, x, w, **parameters)
        ty = conv_jvp(x, w, bias, x, w, **parameters)
        transposed = conv_transpose(dy, w, **{**parameters, "padding": 0, "padding_mode": "zeros"})
    assert backend.numpy(transposed).dtype == np.dtype(y_dtype)
    twice = 2 * expected.y - operands[3].reshape(-1, 1, 1)
    dtypes = y_dtype, x_dtype, w_dtype, y_dtype, y_dtype
    for ours, values, dtype in zip((y, *gradients, ty), (*expected, twice), dtypes, strict=True):
        ours = backend.numpy(ours)
        assert ours.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(ours, values.astype(dtype))
    alone = conv_input_grad(dy, w, input_size=x.shape[2:], dtype=x.dtype, **parameters)
    alone_w = conv_weight_grad(dy, x, kernel_size=w.shape[2:], dtype=w.dtype, **parameters)
    for one, other in ((alone, gradients.dx), (alone_w, gradients.dweight)):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(backend.numpy(one), backend.numpy(other), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("pair", [("float16", "bfloat16"), ("bfloat16", "float32")])
def test_two_of_16_bits_make_one_of_32(backend, pair):
    if backend.name == "array_api_strict":
        pytest.xfail("array_api_strict has neither")
    x, w = (as_half(backend, np.full((1, 1, 2), 3.0), one) for one in pair)
    y = conv(x, w)
    assert y.dtype == backend.xp.float32
    assert backend.numpy(y).item() == 18


@pytest.mark.parametrize(
    ("x_dtype", "w_dtype"), [("int32", "float32"), ("int64", "complex128"), ("uint64", "int8"), ("float16", "uint8")]
)
def test_no_other_kinds_are_promoted(backend, x_dtype, w_dtype):
    if backend.dtype(x_dtype) is None:
        pytest.xfail(f"{backend.name} has no float16")
    x, w = (backend.array(np.ones((1, 1, 2), dtype=dtype)) for dtype in (x_dtype, w_dtype))
    sentence = (
        "x and weight must both be integers that one dtype holds, or both real or complex numbers, or go with a dtype "
        f"for the result: got {x.dtype} and {w.dtype}"
    )
    for call in (conv, conv_transpose, lambda x, w: conv_backward(x, x, w)):
        with pytest.raises(TypeError) as caught:
            call(x, w)
        assert str(caught.value) == sentence


# Integers with a floating kernel.


@pytest.mark.parametrize("method", ["lowering", "auto", "fft"])
@pytest.mark.parametrize(
    ("x_dtype", "w_dtype", "y_dtype"),
    [
        ("uint8", "float32", "float32"),
        ("uint16", "float64", "float64"),
        ("int64", "float64", "float64"),
        ("float32", "int8", "float32"),
        ("int16", "complex64", "complex64"),
        ("int8", "uint8", "float32"),
    ],
)
def test_integers_as_real_numbers(backend, rng, x_dtype, w_dtype, y_dtype, method):
    """The result's dtype says so; the gradient of an integer operand is no integer."""
    parameters = {**PARAMETERS["border"], "dtype": backend.dtype(y_dtype)}
    dtypes = y_dtype, x_dtype, w_dtype, y_dtype
    operands = [whole_numbers(rng, s, d, 3) for s, d in zip(shapes(PARAMETERS["border"]), dtypes, strict=True)]
    wide = [one.astype("complex128" if one.dtype.kind == "c" else "float64") for one in operands]
    expected = by_loop(*wide, PARAMETERS["border"])
    dy, x, w, bias = map(backend.array, operands)
    with options(method=method):
        results = conv(x, w, bias, **parameters), *conv_backward(dy, x, w, **parameters)
        tangent = conv_jvp(results[1], None, None, x, w, **parameters)
        alone = conv_weight_grad(dy, x, kernel_size=w.shape[2:], **{**parameters, "dtype": results[2].dtype})
    assert tangent.dtype == results[0].dtype
    np.testing.assert_allclose(backend.numpy(alone), backend.numpy(results[2]), rtol=1e-4, atol=1e-3)
    for i, (ours, values) in enumerate(zip(results, expected, strict=True)):
        ours, operand = backend.numpy(ours), operands[i].dtype
        assert ours.dtype == (operand if operand.kind in "fc" else operands[0].real.dtype)
        if method == "lowering":
            np.testing.assert_array_equal(ours, values.astype(ours.dtype))
        np.testing.assert_allclose(ours, values.astype(ours.dtype), rtol=0, atol=2e-5 * np.max(np.abs(values)))


# The other byte order.


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16", "i2", "u4", "i8"])
def test_arrays_in_the_other_byte_order(rng, dtype, name):
    """As files have them: each is taken as what it is, and all results are native."""
    parameters = PARAMETERS[name]
    operands = [whole_numbers(rng, shape, dtype, 3) for shape in shapes(parameters)]
    swapped = [one.astype(one.dtype.newbyteorder()) for one in operands]
    for one in swapped:
        one.flags.writeable = False

    def results(dy, x, w, bias):
        tx, sizes = x, {"input_size": x.shape[2:], **parameters}
        yield conv(x, w, bias, **parameters)
        yield conv_jvp(tx, w, bias, x, w, **parameters)
        yield from conv_backward(dy, x, w, **parameters)
        yield from conv_double_backward(tx, w, None, dy, x, w, **parameters)
        yield conv_input_grad(dy, w, **sizes)
        yield conv_weight_grad(dy, x, kernel_size=w.shape[2:], **parameters)
        yield conv_transpose(dy, w, output_size=x.shape[2:], **parameters)
        yield from conv_transpose_backward(tx, dy, w, output_size=x.shape[2:], **parameters)
        yield (columns := unfold(x, (2, 3)))
        yield fold(columns.astype(x.dtype), x.shape[2:], (2, 3))

    for method in ("lowering", "auto"):
        with options(method=method):
            expected = list(results(*operands))
            for mask in product((False, True), repeat=4):
                mixed = [two if other else one for one, two, other in zip(operands, swapped, mask, strict=True)]
                for ours, values in zip(results(*mixed), expected, strict=True):
                    assert ours.dtype.isnative
                    np.testing.assert_array_equal(ours, values, strict=True)


def test_the_other_byte_order_is_converted_part_by_part(rng):
    """Never as a whole: beside the result there is the workspace."""
    x = np.ones((8, 16, 64, 64), dtype=">f4")
    w = draw(rng, (4, 16, 3, 3), "float32").astype(">f4")
    with options(workspace=2**20, workers=1, method="lowering"):
        y = conv(x, w, padding=1)
        tracemalloc.start()
        again = conv(x, w, padding=1)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < y.nbytes + 2**20 + 2**17
    np.testing.assert_array_equal(again, y)


@pytest.mark.parametrize("method", ["lowering", "fft", "banded"])
def test_products_are_of_native_numbers(rng, monkeypatch, method):
    """BLAS has no others, and NumPy multiplies those by itself."""
    multiplied = []

    def noted(function):
        def call(*args, **kwargs):
            multiplied.extend(one.dtype for one in args if isinstance(one, np.ndarray))
            return function(*args, **kwargs)

        return call

    for name in ("matmul", "multiplied_into"):
        monkeypatch.setattr(contractions, name, noted(getattr(contractions, name)))
    dy, x, w = (draw(rng, shape, "float32") for shape in ((2, 3, 8, 8), (2, 4, 10, 10), (3, 4, 3, 3)))
    for swapped in range(3):
        operands = [one.astype(">f4") if i == swapped else one for i, one in enumerate((dy, x, w))]
        with options(method=method):
            conv(*operands[1:])
            conv_backward(*operands)
            conv_jvp(operands[1], operands[2], None, x, w)
    assert len(multiplied) > 20
    assert all(dtype.isnative for dtype in multiplied)


def test_a_dtype_in_the_other_byte_order_is_the_native_one():
    ones = np.ones((1, 1, 2), dtype="float32")
    assert conv(ones, ones, dtype=">f8").dtype == np.dtype("float64")
    assert conv(ones, ones, dtype=">f8").dtype.isnative


# Real gradients of complex numbers.


@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=PARAMETERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_real_gradient_alone(backend, rng, dtype, parameters):
    """What conv_backward has for a real operand, though neither dy nor the other operand is real."""
    dy, x, w = (whole_numbers(rng, shape, "complex128") for shape in shapes(parameters)[:3])
    expected = by_loop(dy, x.real, w, None, parameters).dx, by_loop(dy, x, w.real, None, parameters).dw
    wanted = backend.dtype(dtype)
    dy, x, w = map(backend.array, (dy, x, w))
    with options(method="lowering"):
        dx = conv_input_grad(dy, w, input_size=x.shape[2:], dtype=wanted, **parameters)
        dw = conv_weight_grad(dy, x, kernel_size=w.shape[2:], dtype=wanted, **parameters)
    for ours, values in zip((dx, dw), expected, strict=True):
        ours = backend.numpy(ours)
        assert ours.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(ours, values.astype(dtype))


# Where a library multiplies no matrices of integers.


SIZES = [((1, 3, 4), (1, 4, 5)), ((2, 3, 1, 7), (2, 3, 7, 2)), ((2, 3, 0), (2, 0, 4)), ((0, 2, 3), (0, 3, 2))]


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8"])
@pytest.mark.parametrize(("a", "b"), SIZES)
def test_products_in_floating_point_are_those_of_integers(backend, rng, dtype, a, b):
    xp = backend.xp
    a, b = (backend.array(any_integers(rng, shape, dtype)) for shape in (a, b))
    with backend.here():
        found = backend.numpy(integer_product(a, b, xp=xp))
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, np.matmul(backend.numpy(a), backend.numpy(b)))


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", "uint32", "uint64"])
def test_products_of_the_largest_integers(dtype):
    """The largest limbs of both signs, and more terms than float64 adds at a time without rounding."""
    limits, terms = np.iinfo(dtype), 2**21 + 3
    for first, second in product((limits.min, limits.max, limits.max - 2**15), repeat=2):
        a, b = np.full((1, 1, terms), first, dtype), np.full((1, terms, 1), second, dtype)
        wrapped = int(first) * int(second) * terms % 2**limits.bits
        found = integer_product(a, b, xp=np).item()
        assert found % 2**limits.bits == wrapped


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint16", "uint64"])
def test_products_of_integers_without_float64(rng, dtype):
    """In limbs of 8 bits, of which float32 adds 256 products at a time without rounding."""
    xp = array_api_compat.array_namespace(array_api_strict.asarray(0))
    device = xp.Device("no_float64")
    a, b = (any_integers(rng, shape, dtype) for shape in ((2, 3, 300), (2, 300, 2)))
    found = integer_product(*(xp.asarray(one, device=device) for one in (a, b)), xp=xp)
    assert found.device == device
    assert found.dtype == getattr(xp, dtype)
    np.testing.assert_array_equal(np.asarray(found.to_device(xp.Device("CPU_DEVICE"))), np.matmul(a, b))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", INTEGERS)
def test_convolutions_without_products_of_matrices(backend, rng, monkeypatch, dtype):
    """The way of torch on a GPU, taken everywhere but on NumPy."""
    monkeypatch.setattr("xpconv._arrays.doors._lacks_product", lambda a, *, xp: xp.isdtype(a.dtype, "integral"))
    operands = [any_integers(rng, shape, dtype) for shape in ((2, 4, 5), (2, 4, 8), (4, 2, 3), (4,))]
    expected = in_python(*operands, stride=2, lo=2, groups=2)
    said = {"stride": 2, "padding": [(2, 1)], "groups": 2}
    dy, x, w, bias = map(backend.array, operands)
    results = conv(x, w, bias, **said), *conv_backward(dy, x, w, **said)
    for result, numbers in zip(results, expected, strict=True):
        assert_wrapped(backend, result, numbers, dtype)


@pytest.mark.parametrize("parameters", [{"padding_mode": "circular"}, {"input_dilation": 2}, {}])
def test_integers_are_exact_where_others_would_be_transformed(backend, parameters):
    # Such long kernels go by Fourier transforms, but for integers, which 8-bit ones are in float64, too.
    rng = np.random.default_rng(0)
    size = 500 * parameters.get("input_dilation", 1)
    dy, x, w = (rng.integers(-128, 128, shape).astype("int8") for shape in ((1, 4, size), (1, 4, 500), (4, 4, 201)))
    if parameters.get("input_dilation"):
        dy = dy[..., :-1]
    parameters = {"padding": 100, **parameters}
    narrow = conv_backward(*map(backend.array, (dy, x, w)), **parameters)
    wide = conv_backward(*(a.astype("int64") for a in (dy, x, w)), **parameters)
    for ours, expected in zip(narrow, wide, strict=True):
        np.testing.assert_array_equal(backend.numpy(ours), expected.astype("int8"))
    with options(method="fft"), pytest.raises(ValueError, match=r"^method must be"):
        conv_backward(*map(backend.array, (dy, x, w)), **parameters)


def test_tangents_of_halves_are_rounded_once(backend):
    if backend.name == "array_api_strict":
        pytest.xfail("array_api_strict has no float16")
    x, two, minus = (backend.array(np.full((1, 1, 1), value, dtype="float16")) for value in (60000, 2, -1))
    assert backend.numpy(conv_jvp(x, minus, None, x, two)).item() == 60000  # 120000 - 60000
