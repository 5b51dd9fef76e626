"""What `gpu.py` has measured, in Markdown: it prints this, and the documentation's page shows it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

OURS = "xpconv"
DIRECTIONS = {"forward": ("forward",), "backward": ("dx", "dweight")}
MIB = 2**20
NOTHING = "**Nothing has been measured on a GPU yet.**"
MEANINGLESS = (
    "**These times mean nothing: they are those of CuPy's stand-in and of torch, on a CPU.** Launches are counted as "
    "on a GPU."
)
Row = dict[str, Any]


def geometric_mean(values: Iterable[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def ratio(row: Row) -> float:
    """The other's time over ours: above 1, ours is faster."""
    return row["by"]["torch"]["median_ms"] / row["by"][OURS]["median_ms"]


def by_floor(row: Row, who: str) -> float:
    return row["by"][who]["median_ms"] / row["floor_ms"]


def number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Padded, so that it can be read where it is printed too."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["| " + " | ".join(f"{cell:{w}}" for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([padded[0], rule, *padded[1:]])


def where(data: dict[str, Any]) -> str:
    facts, peak = data["machine"], data["peak"]
    flops = ", ".join(f"{rate / 1e12:.3g} in {dtype}" for dtype, rate in peak["flops"].items())
    found = ", ".join(f"{rate:.3g} in {dtype}" for dtype, rate in data["gemm"].items())
    own = f"the data sheet of an {peak['device']}" + ("" if peak["known"] else ", since this device's is not known")
    finite = " under options(finite=True)" if data["finite"] else ""
    text = (
        f"Measured on {facts['date']}. Device: {facts['device']}. CuPy {facts['cupy']}, torch {facts['torch']} with "
        f"cuDNN {facts['cudnn']}, xpconv {facts['xpconv']}{finite}, Python {facts['python']}. The floors are by {own}: "
        f"{peak['bytes'] / 1e12:.3g} TB/s, and TFLOP/s of {flops}. Measured here: {data['copy']:.3g} TB/s for a copy, "
        f"and for CuPy's product of two matrices TFLOP/s of {found}."
    )
    return f"{MEANINGLESS}\n\n{text}" if facts["standin"] else text


def compared(rows: list[Row]) -> list[Row]:
    return [row for row in rows if {OURS, "torch"} <= {*row["by"]}]


def verdict(rows: list[Row]) -> str:
    texts = []
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        own = [row for row in rows if row["dtype"] == dtype]
        won = sum(ratio(row) >= 1 for row in own)
        floors = " and ".join(f"{geometric_mean(by_floor(row, who) for row in own):.3g}" for who in (OURS, "torch"))
        last = min(own, key=ratio)
        texts.append(
            f"- {dtype}: xpconv is the faster one in {won} of {len(own)} comparisons; the geometric mean of the ratios "
            f"is {geometric_mean(map(ratio, own)):.3g}, the worst {ratio(last):.3g} ({last['case']}, {last['what']}). "
            f"xpconv and torch take {floors} times the floor."
        )
    return "\n".join(texts)


def means(rows: list[Row]) -> str:
    dtypes, kinds = (list(dict.fromkeys(row[name] for row in rows)) for name in ("dtype", "kind"))
    lines = []
    for kind in (*kinds, None):
        cells = [
            [ratio(r) for r in rows if kind in (None, r["kind"]) and r["dtype"] == dtype and r["what"] in passes]
            for dtype in dtypes
            for passes in DIRECTIONS.values()
        ]
        lines.append([kind or "all", *(number(geometric_mean(cell)) if cell else "" for cell in cells)])
    return table(["ratio", *(f"{dtype} {direction}" for dtype in dtypes for direction in DIRECTIONS)], lines)


def errors(data: dict[str, Any]) -> str:
    """The largest of each, and what is allowed of ours."""
    lines = []
    for dtype in dict.fromkeys(row["dtype"] for row in data["rows"]):
        found = [row["by"] for row in data["rows"] if row["dtype"] == dtype]
        known = [[by[who]["error"] for by in found if who in by] for who in (OURS, "torch")]
        largest = [max((one for one in errors if one is not None), key=nan_last, default=None) for errors in known]
        cells = ["" if error is None else f"{error:.1e}" for error in (*largest, data["allowed"][dtype])]
        lines.append([dtype, *cells])
    return table(["largest error", OURS, "torch", "allowed for xpconv"], lines)


def nan_last(error: float) -> float:
    """A key by which no number hides it."""
    return math.inf if math.isnan(error) else error


def every(rows: list[Row], dtype: str) -> str:
    lines = []
    for row in rows:
        if row["dtype"] == dtype:
            each = [row["by"].get(who, {}) for who in (OURS, "torch")]
            times = [number(one.get(name)) for one in each for name in ("median_ms", "fastest_ms", "host_ms")]
            whole = {OURS, "torch"} <= {*row["by"]}
            beside = [number(ratio(row)) if whole else "", number(row["floor_ms"]), row["bound"]]
            launches = [number(one.get("launches")) for one in each]
            extra = [one.get("extra_bytes") for one in each]
            memory = [number(None if size is None else size / MIB) for size in extra]
            lines.append([row["case"], row["what"], *times, *beside, *launches, *memory])
    ours = [f"{OURS} ms", "fastest", "host"]
    beside = ["ratio", "floor ms", "by", "launches", "torch's", "MiB", "torch's"]
    return table([dtype, "", *ours, "torch ms", "fastest", "host", *beside], lines)


def machines(folder: str | Path) -> Iterator[dict[str, Any]]:
    return (json.loads(path.read_text()) for path in sorted(Path(folder).glob("gpu-*.json")))


def summary(data: dict[str, Any]) -> str:
    rows = compared(data["rows"])
    made = [verdict(rows), means(rows)] if rows else []
    return "\n\n".join([where(data), *made, errors(data)])


def details(data: dict[str, Any]) -> str:
    return "\n\n".join(every(data["rows"], dtype) for dtype in dict.fromkeys(row["dtype"] for row in data["rows"]))


def page(folder: str | Path) -> str:
    """A summary of each GPU whose data are there."""
    return "\n\n".join(map(summary, machines(folder))) or NOTHING


def tables(folder: str | Path) -> str:
    """Every time of each GPU whose data are there."""
    return "\n\n".join(f"{data['machine']['device']}:\n\n{details(data)}" for data in machines(folder)) or NOTHING
