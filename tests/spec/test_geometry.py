"""Integers only: every size is counted here, window by window, and compared with the formulas."""

from functools import partial
from itertools import product

import numpy as np
import pytest

from xpconv import conv_output_size
from xpconv._engines.problem import Problem
from xpconv._spec.geometry import Axis, parse
from xpconv._spec.memory import remember

AXES = [Axis(*row) for row in product(range(7), range(1, 4), range(1, 5), range(1, 4), range(-1, 4), range(-1, 4))]


def reads(axis, outputs):
    """Which input (or nothing, None) each tap of each window meets, walking the padded axis one by one."""
    cells = [None] * max(axis.lo, 0) + list(range(axis.size)) + [None] * max(axis.hi, 0)
    cells = cells[max(-axis.lo, 0) : len(cells) - max(-axis.hi, 0)]
    return [[cells[j * axis.stride + t * axis.dilation] for t in range(axis.kernel)] for j in outputs]


def count(axis):
    """How many windows fit, by trying."""
    cells, windows = axis.lo + axis.size + axis.hi, 0
    while windows * axis.stride + (axis.kernel - 1) * axis.dilation < cells:
        windows += 1
    return windows


def fits(axis):
    return axis.size + min(axis.lo, 0) + min(axis.hi, 0) >= 0 and count(axis) > 0


def test_output_size_is_how_many_windows_fit():
    for axis in AXES:
        size, kernel, stride, dilation, lo, hi, *_ = axis
        arguments = {"stride": stride, "padding": [(lo, hi)], "dilation": dilation}
        if fits(axis):
            assert conv_output_size(size, kernel, **arguments) == (count(axis),), axis
        else:
            with pytest.raises(ValueError, match=r"^(the kernel must fit|padding must not crop)"):
                conv_output_size(size, kernel, **arguments)


def test_a_part_of_an_axis_reads_what_the_whole_reads_there():
    for whole in filter(fits, AXES):
        for start, stop in product(range(whole.out), range(1, whole.out + 1)):
            if start < stop:
                rows, axis = whole.part(start, stop)
                assert axis.out == stop - start
                assert axis.lo >= 0
                assert axis.hi >= 0
                shifted = [[i if i is None else i + rows.start for i in tap] for tap in reads(axis, range(axis.out))]
                assert shifted == reads(whole, range(start, stop)), (whole, start, stop)
                assert rows.stop - rows.start == axis.size


def meetings(axis):
    """All (output, tap, input) that meet."""
    met = enumerate(reads(axis, range(axis.out)))
    return {(j, t, i) for j, window in met for t, i in enumerate(window) if i is not None}


def test_a_part_of_the_input_is_read_as_the_whole_is_there():
    for whole in filter(fits, AXES):
        for start, stop in product(range(whole.size), range(1, whole.size + 1)):
            if start < stop:
                outputs, axis = whole.part_of_input(start, stop)
                assert axis.size == stop - start
                assert axis.out == outputs.stop - outputs.start
                shifted = {(j + outputs.start, t, i + start) for j, t, i in meetings(axis)} if axis.out else set()
                assert shifted == {(j, t, i) for j, t, i in meetings(whole) if start <= i < stop}, (whole, start, stop)


def test_phases_of_the_turned_axis_are_the_input_gradient():
    for whole in filter(fits, AXES):
        seen, met = [], set()
        for inputs, taps, axis in whole.backward().phases(whole.stride):
            xs, ts = range(whole.size)[inputs], range(whole.kernel)[taps]
            seen += xs
            if axis is None:
                assert not len(ts)
                continue
            assert (axis.size, axis.out, axis.kernel, axis.stride) == (whole.out, len(xs), len(ts), 1)
            # Here outputs are inputs, inputs are outputs, and taps are turned around.
            met |= {(j, whole.kernel - 1 - ts[t], xs[i]) for i, t, j in meetings(axis)}
        assert sorted(seen) == list(range(whole.size))
        assert met == meetings(whole), whole


def test_phases_meet_what_a_dilated_input_meets():
    for whole, spread in product(filter(fits, AXES), (1, 2, 3, 4)):
        if whole.size % spread != 1 % spread:
            continue
        seen, met = [], set()
        for outputs, taps, axis in whole.phases(spread):
            js, ts = range(whole.out)[outputs], range(whole.kernel)[taps]
            seen += js
            if axis is not None:
                assert (axis.out, axis.kernel) == (len(js), len(ts))
                met |= {(js[j], ts[t], spread * i) for j, t, i in meetings(axis)}
        assert sorted(seen) == list(range(whole.out))
        assert met == {(j, t, i) for j, t, i in meetings(whole) if i % spread == 0}, (whole, spread)


def test_same_makes_one_output_for_each_stride_with_the_fewest_zeros():
    for size, kernel, stride, dilation in product(range(1, 12), range(1, 5), range(1, 5), range(1, 4)):
        shapes = ((1, 1, size), (1, 1, kernel), stride)
        (upper,) = parse(*shapes, "same", dilation, 1).axes
        (lower,) = parse(*shapes, "same_lower", dilation, 1).axes
        assert upper.out == lower.out == len(range(0, size, stride))
        assert (upper.lo, upper.hi) == (lower.hi, lower.lo)
        assert upper.hi - upper.lo in (0, 1)
        if upper.lo + upper.hi:
            fewer = upper._replace(hi=upper.hi - 1)
            assert count(fewer) < upper.out


def test_geometry_is_frozen_and_hashable():
    one, other = (parse((2, 4, 9), (6, 2, 3), 2, "same", 1, 2) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    with pytest.raises(AttributeError):
        one.groups = 3


MADE = {
    "forward": lambda arrays, params: Problem.of(arrays["x"], arrays["w"], params, None, xp=np),
    "input_grad": lambda arrays, params: Problem.of_input_grad(arrays["dy"], arrays["w"], (5,), params, xp=np),
    "weight_grad": lambda arrays, params: Problem.of_weight_grad(arrays["dy"], arrays["x"], (2,), params, xp=np),
}


@pytest.mark.parametrize("name", MADE)
def test_what_is_remembered_is_not_what_merely_equals_it(name):
    arrays = {"x": np.ones((1, 1, 5)), "w": np.ones((1, 1, 2)), "dy": np.ones((1, 1, 4))}
    make = partial(MADE[name], arrays)
    assert make({}) is make({})
    for stride in (True, 1.0, (True,), np.True_):
        make({"stride": 1})
        with pytest.raises(TypeError, match=r"^stride must be an integer"):
            make({"stride": stride})


@pytest.mark.parametrize("name", MADE)
def test_every_spelling_of_a_parameter_is_remembered_as_one(name):
    arrays = {"x": np.ones((1, 1, 5)), "w": np.ones((1, 1, 2)), "dy": np.ones((1, 1, 4))}
    make = partial(MADE[name], arrays)
    one = make({"padding": ((0, 0),), "stride": (1,)})
    for padding in ([(0, 0)], ([0, 0],), [[np.int64(0), np.uint8(0)]]):
        for stride in ([1], (np.int32(1),), (np.asarray(1),)):
            assert make({"padding": padding, "stride": stride}) is one
    for dtype in ("float64", np.float64, np.dtype("float64"), float):
        assert make({"dtype": dtype}) is make({"dtype": dtype})


@pytest.mark.parametrize(
    ("name", "make"),
    [("input_size", Problem.of_input_grad), ("kernel_size", Problem.of_weight_grad)],
    ids=["input_grad", "weight_grad"],
)
def test_sizes_are_remembered_as_they_are_given(name, make):
    one = np.ones((1, 1, 1))
    for size in ((1,), [1], np.asarray([1])):
        assert make(one, one, size, {}, xp=np).convolution.geometry.size == (1,)
    for size in ((True,), (1.0,), [1.0], np.asarray([1.0])):
        with pytest.raises(TypeError, match=f"^{name} must be "):
            make(one, one, size, {}, xp=np)


def test_so_many_problems_are_remembered_and_the_newest_among_them(monkeypatch):
    problems = {}
    monkeypatch.setattr("xpconv._engines.problem._problems", problems)
    monkeypatch.setattr("xpconv._engines.problem.MOST_REMEMBERED", 3)

    def made(n):
        return MADE["forward"]({"x": np.ones((1, 1, n)), "w": np.ones((1, 1, 2))}, {})

    for n in range(2, 40):
        newest = made(n)
        assert made(n) is newest
        assert len(problems) == min(n - 1, 3)


@pytest.mark.parametrize(("every", "least"), [(1, 0), (8, 50)])
def test_a_cycle_through_a_few_more_values_than_are_remembered_finds_most(every, least):
    """Not so where always the oldest is forgotten: it is the one that is asked for next."""
    memory, found = {}, 0
    for turn, key in product(range(40), range(100)):
        found += turn >= 20 and key in memory
        if key not in memory:
            remember(memory, key, -key, 80, every)
        assert memory[key] == -key
        assert len(memory) <= 80
    assert (found > 0) == (every > 1)
    assert found / 20 >= least


def test_output_size_takes_integers_and_sequences():
    assert conv_output_size(10, 3) == (8,)
    assert conv_output_size((10, 11), 3) == (8, 9)
    assert conv_output_size([10, 11, 12], (1, 2, 3), stride=(1, 2, 3), dilation=[3, 2, 1]) == (10, 5, 4)
    assert conv_output_size((10, 10), 3, padding=(0, 1)) == (8, 10)
    assert conv_output_size((10, 10), 3, padding=(1, (0, 2))) == (10, 10)
    assert conv_output_size((10, 10), 3, padding=-1) == (6, 6)
    assert conv_output_size((), ()) == ()
