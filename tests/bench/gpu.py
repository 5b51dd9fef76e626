"""The day when a GPU is there: what has to work on it, and then CuPy through xpconv beside torch (cuDNN).

Everything: `python tests/bench/gpu.py`; a first look: `python tests/bench/gpu.py --quick`. Where there is no GPU,
`--standin` runs all of it to its end, with CuPy's stand-in and torch on the CPU: the times then mean nothing.

Results are held against torch's in float64, from the same operands. Floors are a data sheet's: what reading each
operand and writing the result once takes, or the multiplications of a direct convolution, whichever is longer.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TextIO

import gpu_page
import torch
from contestants import OURS, PASSES, ours, torchs_of_tensors
from device import Device
from layers import LAYERS, ON_GPU
from measure import ALLOWED, Pace, Row, machine, wrong_rows

import xpconv

ROOT = Path(__file__).parents[2]
STANDIN = ROOT / "tests" / "cupy_standin.py"
BATCHES, QUICK_BATCHES = (8, 64), (8,)
QUICK = ("ResNet 3x3 @14", "ResNet 1x1 narrow @56", "ConvNeXt 7x7 @56", "ResNeXt 32 groups of 4 @56")
PACE, QUICK_PACE = Pace(turns=3, seconds=0.06), Pace(turns=1, seconds=0.02)
NUMBERS = ("float32", "tf32", "float16", "float64")

# CuPy asks for CUPY_TF32 at its first product in float32, and torch's switch is as global: so a process for each.
PROCESSES = {"0": ("float32", "float16", "float64"), "1": ("tf32",)}

# Data sheets: bytes and operations a second, dense, on tensor cores where they have the numbers.
PEAKS: dict[str, dict[str, float]] = {
    "H200": {"bytes": 4.8e12, "float32": 67e12, "tf32": 495e12, "float16": 990e12, "float64": 67e12},
    "H100": {"bytes": 3.35e12, "float32": 67e12, "tf32": 495e12, "float16": 990e12, "float64": 67e12},
    "A100": {"bytes": 2.04e12, "float32": 19.5e12, "tf32": 156e12, "float16": 312e12, "float64": 19.5e12},
}


def peak_of(device: str) -> dict[str, Any]:
    """The device's own, or else an H100's."""
    name = next((name for name in PEAKS if name in device), None)
    rates = PEAKS[name or "H100"]
    flops = {numbers: rates[numbers] for numbers in NUMBERS}
    return {"device": name or "H100", "known": name is not None, "bytes": rates["bytes"], "flops": flops}


def dtype_of(numbers: str) -> torch.dtype:
    return getattr(torch, "float32" if numbers == "tf32" else numbers)


class Case(NamedTuple):
    layer: str
    batch: int
    numbers: str

    def row(self, what: str, peak: dict[str, Any]) -> Row:
        """What is known of a pass before it is measured. Each reads two of x, weight and y and writes the third."""
        layer, size = LAYERS[self.layer], dtype_of(self.numbers).itemsize
        moved = size * sum(math.prod(shape) for shape in layer.shapes(self.batch))
        flops = 2 * layer.multiplications(self.batch)
        ms = {"bytes": 1e3 * moved / peak["bytes"], "FLOPs": 1e3 * flops / peak["flops"][self.numbers]}
        bound = max(ms, key=lambda name: ms[name])
        named = {"case": f"{self.layer}, batch {self.batch}", "layer": self.layer, "kind": layer.kind}
        counted = {"bytes": moved, "flops": flops, "floor_ms": float(f"{ms[bound]:.3g}"), "bound": bound}
        return {**named, "batch": self.batch, "dtype": self.numbers, "what": what, **counted, "by": {}}


class Operands:
    """A case's calls: those of each contestant, and torch's in float64 that tell what is right."""

    def __init__(self, case: Case, device: Device) -> None:
        layer, random = LAYERS[case.layer], torch.Generator(device.place).manual_seed(0)
        tensors = [
            torch.randn(shape, generator=random, dtype=torch.float64, device=device.place).to(dtype_of(case.numbers))
            for shape in layer.shapes(case.batch)
        ]
        self.calls = {OURS: ours(layer, *map(device.array, tensors)), "torch": torchs_of_tensors(layer, *tensors)}
        self.references = torchs_of_tensors(layer, *(tensor.double() for tensor in tensors))


def attempted(what: str, call: Callable[[], Any]) -> Any:
    """What a call gives; None where it fails, which is said, and the rest is measured."""
    try:
        return call()
    except Exception as error:
        first_line, *_ = str(error).splitlines() or [""]
        say(f"FAILED: {what}: {type(error).__name__}: {first_line}")
        return None


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def timed(case: Case, device: Device, peak: dict[str, Any], pace: Pace) -> Iterator[Row]:
    """A row for each pass, with the errors and the times."""
    operands = Operands(case, device)
    for index, what in enumerate(PASSES):
        row = case.row(what, peak)
        calls = {who: made[index] for who, made in operands.calls.items()}
        errors = errors_of(calls, operands.references[index], device, f"{row['case']}, {case.numbers}, {what}")
        for who, runs in device.measure({who: calls[who] for who in errors}, pace).items():
            ms, host = zip(*runs, strict=True)
            numbers = {"median_ms": statistics.median(ms), "fastest_ms": min(ms), "host_ms": statistics.median(host)}
            rounded = {name: round(value, 5) for name, value in numbers.items()}
            reference = (case.numbers, who) == ("float64", "torch")
            row["by"][who] = {**rounded, "runs": len(runs), "error": None if reference else errors[who]}
        yield row


def errors_of(
    calls: dict[str, Callable[[], Any]], reference: Callable[[], Any], device: Device, where: str
) -> dict[str, float]:
    """Of each contestant whose call does not fail."""
    expected = attempted(f"{where}, the reference", reference)
    if expected is None:
        return {}
    errors = {
        who: attempted(f"{where}, {who}", lambda call=call: device.error(call(), expected))
        for who, call in calls.items()
    }
    return {who: error for who, error in errors.items() if error is not None}


def add_what_is_taken(rows: list[Row], case: Case, device: Device) -> None:
    """To the rows of a case, memory and launches."""
    operands = Operands(case, device)
    for row in rows:
        for who, numbers in row["by"].items():
            call = operands.calls[who][PASSES.index(row["what"])]
            what = f"{row['case']}, {case.numbers}, {row['what']}, {who}, memory and launches"
            numbers |= attempted(what, lambda call=call, who=who: device.takes(who, call)) or {}


def measure(cases: list[Case], device: Device, pace: Pace) -> Iterator[list[Row]]:
    """The rows of each case, and at the end of all once more, with memory and launches.

    They are counted when all times are known: who counts launches slows those that follow.
    """
    peak, known = peak_of(device.name), {}
    for case in cases:
        say(f"{case.layer}, batch {case.batch}, {case.numbers}")
        known[case] = attempted(f"{case}", lambda case=case: list(timed(case, device, peak, pace))) or []
        device.free()
        yield known[case]
    for case, rows in known.items():
        attempted(f"{case}", lambda case=case, rows=rows: add_what_is_taken(rows, case, device))
        device.free()
        yield rows


def rates(device: Device, names: tuple[str, ...]) -> dict[str, Any]:
    """The TB/s of a copy, bytes read and written, and the TFLOP/s of a product of matrices, by CuPy."""
    size, cupy = 256 if device.standin else 8192, device.cupy
    memory, found = cupy.zeros(4 * size * size, dtype="float32"), {}
    copy = min(device.run(memory.copy, 1)[0] for _ in range(5))
    for name in names:
        a = device.array(torch.randn((size, size), dtype=dtype_of(name), device=device.place))
        found[name] = 2e-9 * size**3 / min(device.run(lambda a=a: a @ a, 1)[0] for _ in range(5))
    return {"copy": 2e-9 * memory.nbytes / copy, "gemm": found}


def facts_of(device: Device) -> dict[str, Any]:
    own = machine()
    return {
        **{name: own[name] for name in ("cpu", "cores", "system", "date", "python", "numpy")},
        "xpconv": xpconv.__version__,
        "device": device.name,
        "standin": device.standin,
        "cupy": device.cupy.__version__,
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
    }


def child(arguments: argparse.Namespace, out: TextIO) -> int:
    """Measures in the numbers of one process, and writes what it finds, a line of JSON each."""
    try:
        device = Device(arguments.standin)
    except Exception as error:
        say(f"CuPy and torch do not both compute on a GPU here ({error!r}); --standin runs all of this without one.")
        return 2
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = os.environ["CUPY_TF32"] == "1"
    torch.backends.cudnn.benchmark = True  # the fastest that cuDNN has
    names = PROCESSES[os.environ["CUPY_TF32"]]
    pace = QUICK_PACE if arguments.quick else PACE
    known = {
        "finite": arguments.finite,
        "machine": facts_of(device),
        "peak": peak_of(device.name),
        **rates(device, names),
    }
    print(json.dumps(known), file=out)
    layers, batches = chosen(arguments)
    cases = [Case(layer, batch, name) for layer in layers for batch in batches for name in names]
    with xpconv.options(finite=arguments.finite):
        for rows in measure(cases, device, pace):
            print(json.dumps(rows), file=out)
    return 0


def chosen(arguments: argparse.Namespace) -> tuple[list[str], tuple[int, ...]]:
    parts = arguments.layers or [""]
    among = LAYERS if arguments.layers else QUICK if arguments.quick else ON_GPU
    batches = arguments.batch or ((1,) if arguments.standin else QUICK_BATCHES if arguments.quick else BATCHES)
    return [name for name in among if any(part.lower() in name.lower() for part in parts)], tuple(batches)


def written(data: dict[str, Any]) -> str:
    """JSON with a line for each row."""
    head = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in data.items() if name != "rows"]
    rows = ",\n".join(f"  {json.dumps(row)}" for row in data["rows"])
    return "{\n" + ",\n".join([*head, f' "rows": [\n{rows}\n ]']) + "\n}\n"


def collected(path: Path | None) -> tuple[dict[str, Any], list[str]]:
    """All that the processes find, written down as it comes, and what did not end well."""
    data: dict[str, Any] = {"allowed": ALLOWED}
    rows: dict[tuple[str, ...], Row] = {}
    bad = []
    for tf32 in PROCESSES:
        environment = os.environ | {"CUPY_TF32": tf32}
        command = [sys.executable, *sys.argv, "--child"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                found = json.loads(line)
                if isinstance(found, dict):
                    found["gemm"] = data.get("gemm", {}) | found["gemm"]
                    data |= found
                    continue
                rows |= {(row["case"], row["dtype"], row["what"]): row for row in found}
                data["rows"] = sorted(rows.values(), key=lambda row: NUMBERS.index(row["dtype"]))
                if path:
                    path.write_text(written(data))
        if process.returncode:
            bad.append(f"the measurement in {', '.join(PROCESSES[tf32])} ended with status {process.returncode}")
            if process.returncode == 2:
                break
    return data, bad


def checks(standin: bool, quick: bool, figure: str) -> dict[str, list[str]]:
    python = [sys.executable, *([str(STANDIN)] if standin else [])]
    module = [*python, "-m"] if standin else [sys.executable, "-m"]
    backends = "cupy:standin" if standin else "cupy,torch:cuda"
    tests = {"the tests": [sys.executable, "-m", "pytest", "-q", f"--backends={backends}"]}
    digits = [*python, "docs/examples/digits.py", "--backend", "cupy", "--figure", figure]
    return {
        **({} if quick else tests),
        "python -m xpconv": [*module, "xpconv"],
        "the digits": [*digits, *(["--epochs", "1"] if quick else [])],
    }


def checked(standin: bool, quick: bool) -> list[str]:
    """Which of the things that have to work do not; they are all tried, and the benchmark after them."""
    bad = []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with TemporaryDirectory() as folder:
        for name, command in checks(standin, quick, f"{folder}/digits.png").items():
            say(f"{name}: {' '.join(command)}")
            if status := subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
                bad.append(f"{name} ended with status {status}")
    return bad


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four layers at batch 8; no tests, and little training")
    parser.add_argument("--layers", action="append", metavar="NAME", help="layers whose name contains this")
    parser.add_argument(
        "--batch", action="append", type=int, metavar="N", help="this batch (8 and 64, or 1 by --standin)"
    )
    parser.add_argument("--finite", action="store_true", help="ours under xpconv.options(finite=True)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write down all that was measured, as it comes")
    parser.add_argument("--no-checks", action="store_true", help="the benchmark alone")
    parser.add_argument("--standin", action="store_true", help="without a GPU: CuPy's stand-in and torch on the CPU")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not chosen(arguments)[0]:
        parser.error(f"no layer of this name; there are {', '.join(LAYERS)}")
    return arguments


def main() -> int:
    arguments = parsed()
    if arguments.child:
        with os.fdopen(os.dup(1), "w", buffering=1) as out:
            os.dup2(2, 1)  # what libraries print is not among the rows
            return child(arguments, out)
    bad = [] if arguments.no_checks else checked(arguments.standin, arguments.quick)
    data, worse = collected(arguments.json)
    bad += worse
    if rows := data.get("rows"):
        print(gpu_page.details(data), gpu_page.summary(data), sep="\n\n")
        bad += wrong_rows(rows)
        bad += [f"{row['case']}, {row['dtype']}, {row['what']}: failed" for row in rows if OURS not in row["by"]]
    for text in bad:
        say(f"NOT WELL: {text}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
