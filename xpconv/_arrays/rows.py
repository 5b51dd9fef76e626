"""Calls the direct algorithm's code for few channels in a group, of `rows_code.py`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._spec.geometry import Axis, Geometry
from .._spec.memory import derived
from .assembly import registers, vector_bytes
from .direct_code import BYTES
from .jobs import (
    CACHED,
    PIECES,
    TYPES,
    Launch,
    Planes,
    Steps,
    Types,
    along_rows,
    copied_together,
    function,
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
from .rows_code import Rows, forward_code, weight_grad_code

__all__ = ["forward", "takes", "weight_grad", "workspace"]

MOST_ROWS = 8  # that are summed together
MOST_TAPS = 256  # of the last two axes, which are written out one by one
MOST_COPIED = 2**18  # bytes of the planes for the fewest rows that are summed together
SMALL = 2**17  # products of a piece at least


def takes(geometry: Geometry, item_bytes: int) -> bool:
    """Whether there is code for such a convolution, and its jobs take little memory."""
    planes = Planes.of(geometry.axes)
    row, col = planes.row, planes.col
    if row.kernel * col.kernel > MOST_TAPS or not planes.are_few(geometry.inputs):
        return False
    cols = -(-col.out // max(len(row_parts(item_bytes, 0, geometry)), 1))
    copied = (row.stride * (min(row.out, MOST_ROWS) - 1) + row.extent) * (col.stride * (cols - 1) + col.extent)
    return copied * geometry.inputs * planes.terms * item_bytes <= MOST_COPIED


def workspace(geometry: Geometry, slot: str, item_bytes: int) -> int:
    """The most bytes of partial sums, and of what one thread holds for jobs."""
    return _sums(geometry, item_bytes) * (slot == "w") + MOST_COPIED


def _sums(geometry: Geometry, item_bytes: int) -> int:
    return PIECES * math.prod(geometry.w_shape) * item_bytes if geometry.groups < PIECES else 0


def forward(x: Any, w: Any, bias: Any, y: Any, geometry: Geometry) -> None:
    w = np.require(w, requirements=("C", "A"))
    types = TYPES[x.dtype], TYPES[w.dtype], TYPES[y.dtype]
    calls = []
    for x_part, y_part, part in along_rows(x, y, geometry, w.itemsize):
        launch = _forward_launch(types, steps(x_part), steps(y_part), bias is not None, part)
        pointers = tuple(0 if array is None else array.ctypes.data for array in (x_part, w, bias, y_part))
        calls.append((launch, pointers))
    run(calls, min(threads_within(MOST_COPIED, 0), _pieces(geometry)))


def weight_grad(dy: Any, x: Any, geometry: Geometry, dtype: Any) -> Any:
    groups, types = geometry.groups, (TYPES[x.dtype], TYPES[dtype], TYPES[dy.dtype])
    launches, count = [], 0
    for x_part, y_part, part in along_rows(x, dy, geometry, dtype.itemsize):
        launch = _weight_launch(types, steps(x_part), steps(y_part), part)
        launches.append((launch, (y_part.ctypes.data, x_part.ctypes.data)))
        count = min(count + min(launch.jobs, _pieces(part)), PIECES)
    if groups >= PIECES:  # pieces of whole groups add to weights of their own
        sums = np.zeros((1, *geometry.w_shape), dtype=dtype)
        runs = [
            [
                (k, np.asarray((first, last), dtype=np.int64) * (launch.jobs // groups))
                for k, (launch, _) in enumerate(launches)
            ]
            for first, last in spans(groups, count)
        ]
    else:
        count = min(count, geometry.samples * geometry.positions)
        sums = np.zeros((count, *geometry.w_shape), dtype=dtype)
        runs = shares([launch.jobs for launch, _ in launches], count)

    def work(i: int) -> None:
        for k, jobs in runs[i]:
            launch, pointers = launches[k]
            launch.run(*pointers, sums[i % len(sums)].ctypes.data, jobs.ctypes.data)

    share(work, range(count), threads_within(MOST_COPIED, _sums(geometry, dtype.itemsize)))
    return sums[0] if len(sums) == 1 else np.add.reduce(sums, axis=0)


@derived
def _forward_launch(types: Types, x_steps: Steps, y_steps: Steps, bias: bool, geometry: Geometry) -> Launch:
    planes, y_step = Planes.of(geometry.axes), y_steps[-1] if geometry.axes else 1
    most, cols, rows = vector_bytes() // BYTES[types[1]], planes.col.out, planes.row.out
    most = max(min(most, 4 * most // y_step), 1)
    # The fewest vectors, since some numbers are computed twice; of equal ones those that are summed together.
    _, vectors, lanes = min((-(-cols // (v * n)) * v, -v, n) for v in (1, 2) for n in powers(most) if v * n <= cols)
    vectors = -vectors
    outputs = min(geometry.outputs, 4 // vectors)
    most_rows = min(max(registers() // (2 * vectors * outputs), 1), MOST_ROWS, rows)
    together = min(range(1, most_rows + 1), key=lambda count: -(-rows // count) * (count + 1))
    kind = _kind(planes, types, lanes, outputs)._replace(rows=together, vectors=vectors, bias=bias, y_step=y_step)
    return _launch(forward_code, kind, geometry, x_steps, y_steps)


@derived
def _weight_launch(types: Types, x_steps: Steps, y_steps: Steps, geometry: Geometry) -> Launch:
    planes = Planes.of(geometry.axes)
    lanes = min(vector_bytes() // BYTES[types[1]], 2 ** (planes.col.out - 1).bit_length())
    most = registers() * 3 // 4 // (planes.row.kernel * planes.col.kernel)
    outputs = max((n for n in (2, 4) if geometry.outputs % n == 0 and n <= most), default=1)
    return _launch(weight_grad_code, _kind(planes, types, lanes, outputs), geometry, x_steps, y_steps)


def _kind(planes: Planes, types: Types, lanes: int, outputs: int) -> Rows:
    (_, row, col), most = planes, 4 * vector_bytes() // BYTES[types[1]]
    kernel, stride, dilation = ((row[i], col[i]) for i in (1, 2, 3))
    together = copied_together(planes, lanes, most)
    return Rows(types, lanes, together, planes.rests[1], kernel, stride, dilation, registers(), outputs)


def _launch(write: Any, kind: Rows, geometry: Geometry, x_steps: Steps, y_steps: Steps) -> Launch:
    planes, item_bytes = Planes.of(geometry.axes), BYTES[kind.types[1]]
    found = tables(geometry, x_steps, y_steps)
    # Vectors of dw reach beyond the end of a row.
    pitch = planes.pitch - planes.col.out + -(-planes.col.out // kind.lanes) * kind.lanes
    terms, row_numbers = found[0].shape[1], pitch * planes.rests[1]
    jobs = geometry.samples * geometry.groups * planes.positions
    slab = _slab(planes.row, CACHED // (terms * row_numbers * item_bytes), kind.rows, jobs)
    told = numbers(geometry, (x_steps, y_steps), pitch, slab, terms)
    return Launch(function(write, kind), told, found, told.beside * item_bytes)


def _pieces(geometry: Geometry) -> int:
    """How many pieces of work are wanted, for threads to share."""
    return max(min(math.prod(geometry.y_shape) * geometry.inputs * geometry.taps // SMALL, PIECES), 1)


def _slab(row: Axis, read: int, together: int, jobs: int) -> int:
    """How many rows of y a job makes: it reads about `read` rows, and fewer where jobs are few."""
    slab = (read - row.extent) // row.stride + 1
    if jobs < PIECES:
        slab = min(slab, -(-row.out * jobs // PIECES))
    return min(max(-(-slab // together), 1) * together, row.out)
