"""The table of capabilities, for the libraries that this session has."""

from __future__ import annotations

import pytest
from capabilities import cases, verify


def pytest_generate_tests(metafunc):
    asked = dict.fromkeys(backend.name.partition(":")[0] for backend in metafunc.config.backends)
    found = cases(*asked)
    metafunc.parametrize(("feature", "of"), found, ids=[f"{of}-{feature.title}" for feature, of in found])


# torch's forward mode compiles a script of its own when it is first used.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_it_is_as_the_table_says(feature, of):
    verify(feature, of)
