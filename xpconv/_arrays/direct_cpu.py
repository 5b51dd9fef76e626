"""The direct algorithm for NumPy's arrays: code of `direct_code.py`, compiled where a kind of convolution is first met.

Work is cut into jobs: rows of a plane of y, for all output channels of a group. Threads share the jobs, several at a
time, as they share parts elsewhere. How they are cut depends on sizes alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .._spec.geometry import Axis, Geometry
from .._spec.options import current
from .assembly import compiled, registers, vector_bytes
from .direct_code import FORWARD, MISSING, WEIGHT_GRAD, Kind, forward_code, weight_grad_code
from .threads import run_all

__all__ = ["MOST_TAPS", "TYPES", "forward", "weight_grad"]

TYPES = {np.dtype("float32"): "float", np.dtype("float64"): "double"}
MOST_TAPS = 128  # that are written out one by one
CACHED = 2**17  # bytes of the planes that a job copies, about
PIECES = 16  # of a call at least, if it is long enough for threads to share it
SMALL = 2**17  # products of a piece at least
FEW = 512  # outputs of a row that is cut for threads, at least
NOTHING = Axis(1, 1, 1, 1, 0, 0)


class Launch(NamedTuple):
    """All that a call hands over beside its arrays."""

    function: Callable[..., None]
    numbers: Any  # integers in the order of their names; the first two are the jobs to do
    starts: Any  # (positions, terms): where in x the plane begins that a term reads; -1 where that is padding
    places: Any  # (positions,): where the plane of y begins
    scratch: int  # how many numbers the planes of a job are
    jobs: int
    pieces: int


class Planes(NamedTuple):
    """A convolution as code sees it: planes of two axes, and the axes before them, of which no position is padding."""

    leads: tuple[Axis, ...]
    row: Axis
    col: Axis

    @classmethod
    def of(cls, axes: tuple[Axis, ...]) -> Planes:
        """With a large kernel, rows are planes of their own."""
        if len(axes) < 2 or axes[-2].kernel * axes[-1].kernel > MOST_TAPS:
            return cls(axes[:-1], NOTHING, axes[-1] if axes else NOTHING)
        return cls(axes[:-2], axes[-2], axes[-1])

    @property
    def terms(self) -> int:
        return math.prod([axis.kernel for axis in self.leads])

    @property
    def copied(self) -> tuple[int, int, int]:
        """From which number of a row, to which place of the padded row, and how many numbers."""
        start, to = max(-self.col.lo, 0), max(self.col.lo, 0)
        return start, to, max(min(self.col.size - start, self.col.stride * (self.col.out - 1) + self.col.extent - to), 0)


def forward(x: Any, w: Any, bias: Any, out: Any, within: tuple[slice, ...] | None, geometry: Geometry) -> None:
    """As `direct_forward`."""
    y = out if within is None else out[(..., *within)]
    if not (y.size and math.prod(geometry.x_shape) and geometry.inputs):
        y[...] = 0 if bias is None else bias.reshape(-1, *(1,) * len(geometry.axes))
        return
    x, w = _readable(x, w.dtype), np.ascontiguousarray(w)
    bias = None if bias is None else np.ascontiguousarray(bias)
    types = TYPES[x.dtype], TYPES[w.dtype], TYPES[y.dtype]
    jobs = []
    for x_part, y_part, part in _along_rows(x, y, geometry, w.itemsize):
        launch = _forward_launch(part, types, _steps(x_part), _steps(y_part), bias is not None)
        pointers = tuple(0 if array is None else array.ctypes.data for array in (x_part, w, bias, y_part))
        jobs += [(launch, pointers, piece) for piece in range(launch.pieces)]

    def work(job: tuple[Launch, tuple[int, ...], int]) -> None:
        _run(*job, w.dtype)

    _share(work, jobs)


def weight_grad(dy: Any, x: Any, geometry: Geometry, dtype: Any) -> Any:
    """As `direct_weight_grad`."""
    dtype = np.dtype(dtype)
    if not (math.prod(geometry.y_shape) and math.prod(geometry.x_shape) and geometry.inputs):
        return np.zeros(geometry.w_shape, dtype=dtype)
    x, dy = _readable(x, dtype), _readable(dy, dtype)
    types = TYPES[x.dtype], TYPES[dtype], TYPES[dy.dtype]
    jobs = []
    for x_part, y_part, part in _along_rows(x, dy, geometry, dtype.itemsize):
        launch = _weight_launch(part, types, _steps(x_part), _steps(y_part))
        pointers = y_part.ctypes.data, x_part.ctypes.data
        jobs += [(launch, pointers, piece) for piece in range(launch.pieces)]
    count = min(len(jobs), PIECES)
    sums = np.zeros((count, *geometry.w_shape), dtype=dtype)

    def work(i: int) -> None:
        for launch, pointers, piece in jobs[i * len(jobs) // count : (i + 1) * len(jobs) // count]:
            _run(launch, (*pointers, sums[i].ctypes.data), piece, dtype)

    _share(work, range(count))
    return sums[0] if count == 1 else np.add.reduce(sums, axis=0)


def _share(work: Callable[[Any], None], jobs: Any) -> None:
    if len(jobs) == 1:
        work(jobs[0])
    else:
        run_all(work, jobs, current().threads)


def _run(launch: Launch, pointers: tuple[int, ...], piece: int, dtype: Any) -> None:
    scratch, numbers = np.empty(launch.scratch, dtype=dtype), launch.numbers.copy()
    numbers[:2] = [end * launch.jobs // launch.pieces for end in (piece, piece + 1)]
    launch.function(*pointers, *[a.ctypes.data for a in (scratch, numbers, launch.starts, launch.places)])


def _readable(x: Any, dtype: Any) -> Any:
    """x in a dtype that code knows, its rows in runs of memory; other strides are as they are."""
    x = x if x.dtype in TYPES else x.astype(dtype)
    runs = x.strides[-1] == x.itemsize and all(step % x.itemsize == 0 for step in x.strides)
    return x if runs else np.ascontiguousarray(x)


def _steps(x: Any) -> tuple[int, ...]:
    return tuple([step // x.itemsize for step in x.strides])


def _along_rows(x: Any, y: Any, geometry: Geometry, item_bytes: int) -> Iterator[tuple[Any, Any, Geometry]]:
    """Parts of long rows: what a job copies is to stay in the cache, and each thread is to have jobs."""
    if not geometry.axes:
        yield x, y, geometry
        return
    planes, col = Planes.of(geometry.axes), geometry.axes[-1]
    most = CACHED // (item_bytes * geometry.inputs * planes.terms * planes.row.extent * col.stride)
    rows = math.prod(geometry.y_shape[:-1]) // geometry.outputs
    if rows < PIECES:
        most = min(most, -(-col.out * rows // PIECES))
    count = -(-col.out // max(most, FEW))
    for i in range(count):
        start, stop = (col.out * end // count for end in (i, i + 1))
        read, axis = col.part(start, stop)
        yield x[..., read], y[..., start:stop], geometry.over((*geometry.axes[:-1], axis))


@lru_cache(maxsize=256)
def _forward_launch(
    geometry: Geometry, types: tuple[str, str, str], x_steps: tuple[int, ...], y_steps: tuple[int, ...], bias: bool
) -> Launch:
    planes, most = Planes.of(geometry.axes), vector_bytes() // _BYTES[types[1]]
    cols, rows, y_step = planes.col.out, planes.row.out, y_steps[-1] if geometry.axes else 1
    most = max(min(most, 4 * most // y_step), 1)
    # The fewest vectors, since some numbers are computed twice; of equal ones those that are summed together.
    _, vectors, lanes = min((-(-cols // (v * n)) * v, -v, n) for v in (1, 2) for n in _powers(most) if v * n <= cols)
    outputs = min(geometry.outputs, 2 if vectors == -2 else 4)
    room = min(max(registers() // 2 // (-vectors * outputs), 1), 8, rows)
    together = min(range(1, room + 1), key=lambda count: -(-rows // count) * (count + 1))
    kind = _kind(planes, types, lanes)._replace(
        block=(outputs, together, -vectors), bias=bias, y_step=y_step
    )
    slab = _slab(geometry, planes, _pitch(planes, lanes, cols)[1] * _BYTES[types[1]], together)
    return _launch("forward", kind, (geometry, planes, slab), x_steps, y_steps)


@lru_cache(maxsize=256)
def _weight_launch(
    geometry: Geometry, types: tuple[str, str, str], x_steps: tuple[int, ...], y_steps: tuple[int, ...]
) -> Launch:
    planes = Planes.of(geometry.axes)
    lanes = min(vector_bytes() // _BYTES[types[1]], 2 ** (planes.col.out - 1).bit_length())
    kind = _kind(planes, types, lanes)
    room = registers() * 3 // 4 // (kind.kernel[0] * kind.kernel[1])
    outputs = max((n for n in (1, 2, 4) if geometry.outputs % n == 0 and n <= room), default=1)
    slab = _slab(geometry, planes, _pitch(planes, lanes, planes.col.out + lanes)[1] * _BYTES[types[1]], 1)
    return _launch("weight_grad", kind._replace(block=(outputs, 1, 1)), (geometry, planes, slab), x_steps, y_steps)


_BYTES = {kind: dtype.itemsize for dtype, kind in TYPES.items()}


def _powers(most: int) -> list[int]:
    """The powers of two up to a number."""
    return [2**i for i in range(most.bit_length())]


def _kind(planes: Planes, types: tuple[str, str, str], lanes: int) -> Kind:
    row, col = planes.row, planes.col
    widest = min(planes.copied[2], 4 * vector_bytes() // _BYTES[types[1]]) // col.stride
    pairs = [(getattr(row, name), getattr(col, name)) for name in ("kernel", "stride", "dilation")]
    return Kind(types, *pairs, lanes, registers(), run=max(_powers(min(widest, lanes)), default=0))


def _pitch(planes: Planes, lanes: int, cols: int) -> tuple[int, int]:
    """From the places of one rest modulo the stride to the next ones, and from row to row."""
    phase = cols + (planes.col.extent - 1) // planes.col.stride
    return phase, -(-phase * planes.col.stride // lanes) * lanes


def _launch(
    name: str, kind: Kind, cut: tuple[Geometry, Planes, int], x_steps: tuple[int, ...], y_steps: tuple[int, ...]
) -> Launch:
    geometry, planes, slab = cut
    (leads, row, col), (start, to, count) = planes, planes.copied
    cols = col.out if name == "forward" else -(-col.out // kind.lanes) * kind.lanes
    phase, pitch = _pitch(planes, kind.lanes, cols)
    read = row.stride * (slab - 1) + row.extent
    starts, places = _tables(geometry, leads, x_steps, y_steps)
    (x_row, y_row) = (x_steps[-2], y_steps[-2]) if row is not NOTHING else (0, 0)
    of = {"outputs": geometry.outputs, "groups": geometry.groups, "samples": geometry.samples, "terms": starts.shape[1]}
    of |= {"slabs": -(-row.out // slab), "slab": slab, "rows": row.out, "cols": col.out, "leads": len(places)}
    of |= {"plane": read * pitch, "read": read, "pitch": pitch, "phase": phase, "lo": row.lo, "size": row.size}
    of |= {"from": start, "to": to, "count": count, "x_row": x_row, "y_row": y_row}
    of |= {"x_n": x_steps[0], "x_g": geometry.inputs * x_steps[1]}
    of |= {"y_n": y_steps[0], "y_g": geometry.outputs * y_steps[1], "y_c": y_steps[1], "first": 0, "last": 0}
    names = FORWARD if name == "forward" else WEIGHT_GRAD
    jobs = geometry.samples * geometry.groups * len(places) * of["slabs"]
    products = math.prod(geometry.y_shape) * geometry.inputs * geometry.taps
    return Launch(
        _function(name, kind),
        np.array([of[name] for name in names], dtype=np.int64),
        starts,
        places,
        starts.shape[1] * read * pitch,
        jobs,
        max(min(jobs, PIECES, products // SMALL), 1),
    )


@lru_cache(maxsize=256)
def _function(name: str, kind: Kind) -> Callable[..., None]:
    write, pointers = (forward_code, 8) if name == "forward" else (weight_grad_code, 7)
    return compiled(name, pointers, write(kind))


def _slab(geometry: Geometry, planes: Planes, pitch: int, together: int) -> int:
    """How many rows of y a job makes: those of which the planes fit into the cache, and fewer where jobs are few."""
    row = planes.row
    fits = CACHED // (pitch * geometry.inputs * planes.terms)
    slab = (fits - row.extent) // row.stride + 1
    jobs = geometry.samples * geometry.groups * math.prod([axis.out for axis in planes.leads])
    if jobs < PIECES:
        slab = min(slab, -(-row.out * jobs // PIECES))
    return min(max(-(-slab // together), 1) * together, row.out)


def _tables(
    geometry: Geometry, leads: tuple[Axis, ...], x_steps: tuple[int, ...], y_steps: tuple[int, ...]
) -> tuple[Any, Any]:
    """Where planes begin: (positions, terms) of x, from the first one of a sample and a group, and (positions,) of y."""
    starts = np.arange(geometry.inputs, dtype=np.int64)[None, :] * x_steps[1]
    places, missing = np.zeros(1, dtype=np.int64), np.zeros_like(starts, dtype=bool)
    for axis, x_step, y_step in zip(leads, x_steps[2:], y_steps[2:], strict=False):
        j, t = np.arange(axis.out, dtype=np.int64), np.arange(axis.kernel, dtype=np.int64)
        at = axis.stride * j[:, None] + axis.dilation * t - axis.lo
        beyond = (at < 0) | (at >= axis.size)
        shape = len(starts) * axis.out, starts.shape[1] * axis.kernel
        starts = (starts[:, None, :, None] + (at * x_step)[:, None, :]).reshape(shape)
        missing = (missing[:, None, :, None] | beyond[:, None, :]).reshape(shape)
        places = (places[:, None] + j * y_step).reshape(-1)
    return np.where(missing, np.int64(MISSING), starts), places
