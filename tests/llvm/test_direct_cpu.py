"""The direct algorithm's code for a processor, where llvmlite is installed: what is beyond test_direct.py."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from oracle import contract
from support import draw, whole_numbers

from xpconv import conv, conv_backward, conv_input_grad, conv_weight_grad, explain, options
from xpconv._arrays import assembly, direct_cpu, jobs, rows, tiles
from xpconv._arrays.direct import has_kernels
from xpconv._spec.geometry import parse


def drawn(rng, x_shape, w_shape, *, stride=1, padding=0, dilation=1, groups=1, dtypes=("float64",) * 3):
    geometry = parse(x_shape, w_shape, stride, padding, dilation, groups)
    shapes = geometry.y_shape, x_shape, w_shape
    return geometry, *(whole_numbers(rng, s, t, 8) for s, t in zip(shapes, dtypes, strict=True))


def both(dy, x, w, geometry, dtype):
    y = np.full(geometry.y_shape, 99, dtype=dy.dtype)
    direct_cpu.forward(x, w, None, y, None, geometry)
    return y, direct_cpu.weight_grad(dy, x, geometry, dtype)


def expected(dy, x, w, geometry):
    axes = {name: [getattr(axis, name) for axis in geometry.axes] for name in ("stride", "lo", "dilation")}
    sums = contract(dy, x, w, groups=geometry.groups, **axes)
    return sums.y, sums.dw


def check(dy, x, w, geometry, dtype):
    for actual, wanted, kind in zip(
        both(dy, x, w, geometry, dtype), expected(dy, x, w, geometry), (dy.dtype, dtype), strict=True
    ):
        np.testing.assert_array_equal(actual, wanted.astype(kind), strict=True)


@pytest.mark.parametrize("processor", [(16, 16), (32, 16), (64, 32)], ids=["16 bytes", "32 bytes", "64 bytes"])
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "parameters"),
    [
        ((2, 3, 9, 21), (3, 1, 3, 3), {"groups": 3, "padding": 1}),
        ((1, 2, 9, 41), (2, 1, 7, 5), {"groups": 2, "padding": (3, 2), "stride": 2}),
        ((2, 4, 6, 11), (8, 2, 3, 3), {"groups": 2, "padding": 1, "dilation": (1, 2)}),
        ((1, 1, 150), (3, 1, 9), {"stride": 5, "dilation": 2}),
        ((2, 5, 9, 11), (19, 5, 3, 3), {"padding": 1}),
        ((1, 16, 12, 9), (32, 8, 3, 2), {"groups": 2, "padding": (1, 2), "stride": (2, 3), "dilation": (2, 1)}),
        ((1, 3, 5, 6, 7), (10, 3, 2, 3, 3), {"padding": 1, "stride": (1, 2, 1)}),
        ((3, 7, 30), (9, 7, 5), {"stride": 3, "padding": 2, "dilation": 2}),
        ((2, 9, 8, 8), (17, 9, 1, 1), {}),
        ((1, 2, 9, 9), (8, 2, 3, 3), {"stride": 4, "padding": -1}),
    ],
)
def test_registers_of_any_length(rng, monkeypatch, processor, x_shape, w_shape, parameters):
    """LLVM cuts vectors to what there is: so code for other processors runs on this one."""
    for code in (rows, tiles):
        monkeypatch.setattr(code, "vector_bytes", lambda: processor[0])
        monkeypatch.setattr(code, "registers", lambda: processor[1])
    geometry, dy, x, w = drawn(rng, x_shape, w_shape, **parameters, dtypes=("float32",) * 3)
    check(dy, x, w, geometry, np.dtype("float32"))


@pytest.mark.parametrize(
    ("dtypes", "compute"),
    [(("float64", "float32", "float64"), "float64"), (("float32", "float32", "float64"), "float64")],
)
def test_single_numbers_computed_in_double(rng, dtypes, compute):
    geometry, dy, x, w = drawn(rng, (2, 2, 7, 21), (2, 1, 3, 3), groups=2, stride=(1, 2), padding=1, dtypes=dtypes)
    check(dy, x, w, geometry, np.dtype(compute))


def test_views_are_read_where_they_lie(rng):
    geometry, dy, x, w = drawn(rng, (3, 4, 6, 20), (4, 2, 3, 3), groups=2, padding=1)
    outer = np.zeros((6, 12, 5, 24))[:, ::-2]
    views = [outer[::2, 1:5, :, 2:22], x[:, :, :0]]
    assert not views[0].flags.c_contiguous
    part = parse((3, 4, 5, 20), w.shape, 1, 1, 1, 2)
    views[0][...] = x[:, :, :5]
    check(dy[:, :, :5], views[0], w, part, np.dtype("float64"))
    check(np.asfortranarray(dy), np.asfortranarray(x), np.asfortranarray(w), geometry, np.dtype("float64"))
    check(dy, x.astype(">f8"), w.astype(">f8").astype("float64"), geometry, np.dtype("float64"))


@pytest.mark.parametrize(
    ("code", "name", "value"),
    [
        *((jobs, *one) for one in (("FEW", 4), ("PIECES", 3))),
        *((rows, *one) for one in (("CACHED", 2**10), ("PIECES", 3))),
        *(
            (tiles, *one)
            for one in (("CACHED", 2**10), ("TURNED", 5), ("SUMMED", 9), ("LONG", 1), ("MOST_COPIED", 2**12))
        ),
    ],
)
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "parameters"),
    [
        ((1, 1, 90), (2, 1, 4), {"padding": 2, "stride": 2}),
        ((2, 2, 13, 33), (2, 1, 3, 3), {"padding": 1, "groups": 2}),
        ((1, 1, 5, 6, 17), (1, 1, 3, 3, 2), {"padding": 1}),
        ((2, 19, 5, 21), (38, 1, 3, 3), {"padding": 1, "groups": 19}),
        ((3, 6, 13, 11), (40, 6, 3, 3), {"padding": 1, "stride": (2, 1)}),
        ((2, 6, 9, 5), (24, 3, 2, 3), {"padding": 1, "groups": 2}),
        ((1, 5, 90), (18, 5, 4), {"padding": 2, "stride": 2}),
        ((1, 3, 4, 6, 40), (8, 3, 3, 3, 2), {"padding": 1}),
    ],
)
def test_work_cut_in_any_way(rng, monkeypatch, code, name, value, x_shape, w_shape, parameters):
    monkeypatch.setattr(jobs, "FEW", 8)
    for one in (rows, tiles):
        monkeypatch.setattr(one, "SMALL", 1)
    monkeypatch.setattr(code, name, value)
    geometry, *operands = drawn(rng, x_shape, w_shape, **parameters)
    with options(workers=3):
        check(*operands, geometry, np.dtype("float64"))


@pytest.fixture(params=["rows", "tiles"])
def operands(request, rng):
    """x, w, dy and the parameters of a layer for either code."""
    if request.param == "rows":
        shapes, parameters = ((4, 6, 30, 31), (6, 1, 5, 5), (4, 6, 30, 31)), {"padding": 2, "groups": 6}
    else:
        shapes, parameters = ((4, 24, 30, 31), (36, 12, 5, 5), (4, 36, 30, 31)), {"padding": 2, "groups": 2}
    return *(draw(rng, shape, "float32") for shape in shapes), parameters


def test_bits_depend_on_neither_workers_nor_the_batch(operands):
    x, w, dy, parameters = operands
    found = []
    for workers in (1, 3):
        with options(method="direct", workers=workers):
            found.append([conv(x, w, **parameters), *conv_backward(dy, x, w, **parameters)])
            alone = conv(x[2:3], w, **parameters)
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(alone[0], found[0][0][2])


def test_sums_of_dw_do_not_depend_on_workers(rng, monkeypatch):
    """Where several sums are added, and what a job copies limits its rows."""
    monkeypatch.setattr(tiles, "CACHED", 2**15)
    monkeypatch.setattr(tiles, "SMALL", 2**10)
    monkeypatch.setattr(tiles, "SUMMED", 2**7)
    x, dy = draw(rng, (2, 64, 20, 20), "float32"), draw(rng, (2, 24, 20, 20), "float32")
    found = []
    for workers in (1, 2, 5):
        with options(method="direct", workers=workers):
            found.append(conv_weight_grad(dy, x, kernel_size=(3, 3), padding=1))
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "parameters"),
    [
        ((1, 256, 14, 14), (256, 256, 3, 3), {"padding": 1}),
        ((1, 3, 112, 112), (32, 3, 3, 3), {"padding": 1, "stride": 2}),
        ((2, 512, 7, 7), (512, 512, 1, 1), {}),
        ((1, 32, 112, 112), (32, 1, 3, 3), {"padding": 1, "groups": 32}),
    ],
)
def test_what_is_chosen_does_not_depend_on_workers(x_shape, w_shape, parameters):
    """So the bits do not, either; and whether a workspace is enough does not."""
    x, w = np.zeros(x_shape, "float32"), np.zeros(w_shape, "float32")
    for more in ({}, {"batch_invariant": True}, {"workspace": 2**22}):
        found = []
        for workers in (1, 2, 16, 64):
            with options(workers=workers, **more):
                found.append([made.algorithm for made in explain(x, w, **parameters).contractions])
        assert all(one == found[0] for one in found)


def test_threads_stay_within_the_workspace():
    with options(workers=64, workspace=2**22):
        assert jobs.threads_within(2**20, 0) == 4
        assert jobs.threads_within(2**20, 2**22) == 1
    with options(workers=3):
        assert jobs.threads_within(2**20, 0) == 3


@pytest.mark.parametrize("pack", ["<f4, <i2", "<f4, u1"])
def test_numbers_that_are_no_whole_elements_apart(rng, pack):
    """As in a record of a number and a short one; and records of 5 bytes do not begin where numbers should."""
    geometry, _, x, w = drawn(rng, (1, 16, 8, 8), (16, 16, 3, 3), padding=1, dtypes=("float32",) * 3)
    records = []
    for values in (x, w):
        packed = np.zeros(values.shape, dtype=pack)
        packed["f0"] = values
        records.append(packed["f0"])
    made = both(records[0][:, :16], *records, geometry, np.dtype("float32"))
    for actual, wanted in zip(made, expected(x, x, w, geometry), strict=True):
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_by_the_public_functions(operands, stride, padding_mode):
    """Against lowering in float64, whose weight gradient needs no other code."""
    *arrays, parameters = operands
    x, w, dy = arrays
    parameters = {**parameters, "stride": stride, "padding_mode": padding_mode}
    dy = dy[:, :, : -(-30 // stride), : -(-31 // stride)]
    with options(method="lowering"):
        wide = [a.astype("float64") for a in (dy, x, w)]
        wanted = [conv(*wide[1:], **parameters), *conv_backward(*wide, **parameters)]
    with options(method="direct"):
        names = [made.algorithm for made in explain(x, w, **parameters).contractions]
        made = [conv(x, w, **parameters), *conv_backward(dy, x, w, **parameters)]
    assert all("Direct" in name for name in names)
    for one, other in zip(made, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * abs(other).max())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_where_lowering_has_it(operands, value):
    *arrays, parameters = operands
    x, w, dy = (one.copy() for one in arrays)
    x[1, 2, 0, 0] = x[2, 3, 29, 30] = x[3, 4, 7, 7] = value
    w[0, 0, 0, 0] = dy[3, 1, 0, 0] = dy[0, 5, 4, 30] = value
    found = []
    for method in ("lowering", "direct"):
        with options(method=method), np.errstate(all="ignore"):
            found.append(
                [
                    conv(x, w, **parameters),
                    conv_input_grad(dy, w, input_size=(30, 31), **parameters),
                    conv_weight_grad(dy, x, kernel_size=(5, 5), **parameters),
                ]
            )
    for wanted, actual in zip(*found, strict=True):
        finite = np.isfinite(wanted)
        assert 0 < finite.mean() < 1
        np.testing.assert_array_equal(np.isfinite(actual), finite)
        terms = x[:, 0].size  # of a number of dw, which has the most of them
        np.testing.assert_allclose(actual[finite], wanted[finite], rtol=0, atol=terms * 2.0**-24 * 4)


@pytest.mark.parametrize("order", ["turned", "taps first", "every other tap"])
def test_weights_are_read_where_they_lie(rng, order):
    geometry, _, x, w = drawn(rng, (2, 6, 9, 11), (20, 6, 3, 3), padding=1)
    views = {
        "turned": np.ascontiguousarray(w.swapaxes(0, 1)[:, :, ::-1, ::-1]).swapaxes(0, 1)[:, :, ::-1, ::-1],
        "taps first": np.ascontiguousarray(w.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1),
        "every other tap": np.repeat(w, 2, axis=3)[..., ::2],
    }
    assert not views[order].flags.c_contiguous
    y = np.empty(geometry.y_shape)
    direct_cpu.forward(x, views[order], None, y, None, geometry)
    np.testing.assert_array_equal(y, expected(y, x, w, geometry)[0])


def test_taken_where_it_is_worth_the_time_to_compile():
    x = np.zeros((8, 96, 56, 56), "float32")
    depthwise = explain(x, np.zeros((96, 1, 3, 3), "float32"), padding=1, groups=96)
    dense = explain(x, np.zeros((96, 96, 3, 3), "float32"), padding=1)
    for made in (*depthwise.contractions, *dense.contractions):
        assert "Direct" in made.algorithm
    few = explain(x[:1, :, :7, :7], np.zeros((96, 1, 1, 1), "float32"), groups=96)
    for made in few.contractions:
        assert "Direct" not in made.algorithm


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "parameters"),
    [
        ((2, 48, 40, 40), (32, 48, 3, 3), {"padding": 1}),
        ((1, 1, 100_000), (64, 1, 10), {"stride": 5}),
        ((1, 8, 3, 9000), (16, 8, 3, 3), {"padding": 1}),
        ((4, 256, 7, 7), (256, 256, 3, 3), {"padding": 1}),
        ((2, 64, 40, 40), (64, 1, 5, 5), {"padding": 2, "groups": 64}),
    ],
)
@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_memory_than_said(rng, x_shape, w_shape, parameters, workers):
    """What threads hold for jobs is counted, with the partial sums of dw."""
    x, w = draw(rng, x_shape, "float32"), draw(rng, w_shape, "float32")
    with options(method="direct", workers=workers):
        dy = conv(x, w, **parameters)
        said = {made.name: made.workspace for made in explain(x, w, **parameters).contractions}
        calls = {
            "forward": lambda: conv(x, w, **parameters),
            "weight gradient": lambda: conv_weight_grad(dy, x, kernel_size=w_shape[2:], **parameters),
        }
        for slot, call in calls.items():
            jobs._own.__dict__.clear()  # of this thread, which has jobs in any case
            tracemalloc.start()
            made = call()
            peak = tracemalloc.get_traced_memory()[1] - made.nbytes
            tracemalloc.stop()
            assert peak <= said[slot] * workers  # said for one thread


def test_other_numbers_and_long_windows_are_left_to_others(rng):
    assert not any(has_kernels(np.ones(1, dtype)) for dtype in ("float16", "complex64", "int32", ">f8"))
    assert not has_kernels(np.ones(1), np.dtype("complex128"))
    x, long = draw(rng, (1, 1, 400), "float64"), draw(rng, (1, 1, 257), "float64")
    with options(method="direct"):
        np.testing.assert_allclose(conv(x, long)[0, 0, 0], x[0, 0, :257] @ long[0, 0])
        with pytest.raises(ValueError, match="where the windows of a row reach over at most 1 MiB"):
            conv(np.zeros((1, 64, 130, 130)), np.zeros((1, 64, 2, 2)), dilation=120)
        with pytest.raises(ValueError, match="float32 and float64 in NumPy with llvmlite"):
            conv(x.astype("complex128"), long.astype("complex128"))


def test_an_error_in_a_piece_is_raised_and_no_other_is_begun():
    done = []

    def work(item):
        done.append(item)
        raise MemoryError(item)

    with pytest.raises(MemoryError):
        jobs.share(work, range(100), 1)
    assert done == [0]
    with pytest.raises(MemoryError):
        jobs.share(work, range(100), 3)
    assert len(done) <= 1 + 3


def test_llvm_that_is_too_old_is_left_alone(monkeypatch):
    monkeypatch.setattr(assembly, "version", lambda _: "0.44.1")
    assembly.can_compile.cache_clear()
    try:
        assert not has_kernels(np.ones(1))
    finally:
        assembly.can_compile.cache_clear()
