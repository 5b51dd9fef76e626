"""The page's further tables, and a summary of each machine; what a file does not hold was not measured yet."""

from pathlib import Path

from figures import DIRECTIONS, DTYPES, OURS, Benchmark, code, geometric_mean, shown, table
from IPython.display import Markdown, display

MISSING = "*Not measured yet.*"


def number(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def times_ours(row, who, name):
    """How many times as long the other takes."""
    return row["by"][who][name] / row["by"][OURS][name]


def or_missing(make):
    """A table where there are rows for it."""
    return lambda benchmark: make(rows) if (rows := benchmark.data.get(make.__name__)) else Markdown(MISSING)


@or_missing
def shapes(rows):
    whos = list(rows[0]["by"])
    heads = [f"{who}, {which}" for who in whos for which in ("first", "second", "first / second")]
    lines = []
    for row in rows:
        cells = []
        for who in whos:
            first, second = row["by"][who]["first_ms"], row["by"][who]["second_ms"]
            cells += [number(first), number(second), f"{first / second:.1f}"]
        ratios = [shown(times_ours(row, "torch", which)) for which in ("first_ms", "second_ms")]
        lines.append([f"{row['case']}, {row['what']}", *cells, *ratios])
    return table(["ms", *heads, "ratio, first", "ratio, second"], lines)


@or_missing
def lengths(rows):
    lines = []
    for row in rows:
        us = [number(row["by"][who]["median_us"]) for who in (OURS, "torch")]
        lines.append([row["case"], *us, shown(times_ours(row, "torch", "median_us"))])
    return table(["µs a call", OURS, "torch", "ratio"], lines)


@or_missing
def network_sums(rows):
    lines = []
    for row in rows:
        for who, other in row["by"].items():
            if who != OURS:
                ratios = [shown(other[name]) for name in ("ratio", "mean_ratio", "worst_ratio")]
                both = number(row["by"][OURS]["ms"]), number(other["ms"])
                lines.append([f"{row['case']}, {row['what']}", who, *both, *ratios, other["worst"]])
    heads = ["", "rival", f"{OURS}, ms", "rival, ms", "ratio of the sums", "mean ratio", "worst ratio", "of"]
    return table(heads, lines)


@or_missing
def networks(rows):
    """Each convolution: its ratios, forward and backward."""
    rivals = [who for who in rows[0]["by"] if who != OURS]
    heads = [f"{who} {what}" for who in rivals for what in DIRECTIONS]
    lines = []
    for network, layer in dict.fromkeys((row["network"], row["layer"]) for row in rows):
        own = {row["what"]: row for row in rows if (row["network"], row["layer"]) == (network, layer)}
        ratios = [shown(times_ours(own[what], who, "median_ms")) for who in rivals for what in DIRECTIONS]
        lines.append([network, code(layer), str(own["forward"]["count"]), *ratios])
    return table(["network", "convolution", "times", *heads], lines)


@or_missing
def server(rows):
    lines = []
    for row in rows:
        ours, theirs = (row["by"][who]["calls_per_s"] for who in (OURS, "torch"))
        lines.append([row["case"], str(row["threads"]), number(ours), number(theirs), shown(ours / theirs)])
    return table(["layer", "threads", f"{OURS}, calls a second", "torch, calls a second", "ratio"], lines)


@or_missing
def floors(rows):
    lines = []
    for row in rows:
        for who, other in row["by"].items():
            if who != OURS:
                ours, theirs = number(row["by"][OURS]["median_ms"]), number(other["median_ms"])
                ratio = shown(times_ours(row, who, "median_ms"))
                lines.append([f"{row['case']}, {row['what']}", ours, who, theirs, ratio])
    return table(["", f"{OURS}, ms", "beside", "its ms", "ratio"], lines)


def errors_sentence(benchmark):
    names = ("shapes", "lengths", "networks", "server", "floors")
    rows = [row for name in names for row in benchmark.data.get(name, [])]
    largest = {
        dtype: max(
            numbers["error"]
            for row in rows
            if row["dtype"] == dtype
            for who, numbers in row["by"].items()
            if who.startswith(OURS)
        )
        for dtype in sorted({row["dtype"] for row in rows})
    }
    texts = " and ".join(f"{error:.1e} in {dtype}" for dtype, error in largest.items())
    return Markdown(f"In the tables of the sections from *Whole networks* on, xpconv's is {texts}." if rows else "")


def summary(benchmark):
    """Ratios alone: a row for each group of comparisons, a column for each rival."""
    data = benchmark.data
    groups = {
        f"layers, {dtype} {direction}": {
            rival: benchmark.ratios(rival, dtype=dtype, passes=passes) for rival in benchmark.rivals
        }
        for dtype in DTYPES
        for direction, passes in DIRECTIONS.items()
    }
    for row in data.get("network_sums", []):
        ratios = {who: [numbers["ratio"]] for who, numbers in row["by"].items() if who != OURS}
        groups[f"{row['case']}, {row['what']}"] = ratios
    for what in DIRECTIONS:
        chosen = [row for row in data.get("shapes", []) if row["what"] == what]
        groups[f"first call on a new shape, {what}"] = {"torch": [times_ours(r, "torch", "first_ms") for r in chosen]}
    for row in data.get("server", []):
        ratio = 1 / times_ours(row, "torch", "calls_per_s")
        groups.setdefault(f"calls a second, {row['what']}", {"torch": []})["torch"].append(ratio)
    rivals = list(dict.fromkeys(who for group in groups.values() for who, ratios in group.items() if ratios))
    lines = [
        [name, *(shown(geometric_mean(group[who]) if group.get(who) else None) for who in rivals)]
        for name, group in groups.items()
        if any(group.values())
    ]
    return table(["geometric means of ratios", *rivals], lines)


def machines(benchmark, folder="benchmark"):
    """A summary of each further machine's file, cpu-NAME.json, and up to how many cores anything was measured."""
    others = [Benchmark(path) for path in sorted(Path(folder).glob("cpu-*.json"))]
    for other in others:
        display(other.where(), summary(other))
    most = max(one.machine["cores"] for one in (benchmark, *others))
    return Markdown(f"No machine of more than {most} cores was measured: how it does on more is not known.")
