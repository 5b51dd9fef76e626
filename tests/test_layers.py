"""The layers: what the seed's class did, and what it asserted away."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from support import draw

import xpconv
from xpconv import Conv, Conv1d, Conv2d, Conv3d, conv, conv_backward, options
from xpconv._algorithms._winograd import Winograd


def test_defaults_are_the_seeds():
    layer = Conv()
    assert layer.weight.shape == (1, 1, 2, 2)
    assert (layer.stride, layer.padding, layer.dilation, layer.groups) == (1, 0, 1, 1)
    np.testing.assert_array_equal(layer.bias, [0.0])
    assert layer.dweight is None
    assert layer.dbias is None


def test_weights_are_drawn_as_the_seed_drew_them():
    layer = Conv(8, 500, (5, 5), rng=3)
    again = np.random.default_rng(3).standard_normal((500, 8, 5, 5)) / np.sqrt(8 / 2)
    np.testing.assert_array_equal(layer.weight, again)
    # 100,000 of them: the spread is known to about 1 part in 450.
    assert abs(float(np.std(layer.weight)) - 0.5) < 5 * 0.5 / np.sqrt(2 * layer.weight.size)


def test_a_generator_is_advanced_and_a_seed_is_not():
    generator = np.random.default_rng(5)
    one, two = Conv2d(2, 3, 3, rng=generator), Conv2d(2, 3, 3, rng=generator)
    same = Conv2d(2, 3, 3, rng=5)
    assert not np.array_equal(one.weight, two.weight)
    np.testing.assert_array_equal(one.weight, same.weight)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_weights_on_the_library_and_device_named(backend, dtype):
    xp = backend.xp
    layer = Conv2d(4, 6, (3, 2), groups=2, rng=7, xp=xp, dtype=getattr(xp, dtype), device=backend.device)
    weight, bias = backend.numpy(layer.weight), backend.numpy(layer.bias)
    assert weight.shape == (6, 2, 3, 2)
    assert weight.dtype == bias.dtype == np.dtype(dtype)
    reference = Conv2d(4, 6, (3, 2), groups=2, rng=7)
    np.testing.assert_array_equal(weight, reference.weight.astype(dtype))
    np.testing.assert_array_equal(bias, np.zeros(6))


def test_the_librarys_own_default_dtype(backend):
    layer = Conv1d(1, 1, 2, xp=backend.xp, device=backend.device)
    default = backend.xp.__array_namespace_info__().default_dtypes(device=backend.device)["real floating"]
    assert layer.weight.dtype == default


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: Conv(2, 3, (3, 2), stride=2, padding=1), (2, 2, 7, 6)),  # neither square nor dividing, and padded
        (lambda: Conv(2, 3, (2,), padding="same"), (2, 2, 5)),
        (lambda: Conv(2, 2, (2, 1, 2, 1), groups=2), (1, 2, 3, 2, 3, 2)),
        (lambda: Conv1d(2, 3, 4, stride=3, dilation=2), (2, 2, 20)),
        (lambda: Conv2d(2, 4, 3, groups=2, padding=[(1, 0), (0, 2)]), (2, 2, 5, 4)),
        (lambda: Conv2d(2, 4, (1, 3), bias=False), (2, 5, 4)),  # without a batch
        (lambda: Conv3d(1, 2, 2), (2, 1, 3, 4, 3)),
    ],
)
def test_forward_and_backward_are_the_functions(backend, rng, make, shape):
    layer = make()
    weight = backend.array(layer.weight)
    bias = None if layer.bias is None else backend.array(draw(rng, layer.bias.shape, "float64"))
    layer.set_params(weight, bias)
    x = backend.array(draw(rng, shape, "float64"))
    parameters = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    expected = conv(x, weight, bias, **parameters)
    y = layer.forward(x)
    np.testing.assert_array_equal(backend.numpy(y), backend.numpy(expected))
    dy = backend.array(draw(rng, tuple(y.shape), "float64"))
    gradients = conv_backward(dy, x, weight, **parameters)
    np.testing.assert_array_equal(backend.numpy(layer.backward(dy)), backend.numpy(gradients.dx))
    np.testing.assert_array_equal(backend.numpy(layer.dweight), backend.numpy(gradients.dweight))
    if bias is None:
        assert layer.dbias is None
    else:
        np.testing.assert_array_equal(backend.numpy(layer.dbias), backend.numpy(gradients.dbias))


def test_set_params_keeps_what_it_is_given_and_forgets_the_rest():
    layer = Conv(1, 1, (2, 2), rng=0)
    layer.forward(np.ones((1, 1, 3, 3)))
    layer.backward(np.ones((1, 1, 2, 2)))
    weights = np.ones((4, 2, 3))
    layer.set_params(weights)
    assert layer.weight is weights
    assert layer.bias is None
    assert layer.dweight is None
    assert layer.dbias is None
    with pytest.raises(RuntimeError, match=r"^backward needs what forward has seen: call forward first$"):
        layer.backward(np.ones((1, 1, 2, 2)))
    assert layer.forward(np.ones((5, 2, 7))).shape == (5, 4, 5)


def test_backward_before_forward_says_so():
    with pytest.raises(RuntimeError, match=r"^backward needs what forward has seen: call forward first$"):
        Conv().backward(np.ones((1, 1, 2, 2)))


def test_a_gradient_of_another_shape_says_so():
    layer = Conv(1, 2, (2, 2))
    layer.forward(np.ones((3, 1, 4, 4)))
    with pytest.raises(ValueError, match=r"^dZ must have shape \(3, 2, 3, 3\): got \(3, 2, 4, 4\)$"):
        layer.backward(np.ones((3, 2, 4, 4)))
    with pytest.raises(TypeError, match=r"^dZ must be a plain array .*: got list$"):
        layer.backward([1.0])


@pytest.mark.parametrize(
    ("error", "sentence", "make"),
    [
        (ValueError, "in_channels must be an integer of at least 1: got 0", lambda: Conv(0)),
        (TypeError, "out_channels must be an integer of at least 1: got 1.5", lambda: Conv(1, 1.5)),
        (
            TypeError,
            "kernel_size must be a sequence of integers of at least 1, one per spatial axis: got 3",
            lambda: Conv(1, 1, 3),
        ),
        (
            ValueError,
            "kernel_size must be an integer of at least 1, or a sequence of 2, one per spatial axis: got (3,)",
            lambda: Conv2d(1, 1, (3,)),
        ),
        (
            ValueError,
            "stride must be an integer of at least 1, or a sequence of 2, one per spatial axis: got 0",
            lambda: Conv2d(1, 1, 3, 0),
        ),
        (
            ValueError,
            "groups must divide the input channels: got groups=3, 8 channels",
            lambda: Conv2d(8, 6, 3, groups=3),
        ),
        (
            ValueError,
            "groups must divide the output channels: got groups=4, 6 channels",
            lambda: Conv2d(8, 6, 3, groups=4),
        ),
        (
            TypeError,
            "xp must be an array library that speaks the Array API: got 'numpy'",
            lambda: Conv2d(1, 1, 3, xp="numpy"),
        ),
        *(
            (
                TypeError,
                f"dtype must be one for real or complex numbers of 32 or 64 bits: got {dtype!r}",
                lambda dtype=dtype: Conv2d(1, 1, 3, dtype=dtype),
            )
            for dtype in (np.dtype("int64"), np.float16, "float32", float, 3, [])
        ),
        *(
            (
                TypeError,
                f"rng must be a seed of at least 0 or a numpy.random.Generator: got {rng!r}",
                lambda rng=rng: Conv2d(1, 1, 3, rng=rng),
            )
            for rng in ("x", -1, 1.5)
        ),
        (TypeError, "bias must be a bool: got 'no'", lambda: Conv2d(1, 1, 3, bias="no")),
        (
            ValueError,
            "weights must have axes (out channels, in channels / groups, 2 of the kernel): got 3",
            lambda: Conv2d().set_params(np.ones((1, 1, 2))),
        ),
        (
            ValueError,
            "weights must have axes (out channels, in channels / groups, *kernel): got 1",
            lambda: Conv().set_params(np.ones(1)),
        ),
        (
            ValueError,
            "bias must have shape (2,): got (3,)",
            lambda: Conv().set_params(np.ones((2, 1, 2, 2)), np.ones(3)),
        ),
        (
            TypeError,
            "weights and bias must have one dtype: got float64 and float32",
            lambda: Conv().set_params(np.ones((2, 1, 2, 2)), np.ones(2, dtype="float32")),
        ),
    ],
)
def test_bad_input(error, sentence, make):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == sentence


def test_a_device_that_is_none():
    with pytest.raises(ValueError, match=r"^device must be one that .*numpy has here: got 'nonsense'"):
        Conv2d(1, 1, 3, device="nonsense")


def test_a_layer_is_a_conv_by_its_class():
    assert [kind.ndim for kind in (Conv, Conv1d, Conv2d, Conv3d)] == [None, 1, 2, 3]
    assert all(issubclass(kind, xpconv.Conv) for kind in (Conv1d, Conv2d, Conv3d))


def test_filters_are_transformed_once_and_again_when_they_change(backend, rng, monkeypatch):
    made, original = [], Winograd.ew

    def ew(self, *arguments, **keywords):
        made.append(self)
        return original(self, *arguments, **keywords)

    monkeypatch.setattr(Winograd, "ew", ew)
    layer = Conv2d(3, 4, 3, padding=1, rng=0, xp=backend.xp, device=backend.device)
    layer.set_params(backend.array(np.array(backend.numpy(layer.weight), dtype="float64")))
    x = backend.array(draw(rng, (2, 3, 9, 8), "float64"))
    keeps = backend.name.startswith("numpy")  # others would have to wait for a device to compare

    def forward_and_backward(times):
        made.clear()
        y = layer.forward(x)
        dx = layer.backward(y)
        assert len(made) == times
        np.testing.assert_array_equal(backend.numpy(y), backend.numpy(conv(x, layer.weight, padding=1)))
        expected = conv_backward(y, x, layer.weight, padding=1)
        for result, values in zip((dx, layer.dweight), expected, strict=False):
            np.testing.assert_array_equal(backend.numpy(result), backend.numpy(values))

    with options(method="winograd"):
        forward_and_backward(2)
        forward_and_backward(0 if keeps else 2)
        layer.weight = layer.weight * 2
        forward_and_backward(2)
        if backend.name == "numpy":
            held = layer.weight
            held[1, 2, 0, 1] += 1.0  # by whoever holds it
            forward_and_backward(2)
            forward_and_backward(0)
        layer.set_params(backend.array(draw(rng, (2, 3, 3, 5), "float64")))
        forward_and_backward(2)


@pytest.mark.parametrize("method", ["auto", "lowering", "banded", "fft"])
def test_what_is_kept_belongs_to_a_geometry(rng, method):
    # With "same_lower" and a stride the taps of a phase depend on the input's size.
    layer = Conv2d(4, 4, 4, stride=2, padding="same_lower", rng=0)
    with options(method=method):
        for size in (24, 25, 24, 6, 5):
            x = rng.standard_normal((2, 4, size, size))
            y = layer.forward(x)
            dx = layer.backward(y)
            expected = conv_backward(y, x, layer.weight, stride=2, padding="same_lower").dx
            np.testing.assert_array_equal(dx, expected)
        layer.stride = layer.dilation = 1
        np.testing.assert_array_equal(layer.forward(x), conv(x, layer.weight, padding="same_lower"))


def test_what_is_kept_is_no_view_of_a_weight_that_was():
    layer, x = Conv2d(3, 4, 1, rng=0), np.ones((1, 3, 4, 4))
    first = layer.weight
    layer.forward(x)
    layer.weight = first.copy()
    first *= 2
    np.testing.assert_array_equal(layer.forward(x), conv(x, layer.weight))


def test_what_is_kept_is_not_pickled(rng):
    layer, x = Conv2d(3, 4, 3, rng=0), rng.standard_normal((1, 3, 9, 9))
    with options(method="winograd"):
        y = layer.forward(x)
        again = pickle.loads(pickle.dumps(layer))
        assert again._kept == (None, {})
        np.testing.assert_array_equal(again.forward(x), y)


def test_what_is_kept_belongs_to_an_algorithm(rng):
    layer, x = Conv2d(3, 4, 3, rng=0), rng.standard_normal((2, 3, 9, 8))
    for method in ("winograd", "fft", "banded", "lowering", "winograd", "fft"):
        with options(method=method):
            np.testing.assert_array_equal(layer.forward(x), conv(x, layer.weight))
