"""dask's column of the table of capabilities."""

from __future__ import annotations

import pytest
from capabilities import cases, verify


@pytest.mark.parametrize(("feature", "of"), [pytest.param(*case, id=case[0].title) for case in cases("dask")])
def test_it_is_as_the_table_says(feature, of):
    verify(feature, of)
