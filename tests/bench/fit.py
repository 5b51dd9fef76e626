"""What `choose` reckons with, measured anew: `python tests/bench/fit.py` rewrites xpconv/_algorithms/costs.py.

Each algorithm fills each slot of the benchmark's layers and of some of other sizes, alone on this machine; the prices
are those of least squared relative error that are not negative.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from layers import LAYERS, Layer
from measure import machine
from rich.progress import track
from scipy.optimize import nnls

from xpconv._algorithms import contractions, costs
from xpconv._algorithms.choose import Wanted, bases, op_counts
from xpconv._algorithms.plan import Limits, plan
from xpconv._algorithms.weight import Weight
from xpconv._spec.geometry import parse

TARGET = Path(costs.__file__)
WORKSPACE, BLOCK = 2**26, 2**23
Row = tuple[str, str, int, list[float], float]


def seconds(call: Callable[[], Any]) -> float:
    """The fastest of some calls: what others do on the machine only adds to it."""
    times = []
    while len(times) < 2 or (len(times) < 6 and sum(times) < 0.15):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def rows(layer: Layer, batch: int, dtype: str, only: str | None) -> list[Row]:
    rng = np.random.default_rng(0)
    x_shape = (batch, *layer.x)
    geometry = parse(x_shape, layer.weight, layer.stride, layer.padding, layer.dilation, layer.groups)
    x, w, dy = (
        rng.standard_normal(shape, dtype=np.float32).astype(dtype)
        for shape in (x_shape, layer.weight, geometry.y_shape)
    )
    size = np.dtype(dtype).itemsize
    limits = Limits(size, WORKSPACE, BLOCK, in_place=True)
    wanted = Wanted(limits, True, True, True, "auto", "auto")
    found: list[Row] = []
    target = contractions.Target(x.dtype)
    for slot in "yxw":
        for basis in bases(geometry, slot, wanted):
            if only and basis.name != only:
                continue
            planned = plan(geometry, slot, basis, limits)
            calls = {
                "y": lambda p=planned: contractions.forward(p, x, Weight(w), None, target, xp=np),
                "x": lambda p=planned: contractions.input_grad(p, dy, Weight(w), None, target, xp=np),
                "w": lambda p=planned: contractions.weight_grad(p, dy, x, xp=np),
            }
            amounts = [float(amount) for amount in op_counts(planned)]
            if amounts[1] > 5e9:  # seconds: nobody would choose that
                continue
            found.append((basis.name, slot, size, amounts, seconds(calls[slot])))
    return found


def fitted(measured: list[Row]) -> dict[int, dict[tuple[str, str], list[float]]]:
    prices: dict[int, dict[tuple[str, str], list[float]]] = {}
    for size in sorted({row[2] for row in measured}):
        prices[size] = {}
        for key in dict.fromkeys((name, slot) for name, slot, *_ in measured):
            chosen = [row for row in measured if row[:3] == (*key, size)]
            amounts, times = np.asarray([row[3] for row in chosen]), np.asarray([row[4] for row in chosen])
            solution, _ = nnls(amounts / times[:, None], np.ones(len(times)))
            prices[size][key] = [float(f"{price:.3g}") for price in solution]
            off = np.exp(np.std(np.log(amounts @ solution / times)))
            print(f"{size} bytes, {key}: {len(times)} measurements, off by a factor of {off:.2f}")
    return prices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write down the measurements, or read them if there")
    parser.add_argument("--only", metavar="NAME", help="measure this algorithm anew, and take the rest from the file")
    arguments = parser.parse_args()
    path, only = arguments.json, arguments.only
    measured = [(*row,) for row in json.loads(path.read_text())] if path and path.exists() else []
    if only or not measured:
        cases = [
            (layer, batch, dtype)
            for layer in LAYERS.values()
            for batch in layer.batches[:2]
            for dtype in ("float32", "float64")
            if layer.multiplications(batch) < 4e9
        ]
        measured = [row for row in measured if row[0] != only]
        measured += [row for case in track(cases, "measuring") for row in rows(*case, only)]
        if path:
            path.write_text(json.dumps(measured))
    facts = machine()
    lines = [
        '"""The prices of `choose` in seconds, made by `python tests/bench/fit.py`: not to be edited by hand.',
        "",
        f"{facts['cpu']}, {facts['cores']} cores, NumPy {facts['numpy']}.",
        '"""',
        "",
        '__all__ = ["COSTS"]',
        "",
        "# For numbers of 4 bytes and of 8: each algorithm and slot, and the price of a part, of a multiplication, of",
        "# a number of X, of Y and of W.",
        "COSTS = {",
    ]
    for size, table in fitted(measured).items():
        lines += [
            f"    {size}: {{",
            *(f'        ("{name}", "{slot}"): ({", ".join(map(str, row))}),' for (name, slot), row in table.items()),
            "    },",
        ]
    TARGET.write_text("\n".join([*lines, "}", ""]))


if __name__ == "__main__":
    main()
