"""What `choose` reckons with, measured anew: `python tests/bench/fit.py` rewrites xpconv/_algorithms/costs.py.

Each algorithm fills each slot of the benchmark's layers and of some of other sizes, alone on this machine; the prices
are those of least squared relative error that are not negative. `--library cupy` measures on a GPU, by its events,
and rewrites the table in gpu_costs.py.
"""

from __future__ import annotations

import argparse
import ast
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import array_api_compat
import numpy as np
from device import Device
from layers import LAYERS, Layer, dense, depthwise, grouped
from measure import machine
from rich.progress import track
from scipy.optimize import nnls

from xpconv._algorithms import contractions, costs, gpu_costs
from xpconv._algorithms.choose import Wanted, bases, op_counts
from xpconv._algorithms.plan import Limits, plan
from xpconv._algorithms.weight import Weight
from xpconv._arrays.direct import has_kernels
from xpconv._arrays.doors import (
    block_bytes,
    can_check_finite,
    makes_together,
    multiplies_in_place,
    on_gpu,
    workspace_bytes,
)
from xpconv._spec.geometry import parse

MOST_WASTE = 2.0  # of products that are not wanted: more, and nobody would choose it
# What calls and threads cost shows in these.
SMALL = (
    dense((16, 32, 32), (16, 16, 3, 3), 1, padding=1),
    dense((64, 14, 14), (64, 64, 3, 3), 1, padding=1),
    dense((24, 28, 28), (144, 24, 1, 1), 1),
    dense((160, 7, 7), (40, 160, 1, 1), 1),
    dense((32, 28, 28), (64, 32, 3, 3), 1, stride=2, padding=1),
    dense((3, 112, 112), (16, 3, 3, 3), 1, stride=2, padding=1),
    dense((8, 400), (16, 8, 5), 1, padding=2),
    depthwise((96, 14, 14), (3, 3), 1, padding=1),
    grouped((64, 28, 28), (64, 4, 3, 3), 1, padding=1),
)
HOMES = {"numpy": (Path(costs.__file__), "COSTS"), "cupy": (Path(gpu_costs.__file__), "GPU_COSTS")}
Row = tuple[str, str, int, list[float], float]
Prices = dict[int, dict[tuple[str, str], list[float]]]


def seconds(call: Callable[[], Any]) -> float:
    """The fastest of some calls: what others do on the machine only adds to it."""
    times = []
    while len(times) < 2 or (len(times) < 6 and sum(times) < 0.15):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times[1:])


class Place(NamedTuple):
    """Where it is measured, and how much."""

    xp: Any
    array: Callable[[np.ndarray], Any]
    seconds: Callable[[Callable[[], Any]], float]
    named: str
    batches: tuple[int, ...] = ()  # instead of a layer's first two
    most: float = 4e9  # multiplications
    most_inputs: int = 16  # in a group, of the direct algorithm by rows: nobody would choose it for more


def place_of(library: str, standin: bool) -> Place:
    facts = machine()
    if library == "numpy":
        return Place(np, np.asarray, seconds, f"{facts['cpu']}, {facts['cores']} cores, NumPy {facts['numpy']}")
    device = Device(standin)
    xp, named = array_api_compat.array_namespace(device.cupy.empty(0)), f"{device.name}, CuPy {device.cupy.__version__}"
    return Place(xp, device.cupy.asarray, device.seconds, named, (8, 64), 4e11, 2**30)


def rows(layer: Layer, batch: int, dtype: str, only: str | None, place: Place) -> list[Row]:
    rng, xp = np.random.default_rng(0), place.xp
    x_shape = (batch, *layer.x)
    geometry = parse(x_shape, layer.weight, layer.stride, layer.padding, layer.dilation, layer.groups)
    x, w, dy = (
        place.array(rng.standard_normal(shape, dtype=np.float32).astype(dtype))
        for shape in (x_shape, layer.weight, geometry.y_shape)
    )
    size, workspace = x.dtype.itemsize, workspace_bytes(x)
    limits = Limits(
        size,
        workspace,
        block_bytes(x, workspace),
        in_place=multiplies_in_place(x),
        threaded=makes_together(x),
        check_finite=can_check_finite(x),
    )
    wanted = Wanted(limits, gpu=on_gpu(x), kernels=has_kernels(x))
    found: list[Row] = []
    target = contractions.Target(x.dtype)
    for slot in "yxw":
        for basis in bases(geometry, slot, wanted):
            long = basis.name in ("direct", "rows") and geometry.inputs > place.most_inputs
            if (only and basis.name != only) or long or basis.footprint(geometry).waste > MOST_WASTE:
                continue
            planned = plan(geometry, slot, basis, limits)
            calls = {
                "y": lambda p=planned: contractions.forward(p, x, Weight(w), None, target, xp=xp),
                "x": lambda p=planned: contractions.input_grad(p, dy, Weight(w), None, target, xp=xp),
                "w": lambda p=planned: contractions.weight_grad(p, dy, x, xp=xp),
            }
            amounts = [float(amount) for amount in op_counts(planned)]
            if amounts[1] > 1.25 * place.most:  # seconds: nobody would choose that
                continue
            found.append((basis.name, slot, size, amounts, place.seconds(calls[slot])))
    return found


def fitted(measured: list[Row]) -> Prices:
    prices: Prices = {}
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


def with_table(source: str, name: str, comment: list[str], prices: Prices) -> str:
    """The source with another table of that name, and another comment above it."""
    lines = source.splitlines()
    (node,) = (node for node in ast.parse(source).body if tables_in(node) == [name])
    first = node.lineno - 1
    while lines[first - 1].startswith("#"):
        first -= 1
    table = [*(f"# {line}" for line in comment), f"{name} = {{"]
    for size, of_size in prices.items():
        table.append(f"    {size}: {{")
        table += [f'        ("{key}", "{slot}"): ({", ".join(map(str, row))}),' for (key, slot), row in of_size.items()]
        table.append("    },")
    return "\n".join([*lines[:first], *table, "}", *lines[node.end_lineno :], ""])


def tables_in(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", choices=HOMES, default="numpy", help="whose prices (numpy)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write down the measurements, or read them if there")
    parser.add_argument("--only", metavar="NAME", help="measure this algorithm anew, and take the rest from the file")
    arguments = parser.parse_args()
    path, only, library = arguments.json, arguments.only, arguments.library
    home, table = HOMES[library]
    place = place_of(library, standin=False)
    measured = [(*row,) for row in json.loads(path.read_text())] if path and path.exists() else []
    if only or not measured:
        cases = [
            (layer, batch, dtype)
            for layer in (*LAYERS.values(), *SMALL)
            for batch in place.batches or layer.batches[:2]
            for dtype in ("float32", "float64")
            if layer.multiplications(batch) < place.most
        ]
        measured = [row for row in measured if row[0] != only]
        measured += [row for case in track(cases, "measuring") for row in rows(*case, only, place)]
        if path:
            path.write_text(json.dumps(measured))
    comment = [
        f"{place.named}.",
        "For numbers of 4 bytes and of 8: each algorithm and slot, and the price of a part, of a multiplication, of",
        "a number of X, of Y and of W.",
    ]
    home.write_text(with_table(home.read_text(), table, comment, fitted(measured)))


if __name__ == "__main__":
    main()
