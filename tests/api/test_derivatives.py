"""Second derivatives and tangents: against torch's own, against what bilinear forms must obey, and under gradcheck."""

from __future__ import annotations

from typing import Any, NamedTuple

import array_api_strict
import numpy as np
import pytest
import torch
from families import CONV, FAMILIES, TRANSPOSED, Family, quiet_torch
from support import assert_within, draw, in_blocks_of, whole_numbers

import xpconv
from xpconv import (
    conv_double_backward,
    conv_jvp,
    conv_transpose_double_backward,
    conv_transpose_jvp,
    options,
)

DTYPES = ["float32", "float64", "complex64", "complex128"]
torch.backends.cudnn.allow_tf32 = False


# Against torch.

LAYERS = [
    (CONV, (3, 4, 9), (5, 4, 3), {"padding": 1}),
    (CONV, (2, 4, 7, 6), (6, 2, 3, 2), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}),
    (CONV, (2, 3, 5, 5), (6, 1, 3, 3), {"groups": 3, "stride": 2}),
    (CONV, (1, 2, 4, 3, 4), (3, 2, 2, 2, 3), {"padding": 1, "stride": 2}),
    (CONV, (2, 5, 4, 4), (3, 5, 1, 1), {}),
    (TRANSPOSED, (3, 4, 6), (4, 5, 3), {"padding": 1}),
    (
        TRANSPOSED,
        (2, 4, 4, 3),
        (4, 3, 3, 2),
        {"stride": (2, 3), "padding": (1, 0), "dilation": (1, 2), "groups": 2, "output_padding": (1, 2)},
    ),
    (TRANSPOSED, (1, 2, 3, 2, 2), (2, 3, 2, 2, 3), {"stride": 2, "padding": 1}),
    (TRANSPOSED, (2, 3, 4, 4), (3, 1, 2, 2), {"stride": 3, "groups": 3}),
]
# Every layer in two dtypes, and one of each family in all.
of_layers = pytest.mark.parametrize(
    ("family", "x", "w", "parameters", "dtype"),
    [
        (*layer, dtype)
        for i, layer in enumerate(LAYERS)
        for dtype in (DTYPES if i in (1, 6) else ("float32", "complex128"))
    ],
)


def channels(family, w, parameters):
    """How many the output has."""
    return w[1] * parameters.get("groups", 1) if family is TRANSPOSED else w[0]


def drawn(rng, family, x, w, parameters, dtype):
    """x, w, bias and dy, and as many again to multiply their gradients with."""
    bias = (channels(family, w, parameters),)
    y = family.torchs[len(w) - 2](torch.ones(x), torch.ones(w), torch.ones(bias), **parameters).shape
    return [draw(rng, shape, dtype) for shape in (x, w, bias, tuple(y)) * 2]


def double_backward_by_torch(backend, family, operands, parameters):
    """ddy, dx and dweight, from torch's tape of its own tape."""
    x, w, bias, dy, ddx, ddw, ddb, _ = (torch.asarray(one, device=backend.torch_device) for one in operands)
    x, w, bias, dy = (one.requires_grad_() for one in (x, w, bias, dy))
    y = family.torchs[w.ndim - 2](x, w, bias, **parameters)
    gradients = torch.autograd.grad(y, (x, w, bias), dy, create_graph=True)
    return [one.cpu().numpy() for one in torch.autograd.grad(gradients, (dy, x, w), (ddx, ddw, ddb))]


def jvp_by_torch(backend, family, operands, parameters):
    x, w, bias, _, tx, tw, tb, _ = (torch.asarray(one, device=backend.torch_device) for one in operands)
    function = family.torchs[w.ndim - 2]
    _, ty = torch.func.jvp(lambda x, w, bias: function(x, w, bias, **parameters), (x, w, bias), (tx, tw, tb))
    return [ty.cpu().numpy()]


def sizes_and_terms(by_torch, backend, family, operands, parameters):
    """The same sums over absolute values, and the number of products in each."""
    magnitude = by_torch(backend, family, [np.abs(one).astype("float64") for one in operands], parameters)
    return magnitude, by_torch(backend, family, [np.ones(one.shape) for one in operands], parameters)


@of_layers
def test_double_backward_as_torch(backend, rng, family, x, w, parameters, dtype):
    operands = drawn(rng, family, x, w, parameters, dtype)
    before = [one.tobytes() for one in operands]
    inputs, weight, _, dy, *dd, _ = map(backend.array, operands)
    ours = family.double_backward(*dd, dy, inputs, weight, **parameters)
    theirs = double_backward_by_torch(backend, family, operands, parameters)
    bounds = sizes_and_terms(double_backward_by_torch, backend, family, operands, parameters)
    assert type(ours) is xpconv.ConvDoubleGradients
    for one, other, magnitude, terms in zip(ours, theirs, *bounds, strict=True):
        values = backend.numpy(one)
        assert values.dtype == other.dtype
        assert_within(values, other, magnitude, terms)
    assert [one.tobytes() for one in operands] == before
    for one, copy in zip((inputs, weight, dy, *dd), (before[i] for i in (0, 1, 3, 4, 5, 6)), strict=True):
        assert backend.numpy(one).tobytes() == copy


@quiet_torch
@of_layers
def test_jvp_as_torch(backend, rng, family, x, w, parameters, dtype):
    operands = drawn(rng, family, x, w, parameters, dtype)
    before = [one.tobytes() for one in operands]
    inputs, weight, _, _, tx, tw, tb, _ = map(backend.array, operands)
    values = backend.numpy(family.jvp(tx, tw, tb, inputs, weight, **parameters))
    (theirs,) = jvp_by_torch(backend, family, operands, parameters)
    (magnitude,), (terms,) = sizes_and_terms(jvp_by_torch, backend, family, operands, parameters)
    assert values.dtype == theirs.dtype
    assert_within(values, theirs, magnitude, terms)
    assert [one.tobytes() for one in operands] == before


# What bilinear forms must obey, on whole numbers to the last bit, for all geometries.

GEOMETRIES = {
    "no spatial axes": ((3, 4), (4, 2), {"groups": 2}),
    "modes": (
        (1, 2, 4, 3, 3),
        (2, 2, 2, 2, 3),
        {"padding": [(1, 2), (1, 0), (1, 1)], "padding_mode": ("circular", "replicate", "reflect")},
    ),
    "a stride": (
        (2, 2, 4, 5),
        (2, 2, 3, 2),
        {"padding": 1, "padding_mode": ("reflect", "zeros"), "stride": 2},
    ),
    "input dilation": ((2, 2, 4, 5), (2, 2, 2, 2), {"input_dilation": (2, 1), "stride": (1, 2), "padding": 1}),
    "4-D": ((1, 2, 2, 3, 2, 3), (2, 2, 2, 2, 1, 2), {"padding": [(0, 1), (1, 0), (0, 0), (0, 0)]}),
    "flip": ((2, 4, 4, 5), (4, 2, 2, 3), {"flip": True, "groups": 2, "stride": (1, 2)}),
    "channels last": ((2, 4, 5, 2), (2, 2, 2, 3), {"channel_axis": -1, "stride": (2, 1), "flip": True}),
    "channels first": ((2, 3, 4, 5), (2, 2, 2, 3), {"channel_axis": 0}),
    "no batch": ((2, 4, 5), (2, 3, 2, 3), {"dilation": 2, "padding": (1, 2), "padding_mode": "circular"}),
    "batch axes": ((2, 3, 2, 5), (2, 2, 2), {"stride": 2}),
    "negative padding": ((2, 2, 6, 6), (2, 2, 2, 2), {"padding": [(-1, 0), (1, -2)]}),
    "same": ((2, 2, 5, 4), (2, 2, 3, 2), {"stride": 2, "padding": "same"}),
    "causal": ((2, 2, 6), (2, 2, 3), {"padding": "causal", "padding_mode": "replicate", "dilation": 2}),
}
KINDS = [("complex128", "complex128"), ("float64", "float64"), ("float64", "complex128"), ("complex128", "float64")]
everywhere = pytest.mark.parametrize(
    ("name", "kinds"),
    [
        *((name, KINDS[0]) for name in GEOMETRIES),
        *((name, kinds) for name in ("modes", "input dilation", "flip") for kinds in KINDS[1:]),
    ],
)


def whole_operands(backend, rng, family, name, kinds, dtype_of_y=None):
    """x, w, bias and dy; another of each; and the parameters."""
    x, w, parameters = GEOMETRIES[name]
    if family is CONV and name == "no batch":
        w = (w[1], w[0], *w[2:])
    x_kind, w_kind = kinds
    y_kind = dtype_of_y or ("complex128" if "complex128" in kinds else x_kind)
    bias = (channels(family, w, parameters),)
    y = family.forward(np.zeros(x), np.zeros(w), **parameters).shape
    shapes = (x, x_kind), (w, w_kind), (bias, y_kind), (y, y_kind)
    operands = [whole_numbers(rng, *one) for one in shapes * 2]
    return [backend.array(one) for one in operands], operands, parameters


@FAMILIES
@everywhere
def test_jvp_is_the_difference(backend, rng, family, name, kinds):
    """T(x + tx, w + tw) - T(x, w) - T(tx, tw) is all that is linear; and tb."""
    arrays, _, parameters = whole_operands(backend, rng, family, name, kinds)
    x, w, bias, _, tx, tw, tb, _ = arrays
    with options(method="lowering"):
        ty = backend.numpy(family.jvp(tx, tw, tb, x, w, **parameters))
        with backend.here():
            there = x + tx, w + tw, bias + tb
        moved, still, second = (
            backend.numpy(family.forward(*one, **parameters)) for one in (there, (x, w, bias), (tx, tw))
        )
    np.testing.assert_array_equal(ty, moved - still - second)
    assert ty.dtype == moved.dtype


@FAMILIES
@everywhere
def test_double_backward_is_the_adjoint_of_backward(backend, rng, family, name, kinds):
    """<backward(dy', x, w), dd> = <dy', ddy>, and so for x' and w', each in the slot of x and w: real parts."""
    arrays, values, parameters = whole_operands(backend, rng, family, name, kinds)
    x, w, _, dy, ddx, ddw, ddb, other_dy = arrays
    other_x, other_w = (backend.array(whole_numbers(rng, one.shape, one.dtype)) for one in values[:2])
    with options(method="lowering"):
        ddy, dx, dw = family.double_backward(ddx, ddw, ddb, dy, x, w, **parameters)
        by_dy = family.backward(other_dy, x, w, **parameters)
        by_x = family.backward(dy, other_x, w, **parameters)
        by_w = family.backward(dy, x, other_w, **parameters)

    def inner(*pairs):
        return sum(np.vdot(backend.numpy(a), backend.numpy(b)).real for a, b in pairs)

    for one, like in ((ddy, dy), (dx, x), (dw, w)):
        assert backend.numpy(one).dtype == backend.numpy(like).dtype
        assert one.shape == like.shape
    assert inner(*zip(by_dy, (ddx, ddw, ddb), strict=True)) == inner((other_dy, ddy))
    assert inner((by_x.dweight, ddw)) == inner((other_x, dx))  # dx of backward does not depend on x
    assert inner((by_w.dx, ddx)) == inner((other_w, dw))
    assert inner((other_x, dx)) != 0 != inner((other_w, dw))


@FAMILIES
@pytest.mark.parametrize("name", ["modes", "input dilation", "flip", "4-D", "batch axes"])
def test_many_small_parts_are_the_same(backend, rng, monkeypatch, family, name):
    arrays, _, parameters = whole_operands(backend, rng, family, name, ("float64", "float64"))
    x, w, _, dy, *dd, _ = arrays
    results = []
    for size in (2**26, 1500):
        in_blocks_of(monkeypatch, size)
        with options(method="lowering"):
            gradients = family.double_backward(*dd, dy, x, w, **parameters)
            results.append([*gradients, family.jvp(*dd, x, w, **parameters)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(backend.numpy(one), backend.numpy(other))


# What is not given, and what is not needed.


@FAMILIES
@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
def test_none_is_zeros(backend, rng, family, kinds):
    arrays, values, parameters = whole_operands(backend, rng, family, "a stride", kinds)
    x, w, _, dy, *dd, _ = arrays
    zeros = [backend.array(np.zeros_like(one)) for one in values[4:7]]
    with options(method="lowering"):
        for mask in np.ndindex(2, 2, 2):
            some = [one if bit else None for one, bit in zip(dd, mask, strict=True)]
            same = [one if bit else zero for one, zero, bit in zip(dd, zeros, mask, strict=True)]
            ty = family.jvp(*some, x, w, **parameters)
            expected = family.jvp(*same, x, w, **parameters)
            np.testing.assert_array_equal(backend.numpy(ty), backend.numpy(expected))
            assert backend.numpy(ty).dtype == backend.numpy(expected).dtype == backend.numpy(dy).dtype

            some = family.double_backward(*some, dy, x, w, **parameters)
            same = family.double_backward(*same, dy, x, w, **parameters)
            nothing = (not any(mask), not mask[1], not mask[0])
            for one, other, none in zip(some, same, nothing, strict=True):
                if one is None:
                    assert none
                    assert not backend.numpy(other).any()
                else:
                    np.testing.assert_array_equal(backend.numpy(one), backend.numpy(other))
            assert (some[1] is None, some[2] is None) == nothing[1:]


@FAMILIES
def test_tangents_of_nothing(backend, rng, family):
    """With NaN and infinities in what does not change: nothing changes."""
    arrays, values, parameters = whole_operands(backend, rng, family, "same", ("float64", "float64"))
    x, w, _, dy, *_ = arrays
    bad = [backend.array(np.full_like(one, value)) for one, value in zip(values[:2], (np.nan, np.inf), strict=True)]
    for operands in ((x, w), bad):
        ty = backend.numpy(family.jvp(None, None, None, *operands, **parameters))
        np.testing.assert_array_equal(ty, np.zeros(dy.shape))
    tb = np.asarray([3.0, -1.0])
    ty = backend.numpy(family.jvp(None, None, backend.array(tb), *bad, **parameters))
    np.testing.assert_array_equal(ty, np.broadcast_to(tb[:, None, None], dy.shape))


@FAMILIES
@pytest.mark.parametrize("name", ["modes", "input dilation", "channels last"])
def test_needs(backend, rng, family, name):
    arrays, _, parameters = whole_operands(backend, rng, family, name, ("complex128", "complex128"))
    x, w, _, dy, *dd, _ = arrays
    everything = family.double_backward(*dd, dy, x, w, **parameters)
    for mask in np.ndindex(2, 2, 2):
        some = family.double_backward(*dd, dy, x, w, needs=[bool(bit) for bit in mask], **parameters)
        for needed, one, other in zip(mask, some, everything, strict=True):
            if needed:
                np.testing.assert_array_equal(backend.numpy(one), backend.numpy(other))
            else:
                assert one is None


@FAMILIES
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits(backend, rng, family, dtype):
    """As in float32 and rounded at the end; whole numbers of 8 bits are whole in all of them."""
    xp, narrow = backend.xp, backend.dtype(dtype)
    if narrow is None:
        pytest.xfail(f"{backend.name} has no {dtype}")

    def cast(array, dtype):
        with backend.here():
            return xp.astype(array, dtype)

    arrays, _, parameters = whole_operands(backend, rng, family, "a stride", ("float32", "float32"))
    x, w, _, dy, *dd, _ = arrays
    few = [cast(one, narrow) for one in (*dd, dy, x, w)]
    wide = family.double_backward(*dd, dy, x, w, **parameters)
    ddy, dx, dw = family.double_backward(*few, **parameters)
    for one, other in ((dx, wide.dx), (dw, wide.dweight)):
        assert one.dtype == narrow
        rounded = backend.numpy(cast(cast(other, narrow), xp.float32))
        np.testing.assert_array_equal(backend.numpy(cast(one, xp.float32)), rounded)
    # A sum of two convolutions, each rounded as their sum is: by half a unit in the last place.
    some = (dd[0], None, dd[2]), (None, dd[1], None), dd
    sizes = (np.abs(backend.numpy(family.jvp(*one, x, w, **parameters))) for one in some)
    half = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    error = np.abs(backend.numpy(cast(ddy, xp.float32)) - backend.numpy(wide.ddy))
    assert ddy.dtype == narrow
    assert np.all(error <= half * (1 + half) * sum(sizes))


# Errors.

X, W, DY, B = np.ones((2, 4, 5)), np.ones((3, 4, 2)), np.ones((2, 3, 4)), np.ones(3)
XT, WT = np.ones((2, 4, 3)), np.ones((4, 3, 2))  # transposed, DY is the same
SINGLE = "float32"

ERRORS = [
    (ValueError, "tx must have shape (2, 4, 5): got (2, 4, 4)", lambda: conv_jvp(X[..., :4], None, None, X, W)),
    (ValueError, "tx must have shape (2, 4, 5): got (4, 5)", lambda: conv_jvp(X[0], None, None, X, W)),
    (ValueError, "tweight must have shape (3, 4, 2): got (3, 4, 1)", lambda: conv_jvp(X, W[..., :1], None, X, W)),
    (ValueError, "tbias must have shape (3,): got (2,)", lambda: conv_jvp(None, None, B[:2], X, W)),
    (TypeError, "tx must have dtype float64: got float32", lambda: conv_jvp(X.astype(SINGLE), None, None, X, W)),
    (TypeError, "tx must have dtype float64: got complex128", lambda: conv_jvp(X + 0j, None, None, X, W)),
    (TypeError, "tx must have dtype complex128: got float64", lambda: conv_jvp(X, None, None, X + 0j, W)),
    (TypeError, "tweight must have dtype float64: got int64", lambda: conv_jvp(X, W.astype("int64"), None, X, W)),
    (TypeError, "tbias must have dtype float64: got int64", lambda: conv_jvp(X, W, B.astype("int64"), X, W)),
    (
        TypeError,
        "tbias must have dtype complex128 or float64: got int64",
        lambda: conv_jvp(None, None, B.astype("int64"), X + 0j, W),
    ),
    (
        TypeError,
        "x and tx must have one library: got numpy and torch",
        lambda: conv_jvp(torch.asarray(X), None, None, X, W),
    ),
    (
        TypeError,
        "x and tbias must have one library: got numpy and array_api_strict",
        lambda: conv_jvp(None, None, array_api_strict.asarray(B), X, W),
    ),
    (
        TypeError,
        "tx must be a plain array of a library that speaks the Array API: got float; pass np.asarray(tx)",
        lambda: conv_jvp(1.0, None, None, X, W),
    ),
    (
        ValueError,
        "ddx must have shape (2, 4, 5): got (1, 4, 5)",
        lambda: conv_double_backward(X[:1], None, None, DY, X, W),
    ),
    (
        ValueError,
        "ddx must have shape (2, 4, 5): got (1, 4, 5)",
        lambda: conv_double_backward(X[:1], None, None, DY, X, W, needs=(False, False, True)),
    ),
    (
        ValueError,
        "ddweight must have shape (3, 4, 2): got (3, 4)",
        lambda: conv_double_backward(None, W[..., 0], None, DY, X, W),
    ),
    (
        ValueError,
        "ddweight must have shape (3, 4, 2): got (3, 4)",
        lambda: conv_double_backward(None, W[..., 0], None, DY, X, W, needs=(False, True, False)),
    ),
    (
        ValueError,
        "ddbias must have shape (3,): got (4,)",
        lambda: conv_double_backward(None, None, np.ones(4), DY, X, W),
    ),
    (
        ValueError,
        "dy must have shape (2, 3, 4): got (2, 3, 3)",
        lambda: conv_double_backward(X, None, None, DY[..., :3], X, W),
    ),
    (
        TypeError,
        "dy must have dtype float64: got complex128",
        lambda: conv_double_backward(X, None, None, DY + 0j, X, W),
    ),
    (
        TypeError,
        "ddx must have dtype float64: got float32",
        lambda: conv_double_backward(X.astype(SINGLE), None, None, DY, X, W),
    ),
    (
        TypeError,
        "ddweight must have dtype float64: got complex128",
        lambda: conv_double_backward(None, W + 0j, None, DY + 0j, X + 0j, W),
    ),
    (
        TypeError,
        "dy and ddweight must have one library: got numpy and torch",
        lambda: conv_double_backward(None, torch.asarray(W), None, DY, X, W),
    ),
    (
        TypeError,
        "needs must be three bools, for ddy, dx and dweight: got (True, True)",
        lambda: conv_double_backward(X, W, B, DY, X, W, needs=(True, True)),
    ),
    (
        ValueError,
        "tx must have shape (2, 4, 3): got (2, 4, 5)",
        lambda: conv_transpose_jvp(X, None, None, XT, WT),
    ),
    (
        ValueError,
        "tbias must have shape (3,): got (4,)",
        lambda: conv_transpose_jvp(None, None, np.ones(4), XT, WT),
    ),
    (
        ValueError,
        "ddweight must have shape (4, 3, 2): got (3, 4, 2)",
        lambda: conv_transpose_double_backward(None, W, None, DY, XT, WT),
    ),
    (
        TypeError,
        "ddbias must have dtype float64: got int64",
        lambda: conv_transpose_double_backward(None, None, B.astype("int64"), DY, XT, WT),
    ),
    (
        ValueError,
        "output_size must be from 4 to 4 on spatial axis 0: got 5",
        lambda: conv_transpose_double_backward(XT, None, None, DY, XT, WT, output_size=5),
    ),
]


@pytest.mark.parametrize(("error", "sentence", "call"), ERRORS)
def test_sentence(error, sentence, call):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == sentence
    for array in (X, W, DY, B, XT, WT):
        assert (array == 1).all()


# As functions of a tape of torch's, which differentiates them numerically too.


class Outside(NamedTuple):
    """A family on another side of torch: no tape sees what happens there."""

    backend: Any
    family: Family
    parameters: dict[str, Any]

    def call(self, function, *tensors, **more):
        arrays = [
            None if one is None else self.backend.array(one.detach().resolve_conj().resolve_neg().cpu().numpy())
            for one in tensors
        ]
        results = getattr(self.family, function)(*arrays, **more, **self.parameters)
        results = results if isinstance(results, tuple) else (results,)
        return tuple(None if one is None else torch.asarray(self.backend.numpy(one).copy()) for one in results)


class Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, outside, x, w, bias):
        ctx.outside = outside
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w)
        ctx.save_for_forward(x, w)
        return outside.call("forward", x, w, bias)[0]

    @staticmethod
    def backward(ctx, dy):
        if dy is None:  # undefined, which is zeros
            return (None,) * 4
        return (None, *Backward.apply(ctx.outside, ctx.needs_input_grad[1:], dy, *ctx.saved_tensors))

    @staticmethod
    def jvp(ctx, _, tx, tw, tb):
        return ctx.outside.call("jvp", tx, tw, tb, *ctx.saved_tensors)[0]


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, outside, needs, dy, x, w):
        ctx.outside = outside
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dy, x, w)
        return outside.call("backward", dy, x, w, needs=needs)

    @staticmethod
    def backward(ctx, ddx, ddw, ddb):
        needs = ctx.needs_input_grad[2:]
        return (None, None, *ctx.outside.call("double_backward", ddx, ddw, ddb, *ctx.saved_tensors, needs=needs))


TAPED = {
    "conv, a stride": (CONV, (2, 2, 5), (2, 2, 2), {"stride": 2, "padding": 1}),
    "conv, dilation and groups": (CONV, (1, 2, 3, 2), (2, 1, 2, 2), {"dilation": (2, 1), "groups": 2}),
    "conv, modes": (
        CONV,
        (1, 1, 3, 2),
        (2, 1, 2, 2),
        {"padding": 1, "padding_mode": ("reflect", "circular"), "stride": 2},
    ),
    "conv, flip": (CONV, (1, 2, 3), (1, 2, 3), {"padding": "same", "padding_mode": "replicate", "flip": True}),
    "conv, input dilation": (CONV, (1, 1, 3), (2, 1, 2), {"input_dilation": 2, "padding": [(1, 0)]}),
    "conv, channels last": (CONV, (1, 4, 2), (2, 2, 2), {"channel_axis": -1}),
    "transposed, a stride": (TRANSPOSED, (2, 2, 3), (2, 2, 2), {"stride": 3, "padding": 1, "output_padding": 2}),
    "transposed, dilation and groups": (TRANSPOSED, (1, 2, 2, 2), (2, 1, 2, 2), {"dilation": (2, 1), "groups": 2}),
    "transposed, modes": (
        TRANSPOSED,
        (1, 1, 2, 2),
        (1, 2, 2, 2),
        {"padding": [(1, 0), (1, 0)], "padding_mode": ("replicate", "circular"), "stride": (1, 2)},
    ),
    "transposed, same": (
        TRANSPOSED,
        (1, 2, 2),
        (2, 1, 3),
        {"stride": 2, "padding": "same", "padding_mode": "circular"},
    ),
}


@quiet_torch
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float64") for name in TAPED),
        *((name, "complex128") for name in TAPED if "modes" in name or "groups" in name),
    ],
)
def test_gradcheck(backend, rng, name, dtype):
    family, *shapes, parameters = TAPED[name]
    outside = Outside(backend, family, parameters)
    bias = (channels(family, shapes[1], parameters),)
    operands = [torch.asarray(draw(rng, shape, dtype)).requires_grad_() for shape in (*shapes, bias)]
    y = Forward.apply(outside, *operands)
    assert y.grad_fn is not None
    assert y.dtype == operands[0].dtype
    assert torch.autograd.gradcheck(lambda *given: Forward.apply(outside, *given), operands, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda *given: Forward.apply(outside, *given), operands)


def test_the_tape_needs_only_what_it_asks_for(backend, rng):
    """An input alone, a weight alone: their gradients of gradients are the same, the others None."""
    family, *shapes, parameters = TAPED["conv, modes"]
    outside = Outside(backend, family, parameters)
    values = [torch.asarray(draw(rng, shape, "float64")) for shape in (*shapes, (2,))]
    for asked in np.ndindex(2, 2, 2):
        operands = [one.clone().requires_grad_(bool(bit)) for one, bit in zip(values, asked, strict=True)]
        if any(asked):
            assert torch.autograd.gradgradcheck(lambda *given: Forward.apply(outside, *given), operands)
            y = Forward.apply(outside, *operands)
            y.sum().backward()
            assert [one.grad is not None for one in operands] == list(map(bool, asked))
