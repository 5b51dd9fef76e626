"""`python -m xpconv`: tries every array library on every device here, and tells how right and how fast it is.

Results are held against sums in float64 that share no code with the library. The exit status is 1 if one is wrong.
"""

from __future__ import annotations

import importlib
import math
import platform
import statistics
import sys
import time
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from . import __version__, conv, conv_backward

__all__ = ["main"]

LIBRARIES: dict[str, tuple[str | None, ...]] = {  # and their devices; None is the one that a library takes by itself
    "numpy": (None,),
    "cupy": (None,),
    "torch": ("cpu", "cuda"),
    "array_api_strict": (None,),
    "jax.numpy": (None,),
}
ROUNDS, SECONDS = 5, 1.0  # a case is timed so often, or for so long
ROW = "{:<17}{:<14}{:<21}{:<20}{:<9}{:>9}{:>10}  {}"


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


def run(trial: Trial, xp: Any, device: str | None) -> tuple[str, str, str]:
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
    return f"{1e3 * statistics.median(times):.2f}", f"{np.max(errors):.1e}", verdict


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def main() -> int:
    """Print a row for each library, device and case; 1 if a result is wrong or does not come about."""
    verdicts, notes, trials = [], [], [Trial(case) for case in CASES]
    print(f"xpconv {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    print("Forward and backward, against sums in float64 that share no code with xpconv:\n")
    print(ROW.format("library", "version", "device", "case", "dtype", "ms", "error", "verdict"))
    for name, device in [(name, device) for name, devices in LIBRARIES.items() for device in devices]:
        library = name.partition(".")[0]
        label = f"{library} on {device}" if device else library
        try:
            xp = load(name, device)
        except Exception as error:
            absent = isinstance(error, ModuleNotFoundError) and error.name == library
            notes.append(f"{label}: absent" if absent else f"{label}: does not work here, {first_line(error)}")
            continue
        version = importlib.import_module(library).__version__
        place = str(array_api_compat.device(xp.empty(0, device=device))).removeprefix(f"{library}.")
        dtypes = xp.__array_namespace_info__().dtypes(device=device, kind="real floating")
        for trial in trials:
            case = trial.case
            if case.dtype not in dtypes:
                notes.append(f"{label}: has no {case.dtype} here")
                continue
            try:
                *numbers, verdict = run(trial, xp, device)
            except Exception as error:
                *numbers, verdict = "", "", first_line(error)
            verdicts.append(verdict)
            print(ROW.format(library, version, place, case.name, case.dtype, *numbers, verdict), flush=True)
    print("", *notes, sep="\n")
    return int(any(verdict != "ok" for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
