"""Where arrays lie, and where work on them is done."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from sys import modules
from typing import Any, cast

import array_api_compat
import numpy as np
from array_api_compat import is_cupy_array

__all__ = ["device", "device_number", "moved", "on_device_of"]


def device(x: Any) -> Any:
    """The device of x. NumPy's arrays are not asked: asking takes longer than making an array."""
    return "cpu" if isinstance(x, np.ndarray) else array_api_compat.device(x)


def on_device_of(*operands: Any) -> AbstractContextManager[object]:
    """Makes the device of the first of CuPy's arrays the current one; does nothing where none of them is CuPy's.

    CuPy creates arrays and runs kernels on the current device, wherever the operands lie.
    """
    if "cupy" in modules:
        for one in operands:
            if is_cupy_array(one):
                return cast(AbstractContextManager[object], one.device)
    return _UNCHANGED


_UNCHANGED: AbstractContextManager[object] = nullcontext()


def device_number(x: Any) -> int | None:
    """The number of the device of one of CuPy's arrays, whose pickles forget it; None for any other object."""
    return int(x.device) if is_cupy_array(x) else None


def moved(x: Any, number: int | None) -> Any:
    """x on the device of that number, as a copy unless it lies there; x itself where no number is known."""
    if number is None or device_number(x) in (None, number):
        return x
    with array_api_compat.array_namespace(x).cuda.Device(number):
        return x.copy()
