"""The direct kernels against the loop (oracle.py): on CuPy itself, or compiled for the host by its stand-in; on NumPy.

NumPy has kernels where llvmlite is installed (`nox -s tests-llvm`). Most numbers are whole, so that every sum is exact
and equal to the bit.
"""

from __future__ import annotations

from importlib.util import find_spec
from math import prod

import ml_dtypes
import numpy as np
import pytest
from cupy_standin import forbidden, trace
from oracle import contract
from support import Backend, assert_within, draw, whole_numbers

from xpconv._arrays import direct
from xpconv._arrays.direct import direct_forward, direct_weight_grad, direct_workspace, has_kernels
from xpconv._spec.geometry import Axis, Geometry, parse

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture
def cupy(request):
    for backend in request.config.backends:
        if backend.name.startswith("cupy"):
            return backend
    pytest.skip("only CuPy compiles kernels")


@pytest.fixture(params=["cupy", "numpy"] if find_spec("llvmlite") else ["cupy"])
def kernels(request):
    """Each that has kernels."""
    if request.param == "cupy":
        return request.getfixturevalue("cupy")
    return Backend.named("numpy:readonly")


@pytest.fixture
def standin(cupy):
    if cupy.name != "cupy:standin":
        pytest.skip("only the stand-in for CuPy can tell")
    return cupy


def geometry_of(x, w, *, stride=1, padding=0, dilation=1, groups=1):
    return parse(x.shape, w.shape, stride, padding, dilation, groups)


def forward(kernels, x, w, bias, geometry, dtype=None):
    with kernels.here():
        out = kernels.xp.empty(geometry.y_shape, dtype=dtype or w.dtype)
    operands = (kernels.array(x), kernels.array(w), None if bias is None else kernels.array(bias))
    assert direct_forward(*operands, out, None, geometry) is None
    return kernels.numpy(out)


def weight_grad(kernels, dy, x, geometry, dtype=None):
    return kernels.numpy(direct_weight_grad(kernels.array(dy), kernels.array(x), geometry, dtype or x.dtype))


def expected(dy, x, w, bias, geometry):
    """Y and dw; the oracle's dw is the Hermitian one, and the kernels conjugate nothing."""
    axes = {name: [getattr(axis, name) for axis in geometry.axes] for name in ("stride", "lo", "dilation")}
    y = contract(dy, x, w, bias, groups=geometry.groups, **axes).y
    return y, contract(dy, np.conj(x), w, groups=geometry.groups, **axes).dw


def drawn(rng, geometry, dtype="float64", most=8):
    shapes = (geometry.y_shape, geometry.x_shape, geometry.w_shape, geometry.y_shape[1:2])
    return [whole_numbers(rng, shape, dtype, most) for shape in shapes]


# Values.

CASES = {
    "no axis": ((5, 6), (4, 3), {"groups": 2}),
    "one axis": ((9, 2, 40), (2, 1, 11), {"groups": 2, "padding": [(4, 7)]}),
    "depthwise": ((5, 3, 9, 8), (3, 1, 7, 7), {"groups": 3, "padding": 3}),
    "multiplied": ((4, 2, 7, 9), (4, 1, 3, 2), {"groups": 2, "stride": (2, 1), "padding": [(1, 0), (2, 3)]}),
    "grouped": ((6, 6, 8, 7), (8, 3, 3, 3), {"groups": 2, "padding": 1, "stride": (1, 3), "dilation": (2, 1)}),
    "one channel": ((1, 1, 19, 17), (7, 1, 3, 9), {"stride": 2, "padding": 4}),
    "cropped": ((3, 2, 12, 11), (2, 1, 3, 3), {"groups": 2, "padding": [(-2, 1), (0, -3)], "dilation": (1, 3)}),
    "beyond the padding": ((2, 1, 2, 3), (1, 1, 3, 2), {"padding": [(9, 8), (7, 9)], "dilation": (2, 4), "stride": 2}),
    "three axes": ((2, 2, 5, 6, 7), (2, 1, 3, 2, 3), {"groups": 2, "padding": 1, "stride": (2, 1, 1)}),
    "four axes": ((2, 1, 3, 4, 3, 4), (3, 1, 2, 2, 1, 2), {"padding": (1, 0, 0, 1), "dilation": (1, 2, 1, 1)}),
    "one position": ((70, 2, 5, 4), (2, 1, 5, 4), {"groups": 2}),
    "long rows": ((2, 3, 3, 75), (6, 1, 3, 5), {"groups": 3, "padding": 2, "stride": (1, 2)}),
    "a large kernel": ((1, 1, 14, 19), (1, 1, 15, 13), {"padding": 7}),
}


@pytest.mark.parametrize("name", CASES)
def test_both_slots(kernels, rng, name):
    x_shape, w_shape, parameters = CASES[name]
    geometry = geometry_of(np.empty(x_shape), np.empty(w_shape), **parameters)
    dy, x, w, bias = drawn(rng, geometry)
    y, dw = expected(dy, x, w, bias, geometry)
    np.testing.assert_array_equal(forward(kernels, x, w, bias, geometry), y, strict=True)
    np.testing.assert_array_equal(weight_grad(kernels, dy, x, geometry), dw, strict=True)


GROUPED = geometry_of(np.empty((5, 4, 5, 6)), np.empty((10, 2, 3, 2)), groups=2, padding=1)
DEPTHWISE = geometry_of(np.empty((6, 3, 9, 8)), np.empty((3, 1, 3, 5)), groups=3, padding=2)


@pytest.mark.parametrize(
    ("dtype", "compute", "result"),
    [
        ("float16", "float32", "float16"),
        (BFLOAT16, "float32", BFLOAT16),
        (BFLOAT16, "float32", "float32"),
        ("float32", "float32", "float32"),
        ("float32", "float64", "float64"),
        ("complex64", "complex64", "complex64"),
        ("complex128", "complex128", "complex128"),
        ("float32", "complex64", "complex64"),
    ],
    ids=str,
)
def test_dtypes(cupy, rng, dtype, compute, result):
    dy, x, w, bias = drawn(rng, GROUPED, "complex128" if compute.startswith("complex") else "float64", most=2)
    dy, x, w, bias = dy.astype(result), (x.real if dtype == "float32" else x).astype(dtype), w.astype(compute), bias
    exact = [one.astype(np.result_type(compute, "float64")) for one in (dy, x, w, bias)]
    y, dw = expected(*exact, GROUPED)
    actual = forward(cupy, x, w, bias.astype(compute), GROUPED, result)
    np.testing.assert_array_equal(actual, y.astype(result), strict=True)
    np.testing.assert_array_equal(weight_grad(cupy, dy, x, GROUPED, compute), dw.astype(compute), strict=True)


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16], ids=str)
def test_each_half_is_read_and_each_float_is_rounded_as_numpy_does(cupy, rng, dtype):
    """All 65,536 halves; then floats near the middle between two of them, the middle itself, and beyond their range."""
    halves = np.arange(2**16, dtype=np.uint16).view(dtype)
    middles = halves.astype("float32").view(np.uint32) + np.uint32(2**12 if dtype == "float16" else 2**15)
    floats = np.concatenate([middles - np.uint32(1), middles, middles + np.uint32(1)]).view("float32")
    floats = np.concatenate([floats, (10.0 ** rng.uniform(-44, 38, 999)).astype("float32")])
    one, zeros = np.ones((1, 1, 1), "float32"), np.zeros(1, "float32")
    for values, result in ((halves, "float32"), (floats, dtype)):
        x = values.reshape(1, 1, -1)
        actual = forward(cupy, x, one, zeros if result == "float32" else None, geometry_of(x, one), result).reshape(-1)
        with np.errstate(all="ignore"):
            wanted = values.astype(result)
        kept = ~np.isnan(wanted)
        np.testing.assert_array_equal(np.isnan(actual), ~kept)
        np.testing.assert_array_equal(actual[kept], wanted[kept])


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_sums_are_as_precise_as_their_dtype(kernels, rng, dtype):
    if not has_kernels(kernels.array(np.ones(1, dtype))):
        pytest.skip("no kernels for complex numbers")
    dy, x, w = (draw(rng, shape, dtype) for shape in (GROUPED.y_shape, GROUPED.x_shape, GROUPED.w_shape))
    magnitudes = expected(*map(np.abs, (dy, x, w)), None, GROUPED)
    y, dw = expected(dy, x, w, None, GROUPED)
    assert_within(forward(kernels, x, w, None, GROUPED), y, magnitudes[0], GROUPED.inputs * GROUPED.taps)
    assert_within(weight_grad(kernels, dy, x, GROUPED), dw, magnitudes[1], GROUPED.samples * GROUPED.positions)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_where_it_belongs(cupy, rng, value):
    """Taps that read the padding are skipped: not a number times zero would not be one, either."""
    dy, x, w, bias = drawn(rng, DEPTHWISE)
    w[0, 0, 0, 0] = w[2, 0, 1, 4] = dy[3, 1, 0, 0] = dy[0, 0, 4, 7] = value
    with np.errstate(invalid="ignore"):
        sums = expected(dy, x, w, bias, DEPTHWISE)
    results = forward(cupy, x, w, bias, DEPTHWISE), weight_grad(cupy, dy, x, DEPTHWISE)
    for actual, wanted in zip(results, sums, strict=True):
        finite = np.isfinite(wanted)
        assert 0 < finite.mean() < 1
        np.testing.assert_array_equal(np.isfinite(actual), finite)
        np.testing.assert_array_equal(actual[finite], wanted[finite])


# Where results go.


@pytest.mark.parametrize(
    ("shape", "within"),
    [
        ((6, 3, 40, 11), (slice(1, 34, 3), slice(2, 10))),
        ((9, 5, 40, 8), (slice(1, 7), slice(2, None), slice(8, None, 3), slice(None))),
        ((12, 9, 21, 19), (slice(None, None, 2), slice(None, None, 3), slice(0, 21, 2), slice(-16, None, 2))),
    ],
)
def test_a_part_of_an_array_is_written_and_nothing_else(kernels, rng, shape, within):
    """Slices choose among the last axes, or among all of them."""
    dy, x, w, bias = drawn(rng, DEPTHWISE)
    wanted = np.full(shape, -99.0)
    wanted[(..., *within)] = expected(dy, x, w, bias, DEPTHWISE)[0]
    with kernels.here():
        out = kernels.xp.full(shape, -99.0, dtype="float64")
    direct_forward(kernels.array(x), kernels.array(w), kernels.array(bias), out, within, DEPTHWISE)
    np.testing.assert_array_equal(kernels.numpy(out), wanted)


@pytest.mark.parametrize("name", ["depthwise", "grouped", "cropped", "beyond the padding", "three axes"])
def test_the_input_gradient_is_a_forward_convolution_for_each_phase(kernels, rng, name):
    """Its taps are turned around; each phase writes every `stride`-th input, where any tap meets it."""
    x_shape, w_shape, parameters = CASES[name]
    geometry = geometry_of(np.empty(x_shape), np.empty(w_shape), **parameters)
    dy, x, w, _ = drawn(rng, geometry)
    axes = {name: [getattr(axis, name) for axis in geometry.axes] for name in ("stride", "lo", "dilation")}
    with kernels.here():
        dx = kernels.xp.zeros(x_shape, dtype="float64")
    grouped = w.reshape(geometry.groups, geometry.outputs, *w_shape[1:]).swapaxes(1, 2)
    for phase in geometry.gradient_phases():
        if phase.geometry is not None:
            turned = np.flip(grouped[(..., *phase.taps)], axis=tuple(range(3, grouped.ndim)))
            turned = kernels.array(turned.reshape(phase.geometry.w_shape))
            direct_forward(kernels.array(dy), turned, None, dx, phase.inputs, phase.geometry)
    np.testing.assert_array_equal(kernels.numpy(dx), contract(dy, x, w, groups=geometry.groups, **axes).dx)


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(0, 2, 3, 1, (Axis(4, 3, 1, 1, 1, 1),)),
        Geometry(2, 0, 3, 1, (Axis(4, 3, 1, 1, 1, 1),)),
        Geometry(2, 2, 0, 1, (Axis(4, 3, 1, 1, 1, 1),)),
        Geometry(2, 2, 3, 0, (Axis(4, 3, 1, 1, 1, 1),)),
        Geometry(2, 2, 3, 1, (Axis(0, 3, 1, 1, 2, 2),)),
        Geometry(2, 2, 3, 1, (Axis(4, 3, 1, 1, -1, -1),)),
    ],
    ids=["samples", "groups", "outputs", "inputs", "size", "positions"],
)
def test_without_any(kernels, geometry):
    x, w, dy = (np.ones(shape) for shape in (geometry.x_shape, geometry.w_shape, geometry.y_shape))
    bias = np.arange(geometry.y_shape[1]) + 1.0
    y = np.zeros(geometry.y_shape) + bias.reshape(-1, 1)
    np.testing.assert_array_equal(forward(kernels, x, w, bias, geometry), y, strict=True)
    np.testing.assert_array_equal(weight_grad(kernels, dy, x, geometry), np.zeros(geometry.w_shape), strict=True)
    assert direct_workspace("direct", geometry, "w", 8) >= 0


def test_operands_in_any_order(kernels, rng):
    dy, x, w, bias = drawn(rng, GROUPED)
    y, dw = expected(dy, x, w, bias, GROUPED)
    with kernels.here():
        turned = [kernels.array(one.T.copy()).T for one in (dy, x, w)] + [kernels.array(np.repeat(bias, 2))[::2]]
        out = kernels.xp.empty(y.shape, dtype="float64")
    direct_forward(*turned[1:], out, None, GROUPED)
    np.testing.assert_array_equal(kernels.numpy(out), y)
    np.testing.assert_array_equal(kernels.numpy(direct_weight_grad(*turned[:2], GROUPED, "float64")), dw)
    for one, values in zip(turned, (dy, x, w, bias), strict=True):
        np.testing.assert_array_equal(kernels.numpy(one), values)


# Indices, order and costs.


@pytest.mark.parametrize("geometry", [GROUPED, DEPTHWISE], ids=["grouped", "depthwise"])
def test_indices_of_64_bits_where_32_do_not_count_all(cupy, rng, monkeypatch, geometry):
    widths = []
    kernel = direct._kernel

    def watched(name, rank, channels, wide, types):
        widths.append(wide)
        return kernel(name, rank, channels, wide, types)

    dy, x, w, bias = drawn(rng, geometry)
    y, dw = expected(dy, x, w, bias, geometry)
    monkeypatch.setattr(direct, "_kernel", watched)
    for wide in (False, True):
        np.testing.assert_array_equal(forward(cupy, x, w, bias, geometry), y)
        np.testing.assert_array_equal(weight_grad(cupy, dy, x, geometry), dw)
        assert widths == [wide] * 2
        widths.clear()
        monkeypatch.setattr(direct, "MOST", max(x.size, dy.size) - 1)


def test_padding_counts_among_what_32_bits_must_count():
    def reach(**axis):
        return direct._reach(Geometry(2, 3, 1, 5, (Axis(**{"size": 9, "kernel": 3, "stride": 1} | axis),)))

    assert reach(dilation=1, lo=0, hi=0) >= 2 * 15 * 9
    assert reach(dilation=1, lo=2**30, hi=0) >= 2 * 15 * 2**30
    assert reach(dilation=2**28, lo=2**30, hi=0) >= 2 * 15 * (2**30 + 2**31)


def test_the_same_call_has_the_same_result_to_the_last_bit(kernels, rng):
    dy, x = (rng.standard_normal(shape).astype("float32") for shape in (DEPTHWISE.y_shape, DEPTHWISE.x_shape))
    first = weight_grad(kernels, dy, x, DEPTHWISE)
    for _ in range(3):
        np.testing.assert_array_equal(weight_grad(kernels, dy, x, DEPTHWISE), first)


def test_launches(standin, rng):
    """One for y and two for dw; nothing is copied, nothing is sent to the device, and nothing waits for it."""
    dy, x, w, bias = map(standin.array, drawn(rng, GROUPED))
    with standin.here():
        out = standin.xp.empty(GROUPED.y_shape, dtype="float64")
    with forbidden("sync", "h2d", "copy"):
        with trace() as record:
            direct_forward(x, w, bias, out, None, GROUPED)
        assert record == {"kernel": 1}
        with trace() as record:
            direct_weight_grad(dy, x, GROUPED, "float64")
        assert record == {"kernel": 2}


@pytest.mark.parametrize(
    ("samples", "groups", "outputs", "inputs", "size", "kernel"),
    [
        (8, 96, 1, 1, (56, 56), (7, 7)),
        (64, 512, 4, 4, (7, 7), (3, 3)),
        (8, 1, 64, 1, (224, 224), (11, 11)),
        (1, 2**18, 1, 1, (1,), (1,)),
        (2**16, 1, 1, 1, (1, 1), (1, 1)),
        (1, 1, 1, 1, (2**24,), (31,)),
    ],
)
def test_partial_sums_are_few(samples, groups, outputs, inputs, size, kernel):
    """32 of each number, or as many as a device's threads hold; and far fewer than there are products."""
    axes = tuple(Axis(n, k, 1, 1, k // 2, k // 2) for n, k in zip(size, kernel, strict=True))
    geometry = Geometry(samples, groups, outputs, inputs, axes)
    numbers, products = prod(geometry.w_shape), samples * geometry.positions
    count = direct_workspace("direct", geometry, "w", 1)
    assert count <= max(32 * numbers, 2**17 * direct.TAPS * direct.CHANNELS)
    assert count <= numbers * max(min(32, products), products / 32)
    assert direct_workspace("direct", geometry, "w", 8) == 8 * count
    assert direct_workspace("direct", geometry, "y", 8) == 0


def test_the_workspace_is_what_is_taken(cupy, rng, monkeypatch):
    taken = []
    launch = direct._launch

    def watched(name, threads, arrays, *rest):
        taken.append(arrays[-1].nbytes)
        return launch(name, threads, arrays, *rest)

    monkeypatch.setattr(direct, "_launch", watched)
    dy, x, _, _ = drawn(rng, GROUPED, "float32")
    weight_grad(cupy, dy, x, GROUPED)
    assert taken == [direct_workspace("direct", GROUPED, "w", 4)]


def test_cupy_has_kernels_and_numpy_with_llvmlite(backend):
    x, compiles = backend.array(np.ones(2)), find_spec("llvmlite") is not None
    assert has_kernels(x) == (backend.name.startswith("cupy") or (compiles and backend.name.startswith("numpy")))


def test_kernels_are_for_floats_and_complex_numbers(cupy):
    floats, integers = cupy.array(np.ones(2)), cupy.array(np.ones(2, int))
    assert has_kernels(floats, BFLOAT16, np.dtype("float16"), np.dtype("complex128"))
    assert not has_kernels(floats, np.dtype("float32"), np.dtype("int8"))
    assert not has_kernels(integers)
