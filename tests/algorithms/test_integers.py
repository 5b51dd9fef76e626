"""Integers by way of float64: exact to the bit, for any values, in limbs where they need them."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case

from xpconv import conv, conv_backward, conv_transpose, options
from xpconv._algorithms import contract
from xpconv._algorithms.integers import cuts

PARAMETERS = {
    "plain": {},
    "all": {"stride": (2, 1), "padding": 2, "dilation": (1, 2), "groups": 2},
    "border": {"padding": [(2, 1), (2, 3)], "padding_mode": ("circular", "reflect"), "stride": (1, 2)},
    "constant": {"padding": 2, "padding_mode": "constant", "padding_value": 5},
    "dilated": {"padding": 2, "input_dilation": (2, 3), "flip": True, "stride": (1, 2)},
}


@pytest.fixture(autouse=True)
def _always(monkeypatch):
    """Take it for any work, however little, and as if integers took long."""
    monkeypatch.setattr(contract, "LIMIT", 1)
    monkeypatch.setattr(contract, "SECONDS", 1.0)
    monkeypatch.setattr("xpconv._engines.problem._problems", {})


@pytest.fixture(params=["lowering", "fft"])
def way(request, monkeypatch):
    """One of the two ways, and how often it is taken."""
    taken, filled, cheapest = [], contract._filled, contract.cheapest
    monkeypatch.setattr(
        contract, "cheapest", lambda *args: cheapest(*args) if args[-1].method == request.param else None
    )

    def counted(choice, task, *args, **kwargs):
        taken.append(contract.is_floating(task.dtype, xp=kwargs["xp"]))
        return filled(choice, task, *args, **kwargs)

    monkeypatch.setattr(contract, "_filled", counted)
    return taken


def extremes(rng, shape, dtype):
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    values.flat[:2] = limits.min, limits.max
    return values


@pytest.mark.parametrize("dtype", ["int8", "int16", "int64", "uint64"])
@pytest.mark.parametrize("name", PARAMETERS)
def test_exact_at_the_extremes_in_every_slot(backend, rng, way, monkeypatch, dtype, name):
    """The sums wrap around as those of the dtype do, modulo 2 to the number of its bits."""
    if backend.can_look:  # array-api-strict's device is not the processor by name
        monkeypatch.setattr(contract, "on_gpu", lambda _: False)
    parameters = {"groups": 1, **PARAMETERS[name]}
    case = Case((1, 4, 5, 4), (2, 4 // parameters["groups"], 2, 3), **parameters)
    operands = [extremes(rng, shape, dtype) for shape in case.shapes]
    with np.errstate(over="ignore"):
        expected = case.expected(*operands)
    try:
        dy, x, w, bias = map(backend.array, operands)
        y = conv(x, w, bias, **case.parameters)
    except (TypeError, RuntimeError):
        assert backend.name.startswith("torch")
        pytest.skip("torch has no such arithmetic")
    dx, dw, _ = conv_backward(dy, x, w, **case.parameters)
    for actual, sums in ((y, expected.y), (dx, expected.dx), (dw, expected.dw)):
        actual = backend.numpy(actual)
        assert actual.dtype == dtype
        np.testing.assert_array_equal(actual, sums.astype(dtype))
    if backend.can_look and name != "constant" and not dtype.endswith("int8"):
        assert all(way)
        assert len(way) >= 3


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_small_values_need_no_limbs(rng, way, dtype):
    x, w = rng.integers(-1000, 1000, (1, 1, 700)).astype(dtype), rng.integers(-1000, 1000, (1, 1, 90)).astype(dtype)
    np.testing.assert_array_equal(conv(x, w)[0, 0], np.correlate(x[0, 0], w[0, 0]))
    assert way == [True]
    np.testing.assert_array_equal(conv_transpose(x, w)[0, 0], np.convolve(x[0, 0], w[0, 0]))
    assert way == [True, True]


def test_the_bound_holds_at_the_largest_values_without_limbs(rng, way):
    """The largest numbers with room: an error of rounding would show, and the largest sums are reached."""
    del way
    taps = np.ones((1, 1, 64), dtype="int64")
    for bits in range(30, 62, 3):
        x = rng.choice([-(2**bits), 2**bits - 1], (1, 1, 400))
        w = rng.choice([-1, 1], (1, 1, 64)) * taps
        np.testing.assert_array_equal(conv(x, w)[0, 0], np.correlate(x[0, 0], w[0, 0]))


@pytest.mark.parametrize("way", ["fft"], indirect=True)
def test_bytes_are_transformed_where_that_is_cheaper(rng, way):
    x, w = (rng.integers(0, 256, shape, dtype="uint8") for shape in ((1, 1, 4000), (1, 1, 1500)))
    y = conv(x, w, dtype=np.int32)
    assert y.dtype == np.int32
    np.testing.assert_array_equal(y[0, 0], np.correlate(*(a[0, 0].astype("int32") for a in (x, w))))
    assert way == [True]


def test_limbs_cover_their_bits():
    for first in range(1, 65):
        for second in range(1, 65):
            for room in range(8, 54, 5):
                cut = cuts(first, second, room)
                assert sum(cut.bits) <= room
                assert all(bits * count >= n for bits, count, n in zip(*cut, (first, second), strict=True))


def test_a_method_that_is_asked_for_is_taken(rng, way):
    x = rng.integers(-9, 9, (1, 1, 50))
    with options(method="lowering"):
        np.testing.assert_array_equal(conv(x, x[..., :7])[0, 0], np.correlate(x[0, 0], x[0, 0, :7]))
    assert way == [False]
