"""`python -m xpconv`: right results pass, wrong ones and errors do not, and what is absent is said to be."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

import xpconv
import xpconv.__main__ as command


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """NumPy and a library that there is not, and the small cases; the whole command runs in `nox -s build`."""
    monkeypatch.setattr(command, "LIBRARIES", {"numpy": (None,), "no_such_library": (None,)})
    monkeypatch.setattr(command, "CASES", command.CASES[:2])


def test_right(capsys, monkeypatch, library):
    monkeypatch.setitem(command.LIBRARIES, library, (None,))
    assert command.main() == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith(f"{library} ")]
    assert len(rows) == 2
    assert all(row.endswith(" ok") for row in rows)
    assert all(import_module(library).__version__ in row for row in rows)
    assert "no_such_library: absent" in lines


def test_wrong(capsys, monkeypatch):
    right = xpconv.conv

    def wrong(x, *arguments, **parameters):
        y = right(x, *arguments, **parameters)
        y[0, 0, 0, 0] += 1e-3 * abs(y).max()
        return y

    monkeypatch.setattr(command, "conv", wrong)
    assert command.main() == 1
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("numpy")]
    assert [row.split()[-1] for row in rows] == ["wrong", "wrong"]


def test_a_gradient_of_another_dtype(capsys, monkeypatch):
    right = xpconv.conv_backward

    def wrong(*arguments, **parameters):
        return [gradient.astype("complex128") for gradient in right(*arguments, **parameters)]

    monkeypatch.setattr(command, "conv_backward", wrong)
    assert command.main() == 1
    assert capsys.readouterr().out.count(" wrong") == 2


def test_an_error_is_a_failure_and_the_rest_still_runs(capsys, monkeypatch):
    right = xpconv.conv

    def fails_in_float64(x, *arguments, **parameters):
        if x.dtype == np.float64:
            raise MemoryError("no room")
        return right(x, *arguments, **parameters)

    monkeypatch.setattr(command, "conv", fails_in_float64)
    assert command.main() == 1
    output = capsys.readouterr().out
    assert output.count("MemoryError: no room") == 1
    assert output.count(" ok\n") == 1


def test_a_device_that_does_not_work_is_no_failure(capsys, monkeypatch):
    monkeypatch.setattr(command, "LIBRARIES", {"numpy": (None, "no such device")})
    assert command.main() == 0
    assert "numpy on no such device: does not work here" in capsys.readouterr().out
