"""Who is measured: each contestant makes the calls of the three passes from a layer and its operands in NumPy."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from layers import Layer

import xpconv

PASSES = ("forward", "dx", "dweight")
OURS = "xpconv"

# Of the three passes; a call returns when its result is there.
Calls = tuple[Callable[[], Any], Callable[[], Any], Callable[[], Any]]


def ours(layer: Layer, x: Any, weight: Any, dy: Any) -> Calls:
    size, kernel, parameters = x.shape[2:], weight.shape[2:], layer.parameters
    return (
        lambda: xpconv.conv(x, weight, **parameters),
        lambda: xpconv.conv_input_grad(dy, weight, input_size=size, **parameters),
        lambda: xpconv.conv_weight_grad(dy, x, kernel_size=kernel, **parameters),
    )


def ours_on_torch(layer: Layer, *operands: np.ndarray) -> Calls:
    return ours(layer, *map(torch.from_numpy, operands))


def ours_on_jax(layer: Layer, *operands: np.ndarray) -> Calls:
    """Compiled beforehand, as JAX's own are."""
    jax = import_jax()
    x, weight, dy = map(jax.numpy.asarray, operands)
    size, kernel, parameters = x.shape[2:], weight.shape[2:], layer.parameters
    conv = partial(xpconv.conv, **parameters)
    input_grad = partial(xpconv.conv_input_grad, input_size=size, **parameters)
    weight_grad = partial(xpconv.conv_weight_grad, kernel_size=kernel, **parameters)
    calls = (conv, (x, weight)), (input_grad, (dy, weight)), (weight_grad, (dy, x))
    return tuple(compiled(function, *arrays) for function, arrays in calls)


def compiled(function: Callable[..., Any], *arrays: Any) -> Callable[[], Any]:
    call = import_jax().jit(function).lower(*arrays).compile()
    return lambda: call(*arrays).block_until_ready()


def ours_forward(layer: Layer, *operands: Any) -> Callable[[], Any]:
    return ours(layer, *operands)[0]


def ours_backward(layer: Layer, x: Any, weight: Any, dy: Any) -> Callable[[], tuple[Any, ...]]:
    parameters = layer.parameters
    return lambda: xpconv.conv_backward(dy, x, weight, needs=(True, True, False), **parameters)[:2]


def torchs(layer: Layer, *operands: np.ndarray) -> Calls:
    return torchs_of_tensors(layer, *map(torch.from_numpy, operands))


def torchs_of_tensors(layer: Layer, x: torch.Tensor, weight: torch.Tensor, dy: torch.Tensor) -> Calls:
    conv = getattr(torch.nn.functional, f"conv{x.ndim - 2}d")
    backward = torch_gradients(layer, x, weight, dy)
    return (
        lambda: conv(x, weight, **layer.parameters),
        lambda: backward(True, False, False)[0],
        lambda: backward(False, True, False)[1],
    )


def torch_gradients(layer: Layer, x: torch.Tensor, weight: torch.Tensor, dy: torch.Tensor) -> Callable[..., Any]:
    ndim = x.ndim - 2
    lists = [[value] * ndim for value in (layer.stride, layer.padding, layer.dilation)]

    def backward(*mask: bool) -> tuple[torch.Tensor | None, ...]:
        return torch.ops.aten.convolution_backward(
            dy, x, weight, None, *lists, False, [0] * ndim, layer.groups, list(mask)
        )

    return backward


def torchs_forward(layer: Layer, *operands: np.ndarray) -> Callable[[], Any]:
    return torchs(layer, *operands)[0]


def torchs_backward(layer: Layer, *operands: np.ndarray) -> Callable[[], tuple[Any, ...]]:
    backward = torch_gradients(layer, *map(torch.from_numpy, operands))
    return lambda: backward(True, True, False)[:2]


@cache
def import_jax() -> ModuleType:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    jax.config.update("jax_enable_x64", True)  # or it would compute in float32 throughout
    return jax


def jaxs(layer: Layer, *operands: np.ndarray) -> Calls | None:
    """Compiled beforehand, so that no call counts a compilation; None where a call would take 15 seconds."""
    if operands[0].dtype == np.float64 and len(layer.weight) == 4 and math.prod(layer.weight[2:]) > 500:
        return None
    x, weight, dy = map(import_jax().numpy.asarray, operands)
    conv, input_grad, weight_grad = jax_passes(layer, x, weight)
    return compiled(conv, x, weight), compiled(input_grad, dy, weight), compiled(weight_grad, dy, x)


def jaxs_forward(layer: Layer, *operands: np.ndarray) -> Callable[[], Any]:
    x, weight, _ = map(import_jax().numpy.asarray, operands)
    return compiled(jax_passes(layer, x, weight)[0], x, weight)


def jaxs_backward(layer: Layer, *operands: np.ndarray) -> Callable[[], tuple[Any, ...]]:
    jax = import_jax()
    x, weight, dy = map(jax.numpy.asarray, operands)
    _, input_grad, weight_grad = jax_passes(layer, x, weight)
    both = jax.jit(lambda dy, x, weight: (input_grad(dy, weight), weight_grad(dy, x))).lower(dy, x, weight).compile()
    return lambda: tuple(gradient.block_until_ready() for gradient in both(dy, x, weight))


def jax_passes(layer: Layer, x: Any, weight: Any) -> tuple[Callable[..., Any], ...]:
    jax = import_jax()
    ndim = x.ndim - 2

    def conv(x: Any, weight: Any) -> Any:
        return jax.lax.conv_general_dilated(
            x,
            weight,
            window_strides=[layer.stride] * ndim,
            padding=[(layer.padding, layer.padding)] * ndim,
            rhs_dilation=[layer.dilation] * ndim,
            feature_group_count=layer.groups,
        )

    def input_grad(dy: Any, weight: Any) -> Any:
        return jax.linear_transpose(lambda x: conv(x, weight), x)(dy)[0]

    def weight_grad(dy: Any, x: Any) -> Any:
        return jax.linear_transpose(lambda weight: conv(x, weight), weight)(dy)[0]

    return conv, input_grad, weight_grad


def scipys(layer: Layer, x: np.ndarray, weight: np.ndarray, dy: np.ndarray) -> Calls | None:
    """The better of its direct, FFT and overlap-add convolutions; None for a layer that none of them can do."""
    from scipy import signal

    taps = weight.shape[2]
    same = layer.padding == taps // 2 and all(size == taps and size % 2 for size in weight.shape[2:])
    plain = layer.stride == layer.dilation == 1 and (same or not layer.padding)
    if not plain or weight.shape[:2] != (1, 1):
        return None

    # convolve chooses between the direct sum and the FFT.
    convolutions = (signal.convolve, signal.oaconvolve)
    kernel = weight[0, 0]
    pad = [(layer.padding, layer.padding)] * kernel.ndim
    forward, backward = ("same", "same") if same else ("valid", "full")

    def conv(convolve: Callable[..., Any]) -> np.ndarray:
        return np.stack([convolve(sample, np.flip(kernel), forward) for sample in x[:, 0]])[:, None]

    def input_grad(convolve: Callable[..., Any]) -> np.ndarray:
        return np.stack([convolve(sample, kernel, backward) for sample in dy[:, 0]])[:, None]

    def weight_grad(convolve: Callable[..., Any]) -> np.ndarray:
        pairs = zip(x[:, 0], dy[:, 0], strict=True)
        return sum(convolve(np.pad(sample, pad), np.flip(d), "valid") for sample, d in pairs)[None, None]

    return tuple(better([lambda c=c, f=f: f(c) for c in convolutions]) for f in (conv, input_grad, weight_grad))


def better(calls: list[Callable[[], Any]]) -> Callable[[], Any]:
    return min(calls, key=seconds_of)


def seconds_of(call: Callable[[], Any]) -> float:
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


CONTESTANTS: dict[str, Callable[..., Calls | None]] = {OURS: ours, "torch": torchs, "jax": jaxs, "scipy": scipys}
WHOLE: dict[str, dict[str, Callable[..., Callable[[], Any]]]] = {  # the two passes of a step of training
    "forward": {OURS: ours_forward, "torch": torchs_forward, "jax": jaxs_forward},
    "backward": {OURS: ours_backward, "torch": torchs_backward, "jax": jaxs_backward},  # dx and dweight in one call
}
ON = {"numpy": ours, "torch": ours_on_torch, "jax": ours_on_jax}  # whose arrays ours are
RIVALS = tuple(who for who in CONTESTANTS if who != OURS)


def installed(rival: str) -> bool:
    return find_spec(rival) is not None
