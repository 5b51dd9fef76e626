"""What works with which library: one table, which the tests check and the documentation shows.

A feature that works has a check that passes; one that does not has the reason, and its check must raise.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import array_api_compat
import ml_dtypes
import numpy as np

import xpconv

LIBRARIES = {
    "numpy": "NumPy",
    "cupy": "CuPy",
    "torch": "torch",
    "jax": "JAX",
    "dask": "dask",
    "array_api_strict": "array-api-strict",
}
SESSIONS = {"cupy": "tests-gpu", "jax": "tests-peers", "dask": "tests-dask"}  # the others: tests-cpu

rng = np.random.default_rng(0)
X, W, B = (rng.standard_normal(shape).astype("float32") for shape in ((2, 4, 9, 8), (6, 2, 3, 2), (6,)))
SAID: dict[str, Any] = {"stride": (2, 1), "padding": "same", "groups": 2, "padding_mode": "reflect"}


def array(library: str, values: np.ndarray) -> Any:
    """The library's array of the values; dask's in chunks that fit nothing."""
    if library == "numpy":
        return values
    if library == "dask":
        chunks = tuple(max(size // 2, 1) for size in values.shape)
        return importlib.import_module("dask.array").from_array(values, chunks=chunks)
    module = importlib.import_module("jax.numpy" if library == "jax" else library)
    return module.asarray(values.copy())


def values(result: Any) -> np.ndarray:
    return np.asarray(array_api_compat.to_device(result, "cpu")) if hasattr(result, "get") else np.asarray(result)


def same(library: str, function: Callable[..., Any], *operands: Any, **said: Any) -> None:
    """The function gives what it gives for NumPy's arrays, as the library's own."""
    ours = function(*(array(library, o) if isinstance(o, np.ndarray) else o for o in operands), **said)
    theirs = function(*operands, **said)
    for one, other in zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]:
        assert type(one) is type(array(library, X))
        np.testing.assert_allclose(values(one), other, rtol=1e-5, atol=1e-5 * np.max(np.abs(other)))


# The checks.


def every_function(library: str) -> None:
    y = xpconv.conv(X, W, B, **SAID)
    same(library, xpconv.conv, X, W, B, **SAID)
    same(library, xpconv.conv_backward, y, X, W, **SAID)
    same(library, xpconv.conv_input_grad, y, W, input_size=X.shape[2:], **SAID)
    same(library, xpconv.conv_weight_grad, y, X, kernel_size=W.shape[2:], **SAID)
    same(library, xpconv.conv_jvp, X, W, B, X, W, **SAID)
    same(library, xpconv.conv_double_backward, X, W, B, y, X, W, **SAID)
    weight = rng.standard_normal((4, 3, 3, 2)).astype("float32")
    z = xpconv.conv_transpose(X, weight, B, **SAID)
    same(library, xpconv.conv_transpose, X, weight, B, **SAID)
    same(library, xpconv.conv_transpose_backward, z, X, weight, **SAID)
    same(library, xpconv.conv_transpose_jvp, X, weight, B, X, weight, **SAID)
    same(library, xpconv.conv_transpose_double_backward, X, weight, B, z, X, weight, **SAID)
    each = rng.standard_normal((2, *W.shape)).astype("float32")
    same(library, xpconv.conv, X, each, B, per_sample=True, **SAID)
    same(library, xpconv.conv_backward, y, X, each, per_sample=True, **SAID)
    same(library, xpconv.conv_weight_grad, y, X, kernel_size=W.shape[2:], per_sample=True, **SAID)
    local = rng.standard_normal((*W.shape, *y.shape[2:])).astype("float32")
    same(library, xpconv.local_conv, X, local, B, **SAID)
    same(library, xpconv.local_conv_backward, y, X, local, **SAID)
    same(library, xpconv.local_conv_transpose, y, local, **SAID)
    _, state = xpconv.conv_stream(X, W, stride=2, groups=2)
    same(library, xpconv.conv_stream, X, W, B, stride=2, groups=2)
    same(library, xpconv.conv_stream, X, W, B, state, stride=2, groups=2)
    columns = xpconv.unfold(X, (3, 2))
    same(library, xpconv.unfold, X, (3, 2))
    same(library, xpconv.fold, columns, X.shape[2:], (3, 2))
    for name in ("convolve", "correlate"):
        y = getattr(xpconv, name)(X, W[:1, :1], axes=(-1, 2), mode="same")
        same(library, getattr(xpconv, name), X, W[:1, :1], axes=(-1, 2), mode="same")
        same(library, getattr(xpconv, f"{name}_backward"), y, X, W[:1, :1], axes=(-1, 2), mode="same")


def layers(library: str) -> None:
    layer = xpconv.Conv(kernel_size=W.shape[2:], **{**SAID, "in_channels": 4, "out_channels": 6})
    layer.set_params(array(library, W), array(library, B))
    y = layer.forward(array(library, X))
    np.testing.assert_allclose(values(layer(array(library, X))), values(y), rtol=1e-4, atol=1e-4)
    dx = layer.backward(y)
    expected = xpconv.conv_backward(xpconv.conv(X, W, B, **SAID), X, W, **SAID)
    for one, other in zip((dx, layer.dweight, layer.dbias), expected, strict=True):
        np.testing.assert_allclose(values(one), other, rtol=1e-4, atol=1e-4)


def of_dtype(*names: str) -> Callable[[str], None]:
    def check(library: str) -> None:
        x, w = (np.trunc(3 * np.abs(operand)) for operand in (X, W))
        exact = xpconv.conv(x, w, groups=2)
        for name in names:
            xp = array_api_compat.array_namespace(array(library, X))
            dtype = getattr(xp, name, None) or np.dtype(getattr(ml_dtypes, name, name))
            y = xpconv.conv(*(xp.astype(array(library, operand), dtype) for operand in (x, w)), groups=2)
            assert y.dtype == dtype
            found = values(xp.real(y) if "complex" in name else xp.astype(y, xp.float32))
            np.testing.assert_allclose(found, exact, rtol=0.01)

    return check


def several_dtypes(library: str) -> None:
    wide = W.astype("float64")
    y = xpconv.conv(X, wide, groups=2)
    same(library, xpconv.conv, X, wide, groups=2)
    same(library, xpconv.conv_backward, y, X, wide, groups=2)
    picture = np.trunc(9 * np.abs(X)).astype("uint8")
    dtype = array_api_compat.array_namespace(array(library, X)).float32
    y = xpconv.conv(array(library, picture), array(library, W), groups=2, dtype=dtype)
    np.testing.assert_allclose(values(y), xpconv.conv(picture.astype("float32"), W, groups=2), rtol=1e-4, atol=1e-4)


def other_byte_order(library: str) -> None:
    same(library, xpconv.conv, X.astype(">f4"), W.astype(">f4"), B.astype(">f4"), groups=2)


def borders(library: str) -> None:
    for mode in ("reflect", "symmetric", "replicate", "circular", "constant"):
        said = {"padding": (3, 12), "padding_mode": mode, "padding_value": 2.0 * (mode == "constant"), "groups": 2}
        y = xpconv.conv(X, W, **said)
        same(library, xpconv.conv, X, W, **said)
        same(library, xpconv.conv_backward, y, X, W, **said)


def explained(library: str) -> None:
    assert "forward" in str(xpconv.explain(array(library, X), array(library, W), groups=2))


def other_algorithms(library: str) -> None:
    x, w = np.ones((1, 1, 100_000), "float32"), np.ones((1, 1, 1000), "float32")
    plan = xpconv.explain(array(library, x), array(library, w))
    assert "Fourier" in plan.contractions[0].algorithm


def of(library: str) -> Any:
    """The module with the library's transforms."""
    return importlib.import_module({"torch": "torch.func", "jax": "jax"}[library])


def squares(x: Any) -> Any:
    return (xpconv.conv(x, W if isinstance(x, np.ndarray) else array(name_of(x), W), groups=2) ** 2).sum()


def name_of(x: Any) -> str:
    return "torch" if "torch" in array_api_compat.array_namespace(x).__name__ else "jax"


GRADIENT = xpconv.conv_input_grad(2 * xpconv.conv(X, W, groups=2), W, input_size=X.shape[2:], groups=2)


def close(found: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(values(found), expected, rtol=1e-4, atol=1e-4 * np.max(np.abs(expected)))


def differentiated(library: str) -> None:
    close(of(library).grad(squares)(array(library, X)), GRADIENT)


def twice_differentiated(library: str) -> None:
    """The gradient of half the gradient's square is the Hessian, a constant matrix here, times the gradient."""

    def half(x: Any) -> Any:
        return (of(library).grad(squares)(x) ** 2).sum() / 2

    hessian = xpconv.conv_input_grad(2 * xpconv.conv(GRADIENT, W, groups=2), W, input_size=X.shape[2:], groups=2)
    close(of(library).grad(half)(array(library, X)), hessian)


def pushed_forward(library: str) -> None:
    x, w = array(library, X), array(library, W)
    _, ty = of(library).jvp(lambda x: xpconv.conv(x, w, groups=2), (x,), (x,))
    close(ty, xpconv.conv(X, W, groups=2))


def vmapped(library: str) -> None:
    x, w = array(library, np.stack([X, 2 * X, -X])), array(library, np.stack([W, W + 1, W]))
    y = of(library).vmap(lambda x, w: xpconv.conv(x, w, groups=2))(x, w)
    close(y, np.stack([xpconv.conv(a, b, groups=2) for a, b in ((X, W), (2 * X, W + 1), (-X, W))]))


def whole(library: str) -> Callable[..., Any]:
    """What compiles a function as one graph."""
    module = importlib.import_module(library)
    return module.jit if library == "jax" else partial(module.compile, fullgraph=True, backend="aot_eager")


def compiled(library: str) -> None:
    call = whole(library)(lambda x, w: xpconv.conv(x, w, groups=2))
    close(call(array(library, X), array(library, W)), xpconv.conv(X, W, groups=2))


def without_channels(library: str) -> None:
    x, kernel = array(library, X), array(library, W[0, 0])
    y = xpconv.correlate(X, W[:1, :1], axes=(2, 3))
    close(whole(library)(lambda x, kernel: xpconv.correlate(x, kernel, axes=(2, 3)))(x, kernel), y)
    close(of(library).vmap(lambda x: xpconv.correlate(x, kernel, axes=(1, 2)))(x), y)
    gradient = of(library).grad(lambda x: (xpconv.correlate(x, kernel, axes=(2, 3)) ** 2).sum() / 2)
    close(gradient(x), xpconv.correlate_backward(y, X, W[:1, :1], axes=(2, 3)).dx)


def without_values(library: str) -> None:
    x, w = array(library, X), array(library, W)
    if library == "torch":
        y = xpconv.conv(x.to("meta"), w.to("meta"), groups=2)
    elif library == "jax":
        y = of("jax").eval_shape(lambda x, w: xpconv.conv(x, w, groups=2), x, w)
    else:
        with importlib.import_module("dask").config.set(scheduler=refusing):
            y = xpconv.conv(x, w, groups=2)
    assert tuple(y.shape) == (2, 6, 7, 7)


def refusing(*_: Any, **__: Any) -> None:
    raise RuntimeError("something was computed")


def within_a_workspace(library: str) -> None:
    x, w = array(library, np.ones((8, 64, 32, 32), "float32")), array(library, np.ones((8, 64, 3, 3), "float32"))
    with xpconv.options(workspace=2**20):
        forward, *_ = xpconv.explain(x, w, padding=1).contractions
    assert forward.workspace <= 2**20


def on_another_device(library: str) -> None:
    module = importlib.import_module(library)
    device = {"array_api_strict": lambda: module.Device("device1"), "torch": lambda: module.device("meta")}[library]()
    x, w = (module.asarray(operand, device=device) for operand in (X, W))
    assert xpconv.conv(x, w, groups=2).device == device


class Feature(NamedTuple):
    title: str
    check: Callable[[str], None]
    not_with: dict[str, str]  # the reason where it does not work
    beside: tuple[str, ...] = ()  # libraries that have no such thing


TRANSFORMS = ("numpy", "cupy", "dask", "array_api_strict")  # have none
FEATURES = [
    Feature("every function, with the values it has for NumPy", every_function, {}),
    Feature("layers", layers, {}),
    Feature("borders of every padding mode", borders, {}),
    Feature("complex numbers", of_dtype("complex64"), {}),
    Feature("integers, exact", of_dtype("int8", "uint8", "int16", "int32", "int64"), {}),
    Feature("unsigned integers of more than 8 bits", of_dtype("uint16", "uint32", "uint64"), {}),
    Feature("float16", of_dtype("float16"), {}, ("array_api_strict",)),
    Feature("bfloat16", of_dtype("bfloat16"), {}, ("array_api_strict",)),
    Feature("float32 with float64, integers with a floating kernel", several_dtypes, {}),
    Feature("arrays in the other byte order", other_byte_order, {}, ("cupy", "torch", "jax", "array_api_strict")),
    Feature(
        "`explain`",
        explained,
        {"dask": "blocks are convolved one by one: ask about an array like one"},
    ),
    Feature(
        "the fastest of all algorithms",
        other_algorithms,
        {
            "cupy": "most spread NaN, and to look for it would wait for the GPU; `options(method=...)` allows them",
            "jax": "most spread NaN, and in a trace nobody can look for it; `options(method=...)` allows them",
            "dask": "blocks choose for themselves, by their own size; `explain` cannot tell",
        },
    ),
    Feature(
        "a workspace that is kept", within_a_workspace, {"dask": "each block keeps it; `explain` cannot tell"}, ("jax",)
    ),
    Feature("the library's own gradients", differentiated, {}, TRANSFORMS),
    Feature("gradients of gradients", twice_differentiated, {}, TRANSFORMS),
    Feature("forward mode", pushed_forward, {}, TRANSFORMS),
    Feature("`vmap`", vmapped, {}, TRANSFORMS),
    Feature("compiled whole", compiled, {}, TRANSFORMS),
    Feature("`convolve` and `correlate` under these transforms", without_channels, {}, TRANSFORMS),
    Feature("shapes without values", without_values, {}, ("numpy", "cupy", "array_api_strict")),
    Feature("devices beside the default one", on_another_device, {}, ("numpy", "cupy", "jax", "dask")),
]


def cases(*libraries: str) -> list[tuple[Feature, str]]:
    """What a session checks."""
    return [(feature, one) for feature in FEATURES for one in libraries if one not in feature.beside]


def verify(feature: Feature, library: str) -> None:
    """That it works, or that it does not where the table says so."""
    if library not in feature.not_with:
        feature.check(library)
        return
    try:
        feature.check(library)
    except (AssertionError, TypeError, ValueError, NotImplementedError, RuntimeError):
        return
    raise AssertionError(f"{feature.title} works with {library}: the table says it does not")


def mark(feature: Feature, library: str) -> str:
    return "" if library in feature.beside else "no" if library in feature.not_with else "yes"


def matrix() -> str:
    """The whole table, in Markdown."""
    head = ["", *LIBRARIES.values()]
    rows = [[feature.title, *(mark(feature, library) for library in LIBRARIES)] for feature in FEATURES]
    return lines([head, ["---"] * len(head), *rows])


def page(library: str) -> str:
    """A library's own column, with the reasons."""
    rows = [
        [feature.title, mark(feature, library), feature.not_with.get(library, "")]
        for feature in FEATURES
        if library not in feature.beside
    ]
    return lines([["", "", "why"], ["---"] * 3, *rows])


def lines(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
