"""JAX's arrays outside of `jit`: one compiled function for each problem, with the results of NumPy's arrays."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from support import whole_numbers

import xpconv
from xpconv import options
from xpconv._engines import jax as engine

jax = pytest.importorskip("jax")
SHAPES = ((2, 4, 3, 4), (2, 2, 5, 6), (4, 2, 3, 3))  # of dy, x and w


@pytest.fixture(autouse=True)
def _nothing_compiled(monkeypatch):
    monkeypatch.setattr(engine, "_compiled", {})


@pytest.mark.parametrize("dtype", ["float32", "int32", "complex64"])
def test_all_slots_as_on_numpy(rng, dtype):
    dy, x, w = (whole_numbers(rng, shape, dtype) for shape in SHAPES)
    bias = whole_numbers(rng, (4,), dtype)
    arrays = [jax.numpy.asarray(one) for one in (dy, x, w, bias)]
    for _ in range(2):  # compiled, and kept
        results = xpconv.conv(*arrays[1:]), *xpconv.conv_backward(*arrays[:3])
        expected = xpconv.conv(x, w, bias), *xpconv.conv_backward(dy, x, w)
        for ours, theirs in zip(results, expected, strict=True):
            assert isinstance(ours, jax.Array)
            assert (ours.dtype, ours.device) == (theirs.dtype, arrays[0].device)
            np.testing.assert_array_equal(np.asarray(ours), theirs)
    assert len(engine._compiled) == 3


def test_a_function_is_compiled_once_for_each_problem_and_options(rng, monkeypatch):
    traced = []
    evaluate = engine.evaluate
    monkeypatch.setattr(engine, "evaluate", lambda *args, **kwargs: traced.append(args[0]) or evaluate(*args, **kwargs))
    _, x, w = (jax.numpy.asarray(whole_numbers(rng, shape, "float32")) for shape in SHAPES)
    for _ in range(3):
        xpconv.conv(x + 1, w)
    assert len(traced) == 1
    xpconv.conv(x, w, padding=1)
    with options(method="fft"):
        xpconv.conv(x, w)
    assert len(traced) == len(engine._compiled) == 3


def test_so_many_functions_are_kept_and_no_more(rng, monkeypatch):
    monkeypatch.setattr(engine, "MOST_COMPILED", 2)
    x = jax.numpy.asarray(whole_numbers(rng, (1, 1, 9), "float32"))
    for taps in range(1, 6):
        y = xpconv.conv(x, x[..., :taps])
        np.testing.assert_array_equal(
            np.asarray(y)[0, 0], np.correlate(np.asarray(x)[0, 0], np.asarray(x)[0, 0, :taps])
        )
    assert len(engine._compiled) == 2


def test_nothing_of_a_trace_is_kept(rng):
    """What was traced ends with the trace, and operands with a call."""
    _, x, w = (jax.numpy.asarray(whole_numbers(rng, shape, "float32")) for shape in SHAPES)
    in_trace = jax.jit(lambda x, w: xpconv.conv(x, w, padding=1))(x, w)
    gradient = jax.grad(lambda w: xpconv.conv(x, w, padding=1).sum())(w)
    np.testing.assert_array_equal(np.asarray(xpconv.conv(x, w, padding=1)), np.asarray(in_trace))
    expected = xpconv.conv_weight_grad(jax.numpy.ones_like(in_trace), x, kernel_size=(3, 3), padding=1)
    np.testing.assert_array_equal(np.asarray(gradient), np.asarray(expected))
    seen = weakref.ref(w)
    del w
    gc.collect()
    assert seen() is None


def test_non_finite_numbers_stay_where_they_belong(rng):
    x = np.asarray(whole_numbers(rng, (1, 1, 40), "float32"))
    x[0, 0, 20] = np.nan
    y = xpconv.conv(jax.numpy.asarray(x), jax.numpy.ones((1, 1, 3), dtype="float32"))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(np.asarray(y))), [18, 19, 20])
