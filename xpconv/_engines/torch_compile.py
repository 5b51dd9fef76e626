"""The public functions as steps for torch's compiler. Imports torch, and is imported while torch compiles."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from .registry import PUBLIC

__all__ = ["STEPS"]


def _step(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is one step of a graph, compiled anew for each size: algorithms are chosen by sizes."""

    @wraps(function)
    def step(*args: Any, **kwargs: Any) -> Any:
        kwargs = {name: _settled(one) for name, one in kwargs.items()}
        return function(*map(_settled, args), **kwargs)

    torch.compiler.allow_in_graph(step)
    return step


def _settled(x: Any) -> Any:
    """The value with a number for each size that torch leaves open."""
    if isinstance(x, torch.SymInt):
        return int(x)
    if type(x) in (tuple, list):
        return type(x)(map(_settled, x))
    if isinstance(x, torch.Tensor) and any(isinstance(size, torch.SymInt) for size in x.shape):
        return x.view([int(size) for size in x.shape])
    return x


STEPS = {function.__name__: _step(function) for function in PUBLIC}
