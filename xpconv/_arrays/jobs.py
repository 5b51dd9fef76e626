"""Jobs of the direct algorithm's code: what `rows.py` and `tiles.py` share.

A job makes rows of a plane of y, for output channels of a group, or adds to dw what comes from them. Threads share the
jobs, several at a time, as they share parts elsewhere.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import accumulate, chain, count
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from .._spec.geometry import Axis, Geometry
from .._spec.memory import derived
from .._spec.options import current
from .assembly import Code, compiled
from .direct_code import MISSING, Numbers
from .threads import run_jobs

__all__ = [
    "CACHED",
    "PIECES",
    "TYPES",
    "Launch",
    "Planes",
    "Steps",
    "Types",
    "along_rows",
    "function",
    "in_elements",
    "numbers",
    "powers",
    "readable",
    "run",
    "share",
    "shares",
    "spans",
    "steps",
    "tables",
    "threads_within",
]

TYPES = {np.dtype("float32"): "float", np.dtype("float64"): "double"}
CACHED = 2**17  # bytes of the planes that a job copies, about
PIECES = 16  # of a call at least, if it is long enough for threads to share it
FEW = 512  # outputs of a row that is cut for threads, at least
MOST_LISTED = 2**18  # planes in a table
WORKSPACE = 2**26  # bytes, where the caller leaves it open
ALIGNED = 64  # bytes: where memory begins
ITEM = 8  # bytes of an integer in a table
Types: TypeAlias = tuple[str, str, str]
Steps: TypeAlias = tuple[int, ...]  # from one element to the next, along each axis
NOTHING = Axis(1, 1, 1, 1, 0, 0)


class Launch:
    """Code with all that it is told by a call, but for where its arrays lie."""

    def __init__(self, function: Callable[..., None], told: Numbers, tables: Sequence[Any], memory: int) -> None:
        self.function = function
        self.jobs = told.jobs
        self.memory = memory  # bytes that a job holds
        self._arrays = [np.ascontiguousarray(one, dtype=np.int64) for one in (told, *tables)]
        self._addresses = [one.ctypes.data for one in self._arrays]

    def run(self, *pointers: int) -> None:
        """Do jobs, in memory of this thread."""
        self.function(*pointers, _own.of(self.memory), *self._addresses)


class _Memory(threading.local):
    """What a thread keeps for jobs: it asks for more only where it has too little."""

    begin, size = 0, -1

    def of(self, size: int) -> int:
        """Where so many bytes begin."""
        if size > self.size:
            array = np.empty(size + ALIGNED, dtype=np.uint8)
            begin = array.ctypes.data
            self.array, self.begin, self.size = array, begin + -begin % ALIGNED, size
        return self.begin


_own = _Memory()


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

    def are_few(self, inputs: int) -> bool:
        """Whether a table of them is small, for so many input channels of a group."""
        return self.positions * inputs * self.terms <= MOST_LISTED

    @property
    def positions(self) -> int:
        return math.prod([axis.out for axis in self.leads])

    @property
    def rests(self) -> tuple[int, int]:
        """How many rests of a place, divided by the stride, some tap meets along the last two axes."""
        return min(self.row.stride, self.row.extent), min(self.col.stride, self.col.extent)

    @property
    def pitch(self) -> int:
        """The fewest places of a copied row."""
        return self.col.out + (self.col.extent - 1) // self.col.stride

    def copied_rows(self, slab: int) -> int:
        """The rows of each rest that so many rows of y read."""
        return slab + (self.row.extent - 1) // self.row.stride

    @property
    def copied(self) -> tuple[int, int, int]:
        """From which number of a row, to which place of the padded row, and how many numbers."""
        start, to = max(-self.col.lo, 0), max(self.col.lo, 0)
        reach = self.col.stride * (self.col.out - 1) + self.col.extent
        return start, to, max(min(self.col.size - start, reach - to), 0)


def spans(count: int, parts: int) -> list[tuple[int, int]]:
    """So many runs, of about the same length."""
    return [(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


def shares(jobs: Sequence[int], count: int) -> list[list[tuple[int, Any]]]:
    """For each of so many pieces: which calls it does, with the first job and the one after the last of each."""
    found, begins = [], list(accumulate(jobs, initial=0))
    for first, last in spans(begins[-1], count):
        runs = [(max(first - at, 0), min(last - at, n)) for at, n in zip(begins[:-1], jobs, strict=True)]
        found.append([(k, np.asarray(run, dtype=np.int64)) for k, run in enumerate(runs) if run[0] < run[1]])
    return found


def powers(most: int) -> list[int]:
    """The powers of two up to a number."""
    return [2**i for i in range(most.bit_length())]


def threads_within(each: int, beside: int) -> int:
    """How many threads may work: as many as are wanted, if the workspace has room for so many bytes of each."""
    options = current()
    own = options.workspace is None or options.batch_invariant
    workspace = WORKSPACE if own else cast(int, options.workspace)
    return max(min(options.threads, (workspace - beside) // each), 1)


def share(work: Callable[[Any], None], items: Sequence[Any], threads: int) -> None:
    """Do the work on every item, by so many threads."""
    queue, end, lock = iter(items), object(), threading.Lock()
    errors: list[BaseException] = []
    helping = np.zeros(1, dtype=np.int64)

    def work_through() -> None:
        while True:
            with lock:
                item = next(queue, end)
            if item is end:
                return
            work(item)

    def help_out() -> None:
        with lock:
            helping[0] += 1
        try:
            work_through()
        except BaseException as error:
            errors.append(error)
            stop()
        finally:
            with lock:
                helping[0] -= 1

    def stop() -> None:
        with lock:
            for _ in queue:
                pass

    run_jobs(work_through, help_out, partial(_wait, helping, stop), min(threads, len(items)))
    if errors:
        raise errors[0]


def run(calls: Sequence[tuple[Launch, Sequence[int]]], threads: int) -> None:
    """All jobs of these calls, by so many threads.

    Each thread begins with jobs of its own, so that it meets the same memory as in the last call; then it helps others.
    """
    threads = min(threads, sum([launch.jobs for launch, _ in calls]))
    if threads == 1:
        for launch, pointers in calls:
            alone = np.asarray((0, 0, launch.jobs), dtype=np.int64)
            launch.run(*pointers, alone.ctypes.data, alone.ctypes.data + ITEM)
        return
    # How many threads are busy; of each call and thread, the next job and the one after the last.
    runs = [run for launch, _ in calls for run in spans(launch.jobs, threads)]
    shared = np.asarray([0, *chain.from_iterable(runs)], dtype=np.int64)
    busy, turns = shared.ctypes.data, count()

    def work() -> None:
        i = next(turns)
        for k, (launch, pointers) in enumerate(calls):
            for turn in range(threads):
                at = 1 + 2 * (k * threads + (i + turn) % threads)
                if shared[at] < shared[at + 1]:
                    launch.run(*pointers, busy, busy + ITEM * at)

    def help_out() -> None:
        with suppress(MemoryError):  # then the others do it all
            work()

    def stop() -> None:
        shared[1::2] = shared[2::2]

    run_jobs(work, help_out, partial(_wait, shared, stop), threads)


def _wait(busy: Any, stop: Callable[[], None]) -> None:
    """Let nothing more begin, and wait until the first number of an array is 0: an interrupt is raised after that."""
    interrupt = None
    while True:
        try:
            stop()
            while busy[0]:
                function(waiting_code, None)(busy.ctypes.data)
                if busy[0]:  # to sleep takes longer than most of what helpers still do
                    time.sleep(0)
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


def waiting_code(_: None) -> Code:
    """Argument: a number. Returns when it is 0, or after some time."""
    code = Code(1)
    code.until_zero("%0", 2**16)
    return code


def readable(x: Any, dtype: Any) -> Any:
    """x in a dtype that code knows, its rows in runs of memory; other strides are as they are."""
    x = x if x.dtype in TYPES else x.astype(dtype)
    return x if in_elements(x) and x.strides[-1] == x.itemsize else x.copy(order="C")


def in_elements(x: Any) -> bool:
    """Whether all of its numbers are whole elements apart, and begin where the processor expects them."""
    return x.flags.aligned and all(step % x.itemsize == 0 for step in x.strides)


def steps(x: Any) -> Steps:
    return tuple([step // x.itemsize for step in x.strides])


def along_rows(
    x: Any, y: Any, geometry: Geometry, item_bytes: int, beside: int = 0
) -> Iterator[tuple[Any, Any, Geometry]]:
    """Parts of long rows, as `row_parts`; the whole if they are short."""
    parts = row_parts(item_bytes, beside, geometry)
    if not parts:
        yield x, y, geometry
    for read, made, part in parts:
        yield x[..., read], y[..., made], part


@derived
def row_parts(item_bytes: int, beside: int, geometry: Geometry) -> list[tuple[slice, slice, Geometry]]:
    """Parts of long rows, none of short ones: what a job holds is to stay in the cache, and threads are to have jobs.

    It holds so many rows beside those that it copies.
    """
    planes, parts = Planes.of(geometry.axes), []
    col = planes.col
    most = CACHED // (item_bytes * (geometry.inputs * planes.terms * planes.row.extent * col.stride + beside))
    rows = geometry.samples * geometry.groups * planes.row.out * planes.positions
    if rows < PIECES:
        most = min(most, -(-col.out * rows // PIECES))
    count = -(-col.out // max(most, FEW))
    for start, stop in spans(col.out, count) if count > 1 else ():
        read, axis = col.part(start, stop)
        parts.append((read, slice(start, stop), geometry.over((*geometry.axes[:-1], axis))))
    return parts


def numbers(geometry: Geometry, steps_of: tuple[Steps, Steps], pitch: int, slab: int, terms: int) -> Numbers:
    """What code is told of a convolution and of how x and y lie in memory; all jobs of it."""
    planes, (x_steps, y_steps) = Planes.of(geometry.axes), steps_of
    (_, row, col), (row_rests, col_rests), (start, to, copied) = planes, planes.rests, planes.copied
    col_rest = planes.copied_rows(slab) * pitch
    slabs = -(-row.out // slab)
    x_row, y_row = (0, 0) if row is NOTHING else (x_steps[-2], y_steps[-2])
    return Numbers(
        jobs=geometry.samples * geometry.groups * planes.positions * slabs,
        samples=geometry.samples,
        groups=geometry.groups,
        outputs=geometry.outputs,
        terms=terms,
        positions=planes.positions,
        rows=row.out,
        cols=col.out,
        slab=slab,
        slabs=slabs,
        plane=row_rests * col_rests * col_rest,
        pitch=pitch,
        row_rest=col_rests * col_rest,
        col_rest=col_rest,
        row_step=row.stride,
        row_reach=row.extent,
        row_rests=row_rests,
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
        beside=-(-(terms * row_rests * col_rests * col_rest) // ALIGNED) * ALIGNED,
    )


@lru_cache(maxsize=256)
def function(write: Callable[[Any], Code], kind: Any) -> Callable[..., None]:
    return compiled(write.__name__, write(kind))


def copied_together(planes: Planes, lanes: int, most: int) -> int:
    """How many numbers of each rest are copied together."""
    return max(powers(min(lanes, min(planes.copied[2], most) // planes.col.stride)), default=0)


def tables(geometry: Geometry, x_steps: Steps, y_steps: Steps) -> tuple[Any, Any]:
    """Where planes begin: (positions, terms) in x, after the first plane of a sample and a group; (positions,) in y."""
    starts = np.arange(geometry.inputs, dtype=np.int64)[None, :] * x_steps[1]
    places, missing = np.zeros(1, dtype=np.int64), np.zeros_like(starts, dtype=bool)
    leads = Planes.of(geometry.axes).leads
    for axis, x_step, y_step in zip(leads, x_steps[2:], y_steps[2:], strict=False):
        j, t = np.arange(axis.out, dtype=np.int64), np.arange(axis.kernel, dtype=np.int64)
        at = axis.stride * j[:, None] + axis.dilation * t - axis.lo
        beyond = (at < 0) | (at >= axis.size)
        shape = len(starts) * axis.out, starts.shape[1] * axis.kernel
        starts = (starts[:, None, :, None] + (at * x_step)[:, None, :]).reshape(shape)
        missing = (missing[:, None, :, None] | beyond[:, None, :]).reshape(shape)
        places = (places[:, None] + j * y_step).reshape(-1)
    return np.where(missing, np.int64(MISSING), starts), places
