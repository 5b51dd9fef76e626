"""Which engine solves a problem: at once, on torch's tape, or lazily over dask's chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from .._algorithms.choose import Choice
from .._algorithms.contract import ways_to_do
from .._algorithms.weight import Weight
from .._arrays.devices import device
from .._arrays.doors import chunked_like
from .._arrays.namespace import (
    is_dask_array,
    is_dask_namespace,
    is_jax_namespace,
    is_torch_array,
    is_torch_namespace,
)
from .._arrays.typing import ArrayT, Namespace
from .._spec.options import current
from .evaluate import bias_grad as eager_bias_grad
from .evaluate import evaluate
from .evaluate import only_bias as eager_only_bias
from .problem import Problem

__all__ = ["bias_grad", "check_options", "dispatch", "linear", "only_bias", "together", "ways_of", "zeros"]


def dispatch(problem: Problem, a: Any, b: Any, bias: Any = None, like: Any = None, *, xp: Namespace) -> Any:
    """What fills the slot of the problem. A dask result is rechunked like `like`."""
    if problem.per_sample:
        return _of_each_sample(problem, a, b, bias, like, xp=xp)
    if is_torch_namespace(xp):
        from .torch import solve  # it imports torch

        return solve(problem, a, b, bias)
    if is_dask_namespace(xp):
        from .dask import evaluate as lazily  # it imports dask

        return lazily(problem, a, b.array if isinstance(b, Weight) else b, bias, like, xp=xp)
    if is_jax_namespace(cast(Any, xp)):
        from .jax import solve as compiled  # it imports JAX

        return compiled(problem, a, b.array if isinstance(b, Weight) else b, bias)
    if problem.only_task is None:  # several steps, the last of which may need more than the first
        check_options([problem], a, xp=xp)
    return evaluate(problem, a, b, bias, xp=xp)


def _of_each_sample(problem: Problem, a: Any, b: Any, bias: Any, like: Any, *, xp: Namespace) -> Any:
    """The slot where each sample has a weight of its own: samples (n, g*c) are groups (1, n*g*c), which copies nothing.

    Their weights (n, g*o, c, *kernel) are one of shape (n*g*o, c, *kernel).
    """
    if current().batch_invariant:
        raise ValueError("per_sample must be False with batch_invariant: all weights of a batch go into one product")
    joined = problem.joined
    a, b = together(a, b, xp=xp)
    if not problem.convolution.samples:
        return zeros(problem.shape, problem.dtype, a, xp=xp)
    weights = problem.result != "w"
    a = _together(problem, a, xp=xp)
    b = xp.reshape(b, (-1, *b.shape[2:])) if weights else _together(problem, b, xp=xp)
    out = dispatch(joined, a, b, _joined_bias(problem, bias, xp=xp), xp=xp)
    return chunked_like(_apart(problem, out, xp=xp), like)


def _together(problem: Problem, x: Any, *, xp: Namespace) -> Any:
    """(n, g*c, *spatial), in the caller's order, -> (1, n*g*c, *spatial)."""
    x = problem.layout.inward(x, xp=xp)
    return xp.reshape(x, (1, x.shape[0] * x.shape[1], *x.shape[2:]))


def _apart(problem: Problem, out: Any, *, xp: Namespace) -> Any:
    """What fills the joined problem's slot, as the caller has it."""
    shape = problem.convolution.shape(problem.slot)
    if problem.result == "w":
        return xp.reshape(out, (problem.convolution.samples, *shape))
    return problem.layout.outward(xp.reshape(out, shape), xp=xp)


def _joined_bias(problem: Problem, bias: Any, *, xp: Namespace) -> Any:
    """(g*o,) or (n, g*o) -> (n*g*o,)."""
    if bias is None:
        return None
    (bias,) = together(bias, xp=xp)
    return xp.reshape(xp.broadcast_to(bias, (problem.convolution.samples, problem.out_channels)), (-1,))


def bias_grad(dy: ArrayT, problem: Problem, *, xp: Namespace) -> ArrayT:
    """dbias, which all engines compute in the same way."""
    (dy,) = together(dy, xp=xp)
    return eager_bias_grad(dy, problem, xp=xp)


def together(*arrays: ArrayT, xp: Namespace) -> tuple[ArrayT, ...]:
    """The arrays of a call as its namespace takes them: all of dask where one of them is."""
    if is_dask_namespace(xp):
        from .dask import as_chunks

        return tuple(map(as_chunks, arrays))
    return arrays


def only_bias(problem: Problem, bias: Any, like: Any, *, xp: Namespace) -> Any:
    """y where only the bias contributes to it; zeros without a bias."""
    if problem.per_sample:
        return _apart(problem, only_bias(problem.joined, _joined_bias(problem, bias, xp=xp), like, xp=xp), xp=xp)
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


def zeros(shape: tuple[int, ...], dtype: Any, like: ArrayT, *, xp: Namespace) -> ArrayT:
    """Zeros where another array lies."""
    if is_dask_namespace(xp):
        from .dask import zeros as lazily

        return cast(ArrayT, lazily(shape, dtype, like))
    return cast(ArrayT, xp.zeros(shape, dtype=dtype, device=device(like)))


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
