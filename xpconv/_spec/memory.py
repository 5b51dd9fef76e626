"""What is remembered from call to call: bounded, and the oldest is forgotten first."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from typing import TypeVar

__all__ = ["remember"]

T = TypeVar("T")


def remember(memory: dict[Hashable, T], key: Hashable, value: T, most: int) -> T:
    """The value, kept under the key as the newest of at most so many.

    Other threads may do the same meanwhile: then one value more may stay, or one may be made again.
    """
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > most:
        with suppress(RuntimeError, StopIteration):  # another thread has changed it between these two
            memory.pop(next(iter(memory)), None)
    return value
