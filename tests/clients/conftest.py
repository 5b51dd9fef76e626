"""Programs that know nothing of xpconv, with it inside: docs/inside has the lines that put it there."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

INSIDE = Path(__file__).parents[2] / "docs" / "inside"

os.environ["KERAS_BACKEND"] = "numpy"
# Keras writes its configuration there, else into the home directory.
_keras = tempfile.TemporaryDirectory()
os.environ["KERAS_HOME"] = _keras.name
sys.path.insert(0, str(INSIDE))

# Before a stand-in for CuPy takes its place: sigpy and pylops look for CuPy when they are imported, and want all of it.
import pylops  # noqa: E402, F401
import sigpy  # noqa: E402, F401


def pytest_addoption(parser):
    parser.addoption("--sdists", help="the folder of the source distributions of autograd and pylops, for their tests")
