"""Which backends run, and a fresh one for each test."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
import torch
from support import CPU, Backend, in_blocks_of

# A backend has no state that one example could leave to the next, so a fixture for a whole test will do.
hypothesis.settings.register_profile(
    "xpconv",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("xpconv")

# torch starts threads for the smallest tensors, which cost ten times what they save. No test here is about them.
torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption(
        "--backends", default=",".join(CPU), help="comma-separated backends to test; one that cannot run is an error"
    )


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "writable_too: where NumPy's read-only arrays are tested, the test runs on writable ones as well"
    )
    names = config.getoption("--backends").split(",")
    if {"cupy", "cupy:standin"} <= {*names}:
        raise pytest.UsageError("CuPy and its stand-in have one name: ask for one of cupy and cupy:standin at a time")
    try:
        config.backends = [Backend.named(name) for name in names]
    except LookupError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_report_header(config):
    return [f"backend: {backend}" for backend in config.backends]


def with_writable(backends):
    """Of NumPy both, where only the read-only one was asked for."""
    names = {backend.name for backend in backends}
    wanting = "numpy:readonly" in names and "numpy" not in names
    return [Backend.named("numpy"), *backends] if wanting else backends


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        backends = metafunc.config.backends
        if metafunc.definition.get_closest_marker("writable_too"):
            backends = with_writable(backends)
        metafunc.parametrize("backend", backends, ids=[backend.name for backend in backends], indirect=True)
    if "library" in metafunc.fixturenames:
        names = [backend.name.partition(":")[0] for backend in metafunc.config.backends]
        metafunc.parametrize("library", list(dict.fromkeys(names)))


@pytest.fixture
def backend(request):
    """Each of the backends asked for; array-api-strict at its strictest."""
    chosen = request.param
    if chosen.name != "array_api_strict":
        yield chosen
        return
    with chosen.xp.ArrayAPIStrictFlags(
        api_version="2024.12", boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=("fft",)
    ):
        yield chosen


@pytest.fixture(autouse=True)
def seeded_torch():
    """Whatever tests ran before, torch draws the same weights for its layers, and the same vectors to check with."""
    torch.manual_seed(20261123)


@pytest.fixture
def rng():
    return np.random.default_rng(20261123)


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request, monkeypatch):
    """The whole in one block, and in blocks of a few columns each."""
    size = 2**26 if request.param == "one block" else 5600
    in_blocks_of(monkeypatch, size)


@pytest.fixture
def standin(request):
    for backend in request.config.backends:
        if backend.name == "cupy:standin":
            return backend
    pytest.skip("only the stand-in for CuPy counts what a GPU would do")
