"""`convolve` and `correlate` against scipy.signal, and of JAX's arrays against jax.scipy.signal and its derivatives."""

from __future__ import annotations

from itertools import product

import jax
import jax.numpy as jnp
import jax.scipy.signal as by_jax
import numpy as np
import pytest
from scipy import signal
from support import assert_within, draw, whole_numbers

import xpconv
from xpconv import options

NAMES = pytest.mark.parametrize("name", ["convolve", "correlate"])
MODES = pytest.mark.parametrize("mode", ["full", "same", "valid"])
SHAPES = {ndim: list(product(range(1, 6), repeat=ndim)) for ndim in (1, 2)}


@NAMES
@MODES
@pytest.mark.parametrize("ndim", [1, 2])
def test_every_shape(rng, name, mode, ndim):
    """Values, sizes, centres and exchanges; whole numbers, so that every sum is exact."""
    for x_shape, kernel_shape in product(SHAPES[ndim], repeat=2):
        x, kernel = whole_numbers(rng, x_shape, "complex128"), whole_numbers(rng, kernel_shape, "complex128")
        try:
            expected = getattr(signal, name)(x, kernel, mode, method="direct")
        except ValueError:
            with pytest.raises(ValueError, match=r"^mode must be 'full' or 'same' where neither"):
                getattr(xpconv, name)(x, kernel, mode=mode)
        else:
            made = getattr(xpconv, name)(x, kernel, mode=mode)
            np.testing.assert_array_equal(made, expected, f"{x_shape} and {kernel_shape}")


@NAMES
@MODES
@pytest.mark.parametrize(("stride", "dilation"), [((2, 1), (1, 2)), ((1, 3), (3, 1)), ((2, 2), (2, 2))])
def test_stride_and_dilation(rng, name, mode, stride, dilation):
    """Of the whole result every so many elements; of a kernel with zeros between its taps."""
    shapes = [((7, 6), (2, 2)), ((2, 2), (3, 4)), ((2, 3), (7, 7)), ((1, 1), (1, 1)), ((7, 7), (3, 2))]
    for x_shape, kernel_shape in shapes:
        x, kernel = whole_numbers(rng, x_shape, "complex128"), whole_numbers(rng, kernel_shape, "complex128")
        wide = np.zeros([d * (k - 1) + 1 for d, k in zip(dilation, kernel_shape, strict=True)], kernel.dtype)
        wide[:: dilation[0], :: dilation[1]] = kernel
        expected = getattr(signal, name)(x, wide, mode, method="direct")[:: stride[0], :: stride[1]]
        made = getattr(xpconv, name)(x, kernel, mode=mode, stride=stride, dilation=dilation)
        np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("axes", [0, -1, (0, 2), (2, 1), (0, 1, 2)])
def test_axes_and_batches(rng, mode, axes):
    """The axes of `fftconvolve`, and of `oaconvolve`."""
    batches = [(3, 3), (1, 3), (3, 1), (1, 1)]
    named = [axis % 3 for axis in np.atleast_1d(axes)]
    for first, second in product(batches, repeat=2):
        if mode == "same" and (1, 3) in (first, second):
            continue  # SciPy makes the result as large as x on the axes of the batch, too
        sizes = [(6 - i, 2 + i) if i in named else (first, second)[i % 2] for i in range(3)]
        x, kernel = (draw(rng, shape, "float64") for shape in zip(*sizes, strict=True))
        size = np.prod([1 if i not in named else 7 for i in range(3)])
        for theirs in (signal.fftconvolve, signal.oaconvolve):
            expected = theirs(x, kernel, mode, axes=axes)
            made = xpconv.convolve(x, kernel, mode=mode, axes=axes)
            np.testing.assert_allclose(made, expected, rtol=0, atol=1e-13 * size)


@NAMES
@pytest.mark.parametrize("ours", ["int8", "uint8", "int16", "int32", "int64", "float32", "float64", "complex64"])
@pytest.mark.parametrize("theirs", ["int8", "uint16", "int64", "float32", "complex128"])
def test_dtypes(rng, name, ours, theirs):
    """SciPy's result, with its dtype; integers are exact."""
    x, kernel = (whole_numbers(rng, shape, dtype) for shape, dtype in (((5, 4), ours), ((2, 3), theirs)))
    expected = getattr(signal, name)(x, kernel, "same", method="direct")
    made = getattr(xpconv, name)(x, kernel, mode="same")
    assert made.dtype == expected.dtype
    np.testing.assert_array_equal(made, expected)


def test_large_integers_are_exact(rng):
    """Far beyond what floating point holds, for a long kernel as well."""
    x, kernel = rng.integers(-(2**30), 2**30, 3000), rng.integers(-(2**28), 2**28, 200)
    np.testing.assert_array_equal(xpconv.convolve(x, kernel), signal.convolve(x, kernel))
    np.testing.assert_array_equal(xpconv.correlate(x, kernel, mode="valid"), signal.correlate(x, kernel, "valid"))


@NAMES
@pytest.mark.parametrize("method", ["auto", "lowering", "fft"])
@pytest.mark.parametrize("shapes", [((3000,), (400,)), ((90, 80), (30, 31)), ((500,), (500,))])
def test_long_kernels(rng, name, method, shapes):
    x, kernel = (draw(rng, shape, "float64") for shape in shapes)
    expected = getattr(signal, name)(x, kernel, "same")
    with options(method=method):
        made = getattr(xpconv, name)(x, kernel, mode="same")
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-13 * np.max(np.abs(expected)))


@pytest.mark.parametrize("mode", ["full", "same"])
def test_borders(rng, mode):
    """`convolve2d` with a boundary that wraps around."""
    for x_shape, kernel_shape in (((5, 4), (3, 2)), ((3, 2), (2, 3)), ((4, 4), (4, 4))):
        x, kernel = whole_numbers(rng, x_shape), whole_numbers(rng, kernel_shape)
        expected = signal.convolve2d(x, kernel, mode, "wrap")
        np.testing.assert_array_equal(xpconv.convolve(x, kernel, mode=mode, padding_mode="circular"), expected)


# JAX.


@pytest.mark.parametrize(
    ("name", "mode", "shapes"),
    [
        ("convolve", "full", ((6,), (3,))),
        ("convolve", "same", ((2,), (5,))),
        ("correlate", "valid", ((3,), (6,))),
        ("correlate", "same", ((3, 4), (2, 3))),
    ],
)
def test_arrays_of_jax(rng, name, mode, shapes):
    """Compiled, mapped and differentiated, by JAX and by hand; JAX does not conjugate gradients of complex numbers."""
    x, kernel = (jnp.asarray(whole_numbers(rng, (3, *shape), "complex128")) for shape in shapes)

    def ours(x, kernel):
        return getattr(xpconv, name)(x, kernel, mode=mode)

    def theirs(x, kernel):
        return getattr(by_jax, name)(x, kernel, mode, method="direct")

    expected = jax.vmap(theirs)(x, kernel)
    y = jax.jit(jax.vmap(ours))(x, kernel)
    assert isinstance(y, jax.Array)
    assert_near(y, expected, expected)
    assert_near(ours(x[0], kernel[0]), expected[0], expected)
    pulled, by_theirs = (
        jax.jit(lambda *slots, of=of: jax.vjp(of, *slots)[1](expected[1]))(x[0], kernel[0]) for of in (ours, theirs)
    )
    backward = getattr(xpconv, f"{name}_backward")
    by_hand = jax.jit(lambda *slots: backward(*slots, mode=mode))(expected[1].conj(), x[0], kernel[0])
    for one, by_our_hand, other in zip(pulled, by_hand, by_theirs, strict=True):
        assert_near(one, other, other)
        assert_near(by_our_hand.conj(), other, other)


def assert_near(ours, theirs, like):
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    magnitude = np.full(ours.shape, np.max(np.abs(np.asarray(like))))
    assert_within(np.asarray(ours), np.asarray(theirs), magnitude, 20)


def test_batches_of_jax(rng):
    """A bank of filters for each of several recordings, under `jit` and under `vmap`."""
    x, kernel = jnp.asarray(whole_numbers(rng, (4, 1, 9))), jnp.asarray(whole_numbers(rng, (1, 3, 4)))
    expected = signal.fftconvolve(np.asarray(x), np.asarray(kernel), axes=2)
    y = jax.jit(lambda x, kernel: xpconv.convolve(x, kernel, axes=2))(x, kernel)
    np.testing.assert_allclose(np.asarray(y), expected, atol=1e-11)
    each = jax.vmap(lambda x: xpconv.convolve(x, kernel[0], axes=-1))(x)
    np.testing.assert_array_equal(np.asarray(each), np.asarray(y))
