"""Which engine solves a problem: at once, on torch's tape, or lazily over dask's chunks."""

from __future__ import annotations

from typing import Any

from .._algorithms.weight import Weight
from .._arrays.namespace import is_dask_namespace, is_torch_namespace
from .._arrays.typing import ArrayT, Namespace
from .evaluate import bias_grad as eager_bias_grad
from .evaluate import evaluate
from .evaluate import only_bias as eager_only_bias
from .problem import Problem

__all__ = ["bias_grad", "dispatch", "only_bias"]


def dispatch(problem: Problem, a: Any, b: Any, bias: Any = None, like: Any = None, *, xp: Namespace) -> Any:
    """What fills the slot of the problem. A dask result is rechunked like `like`."""
    if is_torch_namespace(xp):
        from .torch import solve  # it imports torch

        return solve(problem, a, b, bias)
    if is_dask_namespace(xp):
        from .dask import evaluate as lazily  # it imports dask

        return lazily(problem, a, b.array if isinstance(b, Weight) else b, bias, like, xp=xp)
    return evaluate(problem, a, b, bias, xp=xp)


def bias_grad(dy: ArrayT, problem: Problem, *, xp: Namespace) -> ArrayT:
    """dbias, which all engines compute in the same way."""
    if is_dask_namespace(xp):
        from .dask import as_chunks

        dy = as_chunks(dy)
    return eager_bias_grad(dy, problem, xp=xp)


def only_bias(problem: Problem, bias: Any, like: Any, *, xp: Namespace) -> Any:
    """y where only the bias contributes to it; zeros without a bias."""
    if is_dask_namespace(xp):
        from .dask import only_bias as lazily

        return lazily(problem, bias, like, xp=xp)
    return eager_only_bias(problem, bias, like, xp=xp)
