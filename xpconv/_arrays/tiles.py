"""Calls the direct algorithm's code for many channels in a group, of `tiles_code.py`."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from .._spec.geometry import Geometry
from .._spec.memory import derived
from .assembly import registers, vector_bytes
from .direct_code import BYTES
from .jobs import (
    TYPES,
    Launch,
    Planes,
    Steps,
    Types,
    along_rows,
    copied_together,
    function,
    in_elements,
    numbers,
    powers,
    row_parts,
    run,
    share,
    shares,
    spans,
    steps,
    tables,
    threads_within,
)
from .tiles_code import Tiles, forward_code, weight_grad_code

__all__ = ["forward", "takes", "waste", "weight_grad", "workspace"]

CACHED = 2**19  # bytes of the planes that a job copies, about
MOST_COPIED = 2**20  # bytes of what a job copies and makes for one row of y
MOST_TALL = 8  # rows of a tile
BESIDE = 2**14  # bytes beside them, for what a last tile reads and makes beyond its end
SMALL = 2**22  # products of a thread at least
TALL = 16  # output channels of a job at least, where jobs are cut along them
SUMMED = 2**10  # places of a sum of dw at least, where there are several
MOST_SUMS = 8
WIDE = 64  # outputs of a run at least, of those that are cut for threads
LONG = 128  # terms and taps of a run, of those that are cut for threads
TURNED = 128  # places of dy that a job multiplies, about
COPIED, ROW = 2, 8  # cycles to copy a vector, and for each row
READ, WRITTEN = 0.4, 1.4  # for each number, in memory
STREWN = 1.5  # for each weight that is read in another order than it lies in memory
PRICED = 2  # threads
STARTED = 10**5  # cycles until other threads help
Pair = tuple[int, int]


def takes(geometry: Geometry, item_bytes: int) -> bool:
    """Whether jobs take little memory."""
    return Planes.of(geometry.axes).are_few(geometry.inputs) and _row_bytes(item_bytes, geometry) <= MOST_COPIED


@derived
def _row_bytes(item_bytes: int, geometry: Geometry) -> int:
    """Of what is copied and made for one row of y."""
    planes = Planes.of(geometry.axes)
    cols = -(-planes.col.out // max(len(row_parts(item_bytes, MOST_TALL, geometry)), 1))
    rows = planes.copied_rows(1) * math.prod(planes.rests) * geometry.inputs * planes.terms + MOST_TALL
    return rows * (cols + planes.pitch - planes.col.out) * item_bytes


def workspace(geometry: Geometry, slot: str, item_bytes: int) -> int:
    """The most bytes of partial sums, and of what one thread holds for jobs."""
    return _sums(geometry, item_bytes) * (slot == "w") + _job_bytes(slot, item_bytes, geometry)


@derived
def _job_bytes(slot: str, item_bytes: int, geometry: Geometry) -> int:
    held = max(_row_bytes(item_bytes, geometry), CACHED) + BESIDE
    if slot == "y":
        return held
    outputs, _ = _weight_cuts(item_bytes, 1, geometry)
    columns, places = outputs[0][1] + 8 * vector_bytes() // item_bytes, max(TURNED, Planes.of(geometry.axes).col.out)
    return held + (geometry.inputs * geometry.taps + places + 2 * vector_bytes()) * columns * item_bytes


def _sums(geometry: Geometry, item_bytes: int) -> int:
    count = _weight_sums(geometry)
    return (count > 1) * count * math.prod(geometry.w_shape) * item_bytes


def _threads(geometry: Geometry, slot: str, item_bytes: int) -> int:
    """How many threads the work is worth, and the workspace has room for."""
    beside = _sums(geometry, item_bytes) if slot == "w" else 0
    return min(threads_within(_job_bytes(slot, item_bytes, geometry), beside), _worth(geometry))


def _worth(geometry: Geometry) -> int:
    return max(math.prod(geometry.y_shape) * geometry.inputs * geometry.taps // SMALL, 1)


def waste(geometry: Geometry, slot: str, turned: bool) -> float:
    """How much longer a product takes than it might on one thread, if registers were always full.

    With as many threads as the prices are for, whatever the options are: they do not change what is chosen.
    """
    return _waste(slot, turned, geometry)


@derived
def _waste(slot: str, turned: bool, geometry: Geometry) -> float:
    lanes, threads = vector_bytes() // 4, min(PRICED, _worth(geometry))
    if slot == "y":
        cycles = _forward_cycles(lanes, threads, turned, geometry)
    else:
        cycles = _weight_cycles(lanes, threads, geometry)
    cycles = cycles / threads + STARTED * (threads > 1)
    # Memory is read and written for the first time, by all threads together.
    x, w, y = (math.prod(shape) for shape in (geometry.x_shape, geometry.w_shape, geometry.y_shape))
    cycles += READ * x + WRITTEN * y if slot == "y" else READ * (x + y) + WRITTEN * w
    return cycles * 2 * lanes / max(y * geometry.inputs * geometry.taps, 1)


def _forward_cycles(lanes: int, threads: int, turned: bool, geometry: Geometry) -> float:
    _, each = _jobs(lanes, threads, not turned or geometry.taps == 1, geometry)
    return each * geometry.samples * geometry.groups * Planes.of(geometry.axes).positions


def _weight_cycles(lanes: int, threads: int, geometry: Geometry) -> float:
    planes, (outputs, _), count = Planes.of(geometry.axes), _weight_cuts(4, threads, geometry), _weight_sums(geometry)
    products, vectors = geometry.inputs * geometry.taps, -(-geometry.outputs // lanes)
    each = _tile(registers(), products, -(-outputs[0][1] // lanes))[1] * len(outputs)
    places = geometry.samples * geometry.positions
    jobs = geometry.samples * planes.positions * -(-planes.row.out // max(TURNED // planes.col.out, 1))
    copied = geometry.samples * math.prod([axis.padded for axis in geometry.axes]) * geometry.inputs * len(outputs)
    moved = (COPIED * jobs + 2 * COPIED * count) * products * vectors
    return geometry.groups * (each * places + copied * 2 * COPIED / lanes + places * vectors * 2 * lanes + moved)


def forward(x: Any, w: Any, bias: Any, y: Any, geometry: Geometry) -> None:
    w = w if in_elements(w) else w.copy()
    w_steps, types = steps(w), (TYPES[x.dtype], TYPES[w.dtype], TYPES[y.dtype])
    calls, threads = [], _threads(geometry, "y", w.itemsize)
    for x_part, y_part, part in along_rows(x, y, geometry, w.itemsize, MOST_TALL):
        all_steps = steps(x_part), w_steps, steps(y_part)
        launch = _forward_launch(types, all_steps, bias is not None, threads, part)
        pointers = tuple(0 if array is None else array.ctypes.data for array in (x_part, w, bias, y_part))
        calls.append((launch, pointers))
    run(calls, threads)


@derived
def _forward_launch(
    types: Types, all_steps: tuple[Steps, Steps, Steps], bias: bool, threads: int, geometry: Geometry
) -> Launch:
    planes, (x_steps, w_steps, y_steps) = Planes.of(geometry.axes), all_steps
    lanes, terms = vector_bytes() // BYTES[types[1]], geometry.inputs * planes.terms
    (slab, cuts, (height, vectors)), _ = _jobs(lanes, threads, _in_order(w_steps, geometry), geometry)
    told = numbers(geometry, (x_steps, y_steps), planes.pitch, slab, terms)
    cut, width = -(-geometry.outputs // (cuts * height)) * height, vectors * lanes
    length = -(-((slab - 1) * planes.pitch + planes.col.out) // width) * width
    told = told._replace(
        jobs=told.jobs * -(-geometry.outputs // cut),
        beside=told.beside + -(-width // 64) * 64,  # the last tile reads beyond the planes
        cut=cut,
        run=length,
        w_channel=w_steps[0],
        products=terms * planes.row.kernel * planes.col.kernel,
    )
    cols, y_step = planes.col.out, y_steps[-1] if geometry.axes else 1
    joined = planes.pitch == cols and told.y_row == cols * y_step
    shortest = (planes.row.out - (told.slabs - 1) * slab) * cols if joined else cols
    y_lanes = max(min(max(powers(min(lanes, shortest))), 4 * lanes // y_step), 1)
    kind = _kind(planes, types, (height, vectors))._replace(y_lanes=y_lanes, y_step=y_step, bias=bias, joined=joined)
    found = (
        *tables(geometry, x_steps, y_steps),
        _places(planes, told),
        _weights(geometry, w_steps),
    )
    memory = told.beside + height * length
    return Launch(function(forward_code, kind), told, found, memory * BYTES[types[1]])


def _in_order(w_steps: Steps, geometry: Geometry) -> bool:
    """Whether the weights of an output channel lie one after the other."""
    sizes = geometry.w_shape[1:]
    return all(
        n == 1 or step == math.prod(sizes[i + 1 :]) for i, (n, step) in enumerate(zip(sizes, w_steps[1:], strict=True))
    )


@derived
def _jobs(lanes: int, threads: int, in_order: bool, geometry: Geometry) -> tuple[tuple[int, int, Pair], float]:
    """The rows of y that a job makes, into how many cuts of output channels, and its tiles: what should be fastest.

    And how many cycles jobs of a sample and a group take.
    """
    wanted = 2 * threads if threads > 1 else 1
    planes, outputs = Planes.of(geometry.axes), geometry.outputs
    rows, cols, terms = planes.row.out, planes.col.out, geometry.inputs * planes.terms
    apart = geometry.samples * geometry.groups * planes.positions
    products, per_row = terms * planes.row.kernel * planes.col.kernel, math.prod(planes.rests)
    row_bytes = (terms * per_row + MOST_TALL) * planes.pitch * (vector_bytes() // lanes)  # with those of a tile
    most = CACHED // row_bytes - planes.copied_rows(0)
    fewest = -(-rows // max(most, 1)) if most < rows else 1
    best, least = (1, 1, (1, 1)), math.inf
    for slabs in sorted({fewest, fewest + 1, 2 * fewest, 4 * fewest, 8 * fewest}):
        slab = -(-rows // min(slabs, rows))
        slabs = -(-rows // slab)
        cuts = max(min(-(-wanted // (apart * slabs)), outputs // TALL), 1)
        height = -(-outputs // cuts)
        tile, time = _tile(registers(), height, -(-((slab - 1) * planes.pitch + cols) // lanes))
        copied = terms * planes.copied_rows(slab) * per_row * (COPIED * planes.pitch / lanes + ROW)
        copied += (READ if in_order else STREWN) * height * products  # the weights, anew for each job
        time = slabs * cuts * (time * products + copied + height * slab * (COPIED * cols / lanes + ROW))
        time /= min(slabs * cuts * apart / wanted, 1)
        if time < least:
            best, least = (slab, cuts, tile), time
    return best, least


@lru_cache(maxsize=4096)
def _tile(registers: int, rows: int, columns: int) -> tuple[Pair, float]:
    """The rows of a tile, and the vectors of each: what is fastest for so many rows and vectors, and in what time.

    The time is in cycles: of two products each, or of two reads; vectors of places mostly cross two lines of memory.
    """

    def time(tile: Pair) -> float:
        height, vectors = tile
        each = max(height * vectors, height + 3 * vectors + 2) / 2 + 1
        return -(-rows // height) * -(-columns // vectors) * each

    tiles = [
        (height, vectors)
        for height, vectors in product((MOST_TALL, 6, 4, 2, 1), (1, 2, 3, 4, 6, 8))
        if height <= rows and height * vectors + vectors < registers
    ]
    best = min(tiles, key=time)
    return best, time(best)


def _kind(planes: Planes, types: Types, tile: Pair) -> Tiles:
    lanes = vector_bytes() // BYTES[types[1]]
    together = copied_together(planes, lanes, 4 * lanes)
    return Tiles(types, lanes, together, planes.rests[1], planes.col.stride, *tile)


def _places(planes: Planes, told: Any) -> Any:
    """(terms, taps): where the first output of a job meets a tap in the planes."""
    at = np.arange(told.terms, dtype=np.int64)[:, None, None] * told.plane
    for axis, shape, step, rest in (
        (planes.row, (-1, 1), told.pitch, told.row_rest),
        (planes.col, (-1,), 1, told.col_rest),
    ):
        place, left = np.divmod(axis.dilation * np.arange(axis.kernel, dtype=np.int64), axis.stride)
        at = at + (place * step + left * rest).reshape(shape)
    return at.reshape(-1)


def _weights(geometry: Geometry, w_steps: Steps) -> Any:
    """(inputs, taps): where the weight of a term and a tap is, behind the first one of an output channel."""
    at = np.zeros((), dtype=np.int64)
    for size, step in zip(geometry.w_shape[1:], w_steps[1:], strict=True):
        at = at[..., None] + np.arange(size, dtype=np.int64) * step
    return at.reshape(-1)


def weight_grad(dy: Any, x: Any, geometry: Geometry, dtype: Any) -> Any:
    planes, types = Planes.of(geometry.axes), (TYPES[x.dtype], TYPES[dtype], TYPES[dy.dtype])
    taps = planes.row.kernel * planes.col.kernel
    threads, count = _threads(geometry, "w", dtype.itemsize), _weight_sums(geometry)
    outputs, terms = _weight_cuts(dtype.itemsize, threads, geometry)
    sums = np.zeros((count, geometry.groups, geometry.outputs, geometry.inputs * geometry.taps), dtype=dtype)
    parts = list(along_rows(x, dy, geometry, dtype.itemsize, MOST_TALL))
    pieces = []
    for made, read in product(outputs, terms):
        launches = [
            _weight_launch(types, (steps(x_part), steps(y_part)), made[1] - made[0], read, part)
            for x_part, y_part, part in parts
        ]
        runs = shares([launch.jobs for launch in launches], count)
        pieces += [
            (launches, run, i, g, made[0], read[0]) for i, run in enumerate(runs) for g in range(geometry.groups)
        ]

    def work(piece: tuple[list[Launch], list[tuple[int, Any]], int, int, int, int]) -> None:
        launches, run, i, g, output, term = piece
        to = sums[i, g, output:, term * taps :].ctypes.data
        for k, jobs in run:
            x_part, y_part, _ = parts[k]
            here = y_part.ctypes.data + (g * geometry.outputs + output) * y_part.strides[1]
            there = x_part.ctypes.data + g * geometry.inputs * x_part.strides[1]
            launches[k].run(here, there, to, jobs.ctypes.data)

    share(work, pieces, threads)
    sums = sums.reshape(-1, *geometry.w_shape)
    return sums[0] if len(sums) == 1 else np.add.reduce(sums, axis=0)


def _weight_sums(geometry: Geometry) -> int:
    """In how many sums the jobs of dw are added: the result depends on that, and so on sizes alone."""
    return max(min(geometry.samples * geometry.positions // SUMMED, MOST_SUMS // geometry.groups), 1)


def _weight_cuts(item_bytes: int, threads: int, geometry: Geometry) -> tuple[list[Pair], list[Pair]]:
    """Runs of outputs and of terms, for threads to share, and so that sums of a run stay in the cache."""
    planes, lanes, count = Planes.of(geometry.axes), vector_bytes() // item_bytes, _weight_sums(geometry)
    terms, products = geometry.inputs * planes.terms, geometry.inputs * geometry.taps
    wanted = -(-2 * threads // (count * geometry.groups)) if threads > 1 else 1
    # dy is turned again for each run of terms, which is dearer than to copy x again for each run of outputs.
    runs = max(-(-geometry.outputs * products * item_bytes // MOST_COPIED), min(wanted, geometry.outputs // WIDE))
    columns = max(-(-geometry.outputs // (max(runs, 1) * lanes)), 3) * lanes
    outputs = [(begin, min(begin + columns, geometry.outputs)) for begin in range(0, geometry.outputs, columns)]
    cuts = max(min(-(-wanted // len(outputs)), products // LONG, terms), 1)
    return outputs, spans(terms, cuts)


@derived
def _weight_launch(
    types: Types, all_steps: tuple[Steps, Steps], outputs: int, some: Pair, geometry: Geometry
) -> Launch:
    """For so many outputs and some of the terms: from one to before another."""
    planes, item_bytes, (x_steps, y_steps) = Planes.of(geometry.axes), BYTES[types[1]], all_steps
    lanes, pitch, terms = vector_bytes() // item_bytes, planes.pitch, some[1] - some[0]
    # Of all terms, whatever the run: jobs, and so the order of sums, depend on no threads.
    read = CACHED // (geometry.inputs * planes.terms * math.prod(planes.rests) * pitch * item_bytes)
    slab = max(min(read - planes.copied_rows(0), TURNED // planes.col.out, planes.row.out), 1)
    slab = -(-planes.row.out // -(-planes.row.out // slab))
    products = terms * planes.row.kernel * planes.col.kernel
    (height, vectors), _ = _tile(registers(), products, -(-outputs // lanes))
    y_step = y_steps[-1] if geometry.axes else 1
    kind = _kind(planes, types, (height, vectors))._replace(y_step=y_step)
    told = numbers(geometry, all_steps, pitch, slab, terms)
    told = told._replace(
        jobs=told.jobs // geometry.groups, outputs=outputs, products=products, w_channel=geometry.inputs * geometry.taps
    )
    across, tall = -(-outputs // (vectors * lanes)) * vectors * lanes, -(-products // height) * height
    memory = told.beside + (slab * planes.col.out + tall + lanes) * across  # sums are read in vectors of products
    places = _places(planes, told)
    places = np.concatenate([places, np.repeat(places[-1:], tall - products)])
    starts, y_places = tables(geometry, x_steps, y_steps)
    found = (
        starts[:, some[0] : some[1]],
        y_places,
        places,
        np.add.outer(np.arange(slab) * pitch, np.arange(planes.col.out)),
    )
    return Launch(function(weight_grad_code, kind), told, found, memory * item_bytes)
