"""Padding, and its exact adjoint.

Only the parts of a convolution are padded, never a whole input. A part reads what it needs (`Axis.part`), so `pad`
never meets negative padding: cropping has already happened where the part was cut. A border of other modes than zeros
is added by an `Operand`, when a part of it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic

from .._spec.convolution import Run
from .._spec.geometry import Geometry
from .devices import device
from .doors import add, conj, convert, flip, put
from .namespace import missing_dtypes
from .typing import ArrayT, Namespace

__all__ = [
    "Operand",
    "as_it_is",
    "border",
    "border_adjoint",
    "fold_border",
    "fold_runs",
    "pad",
    "pad_adjoint",
    "pieces_of",
    "repeated",
]

Runs = Sequence[tuple[Run, ...] | None]


def pad(x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """(n, c, *size) -> (n, c, *padded): zeros around x, or x itself where there is nothing to add."""
    if geometry.padded == geometry.size:
        return x
    padded: ArrayT = xp.zeros((*x.shape[:2], *geometry.padded), dtype=x.dtype, device=device(x))
    return put(padded, geometry.inner, x, xp=xp)


def pad_adjoint(padded: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """(n, c, *padded) -> (n, c, *size): the gradient of the zeros belongs to no input, so it is dropped.

    No window reads the inputs that negative padding has cropped, so their gradient is zero.
    """
    kept = padded[geometry.inner]
    if all(min(axis.lo, axis.hi) >= 0 for axis in geometry.axes):
        return kept
    x: ArrayT = xp.zeros((*padded.shape[:2], *geometry.size), dtype=padded.dtype, device=device(padded))
    where = (slice(max(-axis.lo, 0), axis.size + min(axis.hi, 0)) for axis in geometry.axes)
    return put(x, (slice(None), slice(None), *where), kept, xp=xp)


@dataclass(frozen=True)
class Operand(Generic[ArrayT]):
    """An array as a contraction reads it, part by part: with its border, in another dtype, or conjugated."""

    array: ArrayT
    dtype: Any
    conjugated: bool
    runs: Runs | None
    xp: Namespace

    @property
    def device(self) -> Any:
        return device(self.array)

    @property
    def constants(self) -> tuple[complex, ...]:
        """The constants in its border."""
        return tuple(run.value for axis in self.runs or () for run in axis or () if run.value is not None)

    def read(self, where: tuple[Any, ...]) -> ArrayT:
        """A part, in the dtype of the array."""
        x: ArrayT = self.array[where] if self.runs is None else border(self.array, where, self.runs, xp=self.xp)
        return conj(x, xp=self.xp) if self.conjugated else x

    def __getitem__(self, where: tuple[Any, ...]) -> ArrayT:
        return convert(self.read(where), self.dtype, xp=self.xp)


def as_it_is(x: ArrayT, where: tuple[Any, ...]) -> ArrayT:
    """A part of an array or of an `Operand`, in the dtype that it has in memory."""
    return x.read(where) if isinstance(x, Operand) else x[where]


def border(x: ArrayT, where: tuple[slice, ...], runs: Runs, *, xp: Namespace) -> ArrayT:
    """(n, c, *size) -> what lies at `where` of (n, c, *padded)."""
    pieces = [None if axis is None else pieces_of(axis, at) for axis, at in zip(runs, where[2:], strict=True)]
    near = [at if axis is None else _reach(axis) for axis, at in zip(pieces, where[2:], strict=True)]
    x = x[(*where[:2], *near)]
    for i, axis in enumerate(pieces, 2):
        if axis is not None and not (len(axis) == 1 and axis[0].step == 1):
            x = xp.concat([repeated(x, i, run, near[i - 2].start, xp=xp) for run in axis], axis=i)
    return x


def _reach(runs: Sequence[Run]) -> slice:
    """From the first to the last of the inputs that stand in runs."""
    inputs = [run.inputs for run in runs if run.value is None] or [slice(0, 0)]
    return slice(min(one.start for one in inputs), max(one.stop for one in inputs))


def border_adjoint(piece: ArrayT, runs: Sequence[Run | None], *, xp: Namespace) -> tuple[tuple[Any, ...], ArrayT]:
    """Which inputs a piece of the border, (n, c, *places), repeats; and what it adds to their gradient."""
    where = [slice(None), slice(None)]
    for i, run in enumerate(runs, 2):
        where.append(slice(None) if run is None else run.inputs)
        if run is not None and run.step == -1:
            piece = flip(piece, (i,), xp=xp)
        elif run is not None and run.step == 0:
            dtype = piece.dtype if "int64" in missing_dtypes(piece, xp=xp) else None  # to sum integers in
            piece = convert(xp.sum(piece, axis=i, keepdims=True, dtype=dtype), piece.dtype, xp=xp)
    return (*where, ...), piece


def fold_border(bordered: ArrayT, shape: tuple[int, ...], runs: Runs, *, xp: Namespace) -> ArrayT:
    """(n, c, *padded) -> (n, c, *size), axis by axis."""
    for i, (axis, size) in enumerate(zip(runs, shape[2:], strict=True), 2):
        bordered = bordered if axis is None else fold_runs(bordered, i, axis, size, xp=xp)
    return bordered


def fold_runs(bordered: ArrayT, along: int, runs: Sequence[Run], size: int, *, xp: Namespace) -> ArrayT:
    """(..., padded, ...) -> (..., size, ...): the gradient of each place, added to that of the input which it holds.

    The sums take the memory of `bordered` where each input has a place of its own.
    """
    every: tuple[Any, ...] = (slice(None),) * along
    # The run that holds every input once; there is none where some are cropped.
    own = next((run for run in runs if run.inputs == slice(0, size) and run.step == 1), None)
    if own is None:
        shape = (*bordered.shape[:along], size, *bordered.shape[along + 1 :])
        sums: ArrayT = xp.zeros(shape, dtype=bordered.dtype, device=device(bordered))
    else:
        sums = bordered[(*every, own.places, ...)]
    for run in runs:
        if run is not own:
            piece = bordered[(*every, run.places, ...)]
            sums = add(sums, *border_adjoint(piece, (*(None,) * (along - 2), run), xp=xp), xp=xp)
    return sums


def pieces_of(runs: Sequence[Run], at: slice) -> list[Run]:
    """Those parts of the runs that lie within `at`."""
    pieces = []
    for places, inputs, step, value in runs:
        start, stop = max(places.start, at.start), min(places.stop, at.stop)
        if start >= stop:
            continue
        skipped, left = start - places.start, places.stop - stop
        before, after = (skipped, left) if step == 1 else (left, skipped) if step == -1 else (0, 0)
        pieces.append(Run(slice(start, stop), slice(inputs.start + before, inputs.stop - after), step, value))
    return pieces


def repeated(x: ArrayT, axis: int, run: Run, origin: int, *, xp: Namespace) -> ArrayT:
    """The inputs of a run, as they stand at its places, or its constant; x begins with the input `origin`."""
    if run.value is None:
        where = (*(slice(None),) * axis, slice(run.inputs.start - origin, run.inputs.stop - origin))
        x = x[(*where, ...)]
    else:
        x = xp.full((*x.shape[:axis], 1, *x.shape[axis + 1 :]), run.value, dtype=x.dtype, device=device(x))
    if run.step == 0:
        return xp.broadcast_to(x, (*x.shape[:axis], run.places.stop - run.places.start, *x.shape[axis + 1 :]))
    return x if run.step == 1 else flip(x, (axis,), xp=xp)
