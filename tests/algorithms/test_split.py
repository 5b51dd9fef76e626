"""Long kernels, so many taps at a time: the numbers of the loop, and NaN where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case
from support import whole_numbers

from xpconv import conv, options
from xpconv._algorithms import choose
from xpconv._algorithms.lowering import Lowering
from xpconv._algorithms.split import Split, block
from xpconv._spec.geometry import Axis, Geometry

CASES = {
    "one axis": Case((2, 2, 50), (3, 2, 12), 3),
    "groups, dilation, border": Case((1, 4, 40), (4, 2, 12), ((5, 2),), dilation=2, groups=2, padding_mode="reflect"),
    "two axes": Case((2, 2, 5, 30), (2, 2, 2, 12), (1, 4), stride=(2, 1), dilation=(2, 1)),
    "all padding": Case((1, 1, 3), (1, 1, 12), 12),
    "flip": Case((1, 1, 20), (2, 1, 12), 0, flip=True),
}


@pytest.fixture(autouse=True)
def _split(monkeypatch):
    monkeypatch.setitem(choose._BASES, "lowering", lambda _, slot, __: [Split(4) if slot == "y" else Lowering()])
    monkeypatch.setattr("xpconv._engines.problem._problems", {})


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", ["float32", "complex128", "int64"])
@pytest.mark.parametrize("name", CASES)
def test_the_numbers_of_the_loop(backend, rng, name, dtype):
    case = CASES[name]
    _, x, w, bias = (whole_numbers(rng, shape, dtype, most=4) for shape in case.shapes)
    expected = case.expected(np.zeros(case.y, dtype), x, w, bias).y
    with options(method="lowering"):
        y = conv(*map(backend.array, (x, w, bias)), **case.parameters)
    assert y.dtype == getattr(backend.xp, dtype)
    np.testing.assert_array_equal(backend.numpy(y), expected)


def test_nan_and_infinities_reach_the_outputs_that_read_them(rng):
    x, w = whole_numbers(rng, (1, 1, 60)), np.ones((1, 1, 12))
    x[0, 0, 20], x[0, 0, 40] = np.nan, np.inf
    with options(method="lowering"), np.errstate(all="ignore"):
        y = conv(x, w)[0, 0]
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(y)), np.arange(9, 21))
    np.testing.assert_array_equal(np.flatnonzero(np.isinf(y)), np.arange(29, 41))
    np.testing.assert_array_equal(y[41:], np.correlate(x[0, 0], w[0, 0])[41:])


@pytest.mark.parametrize(
    ("kernel", "stride", "taps"), [(2000, 1, 80), (2000, 2, None), (2003, 1, None), (31, 1, None), (2001, 1, 69)]
)
def test_a_divisor_above_the_square_root(kernel, stride, taps):
    assert block(Geometry(1, 1, 1, 1, (Axis(9000, kernel, stride, 1, 0, 0),))) == taps
