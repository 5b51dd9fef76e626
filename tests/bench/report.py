"""What the benchmark prints of its results: tables, means, the worst layers, errors and memory."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable

from contestants import OURS, PASSES
from layers import KINDS
from measure import ALLOWED, DTYPES, Result
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

DIRECTIONS = {"forward": ("forward",), "backward": ("dx", "dweight")}
MIB = 2**20


def geometric_mean(values: Iterable[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def coloured(ratio: float | None) -> str:
    return "" if ratio is None else f"[{'green' if ratio >= 1 else 'red'}]{ratio:.2f}"


def empty(title: str, *columns: str) -> Table:
    drawn = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    drawn.add_column(no_wrap=True)
    for column in columns:
        drawn.add_column(column, justify="right", no_wrap=True)
    return drawn


def ratios(results: list[Result], rival: str) -> Table:
    """A row for each layer and batch, a column for each dtype and pass."""
    columns = [(dtype, what) for dtype in DTYPES for what in PASSES]
    drawn = empty(f"{rival}'s time / {OURS}'s time", *(f"{dtype}\n{what}" for dtype, what in columns))
    known = {(r.layer, r.batch, r.dtype, r.what): r.ratio(rival) for r in results}
    for layer, batch in dict.fromkeys((r.layer, r.batch) for r in results):
        cells = (coloured(known.get((layer, batch, *column))) for column in columns)
        drawn.add_row(f"{layer}, batch {batch}", *cells)
    return drawn


def means(results: list[Result], rival: str) -> Table:
    """Geometric means: a row for each kind, a column for each dtype and direction."""
    columns = [(dtype, direction) for dtype in DTYPES for direction in DIRECTIONS]
    drawn = empty(f"geometric means, {rival}'s time / {OURS}'s", *(f"{dtype}\n{what}" for dtype, what in columns))
    for kinds, title in (*(((kind,), kind) for kind in KINDS), (KINDS, "all")):
        chosen = [[r for r in results if r.kind in kinds and within(r, *column)] for column in columns]
        if any(chosen):
            cells = (coloured(geometric_mean(r.ratio(rival) for r in cell) if cell else None) for cell in chosen)
            drawn.add_row(title, *cells)
    return drawn


def within(result: Result, dtype: str, direction: str) -> bool:
    return result.dtype == dtype and result.what in DIRECTIONS[direction]


def worst(results: list[Result], rival: str) -> Table | None:
    groups = {"dense": ("dense",), "depthwise or grouped": ("depthwise", "grouped", "large")}
    drawn = empty(f"worst, {rival}'s time / {OURS}'s", "ratio", "layer")
    drawn.columns[-1].justify = "left"
    for name, kinds in groups.items():
        for dtype in DTYPES:
            for direction in DIRECTIONS:
                among = [r for r in results if r.kind in kinds and within(r, dtype, direction)]
                if among:
                    last = min(among, key=lambda r: r.ratio(rival))
                    where = f"{last.layer}, batch {last.batch}, {last.what}"
                    drawn.add_row(f"{name}, {dtype} {direction}", coloured(last.ratio(rival)), where)
    return drawn if drawn.row_count else None


def shares(results: list[Result], gemm: dict[str, float]) -> Table:
    """How near each forward pass comes to the machine's products of matrices: batch 8, or else the largest."""
    whos = [who for who in (OURS, "torch") if all(who in r.by for r in results)]
    columns = [(dtype, who) for dtype in DTYPES for who in whos]
    drawn = empty("share of the GEMM rate, forward", *(f"{dtype}\n{who}" for dtype, who in columns))
    forward = {(r.layer, r.batch, r.dtype): r for r in results if r.what == "forward" and r.kind != "tiny"}
    for layer in dict.fromkeys(layer for layer, *_ in forward):
        batches = [batch for other, batch, _ in forward if other == layer]
        batch = 8 if 8 in batches else max(batches)
        cells = (forward[layer, batch, dtype].gflops(who) / gemm[dtype] for dtype, who in columns)
        drawn.add_row(f"{layer}, batch {batch}", *(f"{share:.0%}" for share in cells))
    return drawn


def errors(results: list[Result]) -> Table:
    drawn = empty("largest errors, beside the largest number of the result", *DTYPES, *(f"{d} in" for d in DTYPES))
    for who in dict.fromkeys(who for r in results for who in r.by):
        known = [r for r in results if who in r.by and r.by[who].error is not None]
        each = [max((r for r in known if r.dtype == dtype), key=error_of(who), default=None) for dtype in DTYPES]
        cells = ("" if r is None else f"{r.by[who].error:.1e}" for r in each)
        places = ("" if r is None else f"{r.layer}, {r.what}" for r in each)
        drawn.add_row(who, *cells, *places)
    return drawn


def error_of(who: str) -> Callable[[Result], float]:
    return lambda result: result.by[who].error


def wrong(results: list[Result]) -> list[Result]:
    return [r for r in results if not r.by[OURS].error <= ALLOWED[r.dtype]]


def report(console: Console, results: list[Result], rivals: list[str], gemm: dict[str, float]) -> None:
    for rival in rivals:
        known = [r for r in results if rival in r.by]
        if known:
            console.print(ratios(known, rival))
    for rival in rivals:
        known = [r for r in results if rival in r.by]
        if known:
            console.print(means(known, rival))
            if last := worst(known, rival):
                console.print(last)
    console.print("GEMM rates: " + ", ".join(f"{dtype} {rate:.0f} GFLOP/s" for dtype, rate in gemm.items()))
    if any(r.kind != "tiny" for r in results):
        console.print(shares(results, gemm))
    console.print(errors(results))
    largest = max(results, key=lambda r: r.extra_bytes)
    console.print(
        f"largest memory of {OURS} beside inputs and outputs: {largest.extra_bytes / MIB:.1f} MiB, "
        f"{'within' if largest.extra_bytes <= 64 * MIB else 'ABOVE'} 64 MiB: "
        f"{largest.layer}, batch {largest.batch}, {largest.dtype}, {largest.what}"
    )
    for r in wrong(results):
        where = f"{r.layer}, batch {r.batch}, {r.dtype}, {r.what}"
        console.print(f"{OURS} is WRONG: {where}: {r.by[OURS].error:.1e}, allowed {ALLOWED[r.dtype]:.0e}")
