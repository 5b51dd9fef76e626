"""How fast xpconv is beside others, on layers of real networks: `python tests/bench/bench.py --help`.

Everything runs in one process, in turns, and the results are held against torch's in float64. A ratio is the other's
time over ours: above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import seed
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

import xpconv


@dataclass(frozen=True)
class Layer:
    x: tuple[int, ...]
    weight: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    @property
    def parameters(self) -> dict[str, int]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    @property
    def y(self) -> tuple[int, ...]:
        geometry = {name: value for name, value in self.parameters.items() if name != "groups"}
        return (self.x[0], self.weight[0], *xpconv.conv_output_size(self.x[2:], self.weight[2:], **geometry))

    @property
    def terms(self) -> tuple[int, int, int]:
        """How many products a number of y, dx and dweight sums at most."""
        (outputs, inputs, *kernel), (samples, _, *out) = self.weight, self.y
        return inputs * math.prod(kernel), outputs // self.groups * math.prod(kernel), samples * math.prod(out)


LAYERS = {
    "stem 7x7/2 @224": Layer((8, 3, 224, 224), (64, 3, 7, 7), stride=2, padding=3),  # ResNet, as the next six
    "3x3 @56": Layer((8, 64, 56, 56), (64, 64, 3, 3), padding=1),
    "3x3 @28": Layer((8, 128, 28, 28), (128, 128, 3, 3), padding=1),
    "3x3 @14": Layer((8, 256, 14, 14), (256, 256, 3, 3), padding=1),
    "3x3 @7": Layer((8, 512, 7, 7), (512, 512, 3, 3), padding=1),
    "3x3/2 @56": Layer((8, 128, 56, 56), (128, 128, 3, 3), stride=2, padding=1),
    "1x1 @56": Layer((8, 256, 56, 56), (64, 256, 1, 1)),
    "grouped 3x3 @56": Layer((8, 128, 56, 56), (128, 4, 3, 3), padding=1, groups=32),  # ResNeXt
    "depthwise 3x3 @56": Layer((8, 144, 56, 56), (144, 1, 3, 3), padding=1, groups=144),  # MobileNet
    "depthwise 7x7 @28": Layer((8, 192, 28, 28), (192, 1, 7, 7), padding=3, groups=192),  # ConvNeXt
    "patches 16x16/16": Layer((8, 3, 224, 224), (768, 3, 16, 16), stride=16),  # vision transformer
    "speech 3 dilated": Layer((8, 512, 300), (512, 512, 3), dilation=3),  # x-vectors
    "volume 3x3x3 @32": Layer((1, 32, 32, 32, 32), (32, 32, 3, 3, 3), padding=1),  # U-Net
    "tiny 2x2/2 @4": Layer((1, 3, 4, 4), (3, 3, 2, 2), stride=2),  # what a call costs by itself
}
PASSES = ("forward", "dx", "dweight")
DTYPES = ("float32", "float64")

# A contestant makes the calls of the three passes from a layer and its operands in NumPy; a call returns when its
# result is there.
Calls = tuple[Callable[[], Any], Callable[[], Any], Callable[[], Any]]


def ours(layer: Layer, x: np.ndarray, weight: np.ndarray, dy: np.ndarray) -> Calls:
    size, kernel, parameters = x.shape[2:], weight.shape[2:], layer.parameters
    return (
        lambda: xpconv.conv(x, weight, **parameters),
        lambda: xpconv.conv_input_grad(dy, weight, input_size=size, **parameters),
        lambda: xpconv.conv_weight_grad(dy, x, kernel_size=kernel, **parameters),
    )


def torchs(layer: Layer, *operands: np.ndarray) -> Calls:
    x, weight, dy = map(torch.from_numpy, operands)
    ndim = x.ndim - 2
    conv = getattr(torch.nn.functional, f"conv{ndim}d")
    lists = [[value] * ndim for value in (layer.stride, layer.padding, layer.dilation)]

    def backward(*mask: bool) -> tuple[torch.Tensor | None, ...]:
        return torch.ops.aten.convolution_backward(
            dy, x, weight, None, *lists, False, [0] * ndim, layer.groups, list(mask)
        )

    return (
        lambda: conv(x, weight, **layer.parameters),
        lambda: backward(True, False, False)[0],
        lambda: backward(False, True, False)[1],
    )


OURS = "xpconv"
CONTESTANTS: dict[str, Callable[..., Calls]] = {OURS: ours, "torch": torchs}


@dataclass(frozen=True)
class Pace:
    """How long to measure: each contestant has so many turns of so many seconds, or of one call where it is longer."""

    turns: int
    seconds: float

    def measure(self, calls: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
        """The milliseconds of each contestant's calls.

        The threads of one library spin for some 30 ms after its last product, and take the cores from the next
        library; threads that sleep take as long to wake. So a turn begins with a pause and two calls that do not count.
        """
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(self.turns):
            for name, call in calls.items():
                time.sleep(0.06)
                call()
                call()
                end = time.perf_counter() + self.seconds
                while (start := time.perf_counter()) < end:
                    call()
                    times[name].append(1e3 * (time.perf_counter() - start))
        return times


@dataclass(frozen=True)
class Measured:
    median_ms: float
    fastest_ms: float
    calls: int
    error: float  # the largest, beside the largest number expected


@dataclass(frozen=True)
class Result:
    layer: str
    dtype: str
    what: str
    tolerance: float
    by: dict[str, Measured]

    def ratio(self, rival: str) -> float:
        return self.by[rival].median_ms / self.by[OURS].median_ms


def bench(name: str, dtype: str, pace: Pace) -> list[Result]:
    """A layer's three passes."""
    layer = LAYERS[name]
    rng = np.random.default_rng(0)
    operands = [rng.standard_normal(shape).astype(dtype) for shape in (layer.x, layer.weight, layer.y)]
    references = torchs(layer, *(operand.astype(np.float64) for operand in operands))
    passes = zip(*(make(layer, *operands) for make in CONTESTANTS.values()), strict=True)
    results = []
    for what, terms, reference, functions in zip(PASSES, layer.terms, references, passes, strict=True):
        calls = dict(zip(CONTESTANTS, functions, strict=True))
        expected = np.asarray(reference())
        errors = {who: error(np.asarray(call()), expected) for who, call in calls.items()}
        times = pace.measure(calls)
        by = {who: Measured(statistics.median(ms), min(ms), len(ms), errors[who]) for who, ms in times.items()}
        results.append(Result(name, dtype, what, tolerance(dtype, terms), by))
    return results


def error(actual: np.ndarray, expected: np.ndarray) -> float:
    if actual.shape != expected.shape:
        return math.inf
    return float(np.max(np.abs(actual - expected)) / np.max(np.abs(expected)))


def tolerance(dtype: str, terms: int) -> float:
    """The terms of a sum are random, and so are its rounding errors: they grow as the root of the terms' number."""
    return 4 * float(np.finfo(dtype).eps) * math.sqrt(terms)


def against_loops(pace: Pace) -> Result:
    """A batch of images, forward and backward, beside the loops; they are slow, so theirs is the first image's time."""
    rng = np.random.default_rng(0)
    x, weight, bias, dy = (rng.standard_normal(s) for s in ((32, 3, 64, 64), (16, 3, 3, 3), (16,), (32, 16, 62, 62)))
    layer = seed.Conv(weight, bias)

    def loops() -> list[np.ndarray]:
        return [layer.forward(x[:1]), layer.backward(dy[:1]), layer.dweight, layer.dbias]

    def ours(images: int) -> list[np.ndarray]:
        return [xpconv.conv(x[:images], weight, bias), *xpconv.conv_backward(dy[:images], x[:images], weight)]

    apart = max(error(actual, expected) for actual, expected in zip(ours(1), loops(), strict=True))
    times = pace.measure({OURS: lambda: ours(len(x)), "loops": loops})
    times["loops"] = [ms * len(x) for ms in times["loops"]]
    by = {who: Measured(statistics.median(ms), min(ms), len(ms), apart) for who, ms in times.items()}
    return Result("loops", "float64", "forward and backward", tolerance("float64", dy[0, 0].size), by)


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "xpconv": xpconv.__version__,
        "numpy": f"{np.__version__} with {blas['name']} {blas['version']}",
        "torch": f"{torch.__version__} with {torch.get_num_threads()} threads",
    }


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def table(results: list[Result], rival: str) -> Table:
    """The rival's times over ours: a row for each layer, a column for each dtype and pass."""
    drawn = Table(title=f"{rival}'s time / {OURS}'s time", box=SIMPLE_HEAD, pad_edge=False)
    drawn.add_column(no_wrap=True)
    columns = [(dtype, what) for dtype in DTYPES for what in PASSES]
    for dtype, what in columns:
        drawn.add_column(f"{dtype}\n{what}", justify="right")
    ratios = {(result.layer, result.dtype, result.what): result.ratio(rival) for result in results}
    layers = list(dict.fromkeys(result.layer for result in results))
    for layer in layers:
        row = [ratios[layer, *column] for column in columns]
        drawn.add_row(layer, *(f"[{'green' if ratio >= 1 else 'red'}]{ratio:.2f}" for ratio in row))
    drawn.add_section()
    means = [geometric_mean([ratios[layer, *column] for layer in layers]) for column in columns]
    drawn.add_row("geometric mean", *(f"{mean:.2f}" for mean in means))
    return drawn


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short turn each: about a minute, and more noise")
    parser.add_argument("--layer", choices=LAYERS, metavar="NAME", help=f"only this one of {', '.join(LAYERS)}")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write down all that was measured")
    arguments = parser.parse_args()
    pace = Pace(turns=1, seconds=0.03) if arguments.quick else Pace(turns=5, seconds=0.1)
    console, facts = Console(highlight=False, soft_wrap=True), machine()
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()))
    if (facts["load"] or 0) > 0.5:
        console.print("Others are computing here: a stalled thread distorts a ratio up to a hundredfold. Better wait.")

    names = [arguments.layer] if arguments.layer else list(LAYERS)
    cells = [(name, dtype) for name in names for dtype in DTYPES]
    results: list[Result] = []
    for name, dtype in track(cells, "measuring", console=console, transient=True):
        results += bench(name, dtype, pace)
    for rival in [who for who in CONTESTANTS if who != OURS]:
        worst = min(results, key=lambda result: result.ratio(rival))
        mean = geometric_mean([result.ratio(rival) for result in results])
        console.print(table(results, rival))
        console.print(f"geometric mean of all: {mean:.2f}")
        console.print(f"worst: {worst.ratio(rival):.2f}, {worst.layer}, {worst.dtype}, {worst.what}")

    if not arguments.layer:
        loops = against_loops(pace)
        theirs, ours = loops.by["loops"].median_ms / 1e3, loops.by[OURS].median_ms
        console.print(
            "the seed's loops, 32 RGB images of 64x64, 16 filters of 3x3, forward and backward: "
            f"{theirs / 32:.2f} s for the first image, {theirs:.0f} s for 32 of them; "
            f"{OURS}: {ours:.1f} ms for all 32, {loops.ratio('loops'):.0f} times as fast"
        )
        results.append(loops)
    wrong = [(r, who) for r in results for who, by in r.by.items() if not by.error <= r.tolerance]
    for result, who in wrong:
        console.print(f"{who} is WRONG: {result.layer}, {result.dtype}, {result.what}: {result.by[who].error:.1e}")
    if arguments.json:
        data = {"machine": facts, "results": [asdict(result) for result in results]}
        arguments.json.write_text(json.dumps(data, indent=1) + "\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
