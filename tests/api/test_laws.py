"""Laws that need no oracle, over geometries that torch has not: any padding, any number of axes.

To the last bit by lowering, which only adds and multiplies what it is given; within rounding by what "auto" chooses.
"""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from support import whole_numbers

from xpconv import conv, conv_backward, conv_output_size, options


@st.composite
def geometries(draw):
    ndim = draw(st.integers(0, 4))

    def per_axis(low, high):
        return draw(st.tuples(*(st.integers(low, high) for _ in range(ndim))))

    size, kernel, stride, dilation, lo, hi = (per_axis(*r) for r in ((1, 5), (1, 3), (1, 3), (1, 3), (-1, 3), (-1, 3)))
    padding = draw(st.sampled_from(["valid", "same", "same_lower", tuple(zip(lo, hi, strict=True))]))
    parameters = {"stride": stride, "padding": padding, "dilation": dilation}
    try:
        out = conv_output_size(size, kernel, **parameters)
    except ValueError:
        assume(False)
    groups, samples, inputs, outputs = (draw(st.integers(1, 3)) for _ in range(4))
    shapes = (samples, groups * outputs, *out), (samples, groups * inputs, *size), (groups * outputs, inputs, *kernel)
    return shapes, {**parameters, "groups": groups}


@given(geometry=geometries(), seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(["float64", "complex128"]))
def test_the_gradients_are_adjoint_to_the_forward(backend, geometry, seed, dtype):
    """<conv(x, w), dy> = <x, dx> = <w, dw>, where <a, b> = sum of a conj(b)."""
    shapes, parameters = geometry
    rng = np.random.default_rng(seed)
    dy, x, w = (whole_numbers(rng, shape, dtype) for shape in shapes)
    for method in ("lowering", "auto"):
        with options(method=method):
            y = backend.numpy(conv(backend.array(x), backend.array(w), **parameters))
            dx, dw, db = map(backend.numpy, conv_backward(*map(backend.array, (dy, x, w)), **parameters))
        assert y.shape == dy.shape
        products = np.asarray([np.vdot(dy, y), np.vdot(dx, x), np.vdot(dw, w)])
        largest = np.max(np.abs(y), initial=0) * np.sum(np.abs(dy))
        assert np.ptp(products.real) + np.ptp(products.imag) <= (1e-13 * largest if method == "auto" else 0)
    np.testing.assert_array_equal(db, dy.sum(axis=(0, *range(2, dy.ndim))))


@given(geometry=geometries(), seed=st.integers(0, 2**32 - 1))
def test_linear_in_each_slot(backend, geometry, seed):
    (_, x_shape, w_shape), parameters = geometry
    rng = np.random.default_rng(seed)
    x1, x2 = (whole_numbers(rng, x_shape, "float64") for _ in range(2))
    w1, w2 = (whole_numbers(rng, w_shape, "float64") for _ in range(2))

    def y(x, w):
        with options(method="lowering"):
            return backend.numpy(conv(backend.array(x), backend.array(w), **parameters))

    np.testing.assert_array_equal(y(2 * x1 + x2, w1), 2 * y(x1, w1) + y(x2, w1))
    np.testing.assert_array_equal(y(x1, 3 * w1 - w2), 3 * y(x1, w1) - y(x1, w2))


@given(geometry=geometries(), seed=st.integers(0, 2**32 - 1))
def test_samples_do_not_see_each_other(backend, geometry, seed):
    (_, x_shape, w_shape), parameters = geometry
    rng = np.random.default_rng(seed)
    x, w = whole_numbers(rng, x_shape, "float64"), whole_numbers(rng, w_shape, "float64")
    with options(method="lowering"):
        together = backend.numpy(conv(backend.array(x), backend.array(w), **parameters))
        apart = [backend.numpy(conv(backend.array(sample), backend.array(w), **parameters)) for sample in x]
    np.testing.assert_array_equal(together, np.stack(apart))
