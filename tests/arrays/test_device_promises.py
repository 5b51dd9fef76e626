"""A call on a GPU never waits for it and copies nothing to it: the stand-in for CuPy makes an error of both.

Constants of an algorithm may be copied by the first call, so it is the second one that is watched, and compared with
NumPy's results.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from cupy_standin import forbidden
from support import draw

import xpconv
from xpconv import Conv, ConvTranspose, fold, options, unfold

DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128", "int8", "uint16", "int32", "int64")
MIXED = (("float32", "complex64"), ("complex128", "float64"))
PARAMETERS = {
    "plain": {},
    "all": {"stride": (2, 1), "padding": [(2, 1), (0, 3)], "dilation": (1, 2), "groups": 2},
    "cropped": {"padding": [(-1, 2), (1, -2)], "flip": True},
    "same": {"padding": "same", "channel_axis": -1},
    "input dilation": {"input_dilation": (2, 3), "padding": 2, "stride": (1, 2)},
    "reflect": {"padding": 2, "padding_mode": "reflect", "stride": 2},
    "replicate": {"padding": [(3, 0), (1, 2)], "padding_mode": "replicate"},
    "circular": {"padding": 2, "padding_mode": ("circular", "zeros"), "groups": 2},
    "constant": {"padding": 2, "padding_mode": ("constant", "symmetric"), "padding_value": 3.0},
    "padding beyond the kernel": {"padding": 6},
}
WITHOUT_CHANNELS = ("convolve", "correlate", "convolve_backward", "correlate_backward")
METHODS = ("auto", "lowering", "winograd", "banded", "fft")


def assert_kept(standin, function, *operands):
    """The promise, and NumPy's values; operands may be missing."""
    arrays = [None if one is None else standin.array(one) for one in operands]
    function(*arrays)
    with forbidden("sync", "h2d"):
        results = function(*arrays)
    expected = function(*operands)
    several = isinstance(results, tuple | list)
    for result, values in zip(*((results, expected) if several else ([results], [expected])), strict=True):
        if values is None:
            assert result is None
        else:
            assert_close(standin.numpy(result), values)


def assert_close(result, values):
    assert (result.dtype, result.shape) == (values.dtype, values.shape)
    if values.dtype.kind in "biu":
        np.testing.assert_array_equal(result, values)
        return
    tolerance = 100 * float(ml_dtypes.finfo(values.dtype).eps)
    result, values = (one.astype("complex128" if one.dtype.kind == "c" else "float64") for one in (result, values))
    assert np.max(np.abs(result - values), initial=0) <= tolerance * np.max(np.abs(values), initial=0)


def calls(parameters, spatial, kernel):
    """Every public function of arrays with channels but unfold and fold, each with the names of its operands.

    Transposed ones go from what is y, which is called dy here, to what is x.
    """
    without = {name: value for name, value in parameters.items() if name != "input_dilation"}

    def of(name, given=parameters, **more):
        return lambda *operands: getattr(xpconv, name)(*operands, **given, **more)

    found = {
        "conv": (of("conv"), "x w b"),
        "conv_backward": (of("conv_backward"), "dy x w"),
        "conv_input_grad": (of("conv_input_grad", input_size=spatial), "dy w"),
        "conv_weight_grad": (of("conv_weight_grad", kernel_size=kernel), "dy x"),
        "conv_jvp": (of("conv_jvp"), "tx tw tb x w"),
        "conv_jvp of the bias alone": (of("conv_jvp"), "- - tb x w"),
        "conv_double_backward": (of("conv_double_backward"), "tx tw tb dy x w"),
    }
    if "input_dilation" not in parameters:
        found |= {
            "conv_transpose": (of("conv_transpose", without), "dy w c"),
            "conv_transpose_backward": (of("conv_transpose_backward", without), "z dy w"),
            "conv_transpose_jvp": (of("conv_transpose_jvp", without), "dy tw c dy w"),
            "conv_transpose_double_backward": (of("conv_transpose_double_backward", without), "dy tw c z dy w"),
        }
    return found


def operands(rng, parameters, dtype, w_dtype=None):
    """NumPy's, by name."""
    w_dtype = w_dtype or dtype
    groups, last = parameters.get("groups", 1), parameters.get("channel_axis") == -1
    x_shape, w_shape = (2, 9, 8, 4) if last else (2, 4, 9, 8), (6, 4 // groups, 3, 3)
    x, w = (draw(rng, shape, "float64") for shape in (x_shape, w_shape))
    y = xpconv.conv(x, w, **parameters)
    without = {name: value for name, value in parameters.items() if name != "input_dilation"}
    z = xpconv.conv_transpose(y, w, **without)
    y_dtype = str(np.result_type(*(np.float32 if one == "bfloat16" else one for one in (dtype, w_dtype))))
    y_dtype = "bfloat16" if dtype == "bfloat16" else y_dtype
    shapes = {
        "x": (x_shape, dtype), "w": (w_shape, w_dtype), "b": ((6,), y_dtype), "dy": (y.shape, y_dtype),
        "tx": (x_shape, dtype), "tw": (w_shape, w_dtype), "tb": ((6,), y_dtype), "c": ((4,), y_dtype),
        "z": (z.shape, y_dtype),
    }  # fmt: skip
    return {name: drawn(rng, *one) for name, one in shapes.items()} | {"-": None}


def drawn(rng, shape, dtype):
    return draw(rng, shape, "float32").astype(ml_dtypes.bfloat16) if dtype == "bfloat16" else draw(rng, shape, dtype)


def assert_all_kept(standin, rng, parameters, dtype, w_dtype=None, **more):
    arrays = operands(rng, parameters, dtype, w_dtype)
    for function, names in calls({**parameters, **more}, (9, 8), (3, 3)).values():
        assert_kept(standin, function, *(arrays[name] for name in names.split()))


def test_every_function_is_here():
    functions = {name for name in xpconv.__all__ if name[0].islower() and not name.endswith("_size")}
    others = {"explain", "options", "unfold", "fold", "conv_stream", *WITHOUT_CHANNELS}
    others |= {one for one in functions if "local" in one}
    assert functions - others == {name.partition(" ")[0] for name in calls({}, (), ())}


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=PARAMETERS)
def test_every_function_with_every_parameter(standin, rng, parameters, dtype):
    assert_all_kept(standin, rng, parameters, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_function_in_every_dtype(standin, rng, dtype):
    assert_all_kept(standin, rng, PARAMETERS["all"], dtype)


@pytest.mark.parametrize(("dtype", "w_dtype"), MIXED)
def test_every_function_of_real_and_complex_numbers(standin, rng, dtype, w_dtype):
    assert_all_kept(standin, rng, PARAMETERS["circular"], dtype, w_dtype)


def test_every_function_in_a_wider_dtype(standin, rng):
    arrays = operands(rng, {}, "int8")
    arrays |= {name: arrays[name].astype("int32") for name in ("b", "dy", "tb")}
    for name, (function, names) in calls({"dtype": np.dtype("int32")}, (9, 8), (3, 3)).items():
        if "transpose" not in name and name not in ("conv_input_grad", "conv_weight_grad"):
            assert_kept(standin, function, *(arrays[one] for one in names.split()))
    assert_kept(standin, lambda x, w: xpconv.conv_transpose(x, w, dtype=np.dtype("int32")), arrays["dy"], arrays["w"])


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", ["float16", "float32", "complex128"])
@pytest.mark.parametrize("name", ["plain", "reflect", "circular"])
@pytest.mark.parametrize("method", METHODS)
def test_every_function_by_every_method(standin, rng, method, name, dtype):
    parameters = {key: value for key, value in PARAMETERS[name].items() if key != "stride"}
    with options(method=method):
        assert_all_kept(standin, rng, parameters, dtype)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", ["float16", "float64", "complex64", "int8", "bool"])
@pytest.mark.parametrize("name", ["plain", "all", "cropped", "reflect", "replicate", "circular"])
def test_unfold_and_fold(standin, rng, name, dtype):
    said = {key: value for key, value in PARAMETERS[name].items() if key not in ("groups", "flip")}
    x = draw(rng, (2, 4, 9, 8), "float64") > 0 if dtype == "bool" else draw(rng, (2, 4, 9, 8), dtype)
    assert_kept(standin, lambda x: unfold(x, (3, 2), **said), x)
    assert_kept(standin, lambda columns: fold(columns, (9, 8), (3, 2), **said), unfold(x, (3, 2), **said))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(("dtype", "w_dtype"), [("float32", "float32"), ("int8", "int32"), ("complex64", "float64")])
@pytest.mark.parametrize(
    "said", [{"mode": "same"}, {"mode": "valid", "stride": 2}, {"padding_mode": "reflect"}], ids=str
)
@pytest.mark.parametrize("shapes", [((3, 4, 9), (3, 1, 4)), ((1, 4, 4), (3, 1, 9))])
@pytest.mark.parametrize("name", WITHOUT_CHANNELS[:2])
def test_arrays_without_channels(standin, rng, name, shapes, said, dtype, w_dtype):
    function, backward = getattr(xpconv, name), getattr(xpconv, f"{name}_backward")
    x, kernel = (draw(rng, shape, one) for shape, one in zip(shapes, (dtype, w_dtype), strict=True))
    assert_kept(standin, lambda x, kernel: function(x, kernel, axes=2, **said), x, kernel)
    dy = function(x, kernel, axes=2, **said)
    assert_kept(standin, lambda *arrays: backward(*arrays, axes=2, **said), dy, x, kernel)


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64", "int8"])
@pytest.mark.parametrize("name", ["plain", "all", "same", "reflect"])
def test_a_weight_for_each_sample_and_each_place(standin, rng, name, dtype):
    arrays = operands(rng, PARAMETERS[name], dtype)
    each = {**arrays, **{key: drawn(rng, (2, *arrays[key].shape), arrays[key].dtype.name) for key in ("w", "tw")}}
    for function, names in calls({**PARAMETERS[name], "per_sample": True}, (9, 8), (3, 3)).values():
        assert_kept(standin, function, *(each[key] for key in names.split()))
    out = xpconv.conv_output_size((9, 8), 3, **PARAMETERS[name])
    dy, x, w, b, c = arrays["dy"], arrays["x"], drawn(rng, (*arrays["w"].shape, *out), dtype), arrays["b"], arrays["c"]
    said = PARAMETERS[name]
    assert_kept(standin, lambda x, w, b: xpconv.local_conv(x, w, b, **said), x, w, b)
    assert_kept(standin, lambda dy, x, w: xpconv.local_conv_backward(dy, x, w, **said), dy, x, w)
    assert_kept(standin, lambda dy, w, c: xpconv.local_conv_transpose(dy, w, c, **said), dy, w, c)


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64", "int8"])
@pytest.mark.parametrize("block", [0, 1, 7])
def test_streams(standin, rng, block, dtype):
    x, w, state = (draw(rng, shape, dtype) for shape in ((2, 4, block, 5), (6, 2, 3, 2), (2, 4, 5, 5)))
    said = {"stride": 2, "dilation": 2, "groups": 2}
    assert_kept(standin, lambda x, w: xpconv.conv_stream(x, w, **said), x, w)
    assert_kept(standin, lambda x, w, state: xpconv.conv_stream(x, w, None, state, **said), x, w, state)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [Conv, ConvTranspose])
def test_layers(standin, rng, kind, method, dtype):
    said = {"padding": 1, "padding_mode": "circular", "groups": 2, "rng": 0}
    x = draw(rng, (2, 4, 9, 8), dtype)
    made = []
    for xp, device, values in ((standin.xp, standin.device, standin.array(x)), (np, None, x)):
        layer = kind(4, 6, (3, 3), xp=xp, dtype=getattr(xp, dtype), device=device, **said)
        with options(method=method):
            layer.backward(layer.forward(values))
            with forbidden("sync", "h2d"):
                y = layer.forward(values)
                made.append([y, layer.backward(y), layer.dweight, layer.dbias])
    for result, values in zip(*made, strict=True):
        assert_close(standin.numpy(result), values)
