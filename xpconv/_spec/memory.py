"""What is remembered: from call to call, bounded, and the oldest is forgotten first; or as long as an object lives."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import wraps
from itertools import count
from typing import Any, Generic, ParamSpec, TypeVar

__all__ = ["derived", "once", "remember"]

P = ParamSpec("P")
T = TypeVar("T")


class once(Generic[T]):
    """An attribute that is made when it is first read, as `cached_property` makes it, but without a lock.

    The lock of Python 3.11 takes longer than most of what is made here.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self.make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        if instance is None:
            return self  # type: ignore[return-value]
        value = instance.__dict__[self.name] = self.make(instance)
        return value


def derived(make: Callable[P, T]) -> Callable[P, T]:
    """Remembers what a function returns on its last argument, a geometry, as long as that lives."""

    @wraps(make)
    def kept(*args: P.args, **kwargs: P.kwargs) -> T:
        memory: dict[Any, Any] = args[-1].derived  # type: ignore[attr-defined]
        key = make, *args[:-1]
        found = memory.get(key)
        if found is None:
            found = memory[key] = make(*args, **kwargs)
        return found

    return kept


def remember(memory: dict[Hashable, T], key: Hashable, value: T, most: int, every: int = 1) -> T:
    """The value, kept under the key as the newest of at most so many; the oldest is forgotten.

    With `every` above 1, mostly the newest is forgotten instead, and the oldest only one time in so many: then a cycle
    through a few more values than are remembered still finds most of them.

    Other threads may do the same meanwhile: then one value more may stay, or one may be made again.
    """
    memory.pop(key, None)
    if len(memory) >= most:
        with suppress(RuntimeError, StopIteration, KeyError):  # another thread has changed it between these two
            if next(_turns) % every:
                memory.popitem()
            else:
                memory.pop(next(iter(memory)), None)
    memory[key] = value
    return value


_turns = count()
