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
    per_sample: bool


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
    per_sample: bool = False

    @classmethod
    def of(cls, params: ConvParameters) -> Parameters:
        if not params:
            return _DEFAULTS
        parameters = cls(**params)  # of a name that there is not, the public function says which is nearest
        for name in ("flip", "per_sample"):
            if type(getattr(parameters, name)) is not bool:
                raise TypeError(f"{name} must be a bool: got {getattr(parameters, name)!r}")
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
    # "bool" is NumPy's, too, which its older releases take for an index.
    if kind.__name__ != "bool" and hasattr(value, "__index__") and getattr(value, "shape", ()) == ():
        return operator.index(value)
    if getattr(value, "ndim", 0) and not isinstance(value, type):
        raise TypeError  # an array may change, and torch's would still be the same key
    hash(value)
    return kind, value
