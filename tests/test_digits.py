"""The example that the README gives first: it learns, it draws, and it says what is wrong in one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cupy_standin
import pytest

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "digits.py"
WITH_THE_STANDIN = f"""
import runpy, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import cupy_standin
cupy_standin.install()
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*arguments):
    """In a process of its own, where CuPy is what it is in this one."""
    start = ["-c", WITH_THE_STANDIN] if cupy_standin.stands_for(sys.modules.get("cupy")) else []
    command = [sys.executable, *start, str(EXAMPLE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def accuracy(output):
    return float(output.partition("held-out fifth: ")[2].partition("%")[0])


def test_it_learns_to_read(tmp_path):
    figure = tmp_path / "digits.png"
    result = run("--figure", str(figure))
    assert result.returncode == 0, result.stderr
    assert accuracy(result.stdout) >= 97
    assert str(figure) in result.stdout
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "loss" in result.stderr  # the progress bar


def test_it_learns_with_every_library(library, tmp_path):
    """One epoch; by chance one digit in ten is right."""
    result = run("--backend", library, "--epochs", "1", "--figure", str(tmp_path / "digits.png"))
    assert result.returncode == 0, result.stderr
    assert accuracy(result.stdout) > 50


def test_a_figure_that_cannot_be_saved_is_said_before_training(tmp_path):
    result = run("--figure", str(tmp_path / "no such folder" / "digits.png"))
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith("there is no such folder")


@pytest.mark.parametrize("name", ["no_such_library", "json"])
def test_a_backend_that_cannot_run_is_one_sentence(name):
    result = run("--backend", name)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"The backend {name} does not work here: ")
    assert result.stderr.count("\n") == 1
