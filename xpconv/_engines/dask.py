"""A problem over dask's chunks. Imports dask, and is imported when its arrays come.

T is the sum of its parts over samples, channels and positions. So a slot is filled block by block, and what the slot
does not have is summed, in a tree of fixed order:

    y   by samples, outputs and positions,            summed over blocks of the inputs
    dx  by samples, inputs and their own positions,   summed over blocks of the outputs
    dw  by outputs and inputs,                        summed over blocks of the samples and positions

A block of y reads more of x than lies at its place, a block of dx more of dy: a halo. Blocks with their halos are cut
along one axis after the other, so that no chunk has to be fetched only for a corner.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import accumulate, pairwise, product
from typing import Any, NamedTuple

import dask.array as da
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from .._algorithms.contractions import per_channel
from .._arrays.devices import device, on_device_of
from .._arrays.doors import add, can_check_finite, chunked_like, convert
from .._arrays.namespace import is_dask_array, is_floating, library
from .._arrays.padding import border_adjoint, pieces_of, repeated
from .._arrays.threads import alone
from .._spec.convolution import Convolution, Row, Run
from .._spec.geometry import Axis
from .._spec.options import Options, current, under
from .evaluate import arranged, fill, placed
from .problem import Problem

__all__ = ["as_chunks", "by_channels", "evaluate", "only_bias", "zeros"]

Chunks = Sequence[Sequence[int]]


class Read(NamedTuple):
    """What one convolution of a block reads along one axis, and the axis of that convolution."""

    read: slice  # of the block with its halo
    axis: Axis
    run: Run | None  # of dx with a border: which of the block's inputs it repeats


class Halo(NamedTuple):
    """What a block reads along one axis: its own place, and a halo."""

    length: int  # of the block
    runs: list[Run]  # of the array's elements, with the border that they repeat
    pieces: list[Read]


class Blocks(NamedTuple):
    """The lengths of the blocks of all three arrays."""

    samples: Sequence[int]
    outputs: Sequence[int]
    inputs: Sequence[int]
    positions: list[Sequence[int]]  # the slot's own; those of the outputs for dw


def evaluate(problem: Problem, a: Any, b: Any, bias: Any, like: Any, *, xp: Any) -> Any:
    """What fills the slot, lazily; y and dx in the chunks of `like`, or in those that follow from an operand's."""
    problem = problem.reading(a.dtype, b.dtype)
    a, b = arranged(problem, as_chunks(a), as_chunks(b), xp=xp)
    chunks = problem.layout.inward(like, xp=xp).chunks if is_dask_array(like) else None
    slot = problem.slot
    if current().method != "auto":
        problem.check_options(a._meta, bias, xp=library("x", a._meta))
    # To be rounded once, after the sum.
    wide = problem.dtype
    if is_floating(wide, xp=xp) and not problem.dtypes.mixed:
        wide = problem.compute_dtype(bias, xp=xp)
    shape, read = problem.convolution.shape(slot), problem.convolution.bordered
    if 0 in (*shape, *read.x_shape, *read.w_shape, *read.y_shape):
        out = da.zeros(shape, dtype=wide, chunks=chunks or -1, meta=_meta(a, len(shape), wide))
    else:
        names = (name for name in "yxw" if name != slot)
        out = _summed(problem.with_dtype(wide), dict(zip(names, (a, b), strict=True)), chunks)
    out = placed(problem, convert(_biased(out, bias, xp=xp), problem.dtype, xp=xp), xp=xp)
    return chunked_like(out, like)


def only_bias(problem: Problem, bias: Any, like: Any, *, xp: Any) -> Any:
    """y where only the bias contributes to it; zeros without a bias."""
    nothing = zeros(problem.convolution.shape(problem.slot), problem.dtype, like)
    return problem.layout.outward(_biased(nothing, bias, xp=xp), xp=xp)


def zeros(shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
    """Zeros in chunks of the kind that another array's are."""
    return da.zeros(shape, dtype=dtype, meta=_meta(as_chunks(like), len(shape), dtype))


def _biased(out: Any, bias: Any, *, xp: Any) -> Any:
    """The result with the bias added, in the same chunks."""
    if bias is None:
        return out
    bias = convert(as_chunks(bias), out.dtype, xp=xp).rechunk((out.chunks[1],))
    return xp.add(out, per_channel(bias, out.ndim, xp=xp))


def as_chunks(x: Any) -> Any:
    """x as a dask array; one of another library in one chunk.

    dask names an array by its values. They would have to be copied from a GPU to the host: there the name is random.
    """
    return x if isinstance(x, da.Array) else da.from_array(x, chunks=-1, name=None if can_check_finite(x) else False)


def by_channels(work: Any, x: Any, whole: int) -> Any:
    """`work(x)`, if each channel or group of rows is worked on by itself; the last `whole` axes come in one chunk."""
    last = x.ndim - whole - 1
    if any(size != size for size in x.shape):
        raise ValueError(
            f"x must have chunks of known sizes: got shape {x.shape}; call its compute_chunk_sizes() first"
        )
    none = _meta(x, 1, x.dtype).reshape((0, *x.shape[last:]))
    like = _alone(work, none)  # without samples: it shows the shape, or raises the error
    rows, made = x.shape[last], like.shape[1]
    x = x.rechunk(dict.fromkeys(range(last + 1, x.ndim), -1))
    if any(n * made % max(rows, 1) for n in x.chunks[last]):
        x = x.rechunk({last: -1})
    channels = tuple(n * made // max(rows, 1) for n in x.chunks[last])
    return da.map_blocks(
        partial(_alone, work),
        x,
        dtype=like.dtype,
        chunks=(*x.chunks[:last], channels, *((n,) for n in like.shape[2:])),
        drop_axis=list(range(last + 1, x.ndim)),
        new_axis=list(range(last + 1, last + like.ndim - 1)),
        meta=_meta(x, last + like.ndim - 1, like.dtype),
    )


def _alone(work: Any, x: Any) -> Any:
    with alone(), on_device_of(x):
        return work(x)


def _summed(problem: Problem, operands: dict[str, Any], chunks: Chunks | None) -> Any:
    """What fills the slot, block by block, with an axis in front for each that is summed over; then the sums."""
    slot, convolution, ndim = problem.slot, problem.convolution, len(problem.convolution.rows)
    geometry, chosen = convolution.geometry, current()
    blocks = _blocks(slot, convolution, operands, chunks)
    samples, outputs, inputs, positions = blocks
    jointly = geometry.groups > 1 or len(outputs) == len(inputs) == 1  # blocks of both channels share one number
    of_weights = (outputs, inputs if geometry.groups == 1 else (geometry.inputs,), *((k,) for k in geometry.kernel))
    sizes = {"y": (samples, outputs, *positions), "x": (samples, inputs, *positions), "w": of_weights}
    for name, one in operands.items():
        operands[name] = one.rechunk(dict(enumerate(sizes[name] if name == "w" else sizes[name][:2])))
    halos = [_halos(slot, row, lengths) for row, lengths in zip(convolution.rows, positions, strict=True)]
    for i, along in enumerate(halos):
        wider = "y" if slot == "x" else "x"
        operands[wider] = _cut(operands[wider], i, along)
        if slot == "w":
            operands["y"] = operands["y"].rechunk({i + 2: positions[i]})

    over = {"y": [] if jointly else [inputs], "x": [] if jointly else [outputs], "w": [samples, *positions]}[slot]
    name, layer = f"conv-{tokenize(repr(problem), chosen, *operands.values(), halos)}", {}
    counts = map(len, (samples, outputs, (0,) if jointly else inputs, *positions))
    for n, o, c, *at in product(*map(range, counts)):
        places = {"y": (n, o, *at), "x": (n, o if jointly else c, *at), "w": (o, c, *(0,) * ndim)}
        summed = {"y": [c], "x": [o], "w": [n, *at]}[slot][: len(over)]
        read = [along[r] for along, r in zip(halos, at, strict=True)]
        block = partial(_block, problem=problem, chosen=chosen, halos=read, depth=len(over))
        layer[(name, *summed, *places[slot])] = (block, *((one.name, *places[key]) for key, one in operands.items()))
    graph = HighLevelGraph.from_collections(name, layer, dependencies=list(operands.values()))
    cuts = tuple((1,) * len(lengths) for lengths in over) + tuple(map(tuple, sizes[slot]))
    out = da.Array(graph, name, cuts, meta=_meta(next(iter(operands.values())), len(cuts), problem.dtype))
    return out.sum(axis=tuple(range(len(over))), dtype=problem.dtype, split_every=4) if over else out


def _blocks(slot: str, convolution: Convolution, operands: dict[str, Any], chunks: Chunks | None) -> Blocks:
    """The blocks to compute: by the chunks that are asked for, or by those of the operands."""
    geometry = convolution.geometry
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
    for i, row in enumerate(convolution.rows):
        if slot in known:
            positions.append(known[slot][i + 2])
        elif slot == "w" and len(known["y"][i + 2]) > 1:
            positions.append(known["y"][i + 2])
        else:
            positions.append(row.chunks("x" if slot == "x" else "y", known["y" if slot == "x" else "x"][i + 2]))
    return Blocks(samples, outputs, inputs, positions)


def _halos(slot: str, row: Row, lengths: Sequence[int]) -> list[Halo]:
    """What each block reads along a spatial axis."""
    runs, halos = row.runs, []
    for start, stop in pairwise(accumulate(lengths, initial=0)):
        found = row.readers(start, stop) if slot == "x" else [(*row.read(start, stop), None)]
        reads = [read for read, *_ in found]
        inputs = [Run(read, read, 1) for read in reads] if slot == "x" or runs is None else pieces_of(runs, reads[0])
        ends = accumulate((read.stop - read.start for read in reads), initial=0)
        pieces = [Read(slice(*span), axis, run) for span, (_, axis, run) in zip(pairwise(ends), found, strict=True)]
        halos.append(Halo(stop - start, [run for run in inputs if run.places.start < run.places.stop], pieces))
    return halos


def _cut(array: Any, i: int, halos: Sequence[Halo]) -> Any:
    """The array with each block and its halo along spatial axis i as a chunk. Only what is read is sent."""
    axis = i + 2
    starts = list(accumulate(array.chunks[axis], initial=0))
    others = list(product(*(range(n) for r, n in enumerate(array.numblocks) if r != axis)))
    token = tokenize(array.name, axis, halos)
    layer: dict[Any, Any] = {}
    for block, halo in enumerate(halos):
        parts = []
        near = next((bisect_right(starts, run.inputs.start) - 1 for run in halo.runs if run.value is None), 0)
        for run in halo.runs or [Run(slice(0, 1), slice(0, 1), 1)]:  # dask has no chunks of nothing
            if run.value is not None:  # of a chunk only the shape is read
                parts.append((near, run))
                continue
            chunks = list(range(bisect_right(starts, run.inputs.start) - 1, bisect_left(starts, run.inputs.stop)))
            for chunk in reversed(chunks) if run.step == -1 else chunks:
                first, last = max(starts[chunk], run.inputs.start), min(starts[chunk + 1], run.inputs.stop)
                here = slice(first - starts[chunk], last - starts[chunk])
                parts.append((chunk, run._replace(inputs=here)))
        for at in others:
            before, after = at[:axis], at[axis:]
            keys = []
            for number, (chunk, run) in enumerate(parts):
                source = (array.name, *before, chunk, *after)
                if run.step == 1 and run.inputs == slice(0, array.chunks[axis][chunk]):
                    keys.append(source)
                else:
                    keys.append((f"part-{token}", *before, block, number, *after))
                    layer[keys[-1]] = (_part, source, axis, run)
            layer[(f"halo-{token}", *before, block, *after)] = (_joined, keys, axis)
    sizes = [max([1, *(piece.read.stop for piece in halo.pieces)]) for halo in halos]
    graph = HighLevelGraph.from_collections(f"halo-{token}", layer, dependencies=[array])
    cut = (*array.chunks[:axis], tuple(sizes), *array.chunks[axis + 1 :])
    return da.Array(graph, f"halo-{token}", cut, meta=array._meta)


def _part(chunk: Any, axis: int, run: Run) -> Any:
    with on_device_of(chunk):
        return repeated(chunk, axis, run, 0, xp=library("x", chunk))


def _joined(parts: Sequence[Any], axis: int) -> Any:
    with on_device_of(*parts):
        return parts[0] if len(parts) == 1 else library("x", parts[0]).concat(parts, axis=axis)


def _meta(like: Any, ndim: int, dtype: Any) -> Any:
    """An empty array like the chunks of the result, of the same library and dtype."""
    xp = library("x", like._meta)
    with on_device_of(like._meta):
        return xp.empty((0,) * ndim, dtype=dtype, device=device(like._meta))


def _block(a: Any, b: Any, *, problem: Problem, chosen: Options, halos: Sequence[Halo], depth: int) -> Any:
    """One block of the slot from blocks of the other two: one convolution, or several where a border adds to dx."""
    slot, xp, whole = problem.slot, library("x", a), problem.convolution.geometry
    outputs, inputs = (a.shape[1], b.shape[1]) if slot == "w" else b.shape[:2]
    groups, outputs, inputs = (
        (1, outputs, inputs) if whole.groups == 1 else (outputs // whole.outputs, whole.outputs, whole.inputs)
    )
    lengths = [halo.length for halo in halos]
    shape = {
        "y": (a.shape[0], groups * outputs, *lengths),
        "x": (a.shape[0], groups * inputs, *lengths),
        "w": (groups * outputs, inputs, *whole.kernel),
    }[slot]
    out: Any = None
    with alone(), on_device_of(a), under(chosen._replace(workers=chosen.workers or 1)):
        for pieces in product(*(halo.pieces for halo in halos)):
            reads = tuple(piece.read for piece in pieces)
            if any(read.start == read.stop for read in reads):
                continue  # nothing but zeros
            part = _part_of(problem, (a.shape[0], groups, outputs, inputs), tuple(piece.axis for piece in pieces))
            operands = (a, b[(..., *reads)]) if slot == "w" else (a[(..., *reads)], b)
            made: Any = fill(part, *operands, xp=xp)
            where, made = border_adjoint(made, [p.run for p in pieces], xp=xp) if slot == "x" else ((...,), made)
            if out is None and made.shape == shape:
                out = made
            else:
                out = xp.zeros(shape, dtype=problem.dtype, device=device(a)) if out is None else out
                out = add(out, where, made, xp=xp)
        out = xp.zeros(shape, dtype=problem.dtype, device=device(a)) if out is None else out
    return out[(*(None,) * depth, ...)]


@lru_cache(maxsize=1024)
def _part_of(problem: Problem, counts: tuple[int, int, int, int], axes: tuple[Axis, ...]) -> Problem:
    """The problem of a block, whose border has been read already."""
    across = zip(problem.convolution.rows, axes, strict=True)
    rows = tuple(row._replace(axis=axis, mode="zeros", value=0) for row, axis in across)
    return problem.on(Convolution(*counts, rows))
