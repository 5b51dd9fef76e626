"""The benchmark for a GPU, on CuPy's stand-in where there is none: that it runs to its end, and what it counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import fit
import gpu
import gpu_page
import pytest
from contestants import OURS, PASSES
from device import Device
from layers import LAYERS
from measure import Pace, wrong_rows

import xpconv
from xpconv._algorithms import costs, gpu_costs

TINY = "tiny 3 taps"


@pytest.fixture
def device(request):
    return Device(standin="cupy" not in [backend.name for backend in request.config.backends])


def rows_of(device):
    """A layer's in float32; those with memory and launches come last."""
    *_, rows = gpu.measure([gpu.Case(TINY, 2, "float32")], device, Pace(turns=1, seconds=0))
    return rows


def test_it_runs_to_its_end_and_the_page_is_made_of_it(tmp_path):
    path, program = tmp_path / "gpu-none.json", str(Path(gpu.__file__))
    assert gpu_page.page(tmp_path) == gpu_page.tables(tmp_path) == gpu_page.NOTHING
    arguments = ["--standin", "--no-checks", "--layers", TINY, "--batch", "2", "--finite", "--json", str(path)]
    command, environment = [sys.executable, program, *arguments], os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    data = json.loads(path.read_text())
    assert [(row["dtype"], row["what"]) for row in data["rows"]] == [(n, what) for n in gpu.NUMBERS for what in PASSES]
    for row in data["rows"]:
        assert all(by["median_ms"] >= by["fastest_ms"] > 0 for by in (row["by"][who] for who in (OURS, "torch")))
        assert row["by"][OURS]["launches"] > 0
    for page in (gpu_page.page(tmp_path), result.stdout):
        assert gpu_page.MEANINGLESS in page
        assert "xpconv is the faster one in" in page
        assert "under options(finite=True)" in page
    for page in (gpu_page.tables(tmp_path), result.stdout):
        assert page.count(f"| {TINY}, batch 2 |") == len(data["rows"])


def test_no_gpu_is_one_sentence(monkeypatch, capsys):
    def no_gpu(_):
        raise RuntimeError("no driver")

    monkeypatch.setattr(gpu, "Device", no_gpu)
    monkeypatch.setenv("CUPY_TF32", "0")
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.child(gpu.parsed(), sys.stdout) == 2
    said = capsys.readouterr()
    assert said.err.startswith("CuPy and torch do not both compute on a GPU here (RuntimeError('no driver'))")
    assert not said.out


def test_wrong_and_failing_results_are_noticed_and_the_rest_is_measured(device, monkeypatch, capsys):
    right = xpconv.conv_weight_grad
    monkeypatch.setattr(xpconv, "conv_weight_grad", lambda *args, **kwargs: right(*args, **kwargs) * 1.001)
    monkeypatch.delattr(xpconv, "conv_input_grad")
    forward, dx, dweight = rows_of(device)
    assert not wrong_rows([forward])
    assert len(wrong_rows([dweight])) == 1
    assert list(dx["by"]) == ["torch"]
    assert f"FAILED: {TINY}, batch 2, float32, dx, {OURS}: AttributeError" in capsys.readouterr().err
    data = {"finite": False, "rows": [forward, dx, dweight], "allowed": gpu.ALLOWED, "peak": gpu.peak_of(device.name)}
    data |= {"machine": gpu.facts_of(device), **gpu.rates(device, ("float32",))}
    assert "in 3 of" not in gpu_page.summary(data)
    assert gpu_page.details(data).count(TINY) == 3
    monkeypatch.setattr(gpu, "collected", lambda _: (data, []))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--no-checks"])
    assert gpu.main() == 1
    assert [line[:8] for line in capsys.readouterr().err.splitlines()] == ["NOT WELL"] * 2


def test_memory_and_launches_are_those_of_the_call(device):
    a = device.cupy.ones(1000, dtype="float32")
    assert device.takes(OURS, lambda: (a + a) * a - a) == {"extra_bytes": 4096 + 96, "launches": 3}


def test_a_run_calls_as_often_as_it_says(device):
    calls = []
    assert min(device.run(lambda: calls.append(device.cupy.ones(2)), 3)) > 0
    assert len(calls) == 3


def test_no_number_hides_an_error_that_is_nan():
    rows = [{"dtype": "float32", "by": {OURS: {"error": error}}} for error in (1e-7, float("nan"), 2e-7)]
    table = gpu_page.errors({"rows": rows, "allowed": gpu.ALLOWED})
    assert [cell.strip() for cell in table.splitlines()[-1].split("|")][1:-1] == ["float32", "nan", "", "2.0e-05"]


def test_floors_are_of_bytes_or_of_multiplications():
    peak = gpu.peak_of("NVIDIA H100 80GB HBM3")
    row = gpu.Case("ResNet 1x1 narrow @56", 8, "float16").row("dx", peak)
    assert (row["bytes"], row["bound"]) == (2 * (8 * 256 * 56**2 + 256 * 64 + 8 * 64 * 56**2), "bytes")
    assert row["floor_ms"] == pytest.approx(1e3 * row["bytes"] / 3.35e12, rel=1e-2)
    row = gpu.Case("ResNet 3x3 @56", 8, "float32").row("dx", peak)
    assert (row["flops"], row["bound"]) == (2 * 8 * 64 * 56**2 * 64 * 9, "FLOPs")
    assert row["floor_ms"] == pytest.approx(1e3 * row["flops"] / 67e12, rel=1e-2)
    assert (peak["device"], peak["known"]) == ("H100", True)
    assert gpu.peak_of("NVIDIA H200")["bytes"] > peak["bytes"]
    assert gpu.peak_of("another") == peak | {"known": False}


def test_every_check_is_tried(monkeypatch):
    commands = {name: [sys.executable, "-c", f"raise SystemExit({status})"] for name, status in (("a", 3), ("b", 0))}
    monkeypatch.setattr(gpu, "checks", lambda *_: commands | {"c": commands["a"]})
    assert gpu.checked(standin=True, quick=True) == ["a ended with status 3", "c ended with status 3"]


def test_layers_are_chosen_by_a_part_of_their_name(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--layers", "vgg", "--layers", "ViT"])
    names, batches = gpu.chosen(gpu.parsed())
    assert {name.partition(" ")[0] for name in names} == {"VGG", "ViT"}
    assert batches == (8, 64)
    assert len(set(gpu.ON_GPU) & {*LAYERS}) == 20
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--layers", "nobody"])
    with pytest.raises(SystemExit):
        gpu.parsed()
    assert "no layer of this name; there are ResNet stem" in capsys.readouterr().err


def test_prices_of_a_gpu_are_measured_and_written_to_their_place(device):
    layer = LAYERS[TINY]
    measured = fit.rows(layer, 2, "float32", None, fit.place_of("cupy", standin=device.standin))
    names = {name for name, *_ in measured}
    assert {"lowering", "winograd", "fft"} < names
    assert names <= {name for name, _ in gpu_costs.GPU_COSTS[4]}
    prices = fit.fitted(measured)
    path, table = fit.HOMES["cupy"]
    changed = fit.with_table(path.read_text(), table, ["Of a GPU."], prices)
    assert "\n# Of a GPU.\nGPU_COSTS = {\n    4: {\n" in changed
    values: dict = {}
    exec(changed, values)
    assert {key: [*row] for key, row in values["GPU_COSTS"][4].items()} == prices[4]
    assert values["GPU_TURN"] == gpu_costs.GPU_TURN


def test_the_table_of_prices_is_as_it_is_written():
    path, table = fit.HOMES["numpy"]
    source = path.read_text()
    comment = [line.removeprefix("# ") for line in source.splitlines() if line.startswith("#")]
    assert fit.with_table(source, table, comment, costs.COSTS) == source
