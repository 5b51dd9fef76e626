"""Which engine solves a problem: at once, on torch's tape, or lazily over dask's chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._algorithms.choose import Choice
from .._algorithms.contract import ways_to_do
from .._algorithms.weight import Weight
from .._arrays.namespace import is_dask_array, is_dask_namespace, is_torch_array, is_torch_namespace
from .._arrays.typing import ArrayT, Namespace
from .evaluate import bias_grad as eager_bias_grad
from .evaluate import evaluate
from .evaluate import only_bias as eager_only_bias
from .problem import Problem

__all__ = ["bias_grad", "check_options", "dispatch", "linear", "only_bias", "ways_of"]


def dispatch(problem: Problem, a: Any, b: Any, bias: Any = None, like: Any = None, *, xp: Namespace) -> Any:
    """What fills the slot of the problem. A dask result is rechunked like `like`."""
    if is_torch_namespace(xp):
        from .torch import solve  # it imports torch

        return solve(problem, a, b, bias)
    if is_dask_namespace(xp):
        from .dask import evaluate as lazily  # it imports dask

        return lazily(problem, a, b.array if isinstance(b, Weight) else b, bias, like, xp=xp)
    if problem.direct is None:  # several steps, the last of which may need more than the first
        check_options([problem], a, xp=xp)
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


def ways_of(problem: Problem, like: ArrayT, *, xp: Namespace) -> list[list[Choice]]:
    """How each step of a problem can be done with arrays like one, the chosen way first."""
    if is_dask_namespace(xp):
        raise TypeError("x and weight must be of a library that computes, as the blocks of dask's are: got dask.array")
    compute = problem.compute_dtype(xp=xp)
    return [ways_to_do(task, like, compute, xp=xp) for _, task in problem.tasks]


def check_options(problems: Sequence[Problem], like: ArrayT, *, xp: Namespace) -> None:
    """Check all problems of a call before the first is solved. A problem over dask's chunks is checked by itself."""
    if not is_dask_namespace(xp):
        for problem in problems:
            problem.check_options(like, xp=xp)


def linear(
    work: Callable[[ArrayT], ArrayT],
    maps: tuple[Callable[[ArrayT], ArrayT], Callable[[ArrayT], ArrayT]],
    x: ArrayT,
    whole: int,
) -> ArrayT:
    """`work(x)`. torch learns the linear map in it, and its adjoint; dask that the last `whole` axes are one chunk."""
    made: ArrayT
    if is_torch_array(x):
        from .torch import Linear

        made = Linear.apply(work, *maps, x)
        return made
    if is_dask_array(x):
        from .dask import by_channels

        made = by_channels(work, x, whole)
        return made
    return work(x)
