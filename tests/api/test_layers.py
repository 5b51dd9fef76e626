"""The layers: what the seed's class did, and what it asserted away."""

from __future__ import annotations

import copy
import inspect
import pickle
import weakref

import array_api_compat
import numpy as np
import pytest
import torch
from support import assert_within, draw

import xpconv
from xpconv import (
    Conv,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    conv,
    conv_backward,
    conv_transpose,
    conv_transpose_backward,
    options,
)
from xpconv._algorithms.winograd import Winograd

# On CUDA cuDNN would compute with the 10 bits of TF32, and the reference would be the less exact of the two.
torch.backends.cudnn.allow_tf32 = False

PLAIN = "must be a plain array of a library that speaks the Array API: got"
TOO_LARGE = "must lead to an array of less than 2**63 bytes: got one of shape"
OWN = (
    "in_channels, out_channels, kernel_size, stride, padding, bias, rng, xp, dtype, device, dilation, groups, "
    "padding_mode, padding_value, input_dilation, flip, channel_axis"
)
KEYS = "state must have the keys 'weight' and 'bias'"
MODES = "'zeros', 'reflect', 'replicate', 'circular', 'symmetric', 'constant'"
PARAMETERS = (
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
    "padding_value",
    "input_dilation",
    "flip",
    "channel_axis",
)


def test_defaults_are_the_seeds():
    layer = Conv()
    assert layer.weight.shape == (1, 1, 2, 2)
    assert [getattr(layer, name) for name in PARAMETERS] == [1, 0, 1, 1, "zeros", 0.0, 1, False, 1]
    np.testing.assert_array_equal(layer.bias, [0.0])
    assert layer.dweight is None
    assert layer.dbias is None


@pytest.mark.parametrize(("kind", "ndim"), [(Conv1d, 1), (Conv3d, 3), (ConvTranspose, 2), (ConvTranspose1d, 1)])
def test_the_default_kernel_has_two_taps_on_each_axis(kind, ndim):
    assert kind().weight.shape == (1, 1, *(2,) * ndim)


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
        (lambda: Conv2d(2, 4, 3, 2, 3, padding_mode=("reflect", "circular"), groups=2), (2, 2, 5, 4)),
        (
            lambda: Conv2d(2, 4, 3, padding=2, padding_mode=("constant", "symmetric"), padding_value=2.0, groups=2),
            (2, 2, 5, 4),
        ),
        (lambda: Conv2d(2, 3, (2, 3), padding=1, input_dilation=(2, 3), flip=True), (2, 2, 4, 3)),
        (lambda: Conv2d(2, 3, 3, padding="causal", dilation=2, channel_axis=-1), (2, 5, 4, 2)),
        (lambda: Conv1d(2, 3, 3, padding="full", channel_axis=0, bias=False), (2, 4, 3, 5)),
        (lambda: Conv(3, 4, ()), (5, 3)),
    ],
)
def test_forward_and_backward_are_the_functions(backend, rng, make, shape):
    layer = make()
    weight = backend.array(layer.weight)
    bias = None if layer.bias is None else backend.array(draw(rng, layer.bias.shape, "float64"))
    layer.set_params(weight, bias)
    x = backend.array(draw(rng, shape, "float64"))
    parameters = {name: getattr(layer, name) for name in PARAMETERS}
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


@pytest.mark.parametrize(
    ("make", "shape", "output_size"),
    [
        (lambda: ConvTranspose(2, 3, (3, 2), 2, 1, 1), (2, 2, 4, 3), None),
        (lambda: ConvTranspose1d(4, 6, 3, stride=3, groups=2), (2, 4, 5), 17),
        (lambda: ConvTranspose2d(2, 3, 3, 2, 1, (0, 1), bias=False), (2, 4, 3), None),  # without a batch
        (lambda: ConvTranspose2d(2, 3, 4, 2, "same"), (2, 2, 4, 3), (7, 6)),
        (lambda: ConvTranspose2d(2, 3, 3, 2, 2, padding_mode=("circular", "reflect")), (2, 2, 4, 3), None),
        (lambda: ConvTranspose2d(2, 3, 3, 1, 1, dilation=2, flip=True, channel_axis=-1), (2, 4, 3, 2), None),
        (lambda: ConvTranspose3d(2, 1, 2, 2), (2, 2, 2, 3, 2), None),
    ],
)
def test_transposed_forward_and_backward_are_the_functions(backend, rng, make, shape, output_size):
    layer = make()
    weight = backend.array(layer.weight)
    bias = None if layer.bias is None else backend.array(draw(rng, layer.bias.shape, "float64"))
    layer.set_params(weight, bias)
    x = backend.array(draw(rng, shape, "float64"))
    said = {name: getattr(layer, name) for name in PARAMETERS}
    size = {"output_padding": layer.output_padding} if output_size is None else {"output_size": output_size}
    y = layer.forward(x) if output_size is None else layer.forward(x, output_size)
    np.testing.assert_array_equal(backend.numpy(y), backend.numpy(conv_transpose(x, weight, bias, **size, **said)))
    dy = backend.array(draw(rng, tuple(y.shape), "float64"))
    gradients = conv_transpose_backward(dy, x, weight, **size, **said)
    dx = layer.backward(dy)
    for ours, values in zip((dx, layer.dweight, layer.dbias), gradients, strict=True):
        if ours is None:
            assert bias is None
        else:
            np.testing.assert_array_equal(backend.numpy(ours), backend.numpy(values))


def against_torch(backend, rng, layer, theirs, shape, dtype="float64", **to_forward):
    """Forward and backward with torch's weights, each backend against torch on torch's own device."""
    theirs = theirs.to(dtype=getattr(torch, dtype), device=backend.torch_device)
    layer.state = theirs.state_dict()
    x = draw(rng, shape, dtype)
    dy = draw(rng, tuple(theirs(torch.asarray(x, device=backend.torch_device), **to_forward).shape), dtype)

    def by_torch(module, x, dy):
        x, dy = (torch.asarray(a, device=backend.torch_device) for a in (x, dy))
        module.zero_grad()
        y = module(x.requires_grad_(), **to_forward)
        y.backward(dy)
        results = [y, x.grad, module.weight.grad, *([] if module.bias is None else [module.bias.grad])]
        return [a.detach().cpu().numpy() for a in results]

    sizes = copy.deepcopy(theirs).double()
    with torch.no_grad():
        for parameter in sizes.parameters():
            parameter.abs_()
    y = layer.forward(backend.array(x), **to_forward)
    dx = layer.backward(backend.array(dy))
    ours = [y, dx, layer.dweight, *([] if layer.bias is None else [layer.dbias])]
    magnitude = by_torch(sizes, np.abs(x).astype("float64"), np.abs(dy).astype("float64"))
    terms = max(x.size, dy.size) + 1  # no sum here has more
    for result, values, most in zip(ours, by_torch(theirs, x, dy), magnitude, strict=True):
        result = backend.numpy(result)
        assert result.dtype == values.dtype == np.dtype(dtype)
        assert_within(result, values, most, terms)


def made_alike(backend, kind, theirs, *arguments, **said):
    """Our layer and torch's, which has the same arguments in the same order."""
    return kind(*arguments, **said, xp=backend.xp, device=backend.device), theirs(*arguments, **said)


@pytest.mark.parametrize(
    ("ndim", "arguments", "said", "shape"),
    [
        (1, (3, 4, 5), {}, (2, 3, 7)),
        (1, (4, 6, 3, 3, 1, 2), {"groups": 2, "bias": False}, (2, 4, 5)),
        (2, (3, 5, 4), {"stride": 2, "padding": 1}, (2, 3, 6, 5)),
        (2, (4, 6, (3, 2)), {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2), "groups": 2}, (2, 4, 4, 3)),
        (2, (2, 3, 3), {"dilation": (2, 3), "output_padding": (1, 2), "padding": 2}, (2, 2, 5, 4)),
        (2, (2, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}, (2, 4, 5)),  # without a batch
        (3, (2, 4, (2, 3, 2)), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}, (2, 2, 3, 2, 3)),
    ],
)
def test_transposed_layers_are_torchs(backend, rng, ndim, arguments, said, shape):
    kind = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)[ndim - 1]
    theirs = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)[ndim - 1]
    against_torch(backend, rng, *made_alike(backend, kind, theirs, *arguments, **said), shape)
    # And the one of any number of axes.
    kernel = arguments[2] if isinstance(arguments[2], tuple) else (arguments[2],) * ndim
    arguments = (*arguments[:2], kernel, *arguments[3:])
    against_torch(backend, rng, *made_alike(backend, ConvTranspose, theirs, *arguments, **said), shape, "float32")


@pytest.mark.parametrize("output_size", [(8, 11), (9, 12), (9, 13)])
def test_output_size_is_torchs(backend, rng, output_size):
    said = {"stride": (2, 3), "padding": 1, "groups": 2}
    layers = made_alike(backend, ConvTranspose2d, torch.nn.ConvTranspose2d, 4, 6, (4, 4), **said)
    against_torch(backend, rng, *layers, (2, 4, 4, 4), output_size=list(output_size))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    ("ndim", "arguments", "said", "shape"),
    [
        (1, (3, 4, 4), {"padding": 3, "stride": 2}, (2, 3, 8)),
        (2, (3, 4, 3), {"padding": (2, 1), "stride": (1, 2)}, (2, 3, 6, 5)),
        (2, (4, 6, (3, 2)), {"padding": "same", "groups": 2, "dilation": (1, 2), "bias": False}, (2, 4, 5, 7)),
        (3, (2, 3, 3), {"padding": 1, "dilation": (1, 2, 1)}, (2, 2, 3, 4, 3)),
    ],
)
def test_layers_with_a_padding_mode_are_torchs(backend, rng, ndim, arguments, said, shape, mode):
    kind = (Conv1d, Conv2d, Conv3d)[ndim - 1]
    theirs = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)[ndim - 1]
    layers = made_alike(backend, kind, theirs, *arguments, **said, padding_mode=mode)
    against_torch(backend, rng, *layers, shape, "float32" if mode == "circular" else "float64")


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda n, **said: Conv1d(n, 3, 2, **said), (5,)),
        (lambda n, **said: Conv2d(n, 4, (3, 2), 2, 1, groups=2, **said), (5, 4)),
        (lambda n, **said: ConvTranspose2d(n, 4, (3, 2), 2, 1, groups=2, **said), (5, 4)),
        (lambda n, **said: ConvTranspose(n, 3, (2,), bias=False, **said), (5,)),
        (lambda n, **said: Conv(n, 3, (), **said), ()),
    ],
)
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("channel_axis", [1, -1])
def test_channels_are_learned_from_the_first_input(backend, rng, make, size, batch, channel_axis):
    """With the weights that there would be, had they been said."""
    made_for = {"xp": backend.xp, "device": backend.device, "channel_axis": channel_axis}
    for channels in (2, 6):
        said, learned = make(channels, rng=11, **made_for), make(None, rng=11, **made_for)
        assert learned.in_channels == learned.groups
        assert repr(learned).startswith(f"{type(learned).__name__}(None, ")
        shape = (*batch, channels, *size) if channel_axis == 1 else (*batch, *size, channels)
        dtype = backend.numpy(said.weight).dtype.name
        x = backend.array(draw(rng, shape, dtype))
        y = learned.forward(x)
        assert learned.in_channels == channels
        assert repr(learned) == repr(said)
        np.testing.assert_array_equal(backend.numpy(learned.weight), backend.numpy(said.weight))
        np.testing.assert_array_equal(backend.numpy(y), backend.numpy(said.forward(x)))
        np.testing.assert_array_equal(backend.numpy(learned.backward(y)), backend.numpy(said.backward(y)))
        # Once only.
        with pytest.raises(ValueError, match=r"^weight must have "):
            learned.forward(
                backend.array(draw(rng, (*shape[:-1], 8) if channel_axis == -1 else (*batch, 8, *size), dtype))
            )
        np.testing.assert_array_equal(backend.numpy(learned.weight), backend.numpy(said.weight))


def test_a_layer_that_has_as_many_channels_as_it_has_groups_has_learned_them(rng):
    layer = Conv1d(None, 4, 2, groups=2, rng=0)
    before = layer.weight
    layer.forward(rng.standard_normal((1, 2, 5)))
    assert layer.weight is before
    with pytest.raises(ValueError, match=r"^weight must have 2 input channels .*: got 1$"):
        layer.forward(rng.standard_normal((1, 4, 5)))


def test_what_cannot_be_learned_changes_nothing(rng):
    layer = Conv2d(None, 4, 3, groups=2, rng=0)
    before = layer.weight.copy()
    for x, sentence in (
        (np.ones((1, 5, 4, 4)), r"^groups must divide the input channels: got groups=2, 5 channels$"),
        (np.ones((4, 4)), r"^X must have at least 3 axes "),
    ):
        with pytest.raises(ValueError, match=sentence):
            layer.forward(x)
    with pytest.raises(TypeError, match=r"^X must be a plain array .*: got list; pass np.asarray\(X\)$"):
        layer.forward([1.0])
    np.testing.assert_array_equal(layer.weight, before)
    layer.forward(rng.standard_normal((1, 6, 4, 4)))
    np.testing.assert_array_equal(layer.weight, Conv2d(6, 4, 3, groups=2, rng=0).weight)


@pytest.mark.parametrize("how", ["set_params", "state"])
def test_weights_that_are_set_end_learning(backend, how):
    layer = Conv1d(None, 3, 2, xp=backend.xp, device=backend.device)
    weight, bias = backend.array(np.ones((3, 1, 2))), backend.array(np.ones(3))
    if how == "state":
        layer.state = {"weight": weight, "bias": bias}
    else:
        layer.set_params(weight, bias)
    assert repr(layer) == "Conv1d(1, 3, (2,))"
    with pytest.raises(ValueError, match=r"^weight must have 4 input channels "):
        layer.forward(backend.array(np.ones((2, 4, 5))))
    np.testing.assert_array_equal(
        backend.numpy(layer.forward(backend.array(np.ones((2, 1, 3))))), np.full((2, 3, 2), 3)
    )


LAYERS = [
    lambda: Conv(),
    lambda: Conv(3, 8, (3, 3)),
    lambda: Conv(3, 8, ()),
    lambda: Conv1d(3, 8, 5, 2, "same", bias=False),
    lambda: Conv2d(4, 8, 3, (2, 1), [(1, 2), (0, 3)], dilation=(1, 2), groups=2, padding_mode="reflect"),
    lambda: Conv2d(4, 8, 3, padding=1, padding_mode=["reflect", "circular"], flip=True, channel_axis=-1),
    lambda: Conv2d(None, 8, 3, groups=2, channel_axis=0),
    lambda: Conv3d(2, 4, (1, 2, 3), padding="causal", input_dilation=(1, 2, 1)),
    lambda: ConvTranspose(8, 3, (4, 4), 2, 1),
    lambda: ConvTranspose1d(8, 3, 4, stride=3, output_padding=(2,)),
    lambda: ConvTranspose2d(8, 4, 4, 2, 1, 1, groups=2, bias=False),
    lambda: ConvTranspose3d(None, 4, 2, padding_mode="circular"),
]


@pytest.mark.parametrize("make", LAYERS)
def test_repr_reads_like_the_call(make):
    layer = make()
    again = eval(repr(layer), vars(xpconv))
    assert type(again) is type(layer)
    assert repr(again) == repr(layer)
    assert again.weight.shape == layer.weight.shape
    assert (again.bias is None) == (layer.bias is None)
    for name in (*PARAMETERS, *(["output_padding"] if isinstance(layer, ConvTranspose) else [])):
        assert getattr(again, name) == getattr(layer, name)


def test_repr_leaves_out_the_defaults():
    assert repr(Conv()) == "Conv(None, 1, (2, 2))"
    assert repr(Conv2d(3, 8, 3)) == "Conv2d(3, 8, (3, 3))"
    layer = ConvTranspose2d(3, 8, 3, 2)
    assert repr(layer) == "ConvTranspose2d(3, 8, (3, 3), stride=2)"
    layer.stride, layer.flip = 1, True
    assert repr(layer) == "ConvTranspose2d(3, 8, (3, 3), flip=True)"


def test_repr_of_numpys_own_integers():
    layer = Conv2d(3, 8, np.asarray([3, 2]), stride=np.asarray([1, 2]), padding=np.asarray([1, 0]))
    assert eval(repr(layer), {**vars(xpconv), "array": np.asarray, "np": np}).forward(np.ones((3, 5, 4))).shape == (
        8,
        5,
        2,
    )


@pytest.mark.parametrize("kind", [Conv, Conv1d, Conv2d, Conv3d, ConvTranspose, ConvTranspose1d])
def test_signatures_show_every_parameter(kind):
    parameters = inspect.signature(kind).parameters
    assert all(p.kind is not p.VAR_KEYWORD for p in parameters.values())
    assert set(PARAMETERS) <= set(parameters)
    assert list(parameters)[:5] == ["in_channels", "out_channels", "kernel_size", "stride", "padding"]


def test_parameters_are_the_layers_own(backend):
    layer = Conv1d(2, 3, 2, xp=backend.xp, device=backend.device)
    assert list(layer.parameters()) == ["weight", "bias"]
    assert layer.parameters()["weight"] is layer.weight
    assert layer.parameters()["bias"] is layer.bias
    assert list(ConvTranspose1d(2, 3, 2, bias=False).parameters()) == ["weight"]
    assert all(layer.state[name] is layer.parameters()[name] for name in ("weight", "bias"))
    layer.forward(backend.array(np.ones((1, 2, 4), dtype=backend.numpy(layer.weight).dtype)))
    layer.backward(backend.array(np.ones((1, 3, 3), dtype=backend.numpy(layer.weight).dtype)))
    before = backend.numpy(layer.weight).copy()
    parameters = layer.parameters()
    with backend.here():
        parameters["weight"] -= 0.5 * layer.dweight  # one step, in place
    assert parameters["weight"] is layer.weight
    np.testing.assert_array_equal(backend.numpy(layer.weight), before - 0.5 * backend.numpy(layer.dweight))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "theirs"), [(Conv2d, torch.nn.Conv2d), (ConvTranspose2d, torch.nn.ConvTranspose2d)])
def test_state_goes_to_torch_and_back(backend, kind, theirs, bias):
    said = {"stride": 2, "groups": 2, "bias": bias}
    torch_layer = theirs(4, 6, (3, 2), **said)
    layer = kind(4, 6, (3, 2), **said, rng=3, xp=backend.xp, dtype=backend.xp.float64, device=backend.device)
    own = {name: backend.numpy(array).copy() for name, array in layer.state.items()}

    if backend.xp is array_api_compat.torch:
        torch_layer.load_state_dict(layer.state)
    else:
        torch_layer.load_state_dict({name: torch.tensor(backend.numpy(a)) for name, a in layer.state.items()})
    for name, array in torch_layer.state_dict().items():
        np.testing.assert_array_equal(array.numpy(), own[name].astype("float32"))

    with torch.no_grad():
        for parameter in torch_layer.parameters():
            parameter += 1
    layer.state = torch_layer.state_dict()
    for name, array in layer.state.items():
        values = backend.numpy(array)  # in the library and on the device that the layer was made for
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, torch_layer.state_dict()[name].numpy())
    # Copies: what happens there does not happen here, or the reverse.
    before = {name: backend.numpy(array).copy() for name, array in layer.state.items()}
    with torch.no_grad():
        for parameter in torch_layer.parameters():
            parameter.zero_()
    for name, array in layer.state.items():
        np.testing.assert_array_equal(backend.numpy(array), before[name])
    assert not np.any([np.any(array.numpy()) for array in torch_layer.state_dict().values()])


def test_state_goes_from_layer_to_layer(backend):
    one = ConvTranspose1d(2, 4, 3, groups=2, rng=1)
    other = ConvTranspose1d(2, 4, 3, groups=2, rng=2, xp=backend.xp, device=backend.device)
    other.state = one.state
    values = backend.numpy(other.weight).copy()
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, one.weight)
    one.weight *= 2
    one.bias += 1
    np.testing.assert_array_equal(backend.numpy(other.weight), values)
    np.testing.assert_array_equal(backend.numpy(other.bias), np.zeros(4))
    one.state = other.state
    np.testing.assert_array_equal(one.weight, values)
    assert one.weight.flags.writeable


def test_state_takes_torchs_parameters_off_the_tape(backend):
    torch_layer = torch.nn.Conv1d(2, 3, 2)
    layer = Conv1d(2, 3, 2, xp=backend.xp, device=backend.device)
    layer.state = dict(torch_layer.named_parameters())
    np.testing.assert_array_equal(backend.numpy(layer.weight), torch_layer.weight.detach().numpy())
    assert not getattr(layer.weight, "requires_grad", False)


def test_a_state_that_does_not_fit_changes_nothing():
    layer = Conv1d(2, 3, 2, rng=0)
    weight, bias = layer.weight, layer.bias
    good = {"weight": np.ones((3, 2, 2)), "bias": np.ones(3)}
    for error, sentence, state in (
        (ValueError, f"{KEYS}: 'bias' is missing", {"weight": good["weight"]}),
        (ValueError, f"{KEYS}: 'weight' is missing, 'kernel' is unknown", {"kernel": 1, "bias": 2}),
        (ValueError, f"{KEYS}: 'dweight' is unknown (did you mean 'weight'?)", {**good, "dweight": 1}),
        (ValueError, f"{KEYS}: 'weight' is missing, 'bias' is missing", {}),
        (TypeError, "state must be a mapping from names to arrays: got None", None),
        (TypeError, f"state['bias'] {PLAIN} float; pass np.asarray(state['bias'])", {**good, "bias": 1.0}),
        (TypeError, f"state['bias'] {PLAIN} NoneType", {**good, "bias": None}),
        (ValueError, "state['bias'] must have shape (3,): got (2,)", {**good, "bias": np.ones(2)}),
        (ValueError, "state['weight'] must have shape (3, 2, 2): got (3, 2)", {**good, "weight": np.ones((3, 2))}),
        (ValueError, "state['weight'] must have shape (3, 2, 2): got (3, 1, 2)", {**good, "weight": weight[:, :1]}),
        (
            ValueError,
            "state['weight'] must have shape (3, 2, 2): got (4, 2, 2)",
            {"weight": np.ones((4, 2, 2)), "bias": np.ones(4)},
        ),
    ):
        with pytest.raises(error) as caught:
            layer.state = state
        assert str(caught.value) == sentence
        assert layer.weight is weight
        assert layer.bias is bias
    without = ConvTranspose1d(2, 3, 2, bias=False)
    with pytest.raises(ValueError, match=r"^state must have the keys 'weight': 'bias' is unknown$"):
        without.state = good


@pytest.mark.parametrize(
    ("make", "shape"),
    [(lambda: Conv1d(None, 4, 2, groups=2), (4, 3, 2)), (lambda: ConvTranspose1d(None, 4, 2), (5, 4, 2))],
)
def test_a_layer_that_learns_takes_the_channels_of_a_state(make, shape):
    layer = make()
    layer.state = {"weight": np.ones(shape), "bias": np.ones(4)}
    assert layer.weight.shape == shape
    layer = make()
    for wrong in ((*shape[:2], 3), shape[:2]):
        with pytest.raises(ValueError, match=r"^state\['weight'\] must have shape "):
            layer.state = {"weight": np.ones(wrong), "bias": np.ones(4)}


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("how", [lambda layer: pickle.loads(pickle.dumps(layer)), copy.deepcopy])
def test_a_pickled_layer_goes_on(backend, rng, make, how):
    layer = make()
    shape = [2, *(6,) * (layer.weight.ndim - 2)]
    channels = layer.in_channels if "(None," not in repr(layer) else 4
    shape.insert(layer.channel_axis if layer.channel_axis >= 0 else len(shape), channels)
    x = draw(rng, tuple(shape), "float64")
    layer.forward(x)  # from which some learn how many channels there are
    layer.set_params(backend.array(layer.weight), None if layer.bias is None else backend.array(layer.bias + 1.0))
    x = backend.array(x)
    again = how(layer)
    assert repr(again) == repr(layer)
    y = layer.forward(x)
    np.testing.assert_array_equal(backend.numpy(again.forward(x)), backend.numpy(y))
    dx = layer.backward(y)
    np.testing.assert_array_equal(backend.numpy(again.backward(y)), backend.numpy(dx))
    later = how(layer)  # with the gradients that backward found, without what forward has seen
    np.testing.assert_array_equal(backend.numpy(later.dweight), backend.numpy(layer.dweight))
    with pytest.raises(RuntimeError, match=r"^backward needs what forward has seen: call forward first$"):
        later.backward(y)


@pytest.mark.parametrize("kind", [Conv1d, ConvTranspose1d])
def test_a_pickle_holds_no_input(kind):
    layer = kind(2, 3, 5)
    before = len(pickle.dumps(layer))
    layer.backward(layer.forward(np.ones((1, 2, 10**5))))
    gradients = layer.dweight.nbytes + layer.dbias.nbytes
    assert len(pickle.dumps(layer)) < before + 2 * gradients + 1000


def test_a_layer_on_torchs_tape_can_be_copied(rng):
    """What it has seen is no leaf, and nor are its gradients."""
    layer = Conv1d(2, 3, 2, xp=torch, dtype=torch.float64, rng=0)
    x = torch.asarray(rng.standard_normal((1, 2, 5)), requires_grad=True)
    layer.backward(layer.forward(2 * x))
    assert layer.dweight.grad_fn is not None
    for again in (copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(again.dweight, layer.dweight)
        assert not again.dweight.requires_grad
        assert torch.equal(again(x), layer(x))


@pytest.mark.parametrize("make", LAYERS)
def test_a_call_is_forward_and_remembers_nothing(backend, rng, make):
    layer, other = make(), make()
    weight, bias = backend.array(layer.weight), None if layer.bias is None else backend.array(layer.bias)
    shape = [2, *(6,) * (layer.weight.ndim - 2)]
    shape.insert(layer.channel_axis if layer.channel_axis >= 0 else len(shape), layer.in_channels)
    x, unseen = (backend.array(draw(rng, tuple(shape), "float64")) for _ in range(2))
    for one in (layer, other):
        one.set_params(weight, bias)
    y = layer(x)
    np.testing.assert_array_equal(backend.numpy(y), backend.numpy(other.forward(x)))
    with pytest.raises(RuntimeError, match=r"^backward needs what forward has seen: call forward first$"):
        layer.backward(y)
    layer.forward(x)
    layer(unseen)
    np.testing.assert_array_equal(backend.numpy(layer.backward(y)), backend.numpy(other.backward(y)))
    np.testing.assert_array_equal(backend.numpy(layer.dweight), backend.numpy(other.dweight))


def test_a_called_layer_holds_no_input():
    layer = Conv1d(1, 1, 2)
    x = np.ones((1, 1, 4))
    seen = weakref.ref(x)
    layer(x)
    del x
    assert seen() is None


def test_a_call_takes_an_output_size():
    layer, x = ConvTranspose1d(2, 3, 3, 2, rng=0), np.ones((1, 2, 4))
    np.testing.assert_array_equal(layer(x, 10), layer.forward(x, 10))
    assert layer(x, 10).shape == (1, 3, 10)


def test_a_call_teaches_the_channels():
    layer, x = Conv1d(None, 3, 2, rng=5), np.ones((1, 4, 5))
    np.testing.assert_array_equal(layer(x), Conv1d(4, 3, 2, rng=5).forward(x))
    np.testing.assert_array_equal(layer(x), layer(x))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(
    "make", [lambda **said: Conv1d(2, 3, 2, **said), lambda **said: ConvTranspose1d(2, 3, 2, **said)]
)
def test_a_layer_of_another_dtype(backend, make, dtype):
    layer = make(rng=1, xp=backend.xp, device=backend.device, dtype=backend.xp.float64)
    before = backend.numpy(layer.weight).copy()
    made = layer.astype(getattr(backend.xp, dtype))
    assert type(made) is type(layer)
    assert repr(made) == repr(layer)
    weight, bias = backend.numpy(made.weight), backend.numpy(made.bias)
    assert weight.dtype == bias.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(weight, before.astype(dtype))
    y = made(backend.array(np.ones((1, 2, 4), dtype)))
    assert backend.numpy(y).dtype == np.dtype(dtype)
    # They share no array, also where the dtype is the same.
    with backend.here():
        made.weight += 1
    np.testing.assert_array_equal(backend.numpy(layer.weight), before)


def test_a_layer_of_another_dtype_has_seen_nothing_and_learns_on():
    layer = Conv1d(None, 3, 2, rng=5, bias=False)
    made = layer.astype("float32")
    x = np.ones((1, 4, 5))
    y = layer.forward(x)
    np.testing.assert_array_equal(
        made(x.astype("float32")), Conv1d(4, 3, 2, rng=5, bias=False, dtype="float32")(x.astype("float32"))
    )
    with pytest.raises(RuntimeError, match=r"^backward needs what forward has seen"):
        layer.astype("complex128").backward(y)
    for dtype, sentence in (
        ("int32", r"^dtype must be one for real or complex numbers of 16, 32 or 64 bits: got 'int32'$"),
        ("float64", r"^dtype must be complex, as the parameters are: got 'float64'$"),
    ):
        with pytest.raises(TypeError, match=sentence):
            layer.astype("complex64").astype(dtype)


@pytest.mark.parametrize("method", ["__call__", "forward"])
@pytest.mark.parametrize("channels", [2, None])
def test_an_input_of_another_dtype(backend, method, channels):
    """But real and complex numbers of one precision go together."""
    layer = Conv1d(channels, 3, 2, xp=backend.xp, device=backend.device, dtype=backend.xp.float64)
    call = getattr(layer, method)
    names = [backend.numpy(backend.array(np.ones(1, name))).dtype.name for name in ("float32", "complex64", "int64")]
    for name in names:
        x = backend.array(np.ones((1, 2, 4), name))
        with pytest.raises(TypeError) as caught:
            call(x)
        assert str(caught.value) == (
            f"X must have the dtype of the layer's weight, {layer.weight.dtype}: got {x.dtype}; layers take dtype= "
            "when they are made, and layer.astype(dtype) returns one of another dtype"
        )
    assert backend.numpy(call(backend.array(np.ones((1, 2, 4), "complex128")))).dtype == np.complex128


def test_gradients_replace_those_of_the_last_backward(backend, rng):
    """They are not added to them: there is nothing to set to zero."""
    layer = Conv1d(2, 3, 2, xp=backend.xp, device=backend.device, dtype=backend.xp.float64)
    x = backend.array(draw(rng, (1, 2, 5), "float64"))
    y = layer.forward(x)
    layer.backward(y)
    first = backend.numpy(layer.dweight).copy()
    layer.backward(y)
    np.testing.assert_array_equal(backend.numpy(layer.dweight), first)


def test_a_pickled_layer_learns_what_it_would_have_learned(rng):
    layer = Conv1d(None, 3, 2, rng=5)
    again = pickle.loads(pickle.dumps(layer))
    x = rng.standard_normal((1, 4, 5))
    np.testing.assert_array_equal(again.forward(x), layer.forward(x))
    np.testing.assert_array_equal(again.weight, Conv1d(4, 3, 2, rng=5).weight)


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
    with pytest.raises(TypeError, match=r"^dZ must be a plain array .*: got list; pass np.asarray\(dZ\)$"):
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
                f"dtype must be one for real or complex numbers of 16, 32 or 64 bits: got {dtype!r}",
                lambda dtype=dtype: Conv2d(1, 1, 3, dtype=dtype),
            )
            for dtype in (np.dtype("int64"), np.bool_, "int32", int, 3, [])
        ),
        *(
            (
                TypeError,
                f"rng must be a seed of at least 0 or a numpy.random.Generator: got {rng!r}",
                lambda rng=rng: Conv2d(1, 1, 3, rng=rng),
            )
            for rng in ("x", -1, 1.5)
        ),
        (
            ValueError,
            f"in_channels, out_channels and kernel_size {TOO_LARGE} (1000000000000, 1000000000000, 3)",
            lambda: Conv1d(10**12, 10**12, 3),
        ),
        (TypeError, "bias must be a bool: got 'no'", lambda: Conv2d(1, 1, 3, bias="no")),
        (TypeError, "flip must be a bool: got 1", lambda: Conv2d(1, 1, 3, flip=1)),
        (
            ValueError,
            f"padding_mode must be one of {MODES}, or a sequence of 2 of them: got 'mirror'",
            lambda: Conv2d(1, 1, 3, padding_mode="mirror"),
        ),
        (
            ValueError,
            "padding_mode must be 'zeros' where input_dilation is not 1: got 'circular' on spatial axis 0",
            lambda: Conv1d(1, 1, 3, padding=1, padding_mode="circular", input_dilation=2),
        ),
        (
            ValueError,
            "input_dilation must be an integer of at least 1, or a sequence of 2, one per spatial axis: got 0",
            lambda: Conv2d(1, 1, 3, input_dilation=0),
        ),
        (
            ValueError,
            "channel_axis must be an integer from -4 to 3: got 4",
            lambda: Conv2d(1, 1, 3, channel_axis=4),
        ),
        (
            TypeError,
            f"Conv has no parameter 'strides' (did you mean 'stride'?): it has {OWN}",
            lambda: Conv2d(1, 1, 3, strides=2),
        ),
        (
            ValueError,
            "output_padding must be less than the stride or the dilation: got 2 on spatial axis 1",
            lambda: ConvTranspose2d(1, 1, 3, 2, output_padding=(1, 2)),
        ),
        (
            ValueError,
            "groups must divide the output channels: got groups=2, 3 channels",
            lambda: ConvTranspose2d(4, 3, 3, groups=2),
        ),
        (
            ValueError,
            "groups must divide the input channels: got groups=2, 3 channels",
            lambda: ConvTranspose2d(3, 4, 3, groups=2),
        ),
        (
            ValueError,
            "output_size must be from 9 to 10 on spatial axis 0: got 11",
            lambda: ConvTranspose1d(1, 1, 3, 2).forward(np.ones((1, 1, 4)), 11),
        ),
        (
            ValueError,
            "weights must have axes (in channels, out channels / groups, 2 of the kernel): got 3",
            lambda: ConvTranspose2d().set_params(np.ones((1, 1, 2))),
        ),
        (
            ValueError,
            "bias must have shape (3,): got (2,)",
            lambda: ConvTranspose2d().set_params(np.ones((2, 3, 2, 2)), np.ones(2)),
        ),
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
    transposed = (ConvTranspose, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)
    assert [kind.ndim for kind in transposed] == [None, 1, 2, 3]
    assert all(issubclass(kind, xpconv.ConvTranspose) for kind in transposed)


@pytest.mark.writable_too
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
        with backend.here():
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
        assert again._weight_cache == (None, {})
        np.testing.assert_array_equal(again.forward(x), y)


def test_what_is_kept_belongs_to_an_algorithm(rng):
    layer, x = Conv2d(3, 4, 3, rng=0), rng.standard_normal((2, 3, 9, 8))
    for method in ("winograd", "fft", "banded", "lowering", "winograd", "fft"):
        with options(method=method):
            np.testing.assert_array_equal(layer.forward(x), conv(x, layer.weight))


@pytest.mark.writable_too
@pytest.mark.parametrize("method", ["auto", "lowering", "winograd", "banded", "fft"])
@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
def test_weights_may_be_changed_in_place(backend, rng, kind, method):
    """By whoever holds them, between any two calls: nothing old is used."""
    layer = kind(3, 4, 3, padding=1, rng=0)
    layer.set_params(backend.array(layer.weight.copy()), backend.array(np.ones(4)))
    x = backend.array(draw(rng, (2, 3, 9, 8), "float64"))
    dy = backend.array(draw(rng, (2, 4, 9, 8), "float64"))
    functions = (conv, conv_backward) if kind is Conv2d else (conv_transpose, conv_transpose_backward)

    def agree():
        said = {"padding": 1, "flip": layer.flip}
        gradients = functions[1](dy, x, layer.weight, **said)
        y, dx = layer.forward(x), layer.backward(dy)
        for ours, values in (
            (y, functions[0](x, layer.weight, layer.bias, **said)),
            (dx, gradients.dx),
            (layer.dweight, gradients.dweight),
            (layer.dbias, gradients.dbias),
        ):
            np.testing.assert_array_equal(backend.numpy(ours), backend.numpy(values))
        return backend.numpy(y)

    with options(method=method):
        first = agree()
        np.testing.assert_array_equal(agree(), first)
        if backend.name != "numpy:readonly":
            with backend.here():
                layer.weight[1, 2, 0, 1] += 1.0
            assert not np.array_equal(agree(), first)
            with backend.here():
                layer.weight[1, 2, 0, 1] -= 1.0
        layer.flip = True
        turned = agree()
        assert not np.array_equal(turned, first)
        layer.flip = False
        agree()
        layer.flip = True
        np.testing.assert_array_equal(agree(), turned)
        if backend.name != "numpy:readonly":
            with backend.here():
                layer.weight[...] = backend.array(draw(rng, tuple(layer.weight.shape), "float64"))
                layer.bias[2] = 7.0
            agree()
            layer.flip = False
            agree()
        layer.weight = backend.array(draw(rng, tuple(layer.weight.shape), "float64"))
        agree()


@pytest.mark.parametrize("method", ["auto", "lowering", "banded", "fft"])
def test_what_is_kept_of_a_transposed_layer_belongs_to_a_geometry(rng, method):
    layer = ConvTranspose2d(4, 4, 4, stride=2, padding=1, rng=0)
    with options(method=method):
        for size, output_size in ((12, None), (13, None), (12, 25), (12, (24, 25)), (3, None), (12, None)):
            x = rng.standard_normal((2, 4, size, size))
            said = {"stride": layer.stride, "padding": 1, "output_size": output_size}
            y = layer.forward(x, output_size)
            dx = layer.backward(y)
            np.testing.assert_array_equal(y, conv_transpose(x, layer.weight, layer.bias, **said))
            np.testing.assert_array_equal(dx, conv_transpose_backward(y, x, layer.weight, **said).dx)
        layer.stride = 1
        np.testing.assert_array_equal(layer.forward(x), conv_transpose(x, layer.weight, layer.bias, padding=1))


def test_a_forward_that_fails_teaches_nothing():
    layer = Conv2d(None, 4, 3)
    with pytest.raises(ValueError, match=r"^the kernel must fit"):
        layer.forward(np.ones((1, 3, 2, 2)))
    with pytest.raises(ValueError, match=r"^X must have at least one channel for the layer to learn from"):
        layer.forward(np.ones((1, 0, 8, 8)))
    assert layer.forward(np.ones((1, 5, 8, 8))).shape == (1, 4, 6, 6)
    assert layer.in_channels == 5


def test_a_transposed_layer_of_a_dilated_input():
    layer = ConvTranspose1d(2, 3, 3, input_dilation=2, rng=0)
    x = np.ones((1, 2, 5))
    np.testing.assert_array_equal(layer.forward(x), conv_transpose(x, layer.weight, layer.bias, input_dilation=2))


@pytest.mark.parametrize(
    ("error", "sentence", "make"),
    [
        (ValueError, "groups must be an integer of at least 1: got 0", lambda: ConvTranspose2d(2, 3, 3, groups=0)),
        (TypeError, "groups must be an integer of at least 1: got 'a'", lambda: ConvTranspose2d(2, 3, 3, groups="a")),
        (
            ValueError,
            "groups must divide the output channels: got groups=2, 3 channels",
            lambda: ConvTranspose2d(2, 3, 3, groups=2),
        ),
        (
            ValueError,
            "padding_mode must be 'zeros' where input_dilation is not 1: got 'reflect' on spatial axis 0",
            lambda: ConvTranspose1d(2, 3, 3, padding=1, padding_mode="reflect", input_dilation=2),
        ),
    ],
)
def test_bad_input_of_transposed_layers(error, sentence, make):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == sentence


def test_states_that_cannot_be_taken_over():
    layer = Conv2d(2, 3, 3)
    with pytest.raises(
        ValueError, match=r"^state must have the keys 'weight' and 'bias': 'bias' is missing, 1 is unknown$"
    ):
        layer.state = {1: layer.weight, "weight": layer.weight}
    with pytest.raises(
        TypeError, match=r"^state\['weight'\] must be of numbers that NumPy and .*numpy have: got torch.bfloat16$"
    ):
        layer.state = torch.nn.Conv2d(2, 3, 3).bfloat16().state_dict()
