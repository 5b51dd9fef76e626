"""The parameters of a convolution, defined once for all functions that take them."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, TypedDict

from .geometry import Padding, PerAxis

__all__ = ["ConvParameters", "LayerParameters", "Parameters", "canonical"]


class LayerParameters(TypedDict, total=False):
    """The keyword parameters that a layer takes."""

    dilation: PerAxis
    groups: int
    padding_mode: str | Sequence[str]
    padding_value: complex
    input_dilation: PerAxis
    flip: bool
    channel_axis: int


class ConvParameters(LayerParameters, total=False):
    """The keyword parameters that a convolution takes; the names and the defaults are those of `Parameters`."""

    stride: PerAxis
    padding: Padding
    dtype: Any


class Parameters(NamedTuple):
    """All parameters of a convolution, with their defaults."""

    stride: PerAxis = 1
    padding: Padding = 0
    dilation: PerAxis = 1
    groups: int = 1
    padding_mode: str | Sequence[str] = "zeros"
    padding_value: complex = 0.0
    input_dilation: PerAxis = 1
    flip: bool = False
    channel_axis: int = 1
    dtype: Any = None

    @classmethod
    def of(cls, params: ConvParameters) -> Parameters:
        if not params:
            return _DEFAULTS
        try:
            parameters = cls(**params)
        except TypeError:
            unknown = ", ".join(sorted(params.keys() - cls._field_defaults.keys()))
            raise TypeError(f"a convolution's parameters are {', '.join(cls._fields)}: got {unknown}") from None
        if type(parameters.flip) is not bool:
            raise TypeError(f"flip must be a bool: got {parameters.flip!r}")
        return parameters


_DEFAULTS = Parameters()


def canonical(value: Any) -> Hashable:
    """A key for a cache, the same for values that mean the same: lists become tuples, NumPy's integers Python's.

    Any other value is paired with its type: True and 1.0 are equal to 1, but not allowed in its place. A value that
    cannot be hashed raises TypeError.
    """
    kind = type(value)
    if kind is int or kind is str or value is None:
        return value  # type: ignore[no-any-return]
    if kind is tuple or kind is list:
        return tuple(map(canonical, value))
    if kind is not bool and hasattr(value, "__index__") and getattr(value, "shape", ()) == ():
        return operator.index(value)
    hash(value)
    return kind, value
