"""Many phases of a dilated input, filled at once: resampling, with the numbers of the loop."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case
from support import whole_numbers

from xpconv import conv, conv_backward, conv_transpose, options
from xpconv._engines import evaluate
from xpconv._spec import phases

CASES = {
    "up 9, down 4": Case((2, 4, 7), (4, 2, 21), 20, stride=4, input_dilation=9, groups=2),
    "unequal phases, flip": Case((1, 1, 12), (2, 1, 30), ((29, 3),), stride=7, input_dilation=10, flip=True),
    "taps that meet nothing": Case((1, 2, 6), (3, 2, 7), 5, stride=1, dilation=2, input_dilation=8),
    "phases that no tap meets": Case((1, 1, 9), (2, 1, 3), 0, stride=3, input_dilation=8),
    "cropped": Case((1, 2, 9), (2, 2, 12), ((-3, 5),), stride=5, input_dilation=8),
    "of two axes one": Case((1, 2, 5, 4), (2, 2, 2, 10), (1, 9), stride=(2, 3), input_dilation=(1, 8)),
}


@pytest.fixture
def filled(monkeypatch):
    """Whether phases were filled at once, call by call."""
    seen, at_once = [], evaluate.at_once

    def noticed(*args, **kwargs):
        made = at_once(*args, **kwargs)
        seen.append(made is not None)
        return made

    monkeypatch.setattr(evaluate, "at_once", noticed)
    return seen


@pytest.mark.parametrize("dtype", ["float64", "complex64", "int32"])
@pytest.mark.parametrize("name", CASES)
def test_the_numbers_of_the_loop(backend, rng, filled, monkeypatch, name, dtype):
    monkeypatch.setattr(phases, "MOST_ZEROS", 100)
    monkeypatch.setattr("xpconv._engines.problem._problems", {})
    case = CASES[name]
    operands = [whole_numbers(rng, shape, dtype, most=4) for shape in case.shapes]
    expected = case.expected(*operands)
    dy, x, w, bias = map(backend.array, operands)
    results = conv(x, w, bias, **case.parameters), *conv_backward(dy, x, w, **case.parameters)[:2]
    for actual, sums in zip(results, (expected.y, expected.dx, expected.dw), strict=True):
        assert actual.dtype == getattr(backend.xp, dtype)
        np.testing.assert_array_equal(np.round(backend.numpy(actual), 3), sums)
    assert filled == [backend.can_look] * 3


def test_numbers_that_are_not_finite_stay_where_they_belong(rng, filled):
    case = CASES["up 9, down 4"]
    dy, x, w, _ = (whole_numbers(rng, shape) for shape in case.shapes)
    x[0, 0, 3], x[1, 2, 5] = np.nan, np.inf
    with np.errstate(all="ignore"):
        results = conv(x, w, **case.parameters), *conv_backward(dy, x, w, **case.parameters)[:2]
        expected = case.expected(dy, x, w)
    assert filled == [False, True, False]  # dx does not read x
    np.testing.assert_array_equal(results[0], expected.y)
    np.testing.assert_array_equal(results[2], expected.dw)


def test_a_resampler_of_audio(rng, filled):
    scipy = pytest.importorskip("scipy.signal")
    x, h = rng.standard_normal(500), rng.standard_normal(3200)
    parameters = {"stride": 147, "input_dilation": 160, "padding": 3199}
    y = conv(x[None, None], h[None, None, ::-1], **parameters)[0, 0]
    expected = scipy.upfirdn(h, x, 160, 147)
    np.testing.assert_allclose(y, expected[: len(y)], rtol=0, atol=1e-12)
    dx = conv_transpose(y[None, None], h[None, None, ::-1], output_size=500, **parameters)[0, 0]
    np.testing.assert_allclose(dx @ x, y @ y, rtol=1e-12)
    assert filled == [True] * 2


def test_a_method_or_a_workspace_that_is_asked_for_holds_for_each_phase(rng, filled):
    case = CASES["up 9, down 4"]
    x, w = (whole_numbers(rng, shape) for shape in case.shapes[1:3])
    for option in ({"method": "lowering"}, {"workspace": 2**20}):
        with options(**option):
            conv(x, w, **case.parameters)
    assert filled == [False] * 2
