"""A weight for each sample: against the loop sample by sample, torch's vmap of gradients, and the adjoint law."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from cases import Case, TransposedCase, placed
from families import CONV, FAMILIES, TRANSPOSED
from support import assert_within, draw, whole_numbers

import xpconv
from xpconv import (
    conv,
    conv_backward,
    conv_input_grad,
    conv_output_size,
    conv_transpose,
    conv_weight_grad,
    explain,
    options,
)

N = 3


class Each(NamedTuple):
    """A family, and one of its convolutions for a single sample."""

    family: object
    case: Case | TransposedCase

    def drawn(self, rng, dtype):
        """dy, x, weight and bias, of as many samples."""
        return [whole_numbers(rng, (N, *shape), dtype) for shape in (y[1:] for y in self.case.shapes[:2])] + [
            whole_numbers(rng, (N, *shape), dtype, most=4) for shape in self.case.shapes[2:]
        ]

    def expected(self, dy, x, w, bias):
        sums = [self.case.expected(dy[i : i + 1], x[i : i + 1], w[i], bias[i]) for i in range(N)]
        y, dx = (np.concatenate(parts) for parts in list(zip(*sums, strict=True))[:2])
        dw, db = (np.stack(parts) for parts in list(zip(*sums, strict=True))[2:])
        return y, dx, dw, db


EACH = {
    "conv": Each(CONV, Case((1, 4, 5, 6), (6, 2, 3, 2), ((1, 0), (0, 2)), stride=(2, 1), dilation=(1, 2), groups=2)),
    "no axes": Each(CONV, Case((1, 4), (6, 2), (), groups=2)),
    "depthwise": Each(CONV, Case((1, 3, 6), (3, 1, 2), groups=3)),
    "reflected": Each(CONV, Case((1, 2, 5), (3, 2, 3), 2, padding_mode="reflect", flip=True)),
    "spread": Each(CONV, Case((1, 2, 4), (3, 2, 3), 1, input_dilation=(2,))),
    "transposed": Each(TRANSPOSED, TransposedCase((1, 4, 3, 4), (4, 3, 3, 2), (7, 5), {"stride": (2, 1), "groups": 2})),
}


@pytest.mark.parametrize("dtype", ["float32", "complex64", "int8"])
@pytest.mark.parametrize("name", EACH)
def test_sample_by_sample(backend, rng, name, dtype):
    each = EACH[name]
    values = each.drawn(rng, dtype)
    dy, x, w, bias = map(backend.array, values)
    said = {**each.case.parameters, "per_sample": True}
    with options(method="lowering"):  # which only adds and multiplies what it is given
        results = each.family.forward(x, w, bias, **said), *each.family.backward(dy, x, w, **said)
    for result, expected in zip(results, each.expected(*values), strict=True):
        result = backend.numpy(result)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, expected.astype(dtype))


def test_16_bits_are_rounded_once(backend, rng):
    if (dtype := backend.dtype("float16")) is None:
        pytest.xfail(f"{backend.name} has no float16")
    each = EACH["conv"]
    values = [one.astype(np.float16) for one in each.drawn(rng, "float32")]
    dy, x, w, bias = map(backend.array, values)
    said = {**each.case.parameters, "per_sample": True}
    with options(method="lowering"):
        results = conv(x, w, bias, **said), *conv_backward(dy, x, w, **said)
    for result, expected in zip(results, each.expected(*values), strict=True):
        assert result.dtype == dtype
        np.testing.assert_array_equal(backend.numpy(result), expected.astype(np.float16))


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_the_gradients_of_one_weight_as_torch_maps_them(backend, rng, dtype):
    """As opacus has them: torch's gradient, mapped over the samples."""
    said = {"stride": (2, 1), "padding": (1, 2), "groups": 2}
    w, x = (4, 3, 3, 2), draw(rng, (4, 6, 9, 8), dtype)
    dy = draw(rng, (4, 4, *conv_output_size((9, 8), (3, 2), stride=(2, 1), padding=(1, 2))), dtype)

    def mapped(dy, x):
        dy, x = (torch.asarray(one, device=backend.torch_device) for one in (dy, x))
        weight = torch.zeros(w, dtype=x.dtype, device=x.device)

        def gradient(dy, x):
            _, pull = torch.func.vjp(lambda w: torch.nn.functional.conv2d(x[None], w, **said)[0], weight)
            return pull(dy)[0]

        return torch.func.vmap(gradient)(dy, x).cpu().numpy()

    expected, magnitude = mapped(dy, x), mapped(*(abs(one).astype("float64") for one in (dy, x)))
    found = backend.numpy(
        conv_weight_grad(backend.array(dy), backend.array(x), kernel_size=(3, 2), per_sample=True, **said)
    )
    assert found.dtype == dtype
    assert_within(found, expected, magnitude, int(np.prod(dy.shape[2:])))
    together = backend.numpy(conv_weight_grad(backend.array(dy), backend.array(x), kernel_size=(3, 2), **said))
    assert_within(found.sum(axis=0), together, magnitude.sum(axis=0), dy[:, 0].size)


@FAMILIES
def test_every_function_is_as_for_each_sample_alone(backend, rng, family):
    case = EACH["conv" if family is CONV else "transposed"].case
    dy, x, w, bias, ddy, ddx, ddw, ddb = (
        whole_numbers(rng, (N, *shape), "float64", most=3)
        for shape in [*(one[1:] for one in case.shapes[:2]), *case.shapes[2:]] * 2
    )
    said = case.parameters
    calls = {
        family.forward: (x, w, bias),
        family.jvp: (ddx, ddw, ddb, x, w),
        family.double_backward: (ddx, ddw, ddb, dy, x, w),
    }
    if family is CONV:
        calls[lambda dy, w, **said: conv_input_grad(dy, w, input_size=case.x[2:], **said)] = (dy, w)
    calls[lambda tb, x, w, **said: family.jvp(None, None, tb, x, w, **said)] = (ddb, x, w)
    assert ddy.shape == dy.shape
    with options(method="lowering"):
        for function, operands in calls.items():
            results = function(*map(backend.array, operands), per_sample=True, **said)
            alone = [function(*map(backend.array, one), **said) for one in zip(*operands, strict=True)]
            results, alone = (results, zip(*alone, strict=True)) if isinstance(results, tuple) else ([results], [alone])
            for result, parts in zip(results, alone, strict=True):
                np.testing.assert_array_equal(backend.numpy(result), np.stack([backend.numpy(one) for one in parts]))


def test_one_bias_for_all(backend, rng):
    x, w, bias = (whole_numbers(rng, shape) for shape in ((3, 2, 5), (3, 4, 2, 2), (4,)))
    y = conv(*map(backend.array, (x, w, bias)), per_sample=True)
    without = conv(*map(backend.array, (x, w)), per_sample=True)
    np.testing.assert_array_equal(backend.numpy(y), backend.numpy(without) + bias[:, None])


@pytest.mark.parametrize("channel_axis", [-1, 0])
def test_channels_elsewhere(backend, rng, channel_axis):
    x, w, bias = (whole_numbers(rng, shape) for shape in ((3, 2, 5, 4), (3, 4, 2, 2, 1), (3, 4)))
    dy = whole_numbers(rng, conv(x, w, per_sample=True).shape)
    said = {"per_sample": True, "channel_axis": channel_axis}
    there_x, there_dy = (backend.array(placed(one, one.shape[:1], channel_axis)) for one in (x, dy))
    w_there, b_there = backend.array(w), backend.array(bias)
    y = placed(conv(x, w, bias, per_sample=True), (3,), channel_axis)
    np.testing.assert_array_equal(backend.numpy(conv(there_x, w_there, b_there, **said)), y)
    dx, dw, db = conv_backward(there_dy, there_x, w_there, **said)
    expected = conv_backward(dy, x, w, per_sample=True)
    np.testing.assert_array_equal(backend.numpy(dx), placed(expected.dx, (3,), channel_axis))
    np.testing.assert_array_equal(backend.numpy(dw), expected.dweight)
    np.testing.assert_array_equal(backend.numpy(db), expected.dbias)


def test_no_samples(backend):
    x, w, bias, dy = (backend.array(np.ones(shape)) for shape in ((0, 2, 5), (0, 4, 2, 2), (4,), (0, 4, 4)))
    results = conv(x, w, bias, per_sample=True), *conv_backward(dy, x, w, per_sample=True)
    assert [backend.numpy(one).shape for one in results] == [(0, 4, 4), (0, 2, 5), (0, 4, 2, 2), (0, 4)]


def test_neither_x_nor_weight_is_copied(rng, monkeypatch):
    x, w = draw(rng, (3, 2, 5), "float32"), draw(rng, (3, 4, 2, 2), "float32")
    seen = []

    def watched(problem, a, b, bias, *, xp):
        seen.append((a, b))
        return evaluate(problem, a, b, bias, xp=xp)

    evaluate = xpconv._engines.dispatch.evaluate
    monkeypatch.setattr("xpconv._engines.dispatch.evaluate", watched)
    conv(x, w, per_sample=True)
    ((a, b),) = seen
    assert np.shares_memory(a, x)
    assert np.shares_memory(b, w)


def test_explained(rng):
    plan = explain(draw(rng, (3, 4, 9), "float32"), draw(rng, (3, 6, 2, 3), "float32"), groups=2, per_sample=True)
    assert plan.geometry.startswith("x (1, 12, 9), weight (18, 2, 3)")
    assert plan.direct_flops == 2 * 3 * 6 * 7 * 2 * 3


# Under torch's transforms.


def test_gradients_on_torchs_tape(rng):
    said = {"per_sample": True, "stride": 2, "padding": 1, "groups": 2}
    x, w, bias = (
        torch.asarray(draw(rng, shape, "float64")).requires_grad_() for shape in ((2, 2, 5), (2, 4, 1, 2), (2, 4))
    )
    assert torch.autograd.gradcheck(lambda *operands: conv(*operands, **said), (x, w, bias))
    assert torch.autograd.gradgradcheck(lambda *operands: conv(*operands, **said), (x, w, bias))
    dy = torch.asarray(draw(rng, tuple(conv(x, w, **said).shape), "float64"))
    taped = torch.autograd.grad(conv(x, w, bias, **said), (x, w, bias), dy)
    for one, other in zip(taped, conv_backward(dy, x.detach(), w.detach(), **said), strict=True):
        torch.testing.assert_close(one, other)


def test_mapped_and_compiled_by_torch(rng):
    said = {"per_sample": True, "padding": 1}
    x, w = (torch.asarray(draw(rng, shape, "float64")) for shape in ((4, 3, 2, 5), (4, 3, 4, 2, 2)))
    expected = torch.stack([conv(a, b, **said) for a, b in zip(x, w, strict=True)])
    torch.testing.assert_close(torch.func.vmap(lambda x, w: conv(x, w, **said))(x, w), expected)
    shared = torch.stack([conv(a, w[0], **said) for a in x])
    torch.testing.assert_close(torch.func.vmap(lambda x: conv(x, w[0], **said))(x), shared)
    compiled = torch.compile(lambda x, w: conv(x, w, **said), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x[0], w[0]), expected[0])


# What is wrong, in one sentence.

X, W, DY = np.ones((3, 4, 7, 6)), np.ones((3, 5, 4, 2, 2)), np.ones((3, 5, 6, 5))
EACH_BATCH = "must have one batch axis where per_sample is set, beside its channels and"


@pytest.mark.parametrize(
    ("kind", "sentence", "call"),
    [
        (TypeError, "per_sample must be a bool: got 1", lambda: conv(X, W, per_sample=1)),
        (
            ValueError,
            (
                "weight must have at least 3 axes (batch, out channels, in channels / groups, *kernel): got 2; "
                "arrays without channels are for convolve"
            ),
            lambda: conv(X, W[0, 0, :, 0], per_sample=True),
        ),
        (ValueError, f"x {EACH_BATCH} 1 spatial axes: got 2", lambda: conv(X, W[0], per_sample=True)),
        (ValueError, f"x {EACH_BATCH} 2 spatial axes: got 0", lambda: conv(X[0], W, per_sample=True)),
        (
            ValueError,
            f"dy {EACH_BATCH} 2 spatial axes: got 2",
            lambda: conv_input_grad(DY[None], W, input_size=(7, 6), per_sample=True),
        ),
        (
            ValueError,
            f"x {EACH_BATCH} 2 spatial axes: got 2",
            lambda: conv_weight_grad(DY[None], X[None], kernel_size=(2, 2), per_sample=True),
        ),
        (
            ValueError,
            "weight must have 3 samples on axis 0 where per_sample is set, as many as x: got 2",
            lambda: conv(X, W[:2], per_sample=True),
        ),
        (
            ValueError,
            "weight must have 4 input channels (4 in 1 groups): got 3",
            lambda: conv(X, W[:, :, :3], per_sample=True),
        ),
        (
            ValueError,
            "weight must have 4 input channels, as many as x: got 5",
            lambda: conv_transpose(X, W, per_sample=True),
        ),
        (
            ValueError,
            "dy must have shape (3, 5, 6, 5): got (1, 5, 6, 5)",
            lambda: conv_backward(DY[:1], X, W, per_sample=True),
        ),
        (ValueError, "bias must have shape (5,): got (4,)", lambda: conv(X, W, np.ones(4), per_sample=True)),
        (ValueError, "bias must have shape (3, 5): got (2, 5)", lambda: conv(X, W, np.ones((2, 5)), per_sample=True)),
        (ValueError, "bias must have shape (4,): got (3, 4)", lambda: conv(X, np.ones((4, 4, 1, 1)), np.ones((3, 4)))),
        (
            ValueError,
            "per_sample must be given to functions: a layer has one weight for all samples",
            lambda: xpconv.Conv2d(4, 5, 2, per_sample=True),
        ),
    ],
)
def test_bad_input(kind, sentence, call):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == sentence
