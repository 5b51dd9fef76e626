"""Against jax.lax and its derivatives, over geometries that torch has not.

The numbers are whole, so that every sum is exact: equality to the bit by lowering, which only adds and multiplies what
it is given, and within rounding by what "auto" chooses. JAX does not conjugate what it transposes: its gradients of
complex numbers are the conjugates of ours, for the conjugate of what comes in.
"""

from __future__ import annotations

import copy
import functools
import pickle
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax
from oracle import contract
from support import assert_within, whole_numbers

import xpconv
from xpconv import options

NAMES = {"valid": "VALID", "same": "SAME", "same_lower": "SAME_LOWER"}
DTYPES = st.sampled_from(["float64", "complex128"])
whole = functools.partial(whole_numbers, most=3)


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
    if "int" in dtype:
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


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "symmetric"])
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


def test_bfloat16_of_numpy_arrays():
    """JAX's dtype in NumPy's arrays: numbers as in float32, rounded once. Narrower ones of JAX's are refused."""
    x, w = (np.asarray(jnp.arange(n, dtype=jnp.bfloat16) / 7).reshape(1, 1, n) for n in (40, 9))
    y = xpconv.conv(x, w)
    assert type(y) is np.ndarray
    assert y.dtype == x.dtype
    expected = xpconv.conv(x.astype("float32"), w.astype("float32")).astype(x.dtype)
    np.testing.assert_array_equal(y.astype("float32"), expected.astype("float32"))
    eighth = x.astype(jnp.float8_e4m3fn)
    sentence = r"^x must be of real or complex numbers of 16, 32 or 64 bits, or of integers: got float8_e4m3fn$"
    with pytest.raises(TypeError, match=sentence):
        xpconv.conv(eighth, eighth)


@pytest.mark.parametrize("jit", [False, True])
def test_an_infinite_imaginary_part_leaves_the_real_part_alone(jit):
    x = jnp.asarray([[[complex(2, np.inf), complex(-1, -np.inf), complex(3, np.nan), 4 + 5j]]])
    weight = jnp.full((1, 1, 1), 3.0, dtype=jnp.real(x).dtype)
    y = np.asarray((jax.jit(xpconv.conv) if jit else xpconv.conv)(x, weight))
    np.testing.assert_array_equal(y.real, [[[6, -3, 9, 12]]])
    np.testing.assert_array_equal(y.imag, [[[np.inf, -np.inf, np.nan, 15]]])


# Transformed by JAX. What it does not see through are only the keywords.


def functions(case):
    """Each of ours over a case, with the same by JAX and the shapes of its operands."""
    said, output = case.parameters, {**case.parameters, "output_size": case.size}
    window = {name: said[name] for name in ("stride", "padding", "dilation")}
    kernel, x, w, dy = case.w[2:], case.x, case.w, case.dy

    def columns(x):
        stride, padding, dilation = window.values()
        patches = lax.conv_general_dilated_patches(x, kernel, stride, padding, rhs_dilation=dilation)
        return patches.reshape(*patches.shape[:2], -1)

    def folded(columns_):
        return jax.linear_transpose(columns, jax.ShapeDtypeStruct(x, columns_.dtype))(columns_)[0]

    def pulled(function):
        return lambda dy, *operands: jax.vjp(function, *operands)[1](dy)

    def pushed(function):
        return lambda tx, tw, x, w: jax.jvp(function, (x, w), (tx, tw))[1]

    def twice(function):
        return lambda tx, tw, *slots: jax.vjp(pulled(function), *slots)[1]((tx, tw))

    one, other = case.by_jax, case.transposed_by_jax
    return {
        "conv": (lambda x, w: xpconv.conv(x, w, **said), one, (x, w)),
        "conv_transpose": (lambda y, w: xpconv.conv_transpose(y, w, **output), other, (dy, w)),
        "conv_backward": (lambda *slots: tuple(xpconv.conv_backward(*slots, **said)[:2]), pulled(one), (dy, x, w)),
        "conv_transpose_backward": (
            lambda *slots: tuple(xpconv.conv_transpose_backward(*slots, **output)[:2]),
            pulled(other),
            (x, dy, w),
        ),
        "conv_input_grad": (
            lambda dy, w: xpconv.conv_input_grad(dy, w, input_size=case.size, **said),
            lambda dy, w: other(dy, w),
            (dy, w),
        ),
        "conv_weight_grad": (
            lambda dy, x: xpconv.conv_weight_grad(dy, x, kernel_size=kernel, **said),
            lambda dy, x: jax.vjp(lambda w: one(x, w), jnp.zeros(w, x.dtype))[1](dy)[0],
            (dy, x),
        ),
        "conv_jvp": (
            lambda tx, tw, x, w: xpconv.conv_jvp(tx, tw, None, x, w, **said),
            pushed(one),
            (x, w, x, w),
        ),
        "conv_double_backward": (
            lambda tx, tw, *slots: tuple(xpconv.conv_double_backward(tx, tw, None, *slots, **said)),
            twice(one),
            (x, w, dy, x, w),
        ),
        "unfold": (lambda x: xpconv.unfold(x, kernel, **window), columns, (x,)),
        "fold": (
            lambda c: xpconv.fold(c, case.size, kernel, **window),
            folded,
            ((x[0], x[1] * int(np.prod(kernel)), int(np.prod(dy[2:]))),),
        ),
    }


def transformed(function, operands, tangents):
    """What JAX makes of a function: its derivatives, and it over stacks of operands, of all or of some."""
    y, pull = jax.vjp(function, *operands)
    _, pull_again = jax.vjp(jax.checkpoint(function), *operands)

    def loss(*operands):
        return sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(function(*operands)))

    both = [jnp.stack(pair, axis=-1) for pair in zip(operands, tangents, strict=True)]
    last = (-1,) * len(operands)
    first = (-1, *(None,) * (len(operands) - 1))
    rest = (*(None,) * (len(operands) - 1), 0)
    four = [jnp.stack([one, -one]) for one in both]
    mapped = jax.vmap(function, last)
    gradients = jax.grad(loss, tuple(range(len(operands))))
    return {
        "alone": y,
        "vjp": pull(y),
        "checkpoint": pull_again(y),
        "jvp": jax.jvp(function, operands, tangents),
        "linearize": jax.linearize(function, *operands)[1](*tangents),
        "second": jax.jvp(gradients, operands, tangents),
        "vmap": mapped(*both),
        "vmap of the first": jax.vmap(function, first)(both[0], *operands[1:]),
        "vmap of the last, out at 1": jax.vmap(function, rest, 1)(*operands[:-1], four[-1][..., 0]),
        "vmap of vmap": jax.vmap(mapped)(*four),
        "vmap of grad": jax.vmap(gradients, last)(*both),
        "grad of vmap": jax.grad(lambda *both: sum(jnp.sum(one**2) for one in jax.tree.leaves(mapped(*both))))(*both),
        "scan": lax.scan(lambda carry, row: (carry, function(*row)), 0, [jnp.moveaxis(one, -1, 0) for one in both])[1],
    }


@pytest.mark.parametrize("name", functions(LAYERS["2d"]))
def test_transformations(rng, name):
    """Compiled, mapped, and differentiated once and twice, whichever of our functions it is."""
    case = LAYERS["2d"]
    if name in ("unfold", "fold"):
        case = case._replace(parameters={**case.parameters, "dilation": (1, 2)}, dy=(2, 4, 3, 3))
    ours, theirs, shapes = functions(case)[name]
    operands, tangents = ([whole(rng, shape, "float64") for shape in shapes] for _ in range(2))
    assert_trees_equal(*(jax.jit(functools.partial(transformed, one))(operands, tangents) for one in (ours, theirs)))
    assert jax.tree.map(like, jax.eval_shape(ours, *operands)) == jax.tree.map(like, jax.eval_shape(theirs, *operands))


def assert_trees_equal(ours, theirs):
    for (where, actual), (_, expected) in zip(*map(jax.tree_util.tree_leaves_with_path, (ours, theirs)), strict=True):
        assert like(actual) == like(expected), where
        np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected), err_msg=str(where))


def like(array):
    return array.shape, array.dtype


@settings(max_examples=12)
@given(case=cases(), seed=st.integers(0, 2**32 - 1), dtype=DTYPES, name=st.sampled_from(["conv", "conv_transpose"]))
def test_derivatives_by_jax_of_ours(case, seed, dtype, name):
    """Neither of the two conjugates: JAX's derivative of ours is that of its own."""
    rng = np.random.default_rng(seed)
    ours, theirs, shapes = functions(case)[name]
    operands, tangents = ([whole(rng, shape, dtype) for shape in shapes] for _ in range(2))

    def derivatives(function, operands, tangents):
        y, pull = jax.vjp(function, *operands)
        mapped = jax.vmap(lambda x: function(x, operands[1]))(jnp.stack([operands[0], tangents[0]]))
        return jax.jvp(function, operands, tangents), pull(y), mapped

    assert_trees_equal(
        *(jax.jit(functools.partial(derivatives, one))(operands, tangents) for one in (ours, theirs)),
    )


BORDERS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap", "symmetric": "symmetric"}


@pytest.mark.parametrize(("mode", "theirs"), BORDERS.items())
def test_borders_differentiated(rng, mode, theirs):
    parameters = {"stride": (2, 1), "padding": ((2, 1), (0, 2)), "padding_mode": mode}
    x, w = whole(rng, (2, 2, 5, 4), "float64"), whole(rng, (3, 2, 3, 2), "float64")
    tx, tw, dy = whole(rng, x.shape, "float64"), whole(rng, w.shape, "float64"), whole(rng, (2, 3, 3, 5), "float64")

    def bordered(x, w):
        x = jnp.pad(x, ((0, 0), (0, 0), *parameters["padding"]), mode=theirs)
        return lax.conv_general_dilated(x, w, (2, 1), "VALID")

    def transposed(y, w):
        return jax.linear_transpose(lambda x: bordered(x, w), jax.ShapeDtypeStruct(tx.shape, y.dtype))(y)[0]

    conv = functools.partial(xpconv.conv, **parameters)
    conv_transpose = functools.partial(xpconv.conv_transpose, output_size=x.shape[2:], **parameters)

    def derivatives(functions, dy, x, w):
        one, other = functions
        y, pull = jax.vjp(one, x, w)
        back, pull_back = jax.vjp(other, dy, w)
        return y, pull(dy), jax.jvp(one, (x, w), (tx, tw)), back, pull_back(x), jax.vmap(one, (0, None))(x[None], w)

    ours, theirs = (
        jax.jit(functools.partial(derivatives, pair))(dy, x, w)
        for pair in ((conv, conv_transpose), (bordered, transposed))
    )
    assert_trees_equal(ours, theirs)
    by_hand = jax.jit(functools.partial(xpconv.conv_backward, **parameters))(dy, x, w)[:2]
    assert_trees_equal(by_hand, theirs[1])


def test_a_constant_border_differentiated(rng):
    parameters = {"stride": (2, 1), "padding": ((2, 1), (0, 2)), "padding_mode": "constant", "padding_value": 3.0}
    x, w = whole(rng, (2, 2, 5, 4), "float64"), whole(rng, (3, 2, 3, 2), "float64")
    tx, tw, dy = whole(rng, x.shape, "float64"), whole(rng, w.shape, "float64"), whole(rng, (2, 3, 3, 5), "float64")

    def bordered(x, w):
        x = jnp.pad(x, ((0, 0), (0, 0), *parameters["padding"]), constant_values=3.0)
        return lax.conv_general_dilated(x, w, (2, 1), "VALID")

    def derivatives(one, dy, x, w):
        y, pull = jax.vjp(one, x, w)
        return y, pull(dy), jax.jvp(one, (x, w), (tx, tw)), jax.vmap(one, (0, None))(x[None], w)

    pair = (functools.partial(xpconv.conv, **parameters), bordered)
    assert_trees_equal(*(jax.jit(functools.partial(derivatives, one))(dy, x, w) for one in pair))


def test_jacobians_and_hessians(rng):
    x, w = whole(rng, (1, 2, 3), "float64"), whole(rng, (2, 2, 2), "float64")

    @functools.partial(jax.jit, static_argnums=0)
    def all_of(conv):
        def loss(x, w):
            return jnp.sum(conv(x, w) ** 3)

        both = (0, 1)
        return (
            jax.jacfwd(conv, both)(x, w),
            jax.jacrev(conv, both)(x, w),
            jax.hessian(loss, both)(x, w),
            jax.grad(lambda x, w: jnp.sum(jax.grad(loss)(x, w) ** 2), both)(x, w),
        )

    ours = all_of(lambda x, w: xpconv.conv(x, w, padding=1))
    assert_trees_equal(ours, all_of(lambda x, w: lax.conv_general_dilated(x, w, (1,), [(1, 1)])))


def test_real_with_complex_numbers(rng):
    """JAX, too, gives a real operand a real gradient; of its own convolution it wants one dtype."""
    x, w = whole(rng, (2, 4, 5, 4), "complex128"), whole(rng, (4, 2, 3, 2), "float64")
    case = LAYERS["2d"]

    def derivatives(function, x, w):
        y, pull = jax.vjp(function, x, w)
        return y, pull(y), jax.jvp(function, (x, w), (x, w))

    ours = jax.jit(functools.partial(derivatives, lambda x, w: xpconv.conv(x, w, **case.parameters)))(x, w)
    theirs = jax.jit(functools.partial(derivatives, lambda x, w: case.by_jax(x, w.astype(x.dtype))))(x, w)
    assert_trees_equal(ours, theirs)


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "bfloat16", "complex64", "int8", "uint8", "int16", "uint16", "int32"]
)
def test_without_x64(rng, dtype):
    """JAX's default: its wide dtypes are not there, and asking for one is a warning, which here is an error."""
    wide = "complex128" if dtype.startswith("complex") else "float64"
    linear = ("conv", "conv_transpose", "conv_jvp", "unfold", "fold")  # the others conjugate, and JAX does not
    cases = {
        name: (ours, theirs, [whole(rng, shape, wide) for shape in shapes])
        for name, (ours, theirs, shapes) in functions(LAYERS["2d"]).items()
        if wide == "float64" or name in linear
    }
    expected = jax.jit(lambda: {name: theirs(*operands) for name, (_, theirs, operands) in cases.items()})()
    expected = jax.tree.map(lambda one: narrowed(one, dtype), expected)
    narrow = {name: [narrowed(one, dtype) for one in operands] for name, (_, _, operands) in cases.items()}

    def all_of_ours(narrow):
        return {name: ours(*narrow[name]) for name, (ours, _, _) in cases.items()}

    with jax.enable_x64(True):  # what is remembered of a dtype must not be of another setting
        assert_trees_equal(cases["conv"][0](*narrow["conv"]), expected["conv"])
    with jax.enable_x64(False):
        assert_trees_equal(all_of_ours(narrow), expected)
        assert_trees_equal(jax.jit(all_of_ours)(narrow), expected)


def test_gradients_in_float32_without_x64(rng):
    """Of real numbers: each sum of products within what rounding makes of it, in whatever order."""
    with jax.enable_x64(False):
        x, w = (rng.standard_normal(shape).astype("float32") for shape in ((2, 4, 9, 8), (4, 2, 3, 3)))
        dy = rng.standard_normal((2, 4, 9, 8)).astype("float32")
        parameters = {"padding": 1, "groups": 2}
        y, pull = jax.jit(lambda x, w: jax.vjp(lambda x, w: xpconv.conv(x, w, **parameters), x, w))(x, w)
        results = y, *pull(dy)
    one = {"stride": (1, 1), "lo": (1, 1), "dilation": (1, 1), "groups": 2}
    expected, magnitudes = contract(dy, x, w, **one), contract(*map(np.abs, (dy, x, w)), **one)
    for actual, sums, magnitude, terms in zip(results, expected, magnitudes, (18, 18, 144), strict=False):
        assert actual.dtype == "float32"
        assert_within(np.asarray(actual), sums, magnitude, terms)


# How much there is to compile, which takes the time that it takes.


def equations(jaxpr):
    """How many a jaxpr has, with those inside them."""
    inner = [
        value for equation in jaxpr.eqns for value in jax.tree.leaves(list(equation.params.values()), is_leaf=held)
    ]
    return len(jaxpr.eqns) + sum(equations(getattr(one, "jaxpr", one)) for one in inner if held(one))


def held(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def gradients(**parameters):
    return lambda dy, x, w: xpconv.conv_backward(dy, x, w, needs=(True, True, False), **parameters)[:2]


def by_trace(**parameters):
    return lambda dy, x, w: jax.vjp(functools.partial(xpconv.conv, **parameters), x, w)[1](dy)


@pytest.mark.parametrize(
    ("function", "shapes", "most"),
    [
        (functools.partial(xpconv.conv, padding=2), [(1, 8, 32, 32, 32), (8, 8, 5, 5, 5)], 300),
        (gradients(padding=2), [(1, 8, 32, 32, 32), (1, 8, 32, 32, 32), (8, 8, 5, 5, 5)], 1500),
        (by_trace(padding=2), [(1, 8, 32, 32, 32), (1, 8, 32, 32, 32), (8, 8, 5, 5, 5)], 700),
        (functools.partial(xpconv.conv, padding=500), [(4, 1, 16000), (8, 1, 1000)], 500),
        (gradients(padding=500), [(4, 8, 16001), (4, 1, 16000), (8, 1, 1000)], 4000),
        (by_trace(padding=500), [(4, 8, 16001), (4, 1, 16000), (8, 1, 1000)], 1000),
        (functools.partial(xpconv.conv, stride=160), [(4, 1, 48000), (8, 1, 400)], 200),
        (gradients(stride=160), [(4, 8, 298), (4, 1, 48000), (8, 1, 400)], 400),
        (gradients(stride=8), [(8, 64, 27, 27), (8, 3, 224, 224), (64, 3, 16, 16)], 600),
        (gradients(padding=15, groups=8), [(1, 8, 56, 56), (1, 8, 56, 56), (8, 1, 31, 31)], 2000),
        (functools.partial(xpconv.conv, padding=1), [(32, 64, 56, 56), (64, 64, 3, 3)], 400),
        (functools.partial(xpconv.conv, padding=1), [(64, 64, 112, 112), (64, 64, 3, 3)], 1000),
    ],
)
def test_equations(function, shapes, most):
    """A few for each tap along an axis or for less, in each part: hundreds compile in a second, ten thousand do not."""
    operands = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    assert equations(jax.make_jaxpr(function)(*operands).jaxpr) <= most


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation"),
    [
        ((150,), (70,), (1,), (1,)),
        ((150,), (100,), (1,), (1,)),
        ((120,), (20,), (3,), (1,)),
        ((200,), (61,), (2,), (1,)),
        ((330,), (70,), (1,), (3,)),
        ((160,), (18,), (3,), (2,)),
        ((6, 80), (2, 33), (1, 2), (1, 1)),
    ],
)
def test_long_kernels(rng, size, kernel, stride, dilation):
    """The windows taken out by indices, and folded in two steps."""
    out = xpconv.conv_output_size(size, kernel, stride=stride, padding=2, dilation=dilation)
    case = Case((1, 2, *out), (1, 2, *size), (2, 2, *kernel), size, spelled(stride, ((2, 2),) * len(size), dilation))
    dy, x, w = (whole(rng, shape, "float64") for shape in (case.dy, case.x, case.w))

    def ours(x, w):
        return xpconv.conv(x, w, **case.parameters)

    def both(dy, x, w):
        y, pull = jax.vjp(ours, x, w)
        return y, *pull(dy), *xpconv.conv_backward(dy, x, w, **case.parameters)[:2]

    y, dx, dw = first_by_jax(case.by_jax, dy, x, w)
    assert_trees_equal(jax.jit(both)(dy, x, w), (y, dx, dw, dx, dw))
    assert_same(lambda: xpconv.conv_backward(dy, x, w, **case.parameters)[:2], [dx, dw])


def test_the_workspace_holds_where_xla_makes_one_part_after_another():
    """By default it makes them side by side on a CPU: all windows at once."""
    option = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    x, w = (jax.ShapeDtypeStruct(shape, "float32") for shape in ((16, 64, 56, 56), (64, 64, 3, 3)))
    for workspace in (2**24, 2**26):
        with options(workspace=workspace):
            lowered = jax.jit(lambda x, w: xpconv.conv(x, w, padding=1)).lower(x, w)
        assert lowered.compile(compiler_options=option).memory_analysis().temp_size_in_bytes <= workspace


def test_our_gradients_for_jax(rng):
    """What `jax.custom_vjp` is given is what JAX takes, as real numbers have it: in reverse, mapped, compiled."""
    case = LAYERS["2d"]
    dy, x, w = (whole(rng, shape, "float64") for shape in (case.dy, case.x, case.w))
    seen = []

    @jax.custom_vjp
    def conv(x, w):
        return xpconv.conv(x, w, **case.parameters)

    def backward(operands, dy):
        seen.append(dy)
        return tuple(xpconv.conv_backward(dy, *operands, **case.parameters)[:2])

    conv.defvjp(lambda x, w: (conv(x, w), (x, w)), backward)

    def derivatives(conv, dy, x, w):
        pair, over = jnp.stack([x, -x]), (0, None)
        return jax.vjp(conv, x, w)[1](dy), jax.grad(lambda w: jnp.sum(jax.vmap(conv, over)(pair, w) ** 2))(w)

    ours, theirs = (jax.jit(functools.partial(derivatives, one))(dy, x, w) for one in (conv, case.by_jax))
    assert len(seen) == 2
    assert_trees_equal(ours, theirs)


# Layers, whose weights come from outside.


def test_a_layer_inside_a_function_that_is_compiled(rng):
    """Its weights are what the function is given; forward and backward belong into one trace."""
    case = LAYERS["2d"]
    dy, x, w = (whole(rng, shape, "float64") for shape in (case.dy, case.x, case.w))
    b = whole(rng, (4,), "float64")
    said = {name: case.parameters[name] for name in ("stride", "padding", "dilation", "groups")}

    def layer(w, b):
        layer = xpconv.Conv(4, 4, (3, 2), xp=jnp, **said)
        layer.set_params(w, b)
        return layer

    @jax.jit
    def ours(dy, x, w, b):
        one = layer(w, b)
        y = one.forward(x)
        by_hand = one.backward(dy), one.dweight, one.dbias
        return y, by_hand, jax.vjp(lambda x, w, b: layer(w, b).forward(x), x, w, b)[1](dy)

    y, pull = jax.vjp(lambda x, w, b: case.by_jax(x, w) + b[:, None, None], x, w, b)
    assert_trees_equal(ours(dy, x, w, b), (y, pull(dy), pull(dy)))


def test_what_a_layer_has_seen_in_a_trace_ends_with_it(rng):
    """It can be copied and called; backward says why it cannot go back through what was traced."""
    layer = xpconv.Conv1d(2, 3, 2, xp=jnp, rng=0)
    x = jnp.asarray(rng.standard_normal((1, 2, 5)), dtype=layer.weight.dtype)

    @jax.jit
    def traced(x):
        y = layer.forward(x)
        return y, layer.backward(y)

    y, dx = traced(x)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert again.dweight is None
        np.testing.assert_allclose(again(x), y, rtol=1e-5, atol=1e-6)
        again.forward(x)
        np.testing.assert_allclose(again.backward(y), dx, rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match=r"^backward needs what forward has seen, which a trace \(jit\) does not "):
        layer.backward(y)
    layer.forward(x)
    np.testing.assert_allclose(layer.backward(y), dx, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(layer)(x), y, rtol=1e-5, atol=1e-6)


def test_a_layer_does_not_learn_in_a_trace():
    """What it would learn there would be the trace's, and of no use after it."""
    layer = xpconv.Conv2d(out_channels=4, kernel_size=3, xp=jnp)
    x = jnp.ones((1, 3, 8, 8))
    with pytest.raises(ValueError, match="in_channels must be given, or learned by a first forward outside of jit"):
        jax.jit(layer.forward)(x)
    expected = layer.forward(x)
    np.testing.assert_allclose(jax.jit(layer.forward)(x), expected, rtol=1e-6)
