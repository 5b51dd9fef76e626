"""A circular border: transforms of the input's own length, in which the border is the input itself."""

from __future__ import annotations

from itertools import product

import numpy as np
import oracle
import pytest
from support import draw

from xpconv import conv, conv_backward, options
from xpconv._algorithms.choose import Wanted, choose
from xpconv._algorithms.fourier import Fourier
from xpconv._algorithms.plan import Limits
from xpconv._spec.convolution import Convolution
from xpconv._spec.parameters import Parameters


def around(dy, x, w, padding, stride=(1, 1), dilation=(1, 1), groups=1):
    """The three contractions as they are written, product by product."""
    lo, hi = zip(*padding, strict=True)
    modes = ("circular",) * len(lo)
    return oracle.contract(dy, x, w, stride=stride, lo=lo, hi=hi, dilation=dilation, modes=modes, groups=groups)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize(
    ("size", "kernel", "padding", "others"),
    [
        ((6, 5), (6, 5), [(5, 0), (2, 2)], {}),
        ((8, 9), (3, 4), [(1, 1), (0, 3)], {}),
        ((5, 8), (2, 8), [(0, 1), (7, 7)], {}),  # more outputs than inputs along the second axis
        ((6, 8), (3, 2), [(-1, 3), (4, -2)], {}),
        ((10, 9), (3, 3), [(2, 2), (4, 1)], {"stride": (2, 3), "dilation": (2, 2)}),
        ((7, 11), (3, 3), [(1, 1), (1, 1)], {}),  # no fast lengths
        ((4, 4), (5, 6), [(3, 4), (4, 4)], {}),  # longer kernels than the input
        ((12, 6), (3, 3), [(1, 1), (1, 1)], {"groups": 2}),
    ],
)
def test_every_slot_around_a_circle(backend, rng, size, kernel, padding, others, dtype):
    groups = others.get("groups", 1)
    x, w = draw(rng, (2, 2 * groups, *size), dtype), draw(rng, (3 * groups, 2, *kernel), dtype)
    parameters = {"padding": padding, "padding_mode": "circular", **others}
    with options(method="fft"):
        y = conv(backend.array(x), backend.array(w), **parameters)
        dy = draw(rng, y.shape, dtype)
        dx, dw, _ = conv_backward(*map(backend.array, (dy, x, w)), **parameters)
    for result, values in zip((y, dx, dw), around(dy, x, w, padding, **others), strict=False):
        np.testing.assert_allclose(backend.numpy(result), values, rtol=0, atol=1e-13 * np.max(np.abs(values)))


@pytest.mark.parametrize("stride", [1, 3])
def test_parts_of_a_circle(rng, stride):
    """In little workspace: some parts are cut along the circle, and read more or less of it than all."""
    x, w = draw(rng, (2, 4, 96, 90), "float64"), draw(rng, (4, 2, 41, 37), "float64")
    parameters = {"stride": stride, "padding": [(20, 20), (3, 50)], "padding_mode": "circular", "groups": 2}
    both = []
    for method, workspace in (("lowering", 2**26), ("fft", 2**20)):
        with options(method=method, workspace=workspace):
            y = conv(x, w, **parameters)
            both.append((y, *conv_backward(y, x, w, **parameters)[:2]))
    for plain, result in zip(*both, strict=True):
        np.testing.assert_allclose(result, plain, rtol=0, atol=1e-13 * np.max(np.abs(plain)))


def test_every_circle_of_one_axis(rng):
    for size, kernel, stride, lo, hi in product((4, 5, 6), (1, 2, 4, 6), (1, 2), (-1, 0, 2, 6), (-1, 0, 3, 5)):
        if lo + size + hi < kernel or max(lo, hi) <= 0:
            continue
        x, w = draw(rng, (1, 1, size), "float64"), draw(rng, (1, 1, kernel), "float64")
        parameters = {"stride": stride, "padding": [(lo, hi)], "padding_mode": "circular"}
        with options(method="fft"):
            y = conv(x, w, **parameters)
            dy = draw(rng, y.shape, "float64")
            dx, dw, _ = conv_backward(dy, x, w, **parameters)
        for result, values in zip((y, dx, dw), around(dy, x, w, [(lo, hi)], (stride,), (1,)), strict=False):
            np.testing.assert_allclose(result, values, rtol=0, atol=1e-13, err_msg=f"{parameters}, {size}, {kernel}")


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_one_product_of_transforms(rng, dtype):
    """By NumPy's transforms: the forward convolution with a kernel as large as the image."""
    x, w = draw(rng, (1, 1, 48, 45), dtype), draw(rng, (1, 1, 48, 45), dtype)
    spectrum = np.fft.fft2(x) * np.conj(np.fft.fft2(np.conj(w)))
    expected = np.fft.ifft2(spectrum)
    y = conv(x, w, padding=[(0, 47), (0, 44)], padding_mode="circular")
    assert np.max(np.abs(y - expected)) <= np.finfo(dtype).eps * np.linalg.norm(x) * np.linalg.norm(w)


def test_the_chosen_length_is_that_of_the_input():
    parameters = Parameters(padding="same", padding_mode="circular")
    for size, kernel, length in ((512, 512, 512), (500, 63, 500), (487, 400, 900)):
        convolution = Convolution.of((1, 1, size, size), (1, 1, kernel, kernel), parameters)
        for slot in "ywx":
            (step,) = convolution.steps
            wanted = Wanted(Limits(4, 2**30, 2**30, 2**62), True, True, True, "fft", "auto")
            assert choose(step.geometry, slot, wanted).plan.basis == Fourier((length, length))
