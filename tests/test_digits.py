"""The example that the README gives first: it learns, it draws, and it says what is wrong in one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "digits.py"


def run(*arguments):
    return subprocess.run([sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, check=False)


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
