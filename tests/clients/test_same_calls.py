"""The recipes of docs/inside, compared with what the programs compute by themselves."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import autograd.numpy as anp
import keras
import numpy as np
import onnx
import pylops
import pytest
import sigpy
from autograd.test_util import check_grads
from keras.src.backend.numpy import nn
from onnx.reference import ReferenceEvaluator
from scipy.signal import correlate
from scipy.sparse.linalg import lsqr
from support import whole_numbers

# What is theirs has to be taken before the recipes are imported, which put ours in its place.
OF_SIGPY = {name: getattr(sigpy.conv, name) for name in sigpy.conv.__all__}
OF_KERAS = {name: getattr(nn, name) for name in ("conv", "depthwise_conv", "conv_transpose")}
import with_autograd  # noqa: E402
import with_keras  # noqa: E402, F401
import with_linear_operators  # noqa: E402
import with_onnx  # noqa: E402
import with_sigpy  # noqa: E402, F401

SHAPES = [
    (False, (2, 9, 8), (3, 2)),
    (False, (12,), (4,)),
    (True, (2, 3, 9, 8), (5, 3, 3, 2)),
    (True, (3, 7), (5, 3, 2)),
]


@pytest.mark.parametrize(("multi_channel", "shape", "filt_shape"), SHAPES)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_sigpy(backend, rng, dtype, multi_channel, shape, filt_shape):
    """Its operators, on arrays of CuPy too, where its own have no convolution any more."""
    data, filt = whole_numbers(rng, shape, dtype), whole_numbers(rng, filt_shape, dtype)
    x, weight = backend.array(data), backend.array(filt)
    ndim = len(filt_shape) - 2 * multi_channel
    for mode, strides in product(("full", "valid"), (None, (2, 3)[:ndim])):
        options = {"mode": mode, "strides": strides, "multi_channel": multi_channel}
        y = OF_SIGPY["convolve"](data, filt, **options)
        dy = whole_numbers(rng, y.shape, dtype)
        forward = sigpy.linop.ConvolveData(shape, weight, **options)
        by_filter = sigpy.linop.ConvolveFilter(filt_shape, x, **options)
        adjoint = OF_SIGPY["convolve_data_adjoint"](dy, filt, shape, **options)
        filter_adjoint = OF_SIGPY["convolve_filter_adjoint"](dy, data, filt_shape, **options)
        pairs = [
            (forward.apply(x), y),
            (by_filter.apply(weight), y),
            (forward.H.apply(backend.array(dy)), adjoint),
            (by_filter.H.apply(backend.array(dy)), filter_adjoint),
        ]
        for ours, theirs in pairs:
            values = backend.numpy(ours)
            assert values.dtype == theirs.dtype
            np.testing.assert_array_equal(values, theirs)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning:keras")
def test_keras_without_jax(rng, monkeypatch):
    """Each layer with a convolution, once as Keras has it and once with ours and no JAX."""
    layers = keras.layers
    models = [
        (layers.Conv1D(4, 3, padding="causal", dilation_rate=2), (2, 11, 3)),
        (layers.Conv2D(6, 3, strides=2, padding="same", groups=3), (2, 9, 8, 6)),
        (layers.Conv3D(2, 2, data_format="channels_first"), (1, 3, 4, 5, 4)),
        (layers.DepthwiseConv2D((3, 2), depth_multiplier=2), (2, 9, 8, 3)),
        (layers.SeparableConv2D(4, 3, strides=2), (2, 9, 8, 3)),
        (layers.Conv1DTranspose(4, 2, strides=3), (2, 7, 3)),
        (layers.Conv2DTranspose(4, 3, strides=2, padding="same", output_padding=1), (2, 6, 5, 3)),
        (layers.Conv3DTranspose(2, 2, dilation_rate=2), (1, 4, 3, 4, 2)),
    ]
    for layer, shape in models:
        x = whole_numbers(rng, shape, "float32")
        layer.build(shape)
        layer.set_weights([whole_numbers(rng, weight.shape, "float32", most=3) for weight in layer.get_weights()])
        with monkeypatch.context() as patch:
            for name, function in OF_KERAS.items():
                patch.setattr(nn, name, function)
            theirs = layer(x)
        with monkeypatch.context() as patch:
            patch.setattr(nn, "jax", None)
            ours = layer(x)
        assert ours.dtype == theirs.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs)


ONNX = [
    ("Conv", [(2, 4, 9, 8), (6, 2, 3, 2), (6,)], {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1]}),
    ("ConvTranspose", [(2, 4, 5, 6), (4, 6, 3, 2)], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("ConvTranspose", [(1, 2, 5), (2, 3, 3)], {"strides": [3], "pads": [1, 0], "output_padding": [1]}),
]


@pytest.mark.parametrize(("operator", "shapes", "attributes"), ONNX)
def test_onnx_on_other_libraries(backend, rng, monkeypatch, operator, shapes, attributes):
    """Arrays of the evaluator are NumPy's, and CuPy's only while a convolution is computed."""
    names = [f"input{i}" for i in range(len(shapes))]
    node = onnx.helper.make_node(operator, names, ["output"], **attributes)
    arrays = {name: whole_numbers(rng, shape, "float32") for name, shape in zip(names, shapes, strict=True)}
    expected = ReferenceEvaluator(node).run(None, arrays)[0]
    if not isinstance(backend.array(expected), np.ndarray):
        monkeypatch.setattr(with_onnx.Conv, "xp", backend.xp)
    (made,) = ReferenceEvaluator(node, new_ops=[getattr(with_onnx, operator)]).run(None, arrays)
    assert made.dtype == expected.dtype
    np.testing.assert_array_equal(made, expected)


TONES = [(440, 0), (554.37, 0.4), (659.26, 0.8)]  # hertz, and when it begins


def test_a_whole_model_of_onnx():
    """Spotify's basic-pitch hears the three tones that it is played, with our convolutions and with its own."""
    model = onnx.load(Path(*find_spec("basic_pitch").submodule_search_locations) / "saved_models/icassp_2022/nmp.onnx")
    time = np.arange(43844) / 22050
    tones = [
        np.sin(2 * np.pi * hertz * time) * (time > start) for hertz, start in ((440, 0), (554.37, 0.4), (659.26, 0.8))
    ]
    sound = (sum(tones) / 3)[None, :, None].astype("float32")
    for operators in ([with_onnx.Conv], []):
        evaluator = ReferenceEvaluator(model, new_ops=operators)
        notes, *_ = evaluator.run(None, {evaluator.input_names[0]: sound})  # (1, moments, keys of a piano)
        assert [*np.flatnonzero(np.max(notes[0], axis=0) > 0.5) + 21] == [69, 73, 76]  # A4, C#5, E5


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_autograd(rng, dtype):
    """Derivatives of first, second and third order, forward and backward, against autograd's own differences."""
    options = {"stride": (2, 1), "padding": 1, "groups": 2}
    x, w = (whole_numbers(rng, shape, dtype, most=2) / 2 for shape in ((2, 4, 5, 4), (6, 2, 3, 2)))

    def function(x, w):
        y = with_autograd.conv(x, w, **options)
        return anp.real(y * anp.conj(y)) / 8

    check_grads(function, modes=["fwd", "rev"], order=3)(x, w)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_linear_operators(rng, dtype):
    """Forward is SciPy's correlation, summed over channels; the adjoint is the adjoint of that matrix; it solves."""
    weight = whole_numbers(rng, (3, 2, 2, 3), dtype)
    A = with_linear_operators.convolution(weight, (2, 4, 5), padding="full")

    def correlated(x):
        """SciPy's `correlate` conjugates."""
        return [sum(map(partial(correlate, method="direct"), x, np.conj(filters))) for filters in weight]

    matrix = np.stack([np.ravel(correlated(pixel.reshape(2, 4, 5))) for pixel in np.eye(40, dtype=dtype)], axis=1)
    assert A.shape == matrix.shape == (105, 40)
    np.testing.assert_array_equal(np.stack([A.matvec(one) for one in np.eye(40, dtype=dtype)], axis=1), matrix)
    np.testing.assert_array_equal(np.stack([A.rmatvec(one) for one in np.eye(105, dtype=dtype)]), np.conj(matrix))
    x = whole_numbers(rng, (40,), dtype)
    np.testing.assert_allclose(lsqr(A, A @ x, atol=1e-14, btol=1e-14)[0], x, rtol=0, atol=1e-9)

    pictures = pylops.LinearOperator(A, dims=(2, 4, 5), dimsd=(3, 5, 7))
    np.testing.assert_array_equal(pictures @ x.reshape(2, 4, 5), np.reshape(matrix @ x, (3, 5, 7)))
    np.testing.assert_array_equal((pictures.H @ pictures @ x), np.conj(matrix.T) @ (matrix @ x))
