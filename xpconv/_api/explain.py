"""What would run, without running it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Unpack

from .._algorithms.choose import Choice
from .._arrays.doors import at_a_time
from .._arrays.namespace import agree
from .._arrays.typing import ArrayT
from .._engines.dispatch import ways_of
from .._engines.entry import spelled
from .._engines.problem import Problem
from .._spec.geometry import Geometry, PerAxis
from .._spec.options import current
from .._spec.parameters import ConvParameters

__all__ = ["Contraction", "Explanation", "explain"]

_NAMES = ("forward", "input gradient", "weight gradient")


class Contraction(NamedTuple):
    """How one contraction would be made.

    Attributes
    ----------
    name : str
        ``"forward"``, ``"input gradient"`` or ``"weight gradient"``.
    algorithm : str
        The chosen algorithm with its sizes; for an input gradient that is made of forward contractions, how many these
        are, and the algorithms of those.
    parts : int
        How many parts it is cut into.
    part_bytes : int
        The most bytes that one part takes.
    threads : int
        How many of them are made at the same time. Of a large single part, threads share the product.
    flops : int
        Two for each multiplication of the matrix products that are made.
    workspace : int
        The most bytes that are taken beside the operands and the result.
    workspace_limit : int
        How many bytes may be taken.
    seconds : float
        The model's estimate: good for comparing, not for promising.
    others : dict
        The estimates of what was not chosen, the cheapest first; empty where several contractions are made.
    """

    name: str
    algorithm: str
    parts: int
    part_bytes: int
    threads: int
    flops: int
    workspace: int
    workspace_limit: int
    seconds: float
    others: dict[str, float]


@dataclass(frozen=True)
class Explanation:
    """What `explain` returns; as text a table.

    Attributes
    ----------
    geometry : str
        The convolution in words.
    direct_flops : int
        Two for each multiplication of a direct convolution, zeros of the padding included.
    contractions : tuple of Contraction
        Forward, input gradient, weight gradient.
    """

    geometry: str
    direct_flops: int
    contractions: tuple[Contraction, ...]

    def __str__(self) -> str:
        lines = [self.geometry, f"{self.direct_flops / 1e9:.3g} GFLOP, directly", ""]
        for made in self.contractions:
            lines.append(f"{made.name}: {made.algorithm}, about {1e3 * made.seconds:.3g} ms")
            lines.append(
                f"    {made.parts} parts of {made.part_bytes / 2**20:.1f} MiB, {made.threads} at a time, "
                f"{made.flops / 1e9:.3g} GFLOP, workspace {made.workspace / 2**20:.1f} of "
                f"{made.workspace_limit / 2**20:.0f} MiB"
            )
            others = list(made.others.items())[:3]
            lines += [f"    instead of {name}: {1e3 * seconds:.3g} ms" for name, seconds in others]
        return "\n".join(lines)


@spelled
def explain(
    x: ArrayT,
    weight: ArrayT,
    *,
    transposed: bool = False,
    output_padding: PerAxis = 0,
    output_size: PerAxis | None = None,
    **parameters: Unpack[ConvParameters],
) -> Explanation:
    """Say how `conv` and its gradients would be computed for such arrays, under the current `options`, and why.

    Parameters
    ----------
    x, weight : array
        As for `conv`. Only their shapes, dtype, library and device matter.
    transposed : bool, default False
        Whether it is `conv_transpose` that is meant.
    output_padding, output_size
        As for `conv_transpose`.
    **parameters
        As for `conv`.

    Returns
    -------
    Explanation
        For each of the three contractions the algorithm, the parts, the floating-point operations, the workspace and
        the estimated time, beside those of the algorithms that were not chosen. Print it.

    Raises
    ------
    TypeError, ValueError
        As `conv` does.

    See Also
    --------
    options : To choose otherwise.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import explain
    >>> plan = explain(np.ones((1, 1, 100_000)), np.ones((1, 1, 1000)))
    >>> plan.contractions[0].name, plan.contractions[0].algorithm[:7], plan.direct_flops
    ('forward', 'Fourier', 198002000)
    """
    xp = agree(x=x, weight=weight)
    problem = Problem.of(x, weight, parameters, (output_padding, output_size) if transposed else None, xp=xp).joined
    threads, made = at_a_time(x, current().threads), []
    for slot, name in zip("yxw", _NAMES, strict=True):
        made.append(_contraction(name, ways_of(problem.with_slot(slot), x, xp=xp), threads))
    geometry = problem.convolution.geometry
    direct = 2 * math.prod(geometry.y_shape) * geometry.inputs * geometry.taps
    return Explanation(_in_words(geometry), direct, tuple(made))


def _contraction(name: str, parts: list[list[Choice]], threads: int) -> Contraction:
    """From the ways to compute each step, the chosen one first."""
    chosen = [found[0] for found in parts]
    plans = [piece.plan for choice in chosen for piece in choice.pieces]
    return Contraction(
        name,
        "; ".join(dict.fromkeys(choice.name for choice in chosen)),
        sum(plan.parts.count for plan in plans),
        max((plan.part_bytes for plan in plans), default=0),
        max((max(plan.threads(threads), 1) for plan in plans), default=1),
        sum(plan.flops for plan in plans),
        max((plan.bytes(threads) for plan in plans), default=0),
        max((plan.limits.workspace for plan in plans), default=0),
        sum(choice.seconds for choice in chosen),
        {way.name: way.seconds for way in parts[0][1:]} if len(parts) == 1 else {},
    )


def _in_words(geometry: Geometry) -> str:
    """One line: shapes and parameters."""
    parameters = {
        "stride": tuple(axis.stride for axis in geometry.axes),
        "padding": tuple((axis.lo, axis.hi) for axis in geometry.axes),
        "dilation": tuple(axis.dilation for axis in geometry.axes),
        "groups": geometry.groups,
    }
    words = (f"{name} {value}" for name, value in parameters.items())
    return f"x {geometry.x_shape}, weight {geometry.w_shape}, " + ", ".join(words)
