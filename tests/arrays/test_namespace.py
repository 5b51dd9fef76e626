"""What is done for one library only, and the way that every library can take: both give the same."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from xpconv import conv, conv_input_grad, explain, options
from xpconv._arrays import doors, namespace
from xpconv._arrays.dtypes import exact

PARTS = (0.0, 1.5, -2.0, np.inf, -np.inf, np.nan)


# Complex numbers of two parts.


@pytest.mark.parametrize("make", [doors.complex_of, doors.complex_of_sum])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_an_infinite_imaginary_part_leaves_the_real_part_alone(backend, make, dtype):
    if make is doors.complex_of_sum and backend.name.startswith("torch"):
        pytest.xfail("torch multiplies the second of two complex numbers by a factor before it adds them")
    pairs = np.asarray(list(product(PARTS, PARTS)), dtype=np.empty(0, dtype).real.dtype)
    real, imaginary = np.ascontiguousarray(pairs.T)
    with backend.here():
        z = make(backend.array(real), backend.array(imaginary), getattr(backend.xp, dtype), xp=backend.xp)
    z = backend.numpy(z)
    assert z.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(z.real, real)
    np.testing.assert_array_equal(z.imag, imaginary)


def test_real_weights_of_infinite_complex_numbers(backend):
    """2 + inf i times 3 is 6 + inf i: real and complex numbers are multiplied without making the real ones complex."""
    x = np.asarray([[[complex(2, np.inf), complex(-np.inf, 1), 4 + 5j]]])
    with options(method="lowering"):
        y = backend.numpy(conv(backend.array(x), backend.array(np.full((1, 1, 1), 3.0))))
    np.testing.assert_array_equal(y.real, [[[6, -np.inf, 12]]])
    np.testing.assert_array_equal(y.imag, [[[np.inf, 3, 15]]])


# Arrays of other kinds.


def test_an_object_whose_dtype_cannot_be_hashed_is_refused_with_a_sentence():
    class Like:
        dtype, shape, ndim = [], (1, 1, 1), 3

    with pytest.raises(TypeError, match=r"^x must be a plain array of a library that speaks the Array API: got "):
        conv(Like(), Like())


# Writing to a part.


class Copies(TorchDispatchMode):
    """Counts the copies that torch makes."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten.copy_.default
        return function(*args, **(kwargs or {}))


def test_torch_adds_to_a_part_without_copying_it():
    out, block = torch.ones(4, 5), torch.ones(2, 5)
    with Copies() as copies:
        doors.add(out, (slice(1, 3),), block, xp=namespace.library("out", out))
    assert copies.count == 0
    assert out.tolist() == [[1.0] * 5, [2.0] * 5, [2.0] * 5, [1.0] * 5]


@pytest.mark.parametrize("write", [doors.put, doors.add])
def test_the_portable_way_to_write_to_a_part(backend, monkeypatch, write):
    monkeypatch.setattr("xpconv._arrays.doors._is_writable", lambda _: False)
    with backend.here():
        out = backend.xp.astype(backend.array(np.arange(12.0).reshape(3, 4)), backend.xp.float64, copy=True)
        out = write(out, (slice(1, 3), slice(0, 4, 2)), backend.array(np.full((2, 2), 10.0)), xp=backend.xp)
    expected = np.arange(12.0).reshape(3, 4)
    expected[1:3, 0:4:2] = expected[1:3, 0:4:2] * (write is doors.add) + 10
    np.testing.assert_array_equal(backend.numpy(out), expected)


# Constants.


def test_a_constant_is_made_once_for_each_dtype(backend, monkeypatch):
    monkeypatch.setattr("xpconv._arrays.doors._constants", {})
    made = []

    def sizes_in_a_row(*sizes):
        made.append(sizes)
        return np.asarray(sizes)

    with backend.here():
        for dtype in ("float32", "float64", "float32"):
            like = backend.array(np.zeros(1, dtype=dtype))
            for _ in range(3):
                constant = doors.constant(sizes_in_a_row, 2, 3, like=like, xp=backend.xp)
                assert constant.dtype == like.dtype
                np.testing.assert_array_equal(backend.numpy(constant), [2, 3])
    kept = backend.name.partition(":")[0] != "array_api_strict"  # which is none of those that constants are kept for
    assert len(made) == (2 if kept else 9)


def test_constants_are_bounded(monkeypatch):
    monkeypatch.setattr("xpconv._arrays.doors._constants", {})
    like = np.zeros(1)
    used = doors.constant(np.ones, 1, like=like, xp=np)
    for size in range(3 * doors.MOST_CONSTANTS):
        doors.constant(np.zeros, size, like=like, xp=np)
        # One that is used again and again is kept, however many others there are.
        assert doors.constant(np.ones, 1, like=like, xp=np) is used
        assert len(doors._constants) <= doors.MOST_CONSTANTS


# Integers in floating point.


@pytest.mark.parametrize(
    ("terms", "dtypes", "expected"),
    [
        (1024, ("int8", "int8"), "float32"),
        (1025, ("int8", "int8"), "float64"),
        (1022, ("int8", "int8", "int16"), "float32"),
        (1024, ("int8", "int8", "int8"), "float64"),
        (1, ("int8", "int8", "int32"), "float64"),
        (258, ("uint8", "uint8"), "float32"),
        (259, ("uint8", "uint8"), "float64"),
        (514, ("int8", "uint8"), "float32"),
        (515, ("int8", "uint8"), "float64"),
    ],
)
def test_bytes_are_multiplied_in_float32_as_long_as_that_is_exact(terms, dtypes, expected):
    assert exact(np, terms, *map(np.dtype, dtypes)) == np.dtype(expected)


def test_the_bound_of_float32_is_reached(backend):
    """1,024 products of -128 and -128 are 2**24; one product and a bias of 32 bits are more than float32 holds."""
    least = backend.array(np.full((1, 1, 1024), -128, dtype="int8"))
    for more in (0, 1):
        x = backend.array(np.full((1, 1, 1024 + more), -128, dtype="int8"))
        assert backend.numpy(conv(x, x, dtype=backend.xp.int32)).item() == 2**24 + more * 2**14
    bias = backend.array(np.asarray([2**24 + 1], dtype="int32"))
    y = conv(least[..., :1], least[..., 1:2], bias, dtype=backend.xp.int32)
    assert backend.numpy(y).item() == 2**24 + 1 + 2**14


@pytest.mark.parametrize("mode", ["replicate", "circular", "reflect"])
def test_a_border_of_bytes_repeats_an_input_more_often_than_float32_can_count(backend, mode):
    """The gradient of an input of 2 sums over all copies of it in the border: wider ones in int64 tell what it is."""
    dy, w = np.full((1, 8, 1_600), 127, dtype="int8"), np.full((8, 1, 3), 127, dtype="int8")
    said = {"input_size": 2, "padding": [(800, 800)], "padding_mode": mode}
    narrow = conv_input_grad(backend.array(dy), backend.array(w), **said)
    wide = conv_input_grad(dy.astype("int64"), w.astype("int64"), **said)
    assert np.max(wide) > 2**24
    np.testing.assert_array_equal(backend.numpy(narrow), wide.astype("int8"))


# What is made at a time.


def test_explain_tells_of_threads_only_where_parts_are_made_on_them(backend, rng):
    x, w = (backend.array(rng.standard_normal(shape)) for shape in ((8, 16, 64, 64), (16, 16, 3, 3)))
    with options(workers=2, method="lowering", workspace=2**22):
        made = explain(x, w).contractions
    assert all(one.parts > 2 for one in made)
    assert {one.threads for one in made} == {2 if backend.name.startswith("numpy") else 1}
