"""The functions that torch's compiler takes as one step of its graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["PUBLIC"]

PUBLIC: list[Callable[..., Any]] = []
