"""The workspace is a limit: what is taken beside operands and result, as NumPy reports it, for every way there is."""

from __future__ import annotations

import re
import tracemalloc

import pytest

from xpconv import conv, conv_input_grad, conv_weight_grad, options

MIB = 2**20

CASES = {
    "a kernel like the image": ((1, 2, 48, 48), (3, 2, 48, 48), {}),
    "a kernel like half of the image": ((1, 1, 128, 128), (1, 1, 63, 63), {"padding": 31}),
    "a picture": ((1, 1, 700, 700), (1, 1, 5, 5), {"padding": 2}),
    "a large kernel on a picture": ((1, 1, 512, 512), (1, 1, 31, 31), {}),
    "many channels": ((1, 192, 14, 14), (192, 192, 3, 3), {"padding": 1}),
    "samples": ((4, 32, 48, 48), (32, 32, 3, 3), {"padding": 1}),
    "in strides": ((2, 32, 48, 48), (64, 32, 4, 4), {"padding": 1, "stride": 2}),
    "groups in strides": ((2, 32, 60, 60), (32, 8, 5, 5), {"padding": 2, "groups": 4, "stride": 3}),
    "depthwise": ((2, 64, 56, 56), (64, 1, 7, 7), {"padding": 3, "groups": 64}),
    "a long signal": ((1, 2, 60_000), (2, 2, 500), {"padding": 250}),
    "three axes": ((1, 4, 24, 24, 24), (4, 4, 3, 3, 3), {"padding": 1}),
    "dilated": ((1, 16, 72, 72), (16, 16, 3, 3), {"dilation": 12, "padding": 12}),
    "a border": ((2, 16, 64, 64), (16, 16, 3, 3), {"padding": 2, "padding_mode": "reflect"}),
    "one tap": ((2, 128, 40, 40), (128, 128, 1, 1), {}),
}
KINDS = [
    ("auto", "float32"),
    ("auto", "float64"),
    ("auto", "complex64"),
    ("auto", "float16"),
    ("auto", "int8"),
    ("lowering", "float32"),
    ("winograd", "float64"),
    ("banded", "float32"),
    ("fft", "float64"),
]


def draw(rng, shape, dtype):
    if dtype == "int8":
        return rng.integers(-3, 4, shape, dtype=dtype)
    numbers = rng.standard_normal(shape)
    return (numbers + 1j * rng.standard_normal(shape) if dtype.startswith("complex") else numbers).astype(dtype)


def taken(call):
    """The most bytes at a time beside the result, or the error of a workspace that is too small for that."""
    tracemalloc.start()
    try:
        result = call()
        return tracemalloc.get_traced_memory()[1] - result.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("method", "dtype"), KINDS)
def test_every_way_keeps_to_it(rng, name, method, dtype):
    x_shape, w_shape, parameters = CASES[name]
    x, w = draw(rng, x_shape, dtype), draw(rng, w_shape, dtype)
    dy = conv(x, w, **parameters)
    calls = {
        "y": lambda: conv(x, w, **parameters),
        "x": lambda: conv_input_grad(dy, w, input_size=x_shape[2:], **parameters),
        "w": lambda: conv_weight_grad(dy, x, kernel_size=w_shape[2:], **parameters),
    }
    for mib, workers in ((1, 2), (4, 1), (16, 2)):
        for slot, call in calls.items():
            beside = 0
            if slot != "w" and dtype in ("int8", "float16", "complex64"):
                beside += 2 * w.nbytes * (8 // w.itemsize if dtype != "complex64" else 1)  # the weight, converted
            if slot == "x" and "padding_mode" in parameters:
                beside += 2 * x.nbytes
            with options(workspace=mib * MIB, workers=workers, method=method):
                try:
                    most = taken(call)
                except ValueError as error:
                    assert re.match("workspace must be at least|method must be", str(error))  # noqa: PT017
                    assert method != "auto" or "kernel" in name
                    continue
            assert most <= mib * MIB + beside, f"{slot} in {mib} MiB: {most / MIB:.1f} MiB"
