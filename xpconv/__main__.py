"""`python -m xpconv`: tries every array library on every device here, and tells how right and how fast it is.

Results are held against sums in float64 that share no code with the library. The exit status is 1 if one is wrong.
`--json` prints the same for programs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple, Self, TextIO

import array_api_compat
import numpy as np
from threadpoolctl import threadpool_info

from . import __version__, conv, conv_backward
from ._spec.options import current

__all__ = ["main"]

LIBRARIES: dict[str, tuple[str | None, ...]] = {  # and their devices; None is the one that a library takes by itself
    "numpy": (None,),
    "cupy": (None,),
    "torch": ("cpu", "cuda"),
    "array_api_strict": (None,),
    "jax.numpy": (None,),
}
ROUNDS, SECONDS = 5, 1.0  # a case is timed so often, or for so long
COLUMNS = "{:<17}{:<14}{:<21}{:<20}{:<9}{:>9}{:>10}  {}"
GREEN, RED, YELLOW, GREY = "32", "31", "33", "90"  # as terminals number them

# What NumPy calls an instruction set, in releases old and new, and the kernels of OpenBLAS that use it.
KERNELS = {
    "AVX-512": ({"AVX512_SKX", "X86_V4"}, {"SkylakeX", "Cooperlake", "Sapphirerapids"}),
    "AVX2": ({"AVX2", "X86_V3"}, {"Haswell", "Zen", "Excavator", "SkylakeX", "Cooperlake", "Sapphirerapids"}),
}


class Case(NamedTuple):
    name: str
    dtype: str
    x: tuple[int, int, int, int]
    weight: tuple[int, int, int, int]
    y: tuple[int, int, int, int]
    stride: int
    padding: int


CASES = (
    Case("the seed's example", "float64", (3, 3, 4, 4), (3, 3, 2, 2), (3, 3, 2, 2), 2, 0),
    Case("the seed's example", "float32", (3, 3, 4, 4), (3, 3, 2, 2), (3, 3, 2, 2), 2, 0),
    Case("3x3, 64 channels", "float32", (8, 64, 56, 56), (64, 64, 3, 3), (8, 64, 56, 56), 1, 1),
)


class Row(NamedTuple):
    """One library on one device, with one case; no numbers where an error came instead."""

    library: str
    version: str
    device: str
    case: str
    dtype: str
    ms: float | None
    error: float | None
    verdict: str

    def __str__(self) -> str:
        ms, error = ("" if n is None else form.format(n) for form, n in (("{:.2f}", self.ms), ("{:.1e}", self.error)))
        return COLUMNS.format(*self[:5], ms, error, self.verdict)


class Patience:
    """A line on stderr for each second in which nothing else is heard."""

    def __init__(self) -> None:
        self.done, self.thread = threading.Event(), threading.Thread(target=self._tell, daemon=True)
        self.at("the reference")

    def at(self, what: str) -> None:
        self.now = what, time.monotonic()

    def _tell(self) -> None:
        while not self.done.wait(1.0):
            what, since = self.now
            seconds = time.monotonic() - since
            if seconds >= 0.9:
                print(paint(f"... {what}, {seconds:.0f} s", GREY, sys.stderr), file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()


class Trial:
    """A case with random operands, its results in float64, and how far from them a result may be."""

    def __init__(self, case: Case) -> None:
        rng = np.random.default_rng(0)
        shapes = (case.x, case.weight, case.weight[:1], case.y)
        self.case = case
        self.operands = [rng.standard_normal(shape).astype(case.dtype) for shape in shapes]
        self.results = reference(case, *self.operands)
        (outputs, inputs, *kernel), (samples, _, *out) = case.weight, case.y
        # The terms of a sum are random, and so are its rounding errors: they grow as the root of the terms' number.
        terms = [inputs * math.prod(kernel), outputs * math.prod(kernel), *[samples * math.prod(out)] * 2]
        self.tolerances = 4 * np.finfo(case.dtype).eps * np.sqrt(terms)

    def error(self, result: np.ndarray, expected: np.ndarray) -> float:
        """Beside the largest number expected; infinite for another shape or dtype."""
        if result.shape != expected.shape or result.dtype.name != self.case.dtype:
            return math.inf
        return float(np.max(np.abs(result - expected)) / np.max(np.abs(expected)))


def paint(text: str, colour: str, stream: TextIO) -> str:
    """In colour on a terminal, unless its owner wants none (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    old = os.name == "nt" and "WT_SESSION" not in os.environ  # a console of Windows that shows the codes themselves
    return text if plain or old else f"\033[{colour}m{text}\033[0m"


def reference(case: Case, *operands: np.ndarray) -> list[np.ndarray]:
    """y, dx, dweight and dbias, tap after tap."""
    x, weight, bias, dy = (operand.astype(np.float64) for operand in operands)
    (height, width), lo, stride = x.shape[2:], case.padding, case.stride
    padded = np.pad(x, ((0, 0), (0, 0), (lo, lo), (lo, lo)))
    y, dpadded, dweight = np.zeros_like(dy), np.zeros_like(padded), np.zeros_like(weight)
    for i, j in np.ndindex(weight.shape[2:]):
        rows, columns = (slice(t, t + stride * n, stride) for t, n in zip((i, j), dy.shape[2:], strict=True))
        seen, tap = padded[:, :, rows, columns], weight[:, :, i, j]
        y += np.einsum("oc,nchw->nohw", tap, seen, optimize=True)
        dpadded[:, :, rows, columns] += np.einsum("oc,nohw->nchw", tap, dy, optimize=True)
        dweight[:, :, i, j] = np.einsum("nohw,nchw->oc", dy, seen, optimize=True)
    dx = dpadded[:, :, lo : lo + height, lo : lo + width]
    return [y + bias[:, None, None], dx, dweight, np.sum(dy, axis=(0, 2, 3))]


def to_numpy(array: Any) -> np.ndarray:
    """The array on the host, once the device has computed it."""
    try:
        return np.asarray(array)
    except TypeError:  # the answer of a library whose array is not in the host's memory
        return np.asarray(array_api_compat.to_device(array, "cpu"))


def load(name: str, device: str | None) -> Any:
    """A library's namespace, once it has shown that it computes on the device: some import without one."""
    xp = array_api_compat.array_namespace(importlib.import_module(name).empty(0))
    probe = xp.ones((2, 2), dtype=xp.float32, device=device)
    to_numpy(xp.matmul(probe, probe))
    return xp


def run(trial: Trial, xp: Any, device: str | None) -> tuple[float, float, str]:
    """Milliseconds forward and backward, the largest error, and the verdict."""
    case = trial.case
    x, weight, bias, dy = (xp.asarray(a, dtype=getattr(xp, case.dtype), device=device) for a in trial.operands)

    def both_ways() -> list[Any]:
        y = conv(x, weight, bias, stride=case.stride, padding=case.padding)
        results = [y, *conv_backward(dy, x, weight, stride=case.stride, padding=case.padding)]
        for result in results:
            to_numpy(result[(0,) * result.ndim])  # waits until it is computed
        return results

    errors = [trial.error(to_numpy(a), b) for a, b in zip(both_ways(), trial.results, strict=True)]
    times: list[float] = []
    while len(times) < ROUNDS and sum(times) < SECONDS:
        start = time.perf_counter()
        both_ways()
        times.append(time.perf_counter() - start)
    verdict = "ok" if np.all(errors <= trial.tolerances) else "wrong"
    return 1e3 * statistics.median(times), float(np.max(errors)), verdict


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def attempts(patience: Patience) -> Iterator[Row | str]:
    """A row for each library, device and case, and a sentence where there can be none."""
    trials = [Trial(case) for case in CASES]
    for name, device in [(name, device) for name, devices in LIBRARIES.items() for device in devices]:
        library = name.partition(".")[0]
        label = f"{library} on {device}" if device else library
        patience.at(f"importing {label}")
        try:
            xp = load(name, device)
        except Exception as error:
            absent = isinstance(error, ModuleNotFoundError) and error.name == library
            yield f"{label}: absent" if absent else f"{label}: does not work here, {first_line(error)}"
            continue
        version = importlib.import_module(library).__version__
        place = str(array_api_compat.device(xp.empty(0, device=device))).removeprefix(f"{library}.")
        dtypes = xp.__array_namespace_info__().dtypes(device=device, kind="real floating")
        for trial in trials:
            case = trial.case
            if case.dtype not in dtypes:
                yield f"{label}: has no {case.dtype} here"
                continue
            patience.at(f"{label}, {case.name}, {case.dtype}")
            try:
                numbers: tuple[float | None, float | None, str] = run(trial, xp, device)
            except Exception as error:
                numbers = None, None, first_line(error)
            yield Row(library, version, place, case.name, case.dtype, *numbers)


def hints() -> list[str]:
    """What would make NumPy's convolutions faster here."""
    found = []
    if find_spec("scipy") is None:
        found.append("SciPy is missing: with it, large kernels take half the time on NumPy (pip install scipy)")
    if current().threads == 1:
        here = os.cpu_count() or 1
        more = f" of the machine's {here}: give the process more (taskset, the container's limit)" if here > 1 else ""
        found.append(f"one core: NumPy's convolutions are computed by a single thread, on one core{more}")
    blas = {library.get("architecture") for library in threadpool_info() if "numpy" in library["filepath"]}
    found += [slow for kernels in blas if kernels and (slow := slow_kernels(kernels))]
    return found


def slow_kernels(kernels: str) -> str | None:
    """A sentence where BLAS uses fewer instructions than the CPU has."""
    has = set(np.show_config(mode="dicts")["SIMD Extensions"]["found"])
    for name, (needed, using) in KERNELS.items():
        if has & needed:
            if kernels in using:
                return None
            return (
                f"NumPy's BLAS runs the kernels of an older CPU ({kernels}), though this one has {name}: unset "
                "OPENBLAS_CORETYPE if it is set, or update NumPy"
            )
    return None


def as_text(tried: Iterable[Row | str]) -> bool:
    """Rows as they come, then notes and hints; whether all is well."""
    verdicts, notes = [], []
    print(f"xpconv {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    print("Forward and backward, against sums in float64 that share no code with xpconv:\n")
    print(COLUMNS.format(*Row._fields), flush=True)
    for row in tried:
        if isinstance(row, Row):
            verdicts.append(row.verdict)
            print(paint(str(row), GREEN if row.verdict == "ok" else RED, sys.stdout), flush=True)
        else:
            notes.append(row)
    print("", *notes, sep="\n")
    for hint in hints():
        print(paint(f"hint: {hint}", YELLOW, sys.stdout))
    return all(verdict == "ok" for verdict in verdicts)


def as_json(tried: Iterable[Row | str]) -> bool:
    """The same, as one object of JSON; a number that is not finite is null there."""
    everything = list(tried)
    rows = [row._asdict() for row in everything if isinstance(row, Row)]
    for row in rows:
        row.update({name: None for name in ("ms", "error") if not math.isfinite(row[name] or 0)})
    facts = {
        "xpconv": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": current().threads,
        "rows": rows,
        "notes": [note for note in everything if isinstance(note, str)],
        "hints": hints(),
    }
    print(json.dumps(facts, indent=1))
    return all(row["verdict"] == "ok" for row in rows)


def main(arguments: Sequence[str] = ()) -> int:
    """Print a row for each library, device and case; 1 if a result is wrong or does not come about."""
    parser = argparse.ArgumentParser("python -m xpconv", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--json", action="store_true", help="print one object of JSON")
    show = as_json if parser.parse_args(arguments).json else as_text
    with Patience() as patience:
        return int(not show(attempts(patience)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
