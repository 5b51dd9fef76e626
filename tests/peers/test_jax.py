"""Against jax.lax and its derivatives, over geometries that torch has not.

The numbers are whole, so that every sum is exact: equality to the bit by lowering, which only adds and multiplies what
it is given, and within rounding by what "auto" chooses. JAX does not conjugate what it transposes: its gradients of
complex numbers are the conjugates of ours, for the conjugate of what comes in.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax

import xpconv
from xpconv import options

NAMES = {"valid": "VALID", "same": "SAME", "same_lower": "SAME_LOWER"}
DTYPES = st.sampled_from(["float64", "complex128"])


class Case(NamedTuple):
    """A convolution by both: shapes with the channels where `channel_axis` has them."""

    dy: tuple[int, ...]
    x: tuple[int, ...]
    w: tuple[int, ...]
    size: tuple[int, ...]
    parameters: dict[str, Any]

    def by_jax(self, x, w):
        stride, padding, dilation, groups, spread, flip, channel_axis = self.parameters.values()
        ndim = w.ndim - 2
        pads = NAMES.get(padding, padding) if isinstance(padding, str) else padding
        extent = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[2:], strict=True)]
        if padding in ("full", "causal"):
            pads = [(e - 1, e - 1 if padding == "full" else 0) for e in extent]
        elif isinstance(padding, str) and any(s > 1 for s in spread):  # JAX would have the numbers
            size = [s * (n - 1) + 1 for s, n in zip(spread, self.size, strict=True)]
            pads = lax.padtype_to_pads(size, extent, stride, pads)
        axes = [a for a in range(ndim + 2) if a != channel_axis % (ndim + 2)]
        spec = (axes[0], channel_axis % (ndim + 2), *axes[1:])
        numbers = lax.ConvDimensionNumbers(spec, tuple(range(ndim + 2)), spec)
        if flip:
            w = lax.rev(w, tuple(range(2, w.ndim)))
        return lax.conv_general_dilated(
            x, w, stride, pads, spread, dilation, dimension_numbers=numbers, feature_group_count=groups
        )

    def transposed_by_jax(self, y, w):
        """The transpose in x, as a function of what comes in and the weight."""
        (x,) = jax.linear_transpose(lambda x: self.by_jax(x, w), jax.ShapeDtypeStruct(self.x, y.dtype))(y)
        return x


def spelled(stride, padding, dilation=None, groups=1, input_dilation=None, flip=False, channel_axis=1):
    """All parameters, in the order in which a case takes them apart."""
    one = (1,) * len(stride)
    return {
        "stride": stride,
        "padding": padding,
        "dilation": dilation or one,
        "groups": groups,
        "input_dilation": input_dilation or one,
        "flip": flip,
        "channel_axis": channel_axis,
    }


@st.composite
def cases(draw):
    ndim = draw(st.integers(0, 4))

    def per_axis(low, high):
        return draw(st.tuples(*(st.integers(low, high) for _ in range(ndim))))

    ranges = ((1, 5), (1, 3), (1, 3), (1, 3), (1, 3), (-2, 3), (-2, 3))
    size, kernel, stride, dilation, spread, lo, hi = (per_axis(*r) for r in ranges)
    if draw(st.booleans()):
        spread = (1,) * ndim
    padding = draw(st.sampled_from([*NAMES, "full", "causal", None, None, None]))
    groups, flip, channel_axis = draw(st.integers(1, 3)), draw(st.booleans()), draw(st.sampled_from([1, 1, -1, 0]))
    padding = padding or tuple(zip(lo, hi, strict=True))
    parameters = spelled(stride, padding, dilation, groups, spread, flip, channel_axis)
    try:
        out = xpconv.conv_output_size(size, kernel, **parameters)
    except ValueError:
        assume(False)
    samples, inputs, outputs = (draw(st.integers(1, 2)) for _ in range(3))

    def placed(channels, sizes):
        shape = [samples, *sizes]
        shape.insert(channel_axis % (ndim + 2), channels)
        return tuple(shape)

    w = (groups * outputs, inputs, *kernel)
    return Case(placed(groups * outputs, out), placed(groups * inputs, size), w, size, parameters)


def whole(rng, shape, dtype):
    """Small enough that every sum here is exact."""
    values = rng.integers(-3, 4, shape).astype(dtype)
    return values + (1j * rng.integers(-3, 4, shape)).astype(dtype) if values.dtype.kind == "c" else values


def assert_same(ours, theirs):
    """To the bit by lowering, within rounding by "auto"."""
    for method in ("lowering", "auto"):
        with options(method=method):
            results = ours()
        for actual, expected in zip(results, theirs, strict=True):
            expected = np.asarray(expected)
            assert actual.dtype == expected.dtype
            assert actual.shape == expected.shape
            # "auto" promises 1e-13 of the largest result; of terms that are no larger, where these cancel.
            atol = 0 if method == "lowering" else 1e-12 * max(np.max(np.abs(expected), initial=0), 1)
            np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def first_by_jax(function, *operands):
    """y, dx and dw from dy, x and w: ours conjugate x and w, and JAX's do not."""

    @jax.jit  # all compiled at once: that is what takes the time
    def first(dy, x, w):
        y, pull = jax.vjp(function, x, w)
        return y, *map(jnp.conj, pull(jnp.conj(dy)))

    return first(*operands)


def second_by_jax(function, *operands):
    """The tangent of y, and the gradients of dy, x and w from those of dx and dw, which are tx and tw."""

    @jax.jit
    def second(dy, x, w, tx, tw):
        _, ty = jax.jvp(function, (x, w), (tx, tw))
        _, pull = jax.vjp(lambda dy, x, w: jax.vjp(function, x, w)[1](dy), jnp.conj(dy), x, w)
        ddy, dx, dw = pull((tx, tw))
        return ty, ddy, jnp.conj(dx), jnp.conj(dw)

    return second(*operands)


@settings(max_examples=50)
@given(case=cases(), seed=st.integers(0, 2**32 - 1), dtype=DTYPES)
def test_conv(case, seed, dtype):
    rng = np.random.default_rng(seed)
    dy, x, w = (whole(rng, shape, dtype) for shape in (case.dy, case.x, case.w))
    y, dx, dw = first_by_jax(case.by_jax, dy, x, w)
    said = case.parameters
    assert_same(lambda: [xpconv.conv(x, w, **said)], [y])
    assert_same(lambda: xpconv.conv_backward(dy, x, w, **said)[:2], [dx, dw])
    assert_same(lambda: [xpconv.conv_input_grad(dy, w, input_size=case.size, **said)], [dx])
    assert_same(lambda: [xpconv.conv_weight_grad(dy, x, kernel_size=case.w[2:], **said)], [dw])


@settings(max_examples=20)
@given(case=cases(), seed=st.integers(0, 2**32 - 1), dtype=DTYPES)
def test_derivatives_of_conv(case, seed, dtype):
    rng = np.random.default_rng(seed)
    dy, x, w, tx, tw = (whole(rng, shape, dtype) for shape in (case.dy, case.x, case.w, case.x, case.w))
    ty, *gradients = second_by_jax(case.by_jax, dy, x, w, tx, tw)
    assert_same(lambda: [xpconv.conv_jvp(tx, tw, None, x, w, **case.parameters)], [ty])
    assert_same(lambda: xpconv.conv_double_backward(tx, tw, None, dy, x, w, **case.parameters), gradients)


@settings(max_examples=30)
@given(case=cases(), seed=st.integers(0, 2**32 - 1), dtype=DTYPES)
def test_conv_transpose(case, seed, dtype):
    rng = np.random.default_rng(seed)
    dy, x, w = (whole(rng, shape, dtype) for shape in (case.x, case.dy, case.w))
    y, dx, dw = first_by_jax(case.transposed_by_jax, dy, x, w)
    said = {**case.parameters, "output_size": case.size}
    assert_same(lambda: [xpconv.conv_transpose(x, w, **said)], [y])
    assert_same(lambda: xpconv.conv_transpose_backward(dy, x, w, **said)[:2], [dx, dw])


@settings(max_examples=15)
@given(case=cases(), seed=st.integers(0, 2**32 - 1), dtype=DTYPES)
def test_derivatives_of_conv_transpose(case, seed, dtype):
    rng = np.random.default_rng(seed)
    dy, x, w, tx, tw = (whole(rng, shape, dtype) for shape in (case.x, case.dy, case.w, case.dy, case.w))
    ty, *gradients = second_by_jax(case.transposed_by_jax, dy, x, w, tx, tw)
    said = {**case.parameters, "output_size": case.size}
    assert_same(lambda: [xpconv.conv_transpose_jvp(tx, tw, None, x, w, **said)], [ty])
    assert_same(lambda: xpconv.conv_transpose_double_backward(tx, tw, None, dy, x, w, **said), gradients)


LAYERS = {
    "0d": Case((2, 3), (2, 4), (3, 4), (), spelled((), ())),
    "1d": Case((2, 9, 3), (2, 5, 2), (3, 2, 2), (5,), spelled((1,), ((1, 0),), (1,), 1, (2,), True, -1)),
    "2d": Case((2, 4, 3, 4), (2, 4, 5, 4), (4, 2, 3, 2), (5, 4), spelled((2, 1), ((1, 1), (0, 1)), (1, 1), 2)),
}


@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        ("0d", "float16"),
        ("0d", "int8"),
        ("0d", "complex128"),
        ("1d", "float64"),
        ("2d", "float32"),
        ("2d", "bfloat16"),
        ("2d", "complex64"),
        ("2d", "int32"),
    ],
)
def test_arrays_of_jax(rng, layer, dtype):
    """They go into every function, and come out on their device: the numbers of wide ones, rounded once."""
    case = LAYERS[layer]
    wide = "complex128" if dtype.startswith("complex") else "float64"
    shapes = (case.dy, case.x, case.w, case.x, case.w, case.dy, (case.w[0],))
    dy, x, w, tx, tw, ty, b = numbers = [whole(rng, shape, wide) for shape in shapes]
    groups, channel_axis = case.parameters["groups"], case.parameters["channel_axis"]
    c = whole(rng, (case.w[1] * groups,), wide)
    channels = [1] * x.ndim
    channels[channel_axis] = -1
    others = tuple(a for a in range(x.ndim) if a != channel_axis % x.ndim)

    y, dx, dw = first_by_jax(case.by_jax, dy, x, w)
    expected = [y + b.reshape(channels), dx, dw, jnp.sum(dy, axis=others), dx, dw]
    expected += second_by_jax(case.by_jax, dy, x, w, tx, tw)
    y, dx, dw = first_by_jax(case.transposed_by_jax, x, dy, w)
    expected += [y + c.reshape(channels), dx, dw, jnp.sum(x, axis=others)]
    expected += second_by_jax(case.transposed_by_jax, x, dy, w, ty, tw)

    device = jax.devices()[0]
    dy, x, w, tx, tw, ty, b, c = (narrowed(values, dtype) for values in [*numbers, c])
    said = case.parameters
    output = {**said, "output_size": case.size}
    results = [
        xpconv.conv(x, w, b, **said),
        *xpconv.conv_backward(dy, x, w, **said),
        xpconv.conv_input_grad(dy, w, input_size=case.size, **said),
        xpconv.conv_weight_grad(dy, x, kernel_size=case.w[2:], **said),
        xpconv.conv_jvp(tx, tw, None, x, w, **said),
        *xpconv.conv_double_backward(tx, tw, None, dy, x, w, **said),
        xpconv.conv_transpose(dy, w, c, **output),
        *xpconv.conv_transpose_backward(x, dy, w, **output),
        xpconv.conv_transpose_jvp(ty, tw, None, dy, w, **output),
        *xpconv.conv_transpose_double_backward(ty, tw, None, x, dy, w, **output),
    ]
    for actual, values in zip(results, expected, strict=True):
        assert isinstance(actual, jax.Array)
        assert actual.dtype == dtype
        assert actual.device == device
        np.testing.assert_array_equal(np.asarray(actual), np.asarray(narrowed(values, dtype)))


def narrowed(values, dtype):
    """In another dtype; integers wrap around."""
    values = np.asarray(values)
    if dtype.startswith("int"):
        values = values.astype("int64")
    return jnp.asarray(values.astype(jnp.dtype(dtype)))


@pytest.mark.parametrize("dtype", ["float32", "int16", "bool"])
def test_windows_of_jax(rng, dtype):
    """The columns, which JAX calls patches, and their adjoint."""
    x = jnp.asarray(rng.integers(0, 2, (2, 3, 5, 4)).astype(dtype))
    parameters = {"stride": (2, 1), "padding": "same", "dilation": (1, 2)}

    def patches(x):
        return lax.conv_general_dilated_patches(x, (3, 2), (2, 1), "SAME", rhs_dilation=(1, 2)).reshape(2, 18, -1)

    wide, pull = jax.vjp(patches, x.astype("float64"))
    (sums,) = pull(wide)
    columns = xpconv.unfold(x, (3, 2), **parameters)
    image = xpconv.fold(columns, (5, 4), (3, 2), **parameters)
    for actual, expected in ((columns, wide), (image, sums)):
        assert isinstance(actual, jax.Array)
        assert actual.dtype == dtype
        np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected).astype(dtype))


def test_traced_by_jax(rng):
    """JAX compiles and differentiates our functions as its own."""
    case = LAYERS["2d"]
    dy, x, w = (whole(rng, shape, "float64") for shape in (case.dy, case.x, case.w))
    y, dx, dw = first_by_jax(case.by_jax, dy, x, w)

    def ours(x, w):
        return xpconv.conv(x, w, **case.parameters)

    by_trace = jax.jit(lambda dy, x, w: jax.vjp(ours, x, w)[1](dy))(dy, x, w)
    by_hand = jax.jit(lambda dy, x, w: xpconv.conv_backward(dy, x, w, **case.parameters)[:2])(dy, x, w)
    for actual, expected in zip((jax.jit(ours)(x, w), *by_trace, *by_hand), (y, dx, dw, dx, dw), strict=True):
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_borders_under_jit(mode):
    """Reversing what stands on a border by JAX's own `flip` ended the process in XLA's compiler."""
    rng = np.random.default_rng(0)
    dy, x, w = (rng.integers(-8, 9, shape).astype(float) for shape in ((1, 2, 8, 8), (1, 2, 6, 6), (2, 2, 3, 3)))
    parameters = {"padding": 2, "padding_mode": mode}
    for name, arguments in (("conv", (x, w)), ("conv_transpose", (dy, w)), ("conv_backward", (dy, x, w))):
        function = functools.partial(getattr(xpconv, name), **parameters)
        traced = jax.jit(function)(*map(jnp.asarray, arguments))
        expected = function(*arguments)
        for one, other in zip(traced, expected, strict=True):
            np.testing.assert_array_equal(np.asarray(one), other)


def test_numbers_that_numpy_holds_but_does_not_know():
    ones = np.asarray(jnp.ones((1, 1, 4), dtype=jnp.bfloat16))
    sentence = r"^x must be of real or complex numbers of 16, 32 or 64 bits, or of integers: got bfloat16$"
    with pytest.raises(TypeError, match=sentence):
        xpconv.conv(ones, ones)
