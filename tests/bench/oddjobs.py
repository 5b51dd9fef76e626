"""Odd jobs, each beside what a user would take instead, and how many times as long ours may take.

They come from reports of bugs in other libraries: borders that go round several times, integers with long kernels,
resampling, kernels as large as the image, arrays of torch and JAX that are small or large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from contestants import OURS, import_jax, installed
from measure import Pace, Row, largest_error, measured

import xpconv

Calls = dict[str, Callable[[], Any]]
RNG = np.random.default_rng


def compared(case: str, what: str, allowed: float, calls: Calls, pace: Pace) -> Row:
    """The other's result is what is expected of ours."""
    expected = next(call() for who, call in calls.items() if who != OURS)
    errors = {who: largest_error(call(), np.asarray(expected)) for who, call in calls.items()}
    times = pace.measure(calls, all_turns=calls)
    by = {who: asdict(measured(times[who], errors[who])) for who in calls}
    dtype = str(np.asarray(expected).dtype)
    return {"case": case, "what": what, "dtype": dtype, "allowed": allowed, "by": by}


def borders(pace: Pace) -> Iterator[Row]:
    """dx through a border that goes round several times; torch's own refuses it, so its inputs are indexed."""
    for mode, side, padding in (("circular", 4, 20), ("reflect", 5, 50)):
        places = torch.from_numpy(np.pad(np.arange(side), padding, mode="wrap" if mode == "circular" else mode))
        w = RNG(0).standard_normal((4, 4, 3, 3))
        out = side + 2 * padding - 2
        dy = RNG(1).standard_normal((2, 4, out, out))
        parameters: Any = {"padding": padding, "padding_mode": mode}
        weight, gradient = torch.from_numpy(w), torch.from_numpy(dy)

        def theirs(places=places, weight=weight, gradient=gradient, side=side) -> Any:
            x = torch.zeros((2, 4, side, side), dtype=torch.float64, requires_grad=True)
            padded = x.index_select(2, places).index_select(3, places)
            return torch.autograd.grad(torch.nn.functional.conv2d(padded, weight), x, gradient)[0]

        def ours(dy=dy, w=w, side=side, parameters=parameters) -> Any:
            return xpconv.conv_input_grad(dy, w, input_size=(side, side), **parameters)

        yield compared(f"{mode}, padding {padding} of {side}x{side}", "dx", 5, {OURS: ours, "torch": theirs}, pace)


def integers(pace: Pace, shrink: int) -> Iterator[Row]:
    from scipy.signal import correlate

    for positions, taps in ((20_000 // shrink, 2000 // shrink), (100_000 // shrink, 10_000 // shrink)):
        x, w = RNG(0).integers(-1000, 1000, positions), RNG(1).integers(-1000, 1000, taps)
        calls = {
            OURS: lambda x=x, w=w: xpconv.conv(x[None, None], w[None, None])[0, 0],
            "scipy": lambda x=x, w=w: correlate(x, w, "valid"),
        }
        yield compared(f"int64, {positions:,} by {taps:,}", "forward", 5, calls, pace)
    side, taps = 512 // shrink, 63 // shrink
    image, kernel = (RNG(2).integers(0, 256, (n, n), dtype=np.uint8) for n in (side, taps))
    calls = {
        OURS: lambda: xpconv.conv(image[None, None], kernel[None, None], dtype=np.int32)[0, 0],
        "scipy": lambda: correlate(image.astype(np.int32), kernel.astype(np.int32), "valid"),
    }
    yield compared(f"uint8 into int32, {side}x{side} by {taps}x{taps}", "forward", 5, calls, pace)


def upsampled(h: np.ndarray, dy: np.ndarray, up: int, down: int, size: int) -> np.ndarray:
    """The input's gradient as SciPy makes it: dx[i] = sum over j of dy[j] h[down j - up i + len(h) - 1]."""
    from scipy.signal import upfirdn

    start = len(h) - 1
    first = -start % up  # zeros in front, so that every up-th place is that of an input
    made = upfirdn(np.concatenate([np.zeros(first), h]), dy, down, up)[(start + first) // up :]
    return np.concatenate([made, np.zeros(max(size - len(made), 0))])[:size]


def resampling(pace: Pace, shrink: int) -> Iterator[Row]:
    """With 20 taps a phase."""
    from scipy.signal import upfirdn

    size = 20_000 // shrink
    for up, down in ((160, 147), (3, 2)):
        x, h = RNG(0).standard_normal((1, 1, size)), RNG(1).standard_normal(20 * up)
        w = np.flip(h).copy()[None, None]
        parameters: Any = {"stride": down, "input_dilation": up, "padding": len(h) - 1}
        dy = RNG(2).standard_normal(xpconv.conv(x, w, **parameters).shape)
        forward = partial(xpconv.conv, x, w, **parameters)
        dx = partial(xpconv.conv_input_grad, dy, w, input_size=size, **parameters)
        transposed = partial(xpconv.conv_transpose, dy, w, output_size=size, **parameters)

        def theirs(x=x, h=h, up=up, down=down, dy=dy) -> Any:
            return upfirdn(h, x[0, 0], up, down)[None, None, : dy.shape[-1]]

        def adjoint(w=w, dy=dy, up=up, down=down) -> Any:
            return upsampled(w[0, 0], dy[0, 0], up, down, size)[None, None]

        case = f"resampling {up}/{down}, {size:,} samples"
        yield compared(case, "forward", 4, {OURS: forward, "scipy": theirs}, pace)
        yield compared(case, "dx", 4, {OURS: dx, "scipy": adjoint}, pace)
        yield compared(case, "transposed", 4, {OURS: transposed, "scipy": adjoint}, pace)


def whole_images(pace: Pace, shrink: int) -> Iterator[Row]:
    """One output: dx is an outer product."""
    side = 512 // shrink
    for outputs, inputs in ((1, 3), (4, 3), (8, 8)):
        w, dy = RNG(0).standard_normal((outputs, inputs, side, side)), RNG(1).standard_normal((1, outputs, 1, 1))
        calls = {
            OURS: lambda w=w, dy=dy: xpconv.conv_input_grad(dy, w, input_size=w.shape[2:]),
            "numpy": lambda w=w, dy=dy: (dy[:, :, 0, 0] @ w.reshape(len(w), -1)).reshape(1, *w.shape[1:]),
        }
        yield compared(f"kernel {side}x{side} of {side}x{side}, {inputs} to {outputs}", "dx", 3, calls, pace)


def float32s(*shapes: tuple[int, ...]) -> Iterator[torch.Tensor]:
    return (torch.from_numpy(RNG(i).standard_normal(shape, dtype="float32")) for i, shape in enumerate(shapes))


def tensors(pace: Pace, shrink: int) -> Iterator[Row]:
    conv2d = torch.nn.functional.conv2d
    x, w = float32s((1, 8, 14, 14), (8, 8, 3, 3))
    calls: Calls = {OURS: lambda: xpconv.conv(x, w, padding=1), "torch": lambda: conv2d(x, w, padding=1)}
    yield compared("tensors 1x8x14x14, 3x3", "forward", 10, calls, pace)
    channels = 96 // shrink
    image, taps = float32s((8, channels, 56, 56), (channels, 1, 7, 7))
    parameters: Any = {"padding": 3, "groups": channels}
    calls = {
        OURS: lambda: xpconv.conv(image, taps, **parameters),
        "torch": lambda: conv2d(image, taps, **parameters),
    }
    yield compared(f"tensors, depthwise 7x7, 8x{channels} @56", "forward", 4, calls, pace)
    dilation = 65_536 // shrink
    signal, far = float32s((1, 1, 4 * dilation), (1, 1, 3))
    conv1d = torch.nn.functional.conv1d
    calls = {
        OURS: lambda: xpconv.conv(signal, far, dilation=dilation),
        "torch": lambda: conv1d(signal, far, dilation=dilation),
    }
    yield compared(f"tensors, dilation {dilation:,}", "forward", 4, calls, pace)


def windows(pace: Pace) -> Iterator[Row]:
    """Of NumPy's arrays."""
    functional = torch.nn.functional
    x = RNG(0).standard_normal((1, 8, 14, 14))
    columns = xpconv.unfold(x, 3, padding=1)
    image, patches = torch.from_numpy(x), torch.from_numpy(columns)
    calls: Calls = {
        OURS: lambda: xpconv.unfold(x, 3, padding=1),
        "torch": lambda: functional.unfold(image, 3, padding=1),
    }
    yield compared("1x8x14x14, 3x3", "unfold", 4, calls, pace)
    calls = {
        OURS: lambda: xpconv.fold(columns, (14, 14), (3, 3), padding=1),
        "torch": lambda: functional.fold(patches, (14, 14), 3, padding=1),
    }
    yield compared("1x8x14x14, 3x3", "fold", 4, calls, pace)


def of_jax(pace: Pace, shrink: int) -> Iterator[Row]:
    """Outside `jit`, beside JAX's own in a compiled function."""
    jax = import_jax()

    def both(x_shape: tuple[int, ...], w_shape: tuple[int, ...], padding: int) -> tuple[Any, ...]:
        x, w = (jax.numpy.asarray(RNG(i).standard_normal(shape)) for i, shape in enumerate((x_shape, w_shape)))
        lax = jax.jit(
            lambda x, w: jax.lax.conv_general_dilated(x, w, [1] * (x.ndim - 2), [(padding,) * 2] * (x.ndim - 2))
        )
        return x, w, lax

    def finished(call: Callable[..., Any], *arrays: Any) -> Callable[[], Any]:
        return lambda: jax.block_until_ready(call(*arrays))

    x, w, lax = both((1, 8, 14, 14), (8, 8, 3, 3), 1)
    calls = {OURS: finished(lambda x, w: xpconv.conv(x, w, padding=1), x, w), "jax": finished(lax, x, w)}
    yield compared("JAX outside jit, 1x8x14x14, 3x3", "forward", 5, calls, pace)
    dy = lax(x, w)
    dx = jax.jit(lambda dy, x, w: jax.vjp(lambda x: lax(x, w), x)[1](dy)[0])
    calls = {
        OURS: finished(lambda dy, w: xpconv.conv_input_grad(dy, w, input_size=14, padding=1), dy, w),
        "jax": finished(dx, dy, x, w),
    }
    yield compared("JAX outside jit, 1x8x14x14, 3x3", "dx", 10, calls, pace)
    channels, side = 64 // shrink, 224 // shrink
    x, w, lax = both((8, channels, side, side), (channels, channels, 3, 3), 1)
    calls = {OURS: finished(lambda x, w: xpconv.conv(x, w, padding=1), x, w), "jax": finished(lax, x, w)}
    yield compared(f"JAX outside jit, 8x{channels}x{side}x{side}, 3x3", "forward", 3, calls, pace)
    x, w, lax = both((1, 1, 20_000 // shrink), (1, 1, 2000 // shrink), 0)
    calls = {OURS: finished(jax.jit(xpconv.conv), x, w), "jax": finished(lax, x, w)}
    yield compared(f"JAX under jit, {x.shape[-1]:,} by {w.shape[-1]:,}", "forward", 4, calls, pace)


def measure(pace: Pace, shrink: int = 1) -> dict[str, list[Row]]:
    """The jobs as they were reported, or so many times smaller."""
    found = [*borders(pace), *whole_images(pace, shrink), *tensors(pace, shrink), *windows(pace)]
    if installed("scipy"):
        found += [*integers(pace, shrink), *resampling(pace, shrink)]
    if installed("jax"):
        found += of_jax(pace, shrink)
    return {"oddjobs": found}
