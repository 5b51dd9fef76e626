"""Where an array has its axes, and the way to the one order of axes that contractions use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from .._spec.geometry import integer
from .typing import ArrayT, Namespace

__all__ = ["Layout"]


class Layout(NamedTuple):
    """The axes of an array: (*batch, *spatial), with the channels at one place among them."""

    batch: tuple[int, ...]
    channels: int  # the axis
    ndim: int  # of the spatial axes

    @classmethod
    def of(cls, name: str, shape: Sequence[int], ndim: int, channel_axis: int = 1) -> Layout:
        """`channel_axis` counts as if there were one batch axis; 0 is in front of all batch axes."""
        batch = len(shape) - ndim - 1
        if batch < 0:
            raise ValueError(
                f"{name} must have at least {ndim + 1} axes (channels, {ndim} spatial; any number for the batch before "
                f"them): got {len(shape)}"
            )
        least, most = -ndim - 2, ndim + 1
        axis = integer("channel_axis", channel_axis, least, most)
        axis = axis - least if axis < 0 else axis
        axis = axis + batch - 1 if axis else 0
        rest = [size for i, size in enumerate(shape) if i != axis]
        return cls(tuple(rest[:batch]), axis, ndim)

    def inner(self, shape: Sequence[int]) -> Sequence[int]:
        """The shape (n, c, *spatial) that contractions see, of the shape that the caller has."""
        batch, channels, _ = self
        if channels == len(batch) == 1:
            return shape
        rest = [size for i, size in enumerate(shape) if i != channels]
        return (math.prod(batch), shape[channels], *rest[len(batch) :])

    def outer(self, inner: Sequence[int]) -> tuple[int, ...]:
        """The shape that the caller has, of a shape (n, c, *spatial)."""
        batch, channels, _ = self
        shape = [*batch, *inner[2:]]
        shape.insert(channels, inner[1])
        return tuple(shape)

    def inward(self, x: ArrayT, *, xp: Namespace) -> ArrayT:
        """x as contractions take it, (n, c, *spatial): a view, but several batch axes may take a copy."""
        batch, channels, _ = self
        if channels != len(batch):
            rest = [axis for axis in range(x.ndim) if axis != channels]
            x = xp.permute_dims(x, (*rest[: len(batch)], channels, *rest[len(batch) :]))
        if len(batch) == 1:
            return x
        return xp.reshape(x, (math.prod(batch), *x.shape[len(batch) :]))

    def outward(self, x: ArrayT, *, xp: Namespace) -> ArrayT:
        """x, which is (n, c, *spatial), as the caller has it."""
        batch, channels, _ = self
        if len(batch) != 1:
            x = xp.reshape(x, (*batch, *x.shape[1:]))
        if channels != len(batch):
            rest = [axis for axis in range(x.ndim) if axis != len(batch)]
            x = xp.permute_dims(x, (*rest[:channels], len(batch), *rest[channels:]))
        return x
