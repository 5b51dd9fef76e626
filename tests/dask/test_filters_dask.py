"""Filters of each sample and of each place, and streams, over dask's chunks: what NumPy gives, to the bit."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from support import whole_numbers

from xpconv import (
    conv,
    conv_backward,
    conv_input_grad,
    conv_stream,
    conv_transpose,
    conv_weight_grad,
    local_conv,
    local_conv_backward,
    local_conv_transpose,
    options,
)

SAID = {"stride": (2, 1), "padding": 1, "groups": 2}
SHAPES = {
    "x": (3, 4, 7, 6),
    "w": (6, 2, 3, 2),
    "each": (3, 6, 2, 3, 2),
    "back": (3, 4, 3, 3, 2),
    "local": (6, 2, 3, 2, 4, 7),
    "b": (6,),
    "own": (3, 6),
    "c": (4,),
    "dy": (3, 6, 4, 7),
    "ts": (6,),
    "state": (3, 4, 3, 6),
}
CALLS = {
    "conv": (lambda x, each, own: conv(x, each, own, per_sample=True, **SAID), "x each own"),
    "conv_backward": (lambda dy, x, each: conv_backward(dy, x, each, per_sample=True, **SAID), "dy x each"),
    "conv_input_grad": (
        lambda dy, each: conv_input_grad(dy, each, input_size=(7, 6), per_sample=True, **SAID),
        "dy each",
    ),
    "conv_weight_grad": (
        lambda dy, x: conv_weight_grad(dy, x, kernel_size=(3, 2), per_sample=True, **SAID),
        "dy x",
    ),
    "conv_transpose": (lambda x, back, b: conv_transpose(x, back, b, per_sample=True, **SAID), "x back b"),
    "local_conv": (lambda x, local, b: local_conv(x, local, b, **SAID), "x local b"),
    "local_conv_backward": (lambda dy, x, local: local_conv_backward(dy, x, local, **SAID), "dy x local"),
    "local_conv_transpose": (lambda dy, local, c: local_conv_transpose(dy, local, c, **SAID), "dy local c"),
    "conv_stream": (lambda x, w, b, state: conv_stream(x, w, b, state, stride=2, groups=2), "x w b state"),
    "conv_stream, its beginning": (lambda x, w: conv_stream(x, w, stride=2, groups=2), "x w"),
}


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", CALLS)
def test_as_numpy(rng, name, size):
    call, names = CALLS[name]
    values = [whole_numbers(rng, SHAPES[one], "float64", most=4) for one in names.split()]
    with options(method="lowering"):
        assert_equal(call(*(da.from_array(one, chunks=size) for one in values)), call(*values))


@pytest.mark.parametrize("name", ["conv_backward", "local_conv_backward"])
def test_gradients_have_the_chunks_of_their_operands(name):
    call, names = CALLS[name]
    dy, x, w = (da.ones(SHAPES[one], chunks=2) for one in names.split())
    dx, dw, _ = call(dy, x, w)
    assert dx.chunks == x.chunks
    if name == "local_conv_backward":
        assert dw.chunks == w.chunks


def assert_equal(results, expected):
    several = isinstance(expected, tuple)
    for one, other in zip(results if several else [results], expected if several else [expected], strict=True):
        assert isinstance(one, da.Array)
        made = one.compute()
        assert one.shape == made.shape
        assert one.dtype == made.dtype == other.dtype
        np.testing.assert_array_equal(made, other)


@pytest.mark.parametrize("name", CALLS)
def test_arrays_of_the_chunks_kind_beside(rng, name):
    call, names = CALLS[name]
    values = [whole_numbers(rng, SHAPES[one], "float64", most=4) for one in names.split()]
    with options(method="lowering"):
        expected = call(*values)
        for i, one in enumerate(values):
            results = call(*values[:i], da.from_array(one, chunks=3), *values[i + 1 :])
            if isinstance(expected, tuple):  # what does not depend on the lazy one is not lazy
                results = tuple(map(da.asarray, results))
            assert_equal(results, expected)
