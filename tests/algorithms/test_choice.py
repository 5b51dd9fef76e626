"""The choice: the cheapest of all ways, found without planning all of them."""

from __future__ import annotations

import gc
import tracemalloc
from itertools import product

import numpy as np
import pytest

from xpconv import conv, conv_backward
from xpconv._algorithms import choose as choosing
from xpconv._algorithms.choose import Wanted, choose, ways
from xpconv._algorithms.plan import Limits
from xpconv._engines import problem as problems
from xpconv._spec.geometry import parse

WANTED = Wanted(Limits(4, 2**26, 2**23, 2**62), True, True, True, "auto", "auto")
CASES = {
    "3x3": ((8, 64, 56, 56), (64, 64, 3, 3), (1, 1, 1, 1)),
    "few channels": ((1, 16, 12, 100), (16, 16, 3, 3), (1, 1, 1, 1)),
    "1x1": ((2, 256, 14, 14), (64, 256, 1, 1), (1, 0, 1, 1)),
    "depthwise": ((4, 96, 40, 40), (96, 1, 7, 7), (1, 3, 1, 96)),
    "in strides": ((2, 24, 33, 34), (48, 24, 3, 3), ((2, 3), 1, 1, 1)),
    "strides longer than the kernel": ((3, 4, 200), (4, 4, 3), (5, 0, 1, 1)),
    "a long kernel in strides": ((1, 2, 5_000), (2, 2, 301), (4, 7, 1, 1)),
    "dilated": ((1, 8, 60, 60), (8, 8, 3, 5), (1, (4, 6), (3, 2), 1)),
    "windows in the padding": ((2, 3, 4, 5), (3, 3, 2, 2), (1, 30, 1, 1)),
    "cropped": ((2, 3, 40, 50), (3, 3, 3, 3), (2, [(-5, 0), (3, -9)], 1, 1)),
    "three axes": ((1, 8, 20, 20, 20), (8, 8, 3, 3, 3), (1, 1, 1, 1)),
    "no axis": ((4, 6), (3, 6), (1, 0, 1, 1)),
    "no samples": ((0, 16, 9), (16, 16, 3), (1, 1, 1, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_cheapest_of_all_ways(name):
    x, w, parameters = CASES[name]
    geometry = parse(x, w, *parameters)
    for slot, item_bytes, workspace in product("yxw", (4, 8), (2**20, 2**26)):
        wanted = WANTED._replace(limits=Limits(item_bytes, workspace, workspace // 8))
        assert choose(geometry, slot, wanted) == ways(geometry, slot, wanted)[0]


def test_few_ways_are_planned(monkeypatch):
    planned = []
    plan = choosing.plan
    monkeypatch.setattr(choosing, "plan", lambda *args: planned.append(args) or plan(*args))
    for x, w, parameters in CASES.values():
        geometry = parse(x, w, *parameters)
        for slot in "yxw":
            planned.clear()
            choose(geometry, slot, WANTED)
            few = len(planned)
            planned.clear()
            ways(geometry, slot, WANTED)
            phases = len(geometry.gradient_phases()) if slot == "x" else 0
            assert few <= len(planned)
            assert few <= 6 + 2 * phases


def test_phases_of_equal_geometry_are_planned_once():
    geometry = parse((1, 4, 400), (4, 4, 8), 4, 2, 1, 1)
    (way,) = (way for way in ways(geometry, "x", WANTED) if way.rewritten)
    assert len(way.pieces) == 4
    assert len({id(piece.plan) for piece in way.pieces}) < 4


def test_what_is_remembered_is_forgotten_with_its_problem(monkeypatch):
    """Plans, and all that is derived from a geometry, live and die with the problem."""
    monkeypatch.setattr(problems, "MOST_REMEMBERED", 8)
    problems._problems.clear()
    w = np.ones((4, 4, 3, 3), dtype="float32")

    def calls(sizes):
        for size in sizes:
            x = np.ones((1, 4, 12, size), dtype="float32")
            conv_backward(conv(x, w, padding=1), x, w, padding=1)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = calls(range(20, 40))
        after = calls(range(40, 140))
    finally:
        tracemalloc.stop()
    assert after - before < 2**17
