"""Names that a user misspelt: the sentence says which was meant."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import wraps
from typing import Any, TypeVar, cast

__all__ = ["check_names", "did_you_mean", "says_names"]

F = TypeVar("F", bound=Callable[..., Any])


def did_you_mean(given: str, names: Iterable[str]) -> str:
    """The name that is nearest to the given one, in brackets behind it; nothing where none is near."""
    word, known = given.lower(), sorted(names, key=len)
    longer = (name for name in known if word and (name.startswith(word) or name.endswith(f"_{word}")))
    shorter = (name for name in known if len(name) > 2 and word.startswith(name))
    near = next(longer, None) or next(shorter, None) or next(iter(get_close_matches(word, known, 1, 0.5)), None)
    return f" (did you mean {near!r}?)" if near else ""


def check_names(function: Callable[..., Any], given: Mapping[str, object]) -> None:
    """Raise a TypeError about the keywords that a function does not have."""
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    unknown = [f"{name!r}{did_you_mean(name, names)}" for name in given if name not in names]
    if unknown:
        called = function.__qualname__.removesuffix(".__init__")
        raise TypeError(f"{called} has no parameter {', '.join(unknown)}: it has {', '.join(names)}") from None


def says_names(function: F) -> F:
    """A function that says which keyword was meant."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError:
            check_names(function, kwargs)
            raise

    return cast(F, call)
