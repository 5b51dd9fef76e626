"""A stream, block by block, against the causal convolution of the whole, and against torch's."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import assert_within, draw, whole_numbers

from xpconv import conv, conv_stream


def in_blocks(x, cuts, axis, *operands, **parameters):
    """The outputs of a stream that comes in these blocks, and the states between them."""
    weight, *bias = operands
    outputs, states = [], [None]
    for start, stop in pairwise(cuts):
        block = x[(*(slice(None),) * axis, slice(start, stop), ...)]
        y, state = conv_stream(block, weight, *bias, state=states[-1], **parameters)
        outputs.append(y)
        states.append(state)
    return outputs, states[1:]


@st.composite
def streams(draw_from):
    ndim = draw_from(st.integers(1, 3))

    def per_axis(low, high):
        return draw_from(st.tuples(*(st.integers(low, high) for _ in range(ndim))))

    length = draw_from(st.integers(1, 14))
    inner = sorted(draw_from(st.lists(st.integers(0, length), max_size=6)))  # blocks of 0 among them
    stride, dilation, kernel, size = per_axis(1, 5), per_axis(1, 3), per_axis(1, 4), per_axis(1, 4)
    groups = draw_from(st.integers(1, 2))
    x = (2, 2 * groups, length, *size[1:])
    weight = (3 * groups, 2, *kernel)
    return x, weight, (0, *inner, length), {"stride": stride, "dilation": dilation, "groups": groups}


@given(streams())
def test_integers_to_the_bit(backend, stream):
    x_shape, w_shape, cuts, parameters = stream
    rng = np.random.default_rng(0)
    x, w, bias = (whole_numbers(rng, shape, "int16") for shape in (x_shape, w_shape, w_shape[:1]))
    with backend.here():
        outputs, states = in_blocks(backend.array(x), cuts, 2, *map(backend.array, (w, bias)), **parameters)
    outputs, states = ([backend.numpy(one) for one in several] for several in (outputs, states))
    found = np.concatenate(outputs, axis=2)
    assert found.dtype == "int16"
    np.testing.assert_array_equal(found, conv(x, w, bias, padding="causal", **parameters))
    reach = parameters["dilation"][0] * (w_shape[2] - 1)
    padded = np.concatenate([np.zeros((*x_shape[:2], reach, *x_shape[3:]), "int16"), x], axis=2)
    for stop, state in zip(cuts[1:], states, strict=True):
        since = stop % parameters["stride"][0]
        np.testing.assert_array_equal(state, padded[:, :, stop - since : stop + reach])


def test_as_torch(backend, rng):
    x, w, bias = (draw(rng, shape, "float32") for shape in ((2, 6, 40), (4, 3, 5), (4,)))
    parameters = {"stride": 3, "dilation": 2, "groups": 2}

    def by_torch(*operands):
        x, *others = (torch.asarray(one, device=backend.torch_device) for one in operands)
        return torch.nn.functional.conv1d(torch.nn.functional.pad(x, (8, 0)), *others, **parameters).cpu().numpy()

    with backend.here():
        outputs, _ = in_blocks(backend.array(x), (0, 7, 7, 8, 31, 40), 2, *map(backend.array, (w, bias)), **parameters)
    found = np.concatenate([backend.numpy(one) for one in outputs], axis=2)
    assert found.dtype == "float32"
    assert_within(found, by_torch(x, w, bias), by_torch(*(abs(one).astype("float64") for one in (x, w, bias))), 16)


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_other_batch_axes(backend, rng, batch):
    x, w = whole_numbers(rng, (*batch, 2, 9, 3), "float64"), whole_numbers(rng, (4, 2, 3, 2), "float64")
    with backend.here():
        outputs, _ = in_blocks(backend.array(x), (0, 2, 9), len(batch) + 1, backend.array(w), stride=(2, 1))
    found = np.concatenate([backend.numpy(one) for one in outputs], axis=len(batch) + 1)
    np.testing.assert_array_equal(found, conv(x, w, padding="causal", stride=(2, 1)))


def test_a_stream_that_went_on_before(backend, rng):
    """A state of the caller's own stands for what came before."""
    x, w = whole_numbers(rng, (1, 2, 9), "float64"), whole_numbers(rng, (3, 2, 4), "float64")
    y, _ = conv_stream(backend.array(x[..., 3:]), backend.array(w), state=backend.array(x[..., :3]))
    np.testing.assert_array_equal(backend.numpy(y), conv(x, w))


@pytest.mark.parametrize(("dtype", "w_dtype"), [("float32", "complex64"), ("complex128", "float64")])
def test_real_numbers_with_complex_ones(backend, rng, dtype, w_dtype):
    x, w = whole_numbers(rng, (1, 2, 9), dtype), whole_numbers(rng, (3, 2, 4), w_dtype)
    with backend.here():
        outputs, states = in_blocks(backend.array(x), (0, 4, 9), 2, backend.array(w))
    np.testing.assert_array_equal(
        np.concatenate([backend.numpy(one) for one in outputs], axis=2), conv(x, w, padding="causal")
    )
    assert backend.numpy(states[-1]).dtype == dtype


# Under torch's transforms.


def test_gradients_on_torchs_tape(rng):
    """Through the states, too: they are those of the whole."""
    x, w, bias = (
        torch.asarray(whole_numbers(rng, shape, "float64")).requires_grad_() for shape in ((2, 2, 12), (4, 1, 3), (4,))
    )
    said = {"stride": 2, "dilation": 2, "groups": 2}
    whole = conv(x, w, bias, padding="causal", **said)
    dy = torch.asarray(whole_numbers(rng, tuple(whole.shape), "float64"))
    outputs, _ = in_blocks(x, (0, 1, 1, 3, 9, 12), 2, w, bias, **said)
    found = torch.autograd.grad(torch.cat(outputs, dim=2), (x, w, bias), dy)
    for one, other in zip(found, torch.autograd.grad(whole, (x, w, bias), dy), strict=True):
        assert torch.equal(one, other)


def test_mapped_and_compiled_by_torch(rng):
    x = torch.asarray(whole_numbers(rng, (3, 2, 2, 12), "float64"))
    w = torch.asarray(whole_numbers(rng, (3, 4, 2, 3), "float64"))
    expected = torch.stack([conv(a, b, padding="causal", stride=2) for a, b in zip(x, w, strict=True)])

    def both(x, w):
        first, state = conv_stream(x[..., :5], w, stride=2)
        return torch.cat([first, conv_stream(x[..., 5:], w, state=state, stride=2)[0]], dim=-1)

    assert torch.equal(torch.func.vmap(both)(x, w), expected)
    assert torch.equal(torch.compile(both, fullgraph=True, backend="aot_eager")(x[0], w[0]), expected[0])


# What is wrong, in one sentence.

X, W = np.ones((2, 4, 9, 5)), np.ones((6, 2, 3, 2))
STATE = "state must be what the call before has returned, or None, and so of shape (2, 4, 4 to 6, 5): got"
SAID = {"stride": (3, 1), "dilation": 2, "groups": 2}


@pytest.mark.parametrize(
    ("kind", "sentence", "call"),
    [
        (ValueError, f"{STATE} (2, 4, 3, 5)", lambda: conv_stream(X, W, state=X[:, :, :3], **SAID)),
        (ValueError, f"{STATE} (2, 4, 7, 5)", lambda: conv_stream(X, W, state=X[:, :, :7], **SAID)),
        (ValueError, f"{STATE} (1, 4, 4, 5)", lambda: conv_stream(X, W, state=X[:1, :, :4], **SAID)),
        (ValueError, f"{STATE} (4, 4, 5)", lambda: conv_stream(X, W, state=X[0, :, :4], **SAID)),
        (
            TypeError,
            "state must have the dtype of x, float64: got float32",
            lambda: conv_stream(X, W, state=X[:, :, :4].astype("float32"), **SAID),
        ),
        (
            TypeError,
            "state must be a plain array of a library that speaks the Array API: got tuple; pass np.asarray(state)",
            lambda: conv_stream(X, W, state=(X,), **SAID),
        ),
        (
            ValueError,
            "weight must have at least 3 axes (out channels, in channels / groups, *kernel): got 2",
            lambda: conv_stream(X, W[:, :, 0, 0]),
        ),
        (
            ValueError,
            "x must have at least 3 axes (channels, 2 spatial; any number for the batch before them): got 2",
            lambda: conv_stream(X[0, 0], W),
        ),
        (ValueError, "weight must have 4 input channels (4 in 1 groups): got 2", lambda: conv_stream(X, W)),
        (ValueError, "bias must have shape (6,): got (2,)", lambda: conv_stream(X, W, np.ones(2), **SAID)),
        (
            ValueError,
            "stride must be an integer of at least 1, or a sequence of 2, one per spatial axis: got 0",
            lambda: conv_stream(X, W, stride=0),
        ),
        (
            ValueError,
            "the kernel must have at least one tap on each axis: got kernel size (0, 2)",
            lambda: conv_stream(X, W[:, :, :0], groups=2),
        ),
    ],
)
def test_bad_input(kind, sentence, call):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == sentence
