"""A problem over JAX's arrays: one compiled function for each problem, kept.

Outside of `jit` JAX makes one operation after the other, each from Python, and each that writes to a part of an array
copies all of it. This file imports JAX, and is imported when one of its arrays comes.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

import jax

from .._arrays.namespace import library
from .._spec.memory import remember
from .._spec.options import current
from .evaluate import evaluate
from .problem import Problem

__all__ = ["solve"]

MOST_COMPILED = 256
_compiled: dict[Hashable, Any] = {}


def solve(problem: Problem, a: Any, b: Any, bias: Any) -> Any:
    """What fills the problem's slot. In a caller's own `jit`, the function becomes part of that."""
    key = problem, current()
    found = _compiled.get(key)
    if found is None:
        made = jax.jit(partial(evaluate, problem, xp=library("a", a)))
        found = remember(_compiled, key, made, MOST_COMPILED)
    return found(a, b, bias)
