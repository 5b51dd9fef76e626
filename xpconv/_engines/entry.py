"""Decorators of public functions: parameters by name, the device of the arrays, one step for torch's compiler."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from sys import modules
from typing import Any, TypeVar, cast

from .._arrays.devices import on_device_of
from .._spec.names import check_names
from .._spec.parameters import Parameters
from .registry import PUBLIC

__all__ = ["public", "spelled"]

F = TypeVar("F", bound=Callable[..., Any])


def spelled(function: F, *, without: tuple[str, ...] = ()) -> F:
    """A public function whose signature shows the parameters by name instead of `**parameters`."""
    function = public(function)
    signature = inspect.signature(function)
    named = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in Parameters._field_defaults.items()
        if name not in (*signature.parameters, *without)
    ]
    own = list(signature.parameters.values())[:-1]
    function.__signature__ = signature.replace(parameters=[*own, *named])  # type: ignore[attr-defined]
    return function


def public(function: F) -> F:
    """A function that runs on the device where its arrays lie, and that torch's compiler takes as one step.

    A keyword that it does not have is an error that names the nearest one.

    The compiler cannot trace what is remembered from call to call, so it must learn this before it reaches the function
    itself.
    """
    PUBLIC.append(function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        torch = modules.get("torch")
        if torch is not None and torch.compiler.is_compiling():
            from .torch_compile import STEPS  # it imports torch

            return STEPS[function.__name__](*args, **kwargs)
        try:
            if "cupy" not in modules:
                return function(*args, **kwargs)
            with on_device_of(*args, *kwargs.values()):
                return function(*args, **kwargs)
        except TypeError:  # looking at the names before each call would take time
            check_names(call, kwargs)
            raise

    return cast(F, call)
