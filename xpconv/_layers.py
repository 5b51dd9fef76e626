"""Floor 5: layers, which own their weights and remember their input."""

from __future__ import annotations

import math
from typing import Any, ClassVar, cast

import numpy as np

from ._functional import backward, forward
from ._geometry import Padding, PerAxis, check_shape, integer, parse, per_axis
from ._namespace import agree, comparable, creation, known_equal
from ._typing import ArrayT

__all__ = ["Conv", "Conv1d", "Conv2d", "Conv3d"]


class Conv:
    """A convolution that owns its weight and bias, over as many spatial axes as its kernel has.

    Weights are drawn from a normal distribution, divided by ``sqrt(in_channels / 2)``; the bias begins at zero.

    Parameters
    ----------
    in_channels, out_channels : int, default 1
        Channels of the input and of the output.
    kernel_size : sequence of int, default (2, 2)
        One size per spatial axis. `Conv1d`, `Conv2d` and `Conv3d` take an integer, too.
    stride, padding, dilation, groups
        As for `conv`.
    bias : bool, default True
        Whether there is a bias.
    rng : int or numpy.random.Generator, optional
        Where the weights are drawn from: a seed or a generator. They are drawn with NumPy for every library, so one
        seed gives the same weights everywhere.
    xp : module, optional
        The array library of the weights: ``numpy`` (the default), ``cupy``, ``torch`` and so on.
    dtype : dtype, optional
        Of the weights, by default the library's own default for real numbers.
    device : device, optional
        Of the weights, by default the library's own default.

    Attributes
    ----------
    weight : array, shape (out_channels, in_channels / groups, *kernel_size)
    bias : array, shape (out_channels,), or None
    dweight, dbias : array or None
        The gradients that the last `backward` found.

    Raises
    ------
    TypeError, ValueError
        If a size is no integer, too small, or the groups do not divide the channels.

    See Also
    --------
    conv, conv_backward : What it computes.

    Notes
    -----
    The spread of the weights keeps the size of signals from layer to layer where there are rectifiers between and the
    kernel has one tap [1]_. For a larger kernel divide the weights by the root of its number of taps:
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

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        kernel_size: PerAxis = (2, 2),
        stride: PerAxis = 1,
        padding: Padding = 0,
        *,
        dilation: PerAxis = 1,
        groups: int = 1,
        bias: bool = True,
        rng: int | np.random.Generator | None = None,
        xp: Any = np,
        dtype: Any = None,
        device: Any = None,
    ) -> None:
        in_channels = integer("in_channels", in_channels, 1)
        out_channels = integer("out_channels", out_channels, 1)
        kernel = per_axis("kernel_size", kernel_size, self.ndim, 1)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        shape = self._checked_shape(in_channels, (out_channels, None, *kernel))
        if not isinstance(bias, bool):
            raise TypeError(f"bias must be a bool: got {bias!r}")
        create = creation(xp, dtype, device)
        try:
            generator = np.random.default_rng(rng)
        except (TypeError, ValueError):
            raise TypeError(f"rng must be a seed of at least 0 or a numpy.random.Generator: got {rng!r}") from None
        self.weight: Any = create(generator.standard_normal(shape) / math.sqrt(in_channels / 2))
        self.bias: Any = create(np.zeros(out_channels)) if bias else None
        self.dweight: Any = None
        self.dbias: Any = None
        self._seen: tuple[Any, tuple[int, ...]] | None = None
        self._kept: tuple[Any, dict[str, Any]] = (None, {})

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
        if weights.ndim < 2 or self.ndim not in (None, weights.ndim - 2):
            axes = "*kernel" if self.ndim is None else f"{self.ndim} of the kernel"
            raise ValueError(f"weights must have axes (out channels, in channels / groups, {axes}): got {weights.ndim}")
        self._checked_shape(None, weights.shape)
        if bias is not None:
            check_shape("bias", bias.shape, weights.shape[:1])
        self.weight, self.bias = weights, bias
        self.dweight = self.dbias = self._seen = None
        self._kept = (None, {})

    def forward(self, X: ArrayT) -> ArrayT:
        """Convolve X, and remember it for `backward`.

        Parameters
        ----------
        X : array, shape (batch, in_channels, *spatial) or (in_channels, *spatial)
            With the library, dtype and device of the weight. Kept, not copied: leave it as it is until `backward`.
            On NumPy the filters in the algorithm's basis are kept as well, with a copy of the weight that tells
            whether it has changed since.

        Returns
        -------
        array, shape (batch, out_channels, *out) or (out_channels, *out)

        Raises
        ------
        TypeError, ValueError
            As `conv` does.
        """
        Z: ArrayT = forward(X, self.weight, self.bias, **self._parameters(), kept=self._filters("forward"))
        self._seen = X, Z.shape
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
            If there was no `forward`.
        TypeError
            If dZ is no array, or differs in library, dtype or device from the weight.
        ValueError
            If dZ has another shape than the output.
        """
        if self._seen is None:
            raise RuntimeError("backward needs what forward has seen: call forward first")
        X, shape = self._seen
        agree(dZ=dZ, weight=self.weight)
        check_shape("dZ", dZ.shape, shape)
        needs = (True, True, self.bias is not None)
        dX, self.dweight, self.dbias = backward(
            dZ, X, self.weight, **self._parameters(), needs=needs, kept=self._filters("backward")
        )
        return cast(ArrayT, dX)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": (None, {})}  # what can be made again is not pickled

    def _filters(self, direction: str) -> dict[str, Any] | None:
        """The filters as algorithms took them into their bases, for as long as the weight's values stay the same.

        The weight may be changed in place, by whoever holds it: only a comparison tells.
        """
        values, kept = self._kept
        if not known_equal(values, self.weight):
            values, kept = comparable(self.weight), {}
            self._kept = values, kept
        return None if values is None else kept.setdefault(direction, {})

    def _parameters(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    def _checked_shape(self, channels: int | None, w_shape: tuple[int | None, ...]) -> tuple[int, ...]:
        """The weight's shape: an input that is large enough for any kernel lets the geometry check all the rest."""
        return parse((1, channels, *(2**62,) * (len(w_shape) - 2)), w_shape, **self._parameters()).w_shape


class Conv1d(Conv):
    """`Conv` over one spatial axis; `kernel_size` may be an integer."""

    ndim = 1


class Conv2d(Conv):
    """`Conv` over two spatial axes; `kernel_size` may be an integer."""

    ndim = 2


class Conv3d(Conv):
    """`Conv` over three spatial axes; `kernel_size` may be an integer."""

    ndim = 3
