"""Layers, which own their weights and remember their input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, ClassVar, Self, Unpack, cast

import numpy as np

from .._arrays.devices import device, device_number, moved
from .._arrays.doors import comparable, known_equal, lasting
from .._arrays.dtypes import real_dtype
from .._arrays.layout import Layout
from .._arrays.namespace import agree, copied_like, creation, is_complex
from .._arrays.typing import ArrayT
from .._engines.entry import public, spelled
from .._engines.problem import Transposed
from .._spec.convolution import Convolution
from .._spec.geometry import Padding, PerAxis, check_elements, check_shape, integer, per_axis
from .._spec.names import did_you_mean
from .._spec.parameters import ConvParameters, LayerParameters, Parameters
from . import calls

__all__ = [
    "Conv",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
]


def _backward(dy: ArrayT, x: ArrayT, weight: ArrayT, *others: Any) -> Any:
    return calls.backward((dy, x, weight), *others)


forward, backward = public(calls.forward), public(_backward)  # each is one step for torch's compiler


class Conv:
    """A convolution that owns its weight and bias, over as many spatial axes as its kernel has.

    Weights are drawn from a normal distribution, divided by ``sqrt(in_channels / 2)``; the bias begins at zero.

    Parameters
    ----------
    in_channels : int, optional
        Channels of the input. If left out, there is one for each group at first, and the first input determines the
        number: then the weights are drawn anew.
    out_channels : int, default 1
        Channels of the output.
    kernel_size : sequence of int, default (2, 2)
        One size per spatial axis. `Conv1d`, `Conv2d` and `Conv3d` take an integer, too, and have 2 on each of their
        axes by default.
    stride, padding, **parameters
        As for `conv`; each is an attribute, too.
    bias : bool, default True
        Whether there is a bias.
    rng : int or numpy.random.Generator, optional
        Where the weights are drawn from: a seed or a generator. They are drawn with NumPy for every library, so one
        seed gives the same weights everywhere.
    xp : module, optional
        The array library of the weights: ``numpy`` (the default), ``cupy``, ``torch`` and so on.
    dtype : dtype, optional
        Of the weights, by default the library's own default for real numbers. An input of another dtype is an error;
        `astype` returns a layer of another dtype.
    device : device, optional
        Of the weights, by default the library's own default.

    Attributes
    ----------
    weight : array, shape (out_channels, in_channels / groups, *kernel_size)
    bias : array, shape (out_channels,), or None
    dweight, dbias : array or None
        The gradients that the last `backward` found.
    state : dict
        The weight, and the bias if there is one, by name. May be set from another layer's, or from torch's, of the same
        names and shapes.

    Raises
    ------
    TypeError, ValueError
        If a size is no integer, too small, or the groups do not divide the channels.

    See Also
    --------
    conv, conv_backward : What it computes.

    Notes
    -----
    Call the layer itself, ``layer(x)``, where no gradient is needed: it convolves and remembers nothing. `forward`
    remembers its input for `backward`, which sets `dweight` and `dbias` and adds nothing to those of another
    `backward`; so there is no ``zero_grad``, and none is needed. Copies and pickles of a layer hold its parameters and
    gradients, and no input.

    With this standard deviation signals keep their size from layer to layer, if there are rectifiers between them and
    the kernel has one tap [1]_. For a larger kernel divide the weights by the root of its number of taps:
    ``layer.set_params(layer.weight / math.sqrt(taps), layer.bias)``.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun, "Delving Deep into Rectifiers: Surpassing Human-Level Performance on
       ImageNet Classification", ICCV, 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import Conv
    >>> layer = Conv(3, 8, (3, 3), padding="same", rng=0)
    >>> images = np.ones((2, 3, 5, 5))
    >>> layer.forward(images).shape
    (2, 8, 5, 5)
    >>> layer.backward(np.ones((2, 8, 5, 5))).shape, layer.dweight.shape, layer.dbias[0]
    ((2, 3, 5, 5), (8, 3, 3, 3), np.float64(50.0))
    """

    ndim: ClassVar[int | None] = None

    stride: PerAxis
    padding: Padding
    dilation: PerAxis
    groups: int
    padding_mode: str | Sequence[str]
    padding_value: complex
    input_dilation: PerAxis
    flip: bool
    channel_axis: int

    @partial(spelled, without=("per_sample",))
    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int = 1,
        kernel_size: PerAxis | None = None,
        stride: PerAxis = 1,
        padding: Padding = 0,
        *,
        bias: bool = True,
        rng: int | np.random.Generator | None = None,
        xp: Any = None,
        dtype: Any = None,
        device: Any = None,
        **parameters: Unpack[LayerParameters],
    ) -> None:
        params: dict[str, Any] = {**parameters, "stride": stride, "padding": padding}
        if "per_sample" in params:
            raise ValueError("per_sample must be given to functions: a layer has one weight for all samples")
        for name in Parameters.of(cast(ConvParameters, params))._fields[:-2]:  # dtype is that of the weight
            setattr(self, name, params.get(name, Parameters._field_defaults[name]))
        channels = integer("groups", self.groups, 1) if in_channels is None else integer("in_channels", in_channels, 1)
        out_channels = integer("out_channels", out_channels, 1)
        kernel_size = (2,) * (2 if self.ndim is None else self.ndim) if kernel_size is None else kernel_size
        kernel = per_axis("kernel_size", kernel_size, self.ndim, 1)
        shape = self._shape(channels, out_channels, kernel)
        if not isinstance(bias, bool):
            raise TypeError(f"bias must be a bool: got {bias!r}")
        create = creation(np if xp is None else xp, dtype, device)
        self.weight: Any = create(_drawn(rng, shape, channels))
        self.bias: Any = create(np.zeros(out_channels)) if bias else None
        self._forget()
        self._learns = in_channels is None
        self._rng = rng if self._learns else None

    def _forget(self) -> None:
        self.dweight: Any = None
        self.dbias: Any = None
        self._seen: tuple[Any, tuple[int, ...], Transposed] | None = None
        self._weight_cache: tuple[Any, dict[Any, Any]] = (None, {})
        self._learns = False

    def _learned(self, X: ArrayT) -> Any:
        """The weight, drawn for as many channels as the first input has."""
        agree(X=X, weight=self.weight)
        kernel = tuple(self.weight.shape[2:])
        channels = Layout.of("X", X.shape, len(kernel), self.channel_axis).inner(X.shape)[1]
        if channels == self.in_channels:
            return self.weight
        if not channels:
            raise ValueError(
                f"X must have at least one channel for the layer to learn from: got shape {tuple(X.shape)}"
            )
        drawn = _drawn(self._rng, self._shape(channels, self.out_channels, kernel), channels)
        learned = copied_like(drawn, self.weight, self.weight.dtype)
        if device(learned) is None and device(self.weight) is not None:  # an array made in a trace ends with it
            raise ValueError(
                "in_channels must be given, or learned by a first forward outside of jit: got X of "
                f"{channels} channels in a trace"
            )
        return learned

    @property
    def in_channels(self) -> int:
        """The number of channels of the input."""
        return self._channels(self.weight.shape)[0]

    @property
    def out_channels(self) -> int:
        """The number of channels of the output."""
        return self._channels(self.weight.shape)[1]

    def __repr__(self) -> str:
        """The call that makes such a layer."""
        called = map(
            repr, (None if self._learns else self.in_channels, self.out_channels, tuple(self.weight.shape[2:]))
        )
        defaults = {**Parameters._field_defaults, "output_padding": 0}
        values = {name: repr(value) for name, value in vars(self).items() if name in defaults}
        others = [f"{name}={value}" for name, value in values.items() if value != repr(defaults[name])]
        return f"{type(self).__name__}({', '.join([*called, *others, *['bias=False'][: self.bias is None]])})"

    def parameters(self) -> dict[str, Any]:
        """The arrays to be learned: the weight, and the bias if there is one.

        Returns
        -------
        dict
            The layer's own arrays under the names ``"weight"`` and ``"bias"``, which are torch's. To step along a
            gradient in place: ``layer.parameters()["weight"] -= rate * layer.dweight``.
        """
        return {"weight": self.weight} if self.bias is None else {"weight": self.weight, "bias": self.bias}

    @property
    def state(self) -> dict[str, Any]:
        """The parameters by name, which are torch's names. Setting it copies, from arrays of any library.

        ``layer.state = torch_layer.state_dict()`` takes torch's weights over, in torch's dtype and in the library and
        on the device that the layer was made for. Names and shapes must be the layer's own; a layer that has not
        learned its channels yet takes any number of them.
        """
        return self.parameters()

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        own = self.parameters()
        if not isinstance(state, Mapping):
            raise TypeError(f"state must be a mapping from names to arrays: got {state!r}")
        wrong = [f"{name!r} is missing" for name in own if name not in state]
        wrong += [f"{name!r} is unknown{did_you_mean(str(name), own)}" for name in state if name not in own]
        if wrong:
            raise ValueError(f"state must have the keys {' and '.join(map(repr, own))}: {', '.join(wrong)}")
        copies = {name: copied_like(array, self.weight, name=f"state[{name!r}]") for name, array in state.items()}
        shapes, given = {name: array.shape for name, array in own.items()}, copies["weight"].shape
        if self._learns and len(given) == self.weight.ndim:
            shapes["weight"] = self._shape(self._channels(given)[0], self.out_channels, tuple(self.weight.shape[2:]))
        for name, array in copies.items():
            check_shape(f"state[{name!r}]", array.shape, shapes[name])
        self.set_params(copies["weight"], copies.get("bias"))

    def set_params(self, weights: ArrayT, bias: ArrayT | None = None) -> None:
        """Take other weights, of any library, and forget what `forward` and `backward` have seen.

        Parameters
        ----------
        weights : array, shape (out_channels, in_channels / groups, *kernel)
            Kept, not copied. Channels and kernel may differ from those that the layer was made with.
        bias : array, shape (out_channels,), optional
            With the library, dtype and device of `weights`. Without it the layer has no bias from now on.

        Raises
        ------
        TypeError
            If they are no arrays, or differ in library, dtype or device.
        ValueError
            If their shapes do not fit one another or the layer.

        Examples
        --------
        >>> import numpy as np
        >>> from xpconv import Conv1d
        >>> layer = Conv1d(1, 1, 2)
        >>> layer.set_params(np.asarray([[[-1.0, 1.0]]]))
        >>> layer.forward(np.asarray([[[0.0, 1.0, 4.0]]]))
        array([[[1., 3.]]])
        """
        agree(weights=weights, bias=bias)
        if bias is not None and bias.dtype != weights.dtype:
            raise TypeError(f"weights and bias must have one dtype: got {weights.dtype} and {bias.dtype}")
        if weights.ndim < 2 or self.ndim not in (None, weights.ndim - 2):
            axes = "*kernel" if self.ndim is None else f"{self.ndim} of the kernel"
            raise ValueError(f"weights must have axes ({self._axes}, {axes}): got {weights.ndim}")
        in_channels, out_channels = self._channels(weights.shape)
        self._shape(in_channels, out_channels, tuple(weights.shape[2:]))
        if bias is not None:
            check_shape("bias", bias.shape, (out_channels,))
        self.weight = weights
        self.bias = bias
        self._forget()

    def astype(self, dtype: Any) -> Self:
        """A layer like this one, with its parameters in another dtype.

        Parameters
        ----------
        dtype : dtype
            Of the copies, for real or complex numbers.

        Returns
        -------
        layer
            It shares no array with this one, and has seen no input.

        Raises
        ------
        TypeError
            If there is no such dtype, or if it is real and the parameters are complex.

        Examples
        --------
        >>> import numpy as np
        >>> from xpconv import Conv1d
        >>> Conv1d(1, 1, 2).astype("float32")(np.ones((1, 1, 3), dtype="float32")).dtype
        dtype('float32')
        """
        xp = agree(weight=self.weight)
        wanted = creation(xp, dtype, device(self.weight))(np.zeros(0)).dtype
        if is_complex(self.weight.dtype, xp=xp) and not is_complex(wanted, xp=xp):
            raise TypeError(f"dtype must be complex, as the parameters are: got {dtype!r}")
        made = copy(self)
        made.set_params(*(copied_like(array, array, wanted) for array in self.parameters().values()))
        made._learns = self._learns
        return made

    def __call__(self, X: ArrayT) -> ArrayT:
        """Convolve X and remember nothing of it, as inference does; `backward` follows the last `forward`.

        Parameters
        ----------
        X : array, shape (batch, in_channels, *spatial) or (in_channels, *spatial)
            As for `forward`.

        Returns
        -------
        array, shape (batch, out_channels, *out) or (out_channels, *out)

        Raises
        ------
        TypeError, ValueError
            As `forward` does.
        """
        return self._convolve(X, None)

    def forward(self, X: ArrayT) -> ArrayT:
        """Convolve X, and remember it for `backward`. Where no gradient is needed, call the layer itself.

        Parameters
        ----------
        X : array, shape (batch, in_channels, *spatial) or (in_channels, *spatial)
            With the library, dtype and device of the weight. Kept, not copied: leave it as it is until `backward`.
            On NumPy the transforms of the filters are memory as well, with a copy of the weight that shows whether it
            has changed since.

        Returns
        -------
        array, shape (batch, out_channels, *out) or (out_channels, *out)

        Raises
        ------
        TypeError, ValueError
            As `conv` does, and if X has another dtype than the weight; but real and complex numbers go together.
        """
        return self._forward(X, None)

    def _forward(self, X: ArrayT, transposed: Transposed) -> ArrayT:
        Z = self._convolve(X, transposed)
        self._seen = X, Z.shape, transposed
        return Z

    def _convolve(self, X: ArrayT, transposed: Transposed) -> ArrayT:
        learns = self._learns
        if getattr(X, "dtype", self.weight.dtype) != self.weight.dtype:
            _check_dtype(X, self.weight)
        weight = self._learned(X) if learns else self.weight
        memory = self._filters("forward") if weight is self.weight else None
        Z: ArrayT = forward(X, weight, self.bias, self._params()._asdict(), transposed, memory)
        if learns:
            self.weight, self._learns = weight, False
        return Z

    def backward(self, dZ: ArrayT) -> ArrayT:
        """Carry a gradient back through the last `forward`; `dweight` and `dbias` hold the weights' gradients then.

        Parameters
        ----------
        dZ : array, in the shape that `forward` returned
            Gradient with respect to the output.

        Returns
        -------
        array, in the shape of the input
            Gradient with respect to the input.

        Raises
        ------
        RuntimeError
            If there was no `forward`, or it was in a trace (`jit`) that has ended.
        TypeError
            If dZ is no array, or differs in library, dtype or device from the weight.
        ValueError
            If dZ has another shape than the output.
        """
        if self._seen is None:
            raise RuntimeError("backward needs what forward has seen: call forward first")
        X, shape, transposed = self._seen
        agree(dZ=dZ, weight=self.weight)
        check_shape("dZ", dZ.shape, shape)
        needs, memory = (True, True, self.bias is not None), self._filters("backward")
        try:
            gradients = backward(dZ, X, self.weight, self._params()._asdict(), needs, transposed, memory)
        except TypeError as error:
            if device(X) is not None:
                raise
            raise RuntimeError(
                "backward needs what forward has seen, which a trace (jit) does not leave behind: call both in one "
                "trace, or both outside"
            ) from error
        dX, self.dweight, self.dbias = gradients
        return cast(ArrayT, dX)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles hold: no input, no transforms of the weight, and gradients off any tape."""
        own: dict[str, Any] = {"_seen": None, "_weight_cache": (None, {}), "_device": device_number(self.weight)}
        return {**self.__dict__, **own, "dweight": lasting(self.dweight), "dbias": lasting(self.dbias)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        number = state.pop("_device", None)
        self.__dict__.update(state)
        for name in ("weight", "bias", "dweight", "dbias"):
            setattr(self, name, moved(getattr(self, name), number))

    def _filters(self, direction: str) -> dict[str, Any] | None:
        """The memory for transforms of the weight, which are valid as long as its values stay the same.

        Anyone who holds the weight may change it in place, so its values are compared with a copy.
        """
        values, memory = self._weight_cache
        if not known_equal(values, self.weight):
            values, memory = comparable(self.weight), {}
            self._weight_cache = values, memory
        return None if values is None else memory.setdefault((direction, self.flip, self.groups), {})

    def _params(self) -> Parameters:
        return Parameters(*(getattr(self, name) for name in Parameters._fields[:-2]))

    _axes = "out channels, in channels / groups"

    def _channels(self, w_shape: Sequence[int]) -> tuple[int, int]:
        """The numbers of channels of the input and of the output."""
        return int(w_shape[1]) * self.groups, int(w_shape[0])

    def _shape(self, in_channels: int, out_channels: int, kernel: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the weight. An input that is large enough for any kernel has all other arguments checked."""
        inner = (1, in_channels, *(2**62,) * len(kernel))
        Layout.of("X", inner, len(kernel), self.channel_axis)
        return Convolution.of(inner, (out_channels, None, *kernel), self._params()).geometry.w_shape


class Conv1d(Conv):
    """`Conv` over one spatial axis; `kernel_size` may be an integer."""

    ndim = 1


class Conv2d(Conv):
    """`Conv` over two spatial axes; `kernel_size` may be an integer."""

    ndim = 2


class Conv3d(Conv):
    """`Conv` over three spatial axes; `kernel_size` may be an integer."""

    ndim = 3


class ConvTranspose(Conv):
    """A transposed convolution that owns its weight and bias.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, bias, rng, xp, dtype, device, **parameters
        As for `Conv`.
    output_padding : int or sequence of int, default 0
        As for `conv_transpose`.

    Attributes
    ----------
    weight : array, shape (in_channels, out_channels / groups, *kernel_size)
    bias : array, shape (out_channels,), or None
    dweight, dbias : array or None
        The gradients that the last ``backward`` found.
    state : dict
        As for `Conv`.

    Raises
    ------
    TypeError, ValueError
        As `Conv` does.

    See Also
    --------
    conv_transpose, conv_transpose_backward : What it computes.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ConvTranspose
    >>> layer = ConvTranspose(8, 3, (4, 4), stride=2, padding=1, rng=0)
    >>> layer.forward(np.ones((2, 8, 5, 5))).shape
    (2, 3, 10, 10)
    >>> layer
    ConvTranspose(8, 3, (4, 4), stride=2, padding=1)
    """

    output_padding: PerAxis

    @partial(spelled, without=("per_sample",))
    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int = 1,
        kernel_size: PerAxis | None = None,
        stride: PerAxis = 1,
        padding: Padding = 0,
        output_padding: PerAxis = 0,
        *,
        bias: bool = True,
        rng: int | np.random.Generator | None = None,
        xp: Any = None,
        dtype: Any = None,
        device: Any = None,
        **parameters: Unpack[LayerParameters],
    ) -> None:
        self.output_padding = output_padding
        own: dict[str, Any] = {"bias": bias, "rng": rng, "xp": xp, "dtype": dtype, "device": device}
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, **own, **parameters)

    def __call__(self, X: ArrayT, output_size: PerAxis | None = None) -> ArrayT:
        """Convolve X the transposed way and remember nothing of it, as inference does.

        Parameters
        ----------
        X : array, shape (batch, in_channels, *spatial)
            As for `Conv`.
        output_size : int or sequence of int, optional
            As for ``forward``.

        Returns
        -------
        array, shape (batch, out_channels, *out)

        Raises
        ------
        TypeError, ValueError
            As ``forward`` does.
        """
        return self._convolve(X, self._size(output_size))

    def forward(self, X: ArrayT, output_size: PerAxis | None = None) -> ArrayT:
        """Convolve X the transposed way, and remember it for ``backward``.

        Parameters
        ----------
        X : array, shape (batch, in_channels, *spatial)
            As for `Conv`.
        output_size : int or sequence of int, optional
            The spatial sizes of the output, instead of the layer's `output_padding`.

        Returns
        -------
        array, shape (batch, out_channels, *out)

        Raises
        ------
        TypeError, ValueError
            As `conv_transpose` does.
        """
        return self._forward(X, self._size(output_size))

    def _size(self, output_size: PerAxis | None) -> Transposed:
        return (self.output_padding, None) if output_size is None else (0, output_size)

    _axes = "in channels, out channels / groups"

    def _channels(self, w_shape: Sequence[int]) -> tuple[int, int]:
        return int(w_shape[0]), int(w_shape[1]) * self.groups

    def _shape(self, in_channels: int, out_channels: int, kernel: tuple[int, ...]) -> tuple[int, ...]:
        groups, params = integer("groups", self.groups, 1), self._params()
        if out_channels % groups:
            raise ValueError(f"groups must divide the output channels: got groups={groups}, {out_channels} channels")
        large = (2**62,) * len(kernel)
        Layout.of("X", (1, in_channels, *large), len(kernel), self.channel_axis)
        # Not every size is that of a dilated input, so the input dilation is checked in the other direction.
        w_shape = (in_channels, out_channels // groups, *kernel)
        undilated = params._replace(input_dilation=1)
        convolution = Convolution.of_transposed((1, in_channels, *large), w_shape, undilated, self.output_padding)
        Convolution.of((1, out_channels, *large), w_shape, params)
        return convolution.geometry.w_shape


class ConvTranspose1d(ConvTranspose):
    """`ConvTranspose` over one spatial axis; `kernel_size` may be an integer."""

    ndim = 1


class ConvTranspose2d(ConvTranspose):
    """`ConvTranspose` over two spatial axes; `kernel_size` may be an integer."""

    ndim = 2


class ConvTranspose3d(ConvTranspose):
    """`ConvTranspose` over three spatial axes; `kernel_size` may be an integer."""

    ndim = 3


def _check_dtype(X: Any, weight: Any) -> None:
    """Weights have one dtype and keep it: an input of another would change that of all layers behind this one."""
    xp = agree(X=X, weight=weight)
    if real_dtype(X.dtype, xp=xp) != real_dtype(weight.dtype, xp=xp):
        raise TypeError(
            f"X must have the dtype of the layer's weight, {weight.dtype}: got {X.dtype}; layers take dtype= when they "
            "are made, and layer.astype(dtype) returns one of another dtype"
        )


def _drawn(rng: Any, shape: tuple[int, ...], in_channels: int) -> Any:
    check_elements(shape, 8, "in_channels, out_channels and kernel_size")
    try:
        generator = np.random.default_rng(rng)
    except (TypeError, ValueError):
        raise TypeError(f"rng must be a seed of at least 0 or a numpy.random.Generator: got {rng!r}") from None
    return generator.standard_normal(shape) / math.sqrt(in_channels / 2)
