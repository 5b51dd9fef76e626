"""How sums are made: their precision, on data that cancel, and results that do not depend on the batch."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache, partial

import numpy as np
import pytest
import torch
from support import draw
from threadpoolctl import threadpool_limits
from torch.nn import functional as F

from xpconv import (
    conv,
    conv_backward,
    conv_input_grad,
    conv_jvp,
    conv_transpose,
    conv_weight_grad,
    explain,
    options,
)

CASES = {
    "2-D": ((2, 24, 14, 13), (8, 24, 3, 3), {"padding": 1}),
    "in groups, in strides": ((2, 16, 17), (8, 8, 5), {"groups": 2, "stride": 2, "dilation": 2}),
    "depthwise": ((2, 8, 20, 20), (8, 1, 5, 5), {"padding": 2, "groups": 8}),
}


def cancelling(rng, shape, dtype):
    """Large numbers of alternating signs: sums of products are a thousandth of the sum of their absolute values."""
    signs = sum(np.indices(shape)[i] for i in {min(1, len(shape) - 1), len(shape) - 1}) % 2 * 2 - 1
    scale = 2**-7 if dtype == "float16" else 1  # which overflows at 65,520
    return ((100 + draw(rng, shape, "float32")) * signs * scale).astype(dtype)


@cache
def operands(case, dtype):
    """dy, x and w; their sums, exactly; and the sums of absolute products."""
    rng = np.random.default_rng(7)
    x_shape, w_shape, parameters = CASES[case]
    x, w = cancelling(rng, x_shape, dtype), draw(rng, w_shape, "float32")
    w = (1 + w / 100).astype(dtype)
    if dtype == "complex64":
        x, w = x + 1j * x[..., ::-1], w - 1j * w
    dy = cancelling(rng, conv(x, w, **parameters).shape, dtype)
    return dy, x, w, sums(dy, x, w, parameters), sums(np.abs(dy), np.abs(x), np.abs(w), parameters)


def sums(dy, x, w, parameters):
    """y, dx and dw by torch, in double precision."""
    wide = "complex128" if dy.dtype.kind == "c" else "float64"
    dy, x, w = (torch.from_numpy(one.astype(wide)) for one in (dy, x, w))
    y = (F.conv1d, F.conv2d)[w.ndim - 3](x.requires_grad_(), w.requires_grad_(), **parameters)
    y.backward(dy)
    return y.detach().numpy(), x.grad.numpy(), w.grad.numpy()


def results(backend, case, dy, x, w):
    x_shape, w_shape, parameters = CASES[case]
    gdy, gx, gw = map(backend.array, (dy, x, w))
    made = (
        conv(gx, gw, **parameters),
        conv_input_grad(gdy, gw, input_size=x_shape[2:], **parameters),
        conv_weight_grad(gdy, gx, kernel_size=w_shape[2:], **parameters),
    )
    return [backend.numpy(one) for one in made]


@pytest.mark.parametrize("method", ["auto", "lowering", "banded", "fft"])
@pytest.mark.parametrize("dtype", ["float32", "complex64", "float16"])
@pytest.mark.parametrize("case", CASES)
def test_the_highest_precision_rounds_once(backend, case, dtype, method):
    numbers = np.dtype(dtype if backend.dtype(dtype) is not None else "float32")
    dy, x, w, exact, absolute = operands(case, numbers.name)
    with options(precision="highest", method=method):
        found = results(backend, case, dy, x, w)
    eps = float(np.finfo(numbers).eps)
    for result, values, bound in zip(found, exact, absolute, strict=True):
        assert result.dtype == numbers
        error = np.abs(result.astype(values.dtype) - values)
        assert np.all(error <= 0.5001 * eps * np.abs(values) + 1e-13 * np.max(bound))


class Plain:
    """NumPy itself."""

    array = staticmethod(np.asarray)
    numpy = staticmethod(np.asarray)


@pytest.mark.parametrize(("precision", "contract"), [("auto", 2e-5), ("high", 2e-6)])
@pytest.mark.parametrize("method", ["auto", "lowering", "winograd", "banded", "fft"])
def test_errors_are_within_the_sum_of_absolute_products_for_data_that_cancel(method, precision, contract):
    case = "2-D"
    dy, x, w, exact, absolute = operands(case, "float32")
    assert np.max(np.abs(exact[0])) < 0.1 * np.max(absolute[0])  # they do cancel
    with options(precision=precision, method=method):
        found = results(Plain, case, dy, x, w)
    for result, values, bound in zip(found, exact, absolute, strict=True):
        assert np.max(np.abs(result - values)) <= contract * np.max(bound)


def test_the_highest_precision_in_what_is_made_of_several_sums(backend, rng):
    """Tangents, the bias and its gradient, real numbers with complex ones, borders, transposed ones: rounded once."""
    dy, x, w, *_ = operands("2-D", "float32")
    bias = cancelling(rng, (8,), "float32")
    gdy, gx, gw, gb = map(backend.array, (dy, x, w, bias))
    wide = partial(np.asarray, dtype="float64")
    calls = {
        "bias": (lambda x, w, b, _: conv(x, w, b, padding=1), 1),
        "tangent": (lambda x, w, b, _: conv_jvp(x, w, b, x, w, padding=1), 1),
        "bias gradient": (lambda x, w, _, dy: conv_backward(dy, x, w, needs=(False, False, True), padding=1)[2], 1),
        "border": (lambda x, w, b, _: conv(x, w, b, padding=1, padding_mode="reflect"), 1),
        "input dilation": (lambda x, w, b, _: conv(x, w, b, padding=1, input_dilation=2), 1),
        "transposed": (lambda _, w, __, dy: conv_transpose(dy, w, padding=1), 1),
    }
    with options(precision="highest"):
        for call, _ in calls.values():
            found = backend.numpy(call(gx, gw, gb, gdy))
            values = call(*map(wide, (x, w, bias, dy)))
            assert found.dtype == np.float32
            error = np.abs(found - values)
            assert np.all(error <= 0.5001 * 2.0**-23 * np.abs(values) + 1e-8)
        found = backend.numpy(conv(gx, backend.array(w + 1j * w), padding=1))
        assert found.dtype == np.complex64
        values = conv(wide(x), wide(w) * (1 + 1j), padding=1)
        assert np.all(np.abs(found - values) <= 2.0**-23 * np.abs(values) + 1e-8)


def test_the_highest_precision_is_explained(rng):
    x, w = draw(rng, (2, 24, 56, 56), "float32"), draw(rng, (8, 24, 3, 3), "float32")
    with options(method="lowering"):
        once = explain(x, w).contractions[0].part_bytes
        with options(precision="highest"):
            assert explain(x, w).contractions[0].parts * explain(x, w).contractions[0].part_bytes > once


INVARIANT = {
    "3x3": ((7, 24, 14, 13), (16, 24, 3, 3), {"padding": 1}),
    "large": ((5, 32, 40, 40), (48, 32, 3, 3), {"padding": 1}),
    "1x1": ((7, 24, 14, 13), (16, 24, 1, 1), {}),
    "depthwise, circular": ((5, 16, 21, 20), (16, 1, 5, 5), {"padding": 2, "groups": 16, "padding_mode": "circular"}),
    "in strides": ((6, 8, 101), (8, 8, 7), {"stride": 3}),
    "long": ((4, 2, 3000), (2, 2, 300), {}),
}


@pytest.mark.parametrize("case", INVARIANT)
def test_the_bits_of_a_sample_do_not_depend_on_its_batch(backend, rng, case):
    x_shape, w_shape, parameters = INVARIANT[case]
    x, w = (draw(rng, shape, "float32") for shape in (x_shape, w_shape))
    bias = draw(rng, w_shape[:1], "float32")
    dy = draw(rng, conv(x, w, **parameters).shape, "float32")
    size = x_shape[2:]

    def both(some):
        gx, gdy, gw, gb = map(backend.array, (x[some], dy[some], w, bias))
        made = conv(gx, gw, gb, **parameters), conv_input_grad(gdy, gw, input_size=size, **parameters)
        return [backend.numpy(one) for one in made]

    # BLAS, which array-api-strict calls, rounds differently for each number of its threads; NumPy's work has its own.
    blas = nullcontext() if backend.name.startswith("numpy") else threadpool_limits(1)
    with blas, options(batch_invariant=True):
        everything = both(slice(None))
        for some in (slice(0, 1), slice(1, 4), [x_shape[0] - 1, 0, 1]):
            for result, whole in zip(both(some), everything, strict=True):
                np.testing.assert_array_equal(result, whole[some], strict=True)
        with options(workspace=2**27, workers=1):
            for result, whole in zip(both(slice(None)), everything, strict=True):
                np.testing.assert_array_equal(result, whole, strict=True)
        with options(workers=3):
            for result, whole in zip(both(slice(1, 3)), everything, strict=True):
                np.testing.assert_array_equal(result, whole[1:3], strict=True)
    for result, close in zip(both(slice(None)), everything, strict=True):
        np.testing.assert_allclose(result, close, rtol=0, atol=2e-5 * np.max(np.abs(close)))


def test_a_workspace_too_small_for_invariant_results_is_refused():
    x, w = np.ones((1, 64, 200, 200), "float32"), np.ones((64, 64, 3, 3), "float32")
    with options(batch_invariant=True, workspace=2**20), pytest.raises(ValueError, match=r"at least \d+ .*invariant"):
        conv(x, w)
