"""Bad input: one sentence that names the argument, what was given and what is allowed, and nothing changed."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
import torch

from xpconv import conv, conv_backward, conv_input_grad, conv_output_size, conv_weight_grad

X, W, DY = np.ones((2, 8, 5, 6)), np.ones((4, 8, 3, 3)), np.ones((2, 4, 3, 4))
PLAIN = "must be a plain array of a library that speaks the Array API: got"
NUMBERS = "must be of real or complex numbers of 32 or 64 bits, or of integers that its library multiplies: got"
AXES = "must be an integer of at least 1, or a sequence of 2, one per spatial axis: got"
PADDING = (
    "padding must be 'valid', 'same', 'same_lower', an integer, or 2 integers or (lo, hi) pairs, "
    "one per spatial axis: got"
)

NO_FIT = (
    "the kernel must fit into the padded input: on spatial axis 1 it spans 7 (3 taps, dilation 3), "
    "the padded input has 6"
)

BAD_ARRAYS = [
    (TypeError, f"x {PLAIN} list", lambda: conv([[1.0]], W)),
    (TypeError, f"x {PLAIN} NoneType", lambda: conv(None, W)),
    (TypeError, f"weight {PLAIN} float", lambda: conv(X, 1.0)),
    (TypeError, f"weight {PLAIN} numpy.float64", lambda: conv(X, np.float64(1.0))),
    (TypeError, f"bias {PLAIN} list", lambda: conv(X, W, [0.0] * 4)),
    (TypeError, f"x {PLAIN} numpy.ma.MaskedArray", lambda: conv(np.ma.ones(X.shape), W)),
    (TypeError, f"weight {PLAIN} numpy.matrix", lambda: conv(X, np.ones((2, 2)).view(np.matrix))),
    (TypeError, f"dy {PLAIN} str", lambda: conv_backward("dy", X, W)),
    (TypeError, f"x {PLAIN} type", lambda: conv(np.ndarray, W)),
    (TypeError, f"x {PLAIN} torch.Tensor", lambda: conv(torch.ones(1, 1, 2).to_sparse(), torch.ones(1, 1, 2))),
    (TypeError, f"x {NUMBERS} torch.uint16", lambda: conv(*(torch.ones(1, 1, 2).to(torch.uint16) for _ in range(2)))),
    (TypeError, f"x {NUMBERS} bool", lambda: conv(X > 0, W > 0)),
    (TypeError, f"x {NUMBERS} float16", lambda: conv(X.astype("float16"), W.astype("float16"))),
    (TypeError, f"x {NUMBERS} object", lambda: conv(X.astype(object), W)),
    (TypeError, f"x {NUMBERS} <U1", lambda: conv(X.astype("U1"), W)),
    (TypeError, f"x {NUMBERS} torch.bool", lambda: conv(torch.ones(1, 1, 2) > 0, torch.ones(1, 1, 2))),
    (TypeError, f"x {NUMBERS} torch.bfloat16", lambda: conv(*(torch.ones(1, 1, 2).bfloat16() for _ in range(2)))),
    (TypeError, "x and weight must have one dtype: got float64 and float32", lambda: conv(X, W.astype("float32"))),
    (
        TypeError,
        "x and bias must have one dtype: got float64 and int64",
        lambda: conv(X, W, np.zeros(4, dtype="int64")),
    ),
    (TypeError, "dy and weight must have one dtype: got float64 and complex128", lambda: conv_backward(DY, X, W + 0j)),
    (TypeError, "x and weight must have one library: got numpy and torch", lambda: conv(X, torch.asarray(W))),
    (
        TypeError,
        "dy and x must have one library: got array_api_strict and numpy",
        lambda: conv_weight_grad(array_api_strict.asarray(DY), X, kernel_size=(3, 3)),
    ),
    (
        TypeError,
        "x and weight must have one device: got cpu and meta",
        lambda: conv(torch.ones(1, 1, 2), torch.ones(1, 1, 2, device="meta")),
    ),
]

BAD_SHAPES = [
    (
        ValueError,
        "weight must have at least 2 axes (out channels, in channels / groups, *kernel): got 1",
        lambda: conv(X, np.ones(3)),
    ),
    (
        ValueError,
        "x must have 4 axes (batch, channels, 2 spatial), or 3 without the batch: got 5",
        lambda: conv(X[None], W),
    ),
    (
        ValueError,
        "x must have 4 axes (batch, channels, 2 spatial), or 3 without the batch: got 2",
        lambda: conv(X[0, 0], W),
    ),
    (
        ValueError,
        "weight must have 8 channels on axis 1 (8 input channels in 1 groups): got 7",
        lambda: conv(X, W[:, :7]),
    ),
    (
        ValueError,
        "weight must have 4 channels on axis 1 (8 input channels in 2 groups): got 8",
        lambda: conv(X, W, groups=2),
    ),
    (
        ValueError,
        "groups must divide the input channels: got groups=3, 8 channels",
        lambda: conv(X, W, groups=3),
    ),
    (
        ValueError,
        "groups must divide the output channels: got groups=8, 4 channels",
        lambda: conv(X, W[:, :1], groups=8),
    ),
    (
        ValueError,
        NO_FIT,
        lambda: conv(X, W, dilation=(2, 3)),
    ),
    (
        ValueError,
        "the kernel must have at least one tap on each axis: got kernel size (3, 0)",
        lambda: conv(X, W[..., :0]),
    ),
    (
        ValueError,
        "padding must not crop more than there is: got (-7, 5) on spatial axis 1, which has 6",
        lambda: conv(X, W, padding=[(0, 0), (-7, 5)]),
    ),
    (ValueError, "bias must have shape (4,): got (3,)", lambda: conv(X, W, np.ones(3))),
    (ValueError, "bias must have shape (4,): got (4, 1)", lambda: conv(X, W, np.ones((4, 1)))),
    (ValueError, "dy must have shape (2, 4, 3, 4): got (2, 4, 3, 3)", lambda: conv_backward(DY[..., :3], X, W)),
    (ValueError, "dy must have shape (2, 4, 3, 4): got (1, 4, 3, 4)", lambda: conv_backward(DY[:1], X, W)),
    (ValueError, "dy must have shape (2, 4, 3, 4): got (4, 3, 4)", lambda: conv_backward(DY[0], X, W)),
    (ValueError, "dy must have shape (4, 3, 4): got (1, 4, 3, 4)", lambda: conv_backward(DY[:1], X[0], W)),
    (
        ValueError,
        "dy must have shape (2, 4, 5, 6): got (2, 4, 3, 4)",
        lambda: conv_input_grad(DY, W, input_size=(7, 8)),
    ),
    (
        ValueError,
        "dy must have 4 axes (batch, channels, 2 spatial), or 3 without the batch: got 1",
        lambda: conv_input_grad(np.ones(3), W, input_size=5),
    ),
    (
        ValueError,
        "dy must have shape (2, 4, 4, 5): got (2, 4, 3, 4)",
        lambda: conv_weight_grad(DY, X, kernel_size=(2, 2)),
    ),
    (
        ValueError,
        "x must have 3 axes (batch, channels, 1 spatial), or 2 without the batch: got 4",
        lambda: conv_weight_grad(DY, X, kernel_size=(3,)),
    ),
]

BAD_PARAMETERS = [
    (ValueError, f"stride {AXES} 0", lambda: conv(X, W, stride=0)),
    (ValueError, f"stride {AXES} (1, -2)", lambda: conv(X, W, stride=(1, -2))),
    (ValueError, f"stride {AXES} (1, 1, 1)", lambda: conv(X, W, stride=(1, 1, 1))),
    (ValueError, f"stride {AXES} ()", lambda: conv(X, W, stride=())),
    (TypeError, f"stride {AXES} 1.0", lambda: conv(X, W, stride=1.0)),
    (TypeError, f"stride {AXES} nan", lambda: conv(X, W, stride=float("nan"))),
    (TypeError, f"stride {AXES} True", lambda: conv(X, W, stride=True)),
    (TypeError, f"stride {AXES} None", lambda: conv(X, W, stride=None)),
    (TypeError, f"stride {AXES} '12'", lambda: conv(X, W, stride="12")),
    (TypeError, f"stride {AXES} {{1, 2}}", lambda: conv(X, W, stride={1, 2})),
    (TypeError, f"stride {AXES} {b'12'!r}", lambda: conv(X, W, stride=b"12")),
    (TypeError, f"stride {AXES} array(1.5)", lambda: conv(X, W, stride=np.asarray(1.5))),
    (TypeError, f"stride {AXES} (1, nan)", lambda: conv(X, W, stride=(1, float("nan")))),
    (ValueError, f"dilation {AXES} 0", lambda: conv_backward(DY, X, W, dilation=0)),
    (TypeError, f"dilation {AXES} (1, 1.5)", lambda: conv(X, W, dilation=(1, 1.5))),
    (ValueError, "groups must be an integer of at least 1: got 0", lambda: conv(X, W, groups=0)),
    (
        ValueError,
        "groups must be an integer of at least 1: got -1",
        lambda: conv_input_grad(DY, W, input_size=5, groups=-1),
    ),
    (TypeError, "groups must be an integer of at least 1: got 2.0", lambda: conv(X, W, groups=2.0)),
    (TypeError, "groups must be an integer of at least 1: got (1, 1)", lambda: conv(X, W, groups=(1, 1))),
    (ValueError, f"{PADDING} 'full'", lambda: conv(X, W, padding="full")),
    (ValueError, f"{PADDING} (1,)", lambda: conv(X, W, padding=(1,))),
    (ValueError, f"{PADDING} [(1, 2, 3), (0, 0)]", lambda: conv(X, W, padding=[(1, 2, 3), (0, 0)])),
    (TypeError, f"{PADDING} 0.5", lambda: conv(X, W, padding=0.5)),
    (TypeError, f"{PADDING} nan", lambda: conv(X, W, padding=float("nan"))),
    (TypeError, f"{PADDING} [(0, 0), (0, 0.5)]", lambda: conv(X, W, padding=[(0, 0), (0, 0.5)])),
    (TypeError, f"{PADDING} None", lambda: conv(X, W, padding=None)),
    (TypeError, f"{PADDING} array(0.5)", lambda: conv(X, W, padding=np.asarray(0.5))),
    (
        TypeError,
        "needs must be three bools, for dx, dweight and dbias: got (True, False)",
        lambda: conv_backward(DY, X, W, needs=(True, False)),
    ),
    (
        TypeError,
        "needs must be three bools, for dx, dweight and dbias: got True",
        lambda: conv_backward(DY, X, W, needs=True),
    ),
    (
        TypeError,
        "needs must be three bools, for dx, dweight and dbias: got (1, 0, 1)",
        lambda: conv_backward(DY, X, W, needs=(1, 0, 1)),
    ),
    (
        TypeError,
        "input_size must be an integer of at least 0, or a sequence of 1, one per spatial axis: got None",
        lambda: conv_output_size(None, 3),
    ),
    (
        ValueError,
        "input_size must be an integer of at least 0, or a sequence of 2, one per spatial axis: got (5,)",
        lambda: conv_input_grad(DY, W, input_size=(5,)),
    ),
    (
        TypeError,
        "kernel_size must be a sequence of integers of at least 1, one per spatial axis: got 3",
        lambda: conv_weight_grad(DY, X, kernel_size=3),
    ),
    (
        ValueError,
        "kernel_size must be a sequence of integers of at least 1, one per spatial axis: got (3, 0)",
        lambda: conv_weight_grad(DY, X, kernel_size=(3, 0)),
    ),
    (
        ValueError,
        "kernel_size must be an integer of at least 1, or a sequence of 2, one per spatial axis: got (3,)",
        lambda: conv_output_size((5, 5), (3,)),
    ),
    (
        TypeError,
        "input_size must be a sequence of integers of at least 0, one per spatial axis: got (5.0, 5)",
        lambda: conv_output_size((5.0, 5), 3),
    ),
]


@pytest.mark.parametrize(("error", "sentence", "call"), [*BAD_ARRAYS, *BAD_SHAPES, *BAD_PARAMETERS])
def test_sentence(error, sentence, call):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == sentence
    for array in (X, W, DY):
        assert (array == 1).all()


def test_two_devices_of_one_library():
    one, two = (array_api_strict.Device(name) for name in ("device1", "CPU_DEVICE"))
    x, weight = (array_api_strict.ones((1, 1, 2), dtype=array_api_strict.float32, device=d) for d in (one, two))
    with pytest.raises(TypeError) as caught:
        conv(x, weight)
    assert str(caught.value) == f"x and weight must have one device: got {one} and {two}"


def test_numpys_own_integers_are_integers():
    y = conv(X, W, stride=np.int64(2), padding=np.asarray([1, 0]), dilation=[np.uint8(1), 1], groups=np.int32(1))
    assert y.shape == (2, 4, 3, 2)
    assert conv(X, W, stride=np.asarray(2), padding=torch.tensor(1)).shape == (2, 4, 3, 3)
