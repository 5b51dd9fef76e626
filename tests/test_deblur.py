"""The example of a photograph: less is wrong with it afterwards, with SciPy's solver and with CuPy's."""

from __future__ import annotations

import os
import re
import sys

import cupy_standin
import pytest
from support import run_example

# What the example takes from CuPy's module of solvers, with the signatures of CuPy 14, for where the stand-in runs.
SOLVERS = """
class LinearOperator:
    def __init__(self, shape, matvec, rmatvec=None, matmat=None, dtype=None, rmatmat=None):
        self.shape, self.dtype, self.matvec, self.rmatvec = shape, dtype, matvec, rmatvec


def cg(A, b, x0=None, *, rtol=1e-5, atol=0.0, maxiter=None, M=None, callback=None):
    x, residual = x0, b - A.matvec(x0)
    direction, slope = residual, (residual * residual).sum()
    for _ in range(maxiter):
        image = A.matvec(direction)
        length = slope / (direction * image).sum()
        x, residual = x + length * direction, residual - length * image
        slope, before = (residual * residual).sum(), slope
        direction = residual + slope / before * direction
        callback(x)
    return x, maxiter
"""


@pytest.fixture
def solvers(monkeypatch, tmp_path):
    """In the place of cupyx, where CuPy is the stand-in, which has none."""
    if cupy_standin.stands_for(sys.modules.get("cupy")):
        folder = tmp_path / "cupyx" / "scipy" / "sparse"
        folder.mkdir(parents=True)
        for package in (folder, *folder.parents[:2]):
            (package / "__init__.py").touch()
        (folder / "linalg.py").write_text(SOLVERS, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))


SMALL = ("--size", 72, "--rounds", 3, "--iterations", 8)


@pytest.mark.usefixtures("solvers")
def test_the_photograph_is_restored(request, tmp_path):
    """With each library that has solvers. 5 decibels more are hardly more than half the error."""
    figure = tmp_path / "deblur.png"
    libraries = {backend.name.partition(":")[0] for backend in request.config.backends}
    for library in sorted(libraries & {"numpy", "cupy"}):
        done = run_example("deblur.py", "--backend", library, *SMALL, "--figure", figure)
        assert done.returncode == 0, done.stderr
        seen, restored, residual = map(float, re.findall(r"(\d+\.\d+)(?: dB|, noise)", done.stdout))
        assert restored > seen + 5
        assert 0.007 < residual < 0.013  # of a noise of 0.01: neither blurred still nor restored from noise
        assert "24/24" in done.stderr  # the progress bar
        assert figure.read_bytes().startswith(b"\x89PNG")
        figure.unlink()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--backend", "torch"), "argument --backend: invalid choice: 'torch'"),
        (("--size", 428), "deblur.py: error: --size must be from 32 to 427: got 428"),
        (("--figure", "no such folder/deblur.png"), "--figure no such folder/deblur.png: there is no such folder"),
    ],
)
def test_what_is_wrong_is_said_first(arguments, sentence):
    done = run_example("deblur.py", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr.splitlines()[-1]
