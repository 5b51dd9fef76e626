"""A call without its arrays: made once for all calls of the same kind, remembered, and handed on whole."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, TypeAlias, cast

from .._algorithms.contract import Reading, Task, check
from .._arrays.doors import item_bytes
from .._arrays.dtypes import DTypes, exact, fitting, gradient_dtype, real_dtype, result_dtype, widest
from .._arrays.layout import Layout
from .._arrays.namespace import is_floating, missing_dtypes
from .._arrays.typing import ArrayT, Namespace
from .._spec.convolution import Convolution, Step
from .._spec.geometry import PerAxis, check_elements, check_shape, per_axis
from .._spec.memory import once, remember
from .._spec.options import current
from .._spec.parameters import ConvParameters, Parameters, canonical
from .._spec.phases import joined
from .phases import Phases

__all__ = ["Problem", "Transposed", "spatial_axes"]

Transposed: TypeAlias = tuple[PerAxis, PerAxis | None] | None  # output padding and output size; None: not transposed

# Which slots of T the caller's y and x stand in. The transposed convolution is the same sum with these two exchanged.
FORWARD, TRANSPOSED = ("y", "x"), ("x", "y")


@dataclass(frozen=True)
class Problem:
    """Fill one slot of a convolution from the other two."""

    result: str  # the slot, as the caller names it: "y" from x and w, "x" from dy and w, or "w" from dy and x
    slots: tuple[str, str]  # those of T that the caller's y and x stand in
    convolution: Convolution
    layout: Layout
    flip: bool
    dtypes: DTypes
    dtype: Any  # of the result
    per_sample: bool = False  # whether each sample has a weight of its own, on an axis in front

    @classmethod
    def of(cls, x: Any, weight: Any, params: Mapping[str, Any], transposed: Transposed, *, xp: Namespace) -> Problem:
        """The problem of y, for an input and a weight."""
        facts = missing_dtypes(x, xp=xp), x.shape, weight.shape, x.dtype, weight.dtype
        return _remembered(_of, params, transposed, xp, *facts)

    @classmethod
    def of_input_grad(
        cls, dy: Any, weight: Any, input_size: PerAxis, params: Mapping[str, Any], *, xp: Namespace
    ) -> Problem:
        """The problem of dx, with the size of the input instead of the input."""
        facts = missing_dtypes(dy, xp=xp), dy.shape, weight.shape, dy.dtype, weight.dtype
        return _remembered(_of_input_grad, params, (input_size,), xp, *facts)

    @classmethod
    def of_weight_grad(
        cls, dy: Any, x: Any, kernel_size: Sequence[int], params: Mapping[str, Any], *, xp: Namespace
    ) -> Problem:
        """The problem of dw, with the size of the kernel instead of the weight."""
        facts = missing_dtypes(dy, xp=xp), dy.shape, x.shape, dy.dtype, x.dtype
        return _remembered(_of_weight_grad, params, (kernel_size,), xp, *facts)

    def with_slot(self, name: str) -> Problem:
        """The same problem with another slot to fill: a derivative of a slot is another slot.

        The gradient of the input is linear: a constant border does not change with the input.
        """
        problem = self.linear if name == "x" else self
        return problem._derived(result=name, dtype=self.dtypes.of_result(name))

    @once
    def linear(self) -> Problem:
        """The same problem for a change of the input, which leaves a constant border as it is."""
        linear = self.convolution.linear
        return self if linear is self.convolution else replace(self, convolution=linear)

    def with_dtype(self, dtype: Any) -> Problem:
        """The same problem with the result in another dtype."""
        return self._derived(dtype=dtype)

    def precise(self, xp: Namespace, missing: frozenset[str]) -> Problem:
        """The same problem, multiplied and summed in float64 and rounded once; integers are exact anyway."""
        if not is_floating(self.dtypes.compute, xp=xp) or not is_floating(self.dtype, xp=xp):
            return self
        if "float64" in missing:
            raise ValueError('precision must be "auto" or "high" where there is no float64 to sum in: got "highest"')
        forward, backward = (widest(xp, dtype) for dtype in (self.dtypes.compute, self.dtypes.compute_grad))
        return self._derived(dtypes=self.dtypes._replace(compute=forward, compute_grad=backward))

    def reading(self, *dtypes: Any) -> Problem:
        """The same problem for operands of these dtypes, of another byte order say."""
        if dtypes == self._reads:
            return self
        names = (name for name in "yxw" if name != self.result)
        return self._derived(dtypes=self.dtypes._replace(**dict(zip(names, dtypes, strict=True))))

    @once
    def _reads(self) -> tuple[Any, ...]:
        """The dtypes of the operands."""
        return tuple(getattr(self.dtypes, name) for name in "yxw" if name != self.result)

    def _derived(self, **changes: Any) -> Problem:
        """Another problem of the family, remembered as long as this one."""
        changed = {name: one for name, one in changes.items() if one != getattr(self, name)}
        if not changed:
            return self
        key = tuple(changed.items())
        return self._family.get(key) or remember(self._family, key, replace(self, **changed), MOST_DERIVED)

    @once
    def _family(self) -> dict[Any, Problem]:
        """Problems that were derived from this one."""
        return {}

    def on(self, convolution: Convolution) -> Problem:
        """The same problem over another convolution, such as a part of it."""
        return replace(self, convolution=convolution)

    def mapped(self, axis: str, times: int) -> Problem:
        """The same problem for `times` arrays at once: as "samples" on an axis in front, or as "groups" of channels."""
        convolution, layout = self.convolution, self.layout
        convolution = replace(convolution, **{axis: times * getattr(convolution, axis)})
        if axis == "samples":
            layout = layout._replace(batch=(times, *layout.batch), channels=layout.channels + 1)
        return self._derived(convolution=convolution, layout=layout)

    @once
    def joined(self) -> Problem:
        """What is computed: the samples as groups of a single one, if each has a weight of its own."""
        if not self.per_sample:
            return self
        samples, groups, *_ = self.convolution.counts
        convolution = replace(self.convolution, samples=1, groups=samples * groups)
        return replace(self, convolution=convolution, layout=Layout((1,), 1, self.layout.ndim), per_sample=False)

    # What follows from these.

    @once
    def of_one_sample(self) -> Problem:
        """The same problem for a single sample, once its operands are arranged."""
        return self.on(replace(self.convolution, samples=1))

    @once
    def tasks(self) -> tuple[tuple[Step, Task], ...]:
        """The steps that fill the slot, and what each is to a contraction."""
        steps, slot = self.convolution.steps, self.slot
        dtypes = [dtype for at, dtype in zip(self.slots, (self.dtypes.y, self.dtypes.x), strict=True) if at != slot]
        reading = Reading(
            tuple(dtypes),
            border=slot != "x" and self.convolution.border is not None,
            conjugated=slot == "w",
            some_taps=any(row.input_dilation > 1 for row in self.convolution.rows),
            halves=self._in_halves,
        )
        return tuple((step, Task(slot, step.geometry, self.dtype, reading)) for step in steps)

    @once
    def _in_halves(self) -> bool:
        """Whether both operands and the result have one dtype of 16 bits."""
        by_slot = dict(zip((*self.slots, "w"), (self.dtypes.y, self.dtypes.x, self.dtypes.w), strict=True))
        first, second = (dtype for at, dtype in by_slot.items() if at != self.slot)
        return first == second == self.dtype and item_bytes(first) == 2

    @once
    def phases(self) -> Phases | None:
        """All phases of a dilated input as one task, where they are many."""
        found = joined(self.convolution)
        if found is None:
            return None
        task = Task(self.slot, found.geometry, self.dtype, self.tasks[0][1].reading)
        return Phases(found, task, self.convolution.geometry.kernel[found.along])

    @once
    def only_task(self) -> Task | None:
        """The only task, where that is all: the input is not dilated, and has no border with a gradient."""
        undilated = all(row.input_dilation == 1 for row in self.convolution.rows)
        bordered = self.slot == "x" and self.convolution.border
        return self.tasks[0][1] if undilated and len(self.tasks) == 1 and not bordered else None

    @once
    def plain(self) -> Task | None:
        """The only task, if arrays stand in T as the caller has them, all of the one dtype that is computed in."""
        same = self.dtype == self.dtypes.compute == self.dtypes.compute_grad and not self.dtypes.mixed
        same = same and all(self.dtype == dtype for dtype in self.dtypes[:3])
        placed = self.layout.channels == len(self.layout.batch) == 1 and not self.flip and not self.swapped
        return self.only_task if same and placed and self.convolution.border is None else None

    @once
    def slot(self) -> str:
        """The slot of T that is filled."""
        return dict(zip("yxw", (*self.slots, "w"), strict=True))[self.result]

    @once
    def swapped(self) -> bool:
        """Whether dy and x change places: in a transposed convolution they stand in the slots x and y of T."""
        return self.result == "w" and self.slots == TRANSPOSED

    @once
    def conjugated(self) -> int | None:
        """Which operand, 0 or 1, is conjugated: in a gradient the one that is not dy; none for y."""
        return None if self.result == "y" else int(not self.swapped)

    @once
    def shape(self) -> tuple[int, ...]:
        """The shape of the result, as the caller has it."""
        shape = self.convolution.shape(self.slot)
        if self.slot == "w":
            return (self.convolution.samples, *shape) if self.per_sample else shape
        return self.layout.outer(shape)

    @once
    def out_channels(self) -> int:
        """The number of channels of the caller's y, and so the length of a bias."""
        return self.convolution.shape(self.slots[0])[1]

    def compute_dtype(self, bias: Any = None, *, xp: Namespace) -> Any:
        """The dtype to multiply and add in; a bias is added in it as well."""
        x, w, y = self.dtypes[:3]
        compute = self.dtypes.compute if self.result == "y" else self.dtypes.compute_grad
        if compute == y or is_floating(y, xp=xp) or not is_floating(compute, xp=xp):
            return compute
        first, second = {"y": (x, w), "x": (y, w), "w": (y, x)}[self.result]
        return exact(xp, self.convolution.terms(self.slot), first, second, None if bias is None else bias.dtype)

    def check_options(self, like: ArrayT, bias: Any = None, *, xp: Namespace) -> None:
        """Raise the error of a method or workspace with which arrays like one cannot be computed, before any work."""
        real = self.joined.of_real_parts(xp=xp) if self.dtypes.mixed else self.joined
        for _, task in real.tasks:
            check(task, like, real.compute_dtype(bias, xp=xp), xp=xp)

    def of_real_parts(self, part: str = "real", *, xp: Namespace) -> Problem:
        """The same problem for real or imaginary parts of complex numbers, as `part` says of x and its border."""
        own = (real_dtype(dtype, xp=xp) for dtype in self.dtypes[:5])
        return self._derived(
            dtypes=DTypes._make((*own, *self.dtypes[5:7], False)),
            dtype=real_dtype(self.dtype, xp=xp),
            convolution=self.convolution.with_value(attrgetter(part)),
        )


# What is remembered from call to call.

MOST_REMEMBERED = 4096
MOST_DERIVED = 8  # of each of them
_problems: dict[Hashable, Problem] = {}


def _remembered(make: Callable[..., Problem], params: Mapping[str, Any], sizes: Any, *facts: Any) -> Problem:
    """What `make` returned before for the same facts, in whatever form they come."""
    try:
        key = make, *params, *map(canonical, params.values()), canonical(sizes), facts
        found = _problems.get(key)
    except TypeError:  # not every value can be a key; `make` takes it all the same, or raises an error
        found = make(Parameters.of(cast(ConvParameters, params)), sizes, *facts)
        return found.precise(*facts[:2]) if current().precision == "highest" else found
    if found is None:
        found = make(Parameters.of(cast(ConvParameters, params)), sizes, *facts)
        remember(_problems, key, found, MOST_REMEMBERED, every=8)
    return found.precise(*facts[:2]) if current().precision == "highest" else found


def _of(params: Parameters, transposed: Transposed, xp: Any, *facts: Any) -> Problem:
    missing, x_shape, w_shape, x_dtype, w_dtype = facts
    layout = Layout.of("x", x_shape, spatial_axes(w_shape, params.per_sample), params.channel_axis)
    if params.per_sample:
        w_shape = _of_one_sample("x", layout, w_shape)
    inner = layout.inner(x_shape)
    if transposed is None:
        convolution = Convolution.of(inner, w_shape, params)
    else:
        convolution = Convolution.of_transposed(inner, w_shape, params, *transposed)
    convolution = convolution.with_value(lambda value: fitting(xp, value, x_dtype))
    y = result_dtype(xp, params.dtype, missing, x=x_dtype, weight=w_dtype)
    dtypes = DTypes.of(x_dtype, w_dtype, y, missing, xp=xp)
    slots = FORWARD if transposed is None else TRANSPOSED
    deciding = "padding and input_dilation" if transposed is None else "stride, dilation, padding and output_size"
    check_elements(convolution.shape(slots[0]), item_bytes(y), deciding)
    return Problem("y", slots, convolution, layout, params.flip, dtypes, y, params.per_sample)


def _of_input_grad(params: Parameters, sizes: tuple[PerAxis], xp: Any, *facts: Any) -> Problem:
    missing, y_shape, w_shape, y_dtype, w_dtype = facts
    ndim = spatial_axes(w_shape, params.per_sample)
    layout = Layout.of("dy", y_shape, ndim, params.channel_axis)
    if params.per_sample:
        w_shape = _of_one_sample("dy", layout, w_shape)
    size = per_axis("input_size", *sizes, ndim, 0)
    convolution = Convolution.of((layout.inner(y_shape)[0], None, *size), w_shape, params).linear
    dx = gradient_dtype(xp, params.dtype, missing, dy=y_dtype, weight=w_dtype)
    check_elements(convolution.shape("x"), item_bytes(dx), "input_size")
    dtypes = DTypes.of(dx, w_dtype, y_dtype, missing, xp=xp)
    return _checked(Problem("x", FORWARD, convolution, layout, params.flip, dtypes, dx, params.per_sample), y_shape)


def _of_weight_grad(params: Parameters, sizes: tuple[Sequence[int]], xp: Any, *facts: Any) -> Problem:
    missing, y_shape, x_shape, y_dtype, x_dtype = facts
    kernel = per_axis("kernel_size", *sizes, None, 1)
    layout = Layout.of("x", x_shape, len(kernel), params.channel_axis)
    if params.per_sample:
        _check_batch("x", layout)
    outputs = Layout.of("dy", y_shape, len(kernel), params.channel_axis).inner(y_shape)[1]
    convolution = Convolution.of(layout.inner(x_shape), (outputs, None, *kernel), params)
    convolution = convolution.with_value(lambda value: fitting(xp, value, x_dtype))
    dw = gradient_dtype(xp, params.dtype, missing, dy=y_dtype, x=x_dtype)
    check_elements(convolution.shape("w"), item_bytes(dw), "kernel_size")
    dtypes = DTypes.of(x_dtype, dw, y_dtype, missing, xp=xp)
    return _checked(Problem("w", FORWARD, convolution, layout, params.flip, dtypes, dw, params.per_sample), y_shape)


def _checked(problem: Problem, y_shape: tuple[int, ...]) -> Problem:
    check_shape("dy", y_shape, problem.with_slot("y").shape)
    return problem


def _of_one_sample(name: str, layout: Layout, w_shape: Sequence[int]) -> Sequence[int]:
    """The shape of one sample's weight, of the shape (batch, *weight)."""
    _check_batch(name, layout)
    if w_shape[0] != layout.batch[0]:
        raise ValueError(
            f"weight must have {layout.batch[0]} samples on axis 0 where per_sample is set, as many as {name}: got "
            f"{w_shape[0]}"
        )
    return w_shape[1:]


def _check_batch(name: str, layout: Layout) -> None:
    if len(layout.batch) != 1:
        raise ValueError(
            f"{name} must have one batch axis where per_sample is set, beside its channels and {layout.ndim} spatial "
            f"axes: got {len(layout.batch)}"
        )


def spatial_axes(w_shape: Sequence[int], per_sample: bool = False) -> int:
    """How many spatial axes a weight has."""
    if len(w_shape) < 2 + per_sample:
        raise ValueError(
            f"weight must have at least {2 + per_sample} axes ({'batch, ' * per_sample}out channels, in channels / "
            f"groups, *kernel): got {len(w_shape)}; arrays without channels are for convolve"
        )
    return len(w_shape) - 2 - per_sample
