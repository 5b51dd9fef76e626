"""Arrays without channels, convolved as scipy.signal does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple

from .._arrays.doors import chunked_like, conj, convert, flip
from .._arrays.dtypes import real_dtype
from .._arrays.namespace import agree, is_complex, is_floating
from .._arrays.typing import ArrayT, Namespace
from .._engines.dispatch import together
from .._engines.entry import public
from .._spec.geometry import PerAxis, check_shape
from .._spec.parameters import Parameters
from .._spec.signal import Signals, View
from .calls import backward, forward

__all__ = ["ConvolveGradients", "convolve", "convolve_backward", "correlate", "correlate_backward"]


class ConvolveGradients(NamedTuple, Generic[ArrayT]):
    """What `convolve_backward` and `correlate_backward` return: a gradient for each array, None where not needed.

    Attributes
    ----------
    dx : array or None
        Gradient of `x`, in its shape and dtype; but in that of the result where integers met floating point.
    dkernel : array or None
        Gradient of the kernel, in the same way.
    """

    dx: ArrayT | None
    dkernel: ArrayT | None


@public
def convolve(
    x: ArrayT,
    kernel: ArrayT,
    *,
    mode: str = "full",
    axes: PerAxis | None = None,
    stride: PerAxis = 1,
    dilation: PerAxis = 1,
    padding_mode: str | Sequence[str] = "zeros",
    dtype: Any = None,
) -> ArrayT:
    """Convolve two arrays without channels, as ``scipy.signal.convolve`` does: the kernel is flipped.

    ``full[i] = sum over t of x[i - dilation*t] * kernel[t]`` along each axis, and `mode` says which part of it is
    wanted.

    Parameters
    ----------
    x, kernel : array
        Real or complex numbers of any dtype that `conv` takes, or integers. They have one library and device, and the
        same number of axes; with `axes`, one of them may have only those axes, in the order that `axes` names them.
    mode : {"full", "same", "valid"}, default "full"
        ``"full"`` is the sum wherever the arrays meet, ``size + extent - 1`` elements for a kernel that extends over
        ``extent = dilation * (taps - 1) + 1``. ``"same"`` is the middle of it, as large as `x`, and ``"valid"`` where
        the smaller array lies within the larger one on each axis; either may be the smaller one.
    axes : int or sequence of int, optional
        The axes that are convolved, all by default. Each other axis is a batch: there the sizes are equal, or one of
        them is 1, and that array is used again and again.
    stride : int or sequence of int, default 1
        Computes every `stride`-th element alone, from the first; one for all `axes` or one for each.
    dilation : int or sequence of int, default 1
        Step from tap to tap of the kernel, in elements of `x`.
    padding_mode : str or sequence of str, default "zeros"
        What is beyond the ends of `x`, as for `conv`; in mode "valid" nothing is read there.
    dtype : dtype, optional
        That of the result, where it is not the one that the library promotes to: as for `conv`.

    Returns
    -------
    array
        Its sizes on `axes` are those of the mode, divided by the stride and rounded up; the others are broadcast.

    Raises
    ------
    TypeError
        If an argument is no array of numbers, a parameter of another kind, or libraries, dtypes or devices do not go
        together.
    ValueError
        If the shapes do not fit one another.

    See Also
    --------
    correlate : Without the flip.
    convolve_backward : The gradients.
    conv : With channels.

    Notes
    -----
    The names and rules are those of SciPy [1]_, and so are those of `axes` in its `fftconvolve`. It is `conv` with one
    channel: axes of a batch become samples, outputs or groups, and are not copied. As long as `x` is padded with zeros,
    the smaller array is the kernel of that `conv`. `options` chooses the algorithm; by itself a long kernel is
    convolved by Fourier transforms of short pieces [2]_. Integers are exact, and wrap around in their dtype.

    References
    ----------
    .. [1] P. Virtanen et al., "SciPy 1.0: Fundamental Algorithms for Scientific Computing in Python", Nature Methods
       17, 2020.
    .. [2] T. G. Stockham, "High-speed Convolution and Correlation", Spring Joint Computer Conference, 1966.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import convolve
    >>> convolve(np.asarray([1, 2, 3]), np.asarray([0, 1, 10]))
    array([ 0,  1, 12, 23, 30])
    >>> convolve(np.asarray([1, 2, 3]), np.asarray([0, 1, 10]), mode="same")
    array([ 1, 12, 23])
    >>> recordings = np.ones((8, 1000))
    >>> convolve(recordings, np.ones(5), axes=-1, mode="valid").shape
    (8, 996)
    >>> filters = np.ones((3, 1, 5))
    >>> convolve(recordings[None], filters, axes=-1).shape
    (3, 8, 1004)
    """
    params = Parameters(stride, 0, dilation, padding_mode=padding_mode, flip=True, dtype=dtype)
    return _signal(x, kernel, mode, axes, params)


@public
def correlate(
    x: ArrayT,
    kernel: ArrayT,
    *,
    mode: str = "full",
    axes: PerAxis | None = None,
    stride: PerAxis = 1,
    dilation: PerAxis = 1,
    padding_mode: str | Sequence[str] = "zeros",
    dtype: Any = None,
) -> ArrayT:
    """Correlate two arrays without channels, as ``scipy.signal.correlate`` does: the kernel is conjugated.

    ``full[i] = sum over t of x[i + dilation*t - (extent - 1)] * conj(kernel[t])`` along each axis, with the `extent` of
    the kernel, and `mode` says which part of it is wanted.

    Parameters
    ----------
    x, kernel, mode, axes, stride, dilation, padding_mode, dtype
        As for `convolve`.

    Returns
    -------
    array
        As of `convolve`.

    Raises
    ------
    TypeError, ValueError
        As `convolve` does.

    See Also
    --------
    convolve : With the notes and the source.
    correlate_backward : The gradients.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import correlate
    >>> correlate(np.asarray([1, 2, 3]), np.asarray([0, 1, 10]))
    array([10, 21, 32,  3,  0])
    >>> pulse = np.asarray([1.0, -1.0, 2.0])
    >>> echo = np.concatenate([np.zeros(40), pulse, np.zeros(20)])
    >>> int(np.argmax(correlate(echo, pulse, mode="valid")))
    40
    """
    params = Parameters(stride, 0, dilation, padding_mode=padding_mode, dtype=dtype)
    return _signal(x, kernel, mode, axes, params)


@public
def convolve_backward(
    dy: ArrayT,
    x: ArrayT,
    kernel: ArrayT,
    *,
    mode: str = "full",
    axes: PerAxis | None = None,
    needs: Sequence[bool] = (True, True),
    stride: PerAxis = 1,
    dilation: PerAxis = 1,
    padding_mode: str | Sequence[str] = "zeros",
    dtype: Any = None,
) -> ConvolveGradients[ArrayT]:
    """Carry a gradient of `convolve`'s result back to both of its arrays.

    Parameters
    ----------
    dy : array
        Gradient of a real number, the loss say, with respect to the result; in its shape and dtype.
    x, kernel : array
        What `convolve` was given; one library and device with `dy`.
    needs : sequence of two bool, default (True, True)
        Which of `dx` and `dkernel` to compute.
    mode, axes, stride, dilation, padding_mode, dtype
        What `convolve` was given.

    Returns
    -------
    ConvolveGradients
        The named tuple ``(dx, dkernel)``, None where not needed.

    Raises
    ------
    TypeError, ValueError
        As `convolve` does, and if `dy` is not like its result.

    See Also
    --------
    conv_backward : With channels.

    Notes
    -----
    The gradients are the adjoints of `convolve` in each array: ``<convolve(x, k), dy> == <x, dx> == <k, dk>``, where
    the inner product conjugates its second argument; those of a real array are real. The gradient of an array that was
    broadcast is the sum over all its copies. An early account of the gradients of a convolution is [1]_.

    References
    ----------
    .. [1] Y. LeCun et al., "Backpropagation Applied to Handwritten Zip Code Recognition", Neural Computation 1(4),
       1989.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import convolve_backward
    >>> dx, dkernel = convolve_backward(np.ones(4), np.asarray([1.0, 2.0, 3.0]), np.asarray([1.0, 10.0]))
    >>> dx, dkernel
    (array([11., 11., 11.]), array([6., 6.]))
    """
    params = Parameters(stride, 0, dilation, padding_mode=padding_mode, flip=True, dtype=dtype)
    return _gradients((dy, x, kernel), mode, axes, needs, params)


@public
def correlate_backward(
    dy: ArrayT,
    x: ArrayT,
    kernel: ArrayT,
    *,
    mode: str = "full",
    axes: PerAxis | None = None,
    needs: Sequence[bool] = (True, True),
    stride: PerAxis = 1,
    dilation: PerAxis = 1,
    padding_mode: str | Sequence[str] = "zeros",
    dtype: Any = None,
) -> ConvolveGradients[ArrayT]:
    """Carry a gradient of `correlate`'s result back to both of its arrays.

    Parameters
    ----------
    dy, x, kernel, needs, mode, axes, stride, dilation, padding_mode, dtype
        As for `convolve_backward`, of `correlate`.

    Returns
    -------
    ConvolveGradients
        The named tuple ``(dx, dkernel)``, None where not needed.

    Raises
    ------
    TypeError, ValueError
        As `convolve_backward` does.

    See Also
    --------
    convolve_backward : With the notes and the source.

    Notes
    -----
    `correlate` is linear in the conjugate of the kernel: there it is ``<correlate(x, k), dy> == <dk, k>``.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import correlate_backward
    >>> signal, template = np.asarray([1.0, 2.0, 4.0]), np.asarray([1.0, 10.0])
    >>> correlate_backward(np.asarray([0.0, 1.0]), signal, template, mode="valid")
    ConvolveGradients(dx=array([ 0.,  1., 10.]), dkernel=array([2., 4.]))
    """
    params = Parameters(stride, 0, dilation, padding_mode=padding_mode, dtype=dtype)
    return _gradients((dy, x, kernel), mode, axes, needs, params)


def _signal(x: ArrayT, kernel: ArrayT, mode: str, axes: PerAxis | None, params: Parameters) -> ArrayT:
    """y of a call whose parameters say with `flip` whether the kernel is flipped, or conjugated."""
    xp = agree(x=x, kernel=kernel)
    signals = Signals.of(x.shape, kernel.shape, mode, axes, params)
    y = forward(*_operands(x, kernel, signals, params, xp=xp), None, signals.params)
    return _outward(_in_order(y, signals, xp=xp), signals.y, xp=xp)


def _gradients(
    arrays: tuple[ArrayT, ArrayT, ArrayT],
    mode: str,
    axes: PerAxis | None,
    needs: Sequence[bool],
    params: Parameters,
) -> ConvolveGradients[ArrayT]:
    dy, x, kernel = arrays
    xp = agree(dy=dy, x=x, kernel=kernel)
    if not isinstance(needs, tuple | Sequence) or [type(need) for need in needs] != [bool] * 2:
        raise TypeError(f"needs must be two bools, for dx and dkernel: got {needs!r}")
    signals = Signals.of(x.shape, kernel.shape, mode, axes, params)
    check_shape("dy", dy.shape, signals.y.shape)
    (dy,) = together(dy, xp=xp)
    dy = _in_order(_inward(dy, signals.y, xp=xp), signals, xp=xp)
    operands, turn = _operands(x, kernel, signals, params, xp=xp), -1 if signals.swapped else 1
    *found, _ = backward((dy, *operands), signals.params, (*needs[::turn], False))
    dx, dkernel = (
        None if one is None else _outward(one, view, xp=xp)
        for one, view in list(zip(found, signals.operands, strict=True))[::turn]
    )
    if dkernel is not None and not params.flip:
        dkernel = conj(dkernel, xp=xp)
    return ConvolveGradients(_like(dx, x, xp=xp), _like(dkernel, kernel, xp=xp))


def _operands(
    x: ArrayT, kernel: ArrayT, signals: Signals, params: Parameters, *, xp: Namespace
) -> tuple[ArrayT, ArrayT]:
    """The input and the weight, as a convolution with channels takes them."""
    x, kernel = together(x, kernel, xp=xp)
    if params.dtype is None:
        x, kernel = _promoted(x, kernel, xp=xp)
    if not params.flip:
        kernel = conj(kernel, xp=xp)
    data, weight = (kernel, x) if signals.swapped else (x, kernel)
    return _inward(data, signals.operands[0], xp=xp), _inward(weight, signals.operands[1], xp=xp)


def _promoted(x: ArrayT, kernel: ArrayT, *, xp: Namespace) -> tuple[ArrayT, ArrayT]:
    """Both in the dtype that the library promotes to; next to a complex array, a real one stays real."""
    if x.dtype == kernel.dtype:
        return x, kernel
    try:
        common = xp.result_type(x.dtype, kernel.dtype)
    except Exception:  # each library says no in its own way
        raise TypeError(
            f"x and kernel must have dtypes that the library promotes to one: got {x.dtype} and {kernel.dtype}; "
            "convert one of them first"
        ) from None
    real = real_dtype(common, xp=xp)
    first, second = (convert(one, common if is_complex(one.dtype, xp=xp) else real, xp=xp) for one in (x, kernel))
    return first, second


def _in_order(y: ArrayT, signals: Signals, *, xp: Namespace) -> ArrayT:
    """(n, g*o, *out) in the caller's order of elements, or back from that."""
    return flip(y, range(2, y.ndim), xp=xp) if signals.reverse else y


def _inward(x: ArrayT, view: View, *, xp: Namespace) -> ArrayT:
    """The caller's array as a convolution takes it."""
    if view.order != tuple(range(x.ndim)):
        x = xp.permute_dims(x, view.order)
    return x if x.shape == view.inner else xp.reshape(x, view.inner)


def _outward(x: ArrayT, view: View, *, xp: Namespace) -> ArrayT:
    """The array of a convolution as the caller has it."""
    if x.shape != view.split:
        x = xp.reshape(x, view.split)
    places = tuple(range(x.ndim))
    return x if view.order == places else xp.permute_dims(x, tuple(sorted(places, key=view.order.__getitem__)))


def _like(gradient: ArrayT | None, x: ArrayT, *, xp: Namespace) -> ArrayT | None:
    """The gradient in the dtype of its array, but never rounded to integers; in the chunks of a dask array."""
    if gradient is None:
        return None
    if is_floating(x.dtype, xp=xp) or not is_floating(gradient.dtype, xp=xp):
        gradient = convert(gradient, x.dtype, xp=xp)
    return chunked_like(gradient, x)
