"""The example that the README gives first: a little training, and what is wrong in one sentence.

All its training is in tests/examples.
"""

from __future__ import annotations

import pytest
from support import digits_read, run_example


def test_it_learns_with_every_library(library, tmp_path):
    """One epoch; by chance one digit in ten is right."""
    result = run_example("digits.py", "--backend", library, "--epochs", 1, "--figure", tmp_path / "digits.png")
    assert result.returncode == 0, result.stderr
    assert digits_read(result.stdout) > 50


def test_a_figure_that_cannot_be_saved_is_said_before_training(tmp_path):
    result = run_example("digits.py", "--figure", tmp_path / "no such folder" / "digits.png")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith("there is no such folder")


@pytest.mark.parametrize("name", ["no_such_library", "json"])
def test_a_backend_that_cannot_run_is_one_sentence(name):
    result = run_example("digits.py", "--backend", name)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"The backend {name} does not work here: ")
    assert result.stderr.count("\n") == 1
