"""The sentences, tables and figures of the benchmark's page, made from what `bench.py --json` wrote."""

import io
import json
import math
import statistics
from html import escape
from pathlib import Path

from IPython.display import HTML, SVG, Markdown
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

OURS = "xpconv"
DTYPES = ("float32", "float64")
DIRECTIONS = {"forward": ("forward",), "backward": ("dx", "dweight")}
COLOURS = {"forward": "#0072b2", "dx": "#d55e00", "dweight": "#009e73"}  # told apart by the colour-blind too
RIVAL_COLOURS = {"torch": "#d55e00", "jax": "#0072b2", "scipy": "#009e73"}
MARKERS = {1: "o", 8: "s", 32: "D"}
MIB = 2**20


def geometric_mean(values):
    return math.exp(statistics.fmean(map(math.log, values)))


def code(name):
    return f"<code>{escape(name)}</code>"


class Benchmark:
    def __init__(self, path):
        self.data = data = json.loads(Path(path).read_text())
        self.machine, self.gemm, self.allowed = data["machine"], data["gemm"], data["allowed"]
        self.loops, self.layers, self.results = data["loops"], data["layers"], data["results"]
        self.kinds = list(dict.fromkeys(layer["kind"] for layer in self.layers.values()))
        self.rivals = list(dict.fromkeys(who for r in self.results for who in r["by"] if who != OURS))

    def ratios(self, rival, kind=None, layer=None, dtype=None, passes=tuple(COLOURS)):
        return [
            ratio(r, rival)
            for r in self.results
            if rival in r["by"]
            and kind in (None, r["kind"])
            and layer in (None, r["layer"])
            and dtype in (None, r["dtype"])
            and r["what"] in passes
        ]

    # Sentences

    def where(self):
        facts = self.machine
        named = ("numpy", "llvmlite", *(self.rivals or RIVAL_COLOURS))
        versions = ", ".join(f"{name} {facts[name]}" for name in named if facts.get(name))
        rates = " and ".join(f"{rate:.0f} GFLOP/s in {dtype}" for dtype, rate in self.gemm.items())
        return Markdown(
            f"Measured on {facts['date']} on {facts['cores']} cores of {facts['cpu']} ({facts['system']}), with "
            f"Python {facts['python']}, xpconv {facts['xpconv']}, {versions}. NumPy's product of two matrices of "
            f"2048 x 2048 runs at {rates} there."
            + (f" {len(self.layers)} layers, {len(self.results)} comparisons." if self.results else "")
        )

    def verdict(self):
        sentences = []
        for rival in self.rivals:
            ratios = self.ratios(rival)
            won = sum(value >= 1 for value in ratios) / len(ratios)
            sentences.append(
                f"Against {rival}, xpconv is the faster one in {won:.0%} of {len(ratios)} comparisons; the geometric "
                f"mean of the ratios is {geometric_mean(ratios):.2f}."
            )
        return Markdown(" ".join(sentences))

    def losers(self, rival="torch"):
        means = {
            (layer, dtype): geometric_mean(ratios)
            for layer in self.layers
            for dtype in DTYPES
            if (ratios := self.ratios(rival, layer=layer, dtype=dtype))
        }
        texts = []
        for dtype in DTYPES:
            lost = sorted((mean, layer) for (layer, other), mean in means.items() if other == dtype and mean < 1)
            total = sum(other == dtype for _, other in means)
            if lost:
                named = ", ".join(f"{layer} ({mean:.2f})" for mean, layer in lost)
                texts.append(f"In {dtype}, {rival} is ahead on {len(lost)} of {total} layers: {named}.")
            else:
                texts.append(f"In {dtype}, {rival} is ahead on none of {total} layers.")
        return Markdown("\n\n".join(texts))

    def memory_sentence(self):
        largest = max(self.results, key=lambda r: r["extra_bytes"])
        above = sum(r["extra_bytes"] > 64 * MIB for r in self.results)
        within = f"{above} of {len(self.results)} calls take" if above else "no call takes"
        return Markdown(
            f"The most is {largest['extra_bytes'] / MIB:.1f} MiB, for {largest['layer']} at batch {largest['batch']} "
            f"({largest['dtype']}, {largest['what']}); {within} more than 64 MiB."
        )

    def loops_sentence(self):
        if not self.loops:
            return Markdown("")
        images, seconds, ms = self.loops["images"], self.loops["loops_s_per_image"], self.loops["xpconv_ms"]
        return Markdown(
            f"xpconv began as Python loops over every output. Forward and backward, {images} RGB images of 64 x 64 and "
            f"16 filters of 3 x 3 would take them {images * seconds:.0f} s, and take xpconv {ms:.1f} ms: "
            f"{1e3 * images * seconds / ms:,.0f} times as fast."
        )

    # Tables

    def mean_table(self):
        head = ["", *(f"{dtype} {direction}" for dtype in DTYPES for direction in DIRECTIONS)]
        rows = []
        for rival in self.rivals:
            for kind in (*self.kinds, None):
                cells = [
                    self.ratios(rival, kind=kind, dtype=dtype, passes=passes)
                    for dtype in DTYPES
                    for passes in DIRECTIONS.values()
                ]
                if any(cells):
                    means = (geometric_mean(cell) if cell else None for cell in cells)
                    rows.append([f"{rival}, {kind or 'all'}", *map(shown, means)])
        return table(head, rows)

    def ratio_table(self, rival="torch"):
        columns = [(dtype, what) for dtype in DTYPES for what in COLOURS]
        known = {
            (r["layer"], r["batch"], r["dtype"], r["what"]): ratio(r, rival) for r in self.results if rival in r["by"]
        }
        rows = [
            [code(layer), str(batch), *(shown(known.get((layer, batch, *column))) for column in columns)]
            for layer, batch in dict.fromkeys((layer, batch) for layer, batch, *_ in known)
        ]
        return table(["layer", "batch", *(f"{dtype} {what}" for dtype, what in columns)], rows)

    def error_table(self):
        rows = []
        for who in (OURS, *self.rivals):
            cells = []
            for dtype in DTYPES:
                errors = [r["by"][who]["error"] for r in self.results if r["dtype"] == dtype and who in r["by"]]
                errors = [error for error in errors if error is not None]
                cells.append(f"{max(errors):.1e}" if errors else "the reference")
            rows.append([who, *cells])
        rows.append(["allowed for xpconv", *(f"{self.allowed[dtype]:.0e}" for dtype in DTYPES)])
        return table(["", *DTYPES], rows)

    # Figures

    def dots(self, rival="torch"):
        """Each layer's ratios: a colour for each pass, a marker for each batch."""
        figure, panels, names = self.panels(len(DTYPES))
        for panel, dtype in zip(panels, DTYPES, strict=True):
            for r in self.results:
                if r["dtype"] == dtype and rival in r["by"]:
                    y = names.index(r["layer"]) + 0.25 * (list(COLOURS).index(r["what"]) - 1)
                    style = {"marker": MARKERS.get(r["batch"], "v"), "s": 16, "alpha": 0.8, "linewidths": 0}
                    panel.scatter(ratio(r, rival), y, color=COLOURS[r["what"]], **style)
            log_axis(panel, f"{rival}'s time / xpconv's, {dtype}")
        batches = sorted({r["batch"] for r in self.results})
        handles = [Line2D([], [], color=colour, marker="o", ls="", label=what) for what, colour in COLOURS.items()]
        handles += [
            Line2D([], [], color="0.4", marker=MARKERS.get(batch, "v"), ls="", label=f"batch {batch}")
            for batch in batches
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
        return drawn(figure)

    def means(self):
        """Geometric means of each kind: a colour for each rival, a marker for each direction."""
        figure = Figure(figsize=(9, 0.45 * len(self.kinds) + 1.8), layout="constrained")
        panels = figure.subplots(1, len(DTYPES), sharey=True)
        names = [*self.kinds, "all"]
        for panel, dtype in zip(panels, DTYPES, strict=True):
            for i, rival in enumerate(self.rivals):
                for (_, passes), filled in zip(DIRECTIONS.items(), (True, False), strict=True):
                    for y, kind in enumerate((*self.kinds, None)):
                        if ratios := self.ratios(rival, kind=kind, dtype=dtype, passes=passes):
                            colour = RIVAL_COLOURS.get(rival, "0.4")
                            face = colour if filled else "none"
                            place = geometric_mean(ratios), y + 0.2 * (i - (len(self.rivals) - 1) / 2)
                            panel.scatter(*place, s=36, facecolors=face, edgecolors=colour)
            log_axis(panel, f"rival's time / xpconv's, {dtype}")
            panel.set_yticks(range(len(names)), names)
            panel.grid(axis="y", color="0.92")
        panels[0].invert_yaxis()
        handles = [
            Line2D([], [], color=RIVAL_COLOURS.get(rival, "0.4"), marker="o", ls="", label=rival)
            for rival in self.rivals
        ]
        handles += [
            Line2D([], [], color="0.4", marker="o", ls="", label="forward"),
            Line2D([], [], color="0.4", marker="o", ls="", markerfacecolor="none", label="backward"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
        return drawn(figure)

    def shares(self):
        """Each layer's forward rate over the rate of a product of matrices, at batch 8 or else the largest."""
        figure, panels, names = self.panels(len(DTYPES), without="tiny")
        for panel, dtype in zip(panels, DTYPES, strict=True):
            for y, layer in enumerate(names):
                among = {
                    r["batch"]: r
                    for r in self.results
                    if (r["layer"], r["dtype"], r["what"]) == (layer, dtype, "forward")
                }
                r = among.get(8) or among[max(among)]
                for who, colour in ((OURS, "#0072b2"), ("torch", "#d55e00")):
                    if who in r["by"]:
                        gflops = 2e-6 * r["multiplications"] / r["by"][who]["median_ms"]
                        panel.scatter(100 * gflops / self.gemm[dtype], y, s=24, color=colour, alpha=0.85, linewidths=0)
            panel.axvline(100, color="0.3", linewidth=1)
            panel.set_xlim(left=0)
            panel.set_xlabel(f"% of the GEMM rate, {dtype}")
        whos = [(OURS, "#0072b2"), ("torch", "#d55e00")]
        handles = [Line2D([], [], color=colour, marker="o", ls="", label=who) for who, colour in whos]
        figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
        return drawn(figure)

    def memory(self):
        """The most that any of a layer's calls holds beside its inputs and its output."""
        figure, (panel,), names = self.panels(1)
        peaks = [max(r["extra_bytes"] for r in self.results if r["layer"] == name) / MIB for name in names]
        panel.barh(range(len(names)), peaks, height=0.6, color="#0072b2")
        panel.axvline(64, color="0.3", linewidth=1)
        panel.set_xlabel("MiB beside inputs and output")
        return drawn(figure)

    def panels(self, count, without=None):
        """A row for each layer, the names on the left."""
        names = [name for name, layer in self.layers.items() if layer["kind"] != without]
        figure = Figure(figsize=(9, 0.24 * len(names) + 1.2), layout="constrained")
        panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
        for panel in panels:
            panel.set_yticks(range(len(names)), names, fontsize=8)
            panel.grid(axis="y", color="0.92")
            panel.set_axisbelow(True)
        panels[0].set_ylim(len(names) - 0.4, -0.6)
        return figure, panels, names


class Chunks:
    """What `chunked.py --json` wrote."""

    def __init__(self, path):
        data = json.loads(Path(path).read_text())
        self.machine, self.large, (self.whole, *self.halos) = data["machine"], data["large"], data["halos"]

    def where(self):
        facts = self.machine
        return Markdown(
            f"Measured on {facts['date']} on {facts['cores']} cores of {facts['cpu']} with Python {facts['python']}, "
            f"dask {facts['dask']} and a worker process of one thread for each core."
        )

    def halo_table(self):
        head = ["edge of a chunk", "chunks", "tasks for each", "halo, reckoned", "seconds", "beside one call"]
        rows = [
            [
                str(row["edge"]),
                str(row["blocks"]),
                f"{row['tasks'] / row['blocks']:.0f}",
                f"{row['halo']:.0%}",
                f"{row['seconds']:.2f}",
                f"{row['seconds'] / self.whole['seconds']:.2f}",
            ]
            for row in self.halos
        ]
        return table(head, rows)

    def large_sentence(self):
        one = self.large
        seconds = one["seconds"]
        times = one["volume_mib"] / (one["workers"] * one["limit_mib"])
        return Markdown(
            f"A volume of {one['voxels'] / 1e9:.1f} billion voxels, {one['volume_mib'] / 2**10:.1f} GiB on the disk, "
            f"{times:.0f} times the memory of its workers ({one['workers']}), in {one['chunks']} chunks: **forward, "
            f"onto the disk, in {seconds['forward']:.0f} s, both gradients in {seconds['backward']:.0f} s** "
            f"({seconds['written']:.0f} s to write it). Each worker had "
            f"{one['limit_mib']} MiB, the {one['begin_mib']:.0f} MiB of Python and its libraries included, and "
            f"**at most {max(one['peak_mib']):.0f} MiB of it were used**; nothing was spilled. "
            f"The three products that must be equal, ⟨y, y⟩, ⟨x, dx⟩ and ⟨w, dw⟩, differ by {one['apart']:.0e} of "
            "themselves."
        )


def ratio(r, rival):
    return r["by"][rival]["median_ms"] / r["by"][OURS]["median_ms"]


def shown(value):
    return "" if value is None else f"<b>{value:.2f}</b>" if value >= 1 else f"{value:.2f}"


def log_axis(panel, label):
    panel.set_xscale("log")
    panel.axvline(1, color="0.3", linewidth=1)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.set_xlabel(label)


def table(head, rows):
    cells = "".join(f"<th>{name}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return HTML(f'<table class="docutils"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>')


def drawn(figure):
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return SVG(text.getvalue())
