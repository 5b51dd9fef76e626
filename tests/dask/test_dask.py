"""dask's arrays against the loop oracle, in any chunks.

Whole numbers throughout, but where it is said: by lowering every sum is exact then, in whatever order, so that all is
equal to the bit. Chunks are NumPy's or CuPy's; without `--backends=cupy` those of its stand-in.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from functools import lru_cache, partial
from itertools import pairwise
from typing import NamedTuple

import cupy_standin
import dask
import dask.array as da
import numpy as np
import pytest
import torch
from array_api_compat import array_namespace
from cases import Case, TransposedCase, placed
from dask.array.core import slices_from_chunks
from dask.callbacks import Callback
from families import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Backend, whole_numbers
from support import draw as normal
from threadpoolctl import threadpool_info, threadpool_limits

import xpconv
from xpconv import (
    Conv,
    ConvTranspose,
    conv,
    conv_backward,
    conv_input_grad,
    conv_weight_grad,
    explain,
    fold,
    options,
    unfold,
)
from xpconv._arrays import doors
from xpconv._engines import dask as engine
from xpconv._spec.options import current

MODES = ("zeros", "reflect", "replicate", "circular", "symmetric")
FIRST = "; call its compute_chunk_sizes() first"
# Of what is multiplied: x, and then the weight.
DTYPES = (
    ("float64", "float64"),
    ("float32", "float32"),
    ("float16", "float16"),
    ("complex128", "complex128"),
    ("complex64", "complex64"),
    ("float64", "complex128"),
    ("complex64", "float32"),
    ("int32", "int32"),
    ("int8", "int8"),
)


# Small enough that sums of 16 bits are exact, too.
whole = partial(whole_numbers, most=3)


class Laid(NamedTuple):
    """A case, transposed or not, with its batch and channel axes as the user has them."""

    inner: Case | TransposedCase
    batch: tuple[int, ...]
    channel_axis: int

    @property
    def parameters(self):
        return {**self.inner.parameters, "channel_axis": self.channel_axis}

    @property
    def function(self):
        return "conv_transpose" if isinstance(self.inner, TransposedCase) else "conv"

    @property
    def shapes(self):
        """Of what comes in, of the weight and of what comes out."""
        x, y = (self.outward(np.empty(shape)).shape for shape in (self.inner.x, self.inner.y))
        return x, self.inner.w, y

    def inward(self, array):
        ndim = array.ndim - len(self.batch) - 1
        at = self.channel_axis % (ndim + 2)  # as if there were one batch axis
        array = np.moveaxis(array, at + len(self.batch) - 1 if at else 0, len(self.batch))
        return array.reshape(math.prod(self.batch), *array.shape[len(self.batch) :])

    def outward(self, array):
        return placed(array, self.batch, self.channel_axis)

    def sums(self, dy, x, w):
        """y, dx, dw and db of what is given in outer order, as the user calls them."""
        sums = self.inner.expected(self.inward(dy), self.inward(x), w)
        return sums._replace(y=self.outward(sums.y), dx=self.outward(sums.dx))

    def per_channel(self, bias):
        return self.outward(np.broadcast_to(bias.reshape(-1, *(1,) * (len(self.inner.y) - 2)), self.inner.y))


def extent(kernel, dilation):
    return dilation * (kernel - 1) + 1


@st.composite
def axes(draw, transposed, ndim):
    """Size, outputs, kernel, stride, dilation, sides, mode, spread and output padding of one axis."""
    most, wide, long = ((), (12, 5, 4), (6, 3, 3), (3, 2, 2))[ndim]
    kernel, stride, dilation = (
        draw(st.integers(1, long)),
        draw(st.integers(1, long)),
        draw(st.integers(1, min(long, 3))),
    )
    mode = draw(st.sampled_from(["zeros", "zeros", *MODES]))
    spread = draw(st.sampled_from([1, 1, 2, 3])) if mode == "zeros" and not transposed else 1
    span = extent(kernel, dilation)
    lo, hi = draw(st.integers(-2, wide)), draw(st.integers(-2, wide))
    if not transposed:
        size = draw(st.integers(1, most))
        full = spread * (size - 1) + 1
        lo, hi = max(lo, -full), max(hi, -full)
        hi = max(hi, span - full - lo, -full - lo)
        out = (full + lo + hi - span) // stride + 1
        return size, out, kernel, stride, dilation, (lo, hi), mode, spread, 0
    out = draw(st.integers(1, max(most // stride, 1)))
    extra = draw(st.integers(0, max(stride, dilation) - 1))
    hi = min(hi, stride * (out - 1) + span - lo - 1)
    size = stride * (out - 1) + span - lo - hi + extra
    return size, out, kernel, stride, dilation, (lo, hi - extra), mode, spread, extra


@st.composite
def cases(draw, transposed):
    ndim = draw(st.sampled_from([0, 1, 1, 1, 2, 2, 3]))
    rows = [draw(axes(transposed, ndim)) for _ in range(ndim)]
    size, out, kernel, stride, dilation, sides, modes, spread, extra = zip(*rows, strict=True) if rows else ((),) * 9
    padding = tuple((lo, hi + e) for (lo, hi), e in zip(sides, extra, strict=True))
    name = draw(st.sampled_from([None, None, "full", "causal", "same", "same_lower"]))
    if name and not transposed and ndim:
        spans = list(map(extent, kernel, dilation))
        full = [r * (n - 1) + 1 for r, n in zip(spread, size, strict=True)]
        if name in ("full", "causal"):
            sides = tuple((span - 1, span - 1 if name == "full" else 0) for span in spans)
        else:
            wanted = [-(-n // s) for n, s in zip(full, stride, strict=True)]
            totals = [max((m - 1) * s + e - n, 0) for m, s, e, n in zip(wanted, stride, spans, full, strict=True)]
            halves = [(total // 2, total - total // 2) for total in totals]
            sides = tuple(halves if name == "same" else [(hi, lo) for lo, hi in halves])
        padding = name
        rows = zip(full, sides, spans, stride, strict=True)
        out = tuple((n + lo + hi - e) // s + 1 for n, (lo, hi), e, s in rows)
    groups, outputs, inputs = draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    if groups == 1 and ndim < 2:
        outputs, inputs = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    batch = draw(st.sampled_from([(3,), (2,), (1,), (), (2, 2)]))
    channel_axis = draw(st.sampled_from([1, 1, -1, 0])) if ndim else 1
    flip = draw(st.booleans())
    samples = math.prod(batch)
    w = (groups * outputs, inputs, *kernel)
    if not transposed:
        x = (samples, groups * inputs, *size)
        inner = Case(x, w, padding, sides, stride, dilation, groups, modes, spread, flip)
        return Laid(inner, batch, channel_axis)
    parameters = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "padding_mode": modes,
        "input_dilation": spread,
        "flip": flip,
        "output_padding": extra,
    }
    lo, hi = zip(*padding, strict=True) if padding else ((), ())
    inner = TransposedCase((samples, groups * outputs, *out), w, size, parameters, lo, hi)
    return Laid(inner, batch, channel_axis)


def cuts(draw, shape):
    """Any chunks."""
    inner = (draw(st.sets(st.integers(1, n - 1), max_size=4)) if n > 1 else set() for n in shape)
    return tuple(tuple(b - a for a, b in pairwise([0, *sorted(s), n])) for s, n in zip(inner, shape, strict=True))


def chunked(kind, values, chunks):
    return da.from_array(kind.array(values), chunks=chunks, asarray=False)


def computed(kind, lazy):
    """The values, block by block, each of which is what was declared: type, dtype and shape."""
    assert isinstance(lazy, da.Array)
    kind.numpy(lazy._meta)
    assert lazy._meta.dtype == lazy.dtype
    values = np.empty(lazy.shape, dtype=lazy.dtype)
    blocks = dask.compute(*lazy.to_delayed().ravel(), scheduler="sync")
    for where, block in zip(slices_from_chunks(lazy.chunks), blocks, strict=True):
        block = kind.numpy(block)
        assert block.dtype == lazy.dtype
        assert block.shape == values[where].shape
        values[where] = block
    return values


def assert_equal(kind, lazy, expected, dtype):
    """To the bit; the oracle's dtypes are wide."""
    actual, dtype = computed(kind, lazy), np.dtype(dtype)
    assert actual.dtype == dtype
    expected = expected.real if dtype.kind != "c" and expected.dtype.kind == "c" else expected
    np.testing.assert_array_equal(actual, expected.astype(dtype), strict=True)


@lru_cache
def cupys():
    """CuPy's chunks, or its stand-in's. They lie on the current device, since dask joins chunks there."""
    backend = Backend.named("cupy:standin" if cupy_standin.stands_for(sys.modules["cupy"]) else "cupy")
    return replace(backend, device=backend.xp.cuda.Device(0))


def kinds(backend):
    return st.sampled_from([backend, backend, cupys()])


@pytest.mark.parametrize("transposed", [False, True], ids=["conv", "conv_transpose"])
@settings(max_examples=30)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_every_function_in_any_chunks(backend, transposed, data, seed):
    """Each operand in chunks of its own, some in none: batch, channels and space are cut anywhere."""
    case, kind = data.draw(cases(transposed)), data.draw(kinds(backend))
    dtype, w_dtype = data.draw(st.sampled_from(DTYPES))
    rng, y_dtype = np.random.default_rng(seed), np.result_type(dtype, w_dtype)
    said = case.parameters
    if dtype == "int8" and data.draw(st.booleans()):
        y_dtype, said = np.dtype("int32"), {**said, "dtype": np.dtype("int32")}
    x_shape, w_shape, y_shape = case.shapes
    b_shape = (case.inner.y[1],)

    def lazily(values):
        """In chunks; weights as they are, too."""
        if values.shape in (w_shape, b_shape) and data.draw(st.booleans()):
            return kind.array(values)
        return chunked(kind, values, cuts(data.draw, values.shape))

    x, tx = (whole(rng, x_shape, dtype) for _ in range(2))
    w, tw = (whole(rng, w_shape, w_dtype) for _ in range(2))
    b, tb, dy = (whole(rng, shape, y_dtype) for shape in (b_shape, b_shape, y_shape))
    y, dx, dw, db = case.sums(dy, x, w)
    with options(method="lowering"):
        X, W, DY = chunked(kind, x, cuts(data.draw, x_shape)), lazily(w), chunked(kind, dy, cuts(data.draw, y_shape))
        function, backward, jvp, double = (
            getattr(xpconv, case.function + suffix) for suffix in ("", "_backward", "_jvp", "_double_backward")
        )
        assert_equal(kind, function(X, W, lazily(b), **said), y + case.per_channel(b), y_dtype)
        dX, dW, dB = backward(DY, X, W, **said)
        assert_equal(kind, dX, dx, dtype)
        assert_equal(kind, dW, dw, w_dtype)
        assert_equal(kind, dB, db, y_dtype)
        assert dX.chunks == X.chunks

        keep = [data.draw(st.booleans()) for _ in range(3)]
        tangents = [lazily(t) if kept else None for t, kept in zip((tx, tw, tb), keep, strict=True)]
        of_tx, of_tw = case.sums(dy, tx, w), case.sums(dy, x, tw)
        change = keep[0] * of_tx.y + keep[1] * of_tw.y + keep[2] * case.per_channel(tb)
        assert_equal(kind, jvp(*tangents, X, W, **said), change, y_dtype)

        ddY, dX, dW = double(*tangents, DY, X, W, **said)
        assert [one is None for one in (ddY, dX, dW)] == [not any(keep), not keep[1], not keep[0]]
        if any(keep):
            assert_equal(kind, ddY, change, y_dtype)
        if keep[1]:
            assert_equal(kind, dX, of_tw.dx, dtype)
            assert dX.chunks == X.chunks
        if keep[0]:
            assert_equal(kind, dW, of_tx.dw, w_dtype)

        if not transposed and dtype == w_dtype == y_dtype:
            assert_equal(kind, conv_input_grad(DY, W, input_size=case.inner.x[2:], **said), dx, dtype)
            assert_equal(kind, conv_weight_grad(DY, X, kernel_size=w_shape[2:], **said), dw, dtype)


@settings(max_examples=20)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_windows_in_any_chunks(backend, data, seed):
    """Against `unfold` and `fold` of arrays: it is the chunks that are tested."""
    ndim, kind = data.draw(st.integers(0, 2)), data.draw(kinds(backend))
    kernel, stride, dilation, lo = (
        data.draw(st.tuples(*(st.integers(low, 3) for _ in range(ndim)))) for low in (1, 1, 1, 0)
    )
    size = tuple(
        data.draw(st.integers(max(extent(k, d) - p, 1), 8)) for k, d, p in zip(kernel, dilation, lo, strict=True)
    )
    padding = tuple((p, data.draw(st.integers(0, 2))) for p in lo)
    said = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "padding_mode": data.draw(st.sampled_from(MODES)),
    }
    dtype = data.draw(st.sampled_from(["float64", "float16", "int8", "bool"]))
    batch, axis = data.draw(st.sampled_from([(2,), (), (3, 1)])), data.draw(st.integers(-ndim - 2, ndim + 1))
    said["channel_axis"] = axis
    x_shape = placed(np.empty((math.prod(batch), data.draw(st.integers(1, 3)), *size)), batch, axis).shape
    x = whole(np.random.default_rng(seed), x_shape, dtype)
    columns = unfold(x, kernel, **said)
    lazy = unfold(chunked(kind, x, cuts(data.draw, x_shape)), kernel, **said)
    assert_equal(kind, lazy, columns, dtype)
    for again in (lazy, chunked(kind, columns, cuts(data.draw, columns.shape))):
        assert_equal(kind, fold(again, size, kernel, **said), fold(columns, size, kernel, **said), dtype)


def test_windows_keep_the_chunks_of_the_batch_and_the_channels():
    x = da.ones((5, 6, 9, 9), chunks=((2, 3), (4, 2), (5, 4), 9))
    columns = unfold(x, 3)
    assert columns.chunks == ((2, 3), (36, 18), (49,))
    assert fold(columns, (9, 9), 3).chunks == ((2, 3), (4, 2), (9,), (9,))


@settings(max_examples=30)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_arrays_without_channels_in_any_chunks(backend, data, seed):
    """Against the same of arrays; an axis is of samples, outputs or groups, or convolved."""
    kind, rng = data.draw(kinds(backend)), np.random.default_rng(seed)
    axes = data.draw(st.sampled_from([(0,), (1,), (2, 0), (0, 1, 2)]))
    batch = st.sampled_from([(2, 2), (1, 3), (3, 1)])
    both = [
        (data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))) if i in axes else data.draw(batch)
        for i in range(3)
    ]
    (x, kernel), said = (whole(rng, shape, "float64") for shape in zip(*both, strict=True)), {"axes": axes}
    modes = ["full", "same"] if len(axes) > 1 else ["full", "same", "valid"]
    said |= {"mode": data.draw(st.sampled_from(modes)), "stride": data.draw(st.integers(1, 3))}
    said |= {"dilation": data.draw(st.integers(1, 2)), "padding_mode": data.draw(st.sampled_from(["zeros", *MODES]))}
    name = data.draw(st.sampled_from(["convolve", "correlate"]))
    function, backward = getattr(xpconv, name), getattr(xpconv, f"{name}_backward")
    y = function(x, kernel, **said)
    X, K, DY = (chunked(kind, one, cuts(data.draw, one.shape)) for one in (x, kernel, y))
    assert_equal(kind, function(X, K, **said), y, "float64")
    for lazy, like, expected in zip(backward(DY, X, K, **said), (X, K), backward(y, x, kernel, **said), strict=True):
        assert_equal(kind, lazy, expected, "float64")
        assert lazy.chunks == like.chunks


@pytest.mark.parametrize("given", ["x", "kernel", "dy"])
@pytest.mark.parametrize("shapes", [((4, 6), (1, 3)), ((3, 4), (1, 7))])
def test_of_arrays_without_channels_one_of_dask_is_enough(given, shapes):
    """The other is promoted, conjugated and reversed all the same."""
    rng = np.random.default_rng(4)
    arrays = {"x": whole(rng, shapes[0], "float32"), "kernel": whole(rng, shapes[1], "complex128")}
    said = {"axes": 1, "mode": "valid"}
    arrays["dy"] = xpconv.correlate(*arrays.values(), **said)
    lazy = arrays | {given: da.from_array(arrays[given], chunks=2)}
    if given != "dy":
        y = xpconv.correlate(lazy["x"], lazy["kernel"], **said)
        assert isinstance(y, da.Array)
        np.testing.assert_array_equal(y.compute(), arrays["dy"])
    expected = xpconv.correlate_backward(arrays["dy"], arrays["x"], arrays["kernel"], **said)
    found = xpconv.correlate_backward(lazy["dy"], lazy["x"], lazy["kernel"], **said)
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, da.Array)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one.compute(), other)


# What is promised of the graph.


def refuses(*_, **__):
    raise AssertionError("computed while the graph was built")


def small(kind, dtype="float64"):
    """Chunks of x, a weight, a bias and y's gradient; padded by one, y is as large as x."""
    rng = np.random.default_rng(3)
    x, w, b, dy = (whole(rng, shape, dtype) for shape in ((4, 4, 16, 12), (6, 4, 3, 3), (6,), (4, 6, 16, 12)))
    return (
        chunked(kind, x, (2, 2, 8, 4)),
        chunked(kind, w, (3, 2, 3, 3)),
        chunked(kind, b, 2),
        chunked(kind, dy, (1, 3, 5, 12)),
    )


def everything(x, w, b, dy):
    """Calls of all that takes arrays, by name; each is a list of results."""
    return {
        "conv": lambda: [conv(x, w, b, padding=1)],
        "conv_backward": lambda: conv_backward(dy, x, w, padding=1),
        "conv_jvp": lambda: [xpconv.conv_jvp(x, w, b, x, w, padding=1)],
        "conv_double_backward": lambda: xpconv.conv_double_backward(x, w, b, dy, x, w, padding=1),
        "conv_input_grad": lambda: [conv_input_grad(dy, w, input_size=(16, 12), padding=1)],
        "conv_weight_grad": lambda: [conv_weight_grad(dy, x, kernel_size=(3, 3), padding=1)],
        "conv_transpose": lambda: [xpconv.conv_transpose(dy, w, padding=1)],
        "conv_transpose_backward": lambda: xpconv.conv_transpose_backward(x, dy, w, padding=1),
        "conv_transpose_jvp": lambda: [xpconv.conv_transpose_jvp(dy, w, None, dy, w, padding=1)],
        "conv_transpose_double_backward": lambda: xpconv.conv_transpose_double_backward(
            dy, w, None, x, dy, w, padding=1
        ),
        "convolve": lambda: [xpconv.convolve(x, w[:1], axes=(2, 3))],
        "convolve_backward": lambda: xpconv.convolve_backward(x, x, w[:1], axes=(2, 3), mode="same"),
        "correlate": lambda: [xpconv.correlate(w[:1], x, axes=(2, 3), mode="valid")],
        "correlate_backward": lambda: xpconv.correlate_backward(x, x, w[:1], axes=(3, 2), mode="same"),
        "conv per sample": lambda: [conv(x, for_each(4, w), b, padding=1, per_sample=True)],
        "conv_weight_grad per sample": lambda: [
            conv_weight_grad(dy, x, kernel_size=(3, 3), padding=1, per_sample=True)
        ],
        "conv_stream": lambda: xpconv.conv_stream(x, w, b, stride=2),
        "local_conv": lambda: [xpconv.local_conv(x, everywhere(w), b, padding=1)],
        "local_conv_backward": lambda: xpconv.local_conv_backward(dy, x, everywhere(w), padding=1),
        "local_conv_transpose": lambda: [xpconv.local_conv_transpose(dy, everywhere(w), padding=1)],
        "unfold": lambda: [unfold(x, 3, padding=1)],
        "fold": lambda: [fold(x.reshape(4, 4, -1), (16, 12), (2, 2), padding=((1, 0), (0, 1)))],
        "Conv": lambda: through(Conv(4, 6, (3, 3), padding=1, rng=0), x, dy),
        "Conv of dask's weights": lambda: through(with_params(Conv(4, 6, (3, 3), padding=1), w, b), x, dy),
        "ConvTranspose": lambda: through(ConvTranspose(6, 4, (3, 3), padding=1, rng=0), dy, x),
    }


NAMES = list(everything(*(None,) * 4))


def for_each(samples, w):
    """The weight as if each sample had its own."""
    return (da if isinstance(w, da.Array) else array_namespace(w)).broadcast_to(w, (samples, *w.shape))


def everywhere(w):
    """The weight as if each place had its own."""
    xp = da if isinstance(w, da.Array) else array_namespace(w)
    return xp.broadcast_to(w[..., None, None], (*w.shape, 16, 12))


def with_params(layer, weight, bias):
    layer.set_params(weight, bias)
    return layer


def through(layer, x, dy):
    y = layer.forward(x)
    return [y, layer.backward(dy), layer.dweight, layer.dbias]


def test_everything_public_is_here():
    """But what takes no arrays."""
    functions = {name for name in xpconv.__all__ if name[0].islower() and not name.endswith("_size")}
    assert functions - {"explain", "options"} == {name.partition(" ")[0] for name in NAMES if name[0].islower()}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_computed_until_asked(backend, name):
    for kind in (backend, cupys()) if name[0].islower() else (backend,):
        with dask.config.set(scheduler=refuses):
            results = everything(*small(kind))[name]()
            with pytest.raises(AssertionError, match="computed while"):
                results[0].compute()
        bare = [dask.compute(one, scheduler="sync")[0] for one in small(kind)]
        for lazy, expected in zip(results, everything(*bare)[name](), strict=True):
            values, expected = computed(kind, lazy), kind.numpy(expected)
            assert values.dtype == expected.dtype
            np.testing.assert_allclose(values, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("given", ["dy", "x", "weight", "bias"])
@pytest.mark.parametrize("said", [{}, {"channel_axis": -1}, {"channel_axis": 0}, {"flip": True}], ids=str)
@pytest.mark.parametrize("batch", [(), (4,), (2, 2)])
def test_one_of_dask_is_enough(given, said, batch):
    """The others are what its chunks are."""
    kind, rng = cupys(), np.random.default_rng(4)
    channels = {1: len(batch), -1: len(batch) + 1, 0: 0}[said.get("channel_axis", 1)]
    x, dy = (np.moveaxis(whole(rng, (*batch, c, n), "float64"), len(batch), channels) for c, n in ((4, 9), (6, 7)))
    operands = {"dy": dy, "x": x, "weight": whole(rng, (6, 4, 3), "float64"), "bias": whole(rng, (6,), "float64")}
    arrays = {name: kind.array(values) for name, values in operands.items()}
    arrays[given] = chunked(kind, operands[given], 2)
    with options(method="lowering"):
        for names, function in (
            (("x", "weight", "bias"), lambda x, w, b: [conv(x, w, b, **said)]),
            (("dy", "x", "weight"), lambda dy, x, w: conv_backward(dy, x, w, **said)),
            (("dy", "weight"), lambda dy, w: [conv_input_grad(dy, w, input_size=9, **said)]),
            (("dy", "x"), lambda dy, x: [conv_weight_grad(dy, x, kernel_size=(3,), **said)]),
            (("x", "weight", "bias"), lambda x, w, b: [xpconv.conv_jvp(None, None, b, x, w, **said)]),
            (("x", "weight", "bias"), lambda x, w, b: [xpconv.conv_jvp(x, None, b, x, w, **said)]),
        ):
            if given in names:
                made = function(*(arrays[name] for name in names))
                expected = function(*(operands[name] for name in names))
                for lazy, values in zip(made, expected, strict=True):
                    assert_equal(kind, lazy, values, "float64")


def test_graphs_of_the_same_call_have_the_same_keys(backend):
    """So dask knows what it has already computed; the options are part of the call."""
    for name in NAMES:
        first, second = ([one.name for one in everything(*small(backend))[name]()] for _ in range(2))
        assert first == second
    x, w, *_ = small(backend)
    calls = [conv(x, w), conv(x, w, stride=2), conv(x, w, padding=1), conv(x, w, padding=1, padding_mode="reflect")]
    with options(method="fft"):
        calls.append(conv(x, w))
    with options(workspace=2**21):
        calls.append(conv(x, w))
    assert len({one.name for one in calls}) == len(calls)


def tasks(lazy, optimized=False):
    return len(dict((dask.optimize(lazy)[0] if optimized else lazy).__dask_graph__()))


def slots(x_shape, chunks, kernel):
    """y, dx and dw, of a kernel over all axes, padded to the same size."""
    x = da.zeros(x_shape, chunks=chunks)
    w, said = np.ones((4, x_shape[1], *kernel)), {"padding": "same"}
    y = conv(x, w, **said)
    dy = da.ones(y.shape, chunks=y.chunks)
    return x.npartitions, [y, *conv_backward(dy, x, w, **said)[:2]]


@pytest.mark.parametrize(
    ("chunks", "most"),
    [((1, 4, 128, 128), 6), ((1, 4, 16, 128), 8), ((1, 4, 16, 16), 10), ((2, 4, 16, 16), 10), ((1, 2, 16, 16), 10)],
    ids=["batch", "batch and rows", "batch, rows and columns", "larger batches", "channels, too"],
)
def test_tasks_grow_with_the_blocks_and_not_with_the_kernel(chunks, most):
    blocks, small_kernel = slots((4, 4, 128, 128), chunks, (3, 3))
    _, large_kernel = slots((4, 4, 128, 128), chunks, (9, 9))
    _, twice = slots((8, 4, 128, 128), chunks, (3, 3))
    _, thrice = slots((12, 4, 128, 128), chunks, (3, 3))
    for slot, one, large, two, three in zip("yxw", small_kernel, large_kernel, twice, thrice, strict=True):
        assert tasks(one) == tasks(large)
        if slot != "w":  # whose sum has a tree
            assert tasks(three) - tasks(two) == tasks(two) - tasks(one)
        for times, lazy in enumerate((one, two, three), 1):
            assert tasks(lazy, optimized=True) <= most * times * blocks


def results_of_all_tasks(lazy):
    """Of the graph as it stands, by key."""
    seen = {}
    with Callback(posttask=lambda key, value, *_: seen.update({key: value})):
        lazy.compute(scheduler="sync", optimize_graph=False)
    return seen


@pytest.mark.parametrize("slot", ["y", "x"])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "spread", "halos"),
    [
        (3, 1, 1, 1, (2, 2)),
        (5, 1, 1, 1, (4, 4)),
        (3, 1, 3, 1, (6, 6)),
        (5, 2, 1, 1, (3, 2)),
        (3, 1, 1, 2, (1, 1)),
        (1, 1, 1, 1, (0, 0)),
    ],
)
def test_of_neighbours_only_the_halo_is_fetched(slot, kernel, stride, dilation, spread, halos):
    """A block between others reads its place and the halo around it; what is at a corner comes with a side."""
    rng, edge = np.random.default_rng(5), 12
    lo = dilation * (kernel - 1) // 2
    said = {"stride": stride, "dilation": dilation, "input_dilation": spread, "padding": lo}
    x, w = rng.standard_normal((1, 2, 3 * edge, 3 * edge)), rng.standard_normal((2, 2, kernel, kernel))
    x = da.from_array(x, chunks=(1, 2, edge, edge))
    lazy, halo = conv(x, w, **said), halos[0]
    if slot == "x":
        edge, halo = edge * spread // stride, halos[1]
        dy = da.from_array(np.ones(lazy.shape), chunks=lazy.chunks)
        lazy = conv_backward(dy, x, w, needs=(True, False, False), **said)[0]
    seen = results_of_all_tasks(lazy)
    slabs = [value.shape[2:] for key, value in seen.items() if str(key[0]).startswith("halo")]
    largest = max(slabs, key=sum)
    assert largest[0] == largest[1] == edge + halo
    length = dy.shape[2] if slot == "x" else x.shape[2]
    sent = sum(value.size for key, value in seen.items() if str(key[0]).startswith("part"))
    assert sent == 2 * (2 * halo * length + 2 * halo * (length + 2 * halo))
    assert not any(str(key[0]).startswith("rechunk") for key in seen)


def test_the_input_gradient_is_made_in_the_inputs_chunks():
    """Not cut anew when it is there."""
    x, dy = da.ones((2, 3, 36), chunks=(1, 3, (7, 29))), da.ones((2, 4, 36), chunks=(2, 2, (20, 16)))
    dx = conv_backward(dy, x, np.ones((4, 3, 3)), padding=1)[0]
    assert dx.chunks == x.chunks
    assert not dx.name.startswith("rechunk")


def test_groups_in_different_chunks_stay_there():
    x, w = da.ones((2, 6, 8), chunks=(2, (2, 4), 8)), np.ones((9, 2, 3))
    assert conv(x, w, groups=3).chunks[1] == (3, 6)
    assert conv(x, da.from_array(w, chunks=(3, 1, 3)), groups=3).chunks[1] == (3, 6)
    assert conv(x.rechunk({1: (3, 3)}), w, groups=3).chunks[1] == (9,)
    assert conv(x.rechunk({1: -1}), da.from_array(w, chunks=((6, 3), 2, 3)), groups=3).chunks[1] == (9,)


def test_weight_gradients_are_the_same_to_the_bit_on_any_number_of_threads():
    rng = np.random.default_rng(6)
    x, w, dy = (rng.standard_normal(shape) for shape in ((4, 8, 40, 40), (8, 8, 3, 3), (4, 8, 40, 40)))
    x, dy = (da.from_array(one, chunks=(1, 4, 10, 20)) for one in (x, dy))
    gradients = conv_backward(dy, x, w, padding=1)
    first = dask.compute(*gradients, scheduler="sync")
    for workers in (2, 3, 8):
        again = dask.compute(*gradients, scheduler="threads", num_workers=workers)
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other, strict=True)


# Numbers as they come.


@pytest.mark.parametrize(("dtype", "promised"), [("float64", 1e-13), ("float32", 2e-5), ("complex64", 2e-5)])
@pytest.mark.parametrize(
    ("kernel", "chunks"), [((3, 3), (2, 8, 14, 14)), ((5, 5), (1, 4, 30, 9)), ((9, 9), (4, 8, 7, 30))]
)
def test_by_the_methods_that_auto_chooses(backend, dtype, promised, kernel, chunks):
    """Against torch in double precision, within what `options` promises."""
    rng = np.random.default_rng(7)
    x, w = normal(rng, (4, 8, 30, 30), dtype), normal(rng, (8, 8, *kernel), dtype)
    wide = "complex128" if dtype == "complex64" else "float64"
    said = {"padding": kernel[0] // 2}
    tensors = [torch.asarray(one.astype(wide)).requires_grad_() for one in (x, w)]
    out = torch.nn.functional.conv2d(*tensors, **said)
    dy = normal(rng, tuple(out.shape), dtype)
    out.backward(torch.asarray(dy.astype(wide)))
    x, dy = chunked(backend, x, chunks), chunked(backend, dy, chunks)
    ours = conv(x, backend.array(w), **said), *conv_backward(dy, x, backend.array(w), **said)[:2]
    for lazy, expected in zip(ours, (out.detach(), *(one.grad for one in tensors)), strict=True):
        actual, expected = computed(backend, lazy), expected.numpy()
        assert np.abs(actual - expected).max() <= promised * np.abs(expected).max()


@pytest.mark.parametrize("slot", ["y", "x", "w"])
def test_halves_are_rounded_once_after_the_sum_over_blocks(backend, slot):
    """2049 + 1 is 2050, but 2049 alone is 2048 among them."""
    many = chunked(backend, np.asarray([[[683]], [[1 / 3]]], "float16"), 1)
    in_channels = many.reshape(1, 2, 1)
    threes = chunked(backend, np.full((2, 1, 1), 3, "float16"), 1)
    made = {
        "y": lambda: conv(in_channels, threes.reshape(1, 2, 1)),
        "x": lambda: conv_input_grad(in_channels, threes, input_size=1),
        "w": lambda: conv_weight_grad(many, threes, kernel_size=(1,)),
    }[slot]()
    assert computed(backend, made).item() == 2050


def test_nan_goes_where_it_is_seen_and_no_further(backend):
    x, w = np.ones((1, 2, 20, 20)), np.ones((2, 2, 3, 3))
    x[0, 0, 9, 10] = np.nan
    y = computed(backend, conv(chunked(backend, x, (1, 2, 5, 20)), backend.array(w), padding=1))
    seen = np.zeros((1, 2, 20, 20), dtype=bool)
    seen[:, :, 8:11, 9:12] = True
    np.testing.assert_array_equal(np.isnan(y), seen)


def test_chunks_of_nothing(backend):
    """As a selection of unknown size leaves them, once their sizes are computed."""
    rng = np.random.default_rng(8)
    x, w = whole(rng, (4, 4, 9), "float64"), whole(rng, (6, 2, 3), "float64")
    for axis, there in ((0, [0, 0, 1, 1]), (1, [0, 0, 1, 1]), (2, [0, 0, 0, 1, 1, 1, 1, 1, 1])):
        there = np.asarray(there, dtype=bool)
        where = (slice(None),) * axis
        part, weight = x[(*where, there)], w if axis == 1 else np.concat([w, w], axis=1)
        lazy = chunked(backend, x, (2, 2, 3))[(*where, da.from_array(there, chunks=(2, 2, 3)[axis]))]
        lazy = lazy.compute_chunk_sizes()
        assert 0 in lazy.chunks[axis]
        with options(method="lowering"):
            y = conv(part, weight, padding=1)
            assert_equal(backend, conv(lazy, backend.array(weight), padding=1), y, "float64")
            made = conv_backward(chunked(backend, y, 2), lazy, backend.array(weight), padding=1)
            assert made[0].chunks == lazy.chunks
            for one, expected in zip(made, conv_backward(y, part, weight, padding=1), strict=True):
                assert_equal(backend, one, expected, "float64")


def selected(values, axes):
    """The values in chunks, the second and third of which along these axes hold nothing."""
    wide = values
    for axis in axes:
        wide = np.insert(wide, [2] * 4, 0, axis=axis)
    lazy = da.from_array(wide, chunks=2)
    for axis in axes:
        there = da.from_array(abs(np.arange(wide.shape[axis]) - 3.5) > 2, chunks=2)
        lazy = lazy[(*(slice(None),) * axis, there)]
    lazy = lazy.compute_chunk_sizes()
    assert all((0 in chunks) == (axis in axes) for axis, chunks in enumerate(lazy.chunks))
    return lazy


@FAMILIES
@pytest.mark.parametrize(("of_x", "of_dy"), [((2,), (1,)), ((0, 1, 2), (0, 2))])
def test_chunks_of_nothing_in_both_operands(family, of_x, of_dy):
    """With every algorithm to choose from."""
    rng = np.random.default_rng(8)
    x, w = whole(rng, (4, 4, 9), "float64"), whole(rng, (4, 4, 3), "float64")
    y = family.forward(x, w, stride=2)
    lazy = family.forward(selected(x, of_x), w, stride=2)
    np.testing.assert_allclose(lazy.compute(scheduler="sync"), y, rtol=0, atol=1e-9)
    made = family.backward(selected(y, of_dy), selected(x, of_x), w, stride=2)
    for one, expected in zip(made, family.backward(y, x, w, stride=2), strict=True):
        np.testing.assert_allclose(one.compute(scheduler="sync"), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_chunks_that_the_padding_crops(backend, mode):
    """What nobody reads has a gradient of zeros."""
    rng = np.random.default_rng(14)
    x, w = whole(rng, (1, 2, 9), "float64"), whole(rng, (3, 2, 3), "float64")
    lazy, said = chunked(backend, x, (1, 2, 2)), {"padding": [(-4, 3)], "padding_mode": mode}
    with options(method="lowering"):
        y = conv(x, w, **said)
        assert_equal(backend, conv(lazy, backend.array(w), **said), y, "float64")
        made = conv_backward(chunked(backend, y, 3), lazy, backend.array(w), **said)
        for one, expected in zip(made, conv_backward(y, x, w, **said), strict=True):
            assert_equal(backend, one, expected, "float64")


@pytest.mark.parametrize("chunks", [(1, 2, 1, 2), (2, 1, 3, 5), (2, 4, (1, 3, 1), (4, 2)), (2, 4, 5, 6)])
@pytest.mark.parametrize("modes", [("constant", "constant"), ("symmetric", "constant"), ("constant", "zeros")])
def test_a_constant_border(backend, modes, chunks):
    """Of blocks at the edge, of blocks that lie in it altogether, and of x that changes."""
    rng = np.random.default_rng(15)
    x, tx = (whole(rng, (2, 4, 5, 6), "float64") for _ in range(2))
    w, tw = (whole(rng, (6, 2, 3, 2), "float64") for _ in range(2))
    said = {"padding": [(2, 13), (7, 1)], "padding_mode": modes, "padding_value": 3, "groups": 2, "stride": (2, 1)}
    kernel, border = (3, 2), {name: said[name] for name in ("padding", "padding_mode", "padding_value")}
    for kind in (backend, cupys()):
        lazy, lazy_tx = (chunked(kind, one, chunks) for one in (x, tx))
        weight, change = kind.array(w), kind.array(tw)
        with options(method="lowering"):
            y = conv(x, w, **said)
            assert_equal(kind, conv(lazy, weight, **said), y, "float64")
            made = conv_backward(chunked(kind, y, 3), lazy, weight, **said)
            for one, expected in zip(made, conv_backward(y, x, w, **said), strict=True):
                assert_equal(kind, one, expected, "float64")
            ty = xpconv.conv_jvp(lazy_tx, change, None, lazy, weight, **said)
            assert_equal(kind, ty, xpconv.conv_jvp(tx, tw, None, x, w, **said), "float64")
        assert_equal(kind, unfold(lazy, kernel, **border), unfold(x, kernel, **border), "float64")


def test_a_constant_border_of_an_empty_axis(backend):
    x, w = np.ones((2, 3, 0, 4)), np.arange(24.0).reshape(2, 3, 2, 2)
    said = {"padding": (2, 1), "padding_mode": ("constant", "symmetric"), "padding_value": 3}
    y = conv(x, w, **said)
    lazy = chunked(backend, x, 2)
    assert_equal(backend, conv(lazy, backend.array(w), **said), y, "float64")
    made = conv_backward(chunked(backend, y, 2), lazy, backend.array(w), **said)
    for one, expected in zip(made, conv_backward(y, x, w, **said), strict=True):
        assert_equal(backend, one, expected, "float64")


def test_dtypes_of_files():
    """Blocks in the other byte order, float32 with float64, and a picture of integers with a floating kernel."""
    rng = np.random.default_rng(16)
    x, w = whole(rng, (2, 3, 7), ">f4"), whole(rng, (4, 3, 3), "float64")
    counts = whole(rng, (2, 3, 7), "uint8")
    for one, weight, said in ((x, w, {}), (x, w.astype(">f4"), {}), (counts, w, {"dtype": "float64"})):
        y = conv(one, weight, **said)
        lazy = da.from_array(one, chunks=(1, 2, 3))
        for ours, expected in (
            (conv(lazy, weight, **said), y),
            *zip(conv_backward(y, lazy, weight, **said), conv_backward(y, one, weight, **said), strict=True),
        ):
            assert ours.dtype == ours.compute().dtype == expected.dtype
            assert expected.dtype.isnative
            np.testing.assert_array_equal(ours.compute(), expected)


@pytest.mark.parametrize("empty", [(0, 3, 5), (2, 0, 5), (2, 3, 0)])
def test_arrays_of_nothing(backend, empty):
    x, w = np.zeros(empty), np.zeros((4, empty[1], 3))
    said = {"padding": 2}
    bias = np.arange(4.0)
    y = conv(x, w, bias, **said)
    gradients = conv_backward(y, x, w, **said)
    for kind in (backend, cupys()):
        lazy, filters = chunked(kind, x, -1), kind.array(w)
        assert_equal(kind, conv(lazy, filters, kind.array(bias), **said), y, "float64")
        made = conv_backward(chunked(kind, y, -1), lazy, filters, **said)
        for one, expected in zip(made, gradients, strict=True):
            assert_equal(kind, one, expected, "float64")


# What does not fit: a sentence, before any work.


def arguments():
    rng = np.random.default_rng(9)
    shapes = {"dy": (4, 6, 8), "x": (4, 2, 10), "weight": (6, 2, 3), "bias": (6,)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def call(given):
    """The function that has such an argument, over dask's chunks."""
    arrays = {name: da.from_array(values) for name, values in arguments().items()} | given
    dy, bias = arrays.pop("dy"), arrays.pop("bias")
    return conv_backward(dy, **arrays) if "dy" in given else conv(**arrays, bias=bias)


@pytest.mark.parametrize("name", ["dy", "x", "weight", "bias"])
@pytest.mark.parametrize(
    ("spoil", "kind", "sentence"),
    [
        (
            lambda a: a[a.reshape(len(a), -1)[:, 0] > -9],
            ValueError,
            "{} must have chunks of known sizes: got shape (nan",
        ),
        (lambda a: a > 0, TypeError, "{} must be of numbers: got bool; convert it first"),
        (lambda a: a.astype(object), TypeError, "{} must be of real or complex numbers"),
        (lambda a: da.ma.masked_array(a, a > 0), TypeError, "{} must be a plain array"),
        (lambda a: torch.asarray(a.compute(scheduler="sync")), TypeError, "must have one library: got"),
        (lambda a: chunked(cupys(), a.compute(scheduler="sync"), 2), TypeError, "must have one library: got"),
        (lambda a: cupys().array(a.compute(scheduler="sync")), TypeError, "must have one library: got"),
        (lambda a: a[..., None], ValueError, "must have"),
        (lambda a: a.astype("float32").astype("complex128"), TypeError, "must have dtype"),
    ],
    ids=["unknown", "bool", "object", "masked", "torch", "other chunks", "other array", "shape", "dtype"],
)
def test_what_does_not_fit_is_said_before_any_work(name, spoil, kind, sentence):
    spoilt = spoil(da.from_array(arguments()[name]))
    if "dtype" in sentence and name in ("x", "weight"):
        given = {name: spoilt, "bias": spoil(da.from_array(np.ones(6)))}  # complex, as y is
        with dask.config.set(scheduler=refuses):
            call(given)
        return
    with dask.config.set(scheduler=refuses), pytest.raises(kind) as caught:
        call({name: spoilt})
    assert sentence.format(name) in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "kind", "sentence"),
    [
        (lambda a: a[a[:, 0, 0] > -9], ValueError, f"must have chunks of known sizes: got shape (nan, 6, 8){FIRST}"),
        (lambda a: a[:, a[0, :, 0] > -9], ValueError, f"must have chunks of known sizes: got shape (4, nan, 8){FIRST}"),
        (lambda a: a[:, :, a[0, 0] > -9], ValueError, f"must have chunks of known sizes: got shape (4, 6, nan){FIRST}"),
        (lambda a: da.ma.masked_array(a, a > 0), TypeError, "must be a plain array"),
        (lambda a: a[0, 0], ValueError, "must"),
    ],
    ids=["unknown samples", "unknown channels", "unknown size", "masked", "shape"],
)
def test_windows_that_do_not_fit_are_said_so_before_any_work(spoil, kind, sentence):
    a = spoil(da.ones((4, 6, 8)))
    for function in (lambda: unfold(a, 3), lambda: fold(a, 10, 3)):
        with dask.config.set(scheduler=refuses), pytest.raises(kind) as caught:
            function()
        assert sentence in str(caught.value)


def test_nobody_can_explain_what_other_processes_choose():
    with pytest.raises(TypeError, match="x and weight must be of a library that computes"):
        explain(da.ones((1, 1, 4)), np.ones((1, 1, 2)))


@pytest.mark.parametrize("slot", ["y", "x", "w", "all"])
def test_a_method_that_cannot_do_it_says_so_before_any_work(slot):
    x, w, dy = (da.ones(shape, chunks=2) for shape in ((2, 2, 15), (2, 2, 3), (2, 2, 7)))
    function = {
        "y": lambda: conv(x, w, stride=2),
        "x": lambda: conv_input_grad(dy, w, input_size=15, stride=2),
        "w": lambda: conv_weight_grad(dy, x, kernel_size=(3,), stride=2),
        "all": lambda: conv_backward(dy, x, w, stride=2),
    }[slot]
    with dask.config.set(scheduler=refuses), options(method="winograd"), pytest.raises(ValueError, match="winograd"):
        function()


def test_a_method_can_do_of_chunks_what_it_can_do_of_arrays(backend):
    """Six taps at every second place are two phases of three: for Winograd in the input gradient."""
    rng = np.random.default_rng(10)
    x, w, dy = (whole(rng, shape, "float64") for shape in ((2, 2, 16), (2, 2, 6), (2, 2, 6)))
    needs = (True, False, False)
    with options(method="winograd"):
        expected = conv_backward(dy, x, w, stride=2, needs=needs)[0]
        lazy = conv_backward(chunked(backend, dy, 3), chunked(backend, x, 5), backend.array(w), stride=2, needs=needs)[
            0
        ]
    np.testing.assert_allclose(computed(backend, lazy), expected, rtol=0, atol=1e-13 * np.abs(expected).max())


# Threads and options.


@pytest.fixture
def in_blocks(monkeypatch):
    """What holds inside of blocks: options, BLAS's threads, and on how many of ours their parts are made."""
    seen = {"options": set(), "blas": set(), "ours": set()}
    fill, run_all = engine.fill, doors.run_all

    def spy_on_fill(*args, **kwargs):
        seen["options"].add(current())
        seen["blas"] |= {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
        return fill(*args, **kwargs)

    def spy_on_run_all(work, items, threads):
        seen["ours"].add(threads)
        return run_all(work, items, threads)

    monkeypatch.setattr(engine, "fill", spy_on_fill)
    monkeypatch.setattr(doors, "run_all", spy_on_run_all)
    return seen


def large():
    """Blocks large enough to be made in parts."""
    rng = np.random.default_rng(11)
    x, w = rng.standard_normal((4, 16, 96, 96)), rng.standard_normal((32, 16, 3, 3))
    return da.from_array(x, chunks=(1, 16, 96, 96)), w


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_a_block_has_one_thread(in_blocks):
    x, w = large()
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        conv(x, w, padding=1).compute(scheduler="threads", num_workers=4)
        assert blas_threads() == before
    assert set(before) == {2}
    assert in_blocks["blas"] == in_blocks["ours"] == {1}
    assert {one.threads for one in in_blocks["options"]} == {1}


def test_workers_that_are_asked_for_are_each_blocks_own(in_blocks):
    x, w = large()
    with options(workers=3):
        lazy = conv(x, w, padding=1)
    lazy.compute(scheduler="threads", num_workers=2)
    assert in_blocks["ours"] == {3}
    assert in_blocks["blas"] == {1}


@pytest.mark.parametrize(
    "said",
    [{"method": "fft"}, {"workspace": 2**21}, {"precision": "highest"}],
    ids=["method", "workspace", "precision"],
)
@pytest.mark.parametrize("slot", ["y", "x", "w"])
def test_options_are_those_of_where_the_graph_was_built(in_blocks, said, slot):
    x, w = large()
    dy = da.ones((4, 32, 96, 96), chunks=(1, 32, 96, 96))
    with options(**said):
        y, (dx, dw, _) = conv(x, w, padding=1), conv_backward(dy, x, w, padding=1)
    with options(method="lowering", workspace=2**22):
        {"y": y, "x": dx, "w": dw}[slot].compute(scheduler="threads", num_workers=2)
    assert [one._asdict() | said for one in in_blocks["options"]] == [one._asdict() for one in in_blocks["options"]]
    assert len(in_blocks["options"]) == 1
    assert current() == type(current())()


# What the caller has.


def test_chunks_may_be_read_only_and_are_left_as_they_are():
    """A cluster hands out arrays that cannot be written to."""
    rng = np.random.default_rng(12)
    values = [whole(rng, shape, "float64") for shape in ((4, 4, 11, 11), (6, 4, 3, 3), (6,), (4, 6, 11, 11))]
    copies = [one.copy() for one in values]
    frozen = [da.from_array(one, chunks=3).map_blocks(_frozen, dtype=one.dtype) for one in values]
    for mode in MODES:
        said = {"padding": 1, "padding_mode": mode}
        x, w, b, dy = values
        expected = conv(x, w, b, **said), *conv_backward(dy, x, w, **said)
        x, w, b, dy = frozen
        with options(method="lowering"):
            lazy = conv(x, w, b, **said), *conv_backward(dy, x, w, **said)
        for one, other in zip(dask.compute(*lazy, scheduler="sync"), expected, strict=True):
            np.testing.assert_array_equal(one, other)
    for one, copy in zip(values, copies, strict=True):
        np.testing.assert_array_equal(one, copy)


def _frozen(block):
    block = block.view()
    block.flags.writeable = False
    return block


def test_the_graph_holds_the_weights_that_it_was_built_with():
    x, w = da.ones((2, 3, 8), chunks=4), np.ones((3, 3, 3))
    y = conv(x, w)
    w[...] = 0
    assert set(y.compute(scheduler="sync").ravel()) == {9.0}


def test_a_bias_leaves_the_chunks_alone(backend):
    x, w, *_ = small(backend)
    bias = chunked(backend, np.arange(6.0), 1)
    assert conv(x, w, bias).chunks == conv(x, w).chunks
