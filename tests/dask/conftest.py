"""CuPy for dask, whose chunks may be CuPy's: it looks for CuPy when it is imported."""

from __future__ import annotations

import cupy_standin
import pytest


@pytest.hookimpl(trylast=True)  # once the backends have been imported
def pytest_configure(config):
    if not any(backend.name == "cupy" for backend in config.backends):
        cupy_standin.install()
