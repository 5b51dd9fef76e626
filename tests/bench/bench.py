"""How fast xpconv is beside torch, jax and scipy, on layers of real networks.

Everything: `python tests/bench/bench.py`; one layer: `python tests/bench/bench.py --quick --layer "ResNet 3x3 @56"`;
one of the other tables: `python tests/bench/bench.py --table networks`.
Everything runs in one process, in turns, and the results are held against torch's in float64. A ratio is the other's
time over ours: above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import seed
from contestants import CONTESTANTS, ON, OURS, RIVALS, installed
from layers import LAYERS, QUICK
from measure import ALLOWED, Pace, Result, bench, error, gemm_rates, machine, milliseconds, wrong_rows
from report import report, wrong
from rich.console import Console
from rich.progress import track
from tables import TABLES, Found, drawn, measure

import xpconv


def against_loops() -> dict[str, Any]:
    """A batch of images, forward and backward, beside the loops; they are slow, so theirs is the first image's time."""
    rng = np.random.default_rng(0)
    x, weight, bias, dy = (rng.standard_normal(s) for s in ((32, 3, 64, 64), (16, 3, 3, 3), (16,), (32, 16, 62, 62)))
    layer = seed.Conv(weight, bias)

    def loops() -> list[np.ndarray]:
        return [layer.forward(x[:1]), layer.backward(dy[:1]), layer.dweight, layer.dbias]

    def ours(images: int) -> list[np.ndarray]:
        return [xpconv.conv(x[:images], weight, bias), *xpconv.conv_backward(dy[:images], x[:images], weight)]

    seconds = milliseconds(loops) / 1e3
    apart = max(error(actual, expected) for actual, expected in zip(ours(1), loops(), strict=True))
    ms = Pace(turns=1, seconds=0.1).measure({OURS: lambda: ours(len(x))})[OURS]
    return {"images": len(x), "loops_s_per_image": seconds, "xpconv_ms": float(np.median(ms)), "error": apart}


def compact(facts: dict[str, Any], results: list[Result], tables: Found, **more: Any) -> str:
    """JSON with a line for each layer, for each result and for each row of the other tables."""
    layers = {name: asdict(LAYERS[name]) for name in dict.fromkeys(r.layer for r in results)}
    head = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in {"machine": facts, **more}.items()]
    layer_lines = [f"  {json.dumps(name)}: {json.dumps(layer)}" for name, layer in layers.items()]
    result_lines = [f"  {json.dumps(asdict(result))}" for result in results]
    layers_text = ' "layers": {\n' + ",\n".join(layer_lines) + "\n }"
    results_text = ' "results": [\n' + ",\n".join(result_lines) + "\n ]"
    row_lines = {name: ",\n".join(f"  {json.dumps(row)}" for row in rows) for name, rows in tables.items()}
    table_texts = [f' "{name}": [\n{lines}\n ]' for name, lines in row_lines.items()]
    return "{\n" + ",\n".join([*head, layers_text, results_text, *table_texts]) + "\n}\n"


def chosen_layers(parts: list[str] | None, quick: bool) -> list[str]:
    if not parts:
        return list(QUICK if quick else LAYERS)
    return [name for name in LAYERS if any(part.lower() in name.lower() for part in parts)]


def chosen_batches(name: str, batches: list[int] | None, quick: bool) -> tuple[int, ...]:
    own = LAYERS[name].batches
    if batches:
        return tuple(sorted(batches))
    return (min(max(own), 8),) if quick else own


def chosen_tables(arguments: argparse.Namespace) -> list[str]:
    """All, if none is named; only that of the layers, if it is to be quick or something is said of the layers."""
    if arguments.table:
        return list(dict.fromkeys(arguments.table))
    of_layers = arguments.quick or arguments.layer or arguments.batch or about_ours(arguments)
    return ["layers"] if of_layers else ["layers", *TABLES]


def about_ours(arguments: argparse.Namespace) -> bool:
    return arguments.on != "numpy" or arguments.method is not None or arguments.workers is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="some layers, torch only, one short turn: about a minute; of other tables a short form",
    )
    parser.add_argument(
        "--table",
        action="append",
        choices=("layers", *TABLES),
        help="only this table, which can be said several times (all; with options that are about layers, theirs)",
    )
    parser.add_argument("--layer", action="append", metavar="NAME", help="only layers whose name contains this")
    parser.add_argument("--batch", action="append", type=int, metavar="N", help="this batch, not the layer's own")
    parser.add_argument("--rivals", metavar="NAMES", help=f"some of {','.join(RIVALS)}")
    parser.add_argument("--on", choices=ON, default="numpy", help="whose arrays ours are; jax's are compiled (numpy)")
    parser.add_argument("--method", metavar="NAME", help="ours under xpconv.options(method=NAME)")
    parser.add_argument("--workers", type=int, metavar="N", help="ours under xpconv.options(workers=N)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write down all that was measured")
    arguments = parser.parse_args()
    names = chosen_layers(arguments.layer, arguments.quick)
    if not names:
        parser.error(f"no layer of this name; there are {', '.join(LAYERS)}")
    rivals = arguments.rivals.split(",") if arguments.rivals else ["torch"] if arguments.quick else list(RIVALS)
    if unknown := set(rivals) - set(RIVALS):
        parser.error(f"no rival {', '.join(unknown)}; there are {', '.join(RIVALS)}")
    tables = chosen_tables(arguments)
    if about_ours(arguments) and tables != ["layers"]:
        parser.error("--on, --method and --workers are for the table of the layers alone")

    CONTESTANTS[OURS] = ON[arguments.on]
    given = {name: value for name in ("method", "workers") if (value := getattr(arguments, name)) is not None}
    pace = Pace(turns=1, seconds=0.03) if arguments.quick else Pace(turns=3, seconds=0.08)
    width = None if sys.stdout.isatty() else 140
    console, facts = Console(highlight=False, soft_wrap=True, width=width), machine()
    facts |= {"on": arguments.on, "options": given, "pace": asdict(pace)}
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()))
    if (facts["load"] or 0) > 0.5:
        console.print("Others are computing here: a stalled thread distorts a ratio up to a hundredfold. Better wait.")
    for rival in [rival for rival in rivals if not installed(rival)]:
        console.print(f"{rival} is not installed and left out.")
        rivals.remove(rival)

    gemm = gemm_rates()
    names = names if "layers" in tables else []
    cells = [(name, n) for name in names for n in chosen_batches(name, arguments.batch, arguments.quick)]
    results: list[Result] = []
    loops = None
    with xpconv.options(**given) if given else nullcontext():
        for name, batch in track(cells, "measuring", console=console, transient=True):
            results += bench(name, batch, rivals, pace, results, refusing=arguments.method is not None)
        if names and not (arguments.layer or arguments.quick or arguments.on != "numpy"):
            loops = against_loops()
    if refused := 6 * len(cells) - len(results):
        console.print(f"{arguments.method} refuses {refused} of {6 * len(cells)} passes; they are left out.")
    if results:
        report(console, results, rivals, gemm)
    if loops:
        theirs, ours = loops["loops_s_per_image"] * loops["images"], loops["xpconv_ms"]
        console.print(
            f"the seed's loops, {loops['images']} RGB images of 64x64, 16 filters of 3x3, forward and backward: "
            f"{loops['loops_s_per_image']:.2f} s for the first image, {theirs:.0f} s for all; "
            f"{OURS}: {ours:.1f} ms for all, {1e3 * theirs / ours:.0f} times as fast"
        )
    found: Found = {}
    for name in tables:
        if name != "layers":
            with console.status(f"measuring {name}"):
                new = measure(name, rivals, arguments.quick)
            for table in drawn(new):
                console.print(table)
            found |= new
    if arguments.json:
        arguments.json.write_text(compact(facts, results, found, gemm=gemm, allowed=ALLOWED, loops=loops))
    off_loops = bool(loops) and not loops["error"] <= ALLOWED["float64"]
    if off_loops:
        console.print(f"{OURS} is WRONG: {loops['error']:.1e} off the seed's loops")
    wrongs = [text for rows in found.values() for text in wrong_rows(rows)]
    for text in wrongs:
        console.print(f"{OURS} is WRONG: {text}")
    return int(bool(wrong(results)) or off_loops or bool(wrongs))


if __name__ == "__main__":
    sys.exit(main())
