"""Integers only: parts cover the whole once, and fit."""

import tracemalloc
from itertools import pairwise, product

import pytest

from xpconv._spec.geometry import Axis, Geometry
from xpconv._spec.parts import GROUPS, INPUTS, OUTPUTS, POSITIONS, SAMPLES, Budget, Parts, cut, largest

GEOMETRIES = [
    Geometry(1, 3, 2, 2, (Axis(9, 2, 2, 1, 1, 1),)),
    Geometry(3, 2, 5, 4, (Axis(5, 3, 1, 1, 0, 0), Axis(6, 1, 1, 1, 1, 1))),
    Geometry(2, 1, 3, 4, (Axis(4, 1, 1, 1, 0, 0), Axis(3, 2, 1, 1, 0, 1), Axis(7, 2, 3, 2, 2, 0))),
    Geometry(4, 3, 2, 1, ()),
    Geometry(0, 2, 2, 2, (Axis(3, 1, 1, 1, 0, 0),)),
]


def size(geometry):
    """Something that grows with everything."""
    channels = geometry.groups * (geometry.outputs + geometry.inputs)
    return channels * geometry.samples * (geometry.positions + len(geometry.axes) * sum(geometry.padded, 1))


@pytest.mark.parametrize("limit", [0, 40, 150, 600, 10**9])
@pytest.mark.parametrize("by_input", [False, True])
@pytest.mark.parametrize("rounds", [GROUPS, OUTPUTS, INPUTS])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_parts_cover_the_whole_once(geometry, rounds, by_input, limit):
    positions = range(POSITIONS, POSITIONS + len(geometry.axes))
    order = (GROUPS, SAMPLES, *positions, INPUTS, OUTPUTS)
    lengths = cut(geometry, Budget(size, limit), order, by_input=by_input)
    parts = Parts(geometry, lengths, by_input, rounds)
    most = size(largest(geometry, lengths, by_input))
    smallest = size(largest(geometry, (1,) * len(lengths), by_input))
    assert most <= limit or most <= smallest * 5 / 4 or 0 in geometry.x_shape
    seen, cells_of_w = set(), []
    for i in range(parts.count):
        part = parts[i]
        small = part.geometry
        assert size(small) <= most
        for where, shape in ((part.x, small.x_shape), (part.y, small.y_shape), (part.w[:2], small.w_shape[:2])):
            assert tuple(s.stop - s.start for s in where) == shape
        cells_of_w.append((part.w[0].start, part.w[1].start))
        whole = part.x if by_input else part.y
        # Every product belongs to one part: that of its weights, and of its place in x or y.
        channel = range(part.w[0].start, part.w[0].stop), range(part.w[1].start, part.w[1].stop)
        cells = set(product(*channel, *(range(s.start, s.stop) for s in (whole[0], *whole[2:]))))
        assert not cells & seen
        seen |= cells
    lengths = geometry.size if by_input else geometry.out
    w = range(geometry.groups * geometry.outputs), range(geometry.inputs)
    assert seen == set(product(*w, range(geometry.samples), *map(range, lengths)))
    if rounds == GROUPS:
        changes = sum(one != other for one, other in pairwise(cells_of_w))
        assert changes + 1 == len(set(cells_of_w)) or not parts.count  # parts of the same weights are neighbours


def test_cut_is_as_little_as_will_do_and_even():
    geometry = Geometry(10, 1, 1, 1, (Axis(12, 1, 1, 1, 0, 0),))

    def lengths(limit, unit=1):
        budget = Budget(lambda part: part.samples * part.positions, limit)
        return cut(geometry, budget, (SAMPLES, POSITIONS), units=(unit,))

    assert lengths(120) == (1, 1, 1, 10, 12)
    assert lengths(119) == (1, 1, 1, 5, 12)
    assert lengths(50) == (1, 1, 1, 4, 12)
    assert lengths(11) == (1, 1, 1, 1, 6)
    assert lengths(9, unit=4) == (1, 1, 1, 1, 8)
    assert lengths(7, unit=4) == (1, 1, 1, 1, 4)
    assert lengths(3, unit=4) == (1, 1, 1, 1, 4)


@pytest.mark.parametrize("by_input", [False, True])
def test_a_part_of_several_groups_has_all_of_their_channels(by_input):
    geometry = Geometry(1, 2, 2, 3, (Axis(8, 2, 5, 1, 0, 0), Axis(7, 2, 4, 1, 0, 1)))
    positions = range(POSITIONS, POSITIONS + len(geometry.axes))
    for order in ((GROUPS, SAMPLES, INPUTS, *positions, OUTPUTS), (GROUPS, SAMPLES, *positions, INPUTS, OUTPUTS)):
        for limit in range(0, 800, 7):
            groups, outputs, inputs, *_ = cut(geometry, Budget(size, limit), order, by_input=by_input)
            assert groups == 1 or (outputs, inputs) == (2, 3)


def test_what_does_not_fit_is_not_cut_for_nothing():
    """One window takes 100 places, however few outputs a part has: cutting these makes parts no smaller."""
    geometry = Geometry(4, 1, 6, 1, (Axis(100, 100, 1, 1, 3, 3),))

    def lengths(limit, by_input):
        order = (SAMPLES, POSITIONS, OUTPUTS)
        budget = Budget(lambda part: part.samples * 100 + part.outputs, limit)
        return cut(geometry, budget, order, by_input=by_input)

    assert lengths(450, by_input=False) == (1, 6, 1, 4, 7)
    assert lengths(10, by_input=False) == (1, 6, 1, 1, 7)
    assert lengths(10, by_input=True) == (1, 6, 1, 1, 100)


LONG = [
    Axis(size, kernel, stride, dilation, lo, hi)
    for size, kernel, stride, dilation, lo, hi in product((1, 7, 12), (1, 2, 5, 12), (1, 2, 5), (1, 2), (0, 3), (0, 4))
    if lo + size + hi > dilation * (kernel - 1)
]


@pytest.mark.parametrize("by_input", [False, True])
def test_no_part_reads_more_than_the_largest_and_none_more_than_there_is(by_input):
    for axis in LONG:
        geometry = Geometry(1, 1, 1, 1, (axis,))
        for step in range(1, (axis.size if by_input else axis.out) + 1):
            parts = Parts(geometry, (1, 1, 1, 1, step), by_input, GROUPS)
            most = largest(geometry, parts.lengths, by_input)
            assert most.out[0] <= axis.out
            for i in range(parts.count):
                part = parts[i].geometry
                assert part.positions <= most.positions
                assert part.padded[0] <= most.padded[0] or not part.positions


def test_a_cut_into_very_many_parts_is_never_held_at_once():
    geometry = Geometry(1, 1, 1, 1, (Axis(102, 3, 1, 1, 0, 0), Axis(102, 3, 1, 1, 0, 0)))
    tracemalloc.start()
    parts = Parts(geometry, (1, 1, 1, 1, 1, 1), False, GROUPS)
    assert sum(parts[i].geometry.positions for i in range(parts.count)) == 100 * 100
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 47 * parts.count  # bytes: not even a tuple could be held for each part
    assert kept < 47 * parts.count
