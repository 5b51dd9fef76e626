"""Kernels up to the size of the input: the number of parts follows from the bytes to be moved, whatever the slot."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch

from xpconv import conv, conv_input_grad, conv_transpose, conv_weight_grad, explain, options
from xpconv._algorithms.choose import Wanted, choose
from xpconv._algorithms.lowering import Lowering
from xpconv._algorithms.plan import UNLIMITED, Limits, plan
from xpconv._spec.geometry import parse

F = torch.nn.functional
MIB = 2**20

SHAPES = {
    "23x23 on 48x48": ((1, 4, 48, 48), (4, 4, 23, 23)),
    "63x63 on 256x256": ((1, 4, 256, 256), (4, 4, 63, 63)),
    "31x31 on 40x40, batch 8": ((8, 3, 40, 40), (5, 3, 31, 31)),
    "4,096 on 48,000": ((1, 4, 48_000), (4, 4, 4096)),
    "half of the input": ((2, 2, 128, 128), (2, 2, 64, 64)),
    "all of the input": ((1, 3, 512, 512), (8, 3, 512, 512)),
    "all of the input, batch 8": ((8, 3, 512, 512), (8, 3, 512, 512)),
    "all but one of the input": ((1, 3, 200, 300), (2, 3, 199, 299)),
    "one tap": ((2, 8, 300, 300), (8, 8, 1, 1)),
    "three axes": ((1, 2, 24, 24, 24), (2, 2, 11, 12, 13)),
}
MACHINES = {  # bytes of a block, and how many parts there may be: on threads, on a GPU, while JAX traces
    "threads": (8 * MIB, UNLIMITED),
    "a GPU": (32 * MIB, UNLIMITED),
    "a trace": (32 * MIB, 32),
}


def columns_bytes(geometry):
    """All windows of the input at once, the padded input and the outputs, in numbers of 4 bytes."""
    channels = geometry.groups * geometry.inputs
    columns = channels * geometry.taps * geometry.positions
    outputs = 2 * geometry.groups * geometry.outputs * geometry.positions
    return 4 * geometry.samples * (columns + channels * math.prod(geometry.padded) + outputs)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("name", SHAPES)
def test_parts_are_in_proportion_to_bytes_over_a_block(name, stride, machine):
    x, w = SHAPES[name]
    block, most = MACHINES[machine]
    for padding, slot in product(("valid", "same", "full"), "yxw"):
        geometry = parse(x, w, stride, padding, 1, 1)
        one_window = columns_bytes(parse((1, 1, *w[2:]), (1, 1, *w[2:]), 1, 0, 1, 1))
        # Cutting evenly makes up to twice as many parts along each of the axes that are cut: samples or channels, and
        # the first spatial axis. The weight's gradient is cut by the weight's size as well.
        parts = 4 * (1 + columns_bytes(geometry) / max(min(block, columns_bytes(geometry) / 4), MIB, one_window))
        planned = plan(geometry, slot, Lowering(), Limits(4, 64 * MIB, block, most))
        assert planned.parts.count <= parts * planned.weight_cuts
        if machine == "a trace":
            assert planned.parts.count <= 4 * most * planned.weight_cuts
        chosen = choose(geometry, slot, Wanted(Limits(4, 64 * MIB, block, most), True, False, True, "auto", "auto"))
        cuts = sum(piece.plan.weight_cuts for piece in chosen.pieces)
        assert sum(piece.plan.parts.count for piece in chosen.pieces) <= parts * cuts


CALLS = {
    "23x23 on 48x48": ((1, 4, 48, 48), (4, 4, 23, 23), {}),
    "in strides": ((1, 2, 64, 64), (2, 2, 40, 41), {"stride": 5}),
    "1,000 on 6,000": ((1, 2, 6_000), (2, 2, 1000), {"padding": 999}),
    "all of the input": ((2, 3, 96, 96), (4, 3, 96, 96), {}),
    "in groups": ((1, 4, 50, 50), (4, 2, 33, 33), {"groups": 2, "padding": 16}),
}


@pytest.mark.parametrize("method", ["auto", "lowering"])
@pytest.mark.parametrize("name", CALLS)
def test_every_slot_of_a_long_kernel(backend, rng, name, method):
    """Against torch, of whole numbers: sums of them are exact in any order; "auto" may take Fourier transforms."""
    x_shape, w_shape, parameters = CALLS[name]
    x, w = (rng.integers(-3, 4, shape).astype("float64") for shape in (x_shape, w_shape))
    tx, tw = torch.from_numpy(x).requires_grad_(), torch.from_numpy(w).requires_grad_()
    ty = {1: F.conv1d, 2: F.conv2d}[len(w_shape) - 2](tx, tw, **parameters)
    dy = rng.integers(-3, 4, ty.shape).astype("float64")
    ty.backward(torch.from_numpy(dy))
    with options(method=method):
        results = (
            conv(backend.array(x), backend.array(w), **parameters),
            conv_input_grad(backend.array(dy), backend.array(w), input_size=x_shape[2:], **parameters),
            conv_weight_grad(backend.array(dy), backend.array(x), kernel_size=w_shape[2:], **parameters),
        )
        parts = [made.parts for made in explain(backend.array(x), backend.array(w), **parameters).contractions]
    assert max(parts) <= 100
    for result, expected in zip(results, (ty.detach(), tx.grad, tw.grad), strict=True):
        values, expected = backend.numpy(result), expected.numpy()
        if method == "auto":
            np.testing.assert_allclose(values, expected, rtol=0, atol=1e-13 * np.max(np.abs(expected)))
        else:
            np.testing.assert_array_equal(values, expected)


def test_the_bias_is_added_once(backend, rng):
    """The transposed convolution is the input's gradient with a bias, here in parts that overlap: of 17 phases."""
    x, w = (rng.integers(-3, 4, shape).astype("float64") for shape in ((2, 3, 150), (3, 2, 1500)))
    bias = rng.integers(-3, 4, 2).astype("float64")
    expected = F.conv_transpose1d(*map(torch.from_numpy, (x, w, bias)), stride=17, padding=2, dilation=2)
    with options(method="lowering", workspace=MIB):
        y = conv_transpose(*map(backend.array, (x, w, bias)), stride=17, padding=2, dilation=2)
    np.testing.assert_array_equal(backend.numpy(y), expected.numpy())


def test_a_weight_that_is_not_finite_stays_where_it_belongs(rng):
    """Also where the kernel is so long that parts of the input's gradient overlap."""
    dy, w = rng.standard_normal((1, 1, 5_000)), rng.standard_normal((1, 1, 3_000))
    w[0, 0, 1_000] = np.inf
    with options(workspace=MIB):
        dx = conv_input_grad(dy, w, input_size=5_000, padding=[(1_499, 1_500)])
    reached = np.zeros(5_000, dtype=bool)
    places = np.arange(5_000) + 1_000 - 1_499
    reached[places[(places >= 0) & (places < 5_000)]] = True
    np.testing.assert_array_equal(np.isfinite(dx[0, 0]), ~reached)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.0])
@pytest.mark.parametrize(("size", "stride"), [(1, 2), (2, 3)])
def test_where_no_tap_meets_an_input_the_gradient_is_zero(value, size, stride):
    """Whatever the weight is: all outputs read the padding."""
    weight = np.full((1, 1, 1), value)
    outputs = (size + 2 - 1) // stride + 1
    dx = conv_input_grad(np.ones((1, 1, outputs)), weight, input_size=size, stride=stride, padding=1)
    read = [i for i in range(size) if (i + 1) % stride == 0]
    assert np.array_equal(np.flatnonzero(dx != 0), read)
