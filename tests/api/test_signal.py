"""Arrays without channels, against sums that are written as matrices: one of zeros and ones for each axis.

scipy.signal itself is in tests/peers.
"""

from __future__ import annotations

from itertools import product

import array_api_strict as strict
import numpy as np
import pytest
import torch
from support import assert_within, draw, whole_numbers

from xpconv import convolve, convolve_backward, correlate, correlate_backward, options
from xpconv._api import calls
from xpconv._engines.dispatch import ways_of

BOTH = pytest.mark.parametrize(
    ("function", "backward"), [(convolve, convolve_backward), (correlate, correlate_backward)], ids=lambda f: f.__name__
)
BORDERS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # what NumPy calls them


def meetings(function, size, taps, mode, stride, dilation, border) -> np.ndarray:
    """1 where output j, element i and tap t meet on an axis: an array (j, i, t)."""
    extent = dilation * (taps - 1) + 1
    first, length = {
        "full": (0, size + extent - 1),
        "same": ((extent - 1) // 2, size),
        "valid": (min(size, extent) - 1, abs(size - extent) + 1),
    }[mode]
    beyond = extent - 1 if border in BORDERS else 0
    at = dict(enumerate(np.pad(range(size), beyond, BORDERS[border]) if beyond else range(size), -beyond))
    outputs = range(first, first + length, stride)
    meet = np.zeros((len(outputs), size, taps))
    for (j, o), t in product(enumerate(outputs), range(taps)):
        place = o - dilation * t if function is convolve else o + dilation * t - (extent - 1)
        if place in at:
            meet[j, at[place], t] = 1
    return meet


class Sums:
    """The sums of one call by einsum, which broadcasts the axes of a batch; in float64, or by torch on its tape."""

    def __init__(self, function, x, kernel, *, mode="full", axes=None, stride=1, dilation=1, padding_mode="zeros"):
        ndim = max(x.ndim, kernel.ndim)
        axes = tuple(range(ndim)) if axes is None else (axes,) if isinstance(axes, int) else axes
        self.axes, self.ndim, self.conjugates = [axis % ndim for axis in axes], ndim, function is correlate
        each = [one if isinstance(one, tuple) else (one,) * len(axes) for one in (stride, dilation, padding_mode)]
        sizes = (
            [(a.shape[i] if a.ndim == ndim else n) for i, n in zip(self.axes, a.shape, strict=False)]
            for a in (x, kernel)
        )
        self.meet = [meetings(function, n, k, mode, *rest) for n, k, *rest in zip(*sizes, *each, strict=True)]
        letters = [[chr(97 + 3 * i + slot) for i in range(len(axes))] for slot in range(3)]
        self.slots = dict(zip("yxk", ("..." + "".join(one) for one in letters), strict=True))
        self.of_meet = list(map("".join, zip(*letters, strict=True)))

    def equation(self, first, second, result):
        return ",".join([self.slots[first], self.slots[second], *self.of_meet]) + "->" + self.slots[result]

    def last(self, a):
        """With the convolved axes last."""
        return np.moveaxis(a, self.axes, range(-len(self.axes), 0)) if a.ndim == self.ndim else a

    def back(self, a, like):
        """The sum over what was broadcast, with the axes where they were."""
        if like.ndim < self.ndim:
            return a.sum(axis=tuple(range(a.ndim - like.ndim)))
        shape = self.last(like).shape
        a = a.sum(axis=tuple(i for i, (n, m) in enumerate(zip(shape, a.shape, strict=True)) if n != m), keepdims=True)
        return np.moveaxis(a, range(-len(self.axes), 0), self.axes)

    def y(self, x, kernel):
        kernel = np.conj(kernel) if self.conjugates else kernel
        made = np.einsum(self.equation("x", "k", "y"), self.last(x), self.last(kernel), *self.meet)
        return np.moveaxis(made, range(-len(self.axes), 0), self.axes)

    def gradients(self, dy, x, kernel):
        seen, others = np.moveaxis(dy, self.axes, range(-len(self.axes), 0)), (self.last(x), self.last(kernel))
        factor = others[1] if self.conjugates else np.conj(others[1])
        dx = np.einsum(self.equation("y", "k", "x"), seen, factor, *self.meet)
        dk = np.einsum(self.equation("y", "x", "k"), seen, np.conj(others[0]), *self.meet)
        found = self.back(dx, x), self.back(np.conj(dk) if self.conjugates else dk, kernel)
        pairs = zip(found, (x, kernel), strict=True)
        return tuple(one if like.dtype.kind == "c" else one.real for one, like in pairs)


CASES = {
    "1-D": ((7,), (3,), {}),
    "the kernel is larger": ((3,), (8,), {"stride": 2, "dilation": 2}),
    "same of a larger kernel": ((3,), (8,), {"mode": "same", "stride": 2}),
    "valid of a larger kernel": ((3,), (6,), {"mode": "valid", "stride": 2, "dilation": 2}),
    "valid of a larger kernel in 2-D": ((3, 2), (7, 5), {"mode": "valid", "stride": (3, 2)}),
    "2-D": ((5, 6), (2, 3), {"mode": "same", "stride": (2, 1), "dilation": (1, 2)}),
    "3-D": ((3, 4, 3), (2, 2, 3), {}),
    "0-D": ((), (), {}),
    "one element": ((1,), (1,), {"mode": "valid", "stride": 3}),
    "circular": ((5, 3), (3, 2), {"mode": "same", "padding_mode": "circular"}),
    "reflect, a larger kernel": ((3,), (6,), {"padding_mode": "reflect", "stride": 2}),
    "two borders": ((3, 4), (3, 2), {"padding_mode": ("replicate", "zeros")}),
    "a batch": ((4, 6), (1, 3), {"axes": -1, "mode": "same"}),
    "taps alone": ((4, 6, 2), (3,), {"axes": 1, "mode": "valid"}),
    "taps alone in another order": ((4, 3, 5), (3, 2), {"axes": (2, 0), "dilation": (1, 2)}),
    "a bank": ((6,), (2, 3, 3), {"axes": -1, "stride": 2}),
    "a bank of each sample": ((4, 1, 6), (1, 2, 3), {"axes": 2}),
    "a filter of each sample": ((3, 6, 2), (3, 2, 2), {"axes": [1], "mode": "same"}),
    "samples, groups and outputs": ((1, 3, 5, 2, 4), (2, 3, 2, 1, 3), {"axes": (4, 2), "stride": (1, 2)}),
    "the same with a larger kernel": ((1, 3, 2, 2, 3), (2, 3, 5, 1, 4), {"axes": (4, 2), "stride": (1, 2)}),
    "axes exchanged": ((4, 5), (3, 2), {"axes": (1, 0), "stride": (1, 2)}),
    "no axes": ((2, 1), (1, 3), {"axes": ()}),
}


@BOTH
@pytest.mark.parametrize("dtype", ["int32", "float32", "complex128"])
@pytest.mark.parametrize("case", CASES)
def test_sums_and_gradients(backend, rng, function, backward, case, dtype):
    x_shape, kernel_shape, said = CASES[case]
    x, kernel = (np.asarray(whole_numbers(rng, shape, dtype)) for shape in (x_shape, kernel_shape))
    sums = Sums(function, x, kernel, **said)
    y = sums.y(x, kernel)
    before = x.tobytes(), kernel.tobytes()
    operands = backend.array(x), backend.array(kernel)
    found = backend.numpy(function(*operands, **said))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, y)

    dy = np.asarray(whole_numbers(rng, y.shape, dtype))
    gradients = backward(backend.array(dy), *operands, **said)
    for one, like, expected in zip(gradients, (x, kernel), sums.gradients(dy, x, kernel), strict=True):
        one = backend.numpy(one)
        assert one.dtype == dtype
        assert one.shape == like.shape
        np.testing.assert_array_equal(one, expected)
    assert before == tuple(backend.numpy(one).tobytes() for one in operands)


@BOTH
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_every_size_with_stride_and_dilation(rng, function, backward, mode):
    """On one axis; every shape of one and two axes is compared with scipy.signal."""
    for size, taps, stride, dilation in product(range(1, 6), range(1, 6), (1, 2, 3), (1, 2)):
        x, kernel = whole_numbers(rng, (size,), "complex128"), whole_numbers(rng, (taps,), "complex128")
        said = {"mode": mode, "stride": stride, "dilation": dilation}
        sums = Sums(function, x, kernel, **said)
        y = function(x, kernel, **said)
        np.testing.assert_array_equal(y, sums.y(x, kernel), str((size, taps, said)))
        for one, expected in zip(backward(y, x, kernel, **said), sums.gradients(y, x, kernel), strict=True):
            np.testing.assert_array_equal(one, expected, str((size, taps, said)))


# Dtypes.


@BOTH
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("float32", "float64"),
        ("float64", "complex128"),
        ("complex64", "float32"),
        ("float32", "complex128"),
        ("complex64", "float64"),
        ("int8", "int32"),
        ("uint8", "int8"),
    ],
)
def test_promoted_as_the_library_does(backend, rng, function, backward, ours, theirs):
    """A gradient has the dtype of its array, and is real where that is."""
    x, kernel = whole_numbers(rng, (2, 6), ours), whole_numbers(rng, (2, 3), theirs)
    sums, common = Sums(function, x, kernel, axes=1), np.result_type(x, kernel)
    operands = backend.array(x), backend.array(kernel)
    y = backend.numpy(function(*operands, axes=1))
    assert y.dtype == common
    np.testing.assert_array_equal(y, sums.y(x, kernel))
    dy = whole_numbers(rng, y.shape, common)
    dx, dkernel = map(backend.numpy, backward(backend.array(dy), *operands, axes=1))
    assert (dx.dtype, dkernel.dtype) == (x.dtype, kernel.dtype)
    wide = sums.gradients(dy.astype("int64") if dy.dtype.kind == "i" else dy, x, kernel)
    for one, expected in zip((dx, dkernel), wide, strict=True):
        np.testing.assert_array_equal(one, expected.astype(one.dtype))


@BOTH
@pytest.mark.parametrize("real", [True, False])
def test_integers_with_floating_point(rng, function, backward, real):
    """As NumPy promotes them; the gradient of integers is not rounded to integers."""
    x, kernel = whole_numbers(rng, (6,), "int16"), draw(rng, (3,), "float32" if real else "complex64")
    sums = Sums(function, x, kernel)
    y = function(x, kernel)
    assert y.dtype == np.result_type(x, kernel)
    assert_within(y, sums.y(x, kernel), sums.y(np.abs(x), np.abs(kernel)), 3)
    dx, dkernel = backward(y, x, kernel)
    assert (dx.dtype, dkernel.dtype) == (np.float32, kernel.dtype)
    for one, expected, size in zip(
        (dx, dkernel), sums.gradients(y, x, kernel), sums.gradients(np.abs(y), np.abs(x), np.abs(kernel)), strict=True
    ):
        assert_within(one, expected, size, 8)


def test_what_a_library_does_not_promote_is_an_error():
    with pytest.raises(TypeError) as caught:
        convolve(strict.ones(3, dtype=strict.int32), strict.ones(3, dtype=strict.float32))
    assert str(caught.value) == (
        "x and kernel must have dtypes that the library promotes to one: got array_api_strict.int32 and "
        "array_api_strict.float32; convert one of them first"
    )


@BOTH
def test_integers_wrap_around_or_are_wide(backend, function, backward):
    x = backend.array(np.full(2, 100, "int8"))
    np.testing.assert_array_equal(backend.numpy(function(x, x)), np.asarray([10000, 20000, 10000]).astype("int8"))
    wide = function(x, x, dtype=backend.xp.int32)
    found = backend.numpy(wide)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, [10000, 20000, 10000])
    with backend.here():
        dy = backend.xp.ones_like(wide)
    dx, _ = backward(dy, x, x, dtype=backend.xp.int32)
    np.testing.assert_array_equal(backend.numpy(dx), np.full(2, 200).astype("int8"))


# Arrays.


@BOTH
def test_an_empty_batch(backend, function, backward):
    for x_shape, kernel_shape, y_shape in (
        ((0, 5), (1, 3), (0, 7)),
        ((1, 5), (0, 3), (0, 7)),
        ((0, 2, 5), (0, 1, 3), (0, 2, 7)),
        ((0, 1, 3), (0, 2, 5), (0, 2, 7)),
        ((2, 0, 1, 5), (1, 1, 3, 3), (2, 0, 3, 7)),
    ):
        x, kernel = backend.array(np.ones(x_shape)), backend.array(np.ones(kernel_shape))
        y = function(x, kernel, axes=-1)
        assert backend.numpy(y).shape == y_shape
        dx, dkernel = map(backend.numpy, backward(y, x, kernel, axes=-1))
        np.testing.assert_array_equal(dx, np.zeros(x_shape))
        np.testing.assert_array_equal(dkernel, np.zeros(kernel_shape))


@pytest.mark.writable_too
@BOTH
def test_views_of_any_strides(backend, rng, function, backward):
    x, kernel = whole_numbers(rng, (3, 4, 6)), whole_numbers(rng, (3, 3))
    sparse = backend.array(np.repeat(x.transpose(2, 0, 1), 2, axis=0))[::2, ...]
    turned = backend.xp.permute_dims(sparse, (1, 2, 0))
    taps = backend.array(np.ascontiguousarray(kernel.T)).T
    expected = Sums(function, x, kernel, axes=(0, 2))
    y = function(turned, taps, axes=(0, 2))
    np.testing.assert_array_equal(backend.numpy(y), expected.y(x, kernel))
    dy = backend.xp.permute_dims(backend.array(np.ascontiguousarray(backend.numpy(y).T)), (2, 1, 0))
    for one, wanted in zip(
        backward(dy, turned, taps, axes=(0, 2)), expected.gradients(expected.y(x, kernel), x, kernel), strict=True
    ):
        np.testing.assert_array_equal(backend.numpy(one), wanted)


@pytest.mark.writable_too
@BOTH
@pytest.mark.parametrize("shapes", [((3,), (1,)), ((1,), (3,)), ((), ()), ((1,), (1,))])
def test_results_are_fresh(backend, function, backward, shapes):
    """Writing to a result changes no array of the caller's."""
    x, kernel = (backend.array(np.ones(shape)) for shape in shapes)
    y = function(x, kernel)
    results = [y, *backward(y, x, kernel)]
    with backend.here():
        for result in results:
            result[...] = 7
    for array in (x, kernel):
        assert (backend.numpy(array) == 1).all()


def test_only_what_is_needed(rng):
    x, kernel = whole_numbers(rng, (3,)), whole_numbers(rng, (5,))  # they exchange their places
    dx, dkernel = convolve_backward(np.ones(7), x, kernel)
    for needs in product((True, False), repeat=2):
        found = convolve_backward(np.ones(7), x, kernel, needs=needs)
        for one, need, expected in zip(found, needs, (dx, dkernel), strict=True):
            assert (one is None) != need
            if need:
                np.testing.assert_array_equal(one, expected)


# Algorithms.


def test_a_long_kernel_is_convolved_by_fourier_transforms(monkeypatch):
    """Of either array, short pieces of the larger one; `options` takes another way, and says what it cannot."""
    chosen = []

    def noting(problem, a, b, *rest, xp, **more):
        chosen.append(ways_of(problem, a, xp=xp)[0][0].name)
        assert problem.convolution.geometry.kernel == (1000,)  # the smaller array is the kernel
        return dispatch(problem, a, b, *rest, xp=xp, **more)

    dispatch = calls.dispatch
    monkeypatch.setattr(calls, "dispatch", noting)
    x, kernel = np.ones(40_000, "float32"), np.ones(1000, "float32")
    y = convolve(x, kernel, mode="same")
    convolve_backward(y, x, kernel, mode="same")
    z = correlate(kernel, x)
    assert len(chosen) == 4
    assert all("Fourier" in name for name in chosen)
    with options(method="lowering"):
        direct = convolve(x, kernel, mode="same")
    assert "Fourier" not in chosen[-1]
    np.testing.assert_allclose(y, direct, rtol=1e-5)
    np.testing.assert_allclose(z[::-1][499:-500], direct, rtol=1e-5)


# torch.


TORCH = {
    name: CASES[name] for name in ("1-D", "valid of a larger kernel", "two borders", "samples, groups and outputs")
}
quiet_torch = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def by_torch(function, x, kernel, **said):
    """The sums on torch's tape, whatever is convolved in whatever order; x and kernel have the axes last."""
    sums = Sums(function, x, kernel, **said)
    kernel = kernel.conj() if sums.conjugates else kernel
    meet = [torch.asarray(one).to(x.dtype) for one in sums.meet]
    axes, last = sums.axes, range(-len(sums.axes), 0)
    x, kernel = (torch.movedim(a, axes, tuple(last)) if a.ndim == sums.ndim else a for a in (x, kernel))
    y = torch.einsum(sums.equation("x", "k", "y"), x, kernel, *meet)
    return torch.movedim(y, tuple(last), axes)


@BOTH
@quiet_torch
@pytest.mark.parametrize("case", TORCH)
def test_on_torchs_tape(rng, function, backward, case):
    x_shape, kernel_shape, said = CASES[case]
    x, kernel = (torch.asarray(draw(rng, shape, "complex128")).requires_grad_() for shape in (x_shape, kernel_shape))
    theirs = by_torch(function, x, kernel, **said)
    ours = function(x, kernel, **said)
    dy = torch.asarray(draw(rng, tuple(theirs.shape), "complex128"))
    expected = torch.autograd.grad(theirs, (x, kernel), dy)
    by_tape = torch.autograd.grad(ours, (x, kernel), dy, create_graph=True)
    for one, tape, other in zip(backward(dy, x, kernel, **said), by_tape, expected, strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(tape, other)
    directions = [torch.asarray(draw(rng, tuple(one.shape), "complex128")) for one in (x, kernel)]
    twice = torch.autograd.grad(by_tape, (x, kernel), directions)
    by_theirs = torch.autograd.grad(by_torch(function, x, kernel, **said), (x, kernel), dy, create_graph=True)
    for one, other in zip(twice, torch.autograd.grad(by_theirs, (x, kernel), directions), strict=True):
        torch.testing.assert_close(one, other)


@BOTH
@quiet_torch
@pytest.mark.parametrize("case", TORCH)
def test_under_torch_func(rng, function, backward, case):
    x_shape, kernel_shape, said = CASES[case]
    xs, kernels = (torch.asarray(draw(rng, (3, *shape), "float64")) for shape in (x_shape, kernel_shape))
    each = [function(x, kernel, **said) for x, kernel in zip(xs, kernels, strict=True)]
    torch.testing.assert_close(torch.func.vmap(lambda x, k: function(x, k, **said))(xs, kernels), torch.stack(each))
    _, ty = torch.func.jvp(lambda x, k: function(x, k, **said), (xs[0], kernels[0]), (xs[1], kernels[1]))
    torch.testing.assert_close(ty, function(xs[1], kernels[0], **said) + function(xs[0], kernels[1], **said))
    _, pulled = torch.func.vjp(lambda x, k: function(x, k, **said), xs[0], kernels[0])
    for one, other in zip(pulled(each[1]), backward(each[1], xs[0], kernels[0], **said), strict=True):
        torch.testing.assert_close(one, other)


@quiet_torch
def test_one_step_for_torchs_compiler(rng):
    x, kernel = torch.asarray(draw(rng, (2, 6), "float64")), torch.asarray(draw(rng, (2, 3), "float64"))

    def function(x, kernel):
        y = correlate(x, kernel, axes=1, mode="same")
        return convolve_backward(y * y, x, kernel, axes=1, mode="same")

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for one, other in zip(compiled(x, kernel), function(x, kernel), strict=True):
        torch.testing.assert_close(one, other)


# Errors.


X, K = np.ones((2, 5)), np.ones((2, 3))
BATCH = "x and kernel must have the same size, or one of them 1, on each axis that is not convolved"
LARGER = "mode must be 'full' or 'same' where neither x nor the kernel is at least as large as the other on each axis"
BAD = [
    (
        TypeError,
        "x must be a plain array of a library that speaks the Array API: got list; pass np.asarray(x)",
        lambda: convolve([1.0], K),
    ),
    (
        TypeError,
        "kernel must be of numbers: got bool; convert it first, to float32 for weighted sums or to int32 for counts",
        lambda: correlate(X, K > 0),
    ),
    (TypeError, "x and kernel must have one library: got numpy and torch", lambda: convolve(X, torch.ones(2, 3))),
    (ValueError, "mode must be 'full', 'same' or 'valid': got 'some'", lambda: convolve(X, K, mode="some")),
    (TypeError, "mode must be 'full', 'same' or 'valid': got 2", lambda: convolve(X, K, mode=2)),
    (TypeError, "mode must be 'full', 'same' or 'valid': got ['full']", lambda: convolve(X, K, mode=["full"])),
    (
        ValueError,
        "x and kernel must have the same number of axes where `axes` is not given: got 2 and 1",
        lambda: correlate(X, K[0]),
    ),
    (
        ValueError,
        "kernel must have 3 axes as the other array has, or just the 1 that `axes` names: got 2",
        lambda: convolve(X[None], K, axes=-1),
    ),
    (
        ValueError,
        "x must have 3 axes as the other array has, or just the 1 that `axes` names: got 2",
        lambda: convolve(X, K[None], axes=-1),
    ),
    (ValueError, "axes must be an integer from -2 to 1: got 2", lambda: convolve(X, K, axes=2)),
    (TypeError, "axes must be an integer from -2 to 1: got True", lambda: convolve(X, K, axes=True)),
    (TypeError, "axes must be an integer from -2 to 1: got 0.0", lambda: convolve(X, K, axes=(1, 0.0))),
    (ValueError, "axes must name each axis once: got (0, -2)", lambda: convolve(X, K, axes=(0, -2))),
    (
        ValueError,
        f"{BATCH}: got 5 and 3 on axis 1",
        lambda: convolve(X, K, axes=0),
    ),
    (
        ValueError,
        f"{LARGER}: got 'valid', x of (2, 5), a kernel that spans (3, 2)",
        lambda: convolve(X, K.T, mode="valid"),
    ),
    (
        ValueError,
        "x must have an element on each axis that is convolved: got shape (2, 0)",
        lambda: convolve(X[:, :0], K, mode="same"),
    ),
    (
        ValueError,
        "kernel must have an element on each axis that is convolved: got shape (0, 3)",
        lambda: convolve(X, K[:0], mode="same"),
    ),
    (
        ValueError,
        "stride must be an integer of at least 1, or a sequence of 2, one per spatial axis: got 0",
        lambda: convolve(X, K, stride=0),
    ),
    (
        ValueError,
        "dilation must be an integer of at least 1, or a sequence of 1, one per spatial axis: got (1, 2)",
        lambda: convolve(X, K, axes=1, dilation=(1, 2)),
    ),
    (
        TypeError,
        "dtype must be of the kind of x's and hold all its numbers: got float32 for float64",
        lambda: convolve(X, K, dtype="float32"),
    ),
    (
        ValueError,
        "dy must have shape (3, 7): got (2, 5)",
        lambda: convolve_backward(X, X, K),
    ),
    (
        TypeError,
        "dy must have dtype float64: got float32",
        lambda: correlate_backward(np.ones((3, 7), "float32"), X, K),
    ),
    (
        TypeError,
        "needs must be two bools, for dx and dkernel: got (True, True, True)",
        lambda: convolve_backward(np.ones((3, 7)), X, K, needs=(True, True, True)),
    ),
]


@pytest.mark.parametrize(("error", "sentence", "call"), BAD)
def test_sentence(error, sentence, call):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == sentence
    assert (X == 1).all()
    assert (K == 1).all()
