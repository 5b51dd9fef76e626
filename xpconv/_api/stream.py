"""Causal convolution of an array that comes block by block."""

from __future__ import annotations

from .._arrays.layout import Layout
from .._arrays.namespace import agree
from .._arrays.typing import ArrayT
from .._engines.dispatch import together, zeros
from .._engines.entry import public
from .._engines.problem import spatial_axes
from .._spec.geometry import PerAxis, per_axis
from .calls import forward

__all__ = ["conv_stream"]


@public
def conv_stream(
    x: ArrayT,
    weight: ArrayT,
    bias: ArrayT | None = None,
    state: ArrayT | None = None,
    *,
    stride: PerAxis = 1,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> tuple[ArrayT, ArrayT]:
    """Convolve the next block of a stream: what ``conv(..., padding="causal")`` of the whole stream gives for it.

    The stream runs along the first spatial axis. Of the other axes each block has the whole.

    Parameters
    ----------
    x : array, shape (batch, in_channels, block, *spatial)
        The next block, of any length: shorter than the kernel, longer, or 0. There may be no batch axis, or several.
    weight : array, shape (out_channels, in_channels / groups, *kernel)
        The filters, as for `conv`; with one kernel axis at least.
    bias : array, shape (out_channels,), optional
        Added to each output channel.
    state : array, shape (batch, in_channels, dilation * (kernel - 1) + since, *spatial), optional
        What the call before has returned; None where the stream begins, which is a state of zeros with `since` 0.
    stride, dilation : int or sequence of int, default 1
        One for all spatial axes or one for each, the same in all calls of a stream.
    groups : int, default 1
        As for `conv`.

    Returns
    -------
    y : array, shape (batch, out_channels, made, *out)
        The outputs whose windows end in this block, perhaps none: the one at each multiple of the stride.
    state : array
        The last inputs of the stream, for the next call: those that its windows may read, and `since` more. `since` is
        how many have come since the last multiple of the stride, so the length of the state holds the phase.

    Raises
    ------
    TypeError
        As `conv` does, and if `state` has another dtype than `x`.
    ValueError
        If the shapes do not fit one another.

    See Also
    --------
    conv : The whole at a time, with ``padding="causal"``.

    Notes
    -----
    The method is that of overlap-save [1]_: each block is read after the end of the one before. Joined together, the
    outputs are those of the whole; integers to the bit, real numbers as far as rounding goes, since sums are cut
    otherwise in blocks of another length. The shape of the state follows from shapes alone, so it works in a trace; in
    blocks of a multiple of the stride it stays the same from call to call.

    References
    ----------
    .. [1] A. V. Oppenheim, R. W. Schafer, "Discrete-Time Signal Processing", Prentice Hall, 1989.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import conv, conv_stream
    >>> x = np.asarray([[[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]]])
    >>> weight = np.asarray([[[1.0, 10.0, 100.0]]])
    >>> conv(x, weight, stride=2, padding="causal")
    array([[[ 100.,  421., 1684., 6736.]]])
    >>> state = None
    >>> for block in (x[..., :3], x[..., 3:4], x[..., 4:]):
    ...     y, state = conv_stream(block, weight, state=state, stride=2)
    ...     print(y.tolist())
    [[[100.0, 421.0]]]
    [[[]]]
    [[[1684.0, 6736.0]]]
    """
    given = {} if state is None else {"state": state}
    xp = agree(x=x, weight=weight, bias=bias, **given)
    ndim = spatial_axes(weight.shape)
    if not ndim:
        raise ValueError("weight must have at least 3 axes (out channels, in channels / groups, *kernel): got 2")
    axis = len(Layout.of("x", x.shape, ndim).batch) + 1
    steps, dilations = per_axis("stride", stride, ndim, 1), per_axis("dilation", dilation, ndim, 1)
    reach, *others = (d * max(k - 1, 0) for d, k in zip(dilations, weight.shape[2:], strict=True))
    if state is None:
        state = zeros((*x.shape[:axis], reach, *x.shape[axis + 1 :]), x.dtype, x, xp=xp)
    _check_state(state, x, axis, range(reach, reach + steps[0]))

    joined = xp.concat(together(state, x, xp=xp), axis=axis)
    length, since = joined.shape[axis], state.shape[axis] - reach
    first = min(steps[0] if since else 0, length)  # where the window of the next output begins
    lacking = max(reach + 1 - (length - first), 0)
    padding = ((0, lacking), *((before, 0) for before in others))
    params = {"stride": steps, "dilation": dilations, "groups": groups, "padding": padding}
    y = forward(_from(joined, axis, first), weight, bias, params)
    if lacking:  # no window ends in this block: that of the next output has shown the shape
        y = y[(*(slice(None),) * axis, slice(0, 0), ...)]
    return y, _from(joined, axis, length - reach - (since + x.shape[axis]) % steps[0])


def _from(array: ArrayT, axis: int, start: int) -> ArrayT:
    return array[(*(slice(None),) * axis, slice(start, array.shape[axis]), ...)]


def _check_state(state: ArrayT, x: ArrayT, axis: int, lengths: range) -> None:
    if state.dtype != x.dtype:
        raise TypeError(f"state must have the dtype of x, {x.dtype}: got {state.dtype}")
    fits = state.ndim == x.ndim and state.shape[axis] in lengths
    if not fits or any(state.shape[i] != size for i, size in enumerate(x.shape) if i != axis):
        shape = ", ".join((*map(str, x.shape[:axis]), f"{lengths[0]} to {lengths[-1]}", *map(str, x.shape[axis + 1 :])))
        raise ValueError(
            f"state must be what the call before has returned, or None, and so of shape ({shape}): got "
            f"{tuple(state.shape)}"
        )
