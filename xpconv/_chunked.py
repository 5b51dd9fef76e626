"""Floor 3, on top: the slots of a form over dask's chunks. Imports dask, and is imported when its arrays come.

T is the sum of its parts over samples, channels and positions. So a slot is filled block by block, and what the slot
does not have is summed, in a tree of fixed order:

    y   by samples, outputs and positions,            summed over blocks of the inputs
    dx  by samples, inputs and their own positions,   summed over blocks of the outputs
    dw  by outputs and inputs,                        summed over blocks of the samples and positions

A block of y reads more of x than lies at its place, a block of dx more of dy: its slab. Slabs are cut axis after axis,
so that no corner is fetched from a neighbour of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise, product
from typing import Any, NamedTuple

import dask.array as da
import numpy as np

from ._algorithms import per_channel
from ._form import Form, Run
from ._geometry import Axis, Geometry
from ._namespace import add, convert, device, is_floating, library
from ._options import Options, current, options
from ._padding import border, border_adjoint
from ._slots import fill as fill_slot
from ._threads import alone

__all__ = ["fill"]

Chunks = Sequence[Sequence[int]]


class Work(NamedTuple):
    """What all blocks of a slot have in common."""

    slot: str
    form: Form
    conjugated: int | None
    dtype: Any
    work: Any
    mixed: bool
    options: Options


class Piece(NamedTuple):
    """What a block reads along one axis, and the axis of that."""

    read: slice  # of its slab
    axis: Axis
    run: Run | None  # of dx with a border: which of the block's inputs it repeats


class Blocks(NamedTuple):
    """The blocks of all three arrays."""

    samples: Sequence[int]
    outputs: Sequence[int]
    inputs: Sequence[int]
    positions: list[Sequence[int]]  # the slot's own; those of the outputs for dw


# The axes of all three arrays, numbered: samples, outputs, inputs, then positions, then taps.
_N, _O, _C, _P = range(4)


def fill(
    slot: str,
    form: Form,
    a: Any,
    b: Any,
    conjugated: int | None,
    dtype: Any,
    work: Any,
    mixed: bool,
    bias: Any = None,
    like: Any = None,
    *,
    xp: Any,
) -> Any:
    """The slot as `_slots.fill` fills it, lazily; y and dx in the chunks of one like it, or where an operand's lead."""
    chunks = like.chunks if isinstance(like, da.Array) else None
    geometry = form.geometry
    shape = {"y": geometry.y_shape, "x": form.x_shape, "w": geometry.w_shape}[slot]
    a, b, bias = (
        one if one is None or isinstance(one, da.Array) else da.from_array(one, chunks=-1) for one in (a, b, bias)
    )
    wide = work if is_floating(dtype, xp=xp) and not mixed else dtype  # to be rounded once, after the sum
    if 0 in (a.size, b.size, *shape):
        out = da.zeros(shape, dtype=wide, chunks=chunks or -1, meta=_meta(a, len(shape), wide))
    else:
        how = Work(slot, form, conjugated, wide, work, mixed, current())
        names = (name for name in "yxw" if name != slot)
        out = _summed(how, dict(zip(names, (a, b), strict=True)), chunks, xp=xp)
    if bias is not None:
        out = xp.add(out, per_channel(convert(bias, wide, xp=xp), out.ndim, xp=xp))
    return convert(out, dtype, xp=xp)


def _summed(how: Work, operands: dict[str, Any], chunks: Chunks | None, *, xp: Any) -> Any:
    """Block by block, with an axis in front for each that is summed over; then the sums."""
    slot, form, geometry, ndim = how.slot, how.form, how.form.geometry, len(how.form.spread)
    blocks = _blocks(slot, form, operands, chunks)
    jointly = geometry.groups > 1 or len(blocks.outputs) == len(blocks.inputs) == 1
    c = _O if jointly else _C
    p, t = tuple(range(_P, _P + ndim)), tuple(range(_P + ndim, _P + 2 * ndim))
    axes = {"y": (_N, _O, *p), "x": (_N, c, *p), "w": (_O, _C, *t)}
    weights = (
        blocks.outputs,
        blocks.inputs if geometry.groups == 1 else (geometry.inputs,),
        *((k,) for k in geometry.kernel),
    )
    cuts = {"y": (blocks.samples, blocks.outputs), "x": (blocks.samples, blocks.inputs), "w": weights}
    operands = {name: one.rechunk(dict(enumerate(cuts[name]))) for name, one in operands.items()}

    pieces: list[Any] = []
    for i, lengths in enumerate(blocks.positions):
        spans = list(pairwise(accumulate(lengths, initial=0)))
        if slot == "x":
            reads = [form.readers(i, *span) for span in spans]
            operands["y"], found = _slabs(operands["y"], i, reads, lengths, None, xp=xp)
        else:
            reads = [[(*form.read(i, *span), None)] for span in spans]
            operands["x"], found = _slabs(
                operands["x"], i, reads, lengths, None if form.border is None else form.border[i], xp=xp
            )
        if slot == "w":
            operands["y"] = operands["y"].rechunk({i + 2: lengths})
        pieces += [found, (p[i],)]

    summed = tuple(sorted({axis for name in operands if name != "w" for axis in axes[name]} - set(axes[slot])))
    counts = {_N: len(blocks.samples), _O: len(blocks.outputs), _C: len(blocks.inputs)}
    counts |= {axis: len(lengths) for axis, lengths in zip(p, blocks.positions, strict=True)}
    sizes = dict(zip(axes[slot], (*cuts[slot], *(() if slot == "w" else blocks.positions)), strict=True))
    new = {axis: size for axis, (size, *_) in sizes.items() if slot == "w" and (axis in t or (axis == _C and jointly))}
    first, second = operands
    out = da.blockwise(
        _block,
        (*summed, *axes[slot]),
        operands[first],
        axes[first],
        operands[second],
        axes[second],
        *pieces,
        how=how,
        depth=len(summed),
        new_axes=new,
        adjust_chunks={axis: (1,) * counts[axis] for axis in summed}
        | {axis: tuple(size) for axis, size in sizes.items() if axis not in new},
        align_arrays=False,
        concatenate=True,
        token=f"conv-{slot}",
        dtype=how.dtype,
        meta=_meta(operands[first], len(summed) + len(axes[slot]), how.dtype),
    )
    if summed:
        out = out.sum(axis=tuple(range(len(summed))), dtype=how.dtype, split_every=4)
    return out


def _blocks(slot: str, form: Form, operands: dict[str, Any], chunks: Chunks | None) -> Blocks:
    """What blocks to make: in chunks that are asked for, or in the operands'."""
    geometry = form.geometry
    known = {name: one.chunks for name, one in operands.items()} | ({slot: chunks} if chunks else {})
    samples = next(known[name][0] for name in (slot, "x", "y") if name in known and name != "w")
    outputs = known["y"][1] if "y" in known else known["w"][0]
    inputs = known["x"][1] if "x" in known else known["w"][1]
    if geometry.groups > 1:  # whole groups
        pairs = (("x", 1, geometry.inputs), ("y", 1, geometry.outputs), ("w", 0, geometry.outputs))
        given = [(known[name][axis], each) for name, axis, each in pairs if name in known]
        whole = ([n // each for n in lengths] for lengths, each in given if not any(n % each for n in lengths))
        groups = next(whole, [geometry.groups])
        outputs, inputs = (tuple(n * each for n in groups) for each in (geometry.outputs, geometry.inputs))
    positions = []
    for i in range(len(form.spread)):
        if slot in known:
            positions.append(known[slot][i + 2])
        elif slot == "w" and len(known["y"][i + 2]) > 1:
            positions.append(known["y"][i + 2])
        else:
            positions.append(form.carried(i, "x" if slot == "x" else "y", known["y" if slot == "x" else "x"][i + 2]))
    return Blocks(samples, outputs, inputs, positions)


def _slabs(
    array: Any,
    i: int,
    reads: Sequence[Sequence[tuple[slice, Axis, Run | None]]],
    lengths: Sequence[int],
    runs: tuple[Run, ...] | None,
    *,
    xp: Any,
) -> tuple[Any, Any]:
    """The array with what each block reads along spatial axis i as one chunk, and the pieces that this consists of."""
    axis, ndim = i + 2, array.ndim - 2
    borders = [runs if r == i else None for r in range(ndim)]

    def cut(read: slice) -> Any:
        where = tuple(read if r == axis else slice(None) for r in range(array.ndim))
        return array[where] if runs is None else border(array, where, borders, xp=xp)

    slabs, pieces = [], np.empty(len(reads), dtype=object)
    for block, (read_by_block, length) in enumerate(zip(reads, lengths, strict=True)):
        ends = list(accumulate((read.stop - read.start for read, *_ in read_by_block), initial=0))
        spans = (slice(*span) for span in pairwise(ends))
        parts = zip(spans, read_by_block, strict=True)
        pieces[block] = length, [Piece(span, part, run) for span, (_, part, run) in parts]
        cuts = [cut(read) for read, *_ in read_by_block if read.start < read.stop]
        cuts = cuts or [array[(slice(None),) * axis + (slice(0, 1),)]]  # dask has no chunks of nothing
        slabs.append(da.concatenate(cuts, axis=axis).rechunk({axis: -1}))
    return da.concatenate(slabs, axis=axis), da.from_array(pieces, chunks=1)


def _meta(like: Any, ndim: int, dtype: Any) -> Any:
    """What chunks of the result are arrays of."""
    xp = library("x", like._meta)
    return xp.empty((0,) * ndim, dtype=dtype, device=device(like._meta))


def _block(a: Any, b: Any, *places: Any, how: Work, depth: int) -> Any:
    """One block of the slot from blocks of the others; it is one part, but for what a border adds to dx."""
    slot, form, xp = how.slot, how.form, library("x", a)
    whole = form.geometry
    outputs, inputs = (a.shape[1], b.shape[1]) if slot == "w" else b.shape[:2]
    groups, outputs, inputs = (
        (1, outputs, inputs) if whole.groups == 1 else (outputs // whole.outputs, whole.outputs, whole.inputs)
    )
    along = [place.item() for place in places]
    shape = {
        "y": (a.shape[0], groups * outputs, *(length for length, _ in along)),
        "x": (a.shape[0], groups * inputs, *(length for length, _ in along)),
        "w": (groups * outputs, inputs, *whole.kernel),
    }[slot]
    out: Any = None
    with alone(), options(**how.options._replace(workers=how.options.workers or 1)._asdict()):
        for pieces in product(*(pieces for _, pieces in along)):
            reads = tuple(piece.read for piece in pieces)
            if any(read.start == read.stop for read in reads):
                continue  # nothing but zeros
            part = replace(
                form.without_border,
                geometry=Geometry(a.shape[0], groups, outputs, inputs, tuple(p.axis for p in pieces)),
            )
            operands = (a, b[(..., *reads)]) if slot == "w" else (a[(..., *reads)], b)
            made: Any = fill_slot(slot, part, *operands, how.conjugated, how.dtype, how.work, how.mixed, xp=xp)
            where, made = border_adjoint(made, [p.run for p in pieces], xp=xp) if slot == "x" else ((...,), made)
            if out is None and made.shape == shape:
                out = made
            else:
                out = xp.zeros(shape, dtype=how.dtype, device=device(a)) if out is None else out
                out = add(out, where, made, xp=xp)
        out = xp.zeros(shape, dtype=how.dtype, device=device(a)) if out is None else out
    return out[(*(None,) * depth, ...)]
