"""The example on a cluster: it sharpens, it draws, and it runs on a cluster that is there already."""

from __future__ import annotations

import pytest
from distributed import LocalCluster
from support import run_example


def run(*arguments):
    return run_example("volume.py", *arguments, timeout=300)


def off(output):
    """How far from the brain the versions are."""
    lines = [line.partition(": off by ") for line in output.splitlines() if "off by" in line]
    return {name: float(error) for name, _, error in lines}


@pytest.mark.parametrize("own", [True, False], ids=["a cluster of its own", "one that runs already"])
def test_it_sharpens(own, tmp_path):
    figure = tmp_path / "volume.png"
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        address = [] if own else ["--scheduler", cluster.scheduler_address]
        result = run(*address, "--steps", 2, "--figure", figure)
    assert result.returncode == 0, result.stderr
    errors = off(result.stdout)
    assert errors["the brain"] == 0
    assert errors["by the learned filter"] < 0.9 * errors["blurred, with noise"]
    assert errors["by descent"] < 0.9 * errors["blurred, with noise"]
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "filter: 100%" in result.stderr  # the progress bar
    assert "run_spec" not in result.stderr  # of which the scheduler would warn: tasks of the same name that differ


def test_a_figure_that_cannot_be_saved_is_said_first(tmp_path):
    result = run("--figure", tmp_path / "no such folder" / "volume.png")
    assert result.returncode == 2
    assert "--figure must be in a folder that exists" in result.stderr
