"""The transposed convolution against torch's, and against the loop (oracle.py) for all that torch has not."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from cases import TransposedCase as Case
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import assert_within, draw, whole_numbers

from xpconv import (
    conv,
    conv_input_grad,
    conv_output_size,
    conv_transpose,
    conv_transpose_backward,
    conv_transpose_output_size,
    options,
)

DTYPES = ["float32", "float64", "complex64", "complex128"]
TRANSPOSED = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}
torch.backends.cudnn.allow_tf32 = False


# Against torch.


def by_torch(backend, dy, x, w, bias, **parameters):
    """y, dx, dw and db as torch and its tape compute them; dy is made for y."""
    x, w, bias = (torch.asarray(values, device=backend.torch_device).requires_grad_() for values in (x, w, bias))
    y = TRANSPOSED[w.ndim - 2](x, w, bias, **parameters)
    y.backward(torch.asarray(dy(tuple(y.shape)), device=backend.torch_device))
    return [tensor.detach().cpu().numpy() for tensor in (y, x.grad, w.grad, bias.grad)]


def check_by_torch(backend, rng, dtype, x_shape, w_shape, **parameters):
    x, w = draw(rng, x_shape, dtype), draw(rng, w_shape, dtype)
    bias = draw(rng, (w_shape[1] * parameters.get("groups", 1),), dtype)
    drawn = []

    def dy(shape):
        drawn.append(draw(rng, shape, dtype))
        return drawn[-1]

    theirs = by_torch(backend, dy, x, w, bias, **parameters)
    given = [*drawn, x, w, bias]
    sizes = [np.abs(values).astype("float64") for values in given]
    magnitudes = by_torch(backend, lambda _: sizes[0], *sizes[1:], **parameters)
    terms = by_torch(backend, np.ones, *(np.ones_like(size) for size in sizes[1:]), **parameters)

    ours_dy, inputs, weight, ours_bias = map(backend.array, given)
    ours = (
        conv_transpose(inputs, weight, ours_bias, **parameters),
        *conv_transpose_backward(ours_dy, inputs, weight, **parameters),
    )
    for one, other, magnitude, count in zip(ours, theirs, magnitudes, terms, strict=True):
        values = backend.numpy(one)
        assert values.dtype == other.dtype
        assert_within(values, other, magnitude, count)
    shaping = {key: value for key, value in parameters.items() if key != "groups"}
    assert conv_transpose_output_size(x_shape[2:], w_shape[2:], **shaping) == theirs[0].shape[2:]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("x", "w", "parameters"),
    [
        ((3, 12, 20), (12, 8, 9), {"padding": 4}),
        ((2, 8, 7, 7), (8, 6, 4, 4), {"stride": 2, "padding": 1}),
        ((2, 6, 7, 8), (6, 4, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
        (
            (2, 6, 5, 6),
            (6, 2, 3, 2),
            {"stride": (2, 3), "padding": (1, 0), "dilation": (2, 1), "output_padding": (1, 2), "groups": 3},
        ),
        ((2, 4, 4, 5), (4, 1, 2, 3), {"stride": 3, "groups": 4, "output_padding": (2, 0)}),
        ((2, 4, 4, 5), (4, 2, 3, 3), {"dilation": 3, "output_padding": 2, "stride": 2}),
        ((1, 4, 3, 4, 3), (4, 3, 3, 2, 2), {"stride": 2, "padding": 1, "groups": 2, "output_padding": (1, 0, 1)}),
        ((3, 10, 6, 6), (10, 7, 1, 1), {}),
        ((4, 3, 5), (4, 3, 1), {"stride": 5, "output_padding": 4}),
    ],
)
def test_layers(backend, rng, dtype, x, w, parameters):
    check_by_torch(backend, rng, dtype, (x[0], w[0], *x[2:]), w, **parameters)


@st.composite
def torchs_geometries(draw_from):
    ndim = draw_from(st.integers(1, 3))

    def each(low, *high):
        return tuple(draw_from(st.integers(low, one)) for one in (high if len(high) == ndim else high * ndim))

    size, kernel, stride, dilation = each(1, 4), each(1, 3), each(1, 3), each(1, 3)
    extra = each(0, *(max(s, d) - 1 for s, d in zip(stride, dilation, strict=True)))
    most = (s * (m - 1) + d * (k - 1) + e for m, k, s, d, e in zip(size, kernel, stride, dilation, extra, strict=True))
    padding = each(0, *(min(3, n // 2) for n in most))
    groups, samples, inputs, outputs = (draw_from(st.integers(1, 3)) for _ in range(4))
    parameters = {"stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation}
    return (samples, groups * inputs, *size), (groups * inputs, outputs, *kernel), {**parameters, "groups": groups}


@settings(max_examples=50)
@given(geometry=torchs_geometries(), seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(["float64", "complex64"]))
def test_any_geometry_that_torch_has(backend, geometry, seed, dtype):
    x, w, parameters = geometry
    check_by_torch(backend, np.random.default_rng(seed), dtype, x, w, **parameters)


# Against the loop.


CASES = {
    "no spatial axes": Case((3, 4), (4, 2), ()),
    "no spatial axes, groups": Case((3, 4), (4, 3), (), {"groups": 2}),
    "1-D": Case((2, 3, 5), (3, 4, 3), (7,)),
    "2-D": Case((2, 3, 3, 4), (3, 2, 2, 3), (8, 9), {"stride": (3, 2)}),
    "4-D": Case((1, 2, 2, 1, 2, 2), (2, 2, 2, 2, 1, 2), (3, 2, 2, 3), {"groups": 2}),
    "4-D of modes": Case(
        (1, 2, 2, 3, 2, 3),
        (2, 1, 2, 2, 2, 2),
        (2, 3, 2, 3),
        {
            "padding": [(1, 0), (0, 1), (1, 0), (0, 1)],
            "padding_mode": ("reflect", "zeros", "circular", "replicate"),
        },
        (1, 0, 1, 0),
        (0, 1, 0, 1),
    ),
    "5-D": Case((1, 2, 1, 2, 1, 2, 2), (2, 1, 2, 1, 2, 1, 2), (2, 2, 2, 2, 4), {"stride": (1, 1, 1, 1, 2)}),
    "stride over kernel": Case((2, 2, 3), (2, 3, 2), (10,), {"stride": 4}),
    "stride over kernel, more output": Case((2, 2, 3), (2, 3, 2), (13,), {"stride": 4, "output_padding": 3}),
    "output size": Case((2, 2, 3, 3), (2, 2, 2, 2), (7, 10), {"stride": (2, 3), "output_size": (7, 10)}),
    "output padding up to the dilation": Case((1, 2, 3), (2, 2, 2), (7,), {"dilation": 3, "output_padding": 1}),
    "uneven padding": Case((2, 2, 4, 3), (2, 2, 3, 2), (4, 3), {"padding": [(0, 2), (1, 0)]}, (0, 1), (2, 0)),
    "negative padding": Case((1, 2, 4, 4), (2, 2, 2, 2), (6, 6), {"padding": [(-1, 0), (1, -2)]}, (-1, 1), (0, -2)),
    "valid": Case((1, 2, 3), (2, 2, 2), (4,), {"padding": "valid"}),
    "same": Case((2, 2, 4, 2), (2, 2, 4, 4), (8, 6), {"stride": (2, 3), "padding": "same"}, (1, 0), (1, 1)),
    "same lower": Case((2, 2, 4, 2), (2, 2, 4, 4), (8, 6), {"stride": (2, 3), "padding": "same_lower"}, 1, (1, 0)),
    "same, stride over kernel": Case((1, 2, 2), (2, 2, 2), (6,), {"stride": 3, "padding": "same"}),
    "same of a size": Case((2, 2, 4), (2, 2, 3), (7,), {"stride": 2, "padding": "same", "output_size": 7}, 1, 1),
    "same, circular": Case(
        (2, 2, 3, 4),
        (2, 2, 3, 4),
        (6, 4),
        {"stride": (2, 1), "padding": "same", "padding_mode": "circular"},
        (0, 1),
        (1, 2),
    ),
    "full": Case((2, 2, 6), (2, 2, 3), (4,), {"padding": "full"}, 2, 2),
    "full, reflect": Case((2, 2, 6), (2, 2, 3), (4,), {"padding": "full", "padding_mode": "reflect"}, 2, 2),
    "causal": Case(
        (1, 2, 5), (2, 2, 3), (10,), {"padding": "causal", "stride": 2, "dilation": 2, "output_padding": 1}, 4
    ),
    "causal, replicate": Case((2, 2, 5), (2, 3, 3), (5,), {"padding": "causal", "padding_mode": "replicate"}, 2),
    "modes, mixed": Case(
        (1, 2, 3, 3, 4),
        (2, 2, 2, 3, 2),
        (3, 3, 2),
        {"padding": [(1, 0), (1, 1), (2, 1)], "padding_mode": ("reflect", "replicate", "circular")},
        (1, 1, 2),
        (0, 1, 1),
    ),
    "modes and zeros, a stride": Case(
        (2, 2, 3, 4),
        (2, 2, 3, 3),
        (6, 8),
        {"stride": 2, "padding": 1, "padding_mode": ("zeros", "reflect"), "output_padding": 1},
        1,
        1,
    ),
    "reflected again and again": Case((2, 1, 6), (1, 2, 3), (2,), {"padding": 3, "padding_mode": "reflect"}, 3, 3),
    "one element, reflected": Case((2, 1, 3), (1, 2, 3), (1,), {"padding": 2, "padding_mode": "reflect"}, 2, 2),
    "circular, several times around": Case(
        (1, 2, 8), (2, 1, 2), (2,), {"padding": [(2, 5)], "padding_mode": "circular"}, 2, 5
    ),
    "cropped on one side, reflected on the other": Case(
        (1, 2, 5), (2, 2, 3), (6,), {"padding": [(-1, 2)], "padding_mode": "reflect"}, -1, 2
    ),
    "input dilation": Case((2, 2, 5), (2, 3, 3), (4,), {"input_dilation": 2}),
    "input dilation, padding": Case((2, 2, 5), (2, 2, 3), (3,), {"input_dilation": 2, "padding": 1}, 1, 1),
    "input dilation, a stride": Case((1, 2, 6), (2, 2, 2), (5,), {"input_dilation": 3, "stride": 2}),
    "input dilation, of one axis": Case(
        (1, 2, 3, 4), (2, 2, 3, 2), (3, 8), {"input_dilation": (2, 1), "stride": (1, 2)}
    ),
    "flip": Case((2, 2, 3, 4), (2, 3, 2, 3), (4, 9), {"flip": True, "stride": (1, 2)}),
    "depthwise": Case((2, 3, 3, 4), (3, 2, 2, 2), (4, 5), {"groups": 3}),
    "pointwise": Case((2, 3, 2, 3), (3, 4, 1, 1), (2, 3)),
    "one of everything": Case((1, 1, 1, 1), (1, 1, 1, 1), (1, 1)),
    "one of everything, circular": Case((1, 1, 1), (1, 1, 1), (1,), {"padding": [(0, 0)], "padding_mode": "circular"}),
    "all at once": Case(
        (2, 4, 4, 3),
        (4, 3, 3, 2),
        (8, 6),
        {
            "stride": (2, 3),
            "padding": [(2, 1), (1, 1)],
            "dilation": (2, 1),
            "groups": 2,
            "output_padding": (0, 0),
            "padding_mode": ("circular", "replicate"),
            "flip": True,
        },
        (2, 1),
        (1, 1),
    ),
}

SOME = "modes, mixed", "input dilation, a stride", "all at once"
# Every geometry in one dtype, and every dtype in three geometries.
VALUES = [
    *((name, ("float64", "complex64")[i % 2]) for i, name in enumerate(CASES) if name not in SOME),
    *(
        (name, dtype)
        for name in SOME
        for dtype in (*DTYPES, *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)))
    ),
]


@cache
def by_the_loop(name, dtype):
    """Operands; then y, dx, dw, db and y without a bias as they should be, their magnitudes and counts of products."""
    case, rng = CASES[name], np.random.default_rng(20261123)
    operands = [draw(rng, shape, dtype) for shape in case.shapes]
    sums = []
    for kind in (np.array, np.abs, lambda values: np.ones(values.shape)):
        *rest, bias = map(kind, operands)
        results = case.expected(*rest, bias)
        plain = case.expected(*rest)[0] if kind is np.array else results[0]
        sums.append((*results, plain))
    return operands, *sums


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(("name", "dtype"), VALUES)
def test_against_the_loop(backend, name, dtype):
    case = CASES[name]
    operands, expected, magnitude, terms = by_the_loop(name, dtype)
    before = [operand.copy() for operand in operands]
    dy, x, w, bias = map(backend.array, operands)

    y = conv_transpose(x, w, bias, **case.parameters)
    plain = conv_transpose(x, w, **case.parameters)
    gradients = conv_transpose_backward(dy, x, w, **case.parameters)

    for result, *rest in zip((y, *gradients, plain), expected, magnitude, terms, strict=True):
        values = backend.numpy(result)
        assert values.dtype == np.dtype(dtype)
        assert_within(values, *rest)
    for array, operand, copy in zip((dy, x, w, bias), operands, before, strict=True):
        assert operand.tobytes() == copy.tobytes()
        assert backend.numpy(array).tobytes() == copy.tobytes()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_output_size_is_that_of_the_loops_cases(case):
    shaping = {key: value for key, value in case.parameters.items() if key != "groups"}
    assert conv_transpose_output_size(case.x[2:], case.w[2:], **shaping) == case.size


@st.composite
def geometries(draw_from):
    """Any, with sizes by the rule: of those that `conv` takes to as many outputs, or a little more, one is chosen."""
    sizes = []
    for _ in range(draw_from(st.integers(0, 3))):
        m, k, s, d, r = (draw_from(st.integers(1, high)) for high in (3, 3, 3, 3, 3))
        lo, hi = (draw_from(st.integers(-2, 3)) for _ in range(2))
        mode = draw_from(st.sampled_from(["zeros", "reflect", "replicate", "circular"])) if r == 1 else "zeros"
        span = s * (m - 1) + d * (k - 1) + 1 - lo - hi
        fitting = [n for n in range(1, 40) if span <= r * (n - 1) + 1 < span + max(s, d)]
        assume(fitting and span > 0)
        extra = draw_from(st.integers(0, len(fitting) - 1))
        sizes.append((m, k, s, d, r, lo, hi, mode, fitting[extra], extra))
    m, k, s, d, r, lo, hi, mode, size, extra = zip(*sizes, strict=True) if sizes else ((),) * 10
    groups, samples, inputs, outputs = (draw_from(st.integers(1, 2)) for _ in range(4))
    assume(samples * groups * inputs * outputs * np.prod(m) * np.prod(k) < 1500)
    parameters = {
        "stride": s,
        "dilation": d,
        "input_dilation": r,
        "padding": tuple(zip(lo, hi, strict=True)),
        "padding_mode": mode,
        "groups": groups,
        "flip": draw_from(st.booleans()),
        **draw_from(st.sampled_from([{"output_padding": extra}, {"output_size": size}])),
    }
    return Case((samples, groups * inputs, *m), (groups * inputs, outputs, *k), size, parameters, lo, hi)


@settings(max_examples=60)
@given(case=geometries(), seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(["float64", "complex128"]))
def test_any_geometry(backend, case, seed, dtype):
    """The loop, the adjoint law <y, dy> = <x, dx> = <w, dw>, and `conv_input_grad`: all to the last bit."""
    rng = np.random.default_rng(seed)
    dy, x, w = (whole_numbers(rng, shape, dtype) for shape in (case.y, case.x, case.w))
    with options(method="lowering"):
        y = backend.numpy(conv_transpose(backend.array(x), backend.array(w), **case.parameters))
        gradients = conv_transpose_backward(*map(backend.array, (dy, x, w)), **case.parameters)
    results = (y, *map(backend.numpy, gradients))
    for result, expected in zip(results, case.expected(dy, x, w), strict=True):
        np.testing.assert_array_equal(result, expected)
        assert result.dtype == np.dtype(dtype)
    assert np.vdot(dy, y) == np.vdot(results[1], x) == np.vdot(results[2], w)

    said = {key: value for key, value in case.parameters.items() if key not in ("output_padding", "output_size")}
    if conv_output_size(case.size, case.w[2:], **{**said, "groups": 1}) == case.x[2:]:
        with options(method="lowering"):
            dx = conv_input_grad(backend.array(x), backend.array(np.conj(w)), input_size=case.size, **said)
            gathered = conv(backend.array(np.conj(dy)), backend.array(w), **said)
        np.testing.assert_array_equal(backend.numpy(dx), y)
        np.testing.assert_array_equal(np.conj(backend.numpy(gathered)), results[1])


@settings(max_examples=25)
@given(case=geometries(), seed=st.integers(0, 2**32 - 1))
def test_any_geometry_by_the_chosen_method(backend, case, seed):
    rng = np.random.default_rng(seed)
    dy, x, w = (draw(rng, shape, "float64") for shape in (case.y, case.x, case.w))
    y = conv_transpose(backend.array(x), backend.array(w), **case.parameters)
    gradients = conv_transpose_backward(*map(backend.array, (dy, x, w)), **case.parameters)
    magnitudes = case.expected(*map(np.abs, (dy, x, w)))
    terms = case.expected(*(np.ones(a.shape) for a in (dy, x, w)))
    for result, *rest in zip((y, *gradients), case.expected(dy, x, w), magnitudes, terms, strict=True):
        assert_within(backend.numpy(result), *rest)


# Layout and numbers.

LAYOUTS = Case((4, 4, 3, 2), (4, 3, 2, 3), (6, 6), {"stride": (2, 3), "groups": 2})


@pytest.mark.parametrize("channel_axis", [-4, -3, -2, -1, 0, 1, 2, 3])
def test_channel_axis(backend, rng, channel_axis):
    dy, x, w = (whole_numbers(rng, shape) for shape in (LAYOUTS.y, LAYOUTS.x, LAYOUTS.w))
    bias = whole_numbers(rng, LAYOUTS.y[1:2])

    def moved(values):
        return backend.array(np.ascontiguousarray(np.moveaxis(values, 1, channel_axis)))

    y, dx, dw, db = LAYOUTS.expected(dy, x, w, bias)
    said = {**LAYOUTS.parameters, "channel_axis": channel_axis}
    result = conv_transpose(moved(x), backend.array(w), backend.array(bias), **said)
    gradients = conv_transpose_backward(moved(dy), moved(x), backend.array(w), **said)
    for one, expected in (
        (result, np.moveaxis(y, 1, channel_axis)),
        (gradients.dx, np.moveaxis(dx, 1, channel_axis)),
        (gradients.dweight, dw),
        (gradients.dbias, db),
    ):
        np.testing.assert_array_equal(backend.numpy(one), expected)


@pytest.mark.parametrize(
    ("batch", "channel_axis"), [((), 1), ((), -1), ((), 0), ((2, 2), 1), ((1, 4, 1), -1), ((4,), 1)]
)
def test_batch_axes(backend, rng, batch, channel_axis):
    case = LAYOUTS._replace(x=(int(np.prod(batch)), *LAYOUTS.x[1:]))
    dy, x, w = (whole_numbers(rng, shape) for shape in (case.y, case.x, case.w))

    def laid_out(values):
        values = values.reshape(*batch, *values.shape[1:])
        first = len(batch)  # where the channels are
        return np.ascontiguousarray(np.moveaxis(values, first, channel_axis if channel_axis < 1 else first))

    y, dx, dw, db = case.expected(dy, x, w)
    said = {**case.parameters, "channel_axis": channel_axis}
    given_dy, given_x = (backend.array(laid_out(values)) for values in (dy, x))
    result = conv_transpose(given_x, backend.array(w), **said)
    gradients = conv_transpose_backward(given_dy, given_x, backend.array(w), **said)
    for one, expected in (
        (result, laid_out(y)),
        (gradients.dx, laid_out(dx)),
        (gradients.dweight, dw),
        (gradients.dbias, db),
    ):
        np.testing.assert_array_equal(backend.numpy(one), expected)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("kinds", [("complex128", "float64"), ("float64", "complex128"), ("complex64", "float32")])
@pytest.mark.parametrize("name", ["all at once", "input dilation, a stride", "no spatial axes, groups"])
def test_real_meets_complex(backend, rng, name, kinds):
    case, y_dtype = CASES[name], max(kinds, key=lambda kind: kind[0] == "c")
    dtypes = (y_dtype, *kinds, y_dtype)
    operands = [whole_numbers(rng, shape, dtype) for shape, dtype in zip(case.shapes, dtypes, strict=True)]
    dy, x, w, bias = map(backend.array, operands)
    with options(method="lowering"):
        results = (
            conv_transpose(x, w, bias, **case.parameters),
            *conv_transpose_backward(dy, x, w, **case.parameters),
        )
    for result, expected, dtype in zip(results, case.expected(*operands), dtypes, strict=True):
        values = backend.numpy(result)
        assert values.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(values, expected.astype(dtype))


def test_a_wider_result(backend, rng):
    case = CASES["2-D"]
    x, w = (rng.integers(-128, 128, shape).astype("int8") for shape in (case.x, case.w))
    y = conv_transpose(backend.array(x), backend.array(w), dtype=backend.xp.int32, **case.parameters)
    values = backend.numpy(y)
    assert values.dtype == np.int32
    np.testing.assert_array_equal(values, case.expected(np.zeros(case.y), *(a.astype("int64") for a in (x, w)))[0])
    narrow = backend.numpy(conv_transpose(backend.array(x), backend.array(w), **case.parameters))
    np.testing.assert_array_equal(narrow, values.astype("int8"))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_summed_in_float32(backend, dtype):
    narrow = backend.dtype(dtype)
    if narrow is None:
        pytest.xfail(f"{backend.name} has no {dtype}")

    def array(values):
        with backend.here():
            return backend.xp.astype(backend.array(np.asarray(values, dtype="float32")), narrow)

    def same(result, expected):
        assert result.dtype == narrow
        with backend.here():
            wide = backend.numpy(backend.xp.astype(result, backend.xp.float32))
        np.testing.assert_array_equal(wide, np.broadcast_to(np.float32(expected), wide.shape))

    # One large number and so many ones that their sum is a neighbour of it; one by one, each would be lost.
    large, ones = (2048, 16) if dtype == "float16" else (256, 16)
    column = np.ones((ones + 1, 1, 1))
    column[0] = large
    same(conv_transpose(array(np.ones((1, ones + 1, 3))), array(column)), large + ones)
    dy, x = array(column), array(np.ones((ones + 1, 1, 1)))
    _, dw, db = conv_transpose_backward(dy, x, array([[[1.0]]]))
    same(dw, large + ones)
    same(db, large + ones)
    dx, _, _ = conv_transpose_backward(array(column.reshape(1, -1, 1)), x[:1], array(np.ones((1, ones + 1, 1))))
    same(dx, large + ones)
    if dtype == "float16":  # 80000 on the way, which is no float16
        w = array([[[40000.0]], [[40000.0]], [[-40000.0]]])
        same(conv_transpose(array(np.ones((1, 3, 2))), w), 40000)


# The sizes of the output.


@pytest.mark.parametrize(
    ("size", "kernel", "parameters"),
    [
        ((3, 4), (3, 2), {"stride": (2, 3), "padding": (1, 0)}),
        ((1, 5), (2, 4), {"stride": (4, 1), "padding": (0, 2)}),
        ((2, 2), (3, 2), {"stride": 3, "padding": 1, "dilation": (2, 3)}),
    ],
)
def test_every_size_that_torch_takes(backend, rng, size, kernel, parameters):
    x, w = whole_numbers(rng, (2, 3, *size)), whole_numbers(rng, (3, 2, *kernel))
    layer = torch.nn.ConvTranspose2d(3, 2, kernel, bias=False, dtype=torch.float64, **parameters)
    layer = layer.to(backend.torch_device)
    with torch.no_grad():
        layer.weight.copy_(torch.asarray(w))
    least = conv_transpose_output_size(size, kernel, **parameters)
    stride = parameters["stride"] if isinstance(parameters["stride"], tuple) else (parameters["stride"],) * 2
    for extra in np.ndindex(stride):
        wanted = tuple(int(n + e) for n, e in zip(least, extra, strict=True))
        theirs = layer(torch.asarray(x, device=backend.torch_device), output_size=wanted)
        ours = conv_transpose(backend.array(x), backend.array(w), output_size=wanted, **parameters)
        np.testing.assert_array_equal(backend.numpy(ours), theirs.detach().cpu().numpy())
        assert (
            tuple(ours.shape[2:])
            == wanted
            == conv_transpose_output_size(size, kernel, **parameters, output_size=wanted)
        )
        padded = conv_transpose(backend.array(x), backend.array(w), output_padding=tuple(map(int, extra)), **parameters)
        np.testing.assert_array_equal(backend.numpy(padded), backend.numpy(ours))
    for axis, (n, s) in enumerate(zip(least, stride, strict=True)):
        dilation = parameters.get("dilation", 1)
        most = n + max(s, dilation[axis] if isinstance(dilation, tuple) else dilation) - 1
        for wrong in (n - 1, most + 1, 10 * most):
            wanted = [*least]
            wanted[axis] = wrong
            if wrong > n + s - 1 or wrong < n:
                with pytest.raises(ValueError, match="output size"):
                    layer(torch.asarray(x, device=backend.torch_device), output_size=wanted)
            with pytest.raises(ValueError, match="output_size") as caught:
                conv_transpose(backend.array(x), backend.array(w), output_size=wanted, **parameters)
            assert str(caught.value) == f"output_size must be from {n} to {most} on spatial axis {axis}: got {wrong}"


@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", "same_lower"])
def test_same_makes_stride_times_the_size(backend, padding, stride, kernel):
    assert conv_transpose_output_size(5, kernel, stride=stride, padding=padding) == (5 * stride,)
    x, w = backend.array(np.ones((1, 1, 5))), backend.array(np.ones((1, 1, kernel)))
    y = conv_transpose(x, w, stride=stride, padding=padding)
    assert tuple(y.shape) == (1, 1, 5 * stride)
    back = conv(y, w, stride=stride, padding=padding)
    assert tuple(back.shape) == (1, 1, 5)
    for size in range(5 * stride - stride + 1, 5 * stride + 1):  # each of these `conv` takes to 5
        y = conv_transpose(x, w, stride=stride, padding=padding, output_size=size)
        assert tuple(y.shape) == (1, 1, size)
        y = backend.numpy(y)
        np.testing.assert_array_equal(
            y, backend.numpy(conv_input_grad(x, w, input_size=size, stride=stride, padding=padding))
        )


# Errors.

X, W = np.ones((2, 4, 3, 5)), np.ones((4, 3, 3, 3))
DY = np.ones((2, 3, 5, 7))
CONVOLVE = "arrays without channels are for convolve"

BAD = [
    (
        ValueError,
        "output_padding must be less than the stride or the dilation: got 2 on spatial axis 1",
        lambda: conv_transpose(X, W, stride=2, output_padding=(1, 2)),
    ),
    (
        ValueError,
        "output_padding must be less than the stride or the dilation: got 1 on spatial axis 0",
        lambda: conv_transpose(X, W, output_padding=1),
    ),
    (
        ValueError,
        "output_padding must be less than the stride or the dilation: got 3 on spatial axis 0",
        lambda: conv_transpose_output_size((3, 5), 3, stride=2, dilation=3, output_padding=3),
    ),
    (
        ValueError,
        "output_padding must be 0 where output_size is given: got 1",
        lambda: conv_transpose(X, W, stride=2, output_padding=1, output_size=(8, 12)),
    ),
    (
        ValueError,
        "output_padding must be 0 with padding 'same': got (1, 0)",
        lambda: conv_transpose(X, W, stride=2, output_padding=(1, 0), padding="same"),
    ),
    (
        ValueError,
        "output_padding must be an integer of at least 0, or a sequence of 2, one per spatial axis: got -1",
        lambda: conv_transpose(X, W, output_padding=-1),
    ),
    (
        TypeError,
        "output_padding must be an integer of at least 0, or a sequence of 2, one per spatial axis: got 1.0",
        lambda: conv_transpose(X, W, stride=2, output_padding=1.0),
    ),
    (
        TypeError,
        "output_padding must be an integer of at least 0, or a sequence of 2, one per spatial axis: got True",
        lambda: conv_transpose(X, W, stride=2, output_padding=True),
    ),
    (
        ValueError,
        "output_size must be from 7 to 8 on spatial axis 0: got 6",
        lambda: conv_transpose(X, W, stride=2, output_size=(6, 11)),
    ),
    (
        ValueError,
        "output_size must be from 11 to 12 on spatial axis 1: got 13",
        lambda: conv_transpose_backward(DY, X, W, stride=2, output_size=(7, 13)),
    ),
    (
        ValueError,
        "output_size must be from 1 to 2 on spatial axis 0: got 3",
        lambda: conv_transpose_output_size(1, 1, stride=2, output_size=3),
    ),
    (
        ValueError,
        "output_size must be from 5 to 6 on spatial axis 0: got 7",
        lambda: conv_transpose_output_size(3, 4, stride=2, padding="same", output_size=7),
    ),
    (
        ValueError,
        "output_size must be an integer of at least 1, or a sequence of 2, one per spatial axis: got (0, 11)",
        lambda: conv_transpose(X, W, stride=2, output_size=(0, 11)),
    ),
    (
        TypeError,
        "output_size must be an integer of at least 1, or a sequence of 2, one per spatial axis: got '7'",
        lambda: conv_transpose(X, W, stride=2, output_size="7"),
    ),
    (
        ValueError,
        "x must have at least one position on each spatial axis: got (0, 5)",
        lambda: conv_transpose(X[:, :, :0], W),
    ),
    (
        ValueError,
        "input_size must be a sequence of integers of at least 1, one per spatial axis: got (3, 0)",
        lambda: conv_transpose_output_size((3, 0), 3),
    ),
    (
        ValueError,
        "padding must leave something of the output: 0 remain on spatial axis 0",
        lambda: conv_transpose(X, W, padding=[(2, 3), (0, 0)]),
    ),
    (
        ValueError,
        "padding must leave something of the output: -1 remain on spatial axis 1",
        lambda: conv_transpose(X, W, padding=(0, 4)),
    ),
    (
        ValueError,
        "weight must have 4 input channels, as many as x: got 3",
        lambda: conv_transpose(X, W[:3]),
    ),
    (
        ValueError,
        "weight must have 4 input channels, as many as x: got 8",
        lambda: conv_transpose(X, np.ones((8, 3, 3, 3)), groups=2),
    ),
    (
        ValueError,
        "groups must divide the input channels: got groups=3, 4 channels",
        lambda: conv_transpose(X, W, groups=3),
    ),
    (ValueError, "groups must be an integer of at least 1: got 0", lambda: conv_transpose(X, W, groups=0)),
    (
        ValueError,
        "the kernel must have at least one tap on each axis: got kernel size (3, 0)",
        lambda: conv_transpose(X, W[..., :0]),
    ),
    (
        ValueError,
        f"weight must have at least 2 axes (out channels, in channels / groups, *kernel): got 1; {CONVOLVE}",
        lambda: conv_transpose(X, np.ones(3)),
    ),
    (
        ValueError,
        "x must have at least 3 axes (channels, 2 spatial; any number for the batch before them): got 2",
        lambda: conv_transpose(X[0, 0], W),
    ),
    (ValueError, "bias must have shape (3,): got (4,)", lambda: conv_transpose(X, W, np.ones(4))),
    (ValueError, "bias must have shape (6,): got (3,)", lambda: conv_transpose(X, W, np.ones(3), groups=2)),
    (
        TypeError,
        "bias must have dtype float64: got int64",
        lambda: conv_transpose(X, W, np.ones(3, dtype="int64")),
    ),
    (
        ValueError,
        "dy must have shape (2, 3, 5, 7): got (2, 3, 5, 6)",
        lambda: conv_transpose_backward(DY[..., :6], X, W),
    ),
    (
        ValueError,
        "dy must have shape (2, 3, 8, 12): got (2, 3, 5, 7)",
        lambda: conv_transpose_backward(DY, X, W, stride=2, output_padding=1),
    ),
    (
        TypeError,
        "dy must have dtype float64: got float32",
        lambda: conv_transpose_backward(DY.astype("float32"), X, W),
    ),
    (
        TypeError,
        "needs must be three bools, for dx, dweight and dbias: got (1, 1, 1)",
        lambda: conv_transpose_backward(DY, X, W, needs=(1, 1, 1)),
    ),
    (
        ValueError,
        "padding_mode must be 'zeros' where input_dilation is not 1: got 'circular' on spatial axis 0",
        lambda: conv_transpose(X, W, padding=(1, 0), padding_mode="circular", input_dilation=2),
    ),
    (
        TypeError,
        "x and weight must have one library: got numpy and torch",
        lambda: conv_transpose(X, torch.asarray(W)),
    ),
]


@pytest.mark.parametrize(("error", "sentence", "call"), BAD)
def test_sentence(error, sentence, call):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == sentence
    for array in (X, W, DY):
        assert (array == 1).all()


# What is not there, and what must not spread.


@pytest.mark.parametrize(
    ("x", "w", "groups"),
    [
        ((0, 2, 3, 2), (2, 3, 2, 2), 1),  # no samples
        ((2, 0, 3, 2), (0, 3, 2, 2), 1),  # no input channels: nothing but the bias
        ((2, 0, 3, 2), (0, 3, 2, 2), 2),
        ((2, 2, 3, 2), (2, 0, 2, 2), 1),  # no output channels
        ((0, 0, 3, 2), (0, 0, 2, 2), 1),
    ],
)
@pytest.mark.parametrize("parameters", [{"padding": [(1, 0), (0, 1)]}, {"padding": 1, "padding_mode": "circular"}])
def test_of_nothing(backend, rng, x, w, groups, parameters):
    size = (3, 2) if "padding_mode" not in parameters else (2, 1)
    pairs = ((1, 0), (0, 1)) if "padding_mode" not in parameters else ((1, 1), (1, 1))
    case = Case(x, w, size, {**parameters, "groups": groups}, *zip(*pairs, strict=True))
    operands = [whole_numbers(rng, shape) for shape in case.shapes]
    dy, inputs, weight, bias = map(backend.array, operands)
    results = (
        conv_transpose(inputs, weight, bias, **case.parameters),
        *conv_transpose_backward(dy, inputs, weight, **case.parameters),
    )
    for result, expected in zip(results, case.expected(*operands), strict=True):
        np.testing.assert_array_equal(backend.numpy(result), expected)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "parameters",
    [{"stride": 5, "output_padding": 3}, {"dilation": 7}, {"stride": (3, 4), "padding": [(-1, 0), (0, -2)]}],
)
def test_where_no_tap_reaches_there_is_just_the_bias(backend, rng, dtype, parameters):
    x, w, bias = (draw(rng, shape, dtype) for shape in ((2, 4, 4, 5), (4, 3, 2, 2), (3,)))
    y = backend.numpy(conv_transpose(*map(backend.array, (x, w, bias)), **parameters))
    ones = torch.ones((1, 1, 4, 5), dtype=torch.float64), torch.ones((1, 1, 2, 2), dtype=torch.float64)
    said = {key: value for key, value in parameters.items() if key != "padding"}
    reached = TRANSPOSED[2](*ones, **said).numpy()[0, 0] > 0
    if "padding" in parameters:
        reached = np.pad(reached, ((1, 0), (0, 2)))
    assert y.shape[2:] == reached.shape
    assert np.sum(~reached) > 0
    nothing = y[:, :, ~reached]
    np.testing.assert_array_equal(nothing, np.broadcast_to(bias[:, None], nothing.shape))
    without = backend.numpy(conv_transpose(backend.array(x), backend.array(w), **parameters))
    assert not without[:, :, ~reached].any()


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "parameters",
    [{"padding": 1}, {"stride": 2, "padding": 1, "padding_mode": "circular"}, {"input_dilation": 2, "stride": 2}],
)
def test_nan_and_inf_reach_just_what_sees_them(backend, value, parameters):
    x, w = np.ones((2, 2, 5, 6)), np.ones((2, 3, 2, 3))
    x[1, 1, 3, 2] = value
    y = backend.numpy(conv_transpose(backend.array(x), backend.array(w), **parameters))
    case = Case(x.shape, w.shape, y.shape[2:], parameters, parameters.get("padding", 0), parameters.get("padding", 0))

    def seen_by(dy, x):
        y, dx, *_ = case.expected(dy, x, np.ones_like(w))
        return y > 0, dx > 0

    reached, _ = seen_by(np.zeros_like(y), (~np.isfinite(x)).astype("float64"))
    assert 0 < np.sum(reached) < reached.size
    np.testing.assert_array_equal(~np.isfinite(y), reached)

    dy = np.ones_like(y)
    dy[0, 2, 2, 3] = value
    needs = (True, False, True)
    dx, _, db = conv_transpose_backward(*map(backend.array, (dy, np.ones_like(x), w)), needs=needs, **parameters)
    _, reached = seen_by((~np.isfinite(dy)).astype("float64"), np.zeros_like(x))
    assert 0 < np.sum(reached) < reached.size
    np.testing.assert_array_equal(~np.isfinite(backend.numpy(dx)), reached)
    np.testing.assert_array_equal(~np.isfinite(backend.numpy(db)), [False, False, True])
