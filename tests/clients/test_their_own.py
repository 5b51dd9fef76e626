"""The programs' own tests of convolution, run on top of xpconv: as they come with the programs, none changed."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PATHS = (HERE, HERE.parents[1] / "docs" / "inside", HERE.parents[1])


def run(plugin, *arguments):
    """What pytest says of their tests, with the plugin that puts xpconv inside; and that they came to xpconv."""
    paths = os.pathsep.join([*map(str, PATHS), os.environ.get("PYTHONPATH", "")])
    options = ("-q", "-c", os.devnull, "--rootdir", HERE, "-p", "no:cacheprovider", "-p", "counted", "-p", plugin)
    command = [sys.executable, "-m", "pytest", *map(str, options), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    calls = re.search(r"calls of xpconv: (\d+)", done.stdout)
    passed = re.search(r"(\d+) passed", done.stdout)
    return int(calls[1]), int(passed[1])


def folder_of(package):
    return Path(*importlib.util.find_spec(package).submodule_search_locations)


@pytest.fixture
def source(request, tmp_path):
    """Unpacks a file of a source distribution, and what lies beside it."""
    sdists = request.config.getoption("--sdists")

    def unpack(program, folder):
        if sdists is None:
            pytest.fail(f"the tests of {program} are in its source distribution: say where with --sdists, as nox does")
        name = f"{program}-{version(program)}"
        with tarfile.open(Path(sdists, f"{name}.tar.gz")) as files:
            files.extractall(tmp_path, filter="data")
        return tmp_path / name / folder

    return unpack


def test_keras():
    """The operations and the layers."""
    keras = folder_of("keras") / "src"
    selected = ("-k", "conv", "-m", "not requires_trainable_backend")  # NumPy's backend trains nothing
    calls, passed = run("with_keras", *selected, keras / "ops" / "nn_test.py", keras / "layers" / "convolutional")
    assert calls > 300
    assert passed > 300


def test_onnx():
    """What a backend of ONNX has to get right; of its operators those that convolve."""
    calls, passed = run("with_onnx", "-k", "conv or col2im", HERE / "their_onnx.py")
    assert calls > 60
    assert passed > 60


def test_autograd(source):
    """`autograd.scipy.signal.convolve`: values, gradients and gradients of gradients."""
    calls, passed = run("their_autograd", "-k", "convolve", source("autograd", "tests") / "test_scipy.py")
    assert calls > 1000
    assert passed == 5


def test_pylops(source):
    """Its operators: that the adjoint is one, and that they can be inverted."""
    selected = ("-k", "float32 and not Convolve2D")  # the others take two minutes, with SciPy too
    calls, passed = run("their_pylops", *selected, source("pylops", "pytests") / "test_convolve.py")
    assert calls > 1000
    assert passed > 10
