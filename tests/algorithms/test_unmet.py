"""Where no tap meets an input there are exact zeros, by every method."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
import pytest
from cases import Case
from support import draw

from xpconv import conv, conv_backward, conv_transpose, options
from xpconv._algorithms.unmet import _met
from xpconv._spec.geometry import Axis


def axes():
    for row in product((1, 2, 5), (1, 2, 3), (1, 2, 4), (1, 3, 6), (-1, 0, 2, 7), (-1, 0, 3, 8)):
        axis = Axis(*row)
        if axis.padded >= axis.extent and axis.size + min(axis.lo, 0) + min(axis.hi, 0) >= 0:
            yield axis


def test_what_is_met():
    """One by one, as the sum is written."""
    missed = 0
    for axis in axes():
        expected = {"y": np.zeros(axis.out), "w": np.zeros(axis.kernel), "x": np.zeros(axis.size)}
        for j, t in product(range(axis.out), range(axis.kernel)):
            i = axis.stride * j + axis.dilation * t - axis.lo
            if 0 <= i < axis.size:
                expected["y"][j] = expected["w"][t] = expected["x"][i] = 1
        for slot, values in expected.items():
            np.testing.assert_array_equal(_met(slot, axis), values)
            assert values.all() or axis.misses(slot)
            missed += not values.all()
    assert missed > 100


CASES = {
    "padding beyond the kernel": Case((2, 1, 5, 5), (2, 1, 3, 3), ((7, 3), (0, 9))),
    "a stride over the kernel": Case((1, 2, 9, 9), (2, 2, 3, 3), 1, stride=(4, 4)),
    "cropped": Case((1, 2, 8, 7), (2, 2, 3, 3), ((-2, 0), (0, -3))),
    "a dilation over the input": Case((1, 2, 6, 5), (2, 2, 3, 3), 9, dilation=(8, 7)),
    "groups": Case((1, 2, 4, 4), (2, 1, 3, 3), 4, groups=2),
}


@lru_cache
def terms_of(name):
    """How many products there are in each number."""
    case = CASES[name]
    return case.expected(*(np.ones(shape) for shape in case.shapes[:3]))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("method", ["auto", "fft", "winograd", "banded", "lowering"])
@pytest.mark.parametrize("name", CASES)
def test_zeros_are_exact(backend, rng, name, method):
    case = CASES[name]
    if method == "winograd" and (case.stride or case.dilation):
        return  # is for neither
    dy, x, w, bias = (draw(rng, shape, "complex64") for shape in case.shapes)
    terms = terms_of(name)
    arrays = [backend.array(one) for one in (dy, x, w)]
    with options(method=method):
        y, biased = (conv(*arrays[1:], one, **case.parameters) for one in (None, backend.array(bias)))
        dx, dw, _ = conv_backward(*arrays, **case.parameters)
        back = conv_transpose(arrays[0], arrays[2], output_size=case.x[2:], **case.parameters)
    pairs = [(y, terms.y), (dx, terms.dx), (back, terms.dx), (dw, terms.dw)]
    for ours, count in pairs:
        ours = backend.numpy(ours)
        np.testing.assert_array_equal(ours[count == 0], 0)
        assert np.all(ours[count > 0] != 0)
    assert any(np.any(count == 0) for _, count in pairs)
    there = terms.y == 0
    everywhere = np.broadcast_to(bias.reshape(-1, 1, 1), there.shape)
    np.testing.assert_array_equal(backend.numpy(biased)[there], everywhere[there])
