"""How the benchmark measures: times in turns, errors against float64, memory, and the machine's own rate."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contestants import CONTESTANTS, OURS, PASSES, torchs
from layers import LAYERS
from threadpoolctl import threadpool_info

DTYPES = ("float32", "float64")
ALLOWED = {"float32": 2e-5, "float64": 1e-13}  # what xpconv promises
ALLOWED |= {"float16": 2e-3, "tf32": 2e-3}  # 11 bits each: of the result, and of the operands
ALLOWED |= {"int64": 0.0, "int32": 0.0}
LONG = 0.3  # seconds; a call that takes longer is counted once
TOO_LONG = 1.0  # seconds; a call that would take longer is left out, of rivals other than torch
Row = dict[str, Any]  # of a table: case, what, dtype and, by contestant, its numbers with its error
SPIN = 0.03  # seconds that the threads of a library wait for its next product before they sleep


@dataclass(frozen=True)
class Pace:
    """How long to measure: so many turns of so many seconds, or of one call where it is longer."""

    turns: int
    seconds: float

    def measure(
        self, calls: dict[str, Callable[[], Any]], all_turns: Container[str] = (OURS, "torch")
    ) -> dict[str, list[float]]:
        """The milliseconds of each contestant's calls; those of `all_turns` have all the turns, the others the first.

        Threads that spin take the cores from the next library, and threads that sleep take as long to wake. So a turn
        begins with a pause and two calls that do not count; one, where it is long.
        """
        times: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(self.turns):
            for name, call in calls.items():
                if turn and (name not in all_turns or times[name][0] > 1e3 * LONG):
                    continue
                time.sleep(2 * SPIN)
                first = milliseconds(call)
                if first > 1e3 * LONG:
                    times[name] = [first]
                    continue
                if first < 1e3 * SPIN:
                    call()
                end = time.perf_counter() + self.seconds
                while time.perf_counter() < end:
                    times[name].append(milliseconds(call))
        return times


def milliseconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


@dataclass(frozen=True)
class Measured:
    median_ms: float
    fastest_ms: float
    calls: int
    error: float | None  # the largest, beside the largest number expected; None for the reference itself


def measured(ms: list[float], error: float | None) -> Measured:
    return Measured(round(statistics.median(ms), 5), round(min(ms), 5), len(ms), error)


@dataclass(frozen=True)
class Result:
    layer: str
    kind: str
    batch: int
    dtype: str
    what: str
    multiplications: int
    extra_bytes: int  # ours at its peak, beside the inputs and the output
    by: dict[str, Measured]

    def ratio(self, rival: str) -> float:
        return self.by[rival].median_ms / self.by[OURS].median_ms

    def gflops(self, who: str) -> float:
        return 2e-6 * self.multiplications / self.by[who].median_ms


def bench(name: str, batch: int, rivals: list[str], pace: Pace, earlier: list[Result], refusing: bool) -> list[Result]:
    """A layer's three passes in every dtype; what is too long for a rival is told from the earlier results.

    Where a method that was asked for may refuse a layer, what it refuses is left out.
    """
    layer = LAYERS[name]
    rng = np.random.default_rng(0)
    doubles = [rng.standard_normal(shape) for shape in layer.shapes(batch)]
    results = []
    for dtype in DTYPES:
        operands = [operand.astype(dtype) for operand in doubles]
        references = torchs(layer, *(operand.astype(np.float64) for operand in operands))
        makers = {who: CONTESTANTS[who](layer, *operands) for who in (OURS, *rivals)}
        for index, what in enumerate(PASSES):
            before = [r for r in earlier if (r.layer, r.dtype, r.what) == (name, dtype, what)]
            calls = {who: made[index] for who, made in makers.items() if made and not too_long(who, batch, before)}
            try:
                extra_bytes = peak_beside_result(calls[OURS])
            except ValueError:
                if not refusing:
                    raise
                continue
            by = compare(calls, np.asarray(references[index]()), pace)
            if dtype == "float64" and "torch" in by:  # the reference was its
                by["torch"] = replace(by["torch"], error=None)
            multiplications = layer.multiplications(batch)
            results.append(Result(name, layer.kind, batch, dtype, what, multiplications, extra_bytes, by))
    return results


def too_long(who: str, batch: int, before: list[Result]) -> bool:
    if who in (OURS, "torch") or not before:
        return False
    last = before[-1]
    return who not in last.by or last.by[who].median_ms / last.batch * batch > 1e3 * TOO_LONG


def peak_beside_result(call: Callable[[], Any]) -> int:
    """How many bytes of NumPy's a call held at its peak beside its result."""
    tracemalloc.start()
    try:
        result = call()
        return max(0, tracemalloc.get_traced_memory()[1] - result.nbytes)
    finally:
        tracemalloc.stop()


def compare(calls: dict[str, Callable[[], Any]], expected: Any, pace: Pace) -> dict[str, Measured]:
    """Each contestant's errors and times; rivals other than torch are not called a second time where they are slow."""
    errors, times = {}, {}
    for who, call in calls.items():
        start = time.perf_counter()
        result = call()
        ms = 1e3 * (time.perf_counter() - start)
        errors[who] = largest_error(result, expected)
        if who not in (OURS, "torch") and ms > 1e3 * LONG:
            times[who] = [ms]
    times |= pace.measure({who: call for who, call in calls.items() if who not in times})
    return {who: measured(times[who], errors[who]) for who in calls}


def largest_error(actual: Any, expected: Any) -> float:
    """Of one array, or of a tuple of arrays."""
    pairs = zip(actual, expected, strict=True) if isinstance(expected, tuple) else [(actual, expected)]
    return float(np.max([error(np.asarray(a), np.asarray(e)) for a, e in pairs]))  # NaN, if one is


def error(actual: np.ndarray, expected: np.ndarray) -> float:
    if actual.shape != expected.shape:
        return math.inf
    return float(f"{np.max(np.abs(actual - expected)) / np.max(np.abs(expected)):.3g}")


def wrong_rows(rows: Iterable[Row]) -> list[str]:
    """Which rows of a table have an error of ours that is not allowed."""
    return [
        f"{row['case']}, {row['dtype']}, {row['what']}, {who}: {numbers['error']:.1e}, "
        f"allowed {ALLOWED[row['dtype']]:.0e}"
        for row in rows
        for who, numbers in row["by"].items()
        if who.startswith(OURS) and not numbers["error"] <= ALLOWED[row["dtype"]]
    ]


def gemm_rates() -> dict[str, float]:
    """NumPy's GFLOP/s for a product of matrices of 2048 x 2048."""
    rng = np.random.default_rng(0)
    rates = {}
    for dtype in DTYPES:
        a, b = (rng.standard_normal((2048, 2048)).astype(dtype) for _ in range(2))
        out = a @ b
        median = statistics.median(milliseconds(lambda a=a, b=b, out=out: np.matmul(a, b, out=out)) for _ in range(5))
        rates[dtype] = round(2e-6 * 2048**3 / median, 1)
    return rates


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    kernels = {library.get("architecture") for library in threadpool_info() if "numpy" in library["filepath"]}
    named = f" ({kernels.pop()} kernels)" if len(kernels) == 1 and None not in kernels else ""
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "python": platform.python_version(),
        "xpconv": installed_version("xpconv"),
        "numpy": f"{np.__version__} with {blas['name']} {blas['version']}{named}",
        "torch": f"{torch.__version__} with {torch.get_num_threads()} threads",
        "jax": installed_version("jax"),
        "scipy": installed_version("scipy"),
        "llvmlite": installed_version("llvmlite"),
        "threadpoolctl": installed_version("threadpoolctl"),
    }


def installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
