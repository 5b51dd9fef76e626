"""Where the padding is as long as the kernel, transforms are no longer than the result, and nothing wraps around."""

from __future__ import annotations

from itertools import product

import numpy as np
import oracle
import pytest
from support import draw

from xpconv import conv, conv_backward, conv_weight_grad, options
from xpconv._algorithms import contractions
from xpconv._algorithms.choose import Wanted, choose
from xpconv._algorithms.fourier import Fourier, shortest
from xpconv._algorithms.plan import Limits, plan
from xpconv._algorithms.weight import Weight
from xpconv._spec.geometry import Axis, Geometry, parse


def axes(sizes, kernels, strides=(1,), dilations=(1,), paddings=range(-2, 6)):
    """All axes with at least one output and one input that is not cropped."""
    for row in product(sizes, kernels, strides, dilations, paddings, paddings):
        axis = Axis(*row)
        if axis.padded >= axis.extent and axis.size + min(axis.lo, 0) + min(axis.hi, 0) > 0:
            yield axis


def meets_only_its_own(axis, length):
    """Whether outputs, taps and inputs that meet in a circle of this length are those that meet in the convolution."""
    outputs, taps, inputs = range(axis.stride * (axis.out - 1) + 1), range(axis.extent), range(axis.size)
    span = len(outputs) + len(taps) - 1
    read = [i + axis.lo for i in inputs if 0 <= i + axis.lo < span]
    return all((j + t - p) % length or j + t == p for j, t, p in product(outputs, taps, read))


def test_the_shortest_transform_is_long_enough_and_no_longer():
    """By trying out all lengths."""
    for axis in axes(range(1, 6), range(1, 6), (1, 2), (1, 2)):
        if axis.lo >= axis.stride * (axis.out - 1) + axis.extent:
            continue  # no window reads any input
        outputs = axis.stride * (axis.out - 1) + 1
        lengths = range(max(outputs, axis.extent), axis.padded + axis.extent + 6)
        assert shortest(axis) == next(length for length in lengths if meets_only_its_own(axis, length)), axis
    assert shortest(Axis(512, 512, 1, 1, 511, 511)) == 1023
    assert shortest(Axis(512, 512, 1, 1, 511, 0)) == 1023
    assert shortest(Axis(512, 63, 1, 1, 31, 31)) == 543
    assert shortest(Axis(512, 512, 1, 1, 0, 0)) == 512


def in_the_basis(basis, geometry, dtype, rng):
    """The three contractions by a basis, in one part, and by the oracle."""
    dy, x, w = (draw(rng, shape, dtype) for shape in (geometry.y_shape, geometry.x_shape, geometry.w_shape))
    plans = [plan(geometry, slot, basis, Limits(8, 2**40, 2**40)) for slot in "yxw"]
    assert all(planned.parts.count == 1 for planned in plans)
    y = contractions.Target(w.dtype)
    results = (
        contractions.forward(plans[0], x, Weight(w), None, y, xp=np),
        contractions.input_grad(plans[1], dy, Weight(np.conj(w)), None, y, xp=np),
        contractions.weight_grad(plans[2], dy, np.conj(x), xp=np),
    )
    _, _, stride, dilation, lo, *_ = zip(*geometry.axes, strict=True)
    sums = oracle.contract(dy, x, w, stride=stride, lo=lo, dilation=dilation, groups=geometry.groups)
    return results, sums


def test_every_slot_at_the_shortest_length(rng):
    """Along one axis, for every padding and cropping, and for lengths up to that of all windows."""
    for axis in axes((1, 2, 5), (1, 2, 4), (1, 2), (1, 2)):
        geometry = Geometry(1, 1, 1, 1, (axis,))
        for length in {max(shortest(axis), 3), max(axis.padded, shortest(axis), 3)}:
            for result, values in zip(*in_the_basis(Fourier((length,)), geometry, "float64", rng), strict=False):
                np.testing.assert_allclose(result, values, rtol=0, atol=1e-13, err_msg=f"{axis} {length}")


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize(
    "across",
    [
        (Axis(5, 5, 1, 1, 4, 4), Axis(4, 6, 1, 1, 5, 5)),
        (Axis(6, 4, 1, 1, 3, 1), Axis(5, 5, 1, 1, 2, 4)),
        (Axis(7, 4, 2, 2, 6, 5), Axis(8, 3, 3, 1, 2, -2)),
        (Axis(9, 3, 1, 2, -2, 4), Axis(6, 5, 1, 1, 7, 9)),
    ],
)
def test_every_slot_along_two_axes(rng, across, dtype):
    geometry = Geometry(2, 2, 3, 2, across)
    lengths = tuple(shortest(axis) for axis in across)
    for result, values in zip(*in_the_basis(Fourier(lengths), geometry, dtype, rng), strict=False):
        np.testing.assert_allclose(result, values, rtol=0, atol=1e-13 * np.max(np.abs(values)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize(("image", "kernel"), [((40, 41), (40, 41)), ((37, 64), (36, 33)), ((50, 30), (15, 29))])
def test_kernels_as_large_as_the_image(backend, rng, image, kernel, mode, dtype):
    """By SciPy, in float64; its kernel of even length stands one place further to the left in "same"."""
    signal = pytest.importorskip("scipy.signal")
    x, w = draw(rng, (1, 1, *image), dtype), draw(rng, (1, 1, *kernel), dtype)
    padding = "same_lower" if mode == "same" else mode
    dy = draw(rng, conv(x, w, padding=padding).shape, dtype)
    wide = np.result_type(dtype, "float64")
    x_, w_, dy_ = (a[0, 0].astype(wide) for a in (x, w, dy))
    expected = [signal.fftconvolve(x_, w_[::-1, ::-1], mode)]
    # The gradients of all of "full"; those of the others are the gradients where the rest of dy is zero.
    whole = np.zeros([a + b - 1 for a, b in zip(image, kernel, strict=True)], dtype=wide)
    starts = [(a - b) // 2 for a, b in zip(whole.shape, dy_.shape, strict=True)]
    whole[tuple(slice(start, start + size) for start, size in zip(starts, dy_.shape, strict=True))] = dy_
    expected.append(signal.fftconvolve(whole, np.conj(w_), "valid"))
    expected.append(signal.fftconvolve(whole, np.conj(x_)[::-1, ::-1], "valid")[::-1, ::-1])
    with options(method="fft"):
        arrays = [backend.array(a) for a in (dy, x, w)]
        results = conv(*arrays[1:], padding=padding), *conv_backward(*arrays, padding=padding)[:2]
    dy_norm, x_norm, w_norm = map(np.linalg.norm, (dy_, x_, w_))
    scales = x_norm * w_norm, dy_norm * w_norm, dy_norm * x_norm  # the largest that a sum of the products can be
    for result, values, scale in zip(results, expected, scales, strict=True):
        values_here = backend.numpy(result)[0, 0]
        assert values_here.dtype == np.dtype(dtype)
        assert np.max(np.abs(values_here - values)) <= np.finfo(dtype).eps * scale


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("padding", [[(29, 3), (0, 39)], [(-4, 30), (11, -3)], [(40, 41), (50, 2)]])
def test_the_adjoint_law(rng, padding, dtype):
    """<dy, conv(x, w)> is <dx, x>, and <dw, w>."""
    x, w = draw(rng, (2, 2, 31, 40), dtype), draw(rng, (3, 2, 27, 38), dtype)
    with options(method="fft"):
        y = conv(x, w, padding=padding)
        dy = draw(rng, y.shape, dtype)
        dx, dw, _ = conv_backward(dy, x, w, padding=padding)
        np.testing.assert_array_equal(dw, conv_weight_grad(dy, x, kernel_size=w.shape[2:], padding=padding))
    scale = np.linalg.norm(dy) * np.linalg.norm(y)
    assert abs(np.vdot(dx, x) - np.vdot(dy, y)) < 1e-14 * scale
    assert abs(np.vdot(dw, w) - np.vdot(dy, y)) < 1e-14 * scale


def test_the_chosen_length_is_that_of_the_result():
    geometry = parse((1, 1, 512, 512), (1, 1, 512, 512), 1, "full", 1, 1)
    for slot in "yxw":
        chosen = choose(geometry, slot, Wanted(Limits(4, 2**30, 2**30, 2**62), True, True, True, "fft", "auto"))
        assert chosen.plan.basis == Fourier((1024, 1024))
