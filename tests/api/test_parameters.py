"""All that may be said of a convolution: padding modes, input dilation, flip, channel and batch axes, and all at once.

Whole numbers throughout: lowering is compared to the bit, other algorithms within what `options` promises.
"""

from __future__ import annotations

import inspect
from functools import lru_cache

import numpy as np
import pytest
import torch
from cases import NUMPY_MODES, Case, placed
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import assert_within, draw, whole_numbers

import xpconv
from xpconv import (
    conv,
    conv_backward,
    conv_double_backward,
    conv_input_grad,
    conv_jvp,
    conv_output_size,
    conv_transpose,
    conv_transpose_backward,
    conv_weight_grad,
    options,
)

MODES = ("zeros", "reflect", "replicate", "circular", "symmetric")
TORCH = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}
PROMISED = {"float32": 2e-5, "complex64": 2e-5}  # of the largest result; 1e-13 for the wide ones


def operands_of(case, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return [whole_numbers(rng, shape, dtype) for shape in case.shapes]


@lru_cache(maxsize=512)
def reference(case, dtype):
    operands = operands_of(case, dtype)
    return operands, case.expected(*operands)


def same(values, expected, method):
    """To the bit by lowering, else within what `options` promises."""
    assert values.shape == expected.shape
    if method == "lowering" or values.dtype.kind in "iu":
        np.testing.assert_array_equal(values, expected.astype(values.dtype))
        return
    largest = np.max(np.abs(expected), initial=0)
    assert np.max(np.abs(values - expected), initial=0) <= PROMISED.get(values.dtype.name, 1e-13) * largest


def check(backend, case, dtype, operands, expected, methods=("lowering", "auto")):
    """Forward with and without a bias, all gradients together and each alone; nothing of the caller's changes."""
    before = [operand.copy() for operand in operands]
    dy, x, w, bias = map(backend.array, operands)
    said = case.parameters
    for method in methods:
        with options(method=method):
            y, plain = conv(x, w, bias, **said), conv(x, w, **said)
            dx, dw, db = dx_alone, dw_alone, _ = conv_backward(dy, x, w, **said)
            if method == "lowering":
                dx_alone = conv_input_grad(dy, w, input_size=case.x[2:], **said)
                dw_alone = conv_weight_grad(dy, x, kernel_size=case.w[2:], **said)
        without = expected.y - operands[3].astype(expected.y.dtype).reshape(-1, *(1,) * case.ndim)
        for result, values in (
            (y, expected.y),
            (plain, without),
            (dx, expected.dx),
            (dx_alone, expected.dx),
            (dw, expected.dw),
            (dw_alone, expected.dw),
            (db, expected.db),
        ):
            result = backend.numpy(result)
            assert result.dtype == np.dtype(dtype)
            same(result, values, method)
    for ours, operand, copy in zip((dy, x, w, bias), operands, before, strict=True):
        assert operand.tobytes() == copy.tobytes()
        assert backend.numpy(ours).tobytes() == copy.tobytes()


MODE_CASES = {
    **{f"1-D {mode}": Case((2, 2, 5), (3, 2, 3), 2, padding_mode=mode) for mode in MODES},
    **{f"2-D {mode}": Case((2, 1, 4, 3), (2, 1, 3, 2), ((1, 2), (2, 0)), padding_mode=mode) for mode in MODES},
    **{f"{mode} over the input": Case((1, 1, 3), (2, 1, 4), ((8, 11),), padding_mode=mode) for mode in MODES},
    **{f"{mode} of two": Case((1, 1, 2), (1, 1, 2), ((5, 6),), padding_mode=mode) for mode in MODES},
    **{f"{mode} of one": Case((2, 2, 1), (2, 2, 2), ((3, 4),), padding_mode=mode) for mode in MODES},
    **{f"{mode} before, cropped after": Case((1, 2, 6), (2, 2, 2), ((3, -2),), padding_mode=mode) for mode in MODES},
    **{f"{mode} after, cropped before": Case((1, 2, 6), (2, 2, 2), ((-2, 7),), padding_mode=mode) for mode in MODES},
    **{
        f"{mode}, all cropped but the border": Case((1, 2, 3), (2, 2, 2), ((6, -3),), padding_mode=mode)
        for mode in MODES
    },
    **{f"{mode} cropped": Case((1, 2, 6), (2, 2, 2), ((-1, -2),), padding_mode=mode) for mode in MODES},
    **{f"{mode} of nothing": Case((1, 2, 6), (2, 2, 2), 0, padding_mode=mode) for mode in MODES},
    "mixed": Case(
        (1, 1, 3, 2, 3), (2, 1, 2, 2, 3), ((1, 1), (3, 0), (0, 4)), padding_mode=("circular", "reflect", "replicate")
    ),
    "mixed with zeros": Case((2, 2, 4, 3), (2, 2, 3, 3), 2, padding_mode=("zeros", "circular")),
    "mixed, cropped": Case((1, 2, 5, 4), (2, 2, 2, 3), ((-1, 4), (3, -1)), padding_mode=("reflect", "circular")),
    "a constant": Case((2, 2, 5), (3, 2, 3), 2, padding_mode="constant", padding_value=3),
    "constants of two axes": Case(
        (2, 2, 4, 3), (2, 2, 3, 2), ((1, 7), (3, 0)), padding_mode="constant", padding_value=-2, stride=(2, 1)
    ),
    "a constant, zeros, the edge": Case(
        (1, 2, 3, 2, 3),
        (2, 1, 2, 2, 3),
        ((1, 2), (3, 0), (0, 4)),
        groups=2,
        padding_mode=("constant", "zeros", "symmetric"),
        padding_value=5,
        flip=True,
    ),
    "a constant before, cropped after": Case(
        (1, 2, 6), (2, 2, 2), ((3, -2),), padding_mode="constant", padding_value=4
    ),
    "all cropped but a constant": Case((1, 2, 3), (2, 2, 2), ((6, -3),), padding_mode="constant", padding_value=4),
    "a constant around nothing": Case(
        (2, 2, 0, 2), (2, 2, 2, 3), ((1, 2), (2, 1)), padding_mode=("constant", "reflect"), padding_value=4
    ),
    "a list of modes": Case((1, 2, 4), (2, 2, 3), 1, padding_mode=("replicate",)),
    "with a stride": Case((2, 2, 7, 5), (2, 2, 3, 2), 3, stride=(2, 3), padding_mode=("reflect", "replicate")),
    "with a stride that skips": Case((1, 1, 3), (2, 1, 1), 5, stride=(4,), padding_mode="circular"),
    "with a dilation": Case((2, 2, 6, 5), (2, 2, 3, 2), 3, dilation=(2, 3), padding_mode=("circular", "reflect")),
    "with groups": Case((2, 4, 5), (6, 2, 3), 2, groups=2, padding_mode="reflect"),
    "depthwise": Case((2, 3, 5, 4), (6, 1, 3, 2), 2, groups=3, padding_mode=("circular", "replicate")),
    "turned": Case((2, 2, 5, 3), (2, 2, 3, 2), 2, flip=True, padding_mode=("reflect", "circular")),
    **{
        f"same, {mode}": Case((1, 2, 6, 5), (2, 2, 4, 3), "same", ((1, 1), (1, 1)), (2, 1), padding_mode=mode)
        for mode in MODES[1:]
    },
    "same lower": Case((2, 1, 6, 5), (2, 1, 4, 2), "same_lower", ((2, 1), (1, 0)), padding_mode="circular"),
    "full, by modes": Case((2, 2, 3), (2, 2, 3), "full", ((4, 4),), dilation=(2,), padding_mode="reflect"),
    "causal, by modes": Case((2, 2, 4), (2, 2, 3), "causal", ((4, 0),), (3,), (2,), padding_mode="circular"),
    "zeros on an empty axis, a mode on another": Case(
        (1, 2, 0, 3), (2, 2, 2, 2), ((1, 2), (1, 1)), padding_mode=("zeros", "circular")
    ),
}

DILATED_CASES = {
    "1-D": Case((2, 2, 5), (3, 2, 3), input_dilation=(2,)),
    "2-D": Case((2, 2, 4, 3), (3, 2, 3, 2), 1, input_dilation=(2, 3)),
    "3-D, one axis": Case((1, 1, 2, 3, 2), (2, 1, 2, 2, 2), 1, input_dilation=(1, 3, 1)),
    "stride": Case((2, 2, 5), (2, 2, 4), 2, stride=(3,), input_dilation=(2,)),
    "stride that is a multiple": Case((2, 2, 6), (2, 2, 5), 1, stride=(4,), input_dilation=(2,)),
    "stride that is a divisor": Case((2, 2, 4), (2, 2, 5), 3, stride=(2,), input_dilation=(4,)),
    "dilation": Case((2, 2, 5), (2, 2, 4), 3, dilation=(3,), input_dilation=(2,)),
    "dilation that is a multiple": Case((2, 2, 5), (2, 2, 3), 3, dilation=(4,), input_dilation=(2,)),
    "dilation that is a divisor": Case((2, 2, 4), (2, 2, 3), 2, dilation=(2,), input_dilation=(6,)),
    "stride and dilation": Case((1, 2, 5, 4), (2, 2, 3, 2), 4, None, (4, 3), (6, 2), input_dilation=(2, 3)),
    "taps that meet nothing": Case((1, 1, 3), (2, 1, 2), 1, stride=(4,), dilation=(2,), input_dilation=(4,)),
    "outputs of nothing": Case((1, 1, 2), (2, 1, 1), ((3, 4),), stride=(1,), input_dilation=(5,)),
    "cropped": Case((1, 2, 5), (2, 2, 3), ((-2, -1),), input_dilation=(2,)),
    "cropped and padded": Case((1, 2, 4), (2, 2, 2), ((-4, 3),), input_dilation=(3,)),
    "groups, turned": Case((2, 4, 3), (6, 2, 4), 2, groups=2, input_dilation=(2,), flip=True),
    "same": Case((2, 2, 4), (2, 2, 3), "same", ((1, 1),), (2,), input_dilation=(2,)),
    "full": Case((2, 2, 3), (2, 2, 3), "full", ((2, 2),), input_dilation=(3,)),
    "causal": Case((2, 2, 3), (2, 2, 3), "causal", ((4, 0),), dilation=(2,), input_dilation=(3,)),
    "one input": Case((2, 2, 1), (2, 2, 2), 2, input_dilation=(7,)),
    "no input": Case((2, 2, 0), (2, 2, 2), 2, input_dilation=(7,)),
    "another axis with a mode": Case(
        (1, 2, 3, 4), (2, 2, 2, 3), 2, padding_mode=("zeros", "reflect"), input_dilation=(3, 1), flip=True
    ),
}

EXTREME_CASES = {
    "no spatial axes": Case((3, 4), (2, 4)),
    "no spatial axes, all said": Case((3, 4), (2, 2), (), groups=2, padding_mode=(), flip=True),
    "one of everything": Case((1, 1, 1, 1), (1, 1, 1, 1)),
    "one of everything, turned and dilated": Case((1, 1, 1), (1, 1, 1), input_dilation=(3,), flip=True),
    "one of everything, padded": Case((1, 1, 1), (1, 1, 1), 1, padding_mode="reflect"),
    "kernel as large as the input": Case((2, 2, 4, 3), (3, 2, 4, 3), flip=True),
    "kernel as large as the padded input": Case((2, 2, 4), (3, 2, 8), 2, padding_mode="reflect"),
    "kernel as large as the dilated input": Case((2, 2, 3), (3, 2, 7), input_dilation=(3,)),
    "stride over the kernel": Case((2, 2, 11), (3, 2, 2), 2, stride=(5,), padding_mode="circular"),
    "stride over the input": Case((1, 2, 4), (2, 2, 2), 1, stride=(1000,), padding_mode="replicate"),
    "stride over the dilated input": Case((1, 2, 4), (2, 2, 2), 1, stride=(1000,), input_dilation=(3,)),
    "dilation over the input": Case((2, 2, 3), (2, 2, 2), 6, dilation=(9,)),
    "dilation over the input, circular": Case((2, 2, 3), (2, 2, 2), 6, dilation=(9,), padding_mode="circular"),
    "dilation over the dilated input": Case((2, 2, 3), (2, 2, 2), 6, dilation=(9,), input_dilation=(2,)),
    "padding beyond all windows": Case((2, 2, 3), (2, 2, 2), ((4, 0),), stride=(9,)),
    "no samples": Case((0, 2, 4), (3, 2, 2), 1, padding_mode="circular"),
    "no samples, dilated": Case((0, 2, 4), (3, 2, 2), 1, input_dilation=(2,)),
    "no input channels": Case((2, 0, 4), (3, 0, 2), 1, padding_mode="reflect"),
    "no input channels, dilated": Case((2, 0, 4), (3, 0, 2), 1, input_dilation=(2,)),
    "no output channels": Case((2, 2, 4), (0, 2, 2), 1, padding_mode="replicate", flip=True),
    "no output channels, dilated": Case((2, 2, 4), (0, 2, 2), 1, input_dilation=(2,)),
    "nothing at all": Case((0, 0, 3), (0, 0, 2), 1, padding_mode="circular"),
    "an input of padding alone": Case((2, 2, 0, 3), (2, 2, 2, 2), ((1, 1), (0, 1)), flip=True),
}

CASES = {
    **{f"mode: {name}": case for name, case in MODE_CASES.items()},
    **{f"dilated: {name}": case for name, case in DILATED_CASES.items()},
    **{f"extreme: {name}": case for name, case in EXTREME_CASES.items()},
}


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("name", CASES)
def test_against_the_loop(backend, name):
    check(backend, CASES[name], "float64", *reference(CASES[name], "float64"))


@pytest.mark.parametrize("dtype", ["float32", "complex64", "complex128", "int64", "int8", "uint8"])
@pytest.mark.parametrize(
    "name", ["mode: mixed", "mode: with a stride", "dilated: stride and dilation", "dilated: another axis with a mode"]
)
def test_in_every_dtype(backend, name, dtype):
    check(backend, CASES[name], dtype, *reference(CASES[name], dtype))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("blocks", ["many blocks"], indirect=True)
@pytest.mark.parametrize("method", ["lowering", "banded"])
@pytest.mark.parametrize("mode", MODES)
def test_in_many_small_parts(backend, rng, mode, method):
    """Parts that lie in the border, or across its edge: larger than the loop could do, against np.pad."""
    parameters = {"stride": (2, 1), "dilation": (1, 2), "groups": 2}
    x, w = (whole_numbers(rng, shape, "float32") for shape in ((2, 4, 7, 20), (6, 2, 3, 4)))
    padded = np.pad(x, ((0, 0), (0, 0), (8, 3), (2, 21)), NUMPY_MODES[mode])
    with options(method=method):
        bordered = {**parameters, "padding": [(8, 3), (2, 21)], "padding_mode": mode}
        y = backend.numpy(conv(backend.array(x), backend.array(w), **bordered))
        np.testing.assert_array_equal(y, conv(padded, w, **parameters))
        dy = whole_numbers(rng, y.shape, "float32")
        dx, dw, _ = map(backend.numpy, conv_backward(*map(backend.array, (dy, x, w)), **bordered))
        dpadded, dw_padded, _ = conv_backward(dy, padded, w, **parameters)
    np.testing.assert_array_equal(dw, dw_padded)
    np.testing.assert_array_equal(dx, unpadded(dpadded, x.shape[2:], ((8, 3), (2, 21)), mode))


def unpadded(dpadded, size, pairs, mode):
    """The adjoint of np.pad: each padded place is added to the input that stands there."""
    dx = np.zeros((*dpadded.shape[:2], *size), dtype=dpadded.dtype)
    if mode == "zeros":
        inner = tuple(slice(lo, lo + n) for n, (lo, _) in zip(size, pairs, strict=True))
        return dpadded[(..., *inner)]
    places = [np.pad(np.arange(n), pair, NUMPY_MODES[mode]) for n, pair in zip(size, pairs, strict=True)]
    np.add.at(dx, (slice(None), slice(None), *np.ix_(*places)), dpadded)
    return dx


@pytest.mark.parametrize("pairs", [((0, 1),), ((3, 2),), ((13, 17),)])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("mode", MODES)
def test_modes_are_those_of_np_pad(backend, rng, mode, size, pairs):
    x, w = (whole_numbers(rng, shape) for shape in ((2, 2, size), (3, 2, 2)))
    padded = np.pad(x, ((0, 0), (0, 0), *pairs), NUMPY_MODES[mode])
    bordered = {"padding": pairs, "padding_mode": mode}
    with options(method="lowering"):
        # A kernel of one tap shows the padded input itself.
        one = np.eye(2)[..., None]
        np.testing.assert_array_equal(backend.numpy(conv(backend.array(x), backend.array(one), **bordered)), padded)
        if padded.shape[2] >= 2:
            y = backend.numpy(conv(backend.array(x), backend.array(w), **bordered))
            windows = np.lib.stride_tricks.sliding_window_view(padded, 2, axis=2)
            np.testing.assert_array_equal(y, np.einsum("ncjt,oct->noj", windows, w))


@pytest.mark.parametrize("method", ["lowering", "fft"])
@pytest.mark.parametrize(
    ("x_dtype", "w_dtype", "value"),
    [("complex128", "complex128", 2 - 1j), ("complex64", "float32", 1 + 3j), ("float64", "complex128", -3.0)],
)
def test_a_constant_of_complex_numbers(backend, rng, x_dtype, w_dtype, value, method):
    """Its conjugate in the weight's gradient; each part of it with that part of x."""
    case = Case((2, 2, 4, 3), (2, 2, 3, 2), ((1, 2), 1), padding_mode="constant", padding_value=value)
    dtypes = np.result_type(x_dtype, w_dtype), x_dtype, w_dtype
    dy, x, w = (whole_numbers(rng, shape, dtype) for shape, dtype in zip(case.shapes, dtypes, strict=False))
    expected = case.expected(dy, x, w)
    with options(method=method):
        y = backend.numpy(conv(backend.array(x), backend.array(w), **case.parameters))
        dx, dw, _ = map(backend.numpy, conv_backward(*map(backend.array, (dy, x, w)), **case.parameters))
    for ours, values, dtype in zip((y, dx, dw), expected, dtypes, strict=False):
        assert ours.dtype == np.dtype(dtype)
        same(ours, values.astype(dtype), method)


@pytest.mark.parametrize("value", [np.float32(2.0), np.int64(2), 2, 2.0])
@pytest.mark.parametrize("dtype", ["float32", "complex64", "int8", "uint8", "int64"])
def test_a_padding_value_of_any_kind_of_number(backend, dtype, value):
    x, w = (backend.array(np.ones((1, 1, 2), dtype=dtype)) for _ in range(2))
    y = backend.numpy(conv(x, w, padding=1, padding_mode="constant", padding_value=value))
    assert y.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(y, [[[3, 2, 3]]])


def test_a_constant_of_zero_is_zeros(backend, rng):
    x, w = (backend.array(whole_numbers(rng, shape)) for shape in ((2, 2, 4), (3, 2, 3)))
    said = {"padding": 2, "input_dilation": 3}
    y = conv(x, w, padding_mode="constant", **said)
    np.testing.assert_array_equal(backend.numpy(y), backend.numpy(conv(x, w, **said)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_constant_that_is_not_finite_is_where_it_is_seen(backend, rng, value):
    x, w = rng.standard_normal((1, 1, 40, 40)), rng.standard_normal((1, 1, 3, 3))
    for method in ("auto", "fft", "winograd", "lowering"):
        with options(method=method), np.errstate(invalid="ignore"):
            y = conv(backend.array(x), backend.array(w), padding=1, padding_mode="constant", padding_value=value)
        if backend.can_look or method == "lowering":
            np.testing.assert_array_equal(np.isfinite(backend.numpy(y)[0, 0, 1:-1, 1:-1]), True)
        assert not np.isfinite(backend.numpy(y)[0, 0, 0]).any()


def test_a_constant_does_not_change_with_the_input(backend, rng):
    """Derivatives are those of the linear part, in which it is zero."""
    x, w, dy = (whole_numbers(rng, shape) for shape in ((2, 2, 5), (3, 2, 3), (2, 3, 7)))
    tx, tw = whole_numbers(rng, x.shape), whole_numbers(rng, w.shape)
    said = {"padding": 2, "padding_mode": "constant"}
    dy, x, w, tx, tw = map(backend.array, (dy, x, w, tx, tw))
    with options(method="lowering"), backend.here():
        ty = conv_jvp(tx, tw, None, x, w, padding_value=7, **said)
        expected = conv(tx, w, padding=2) + conv(x, tw, padding_value=7, **said)
        np.testing.assert_array_equal(backend.numpy(ty), backend.numpy(expected))
        ty = conv_jvp(tx, None, None, x, w, padding_value=7, **said)
        np.testing.assert_array_equal(backend.numpy(ty), backend.numpy(conv(tx, w, padding=2)))
        ddy, dx, dw = conv_double_backward(tx, tw, None, dy, x, w, padding_value=7, **said)
        np.testing.assert_array_equal(backend.numpy(ddy), backend.numpy(expected))
        ours = conv_input_grad(dy, tw, input_size=5, padding=2)
        np.testing.assert_array_equal(backend.numpy(dx), backend.numpy(ours))
        ours = conv_weight_grad(dy, tx, kernel_size=(3,), padding=2)
        np.testing.assert_array_equal(backend.numpy(dw), backend.numpy(ours))
        for transposed in (conv_transpose, lambda x, w, **said: conv_transpose_backward(dx, x, w, **said).dx):
            ours = transposed(dy, w, padding_value=7, **said)
            np.testing.assert_array_equal(backend.numpy(ours), backend.numpy(transposed(dy, w, padding=2)))


@pytest.mark.parametrize("mode", ["nearest", "mirror", "reflect", "wrap", "grid-wrap", "grid-constant", "constant"])
@pytest.mark.parametrize("shape", [(7, 9), (2, 3)])
def test_borders_of_scipy_ndimage(backend, rng, mode, shape):
    ndimage = pytest.importorskip("scipy.ndimage")
    ours = {"nearest": "replicate", "mirror": "reflect", "reflect": "symmetric", "wrap": "circular"}
    ours |= {"grid-wrap": "circular", "grid-constant": "constant", "constant": "constant"}
    said = {"padding_mode": ours[mode], "padding_value": 2.5 if "constant" in mode else 0.0, "padding": "same"}
    image, kernel = whole_numbers(rng, shape), whole_numbers(rng, (5, 3))
    expected = ndimage.correlate(image, kernel, mode=mode, cval=2.5)
    with options(method="lowering"):
        y = backend.numpy(conv(backend.array(image[None]), backend.array(kernel[None, None]), **said))
    np.testing.assert_array_equal(y[0], expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(
    ("modes", "pairs", "size"),
    [
        (("reflect",), ((3, 4),), (6,)),
        (("replicate",), ((7, 0),), (3,)),
        (("circular",), ((0, 5),), (5,)),
        (("reflect", "circular"), ((2, 1), (4, 3)), (5, 4)),
        (("replicate", "zeros"), ((5, 1), (2, 3)), (4, 6)),
        (("zeros", "reflect"), ((-1, 2), (1, 3)), (7, 5)),
        (("circular", "replicate", "reflect"), ((1, 2), (0, 4), (2, 1)), (3, 2, 3)),
    ],
)
def test_against_torch_pad_and_its_tape(backend, rng, modes, pairs, size, dtype):
    ndim = len(size)
    parameters = {"stride": (2, 1, 1)[:ndim], "dilation": (1, 2, 1)[:ndim], "groups": 2}
    pad_to = torch.nn.functional.pad
    convolve = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[ndim - 1]

    def by_torch(x, w, bias, dy=None):
        x, w, bias = (torch.asarray(a, device=backend.torch_device).requires_grad_() for a in (x, w, bias))
        padded = x
        for i, (mode, pair) in enumerate(zip(modes, pairs, strict=True)):
            # Axis by axis, since torch has one mode for all; with that axis as the last of three.
            moved = torch.movedim(padded, 2 + i, -1)
            flat = pad_to(moved.reshape(1, -1, moved.shape[-1]), pair, mode=TORCH[mode])
            padded = torch.movedim(flat.reshape(*moved.shape[:-1], -1), -1, 2 + i)
        y = convolve(padded, w, bias, **parameters)
        dy = torch.asarray(np.ones(y.shape) if dy is None else dy, dtype=y.dtype, device=y.device)
        y.backward(dy)
        return [a.detach().cpu().numpy() for a in (y, x.grad, w.grad, bias.grad)]

    x, w, bias = (draw(rng, shape, dtype) for shape in ((2, 4, *size), (6, 2, *(2,) * ndim), (6,)))
    dy = draw(rng, by_torch(x, w, bias)[0].shape, dtype)
    theirs = by_torch(x, w, bias, dy)
    magnitude = by_torch(*(np.abs(a).astype("float64") for a in (x, w, bias, dy)))
    bordered = {**parameters, "padding": pairs, "padding_mode": modes}
    ours = (
        conv(*map(backend.array, (x, w, bias)), **bordered),
        *conv_backward(*map(backend.array, (dy, x, w)), **bordered),
    )
    positions = int(np.prod(dy.shape)) // dy.shape[1]
    padded_places = int(np.prod([n + sum(map(abs, pair)) for n, pair in zip(size, pairs, strict=True)]))
    terms = (2 * 2**ndim + 1, 3 * 2**ndim * padded_places, positions, positions)
    for one, other, most, count in zip(ours, theirs, magnitude, terms, strict=True):
        values = backend.numpy(one)
        assert values.dtype == other.dtype == np.dtype(dtype)
        assert_within(values, other, most, count)


@pytest.mark.parametrize("kernel", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2, 5])
def test_full_and_valid_are_np_convolve(backend, rng, size, kernel, stride):
    """Turned around it is what NumPy calls a convolution."""
    x, w = (whole_numbers(rng, shape) for shape in ((1, 1, size), (1, 1, kernel)))
    with options(method="lowering"):
        full = conv(backend.array(x), backend.array(w), padding="full", flip=True, stride=stride)
        np.testing.assert_array_equal(backend.numpy(full)[0, 0], np.convolve(x[0, 0], w[0, 0], "full")[::stride])
        if kernel <= size:
            valid = conv(backend.array(x), backend.array(w), flip=True, stride=stride)
            np.testing.assert_array_equal(backend.numpy(valid)[0, 0], np.convolve(x[0, 0], w[0, 0], "valid")[::stride])
            plain = conv(backend.array(x), backend.array(w), stride=stride)
            np.testing.assert_array_equal(backend.numpy(plain)[0, 0], np.correlate(x[0, 0], w[0, 0], "valid")[::stride])


@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("mode", ["zeros", "replicate"])
def test_causal_sees_nothing_that_comes_later(backend, rng, mode, stride, dilation):
    x, w, dy = (whole_numbers(rng, shape) for shape in ((2, 2, 8), (3, 2, 3), (2, 3, -(-8 // stride))))
    causal = {"padding": "causal", "stride": stride, "dilation": dilation, "padding_mode": mode}
    with options(method="lowering"):
        y = backend.numpy(conv(backend.array(x), backend.array(w), **causal))
        assert y.shape == (2, 3, -(-8 // stride))  # one output for each `stride` inputs
        for i in range(1, 8):
            later = x.copy()
            later[..., i:] += 100
            changed = backend.numpy(conv(backend.array(later), backend.array(w), **causal))
            earlier = -(-i // stride)  # outputs at inputs 0, stride, ... before i
            np.testing.assert_array_equal(changed[..., :earlier], y[..., :earlier])
            if earlier < y.shape[2] and i == stride * earlier:  # the last tap of output `earlier` is at input i
                last = 100 * w[..., -1].sum(axis=1)
                np.testing.assert_array_equal(changed[..., earlier] - y[..., earlier], np.broadcast_to(last, (2, 3)))
            # Nor does an earlier output's gradient reach a later input.
            before = dy.copy()
            before[..., earlier:] = 0
            dx = backend.numpy(conv_input_grad(backend.array(before), backend.array(w), input_size=8, **causal))
            assert not dx[..., i:].any()


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("spread", [(2, 3), (1, 4), (5, 1)])
@pytest.mark.parametrize("parameters", [{}, {"stride": 2}, {"dilation": 3}, {"stride": (3, 2), "dilation": (2, 3)}])
def test_input_dilation_is_zeros_in_between(backend, rng, spread, parameters):
    x, w = (whole_numbers(rng, shape) for shape in ((2, 4, 5, 4), (6, 2, 3, 2)))
    wide = np.zeros((2, 4, *(r * (n - 1) + 1 for r, n in zip(spread, (5, 4), strict=True))))
    every = (..., slice(None, None, spread[0]), slice(None, None, spread[1]))
    wide[every] = x
    parameters = {**parameters, "padding": [(3, 1), (2, 4)], "groups": 2}
    with options(method="lowering"):
        expected = conv(wide, w, **parameters)
        dy = whole_numbers(rng, expected.shape)
        dwide, dw_wide, db_wide = conv_backward(dy, wide, w, **parameters)
        y = conv(backend.array(x), backend.array(w), input_dilation=spread, **parameters)
        dx, dw, db = conv_backward(*map(backend.array, (dy, x, w)), input_dilation=spread, **parameters)
    for ours, values in ((y, expected), (dx, dwide[every]), (dw, dw_wide), (db, db_wide)):
        np.testing.assert_array_equal(backend.numpy(ours), values)


@pytest.mark.parametrize("mode", MODES)
def test_flip_is_of_the_spatial_axes_of_the_weight(backend, rng, mode):
    parameters = {"stride": (2, 1), "padding": [(1, 2), (0, 3)], "groups": 2, "padding_mode": mode}
    x, w = (whole_numbers(rng, shape) for shape in ((2, 4, 6, 5), (6, 2, 3, 2)))
    turned = np.ascontiguousarray(w[:, :, ::-1, ::-1])
    x, w, turned = map(backend.array, (x, w, turned))
    with options(method="lowering"):
        y, expected = conv(x, w, flip=True, **parameters), conv(x, turned, **parameters)
        np.testing.assert_array_equal(backend.numpy(y), backend.numpy(expected))
        assert not np.array_equal(backend.numpy(y), backend.numpy(conv(x, w, **parameters)))
        dy = backend.array(whole_numbers(rng, tuple(y.shape)))
        ours = conv_backward(dy, x, w, flip=True, **parameters)
        theirs = conv_backward(dy, x, turned, **parameters)
    np.testing.assert_array_equal(backend.numpy(ours.dx), backend.numpy(theirs.dx))
    np.testing.assert_array_equal(backend.numpy(ours.dweight), backend.numpy(theirs.dweight)[:, :, ::-1, ::-1])
    np.testing.assert_array_equal(backend.numpy(ours.dbias), backend.numpy(theirs.dbias))


LAYOUT_CASES = {
    0: Case((1, 4), (6, 2), (), groups=2),
    1: Case((1, 2, 5), (3, 2, 2), 2, stride=(2,), padding_mode="reflect"),
    2: Case((1, 4, 3, 5), (6, 2, 2, 3), ((1, 0), (2, 1)), groups=2, input_dilation=(1, 2), flip=True),
    3: Case((1, 2, 3, 2, 4), (3, 2, 2, 2, 3), 1, stride=(1, 2, 1)),
}


@pytest.mark.parametrize("batch", [(), (3,), (1,), (0,), (2, 3), (0, 2), (2, 1, 2), (3, 0, 2)], ids=str)
@pytest.mark.parametrize(
    ("ndim", "channel_axis"), [(ndim, axis) for ndim in LAYOUT_CASES for axis in range(-ndim - 2, ndim + 2)]
)
def test_channel_and_batch_axes(backend, ndim, batch, channel_axis):
    case = LAYOUT_CASES[ndim]._replace(x=(int(np.prod(batch)), *LAYOUT_CASES[ndim].x[1:]))
    (dy, x, w, bias), expected = reference(case, "float64")
    layout = batch, channel_axis
    dy, x = (placed(a, *layout) for a in (dy, x))
    ours_dy, ours_x, ours_w, ours_bias = map(backend.array, (dy, x, w, bias))
    before = [a.tobytes() for a in (dy, x, w, bias)]
    said = {**case.parameters, "channel_axis": channel_axis}
    with options(method="lowering"):
        y = conv(ours_x, ours_w, ours_bias, **said)
        dx, dw, db = conv_backward(ours_dy, ours_x, ours_w, **said)
        dx_alone = conv_input_grad(ours_dy, ours_w, input_size=case.x[2:], **said)
        dw_alone = conv_weight_grad(ours_dy, ours_x, kernel_size=case.w[2:], **said)
    for result, values in (
        (y, placed(expected.y, *layout)),
        (dx, placed(expected.dx, *layout)),
        (dx_alone, placed(expected.dx, *layout)),
        (dw, expected.dw),
        (dw_alone, expected.dw),
        (db, expected.db),
    ):
        result = backend.numpy(result)
        assert result.dtype == np.float64
        assert result.shape == values.shape
        np.testing.assert_array_equal(result, values)
    for ours, copy in zip((ours_dy, ours_x, ours_w, ours_bias), before, strict=True):
        assert backend.numpy(ours).tobytes() == copy


def test_the_next_convolution_takes_the_result_as_it_is():
    """Channels last, a result is a view of an array with the channels in front."""
    y = conv(np.ones((2, 6, 5, 3)), np.ones((4, 3, 2, 2)), channel_axis=-1)
    assert y.shape == (2, 5, 4, 4)
    assert np.moveaxis(y, -1, 1).flags.c_contiguous


@pytest.mark.parametrize("name", CASES)
def test_output_size_is_that_of_the_output(name):
    case = CASES[name]
    said = {key: value for key, value in case.parameters.items() if key != "groups"}
    size = conv_output_size(case.x[2:], case.w[2:], **said)
    assert type(size) is tuple
    assert all(type(one) is int for one in size)
    assert size == case.y[2:]


@given(
    size=st.integers(0, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 4),
    spread=st.integers(1, 4),
    padding=st.sampled_from(["valid", "same", "same_lower", "full", "causal"]),
)
def test_output_size_of_paddings_by_name(size, kernel, stride, dilation, spread, padding):
    assume(size or padding != "full")  # around nothing there is padding all the same
    places = [i for i in range(spread * size) if i <= spread * (size - 1)]
    reach = dilation * (kernel - 1)
    windows = {
        "valid": [j for j in places if j + reach in places],
        "same": places,
        "same_lower": places,
        "full": range(len(places) + reach),
        "causal": places,
    }[padding]
    said = {"stride": stride, "dilation": dilation, "input_dilation": spread, "padding": padding}
    expected = len(windows[::stride])
    if expected:
        assert conv_output_size(size, kernel, **said) == (expected,)
        assert conv_output_size((size, size), kernel, **said) == (expected, expected)
    else:
        with pytest.raises(ValueError, match=r"^the kernel must fit into the padded input"):
            conv_output_size(size, kernel, **said)


@pytest.mark.parametrize(
    "name",
    [name for name in xpconv.__all__ if name.partition("_")[0] == "conv" and name != "conv_stream"],
)
def test_signatures_show_every_parameter(name):
    parameters = inspect.signature(getattr(xpconv, name)).parameters
    assert all(p.kind is not p.VAR_KEYWORD for p in parameters.values())
    for parameter, default in (
        ("stride", 1),
        ("padding", 0),
        ("dilation", 1),
        ("groups", 1),
        ("padding_mode", "zeros"),
        ("padding_value", 0.0),
        ("input_dilation", 1),
        ("flip", False),
        ("channel_axis", 1),
        ("dtype", None),
        ("per_sample", False),
    ):
        assert parameters[parameter].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[parameter].default == default
        assert type(parameters[parameter].default) is type(default)


def test_what_is_left_out_is_the_default(backend, rng):
    x, w, bias = (backend.array(whole_numbers(rng, shape)) for shape in ((2, 3, 6), (4, 3, 3), (4,)))
    said = {name: p.default for name, p in inspect.signature(conv).parameters.items() if p.kind is p.KEYWORD_ONLY}
    np.testing.assert_array_equal(backend.numpy(conv(x, w, bias, **said)), backend.numpy(conv(x, w, bias)))
    for name, value in said.items():
        one = conv(x, w, bias=bias, **{name: value})
        np.testing.assert_array_equal(backend.numpy(one), backend.numpy(conv(x, w, bias)))


@st.composite
def anything(draw_from):
    """Everything that may be said, at once."""
    ndim = draw_from(st.integers(0, 3))

    def per_axis(low, high):
        return draw_from(st.tuples(*(st.integers(low, high) for _ in range(ndim))))

    most = {0: 0, 1: 5, 2: 4, 3: 2}[ndim]
    size, kernel, stride, dilation = per_axis(0, most), per_axis(1, 3), per_axis(1, 4), per_axis(1, 3)
    modes = draw_from(st.tuples(*(st.sampled_from([*MODES, "constant"]) for _ in range(ndim))))
    spread = per_axis(1, 3)
    spread = tuple(r if mode == "zeros" else 1 for r, mode in zip(spread, modes, strict=True))
    lo, hi = per_axis(-2, 4), per_axis(-2, 4)
    modes = tuple(mode if n else "zeros" for mode, n in zip(modes, size, strict=True))
    pairs = tuple(zip(lo, hi, strict=True))
    for n, r, (low, high) in zip(size, spread, pairs, strict=True):
        assume(min(low, 0) + min(high, 0) + max(r * (n - 1) + 1, 0) >= 0)
    groups, inputs, outputs = (draw_from(st.integers(1, 2)) for _ in range(3))
    batch = draw_from(st.lists(st.integers(0, 2), max_size=3))
    case = Case(
        (int(np.prod(batch)), groups * inputs, *size),
        (groups * outputs, inputs, *kernel),
        pairs,
        None,
        stride,
        dilation,
        groups,
        modes,
        spread,
        draw_from(st.booleans()),
        draw_from(st.integers(0, 5)) if "constant" in modes else 0,
    )
    assume(0 not in case.y[2:])
    return case, tuple(batch), draw_from(st.integers(-ndim - 2, ndim + 1))


@settings(max_examples=60)
@given(
    drawn=anything(),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["float64", "float32", "complex128", "complex64", "int64", "int8", "uint8"]),
)
def test_everything_at_once(backend, drawn, seed, dtype):
    case, batch, channel_axis = drawn
    dy, x, w, bias = operands_of(case, dtype, seed)
    expected = case.expected(dy, x, w, bias)
    layout = batch, channel_axis
    operands = [np.ascontiguousarray(a) for a in (placed(dy, *layout), placed(x, *layout), w, bias)]
    ours_dy, ours_x, ours_w, ours_bias = map(backend.array, operands)
    said = {**case.parameters, "channel_axis": channel_axis}
    for method in ("lowering", "auto"):
        with options(method=method):
            y = conv(ours_x, ours_w, ours_bias, **said)
            dx, dw, db = conv_backward(ours_dy, ours_x, ours_w, **said)
        for result, values in (
            (y, placed(expected.y, *layout)),
            (dx, placed(expected.dx, *layout)),
            (dw, expected.dw),
            (db, expected.db),
        ):
            result = backend.numpy(result)
            assert result.dtype == np.dtype(dtype)
            same(result, values, method)


NAN_CASES = [
    *(Case((1, 2, 5, 4), (2, 2, 2, 3), ((2, 1), (1, 3)), padding_mode=mode) for mode in MODES),
    Case((1, 2, 5, 4), (2, 2, 3, 3), 2, padding_mode=("circular", "zeros"), stride=(2, 1), dilation=(1, 2)),
    Case((1, 2, 4, 4), (2, 2, 3, 3), 1, input_dilation=(2, 3), flip=True),
    Case((1, 2, 16, 12), (2, 2, 3, 3), 1, padding_mode="reflect"),
]


@lru_cache
def alone(case, slot, at):
    operands = [np.ones(shape) for shape in case.shapes[:3]]
    operands[slot][...] = 0
    operands[slot][at] = 1
    return case.expected(*operands)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("case", NAN_CASES)
def test_nan_reaches_just_what_sees_it(backend, case, value):
    """What sees an element is what the loop makes of that element alone, with ones for all else."""
    ones = [np.ones(shape) for shape in case.shapes[:3]]

    def with_it(slot, at):
        spoiled = ones[slot].copy()
        spoiled[at] = value
        return [backend.array(spoiled if i == slot else array) for i, array in enumerate(ones)]

    said = case.parameters
    for at in ((0, 1, 0, 1), (0, 0, case.x[2] - 1, case.x[3] - 1)):
        seen, (dy, x, w) = alone(case, 1, at), with_it(1, at)
        y = backend.numpy(conv(x, w, **said))
        np.testing.assert_array_equal(~np.isfinite(y), seen.y > 0)
        dx, dw, _ = map(backend.numpy, conv_backward(dy, x, w, **said))
        np.testing.assert_array_equal(~np.isfinite(dw), seen.dw > 0)
        assert np.isfinite(dx).all()
    for at in ((0, 1, 0, 0), (0, 0, 1, 2)):
        seen, (dy, x, w) = alone(case, 0, at), with_it(0, at)
        with np.errstate(invalid="ignore"):  # the zeros of the padding are read, too, and zero times infinity is NaN
            dx, dw, db = map(backend.numpy, conv_backward(dy, x, w, **said))
        np.testing.assert_array_equal(~np.isfinite(dx), seen.dx > 0)
        np.testing.assert_array_equal(~np.isfinite(db), seen.db > 0)
        assert not np.isfinite(dw[seen.dw > 0]).any()
        assert np.isfinite(dw[seen.db == 0]).all()
