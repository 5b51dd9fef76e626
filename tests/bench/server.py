"""Many threads that call one layer at once, as those of a server do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import torch
from contestants import OURS, WHOLE
from layers import Layer, dense
from measure import SPIN, Row, largest_error

THREADS = (1, 2, 8, 32)
SERVED = {
    "3x3 64 to 64 @28": dense((64, 28, 28), (64, 64, 3, 3), padding=1),
    "1x1 16 to 32 @14": dense((16, 14, 14), (32, 16, 1, 1)),
    "3x3/2 3 to 16 @112": dense((3, 112, 112), (16, 3, 3, 3), stride=2, padding=1),
}


def serve(who: str, layer: Layer, xs: np.ndarray, weight: np.ndarray, seconds: float) -> tuple[float, list[Any]]:
    """Calls a second of all threads together, one for each of `xs`, and the last result of each."""
    barrier = Barrier(len(xs))

    def work(x: np.ndarray) -> tuple[float, float, int, Any]:
        call = WHOLE["forward"][who](layer, x, weight, x)
        with torch.inference_mode():  # of this thread alone
            call()
            barrier.wait()
            calls, start = 0, time.perf_counter()
            while time.perf_counter() < start + seconds:
                y = call()
                calls += 1
            return start, time.perf_counter(), calls, y

    with ThreadPoolExecutor(len(xs)) as pool:
        starts, ends, calls, ys = zip(*pool.map(work, xs), strict=True)
    return sum(calls) / (max(ends) - min(starts)), list(ys)


def row(case: str, threads: int, seconds: float, turns: int) -> Row:
    """Each thread has its own input, so that results that are mixed up are noticed."""
    layer = SERVED[case]
    rng = np.random.default_rng(0)
    shapes = (threads, 1, *layer.x), layer.weight
    xs, weight = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    doubles = xs[:, 0].astype(np.float64), weight.astype(np.float64)
    expected = np.asarray(WHOLE["forward"]["torch"](layer, *doubles, doubles[0])())[:, None]
    rates: dict[str, list[float]] = {OURS: [], "torch": []}
    errors: dict[str, list[float]] = {OURS: [], "torch": []}
    for _ in range(turns):
        for who in rates:
            time.sleep(2 * SPIN)
            rate, ys = serve(who, layer, xs, weight, seconds)
            rates[who].append(rate)
            errors[who] += [largest_error(y, one) for y, one in zip(ys, expected, strict=True)]
    by = {
        who: {
            "calls_per_s": round(statistics.median(rates[who]), 1),
            "most_per_s": round(max(rates[who]), 1),
            "error": float(np.max(errors[who])),
        }
        for who in rates
    }
    return {
        "case": case,
        "what": f"{threads} thread{'s' * (threads > 1)}",
        "threads": threads,
        "dtype": "float32",
        "by": by,
    }


def measure(seconds: float = 0.5, turns: int = 3, threads: Sequence[int] = THREADS) -> dict[str, list[Row]]:
    return {"server": [row(case, number, seconds, turns) for case in SERVED for number in threads]}
