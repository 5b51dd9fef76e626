"""The workspace is a limit: what is taken beside operands and result, as NumPy reports it, for every way there is."""

from __future__ import annotations

import tracemalloc
from itertools import product

import numpy as np
import pytest

from xpconv import conv, conv_backward, conv_input_grad, conv_weight_grad, explain, options
from xpconv._algorithms import contract
from xpconv._algorithms.choose import Wanted, choose
from xpconv._algorithms.plan import UNLIMITED, Limits
from xpconv._spec.geometry import parse

MIB = 2**20

CASES = {
    "a kernel like the image": ((1, 2, 48, 48), (3, 2, 48, 48), {}),
    "a kernel like half of the image": ((1, 1, 80, 80), (1, 1, 41, 41), {"padding": 20}),
    "a picture": ((1, 1, 300, 300), (1, 1, 5, 5), {"padding": 2}),
    "a large kernel on a picture": ((1, 1, 256, 256), (1, 1, 23, 23), {}),
    "many channels": ((1, 160, 14, 14), (160, 160, 3, 3), {"padding": 1}),
    "samples": ((4, 32, 48, 48), (32, 32, 3, 3), {"padding": 1}),
    "in strides": ((2, 32, 48, 48), (64, 32, 4, 4), {"padding": 1, "stride": 2}),
    "groups in strides": ((2, 32, 60, 60), (32, 8, 5, 5), {"padding": 2, "groups": 4, "stride": 3}),
    "depthwise": ((2, 24, 56, 56), (24, 1, 7, 7), {"padding": 3, "groups": 24}),
    "a long signal": ((1, 2, 40_000), (2, 2, 500), {"padding": 250}),
    "three axes": ((1, 4, 24, 24, 24), (4, 4, 3, 3, 3), {"padding": 1}),
    "dilated": ((1, 16, 72, 72), (16, 16, 3, 3), {"dilation": 12, "padding": 12}),
    "a border": ((2, 16, 64, 64), (16, 16, 3, 3), {"padding": 2, "padding_mode": "reflect"}),
    "a constant border": (
        (2, 16, 64, 64),
        (16, 16, 3, 3),
        {"padding": 2, "padding_mode": "constant", "padding_value": 1.0},
    ),
    "one tap": ((2, 96, 40, 40), (96, 96, 1, 1), {}),
}
LONG = [name for name in CASES if "kernel" in name or "long" in name]
SHORT = [name for name in CASES if name not in LONG]
WAYS = {
    ("auto", "float32"): CASES,
    ("auto", "float64"): CASES,
    ("auto", "complex64"): [*LONG, "many channels", "in strides", "a border"],
    ("auto", "float16"): ["a large kernel on a picture", "samples", "groups in strides", "a border"],
    ("auto", "int8"): ["a picture", "many channels", "in strides", "a border"],
    ("lowering", "float32"): [name for name in SHORT if name not in ("a picture", "depthwise")],
    ("winograd", "float64"): ["samples", "three axes"],
    ("banded", "float32"): ["a long signal", "groups in strides", "depthwise"],
    ("fft", "float64"): [*LONG, "three axes"],
}


@pytest.fixture(scope="module", autouse=True)
def started():
    """The first work starts threads, looks for BLAS, and imports Fourier transforms."""
    for method in ("lowering", "fft"):
        with options(workers=2, workspace=MIB, method=method):
            conv(np.ones((64, 1, 4000)), np.ones((8, 1, 3)))


def draw(rng, shape, dtype):
    if dtype == "int8":
        return rng.integers(-3, 4, shape, dtype=dtype)
    numbers = rng.standard_normal(shape) / 16
    return (numbers + 1j * rng.standard_normal(shape) if dtype.startswith("complex") else numbers).astype(dtype)


def taken(call):
    """The most bytes at a time beside the result, or the error of a workspace that is too small for that."""
    tracemalloc.start()
    try:
        result = call()
        return tracemalloc.get_traced_memory()[1] - result.nbytes
    finally:
        tracemalloc.stop()


def beside(slot, x, w, parameters):
    """What `options` says that is taken on top of the workspace."""
    compute = w.itemsize if w.dtype.kind in "fc" and w.itemsize > 2 else 8 if w.dtype == "int8" else 4
    more = 0
    if slot == "w":  # the gradient in the dtype that is computed in
        more += compute * w.size if compute != w.itemsize else 0
    elif compute != w.itemsize or w.dtype.kind == "c":  # the weight, converted or conjugated
        more += 2 * compute * w.size
    if slot == "x" and "padding_mode" in parameters:  # the gradient that a border adds, and in which dtype
        more += 2 * x.nbytes
    return more


@pytest.mark.parametrize(("method", "dtype", "name"), [(*way, name) for way, names in WAYS.items() for name in names])
def test_every_way_keeps_to_it(rng, method, dtype, name):
    x_shape, w_shape, parameters = CASES[name]
    x, w = draw(rng, x_shape, dtype), draw(rng, w_shape, dtype)
    dy = conv(x, w, **parameters)
    calls = {
        "y": lambda: conv(x, w, **parameters),
        "x": lambda: conv_input_grad(dy, w, input_size=x_shape[2:], **parameters),
        "w": lambda: conv_weight_grad(dy, x, kernel_size=w_shape[2:], **parameters),
    }
    for (slot, call), (mib, workers) in product(calls.items(), ((1, 2), (4, 1)) if method == "auto" else ((1, 2),)):
        most, refused = 0, ""
        with options(workspace=mib * MIB, workers=workers, method=method):
            try:
                most = taken(call)
            except ValueError as error:
                refused = str(error)
        assert most <= mib * MIB + beside(slot, x, w, parameters), f"{slot} in {mib} MiB: {most / MIB:.1f} MiB"
        assert not refused or (method != "auto" and refused.startswith(("workspace must be", "method must be")))


def test_a_smaller_workspace_takes_no_more(rng):
    """A plan that does not fit is dropped: this one was a transform of the whole picture."""
    x, w = rng.standard_normal((1, 1, 1024, 1024)), rng.standard_normal((1, 1, 31, 31))
    for mib in (4, 16, 64):
        with options(workspace=mib * MIB):
            assert taken(lambda: conv(x, w)) <= mib * MIB


ALONE = {"method": "fft", "workspace": MIB}


def test_an_error_says_how_much_would_do(rng):
    x, w = rng.standard_normal((1, 1, 500, 500)), rng.standard_normal((1, 1, 101, 101))
    with options(**ALONE), pytest.raises(ValueError, match=r"^workspace must be at least \d+ for this") as raised:
        conv(x, w)
    assert str(raised.value).endswith(" for this convolution by method 'fft': got 1048576")
    least = int(str(raised.value).split()[5])
    with options(method="fft", workspace=least):
        assert taken(lambda: conv(x, w)) <= least
    with options(method="fft", workspace=least - 1), pytest.raises(ValueError, match=r"^workspace must be"):
        conv(x, w)


@pytest.mark.parametrize("slot", "yxw")
def test_it_says_the_least_that_would_do(slot):
    geometry = parse((1, 2, 200, 200), (3, 2, 200, 200), 1, 0, 1, 1)

    def error(workspace):
        """The number of the error's sentence."""
        wanted = Wanted(Limits(8, workspace, workspace // 8, UNLIMITED), True, True, True, "auto", "auto")
        try:
            choose(geometry, slot, wanted)
        except ValueError as error:
            return int(str(error).split()[5])
        return None

    least = error(MIB)
    assert MIB < least < 3 * MIB
    assert error(least) is None
    assert error(least - 2**12) is not None


def test_what_it_says_would_do_does():
    """Also where most of it is for the weight, and parts grow with the workspace."""
    x, w = np.ones((1, 1, 20_000)), np.ones((1, 1, 1000))
    with options(method="banded", workspace=MIB), pytest.raises(ValueError, match="by method 'banded'") as error:
        conv(x, w)
    with options(method="banded", workspace=int(str(error.value).split()[5])):
        assert np.all(np.abs(conv(x, w) - 1000) < 1e-9)


def test_what_one_window_spans_must_fit():
    x, w = np.ones((1, 1, 400, 400)), np.ones((1, 1, 399, 399))
    with options(workspace=MIB), pytest.raises(ValueError, match=r"^workspace must be at least \d+ .*: got 1048576$"):
        conv(x, w)
    with options(workspace=MIB), pytest.raises(ValueError, match=r"^workspace must be"):
        explain(x, w)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_the_error_comes_before_any_work(monkeypatch, padding_mode):
    x, w = np.ones((1, 1, 500, 500)), np.ones((1, 1, 101, 101))
    parameters = {"padding": 2, "padding_mode": padding_mode}
    dy = conv(x, w, **parameters)
    for name in ("forward", "input_grad", "weight_grad"):
        monkeypatch.setattr(contract, name, None)
    with options(**ALONE), pytest.raises(ValueError, match=r"^workspace must be"):
        conv_backward(dy, x, w, **parameters)
    with options(**ALONE), pytest.raises(ValueError, match=r"^workspace must be"):
        conv_input_grad(dy, w, input_size=x.shape[2:], **parameters)


@pytest.mark.parametrize(("samples", "size"), [(1, 80), (3, 80), (2, 40)])
def test_a_kernel_of_one_tap_is_neither_gathered_nor_copied(rng, samples, size):
    """A product of the input as it lies in memory, written straight to the result."""
    x, w = draw(rng, (samples, 32, size, size), "float32"), draw(rng, (48, 32, 1, 1), "float32")
    for _ in range(2):
        tracemalloc.start()
        y = conv(x, w)
        peak = tracemalloc.get_traced_memory()[1] - y.nbytes
        tracemalloc.stop()
    assert peak < 2**16
    np.testing.assert_allclose(y, np.einsum("oc,nchw->nohw", w[..., 0, 0], x), rtol=0, atol=1e-4)


def test_a_kernel_of_one_tap_beside_the_input(rng):
    """As many outputs as inputs, but shifted by the padding."""
    x, w = rng.standard_normal((1, 2, 5, 6)), rng.standard_normal((3, 2, 1, 1))
    y = conv(x, w, padding=[(1, -1), (0, 0)])
    expected = np.einsum("oc,nchw->nohw", w[..., 0, 0], np.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :5])
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-14)
    dx = conv_input_grad(y, w, input_size=(5, 6), padding=[(1, -1), (0, 0)])
    back = np.einsum("oc,nohw->nchw", w[..., 0, 0], y)
    np.testing.assert_allclose(dx[:, :, :4], back[:, :, 1:], rtol=0, atol=1e-13)
    assert not dx[:, :, 4:].any()


@pytest.mark.parametrize("slot", "yxw")
def test_kernels_like_the_image_go_by_fourier_in_the_usual_workspace(slot):
    """A picture of 512x512, by itself, with all of its border: other ways take a thousand times as long."""
    geometry = parse((1, 1, 512, 512), (1, 1, 512, 512), 1, "full", 1, 1)
    wanted = Wanted(Limits(8, 2**26, 2**23, UNLIMITED), True, True, True, "auto", "auto")
    assert "Fourier" in choose(geometry, slot, wanted).name
