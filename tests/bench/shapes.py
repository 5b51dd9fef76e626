"""Shapes that were never seen: the first call of each beside its second, and many lengths in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
from contestants import OURS, WHOLE
from layers import Layer, dense, depthwise
from measure import SPIN, Row, largest_error, milliseconds

import xpconv

LOWERING = f"{OURS} lowering"
WHOS = (OURS, LOWERING, "torch")
FAMILIES: dict[str, Callable[[int], Layer]] = {
    "3x3 16 to 16": lambda width: dense((16, 12, width), (16, 16, 3, 3), padding=1),
    "5 taps 32 to 32": lambda length: dense((32, length), (32, 32, 5), padding=2),
    "3x3 depthwise 48": lambda width: depthwise((48, 12, width), (3, 3), padding=1),
    "3x3/2 24 to 48": lambda width: dense((24, 12, width), (48, 24, 3, 3), stride=2, padding=1),
}
SMALLEST = 40  # of the widths
RUN = 10  # widths between two pauses


def reference(what: str, layer: Layer, *operands: np.ndarray) -> Any:
    return WHOLE[what]["torch"](layer, *operands)()


class Call:
    """A pass at one width; the other passes and methods have other widths, or these would not be new to them."""

    def __init__(self, who: str, what: str, layer: Layer, weight: np.ndarray) -> None:
        rng = np.random.default_rng(layer.x[-1])
        x = rng.standard_normal((1, *layer.x), dtype=np.float32)
        doubles = x.astype(np.float64), weight.astype(np.float64)
        y: Any = reference("forward", layer, *doubles, doubles[0])
        dy = rng.standard_normal(y.shape, dtype=np.float32)
        self.expected = y if what == "forward" else reference(what, layer, *doubles, dy.astype(np.float64))
        self.call = WHOLE[what][OURS if who == LOWERING else who](layer, x, weight, dy)

    def times(self) -> tuple[float, float]:
        """The milliseconds of the first call, whose result is kept, and of the second."""
        start = time.perf_counter()
        self.first = self.call()
        return 1e3 * (time.perf_counter() - start), milliseconds(self.call)


def first_and_second(family: str, what: str, count: int) -> Row:
    """Of `count` new widths each; torch has the widths that ours have."""
    make, step = FAMILIES[family], 4  # two passes, two methods
    weight = np.random.default_rng(0).standard_normal(make(SMALLEST).weight, dtype=np.float32)
    offset = {who: 2 * (what == "backward") + (who == LOWERING) for who in WHOS}
    times: dict[str, list[tuple[float, float]]] = {who: [] for who in WHOS}
    errors: dict[str, list[float]] = {who: [] for who in WHOS}
    for start in range(0, count, RUN):
        for who in WHOS:
            numbers = range(start, min(count, start + RUN))
            widths = [SMALLEST + step * (number + 1) + offset[who] for number in numbers]
            known = Call(who, what, make(SMALLEST), weight)
            new = [Call(who, what, make(width), weight) for width in widths]
            time.sleep(2 * SPIN)
            with xpconv.options(method="lowering") if who == LOWERING else nullcontext():
                for _ in range(3):
                    known.call()
                times[who] += [one.times() for one in new]
            errors[who] += [largest_error(one.first, one.expected) for one in new]
    by = {}
    for who in WHOS:
        first, second = zip(*times[who], strict=True)
        by[who] = {
            "first_ms": round(statistics.median(first), 5),
            "first_fastest_ms": round(min(first), 5),
            "second_ms": round(statistics.median(second), 5),
            "second_fastest_ms": round(min(second), 5),
            "error": float(np.max(errors[who])),
        }
    return {"case": family, "what": what, "dtype": "float32", "shapes": count, "by": by}


def visited(calls: list[Callable[[], Any]]) -> None:
    for call in calls:
        call()


def in_turn(count: int, rounds: int) -> Row:
    """So many lengths, from 64 to some 5,000, visited one after another, and again."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 4, 3), dtype=np.float32)
    memory = rng.standard_normal(4 * 5063, dtype=np.float32)
    xs = [memory[: 4 * length].reshape(1, 4, length) for length in np.linspace(64, 5063, count).astype(int)]
    layers = [dense(x.shape[1:], weight.shape, padding=1) for x in xs]
    some = slice(0, None, max(1, count // 20))
    doubles = [(x.astype(np.float64), weight.astype(np.float64)) for x in xs[some]]
    expected = [reference("forward", layer, *pair, pair[0]) for layer, pair in zip(layers[some], doubles, strict=True)]
    by = {}
    for who in (OURS, "torch"):
        calls = [WHOLE["forward"][who](layer, x, weight, x) for layer, x in zip(layers, xs, strict=True)]
        time.sleep(2 * SPIN)
        us = [1e3 * milliseconds(lambda calls=calls: visited(calls)) / count for _ in range(rounds)]
        errors = [largest_error(call(), y) for call, y in zip(calls[some], expected, strict=True)]
        by[who] = {
            "first_us": round(us[0], 3),
            "median_us": round(statistics.median(us[1:]), 3),
            "fastest_us": round(min(us[1:]), 3),
            "error": float(np.max(errors)),
        }
    return {"case": f"{count:,} lengths in turn", "what": "forward", "dtype": "float32", "shapes": count, "by": by}


def measure(count: int = 40, lengths: tuple[int, ...] = (1000, 1500, 5000), rounds: int = 4) -> dict[str, list[Row]]:
    return {
        "shapes": [first_and_second(family, what, count) for family in FAMILIES for what in WHOLE],
        "lengths": [in_turn(length, rounds) for length in lengths],
    }
