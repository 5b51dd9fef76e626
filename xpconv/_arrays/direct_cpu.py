"""The direct algorithm for NumPy's arrays: code of `direct_code.py`, compiled where a kind of convolution is first met.

Work is cut into jobs: rows of a plane of y, for all output channels of a group. Threads share the jobs, several at a
time, as they share parts elsewhere. How they are cut depends on sizes alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .._spec.geometry import Axis, Geometry
from .._spec.memory import derived
from .._spec.options import current
from .assembly import Code, compiled, registers, vector_bytes
from .direct_code import BYTES, MISSING, Kind, Numbers, forward_code, weight_grad_code
from .threads import run_all

__all__ = ["TYPES", "forward", "takes", "weight_grad"]

TYPES = {np.dtype("float32"): "float", np.dtype("float64"): "double"}
MOST_ROWS = 8  # that are summed together
MOST_TAPS = 256  # of the last two axes, which are written out one by one
CACHED = 2**17  # bytes of the planes that a job copies, about
MOST_COPIED = 2**18  # bytes of them for the fewest rows that are summed together
PIECES = 16  # of a call at least, if it is long enough for threads to share it
SMALL = 2**17  # products of a piece at least
FEW = 512  # outputs of a row that is cut for threads, at least
Types: TypeAlias = tuple[str, str, str]
Steps: TypeAlias = tuple[int, ...]  # from one element to the next, along each axis
NOTHING = Axis(1, 1, 1, 1, 0, 0)


class Launch(NamedTuple):
    """All that a call hands over beside its arrays."""

    function: Callable[..., None]
    numbers: Numbers  # of all jobs
    starts: Any  # (positions, terms): where in x the plane begins that a term reads
    places: Any  # (positions,): where in y the plane begins
    pieces: int  # for threads to share: so many runs of jobs


class Planes(NamedTuple):
    """A convolution as code sees it: planes of the last two axes, and the axes before them."""

    leads: tuple[Axis, ...]
    row: Axis
    col: Axis

    @classmethod
    def of(cls, axes: tuple[Axis, ...]) -> Planes:
        row, col = (NOTHING, NOTHING, *axes)[-2:]
        return cls(axes[:-2], row, col)

    @property
    def terms(self) -> int:
        """The planes that one input channel of a plane of y is read from."""
        return math.prod([axis.kernel for axis in self.leads])

    @property
    def copied(self) -> tuple[int, int, int]:
        """From which number of a row, to which place of the padded row, and how many numbers."""
        start, to = max(-self.col.lo, 0), max(self.col.lo, 0)
        return (
            start,
            to,
            max(min(self.col.size - start, self.col.stride * (self.col.out - 1) + self.col.extent - to), 0),
        )


def takes(geometry: Geometry, item_bytes: int) -> bool:
    """Whether there is code for such a convolution, and its jobs take little memory."""
    planes = Planes.of(geometry.axes)
    row, col = planes.row, planes.col
    if row.kernel * col.kernel > MOST_TAPS:
        return False
    cols = -(-col.out // max(len(_row_parts(item_bytes, geometry)), 1))
    copied = (row.stride * (min(row.out, MOST_ROWS) - 1) + row.extent) * (col.stride * (cols - 1) + col.extent)
    return copied * geometry.inputs * planes.terms * item_bytes <= MOST_COPIED


def forward(x: Any, w: Any, bias: Any, out: Any, within: tuple[slice, ...] | None, geometry: Geometry) -> None:
    """As `direct_forward`."""
    y = out if within is None else out[(..., *within)]
    if not (y.size and math.prod(geometry.x_shape) and geometry.inputs):
        y[...] = 0 if bias is None else bias.reshape(-1, *(1,) * len(geometry.axes))
        return
    x, w = _readable(x, w.dtype), np.ascontiguousarray(w)
    bias = None if bias is None else np.ascontiguousarray(bias)
    types = TYPES[x.dtype], TYPES[w.dtype], TYPES[y.dtype]
    pieces = []
    for x_part, y_part, part in _along_rows(x, y, geometry, w.itemsize):
        launch = _forward_launch(types, _steps(x_part), _steps(y_part), bias is not None, part)
        pointers = tuple(0 if array is None else array.ctypes.data for array in (x_part, w, bias, y_part))
        pieces += [(launch, pointers, jobs) for jobs in _spans(launch.numbers.last, launch.pieces)]

    def work(piece: tuple[Launch, tuple[int, ...], tuple[int, int]]) -> None:
        _run(*piece, w.dtype)

    _share(work, pieces)


def weight_grad(dy: Any, x: Any, geometry: Geometry, dtype: Any) -> Any:
    """As `direct_weight_grad`."""
    dtype, groups = np.dtype(dtype), geometry.groups
    if not (math.prod(geometry.y_shape) and math.prod(geometry.x_shape) and geometry.inputs):
        return np.zeros(geometry.w_shape, dtype=dtype)
    x, dy = _readable(x, dtype), _readable(dy, dtype)
    types = TYPES[x.dtype], TYPES[dtype], TYPES[dy.dtype]
    launches = [
        (_weight_launch(types, _steps(x_part), _steps(y_part), part), (y_part.ctypes.data, x_part.ctypes.data))
        for x_part, y_part, part in _along_rows(x, dy, geometry, dtype.itemsize)
    ]
    count = min(sum(launch.pieces for launch, _ in launches), PIECES)
    by_groups = groups >= PIECES  # pieces of whole groups add to weights of their own
    if not by_groups:
        count = min(count, geometry.samples * geometry.positions)
    sums = np.zeros((1 if by_groups else count, *geometry.w_shape), dtype=dtype)

    def work(i: int) -> None:
        for launch, pointers in launches:
            (first, last), each = _spans(groups, count)[i], launch.numbers.last // groups
            jobs = (first * each, last * each) if by_groups else _spans(launch.numbers.last, count)[i]
            _run(launch, (*pointers, sums[0 if by_groups else i].ctypes.data), jobs, dtype)

    _share(work, range(count))
    return sums[0] if len(sums) == 1 else np.add.reduce(sums, axis=0)


def _spans(jobs: int, count: int) -> list[tuple[int, int]]:
    """So many runs of jobs, of about the same length."""
    return [(jobs * i // count, jobs * (i + 1) // count) for i in range(count)]


def _share(work: Callable[[Any], None], pieces: Sequence[Any]) -> None:
    if len(pieces) == 1:
        work(pieces[0])
    else:
        run_all(work, pieces, current().threads)


def _run(launch: Launch, pointers: tuple[int, ...], jobs: tuple[int, int], dtype: Any) -> None:
    planes = np.empty(launch.numbers.terms * launch.numbers.plane, dtype=dtype)
    numbers = np.asarray((*jobs, *launch.numbers[2:]), dtype=np.int64)
    launch.function(*pointers, *[one.ctypes.data for one in (planes, numbers, launch.starts, launch.places)])


def _readable(x: Any, dtype: Any) -> Any:
    """x in a dtype that code knows, its rows in runs of memory; other strides are as they are."""
    x = x if x.dtype in TYPES else x.astype(dtype)
    runs = x.flags.aligned and x.strides[-1] == x.itemsize and all(step % x.itemsize == 0 for step in x.strides)
    return x if runs else np.ascontiguousarray(x)


def _steps(x: Any) -> Steps:
    return tuple([step // x.itemsize for step in x.strides])


def _along_rows(x: Any, y: Any, geometry: Geometry, item_bytes: int) -> Iterator[tuple[Any, Any, Geometry]]:
    parts = _row_parts(item_bytes, geometry)
    if not parts:
        yield x, y, geometry
    for read, made, part in parts:
        yield x[..., read], y[..., made], part


@derived
def _row_parts(item_bytes: int, geometry: Geometry) -> list[tuple[slice, slice, Geometry]]:
    """Parts of long rows: what a job copies is to stay in the cache, and each thread is to have jobs. None if short."""
    planes, parts = Planes.of(geometry.axes), []
    col = planes.col
    most = CACHED // (item_bytes * geometry.inputs * planes.terms * planes.row.extent * col.stride)
    rows = geometry.samples * geometry.groups * planes.row.out * math.prod([axis.out for axis in planes.leads])
    if rows < PIECES:
        most = min(most, -(-col.out * rows // PIECES))
    count = -(-col.out // max(most, FEW))
    for start, stop in _spans(col.out, count) if count > 1 else ():
        read, axis = col.part(start, stop)
        parts.append((read, slice(start, stop), geometry.over((*geometry.axes[:-1], axis))))
    return parts


@derived
def _forward_launch(types: Types, x_steps: Steps, y_steps: Steps, bias: bool, geometry: Geometry) -> Launch:
    planes, y_step = Planes.of(geometry.axes), y_steps[-1] if geometry.axes else 1
    most, cols, rows = vector_bytes() // BYTES[types[1]], planes.col.out, planes.row.out
    most = max(min(most, 4 * most // y_step), 1)
    # The fewest vectors, since some numbers are computed twice; of equal ones those that are summed together.
    _, vectors, lanes = min((-(-cols // (v * n)) * v, -v, n) for v in (1, 2) for n in _powers(most) if v * n <= cols)
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


def _powers(most: int) -> list[int]:
    """The powers of two up to a number."""
    return [2**i for i in range(most.bit_length())]


def _kind(planes: Planes, types: Types, lanes: int, outputs: int) -> Kind:
    (_, row, col), most = planes, 4 * vector_bytes() // BYTES[types[1]]
    runs = _powers(min(lanes, min(planes.copied[2], most) // col.stride))
    kernel, stride, dilation = ((row[i], col[i]) for i in (1, 2, 3))
    return Kind(types, kernel, stride, dilation, lanes, registers(), max(runs, default=0), outputs)


def _launch(write: Callable[[Kind], Code], kind: Kind, geometry: Geometry, x_steps: Steps, y_steps: Steps) -> Launch:
    planes = Planes.of(geometry.axes)
    (leads, row, col), (start, to, copied) = planes, planes.copied
    starts, places = _tables(geometry, leads, x_steps, y_steps)
    # Vectors of dw reach beyond the end of a row.
    phase = -(-col.out // kind.lanes) * kind.lanes + (col.extent - 1) // col.stride
    pitch = -(-phase * col.stride // kind.lanes) * kind.lanes
    jobs = geometry.samples * geometry.groups * len(places)
    slab = _slab(row, CACHED // (starts.shape[1] * pitch * BYTES[kind.types[1]]), kind.rows, jobs)
    jobs *= -(-row.out // slab)
    x_row, y_row = (0, 0) if row is NOTHING else (x_steps[-2], y_steps[-2])
    numbers = Numbers(
        first=0,
        last=jobs,
        samples=geometry.samples,
        groups=geometry.groups,
        outputs=geometry.outputs,
        terms=starts.shape[1],
        positions=len(places),
        rows=row.out,
        cols=col.out,
        slab=slab,
        slabs=-(-row.out // slab),
        plane=(row.stride * (slab - 1) + row.extent) * pitch,
        pitch=pitch,
        phase=phase,
        lo=row.lo,
        size=row.size,
        start=start,
        to=to,
        copied=copied,
        x_sample=x_steps[0],
        x_group=geometry.inputs * x_steps[1],
        x_row=x_row,
        y_sample=y_steps[0],
        y_channel=y_steps[1],
        y_row=y_row,
    )
    products = math.prod(geometry.y_shape) * geometry.inputs * geometry.taps
    return Launch(_function(write, kind), numbers, starts, places, max(min(jobs, PIECES, products // SMALL), 1))


@lru_cache(maxsize=256)
def _function(write: Callable[[Kind], Code], kind: Kind) -> Callable[..., None]:
    return compiled(write.__name__, write(kind))


def _slab(row: Axis, read: int, together: int, jobs: int) -> int:
    """How many rows of y a job makes: it reads about `read` rows, and fewer where jobs are few."""
    slab = (read - row.extent) // row.stride + 1
    if jobs < PIECES:
        slab = min(slab, -(-row.out * jobs // PIECES))
    return min(max(-(-slab // together), 1) * together, row.out)


def _tables(geometry: Geometry, leads: tuple[Axis, ...], x_steps: Steps, y_steps: Steps) -> tuple[Any, Any]:
    """Where planes begin: (positions, terms) in x, after the first plane of a sample and a group; (positions,) in y."""
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
