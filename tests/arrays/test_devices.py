"""Which arrays are taken: on every device of array-api-strict, of every dtype that it has, and plain ones alone.

All numbers are whole, and lowering adds and multiplies nothing but these: equality to the bit with the loop
(oracle.py), of integers modulo 2**bits, as it wraps around in 64.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import cycle, permutations

import array_api_strict
import numpy as np
import pytest
import torch
from cases import Case, TransposedCase
from support import Backend, draw, whole_numbers

from xpconv import (
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    ConvTranspose2d,
    conv,
    conv_backward,
    conv_double_backward,
    conv_input_grad,
    conv_jvp,
    conv_stream,
    conv_transpose,
    conv_transpose_backward,
    conv_transpose_double_backward,
    conv_transpose_jvp,
    conv_weight_grad,
    explain,
    fold,
    options,
    unfold,
)

DTYPES = ["int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "complex64"]
WIDE = ["int64", "uint64", "float64", "complex128"]
HERE = {
    "CPU_DEVICE": [*DTYPES, *WIDE],
    "device1": [*DTYPES, *WIDE],
    "device2": [*DTYPES, *WIDE],
    "no_float64": [*DTYPES, "int64", "uint64"],
    "no_x64": DTYPES,
}
DEFAULT = {"CPU_DEVICE": "float64", "device1": "float64"}  # float32 elsewhere

on_each_device = pytest.mark.parametrize("place", HERE, indirect=True)
in_each_dtype = pytest.mark.parametrize(
    ("place", "dtype"), [(device, dtype) for device, dtypes in HERE.items() for dtype in dtypes], indirect=["place"]
)


@pytest.fixture
def place(request):
    """A device, of array-api-strict at its strictest; without any extension."""
    with array_api_strict.ArrayAPIStrictFlags(
        api_version="2024.12", boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
    ):
        yield on(request.param)


@pytest.fixture(params=[("fft",), ()], ids=["fft", "no extensions"])
def extensions(request, place):  # noqa: ARG001
    with array_api_strict.ArrayAPIStrictFlags(enabled_extensions=request.param):
        yield request.param


def on(device):
    return Backend("array_api_strict", array_api_strict, array_api_strict.Device(device))


def whole(rng, shape, dtype):
    """Of integers any, of real and complex numbers so small ones that every sum here is exact."""
    if np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    return whole_numbers(rng, shape, dtype)


def assert_equal(place, result, expected, dtype):
    values = place.numpy(result)  # checks the device
    assert values.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(values, expected.astype(dtype))


# All that is done to operands on the way comes up: phases, turned filters, a border, parts of an axis that no window
# reaches.
CASES = {
    "plain": {},
    "all": {"stride": (2, 1), "padding": 2, "dilation": (1, 2), "groups": 2},
    "border": {"padding": [(2, 1), (2, 3)], "padding_mode": ("circular", "replicate"), "stride": (1, 2)},
    "dilated": {"padding": 2, "input_dilation": (2, 3), "flip": True, "stride": (1, 2)},
}


def shapes(parameters):
    """Of x, weight, bias and y."""
    x, w = (2, 4, 4, 5), (4, 4 // parameters.get("groups", 1), 2, 3)
    return x, w, w[:1], conv(np.zeros(x), np.zeros(w), **parameters).shape


def by_loop(dy, x, w, parameters):
    """y, dx, dw and db."""
    with np.errstate(over="ignore"):
        return Case(x.shape, w.shape, **parameters).expected(dy, x, w)


def by_loop_transposed(dy, x, w, parameters):
    padding = parameters.get("padding", 0)
    with np.errstate(over="ignore"):
        return TransposedCase(x.shape, w.shape, dy.shape[2:], parameters, padding, padding).expected(dy, x, w)


def along_channels(bias):
    return (bias if bias.dtype.kind in "fc" else bias.astype("int64")).reshape(-1, 1, 1)


def test_these_are_its_devices_and_dtypes():
    info = array_api_strict.__array_namespace_info__()
    assert set(info.devices()) == {on(device).device for device in HERE}
    for device, dtypes in HERE.items():
        assert set(info.dtypes(device=on(device).device, kind="numeric")) == set(dtypes)


@cache
def with_tangents(loop, case, dtype, *shapes):
    """dy, x, weight and bias, twice; and what the loop makes of x and the weight, and of each with the other's second.

    They are the same on every device.
    """
    rng = np.random.default_rng(20261123)
    dy, x, w, _, _, tx, tw, _ = operands = [whole(rng, shape, dtype) for shape in shapes * 2]
    return operands, [loop(dy, *pair, CASES[case]) for pair in ((x, w), (tx, w), (x, tw))]


@in_each_dtype
@pytest.mark.parametrize("case", CASES)
def test_convolutions(place, dtype, case):
    said = CASES[case]
    x_shape, w_shape, b_shape, y_shape = shapes(said)
    operands, (sums, of_tx, of_tw) = with_tangents(by_loop, case, dtype, y_shape, x_shape, w_shape, b_shape)
    before = [operand.copy() for operand in operands]
    dy, x, w, b, _, tx, tw, tb = arrays = [place.array(operand) for operand in operands]
    with options(method="lowering"):
        y, ty = conv(x, w, b, **said), conv_jvp(tx, tw, tb, x, w, **said)
        once, twice = conv_backward(dy, x, w, **said), conv_double_backward(tx, tw, tb, dy, x, w, **said)
        dx = conv_input_grad(dy, w, input_size=x_shape[2:], **said)
        dw = conv_weight_grad(dy, x, kernel_size=w_shape[2:], **said)

    b, tb = along_channels(operands[3]), along_channels(operands[7])
    with np.errstate(over="ignore"):
        tangent = of_tx.y + of_tw.y + tb
        assert_equal(place, y, sums.y + b, dtype)
    for result, expected in (
        *((result, tangent) for result in (ty, twice.ddy)),
        *((result, sums.dx) for result in (once.dx, dx)),
        *((result, sums.dw) for result in (once.dweight, dw)),
        (once.dbias, sums.db),
        (twice.dx, of_tw.dx),
        (twice.dweight, of_tx.dw),
    ):
        assert_equal(place, result, expected, dtype)
    for operand, array, copy in zip(operands, arrays, before, strict=True):
        assert operand.tobytes() == place.numpy(array).tobytes() == copy.tobytes()


@in_each_dtype
@pytest.mark.parametrize("case", ["plain", "all"])
def test_transposed_convolutions(place, dtype, case):
    y_shape, w_shape, _, x_shape = shapes(CASES[case])
    said = {**CASES[case], "output_size": y_shape[2:]}
    four = y_shape, x_shape, w_shape, y_shape[1:2]
    operands, (sums, of_tx, of_tw) = with_tangents(by_loop_transposed, case, dtype, *four)
    dy, x, w, b, _, tx, tw, tb = (place.array(operand) for operand in operands)
    with options(method="lowering"):
        y, ty = conv_transpose(x, w, b, **said), conv_transpose_jvp(tx, tw, tb, x, w, **said)
        once = conv_transpose_backward(dy, x, w, **said)
        twice = conv_transpose_double_backward(tx, tw, tb, dy, x, w, **said)

    b, tb = along_channels(operands[3]), along_channels(operands[7])
    with np.errstate(over="ignore"):
        tangent = of_tx.y + of_tw.y + tb
        assert_equal(place, y, sums.y + b, dtype)
    for result, expected in (
        (ty, tangent),
        (once.dx, sums.dx),
        (once.dweight, sums.dw),
        (once.dbias, sums.db),
        (twice.ddy, tangent),
        (twice.dx, of_tw.dx),
        (twice.dweight, of_tx.dw),
    ):
        assert_equal(place, result, expected, dtype)


@pytest.mark.parametrize(
    ("place", "real", "wide"),
    [
        (device, *pair)
        for device, here in HERE.items()
        for pair in (("float32", "complex64"), ("float64", "complex128"))
        if pair[0] in here
    ],
    indirect=["place"],
)
def test_real_and_complex(place, real, wide, rng):
    said = CASES["all"]
    x_shape, w_shape, b_shape, y_shape = shapes(said)
    dy, b = whole(rng, y_shape, wide), whole(rng, b_shape, wide)
    for x_dtype, w_dtype in ((real, wide), (wide, real)):
        x, w = whole(rng, x_shape, x_dtype), whole(rng, w_shape, w_dtype)
        sums = by_loop(dy, x, w, said)
        with options(method="lowering"):
            y = conv(*map(place.array, (x, w, b)), **said)
            dx, dw, db = conv_backward(*map(place.array, (dy, x, w)), **said)
        assert_equal(place, y, sums.y + along_channels(b), wide)
        for result, expected, dtype in zip((dx, dw, db), sums[1:], (x_dtype, w_dtype, wide), strict=True):
            assert_equal(place, result, expected, dtype)


@pytest.mark.parametrize(
    ("place", "narrow", "wide"),
    [
        (device, *pair)
        for device in HERE
        for pair in (
            ("int8", "int16"),
            ("uint8", "int32"),
            ("int8", "int64"),
            ("uint16", "uint32"),
            ("int32", "int64"),
            ("uint32", "uint64"),
            ("float32", "float64"),
            ("complex64", "complex128"),
        )
    ],
    indirect=["place"],
)
def test_a_wider_result(place, narrow, wide, rng, request):
    """Where there is such a dtype; elsewhere a sentence, and never the nearest one that there is."""
    said = CASES["all"]
    x_shape, w_shape, b_shape, y_shape = shapes(said)
    dy, (x, w, b) = whole(rng, y_shape, wide), (whole(rng, shape, narrow) for shape in (x_shape, w_shape, b_shape))
    few = whole(rng, y_shape, narrow)
    ours, theirs = [place.array(a) for a in (x, w, b)], place.array(few)
    dtype = getattr(place.xp, wide)
    calls = (
        lambda: conv(*ours, dtype=dtype, **said),
        lambda: conv_input_grad(theirs, ours[1], input_size=x_shape[2:], dtype=dtype, **said),
        lambda: conv_weight_grad(theirs, ours[0], kernel_size=w_shape[2:], dtype=dtype, **said),
    )
    if wide not in HERE[request.node.callspec.params["place"]]:
        for call in (*calls, lambda: explain(*ours[:2], dtype=dtype, **said)):
            with pytest.raises(TypeError) as caught:
                call()
            assert str(caught.value) == f"dtype must be one that the operands' device has: got {dtype!r}"
        return
    sums, alone = by_loop(dy, x, w, said), by_loop(few, x, w, said)
    with options(method="lowering"):
        y, dx, dw = (call() for call in calls)
        gradients = conv_backward(place.array(dy), *ours[:2], dtype=dtype, **said)
    with np.errstate(over="ignore"):
        assert_equal(place, y, sums.y + along_channels(b), wide)
    assert_equal(place, dx, alone.dx, wide)
    assert_equal(place, dw, alone.dw, wide)
    for result, expected, one in zip(gradients, sums[1:], (narrow, narrow, wide), strict=True):
        assert_equal(place, result, expected, one)


@in_each_dtype
@pytest.mark.parametrize("case", ["plain", "all", "border"])
def test_unfold_and_fold(place, dtype, rng, case):
    """A column is a convolution with a one for its tap, and zeros; the fold is its input gradient."""
    said = {name: value for name, value in CASES[case].items() if name != "groups"}
    x = whole(rng, (2, 4, 4, 5), dtype)
    taps = np.tile(np.eye(6, dtype=dtype).reshape(6, 1, 2, 3), (4, 1, 1, 1))
    out = conv(np.zeros(x.shape), np.zeros(taps.shape), groups=4, **said).shape
    columns = whole(rng, out, dtype)
    sums = by_loop(columns, x, taps, {**said, "groups": 4})
    shape = (2, 24, out[2] * out[3])
    assert_equal(place, unfold(place.array(x), (2, 3), **said), sums.y.reshape(shape), dtype)
    folded = fold(place.array(columns.reshape(shape)), (4, 5), (2, 3), **said)
    assert_equal(place, folded, sums.dx, dtype)
    # Of bool, a sum is whether any is true.
    x, columns = x.real > 0, columns.real > 4
    sums = by_loop(columns.astype("int64"), x.astype("int64"), taps.real.astype("int64"), {**said, "groups": 4})
    assert_equal(place, unfold(place.array(x), (2, 3), **said), sums.y.reshape(shape) > 0, "bool")
    folded = fold(place.array(columns.reshape(shape)), (4, 5), (2, 3), **said)
    assert_equal(place, folded, sums.dx > 0, "bool")


@in_each_dtype
def test_what_is_said_holds_on_the_device(place, dtype, rng, extensions):
    """`explain` plans what there is: without the extension no transforms, and none of integers."""
    x, w = (place.array(whole(rng, shape, dtype)) for shape in ((1, 1, 3000), (1, 1, 500)))
    plan = explain(x, w)
    assert [made.name for made in plan.contractions] == ["forward", "input gradient", "weight gradient"]
    others = {name for made in plan.contractions for name in (made.algorithm, *made.others)}
    transforms = extensions == ("fft",) and np.dtype(dtype).kind in "fc"
    assert any("Fourier" in name for name in others) == transforms


@pytest.mark.parametrize(
    ("place", "dtype"),
    [(device, dtype) for device in HERE for dtype in HERE[device] if np.dtype(dtype).kind in "fc"],
    indirect=["place"],
)
@pytest.mark.parametrize("method", ["auto", "winograd", "banded", "fft"])
def test_every_algorithm(place, dtype, rng, method, extensions):
    """Within what `options` promises, of numbers with a mean of zero."""
    dy, x, w = (draw(rng, shape, dtype) for shape in ((2, 3, 9, 8), (2, 4, 9, 8), (3, 4, 3, 3)))
    arrays = [place.array(a) for a in (dy, x, w)]

    def made():
        return (conv(*arrays[1:], padding=1), *conv_backward(*arrays, padding=1, needs=(True, True, False))[:2])

    with options(method=method):
        if method == "fft" and not extensions:
            with pytest.raises(ValueError, match=r"^method must be"):
                made()
            return
        results = made()
    promised = {"float32": 2e-5, "float64": 1e-13}[np.dtype(dtype).type(0).real.dtype.name]
    for result, expected in zip(results, by_loop(dy, x, w, {"padding": 1}), strict=False):
        values = place.numpy(result)
        assert values.dtype == np.dtype(dtype)
        assert np.max(np.abs(values - expected)) <= promised * np.max(np.abs(expected))


@pytest.mark.parametrize("first", HERE)
def test_what_is_remembered_of_one_device_is_not_of_another(rng, first):
    """The same call, of the same shapes and dtypes: 8 bits are multiplied in float64 where there is that."""
    lo = list(HERE).index(first)  # a call that no other test makes
    x, w = whole(rng, (1, 2, 16), "int8"), whole(rng, (2, 2, 3), "int8")
    y_shape = conv(np.zeros(x.shape), np.zeros(w.shape), stride=7, padding=lo).shape
    expected = by_loop(np.zeros(y_shape, dtype="int8"), x, w, {"stride": 7, "padding": lo}).y
    for device in (first, *(other for other in HERE if other != first)):
        there = on(device)
        assert_equal(there, conv(there.array(x), there.array(w), stride=7, padding=lo), expected, "int8")


@on_each_device
@pytest.mark.parametrize(("number", "dtype"), [(127, "int8"), (-127, "int8"), (255, "uint8")])
def test_sums_of_bytes_beyond_float32(place, number, dtype):
    """An odd number over 2**24 is none of float32."""
    terms = 2**24 // number**2 + 1
    terms += 1 - terms % 2
    x = place.array(np.full((1, 1, terms), number, dtype=dtype))
    total = np.asarray([[[number**2 * terms]]])
    assert total.item() > 2**24
    assert total.item() % 2
    assert_equal(place, conv(x, x, dtype=place.xp.int32), total, "int32")
    assert_equal(place, conv(x, x), total, dtype)


# Layers.


@on_each_device
@pytest.mark.parametrize("make", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize("dtype", [None, "float32", "float64", "complex64", "complex128"])
def test_layers(place, make, dtype, rng, request):
    device = request.node.callspec.params["place"]
    said = {"xp": place.xp, "device": place.device, "dtype": dtype and getattr(place.xp, dtype)}
    dtype = dtype or DEFAULT.get(device, "float32")
    if dtype not in HERE[device]:
        with pytest.raises(TypeError) as caught:
            make(4, 3, (2, 3), **said)
        assert str(caught.value) == f"dtype must be one that the device has: got {said['dtype']!r}"
        return
    layer = make(None, 3, (2, 3), **said)
    transposed = make is ConvTranspose2d
    x, dy = whole(rng, (2, 4, 4, 5), dtype), whole(rng, (2, 3, 5, 7) if transposed else (2, 3, 3, 3), dtype)
    w, b = whole(rng, (4, 3, 2, 3) if transposed else (3, 4, 2, 3), dtype), whole(rng, (3,), dtype)
    layer.forward(place.array(x))  # which draws the weights anew
    for array in (layer.weight, layer.bias):
        assert place.numpy(array).dtype == np.dtype(dtype)
    assert tuple(layer.weight.shape) == w.shape
    layer.state = {"weight": w, "bias": b}
    with options(method="lowering"):
        y = layer.forward(place.array(x))
        dx = layer.backward(place.array(dy))
    sums = (by_loop_transposed if transposed else by_loop)(dy, x, w, {})
    assert_equal(place, y, sums.y + along_channels(b), dtype)
    for result, expected in zip((dx, layer.dweight, layer.dbias), sums[1:], strict=True):
        assert_equal(place, result, expected, dtype)


# Two devices in one call.

CALLS = {
    "conv": (lambda x, weight, bias: conv(x, weight, bias), "x weight bias"),
    "conv_backward": (lambda dy, x, weight: conv_backward(dy, x, weight), "dy x weight"),
    "conv_jvp": (
        lambda x, weight, tx, tweight, tbias: conv_jvp(tx, tweight, tbias, x, weight),
        "x weight tx tweight tbias",
    ),
    "conv_double_backward": (
        lambda dy, x, weight, ddx, ddweight, ddbias: conv_double_backward(ddx, ddweight, ddbias, dy, x, weight),
        "dy x weight ddx ddweight ddbias",
    ),
    "conv_input_grad": (lambda dy, weight: conv_input_grad(dy, weight, input_size=2), "dy weight"),
    "conv_weight_grad": (lambda dy, x: conv_weight_grad(dy, x, kernel_size=(1,)), "dy x"),
    "conv_transpose": (lambda x, weight, bias: conv_transpose(x, weight, bias), "x weight bias"),
    "conv_transpose_backward": (lambda dy, x, weight: conv_transpose_backward(dy, x, weight), "dy x weight"),
    "conv_transpose_jvp": (
        lambda x, weight, tx, tweight, tbias: conv_transpose_jvp(tx, tweight, tbias, x, weight),
        "x weight tx tweight tbias",
    ),
    "conv_transpose_double_backward": (
        lambda dy, x, weight, ddx, ddweight, ddbias: conv_transpose_double_backward(
            ddx, ddweight, ddbias, dy, x, weight
        ),
        "dy x weight ddx ddweight ddbias",
    ),
    "conv_stream": (
        lambda x, weight, bias, state: conv_stream(x, weight, bias, state, stride=3),
        "x weight bias state",
    ),
    "explain": (lambda x, weight: explain(x, weight), "x weight"),
}
ALONE = {
    "unfold": (lambda x: unfold(x, (1,)), "x"),
    "fold": (lambda columns: fold(columns, (2,), (1,)), "columns"),
}
LAYERS = {
    "Conv.forward": (lambda x: Conv1d(1, 1, 1).forward(x), "x"),
    "Conv.backward": (lambda dZ: seen(Conv1d(1, 1, 1)).backward(dZ), "dZ"),
    "Conv.set_params": (lambda weights, bias: Conv1d(1, 1, 1).set_params(weights, bias), "weights bias"),
    "ConvTranspose.forward": (lambda x: ConvTranspose1d(1, 1, 1).forward(x), "x"),
    "ConvTranspose.backward": (lambda dZ: seen(ConvTranspose1d(1, 1, 1)).backward(dZ), "dZ"),
    "ConvTranspose.set_params": (
        lambda weights, bias: ConvTranspose1d(1, 1, 1).set_params(weights, bias),
        "weights bias",
    ),
}
SLOTS = [(name, slot) for name, (_, slots) in {**CALLS, **ALONE, **LAYERS}.items() for slot in slots.split()]


def seen(layer):
    layer.forward(np.ones((1, 1, 2)))
    return layer


def sized(slot, dtype="float64"):
    """What the calls above take there."""
    if "bias" in slot:
        return np.asarray([3], dtype=dtype)
    return np.asarray([[[2]]] if "weight" in slot else [[[1, 5]]], dtype=dtype)


@pytest.mark.parametrize("name", CALLS)
def test_two_devices(name):
    """Each operand in turn on another device than the rest."""
    call, slots = CALLS[name]
    slots = slots.split()
    for one, other in permutations(HERE, 2):
        here, there = on(one), on(other)
        for odd in slots:
            arrays = {slot: (there if slot == odd else here).array(sized(slot, "float32")) for slot in slots}
            first, second = (odd, slots[1]) if odd == slots[0] else (slots[0], odd)
            with pytest.raises(TypeError) as caught:
                call(**arrays)
            said = f"got {arrays[first].device} and {arrays[second].device}"
            assert str(caught.value) == f"{first} and {second} must have one device: {said}"


def test_a_layer_and_an_input_on_two_devices():
    for one, other in permutations(HERE, 2):
        here, there = on(one), on(other)
        layer = Conv2d(1, 1, 1, xp=here.xp, dtype=here.xp.float32, device=here.device)
        x = np.ones((1, 1, 2, 2), dtype="float32")
        with pytest.raises(TypeError) as caught:
            layer.forward(there.array(x))
        assert str(caught.value) == f"x and weight must have one device: got {there.device} and {here.device}"
        layer.forward(here.array(x))
        with pytest.raises(TypeError) as caught:
            layer.backward(there.array(x))
        assert str(caught.value) == f"dZ and weight must have one device: got {there.device} and {here.device}"
        with pytest.raises(TypeError) as caught:
            layer.set_params(there.array(x[..., :1, :1]), here.array(x[0, 0, 0, :1]))
        assert str(caught.value) == f"weights and bias must have one device: got {there.device} and {here.device}"


# What is no plain array.


class Unit(np.ndarray):
    """As libraries for units have it."""

    def __array_finalize__(self, other):
        self.unit = getattr(other, "unit", "metre")


class Mapped(np.memmap):
    """A subclass of the one that is taken."""


class Array:
    """Can be made an array, and is none."""

    def __array__(self, dtype=None, copy=None):
        return np.ones((1, 1, 2), dtype=dtype)


class Interface:
    """The same, by other names."""

    def __init__(self):
        self.values = np.ones((1, 1, 2))
        self.__array_interface__ = self.values.__array_interface__
        self.__array_struct__ = self.values.__array_struct__


class Exchanged:
    """An array of another library, for whoever takes it over."""

    def __dlpack__(self, **said):
        return np.ones((1, 1, 2)).__dlpack__(**said)

    def __dlpack_device__(self):
        return np.ones(1).__dlpack_device__()


def masked(values):
    return np.ma.MaskedArray(values, mask=np.ones_like(values, dtype=bool))


REFUSED = {
    "numpy.ma.MaskedArray": masked,
    "numpy.matrix": lambda values: values.reshape(1, -1).view(np.matrix),
    "numpy.rec.recarray": lambda values: values.view(np.recarray),
    "numpy.char.chararray": lambda values: values.astype("S3").view(np.char.chararray),
    f"{__name__}.Unit": lambda values: values.view(Unit),
    f"{__name__}.Mapped": lambda values: values.view(Mapped),
    f"{__name__}.Array": lambda _: Array(),
    f"{__name__}.Interface": lambda _: Interface(),
    f"{__name__}.Exchanged": lambda _: Exchanged(),
    "numpy.float64": lambda values: values.ravel()[0],
    "numpy.ma.core.MaskedConstant": lambda _: np.ma.masked,
    "numpy.flatiter": lambda values: values.flat,
    "memoryview": memoryview,
    "list": np.ndarray.tolist,
    "tuple": tuple,
    "float": lambda _: 1.0,
    "complex": lambda _: 1j,
    "int": lambda _: 1,
    "bool": lambda _: True,
}


def instead(kind, slot):
    """What the sentence says to hand over."""
    if "Masked" in kind:
        return "; fill it first, or pass its .data, which forgets the mask"
    return "" if "Exchanged" in kind else f"; pass np.asarray({slot})"


# Each kind in one slot, and each slot with one kind, which takes turns.
NOT_PLAIN = [
    *(("conv", "x", kind) for kind in REFUSED),
    *((*slot, kind) for slot, kind in zip(SLOTS, cycle(reversed(REFUSED)))),
]


@pytest.mark.parametrize(("name", "slot", "kind"), NOT_PLAIN)
def test_what_is_no_plain_array(name, slot, kind):
    """In the place of each operand; and nothing is changed."""
    call, slots = {**CALLS, **ALONE, **LAYERS}[name]
    arrays = {each: sized(each) for each in slots.split()}
    given = {**arrays, slot: REFUSED[kind](arrays[slot])}
    before = {each: array.copy() for each, array in arrays.items()}
    with pytest.raises(TypeError) as caught:
        call(**given)
    assert str(caught.value) == (
        f"{slot} must be a plain array of a library that speaks the Array API: got {kind}{instead(kind, slot)}"
    )
    for each, array in arrays.items():
        np.testing.assert_array_equal(array, before[each])


@pytest.mark.parametrize("kind", ["numpy.ma.MaskedArray", f"{__name__}.Unit"])
@pytest.mark.parametrize("name", [*CALLS, *ALONE])
def test_nor_are_they_if_all_are_of_one_kind(name, kind):
    call, slots = {**CALLS, **ALONE}[name]
    given = {slot: REFUSED[kind](sized(slot)) for slot in slots.split()}
    with pytest.raises(TypeError, match=f" must be a plain array of .*: got {kind}; "):
        call(**given)


@pytest.mark.parametrize("kind", ["dict", "NoneType", "str", "bytes", "range", "type", "module"])
def test_nor_are_things_of_any_other_kind(kind):
    thing = {"dict": {}, "NoneType": None, "str": "x", "bytes": b"x", "range": range(2), "type": np.ndarray}
    with pytest.raises(TypeError) as caught:
        conv(thing.get(kind, np), np.ones((1, 1, 1)))
    hint = "; pass np.asarray(x)" if kind == "range" else ""
    assert str(caught.value) == f"x must be a plain array of a library that speaks the Array API: got {kind}{hint}"


@pytest.mark.parametrize("layout", ["coo", "csr", "csc", "bsr", "bsc", "nested"])
@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta", "ignore:.* nested tensors is in prototype")
def test_tensors_of_other_layouts(layout):
    square, plain = torch.ones(2, 2), torch.ones(1, 1, 2)
    made = {
        "coo": square.to_sparse,
        "csr": square.to_sparse_csr,
        "csc": square.to_sparse_csc,
        "bsr": lambda: square.to_sparse_bsr((1, 1)),
        "bsc": lambda: square.to_sparse_bsc((1, 1)),
        "nested": lambda: torch.nested.nested_tensor([square, square]),
    }[layout]()
    kind = f"of layout torch.sparse_{layout}; pass its .to_dense()"
    kind = "that is nested; pass its .to_padded_tensor(0.0)" if layout == "nested" else kind
    sentence = re.escape(f"must be a plain array of a library that speaks the Array API: got torch.Tensor {kind}")
    for call, slot in (
        (lambda: conv(made, plain), "x"),
        (lambda: conv(plain, made), "weight"),
        (lambda: conv(plain, plain, made), "bias"),
        (lambda: conv_backward(made, plain, plain), "dy"),
        (lambda: unfold(made, (1,)), "x"),
        (lambda: fold(made, 2, 1), "columns"),
    ):
        with pytest.raises(TypeError, match=f"^{slot} {sentence}"):
            call()


# What is one all the same.


@pytest.mark.parametrize("name", [*CALLS, *ALONE])
@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_memory_maps(name, mode, tmp_path):
    """As operands one by one and all together: the results are plain, and the files as they were."""
    call, slots = {**CALLS, **ALONE}[name]
    arrays = {slot: sized(slot) for slot in slots.split()}
    expected = call(**arrays)
    for slot, array in arrays.items():
        array.tofile(tmp_path / slot)
    maps = {slot: np.memmap(tmp_path / slot, "float64", mode, shape=a.shape) for slot, a in arrays.items()}
    for given in (maps, *({**arrays, slot: each} for slot, each in maps.items())):
        result = call(**given)
        if name == "explain":
            assert result == expected
            continue
        alone = not isinstance(result, tuple)
        for one, other in zip([result] if alone else result, [expected] if alone else expected, strict=True):
            assert type(one) is np.ndarray
            np.testing.assert_array_equal(one, other)
            assert not any(np.shares_memory(one, each) for each in maps.values())
    for slot, array in arrays.items():
        assert type(maps[slot]) is np.memmap
        assert maps[slot].flags.writeable == (mode != "r")
        maps[slot].flush()
        assert (tmp_path / slot).read_bytes() == array.tobytes()


@pytest.mark.parametrize("make", [Conv1d, ConvTranspose1d])
def test_a_layer_of_memory_maps(make, tmp_path):
    arrays = {slot: sized(slot) for slot in ("weights", "bias", "X", "dZ")}
    for slot, array in arrays.items():
        array.tofile(tmp_path / slot)
    maps = {slot: np.memmap(tmp_path / slot, "float64", "r", shape=a.shape) for slot, a in arrays.items()}
    results = []
    for given in (arrays, maps):
        layer = make(1, 1, 1)
        layer.set_params(given["weights"], given["bias"])
        results.append((layer.forward(given["X"]), layer.backward(given["dZ"]), layer.dweight, layer.dbias))
    for expected, result in zip(*results, strict=True):
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, expected)
    assert layer.weight is maps["weights"]  # kept, not copied, as any other
    for slot, array in arrays.items():
        assert (tmp_path / slot).read_bytes() == array.tobytes()


@pytest.mark.parametrize("make", [torch.nn.Parameter, torch.nn.Buffer])
def test_torchs_parameters_and_buffers(make):
    x, weight, bias = (torch.asarray(sized(slot)) for slot in ("x", "weight", "bias"))
    with torch.no_grad():
        y = conv(make(x), make(weight), make(bias))
        gradients = conv_backward(make(y), make(x), make(weight))
        columns = unfold(make(x), (1,))
    for result, expected in (
        (y, [[[5.0, 13.0]]]),
        (gradients.dx, [[[10.0, 26.0]]]),
        (gradients.dweight, [[[70.0]]]),
        (gradients.dbias, [18.0]),
        (columns, [[[1.0, 5.0]]]),
    ):
        assert type(result) is torch.Tensor
        assert result.tolist() == expected
