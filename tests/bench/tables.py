"""The tables beside that of the layers: what is measured for each, quickly or in full, and how it is printed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import floors
import networks
import oddjobs
import server
import shapes
from contestants import OURS
from measure import Pace, Row
from report import coloured, empty
from rich.table import Table

Found = dict[str, list[Row]]


def measure(name: str, rivals: Collection[str], quick: bool) -> Found:
    calls: dict[str, Callable[[], Found]]
    if quick:
        calls = {
            "shapes": lambda: shapes.measure(count=8, lengths=(1000,), rounds=2),
            "networks": lambda: networks.measure(rivals, Pace(turns=1, seconds=0.02)),
            "server": lambda: server.measure(seconds=0.1, turns=1),
            "floors": lambda: floors.measure(Pace(turns=1, seconds=0.1)),
            "oddjobs": lambda: oddjobs.measure(Pace(turns=1, seconds=0.02), shrink=4),
        }
    else:
        calls = {
            "shapes": shapes.measure,
            "networks": lambda: networks.measure(rivals, Pace(turns=3, seconds=0.08)),
            "server": server.measure,
            "floors": lambda: floors.measure(Pace(turns=3, seconds=0.3)),
            "oddjobs": lambda: oddjobs.measure(Pace(turns=3, seconds=0.1)),
        }
    return calls[name]()


TABLES = ("shapes", "networks", "server", "floors", "oddjobs")


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def pairs(rows: list[Row]) -> Iterator[tuple[Row, str]]:
    """Each row once for each that is not ours."""
    return ((row, who) for row in rows for who in row["by"] if who != OURS)


def shapes_table(rows: list[Row]) -> Table:
    whos = list(rows[0]["by"])
    heads = [head for who in whos for head in (f"{who.removeprefix(OURS + ' ')}\nfirst", "\nsecond", "\nratio")]
    table = empty(
        "shapes never seen: ms of the first and the second call", *heads, f"torch / {OURS}\nfirst", "\nsecond"
    )
    for row in rows:
        cells = []
        for who in whos:
            first, second = (row["by"][who][f"{which}_ms"] for which in ("first", "second"))
            cells += [number(first), number(second), f"{first / second:.1f}"]
        for which in ("first_ms", "second_ms"):
            cells.append(coloured(row["by"]["torch"][which] / row["by"][OURS][which]))
        table.add_row(f"{row['case']}, {row['what']}", *cells)
    return table


def lengths_table(rows: list[Row]) -> Table:
    table = empty("many lengths in turn, each seen before: us a call", OURS, "torch", f"torch / {OURS}")
    for row in rows:
        ours, theirs = (row["by"][who]["median_us"] for who in (OURS, "torch"))
        table.add_row(row["case"], number(ours), number(theirs), coloured(theirs / ours))
    return table


def networks_table(rows: list[Row]) -> Table:
    heads = (f"{OURS}\nms", "other\nms", "", f"other / {OURS}\nof sums", "\nmean", "\nworst", "")
    table = empty("whole networks at batch 1, all convolutions", *heads)
    for row, who in pairs(rows):
        other = row["by"][who]
        ratios = [coloured(other[name]) for name in ("ratio", "mean_ratio", "worst_ratio")]
        both = number(row["by"][OURS]["ms"]), number(other["ms"])
        table.add_row(f"{row['case']}, {row['what']}", *both, who, *ratios, other["worst"])
    return table


def server_table(rows: list[Row]) -> Table:
    table = empty("threads at once: calls a second of all together", OURS, "torch", f"{OURS} / torch")
    for row in rows:
        ours, theirs = (row["by"][who]["calls_per_s"] for who in (OURS, "torch"))
        table.add_row(f"{row['case']}, {row['what']}", number(ours), number(theirs), coloured(ours / theirs))
    return table


def floors_table(rows: list[Row]) -> Table:
    table = empty(
        "large kernels, and a weight in another order: ms, beside what does them best",
        OURS,
        "other",
        "",
        f"other / {OURS}",
    )
    for row, who in pairs(rows):
        ours, theirs = (row["by"][name]["median_ms"] for name in (OURS, who))
        table.add_row(f"{row['case']}, {row['what']}", number(ours), number(theirs), who, coloured(theirs / ours))
    return table


def oddjobs_table(rows: list[Row]) -> Table:
    table = empty(
        "odd jobs: ms, and how many times as long ours may take", OURS, "other", "", f"{OURS} / other", "allowed"
    )
    for row, who in pairs(rows):
        ours, theirs = (row["by"][name]["fastest_ms"] for name in (OURS, who))
        ratio, allowed = ours / theirs, row["allowed"]
        style = "green" if ratio <= allowed else "red"
        cells = number(ours), number(theirs), who, f"[{style}]{ratio:.2g}[/]", f"{allowed:g}"
        table.add_row(f"{row['case']}, {row['what']}", *cells)
    return table


DRAWN: dict[str, Callable[[list[Row]], Table]] = {
    "shapes": shapes_table,
    "lengths": lengths_table,
    "network_sums": networks_table,
    "server": server_table,
    "floors": floors_table,
    "oddjobs": oddjobs_table,
}


def drawn(found: Found) -> Iterator[Table]:
    return (DRAWN[name](rows) for name, rows in found.items() if name in DRAWN)
