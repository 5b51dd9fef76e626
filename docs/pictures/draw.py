"""The pictures of the README and of the first page: `python docs/pictures/draw.py` writes them anew.

`idea.svg` is drawn by hand, `speed.svg` from what the benchmark wrote. A test compares both with what stands here.
"""

import json
import math
import statistics
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"  # told apart by the colour-blind too


FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" \
font-family="Helvetica, Arial, sans-serif" font-size="15">
<title>{title}</title>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0 0 L8 4 L0 8 z" fill="#555"/></marker></defs>
<rect width="{width}" height="{height}" rx="10" fill="white"/>
{parts}
</svg>
"""


def svg(width, height, title, parts):
    return FRAME.format(width=width, height=height, title=escape(title), parts="\n".join(parts))


def text(x, y, words, anchor="middle", colour="#222", **style):
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}"{more}>{escape(words)}</text>'


def box(x, y, width, height, fill, stroke="none", **style):
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {place} rx="6" fill="{fill}" stroke="{stroke}"{more}/>'


def arrow(x, y, to_x, to_y):
    return f'<path d="M{x} {y} L{to_x} {to_y}" stroke="#555" stroke-width="1.5" fill="none" marker-end="url(#tip)"/>'


def idea():
    """Arrays of any library go into one sum of three slots; the slot that is left open is the result."""
    parts = [text(85, 34, "your arrays", font_weight="bold")]
    for row, library in enumerate(("NumPy", "CuPy", "torch", "JAX", "dask")):
        top = 48 + 36 * row
        parts += [box(25, top, 120, 28, "#f0f0f0", "#bbb"), text(85, top + 19, library)]
        parts.append(arrow(149, top + 14, 196, 134 + 18 * (row - 2)))
    parts += [box(200, 74, 270, 120, "#f7fbff", BLUE, stroke_width=2)]
    parts += [text(335, 34, "one sum with three slots", font_weight="bold")]
    for x, name, colour in ((250, "dy", BLUE), (335, "x", ORANGE), (420, "w", GREEN)):
        parts += [
            box(x - 32, 96, 64, 44, "white", colour, stroke_width=2),
            text(x, 125, name, colour=colour, font_size=20),
        ]
    parts += [text(292.5, 124, "·", font_size=22), text(377.5, 124, "·", font_size=22)]
    parts.append(text(335, 174, "leave one open, and sum over the rest", font_size=13, colour="#555"))
    parts.append(text(620, 34, "arrays of the same kind", font_weight="bold"))
    for row, (call, open_slot, colour) in enumerate(
        (
            ("y = conv(x, w)", "dy open", BLUE),
            ("dx, the input's gradient", "x open", ORANGE),
            ("dw, the weight's gradient", "w open", GREEN),
        )
    ):
        top = 58 + 58 * row
        parts += [box(510, top, 220, 44, "white", colour, stroke_width=2)]
        parts += [text(620, top + 19, call), text(620, top + 36, open_slot, colour=colour, font_size=12)]
        parts.append(arrow(474, 134 + 24 * (row - 1), 506, top + 22))
    title = "Arrays of any of these libraries go in; forward and both gradients come out, arrays of the same kind"
    return svg(755, 240, title, parts)


def speed(path=HERE.parent / "benchmark" / "cpu.json"):
    """For each kind of layer, the geometric mean of torch's time over xpconv's, on a logarithmic axis."""
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    rows = [r for r in data["results"] if "torch" in r["by"]]
    kinds = [*dict.fromkeys(r["kind"] for r in rows), None]
    left, right, top, step = 150, 730, 66, 30
    bottom = top + step * len(kinds)

    def mean(kind, dtype):
        chosen = [r["by"] for r in rows if r["dtype"] == dtype and kind in (None, r["kind"])]
        return math.exp(
            statistics.fmean(math.log(by["torch"]["median_ms"] / by["xpconv"]["median_ms"]) for by in chosen)
        )

    means = {(kind, dtype): mean(kind, dtype) for kind in kinds for dtype in ("float32", "float64")}
    low, high = min(*means.values(), 0.5), max(*means.values(), 2)

    def place(value):
        return round(left + 15 + (right - left - 45) * math.log(value / low) / math.log(high / low), 1)

    parts = [
        text(
            24,
            28,
            "torch's time / xpconv's, on a CPU: to the right of the line xpconv is faster",
            "start",
            font_weight="bold",
        ),
        text(
            24,
            48,
            f"geometric means of {len(rows)} comparisons, {data['machine']['cores']} cores of {data['machine']['cpu']}",
            "start",
            "#555",
            font_size=13,
        ),
    ]
    parts.append(f'<path d="M{place(1)} {top - 6} V{bottom}" stroke="#555"/>')
    ticks = (value for value in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= value <= high)
    parts += [text(place(value), bottom + 18, f"{value:g}", font_size=12, colour="#555") for value in ticks]
    for number, kind in enumerate(kinds):
        y = top + step * number + step / 2
        parts.append(text(left - 14, y + 5, kind or "all", "end", font_weight="normal" if kind else "bold"))
        parts.append(f'<path d="M{left} {y:g} H{right}" stroke="#eee"/>')
        for dtype, colour in (("float32", ORANGE), ("float64", BLUE)):
            parts.append(f'<circle cx="{place(means[kind, dtype])}" cy="{y:g}" r="6" fill="{colour}"/>')
    for x, dtype, colour in ((600, "float32", ORANGE), (680, "float64", BLUE)):
        parts += [f'<circle cx="{x - 10}" cy="44" r="5" fill="{colour}"/>', text(x, 48, dtype, "start", font_size=13)]
    return svg(755, bottom + 32, "How fast xpconv is beside torch, by kind of layer", parts)


PICTURES = {"idea.svg": idea, "speed.svg": speed}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (HERE / name).write_text(draw(), encoding="utf-8")
