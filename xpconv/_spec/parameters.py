"""Everything that can be said of a convolution, in one place for all functions that take it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, TypedDict

from .geometry import Padding, PerAxis

__all__ = ["Given", "OfLayers", "Parameters", "is_certain"]


class OfLayers(TypedDict, total=False):
    """What may be said of a layer, by keyword."""

    dilation: PerAxis
    groups: int
    padding_mode: str | Sequence[str]
    input_dilation: PerAxis
    flip: bool
    channel_axis: int


class Given(OfLayers, total=False):
    """What may be said of a convolution, by keyword; the names and the defaults are those of `Parameters`."""

    stride: PerAxis
    padding: Padding
    dtype: Any


class Parameters(NamedTuple):
    """All that may be said of a convolution."""

    stride: PerAxis = 1
    padding: Padding = 0
    dilation: PerAxis = 1
    groups: int = 1
    padding_mode: str | Sequence[str] = "zeros"
    input_dilation: PerAxis = 1
    flip: bool = False
    channel_axis: int = 1
    dtype: Any = None

    @classmethod
    def of(cls, given: Given) -> Parameters:
        if not given:
            return _DEFAULTS
        try:
            parameters = cls(**given)
        except TypeError:
            unknown = ", ".join(sorted(given.keys() - cls._field_defaults.keys()))
            raise TypeError(f"a convolution's parameters are {', '.join(cls._fields)}: got {unknown}") from None
        if type(parameters.flip) is not bool:
            raise TypeError(f"flip must be a bool: got {parameters.flip!r}")
        return parameters

    @property
    def certain(self) -> bool:
        """Whether they may be looked up: True and 1.0 are equal to 1, but not allowed."""
        if self is _DEFAULTS:
            return True
        others = isinstance(self.dtype, Hashable) and is_certain(self.channel_axis)
        return others and all(map(is_certain, self[:_SHAPING]))


_DEFAULTS = Parameters()
_SHAPING = 6  # so many, the first, decide about shapes


def is_certain(value: Any) -> bool:
    """Whether it is of the very types that are allowed, and can be a key."""
    kind = type(value)
    if kind is int or kind is str or value is None:
        return True
    return kind is tuple and all(type(entry) in (int, str) for entry in value)
