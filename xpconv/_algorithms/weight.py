"""A weight as contractions read it: part by part, with reversed taps for some, with transforms that are remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic

from .._arrays.doors import flip, quietly, taps_outermost
from .._arrays.typing import ArrayT, Namespace
from .._spec.memory import remember
from .._spec.parts import Part, channels
from .direct import Direct
from .lowering import BySample, Lowering, TapsFirst
from .plan import Plan

__all__ = ["Weight"]

MOST_PHASES = 32  # whose W is remembered


@dataclass(frozen=True)
class Weight(Generic[ArrayT]):
    """An array of shape (g*o, c, *kernel), or those of its taps that a phase meets."""

    array: ArrayT
    memory: dict[Any, Any] | None = None  # its transforms, valid as long as its values stay the same
    reversed_taps: tuple[slice, ...] | None = None  # of a phase: read in reverse, outputs and inputs exchanged

    def changed(self, change: Callable[[ArrayT], ArrayT]) -> Weight[ArrayT]:
        """The weight with its array changed: flipped, conjugated, or in another dtype."""
        changed = change(self.array)
        return self if changed is self.array else replace(self, array=changed)

    def at(self, taps: tuple[slice, ...]) -> Weight[ArrayT]:
        """Some of its taps, as a weight that remembers nothing."""
        return Weight(self.array[(slice(None), slice(None), *taps)])

    def suited(self, plan: Plan) -> Plan:
        """The plan, if it is a lowering, with the one that reads the weight as it lies in memory."""
        lowered = isinstance(plan.basis, Lowering) and not isinstance(plan.basis, BySample | Direct)
        if lowered and self.reversed_taps is None and taps_outermost(self.array):
            return replace(plan, basis=TapsFirst())
        return plan

    def part(self, part: Part, whole_inputs: int, *, copied: bool = True, xp: Namespace) -> ArrayT:
        """(g*o, c, *kernel) of a part; without a copy of reversed taps, if a view will do."""
        if self.reversed_taps is None:
            return self.array[part.w]
        # The outputs of the part are the inputs of the array, and its inputs the outputs.
        axes = tuple(range(3, 3 + len(part.geometry.axes)))
        w = self.array[(channels(part.groups, part.inputs, whole_inputs), part.outputs, *self.reversed_taps)]
        w = xp.reshape(w, (part.geometry.groups, part.geometry.inputs, *w.shape[1:]))  # (g, c, o, *kernel)
        w = xp.permute_dims(w, (0, 2, 1, *axes))  # (g, o, c, *kernel)
        if part.geometry.taps > 1:
            w = flip(w, axes, copied=copied, xp=xp)
        return xp.reshape(w, part.geometry.w_shape)

    def in_basis(self, part: Part, plan: Plan, *, xp: Namespace) -> Any:
        """W of a part. The last one is remembered, for each phase."""
        memory = self.memory
        if memory is None:
            return self._made(part, plan, xp=xp)
        geometry, basis = part.geometry, plan.basis
        if plan.weight_cuts > 1 or basis.reshapes("w", geometry):
            return self._made(part, plan, xp=xp)
        taps = self.reversed_taps
        phase = None if taps is None else tuple((tap.start, tap.stop, tap.step) for tap in taps)
        key = basis, geometry.counts[1:], tuple(axis[1:4] for axis in geometry.axes)  # kernel, stride, dilation
        known, W = memory.get(phase, (None, None))
        if known != key:
            W = self._made(part, plan, xp=xp)
            remember(memory, phase, (key, W), MOST_PHASES)
        return W

    def _made(self, part: Part, plan: Plan, *, xp: Namespace) -> Any:
        basis, w = plan.basis, self.part(part, plan.parts.geometry.inputs, xp=xp)
        if not basis.propagates_nonfinite:
            return basis.ew(w, part.geometry, xp=xp)
        with quietly():
            return basis.ew(w, part.geometry, xp=xp)
