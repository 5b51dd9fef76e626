"""The sanity check: our forward and our hand-written gradients against torch's, each backend on torch's own device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import assert_within, draw

import xpconv

CONV = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}


# On CUDA cuDNN would compute with the 10 bits of TF32, and the reference would be the less exact of the two.
torch.backends.cudnn.allow_tf32 = False


def by_torch(backend, operands, parameters):
    """y, dx, dw and db as torch and its tape compute them."""
    dy, *rest = (torch.asarray(values, device=backend.torch_device) for values in operands)
    x, w, bias = (tensor.requires_grad_() for tensor in rest)
    y = CONV[w.ndim - 2](x, w, bias, **parameters)
    y.backward(dy)
    return [tensor.detach().cpu().numpy() for tensor in (y, x.grad, w.grad, bias.grad)]


def check(backend, rng, dtype, x, w, **parameters):
    y = xpconv.conv_output_size(
        x[2:], w[2:], **{key: parameters[key] for key in ("stride", "padding", "dilation") if key in parameters}
    )
    operands = [draw(rng, shape, dtype) for shape in ((x[0], w[0], *y), x, w, w[:1])]
    dy, inputs, weight, bias = map(backend.array, operands)
    ours = (xpconv.conv(inputs, weight, bias, **parameters), *xpconv.conv_backward(dy, inputs, weight, **parameters))
    theirs = by_torch(backend, operands, parameters)
    magnitude = by_torch(backend, [np.abs(values).astype("float64") for values in operands], parameters)
    taps, positions = int(np.prod(w[2:])), x[0] * int(np.prod(y))
    terms_of_each = (w[1] * taps + 1, w[0] // parameters.get("groups", 1) * taps, positions, positions)
    for one, other, size, terms in zip(ours, theirs, magnitude, terms_of_each, strict=True):
        values = backend.numpy(one)
        assert values.dtype == other.dtype
        assert_within(values, other, size, terms)


def test_the_seeds_example(backend):
    """What the tutorial that this library grew from checked, with tolerances that can fail."""
    rng = np.random.default_rng(0)
    x = draw(rng, (3, 3, 4, 4), "float32")
    reference = torch.nn.Conv2d(3, 3, kernel_size=(2, 2), stride=2, device=backend.torch_device)
    weight, bias = draw(rng, (3, 3, 2, 2), "float32"), draw(rng, (3,), "float32")
    reference.load_state_dict({"weight": torch.asarray(weight), "bias": torch.asarray(bias)})
    inputs = torch.asarray(x, device=backend.torch_device).requires_grad_()
    result = reference(inputs)
    result.sum().backward()

    layer = xpconv.Conv(in_channels=3, out_channels=3, kernel_size=(2, 2), stride=2)
    layer.set_params(weights=backend.array(weight), bias=backend.array(bias))
    z = layer.forward(backend.array(x))
    dx = layer.backward(backend.array(np.ones(z.shape, dtype="float32")))

    for ours, theirs in (
        (z, result),
        (dx, inputs.grad),
        (layer.dweight, reference.weight.grad),
        (layer.dbias, reference.bias.grad),
    ):
        np.testing.assert_allclose(backend.numpy(ours), theirs.detach().cpu().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(
    ("x", "w", "parameters"),
    [
        ((4, 16, 100), (32, 16, 9), {"padding": 4}),
        ((2, 12, 30, 31), (18, 4, 3, 5), {"stride": (2, 3), "padding": (1, 2), "dilation": (2, 1), "groups": 3}),
        ((2, 16, 20, 20), (16, 1, 3, 3), {"padding": "same", "groups": 16}),
        ((2, 4, 9, 8, 7), (6, 2, 3, 2, 1), {"stride": 2, "padding": 1, "groups": 2}),
        ((1, 3, 64, 64), (8, 3, 7, 7), {"stride": 2, "padding": 3}),
        ((3, 40, 14, 14), (24, 40, 1, 1), {}),
    ],
)
def test_layers(backend, rng, dtype, x, w, parameters):
    check(backend, rng, dtype, x, w, **parameters)


@st.composite
def geometries(draw_from):
    ndim = draw_from(st.integers(1, 3))
    axes = st.tuples(*(st.integers(1, 3) for _ in range(ndim)))
    groups = draw_from(st.integers(1, 3))
    kernel, stride, dilation, padding = (draw_from(axes) for _ in range(4))
    inputs, outputs, samples = (draw_from(st.integers(1, 3)) for _ in range(3))
    size = tuple(
        draw_from(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 9))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    x, w = (samples, groups * inputs, *size), (groups * outputs, inputs, *kernel)
    return x, w, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


@given(geometry=geometries(), seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(["float64", "complex64"]))
def test_any_geometry(backend, geometry, seed, dtype):
    x, w, parameters = geometry
    check(backend, np.random.default_rng(seed), dtype, x, w, **parameters)


def test_tensors_of_a_tape():
    """Tensors that require gradients go through every function, and torch's tape agrees with our gradients."""
    rng = np.random.default_rng(0)
    x, w = (torch.asarray(draw(rng, shape, "float64")).requires_grad_() for shape in ((2, 4, 5, 4), (6, 2, 3, 2)))
    parameters = {"stride": 2, "padding": 1, "groups": 2}
    y = xpconv.conv(x, w, **parameters)
    dy = torch.asarray(draw(rng, tuple(y.shape), "float64")).requires_grad_()
    ours = xpconv.conv_backward(dy, x, w, **parameters)
    for gradient, theirs in zip(ours, torch.autograd.grad(y, (x, w), dy, create_graph=True), strict=False):
        torch.testing.assert_close(gradient, theirs)
    assert torch.autograd.gradcheck(lambda x, w: xpconv.conv(x, w, **parameters), (x, w))
    assert torch.autograd.gradcheck(lambda dy, x, w: tuple(xpconv.conv_backward(dy, x, w, **parameters)), (dy, x, w))

    layer = xpconv.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2)
    layer.set_params(torch.nn.Parameter(w.detach()), torch.nn.Parameter(torch.zeros(6, dtype=torch.float64)))
    layer.forward(x)
    torch.testing.assert_close(layer.backward(dy), ours.dx)
