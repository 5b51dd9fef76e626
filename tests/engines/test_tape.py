"""torch's own machinery around ours: its tape, `torch.func`, the meta device and its compiler."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from families import CONV, FAMILIES, TRANSPOSED, quiet_torch
from functorch.compile import make_boxed_func
from support import assert_within, draw
from torch._dynamo.backends.common import aot_autograd
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils.checkpoint import checkpoint

import xpconv
from xpconv._arrays.namespace import library
from xpconv._engines import torch as tape
from xpconv._engines.problem import Problem

F = torch.nn.functional
torch.backends.cudnn.allow_tf32 = False


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        backends = metafunc.config.backends
        devices = [backend.torch_device for backend in backends if backend.name.startswith("torch")]
        metafunc.parametrize("device", devices or ["cpu"])


@pytest.fixture
def tensor(rng, device):
    """A maker of tensors of normal numbers."""
    return lambda shape, dtype="float64": torch.from_numpy(draw(rng, tuple(shape), dtype)).to(device)


def differentiable(*tensors):
    return tuple(one.detach().clone().requires_grad_() for one in tensors)


def arrays(results):
    """The NumPy arrays of what a function returns: a tensor, or tensors and None in tuples."""
    if results is None:
        return []
    if isinstance(results, torch.Tensor):
        return [results.detach().resolve_conj().cpu().numpy()]
    return [array for result in results for array in arrays(result)]


def check(ours, theirs, operands, terms):
    """Two functions agree. They are polynomials of the operands: with absolute values these bound the error."""
    results, expected = arrays(ours(*operands)), arrays(theirs(*operands))
    magnitudes = arrays(theirs(*(one.abs().to(one.dtype) for one in operands)))
    assert len(results) == len(expected) > 0
    for one, other, magnitude in zip(results, expected, magnitudes, strict=True):
        assert one.dtype == other.dtype
        assert_within(one, other, np.abs(magnitude), terms)


# gradcheck. The shapes of both families: as many inputs as outputs.

CASES = {
    "1-D": ((2, 2, 5), (2, 2, 2), {"stride": 2, "padding": 1}),
    "2-D": ((1, 4, 4, 3), (4, 2, 2, 2), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}),
    "3-D": ((1, 2, 3, 2, 2), (2, 2, 2, 1, 2), {"stride": (1, 1, 2)}),
    "no spatial axes": ((3, 2), (2, 2), {}),
    "depthwise": ((1, 2, 4, 3), (2, 1, 2, 2), {"groups": 2}),
    "same": ((1, 2, 5, 4), (2, 2, 3, 2), {"padding": "same", "stride": 2}),
    "causal": ((1, 2, 5), (2, 2, 3), {"padding": "causal"}),
    "negative padding": ((1, 2, 5, 4), (2, 2, 2, 2), {"padding": [(-1, 0), (1, -1)]}),
    "reflect": ((1, 2, 3, 4), (2, 2, 2, 3), {"padding": (1, 2), "padding_mode": "reflect"}),
    "replicate": ((1, 2, 3, 4), (2, 2, 2, 3), {"padding": (2, 1), "padding_mode": "replicate", "stride": 2}),
    "circular": ((1, 2, 3, 4), (2, 2, 2, 3), {"padding": (1, 2), "padding_mode": ("zeros", "circular")}),
    "constant": (
        (1, 2, 3, 4),
        (2, 2, 2, 3),
        {"padding": (1, 2), "padding_mode": ("constant", "symmetric"), "padding_value": 2.0},
    ),
    "input dilation": ((1, 2, 4, 3), (2, 2, 2, 2), {"input_dilation": (2, 1), "stride": (1, 2), "padding": 1}),
    "flip": ((1, 2, 4, 3), (2, 2, 2, 3), {"flip": True, "stride": (2, 1)}),
    "channels last": ((2, 3, 4, 2), (2, 2, 2, 2), {"channel_axis": -1, "flip": True}),
    "channels first": ((2, 2, 3, 2), (2, 2, 2, 2), {"channel_axis": 0}),
    "no batch": ((2, 4, 3), (2, 2, 2, 2), {"padding": 1}),
    "batch axes": ((2, 1, 2, 4), (2, 2, 2), {"stride": 2}),
}
EVERYWHERE = pytest.mark.parametrize("name", CASES)
SOME = pytest.mark.parametrize("name", ["2-D", "reflect", "input dilation", "channels last"])
DTYPES = pytest.mark.parametrize("dtype", ["float64", "complex128"])


def operands_of(family, name, tensor, kinds):
    """x, weight, bias and dy; another of each; and the parameters."""
    x, w, parameters = CASES[name]
    x_kind, w_kind, y_kind = kinds if isinstance(kinds, tuple) else (kinds,) * 3
    channels = w[1] * parameters.get("groups", 1) if family is TRANSPOSED else w[0]
    y = family.forward(torch.zeros(x), torch.zeros(w), **parameters).shape
    shapes = ((x, x_kind), (w, w_kind), ((channels,), y_kind), (y, y_kind))
    return [tensor(*one) for one in shapes * 2], parameters


def check_gradients(function, operands, orders=2):
    """Of first and second order, backwards, forwards, and forwards over backwards."""
    operands = differentiable(*operands)
    assert gradcheck(function, operands, check_forward_ad=True, fast_mode=True)
    if orders == 2:
        assert gradgradcheck(function, operands, check_fwd_over_rev=True, fast_mode=True)


@quiet_torch
@FAMILIES
@EVERYWHERE
@DTYPES
def test_gradcheck(family, name, dtype, tensor):
    (x, w, bias, *_), parameters = operands_of(family, name, tensor, dtype)
    check_gradients(lambda *operands: family.forward(*operands, **parameters), (x, w, bias))


@quiet_torch
@FAMILIES
@pytest.mark.parametrize("name", ["2-D", "circular", "constant", "input dilation"])
@pytest.mark.parametrize(
    "kinds",
    [("float64", "complex128", "float64"), ("complex128", "float64", "float64"), ("float64",) + 2 * ("complex128",)],
)
def test_gradcheck_of_real_and_complex_ones(family, name, kinds, tensor):
    (x, w, bias, *_), parameters = operands_of(family, name, tensor, kinds)
    check_gradients(lambda *operands: family.forward(*operands, **parameters), (x, w, bias))
    dy = tensor(family.forward(x, w, **parameters).shape, "complex128")
    check_gradients(lambda *operands: tuple(family.backward(*operands, **parameters)), (dy, x, w), 1)


@quiet_torch
@pytest.mark.parametrize("given", [{"output_padding": (1, 0)}, {"output_size": (6, 5)}])
@DTYPES
def test_gradcheck_of_more_output(given, dtype, tensor):
    x, w, bias = tensor((1, 2, 2, 2), dtype), tensor((2, 2, 3, 2), dtype), tensor((2,), dtype)
    check_gradients(lambda *operands: xpconv.conv_transpose(*operands, stride=(2, 3), **given), (x, w, bias))


@quiet_torch
@FAMILIES
@SOME
def test_gradcheck_of_derivatives(family, name, tensor):
    (x, w, _, dy, tx, tw, tb, _), parameters = operands_of(family, name, tensor, "complex128")
    check_gradients(lambda *operands: tuple(family.backward(*operands, **parameters)), (dy, x, w), 1)
    check_gradients(lambda *operands: family.jvp(*operands, **parameters), (tx, tw, tb, x, w), 1)
    check_gradients(lambda *operands: tuple(family.double_backward(*operands, **parameters)), (tx, tw, tb, dy, x, w), 1)


@quiet_torch
@SOME
def test_gradcheck_of_each_gradient(name, tensor):
    (x, w, _, dy, *_), parameters = operands_of(CONV, name, tensor, "complex128")
    axis = parameters.get("channel_axis", 1)
    size = x.shape[1:-1] if axis == -1 else x.shape[x.ndim - w.ndim + 2 :]
    check_gradients(lambda dy, w: xpconv.conv_input_grad(dy, w, input_size=tuple(size), **parameters), (dy, w))
    kernel = tuple(w.shape[2:])
    check_gradients(lambda dy, x: xpconv.conv_weight_grad(dy, x, kernel_size=kernel, **parameters), (dy, x))


PATCHES = {
    "1-D": ((2, 2, 5), (2,), {"stride": 2, "padding": 1}),
    "2-D": ((1, 2, 4, 3), (2, 2), {"dilation": (1, 2), "padding": [(1, -1), (0, 1)]}),
    "modes": ((1, 2, 3, 4), (2, 3), {"padding": (2, 1), "padding_mode": ("reflect", "replicate")}),
    "circular": ((2, 4, 3), (2, 2), {"padding": 1, "padding_mode": "circular"}),
    "one tap": ((2, 2, 3), (1,), {}),
    "batch axes": ((2, 1, 2, 4), (3,), {"padding": "same"}),
}


@quiet_torch
@pytest.mark.parametrize("name", PATCHES)
@DTYPES
def test_gradcheck_of_patches(name, dtype, tensor):
    shape, kernel, parameters = PATCHES[name]
    size = shape[len(shape) - len(kernel) :]
    x = tensor(shape, dtype)
    columns = tensor(xpconv.unfold(x, kernel, **parameters).shape, dtype)
    check_gradients(lambda x: xpconv.unfold(x, kernel, **parameters), (x,))
    check_gradients(lambda columns: xpconv.fold(columns, size, kernel, **parameters), (columns,))


# torch.func, against torch's own under the same transform.

LAYERS = {
    "1-D": (CONV, (3, 4, 9), (6, 2, 3), {"padding": 1, "groups": 2}),
    "2-D": (CONV, (2, 4, 7, 6), (6, 2, 3, 2), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}),
    "3-D": (CONV, (1, 2, 4, 3, 4), (3, 2, 2, 2, 3), {"stride": 2, "padding": 1}),
    "transposed 1-D": (TRANSPOSED, (3, 4, 6), (4, 5, 3), {"padding": 1}),
    "transposed 2-D": (
        TRANSPOSED,
        (2, 4, 4, 3),
        (4, 3, 3, 2),
        {"stride": (2, 3), "padding": (1, 0), "groups": 2, "output_padding": (1, 2)},
    ),
    "transposed 3-D": (TRANSPOSED, (1, 2, 3, 2, 2), (2, 3, 2, 2, 3), {"stride": 2, "padding": 1}),
}
OF_LAYERS = pytest.mark.parametrize("layer", LAYERS)
TERMS = 1000  # more than there are products and sums on the way to any number below


def layer_of(layer):
    """Ours, torch's, and the shapes of x, weight, bias and y."""
    family, x, w, parameters = LAYERS[layer]
    channels = w[1] * parameters.get("groups", 1) if family is TRANSPOSED else w[0]
    theirs = family.torchs[len(w) - 2]
    y = theirs(torch.zeros(x), torch.zeros(w), **parameters).shape
    shapes = x, w, (channels,), tuple(y)
    return (
        lambda *operands: family.forward(*operands, **parameters),
        lambda *operands: theirs(*operands, **parameters),
        shapes,
    )


def loss(function):
    """One that has second derivatives in all operands."""
    return lambda *operands: (function(*operands) ** 2).sum()


@OF_LAYERS
@pytest.mark.parametrize("mapped", [mask for mask in np.ndindex(2, 2, 2) if any(mask)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_vmap(layer, mapped, dtype, tensor):
    ours, theirs, shapes = layer_of(layer)
    operands = [tensor((3, *shape) if at else shape, dtype) for shape, at in zip(shapes, mapped, strict=False)]
    in_dims = tuple(0 if at else None for at in mapped)
    check(vmap(ours, in_dims), vmap(theirs, in_dims), operands, TERMS)


@OF_LAYERS
@pytest.mark.parametrize(("in_dims", "out_dims"), [((1, 2, -1), 1), ((-1, None, 1), -1), ((None, -1, 0), 2)])
def test_vmap_along_any_axis(layer, in_dims, out_dims, tensor):
    ours, theirs, shapes = layer_of(layer)
    operands = []
    for shape, at in zip(shapes, in_dims, strict=False):
        operands.append(tensor(shape if at is None else (3, *shape)))
        if at is not None:
            operands[-1] = operands[-1].movedim(0, at)
    check(vmap(ours, in_dims, out_dims), vmap(theirs, in_dims, out_dims), operands, TERMS)


@OF_LAYERS
@pytest.mark.parametrize("inner", [(0, 0, 0), (0, None, None), (None, 0, None)])
@pytest.mark.parametrize("outer", [(0, None, None), (None, 0, 0), (0, 0, 0)])
def test_nested_vmap(layer, inner, outer, tensor):
    ours, theirs, shapes = layer_of(layer)
    operands = [
        tensor((*(2,) * (far is not None), *(3,) * (near is not None), *shape))
        for shape, near, far in zip(shapes, inner, outer, strict=False)
    ]
    check(*(vmap(vmap(function, inner), outer) for function in (ours, theirs)), operands, TERMS)


@OF_LAYERS
def test_gradients_of_each_sample(layer, tensor):
    """What no backward of a batch gives: one gradient of the weight for each sample."""
    ours, theirs, (x, w, bias, _) = layer_of(layer)
    operands = tensor((3, *x)), tensor(w), tensor(bias)
    check(*(vmap(grad(loss(one), (0, 1, 2)), (0, None, None)) for one in (ours, theirs)), operands, TERMS)


@OF_LAYERS
def test_gradients_through_vmap(layer, tensor):
    ours, theirs, (x, w, bias, _) = layer_of(layer)
    operands = tensor((3, *x)), tensor((3, *w)), tensor(bias)
    check(*(grad(loss(vmap(one, (0, 0, None))), (0, 1, 2)) for one in (ours, theirs)), operands, TERMS)


@quiet_torch
@OF_LAYERS
def test_vjp_and_jvp(layer, tensor):
    ours, theirs, shapes = layer_of(layer)
    *operands, dy = map(tensor, shapes)
    check(*(lambda *ops, one=one: vjp(one, *ops[:3])[1](ops[3]) for one in (ours, theirs)), [*operands, dy], TERMS)
    tangents = [tensor(shape) for shape in shapes[:3]]
    both = [lambda *ops, one=one: jvp(one, ops[:3], ops[3:]) for one in (ours, theirs)]
    check(*both, [*operands, *tangents], TERMS)


@quiet_torch
@pytest.mark.parametrize("transform", [jacrev, jacfwd, hessian])
@pytest.mark.parametrize("layer", ["1-D", "transposed 2-D"])
@pytest.mark.parametrize("of", [(0, 1, 2), (2,)], ids=["of all", "of the bias"])
def test_jacobians(transform, layer, of, tensor):
    ours, theirs, shapes = layer_of(layer)
    operands = [tensor(shape) for shape in shapes[:3]]
    if transform is hessian:
        ours, theirs = loss(ours), loss(theirs)
    check(*(transform(one, of) for one in (ours, theirs)), operands, TERMS)


@quiet_torch
@OF_LAYERS
def test_tangents_of_second_order(layer, tensor):
    """Forwards over backwards, and backwards over forwards."""
    ours, theirs, shapes = layer_of(layer)
    operands = [tensor(shape) for shape in shapes[:3] * 2]

    def products(one):
        return lambda *ops: (
            jvp(grad(loss(one), (0, 1, 2)), ops[:3], ops[3:])[1],
            grad(lambda *primals: jvp(loss(one), primals, ops[3:])[1], (0, 1, 2))(*ops[:3]),
        )

    check(products(ours), products(theirs), operands, TERMS)


@FAMILIES
@pytest.mark.parametrize("mapped", [mask for mask in np.ndindex(2, 2, 2) if any(mask)], ids=str)
def test_vmap_of_backward(family, mapped, tensor):
    _, theirs, (x, w, _, y) = layer_of("transposed 2-D" if family is TRANSPOSED else "2-D")
    *_, parameters = LAYERS["transposed 2-D" if family is TRANSPOSED else "2-D"]
    operands = [tensor((3, *shape) if at else shape) for shape, at in zip((y, x, w), mapped, strict=True)]
    bias = torch.zeros(y[1], dtype=torch.float64, device=operands[0].device)
    in_dims = tuple(0 if at else None for at in mapped)

    def of_torch(dy, x, w):
        return vjp(theirs, x, w, bias)[1](dy)

    def of_ours(dy, x, w):
        return tuple(family.backward(dy, x, w, **parameters))

    # What does not depend on what is mapped is repeated by both.
    check(vmap(of_ours, in_dims), vmap(of_torch, in_dims), operands, TERMS)


@pytest.mark.parametrize("mapped", [mask for mask in np.ndindex(2, 2) if any(mask)], ids=str)
def test_vmap_of_each_gradient(mapped, tensor):
    _, theirs, (x, w, _, y) = layer_of("2-D")
    *_, parameters = LAYERS["2-D"]
    in_dims = tuple(0 if at else None for at in mapped)

    def operands(*shapes):
        return [tensor((3, *shape) if at else shape) for shape, at in zip(shapes, mapped, strict=True)]

    zeros = tensor(x), tensor(w)
    check(
        vmap(lambda dy, w: xpconv.conv_input_grad(dy, w, input_size=x[2:], **parameters), in_dims),
        vmap(lambda dy, w: vjp(lambda x: theirs(x, w), zeros[0])[1](dy), in_dims),
        operands(y, w),
        TERMS,
    )
    check(
        vmap(lambda dy, x: xpconv.conv_weight_grad(dy, x, kernel_size=w[2:], **parameters), in_dims),
        vmap(lambda dy, x: vjp(lambda w: theirs(x, w), zeros[1])[1](dy), in_dims),
        operands(y, x),
        TERMS,
    )


@SOME
@FAMILIES
def test_vmap_is_a_loop(family, name, tensor):
    """With the parameters that torch does not have."""
    (x, w, bias, dy, *_), parameters = operands_of(family, name, tensor, "float64")
    operands = [torch.stack([one, 2 - one, one * one]) for one in (x, w, bias, dy)]

    def forward_and_backward(x, w, bias, dy):
        return family.forward(x, w, bias, **parameters), *family.backward(dy, x, w, **parameters)

    def loop(*operands):
        return [torch.stack(one) for one in zip(*map(forward_and_backward, *operands), strict=True)]

    check(vmap(forward_and_backward), loop, operands, TERMS)
    once = vmap(lambda x, dy: forward_and_backward(x, w, bias, dy), 1, 1)
    check(
        lambda x, dy: [one.movedim(1, 0) for one in once(x.movedim(0, 1), dy.movedim(0, 1))],
        lambda x, dy: loop(x, w.expand(3, *w.shape), bias.expand(3, *bias.shape), dy),
        (operands[0], operands[3]),
        TERMS,
    )


@FAMILIES
@pytest.mark.parametrize("in_dims", [(0, None, None, None, None), (0, 0, None, 0, 0)], ids=str)
def test_vmap_of_16_bits_is_rounded_once(family, in_dims, rng, device):
    """The two terms of a tangent are whole numbers, which float32 has and bfloat16 has not."""
    shapes = (2, 4, 6), (4, 4, 3), (4,), (2, 4, 6), (4, 4, 3)
    operands = [
        torch.from_numpy(rng.integers(-15, 16, (3, *shape) if at == 0 else shape)).to(device, torch.bfloat16)
        for shape, at in zip(shapes, in_dims, strict=True)
    ]
    ty = vmap(family.jvp, in_dims)(*operands)
    for i, one in enumerate(ty):
        each = [values[i] if at == 0 else values for values, at in zip(operands, in_dims, strict=True)]
        assert torch.equal(one, family.jvp(*each))


@pytest.mark.parametrize("at", [0, 1, -1])
def test_vmap_of_patches(at, tensor):
    x = tensor((3, 2, 2, 6, 5)).movedim(0, at)
    said = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
    ours = vmap(lambda x: xpconv.unfold(x, (3, 2), **said), at, at)
    theirs = vmap(lambda x: F.unfold(x, (3, 2), **said), at, at)
    np.testing.assert_array_equal(*map(arrays, (ours(x), theirs(x))))
    columns = tensor(theirs(x).shape)
    ours = vmap(lambda columns: xpconv.fold(columns, (6, 5), (3, 2), **said), at, at)
    theirs = vmap(lambda columns: F.fold(columns, (6, 5), (3, 2), **said), at, at)
    check(ours, theirs, (columns,), TERMS)
    check(grad(loss(ours)), grad(loss(theirs)), (columns,), TERMS)


@pytest.mark.parametrize("axis", [0, -1])
def test_vmap_of_patches_with_channels_elsewhere(axis, tensor):
    x = tensor((3, 2, 2, 6, 5))

    def ours(x):
        columns = xpconv.unfold(x.movedim(1, axis), (3, 2), channel_axis=axis)
        return xpconv.fold(columns * columns, (6, 5), (3, 2), channel_axis=axis).movedim(axis, 1)

    check(vmap(ours), vmap(lambda x: F.fold(F.unfold(x, (3, 2)) ** 2, (6, 5), (3, 2))), (x,), TERMS)


@quiet_torch
def test_gradients_of_tangents_of_patches(tensor):
    def through(unfold):
        return lambda *operands: grad(
            lambda x, tx: loss(lambda x, tx: jvp(unfold, (x * x,), (tx,))[1])(x, tx) + loss(unfold)(x), (0, 1)
        )(*operands)

    x, tx = tensor((2, 2, 6, 5)), tensor((2, 2, 6, 5))
    check(through(lambda x: xpconv.unfold(x, (3, 2))), through(lambda x: F.unfold(x, (3, 2))), (x, tx), TERMS)


# The tape and the functions that need none agree.


@FAMILIES
@EVERYWHERE
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_the_tape_is_backward_to_the_last_bit(family, name, dtype, tensor):
    (x, w, bias, dy, ddx, ddw, ddb, _), parameters = operands_of(family, name, tensor, dtype)
    x, w, bias, dy = differentiable(x, w, bias, dy)
    ours = family.backward(*(one.detach() for one in (dy, x, w)), **parameters)
    gradients = torch.autograd.grad(family.forward(x, w, bias, **parameters), (x, w, bias), dy, create_graph=True)
    for one, other in zip(gradients, ours, strict=True):
        assert torch.equal(one, other)

    # Of second order torch adds up, in an order of its own, what comes through each gradient.
    second = torch.autograd.grad(gradients, (dy, x, w), (ddx, ddw, ddb))

    def double_backward(ddx, ddw, ddb, dy, x, w):
        return family.double_backward(ddx, ddw, ddb, dy, x, w, **parameters)

    operands = [one.detach() for one in (ddx, ddw, ddb, dy, x, w)]
    check(lambda *_: second, double_backward, operands, TERMS)
    assert torch.equal(second[1], double_backward(*operands).dx)
    assert torch.equal(second[2], double_backward(*operands).dweight)


@quiet_torch
@FAMILIES
@EVERYWHERE
@pytest.mark.parametrize("dtype", ["float32", "complex128", "bfloat16"])
def test_forward_mode_is_jvp_to_the_last_bit(family, name, dtype, tensor):
    (x, w, bias, _, *tangents, _), parameters = operands_of(
        family, name, tensor, "float32" if dtype == "bfloat16" else dtype
    )
    primals = [one.to(getattr(torch, dtype)) for one in (x, w, bias)]
    tangents = [one.to(getattr(torch, dtype)) for one in tangents]
    for mask in np.ndindex(2, 2, 2):
        given = [one if bit else None for one, bit in zip(tangents, mask, strict=True)]
        with dual_level():
            duals = [
                one if tangent is None else make_dual(one, tangent) for one, tangent in zip(primals, given, strict=True)
            ]
            ty = unpack_dual(family.forward(*duals, **parameters)).tangent
        if any(mask):
            assert torch.equal(ty, family.jvp(*given, *primals[:2], **parameters))
        else:
            assert ty is None


@OF_LAYERS
def test_second_derivatives_of_a_loss(layer, tensor):
    ours, theirs, shapes = layer_of(layer)

    def second(function):
        def products(*operands):
            operands = differentiable(*operands)
            first = torch.autograd.grad((function(*operands) ** 3).sum(), operands, create_graph=True)
            return torch.autograd.grad(sum((one**2).sum() for one in first), operands)

        return products

    check(second(ours), second(theirs), [tensor(shape) for shape in shapes[:3]], 4 * TERMS)


# What is changed in place, and what shares memory.


def gradients(function, *operands):
    function(*operands).backward()
    return [one.grad for one in operands]


@pytest.mark.parametrize("changed", [0, 1])
def test_an_operand_changed_after_the_forward_is_an_error(changed, tensor):
    operands = differentiable(tensor((2, 3, 6)), tensor((4, 3, 2)))
    for y in (xpconv.conv(*operands), F.conv1d(*operands)):
        with torch.no_grad():
            operands[changed].add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


@FAMILIES
@EVERYWHERE
def test_results_may_be_changed_in_place(family, name, tensor):
    operands, parameters = operands_of(family, name, tensor, "int64")
    x, w, bias = (one.double() for one in operands[:3])  # whole numbers: in whatever order, their sums are the same

    def inplace(*operands):
        y = family.forward(*operands, **parameters)
        y += 1
        y[..., 0] *= 2
        return y.relu_().sum()

    def outofplace(*operands):
        y = family.forward(*operands, **parameters) + 1
        return torch.cat([2 * y[..., :1], y[..., 1:]], -1).relu().sum()

    ours = gradients(inplace, *differentiable(x, w, bias))
    for one, other in zip(ours, gradients(outofplace, *differentiable(x, w, bias)), strict=True):
        assert torch.equal(one, other)


def test_gradients_and_columns_may_be_changed_in_place(tensor):
    def made(dy, x, w):
        return (
            *xpconv.conv_backward(dy, x, w),
            xpconv.conv_jvp(x, w, None, x, w),
            xpconv.unfold(x, 2),
            xpconv.unfold(x, 1),
            xpconv.fold(x, 8, 3),
            xpconv.fold(x, 6, 1),
        )

    # Whole numbers: in whatever order, their sums are the same.
    dy, x, w = differentiable(*(tensor(shape, "int64").double() for shape in ((2, 4, 5), (2, 3, 6), (4, 3, 2))))
    results = made(dy, x, w)
    values = [one.detach().clone() for one in results]
    for one in results:
        one.mul_(2)
    (sum(one.sum() for one in results)).backward()
    doubled = [one.grad for one in (dy, x, w)]
    dy, x, w = differentiable(dy, x, w)
    again = made(dy, x, w)
    assert all(map(torch.equal, again, values))  # no result shares memory with an operand or with another result
    (sum(2 * one.sum() for one in again)).backward()
    for one, other in zip(doubled, (dy, x, w), strict=True):
        assert torch.equal(one, other.grad)


VIEWS = {
    "transposed": lambda leaf: leaf.mT,
    "slice": lambda leaf: leaf[..., 1:, ::2],
    "expanded": lambda leaf: leaf[..., :1].expand(*leaf.shape[:-1], 5),
    "expanded channels": lambda leaf: leaf[:, :1].expand(leaf.shape),
    "flipped": lambda leaf: leaf.flip(-1),
    "permuted": lambda leaf: leaf.permute(1, 0, 3, 2),
    "channels last in memory": lambda leaf: leaf.contiguous(memory_format=torch.channels_last),
    "conjugated": lambda leaf: leaf.conj(),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_operands_that_are_views(view, dtype, tensor):
    x, w = tensor((4, 4, 7, 6), dtype), tensor((4, 4, 5, 6), dtype)
    view = VIEWS[view]

    def through(function):
        return lambda *leaves: gradients(
            lambda x, w: (function(view(x), view(w), padding=2).abs() ** 2).sum(), *differentiable(*leaves)
        )

    check(through(xpconv.conv), through(F.conv2d), (x, w), TERMS)


def test_one_tensor_in_all_places(tensor):
    x = tensor((3, 3, 5))

    def cubes(function):
        return lambda x: gradients(lambda x: (function(x, x, x[:, 0, 0], padding=2) ** 2).sum(), *differentiable(x))

    check(cubes(xpconv.conv), cubes(F.conv1d), (x,), TERMS)


def test_backward_twice(tensor):
    x, w = differentiable(tensor((2, 3, 6)), tensor((4, 3, 2)))
    y = xpconv.conv(x, w).sum()
    y.backward(retain_graph=True)
    first = x.grad.clone(), w.grad.clone()
    y.backward()
    assert torch.equal(x.grad, 2 * first[0])
    assert torch.equal(w.grad, 2 * first[1])
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()


@FAMILIES
@pytest.mark.parametrize("needs", list(np.ndindex(2, 2, 2)), ids=str)
def test_only_what_requires_it_has_a_gradient(family, needs, tensor, monkeypatch):
    (*operands, dy, _, _, _, _), parameters = operands_of(family, "2-D", tensor, "float64")
    operands = [one.requires_grad_(bool(need)) for one, need in zip(operands, needs, strict=True)]
    y = family.forward(*operands, **parameters)
    assert y.requires_grad == any(needs)
    if not any(needs):
        return
    filled = []

    def seen(problem, *args, whole=tape.evaluate, **kwargs):
        filled.append(problem.result)
        return whole(problem, *args, **kwargs)

    monkeypatch.setattr(tape, "evaluate", seen)
    y.backward(dy)
    assert filled == ["x"] * needs[0] + ["w"] * needs[1]  # nothing is worked out that nobody needs
    monkeypatch.undo()
    ours = family.backward(dy, *(one.detach() for one in operands[:2]), **parameters)
    for one, need, gradient in zip(operands, needs, ours, strict=True):
        assert torch.equal(one.grad, gradient) if need else one.grad is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_a_tape(mode, tensor):
    x, w = differentiable(tensor((2, 3, 6)), tensor((4, 3, 2)))
    y = xpconv.conv(x, w)
    with mode():
        results = xpconv.conv(x, w), *xpconv.conv_backward(y, x, w), xpconv.unfold(x, 2), xpconv.fold(y, 6, 2)
    assert torch.equal(results[0], y)
    assert not any(one.requires_grad for one in results)
    with mode():
        results[0].add_(1)
    assert torch.equal(results[0], y + 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradients_of_16_bits(dtype, tensor):
    """Of whole numbers, which these dtypes have, to the last bit; wide where a loss is."""
    dtype = getattr(torch, dtype)
    leaves = [tensor(shape, "int64").to(dtype) for shape in ((2, 2, 6), (2, 2, 2), (2,))]
    narrow, wide = differentiable(*leaves), differentiable(*(one.double() for one in leaves))
    for operands, function in ((narrow, xpconv.conv), (wide, F.conv1d)):
        (function(*operands, stride=2).double() * 2).sum().backward()
    for one, other in zip(narrow, wide, strict=True):
        assert one.grad.dtype == dtype
        assert torch.equal(one.grad.double(), other.grad)


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8"])
def test_integers_have_no_gradients(dtype, tensor):
    x, w = tensor((2, 2, 6), dtype), tensor((2, 2, 2), dtype)
    for y in (xpconv.conv(x, w), xpconv.unfold(x, 2), xpconv.conv(x, w, dtype=torch.int64)):
        assert not y.requires_grad
    batched = torch.stack([x, x + 1])
    assert torch.equal(vmap(lambda x: xpconv.conv(x, w))(batched)[1], xpconv.conv(x + 1, w))


def test_autocast_changes_nothing(tensor):
    """What is promised in 32 bits is not multiplied in 16."""
    x, w, bias = differentiable(*(tensor(shape, "float32") for shape in ((2, 3, 6), (4, 3, 2), (4,))))
    expected = gradients(lambda *operands: xpconv.conv(*operands).sum(), x, w, bias)
    again = differentiable(x, w, bias)
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        y = xpconv.conv(*again)
        y.sum().backward()
    assert torch.equal(y, xpconv.conv(x, w, bias))
    for one, other in zip(again, expected, strict=True):
        assert torch.equal(one.grad, other)


# Modules, optimizers, layers.


class Net(torch.nn.Module):
    """Two convolutions, ours or torch's."""

    def __init__(self, convolve, w, bias):
        super().__init__()
        self.convolve = convolve
        self.weight, self.bias = torch.nn.Parameter(w.clone()), torch.nn.Parameter(bias.clone())

    def forward(self, x):
        y = self.convolve(x, self.weight, self.bias, padding=1)
        return self.convolve(y * y, self.weight, self.bias, padding=1)


NET = (3, 3, 3), (3,), (2, 3, 6)


def nets(tensor):
    w, bias, x = map(tensor, NET)
    return Net(xpconv.conv, w, bias), Net(F.conv1d, w, bias), x


def test_a_step_of_an_optimizer(tensor):
    ours, theirs, x = nets(tensor)

    def stepped(net):
        def weights(x, w, bias):
            one = Net(net.convolve, w, bias)
            optimizer = torch.optim.SGD(one.parameters(), lr=1.0, maximize=True)  # a polynomial without differences
            for _ in range(2):
                optimizer.zero_grad()
                one(x).sum().backward()
                optimizer.step()
            return one.weight, one.bias

        return weights

    check(stepped(ours), stepped(theirs), (x, *ours.state_dict().values()), 100 * TERMS)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoints(use_reentrant, tensor):
    ours, _, x = nets(tensor)
    (kept,) = differentiable(x)
    ours(kept).sum().backward()
    expected = kept.grad, *(one.grad for one in ours.parameters())
    ours.zero_grad()
    (again,) = differentiable(x)
    checkpoint(ours, again, use_reentrant=use_reentrant).sum().backward()
    for one, other in zip((again.grad, *(one.grad for one in ours.parameters())), expected, strict=True):
        assert torch.equal(one, other)


def test_functional_call(tensor):
    ours, theirs, x = nets(tensor)
    names = list(ours.state_dict())

    def ensemble(net):
        def gradients_of(x, *stacked):
            def value(state):
                return functional_call(net, state, (x,)).sum()

            return list(vmap(grad(value))(dict(zip(names, stacked, strict=True))).values())

        return gradients_of

    check(ensemble(ours), ensemble(theirs), (x, *(tensor((4, *one.shape)) for one in ours.parameters())), TERMS)


@pytest.mark.parametrize("kind", [xpconv.Conv2d, xpconv.ConvTranspose2d])
def test_layers_on_a_tape(kind, tensor):
    """Their own backward, which needs no tape, and torch's are the same to the last bit."""
    w, bias = torch.nn.Parameter(tensor((4, 4, 3, 2))), torch.nn.Parameter(tensor((4,)))
    layer = kind(4, 4, (3, 2), stride=2, padding=1)
    layer.set_params(w, bias)
    (x,) = differentiable(tensor((2, 4, 5, 6)))
    y = layer.forward(x)
    dy = tensor(y.shape)
    y.backward(dy)
    dx = layer.backward(dy)
    for one, other in ((x.grad, dx), (w.grad, layer.dweight), (bias.grad, layer.dbias)):
        assert torch.equal(one, other)


# The meta device.


def every_function(x, w, bias, dy, columns):
    said = {"stride": 2, "padding": 1, "padding_mode": "circular"}
    yield xpconv.conv(x, w, bias, **said)
    yield from xpconv.conv_backward(dy, x, w, **said)
    yield xpconv.conv_input_grad(dy, w, input_size=(5, 6), **said)
    yield xpconv.conv_weight_grad(dy, x, kernel_size=(3, 2), **said)
    yield xpconv.conv_jvp(x, w, bias, x, w, **said)
    yield xpconv.conv_jvp(None, None, bias, x, w, **said)
    yield from xpconv.conv_double_backward(x, w, bias, dy, x, w, **said)
    yield xpconv.conv_transpose(dy, w, stride=2, output_padding=1)
    yield xpconv.conv_transpose(dy, w, **said)
    yield from xpconv.conv_transpose_backward(x, dy, w, stride=2, padding=1, output_size=(5, 6))
    yield xpconv.conv_transpose_jvp(dy, w, None, dy, w, **said)
    yield from xpconv.conv_transpose_double_backward(dy, w, None, x, dy, w, stride=2, padding=1, output_size=(5, 6))
    yield xpconv.unfold(x, (3, 2), **said)
    yield xpconv.fold(columns, (5, 6), (3, 2), **said)
    for axis in (-1, 0):
        yield xpconv.conv(x.movedim(1, axis), w, channel_axis=axis, flip=True, input_dilation=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.bfloat16, torch.int32])
def test_meta(dtype):
    shapes = (2, 4, 5, 6), (4, 4, 3, 2), (4,), (2, 4, 3, 4), (2, 24, 12)
    ours, expected = (
        list(every_function(*(torch.zeros(shape, dtype=dtype, device=device) for shape in shapes)))
        for device in ("meta", "cpu")
    )
    for one, other in zip(ours, expected, strict=True):
        assert (one.device.type, one.dtype, one.shape) == ("meta", other.dtype, other.shape)


def test_nothing_is_worked_out_on_meta(monkeypatch):
    monkeypatch.setattr(tape, "evaluate", None)
    x, w = (torch.empty(shape, device="meta", requires_grad=True) for shape in ((64, 512, 256, 256), (512, 512, 3, 3)))
    y = xpconv.conv(x, w, padding=1)
    y.backward(torch.empty_like(y))
    assert (x.grad.shape, x.grad.device, w.grad.shape) == (x.shape, x.device, w.shape)


# torch's compiler.


@pytest.fixture
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def with_gradients(function):
    """The results of a function, and the gradients of the sum of their squares."""

    def both(*operands):
        operands = differentiable(*operands)
        results = function(*operands)
        results = [one for one in (results if isinstance(results, tuple) else (results,)) if one is not None]
        total = sum((one**2).sum() for one in results)
        return [*results, *torch.autograd.grad(total, operands, allow_unused=True)]

    return both


SAID = {"stride": 2, "padding": (1, 2), "groups": 2}
X, W, B, Y = (2, 4, 7, 6), (6, 2, 3, 2), (6,), (2, 6, 4, 5)
STEPS = {
    "conv": (lambda x, w, b: xpconv.conv(x, w, b, **SAID), (X, W, B)),
    "conv by position": (lambda x, w: xpconv.conv(x, w, None, padding="same", groups=2), (X, W)),
    "reflect": (lambda x, w: xpconv.conv(x, w, padding_mode="reflect", **SAID), (X, W)),
    "modes": (lambda x, w: xpconv.conv(x, w, padding_mode=("replicate", "circular"), **SAID), (X, W)),
    "constant": (lambda x, w: xpconv.conv(x, w, padding_mode="constant", padding_value=2.5, **SAID), (X, W)),
    "conv_backward": (lambda dy, x, w: xpconv.conv_backward(dy, x, w, **SAID), (Y, X, W)),
    "needs": (
        lambda dy, x, w: xpconv.conv_backward(dy, x, w, needs=(True, False, True), **SAID).dx,
        (Y, X, W),
    ),
    "conv_transpose": (lambda x, w: xpconv.conv_transpose(x, w, stride=2, output_padding=1), (Y, W)),
    "conv_jvp": (lambda tx, tw, tb, x, w: xpconv.conv_jvp(tx, tw, tb, x, w, **SAID), (X, W, B, X, W)),
    "unfold": (lambda x: xpconv.unfold(x, (3, 2), padding=1), (X,)),
    "fold": (lambda x: xpconv.fold(x, (8,), (2,)), ((2, 4, 7),)),
    "vmap": (lambda x, w: vmap(lambda x: xpconv.conv(x, w, **SAID))(x), ((3, *X), W)),
    "grad": (lambda x, w: grad(lambda w: (xpconv.conv(x, w, **SAID) ** 2).sum())(w), (X, W)),
}


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("step", STEPS)
def test_compile(step, tensor):
    function, shapes = STEPS[step]
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    check(with_gradients(compiled), with_gradients(function), [tensor(shape) for shape in shapes], TERMS)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit.script(_method)?` is deprecated:DeprecationWarning")
def test_compile_to_machine_code(tensor):
    def function(x, w, b):
        return xpconv.conv(x, w, b, **SAID).relu()

    compiled = torch.compile(function, fullgraph=True)
    check(with_gradients(compiled), with_gradients(function), [tensor(shape) for shape in (X, W, B)], TERMS)


@pytest.mark.usefixtures("fresh_compiler")
def test_a_contraction_is_one_step_of_a_graph(tensor):
    """However many parts it has."""
    steps = []

    def counted(graph, _):
        steps.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return make_boxed_func(graph)

    def function(x, w):
        return xpconv.conv(x, w, padding=1)

    backend = aot_autograd(fw_compiler=counted, bw_compiler=counted)
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    with xpconv.options(workspace=2**20):
        check(with_gradients(compiled), with_gradients(function), (tensor((2, 4, 64, 64)), tensor((4, 4, 3, 3))), 10**5)
    assert [str(step) for step in steps if "xpconv" in str(step)] == ["xpconv.fill.default"] * 3
    assert len(steps) < 10


@FAMILIES
@EVERYWHERE
@pytest.mark.parametrize("kinds", [("float64", "complex128", "complex128"), "bfloat16"])
def test_a_step_says_all_of_a_call(family, name, kinds, tensor, monkeypatch):
    """What torch's compiler is told of one is read back as the same."""
    operands, parameters = operands_of(family, name, tensor, "float32" if kinds == "bfloat16" else kinds)
    operands = [one.bfloat16() if kinds == "bfloat16" else one for one in operands]
    calls = []

    def seen(problem, a, b, bias, *, xp, whole=tape.evaluate):
        y = whole(problem, a, b, bias, xp=xp)
        calls.append((problem, a, b, bias, y))
        return y

    monkeypatch.setattr(tape, "evaluate", seen)
    x, w, bias, dy, *_ = operands
    family.forward(x, w, bias, **parameters)
    family.backward(dy, x, w, **parameters)
    monkeypatch.undo()
    assert len(calls) == 3
    for problem, a, b, bias, y in calls:
        assert tape._read.__wrapped__(tape._written(problem)) == problem
        step = torch.ops.xpconv.fill(tape._written(problem), a, b, bias)
        fake = torch.ops.xpconv.fill(
            tape._written(problem), *(None if one is None else one.to("meta") for one in (a, b, bias))
        )
        assert torch.equal(step, y)
        assert (step.shape, step.dtype, step.stride()) == (fake.shape, fake.dtype, fake.stride())


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("dynamic", [None, True])
def test_compile_for_many_sizes(dynamic, tensor):
    """Sizes that torch leaves open are settled: each has a graph of its own."""
    for function in (lambda x, w: xpconv.conv(x, w, groups=2), lambda x, _: xpconv.unfold(x, (3, 2))):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
        w = tensor(W)
        for samples, size in ((2, 6), (3, 6), (4, 7)):
            check(with_gradients(compiled), with_gradients(function), (tensor((samples, 4, size, 6)), w), TERMS)


@pytest.mark.usefixtures("fresh_compiler")
def test_compile_a_module(tensor):
    ours, _, x = nets(tensor)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")

    def trained(net):
        def weights(x):
            ours.zero_grad()
            y = net(x)
            y.sum().backward()
            return y, *(one.grad.clone() for one in ours.parameters())

        return weights

    check(trained(compiled), trained(ours), (x,), TERMS)


@pytest.mark.usefixtures("fresh_compiler")
def test_compile_with_options_outside(tensor):
    x, w = tensor(X), tensor(W)
    compiled = torch.compile(lambda x, w: xpconv.conv(x, w, groups=2), fullgraph=True, backend="aot_eager")
    with xpconv.options(method="lowering"):
        expected = xpconv.conv(x, w, groups=2)
        assert torch.equal(compiled(x, w), expected)


@pytest.mark.usefixtures("fresh_compiler")
def test_export(tensor):
    ours, _, x = nets(lambda shape: tensor(shape, "float32"))
    exported = torch.export.export(ours, (x,)).module()
    check(exported, ours, (x,), TERMS)
    expected = exported(x)
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        assert torch.equal(exported(x), expected)


IN_A_NEW_PROCESS = """
{imports}
compiled = torch.compile(lambda x, w: xpconv.conv(x, w, padding=1), fullgraph=True, backend="aot_eager")
x, w = torch.arange(24.0).reshape(2, 3, 4), torch.ones(2, 3, 3, requires_grad=True)
y = compiled(x, w)
y.sum().backward()
assert torch.equal(y, torch.nn.functional.conv1d(x, w, padding=1))
assert torch.equal(w.grad[0], torch.tensor([[42.0, 60, 48], [66, 92, 72], [90, 124, 96]])), w.grad
"""


@pytest.mark.parametrize("imports", ["import xpconv, torch", "import torch, xpconv"])
def test_the_first_call_of_all_is_compiled(imports):
    subprocess.run([sys.executable, "-c", IN_A_NEW_PROCESS.format(imports=imports)], check=True)


@pytest.mark.usefixtures("fresh_compiler")
def test_compile_a_layer(tensor):
    layer = xpconv.Conv2d(4, 6, (3, 2), padding="same")
    layer.set_params(tensor((6, 4, 3, 2)), tensor((6,)))
    compiled = torch.compile(lambda x: layer.forward(x).relu(), fullgraph=True, backend="aot_eager")
    x = tensor((2, 4, 6, 5))
    check(with_gradients(compiled), with_gradients(lambda x: layer.forward(x).relu()), [x], TERMS)


@pytest.mark.parametrize("value", [2.5, math.inf, -math.inf, 3, 1 - 2j, complex(0, math.inf)])
def test_a_problem_is_read_as_it_was_written(value):
    kind = "complex64" if isinstance(value, complex) else "int64" if isinstance(value, int) else "float32"
    x, w = (torch.ones(1, 1, 3, dtype=getattr(torch, kind)) for _ in range(2))
    said = {"padding": 1, "padding_mode": "constant", "padding_value": value}
    problem = Problem.of(x, w, said, None, xp=library("x", x))
    read = tape._read(tape._written(problem))
    assert read == problem
    assert type(read.convolution.rows[0].value) is type(value)
