"""Odd jobs, each beside what a user would take instead, and how many times as long ours may take.

They come from reports of bugs in other libraries: borders that go round several times, integers with long kernels,
resampling, kernels as large as the image, arrays of torch and JAX that are small or large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
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


def borders(pace: Pace, size: int) -> Iterator[Row]:
    """dx through a border that goes round several times; torch's own refuses it, so its inputs are indexed."""
    for mode, side, padding in (("circular", 4, 5 * size), ("reflect", 5, 10 * size)):
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


def integers(pace: Pace, size: int) -> Iterator[Row]:
    from scipy.signal import correlate

    for positions, taps in ((1000 * size, 100 * size), (5000 * size, 500 * size)):
        x, w = RNG(0).integers(-1000, 1000, (2, positions)), None
        w = RNG(1).integers(-1000, 1000, taps)
        x = x[0]
        calls = {
            OURS: lambda x=x, w=w: xpconv.conv(x[None, None], w[None, None])[0, 0],
            "scipy": lambda x=x, w=w: correlate(x, w, "valid"),
        }
        yield compared(f"int64, {positions:,} by {taps:,}", "forward", 5, calls, pace)
    side, taps = 16 * size + 192 * (size == 20), 3 * size + 3
    image, kernel = (RNG(2).integers(0, 256, (n, n), dtype=np.uint8) for n in (side, taps))
    calls = {
        OURS: lambda: xpconv.conv(image[None, None], kernel[None, None], dtype=np.int32)[0, 0],
        "scipy": lambda: correlate(image.astype(np.int32), kernel.astype(np.int32), "valid"),
    }
    yield compared(f"uint8 into int32, {side}x{side} by {taps}x{taps}", "forward", 5, calls, pace)


def resampling(pace: Pace, size: int) -> Iterator[Row]:
    from scipy.signal import upfirdn

    for up, down in ((160, 147), (3, 2)):
        x, h = RNG(0).standard_normal(1000 * size), RNG(1).standard_normal(20 * up)
        parameters: Any = {"stride": down, "input_dilation": up, "padding": len(h) - 1}
        w = np.flip(h).copy()[None, None]
        y = xpconv.conv(x[None, None], w, **parameters)
        dy = RNG(2).standard_normal(y.shape)
        # up by `down` and down by `up`: each input meets h at the places of the outputs.
        start = len(h) - 1

        def adjoint(dy=dy, w=w, up=up, down=down, n=len(x), start=start) -> Any:
            # dx[i] = sum over j of dy[j] h[down j - up i]
            first = -(-start // up) * up - start  # zeros in front, so that every up-th place is that of an input
            taps = np.concatenate([np.zeros(first), w[0, 0]])
            made = upfirdn(taps, dy[0, 0], down, up)[(start + first) // up :]
            return np.concatenate([made, np.zeros(max(n - len(made), 0))])[:n]

        def forward(x=x, h=h, up=up, down=down, n=y.shape[-1]) -> Any:
            return upfirdn(h, x, up, down)[:n]

        def dx(dy=dy, w=w, n=len(x), parameters=parameters) -> Any:
            return xpconv.conv_input_grad(dy, w, input_size=n, **parameters)[0, 0]

        def transposed(dy=dy, w=w, n=len(x), parameters=parameters) -> Any:
            return xpconv.conv_transpose(dy, w, output_size=n, **parameters)[0, 0]

        def ours(x=x, w=w, parameters=parameters) -> Any:
            return xpconv.conv(x[None, None], w, **parameters)[0, 0]

        case = f"resampling {down}/{up}, {len(x):,} samples"
        yield compared(case, "forward", 4, {OURS: ours, "scipy": forward}, pace)
        yield compared(case, "dx", 4, {OURS: dx, "scipy": adjoint}, pace)
        yield compared(case, "transposed", 4, {OURS: transposed, "scipy": adjoint}, pace)


def whole_images(pace: Pace, size: int) -> Iterator[Row]:
    """One output: dx is an outer product."""
    side = 16 * size + 192 * (size == 20)
    for outputs, inputs in ((1, 3), (4, 3), (8, 8)):
        w, dy = RNG(0).standard_normal((outputs, inputs, side, side)), RNG(1).standard_normal((1, outputs, 1, 1))
        calls = {
            OURS: lambda w=w, dy=dy: xpconv.conv_input_grad(dy, w, input_size=w.shape[2:]),
            "numpy": lambda w=w, dy=dy: (dy[:, :, 0, 0] @ w.reshape(len(w), -1)).reshape(1, *w.shape[1:]),
        }
        yield compared(f"kernel {side}x{side} of {side}x{side}, {inputs} to {outputs}", "dx", 3, calls, pace)


def tensors(pace: Pace, size: int) -> Iterator[Row]:
    conv2d = torch.nn.functional.conv2d
    x, w = (torch.from_numpy(RNG(i).standard_normal(s)) for i, s in enumerate(((1, 8, 14, 14), (8, 8, 3, 3))))
    calls: Calls = {OURS: lambda: xpconv.conv(x, w, padding=1), "torch": lambda: conv2d(x, w, padding=1)}
    yield compared("tensors 1x8x14x14, 3x3", "forward", 10, calls, pace)
    channels = 5 * size - 4 * (size == 20)
    image, taps = (torch.from_numpy(RNG(i).standard_normal(s)) for i, s in enumerate(((8, channels, 56, 56), (channels, 1, 7, 7))))
    parameters: Any = {"padding": 3, "groups": channels}
    calls = {
        OURS: lambda: xpconv.conv(image, taps, **parameters),
        "torch": lambda: conv2d(image, taps, **parameters),
    }
    yield compared(f"tensors, depthwise 7x7, 8x{channels} @56", "forward", 4, calls, pace)
    dilation = 3276 * size + 16 * (size == 20)
    signal, far = (torch.from_numpy(RNG(i).standard_normal(s)) for i, s in enumerate(((4, 4, 5 * dilation), (4, 4, 3))))
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


def of_jax(pace: Pace, size: int) -> Iterator[Row]:
    """Outside `jit`, beside JAX's own in a compiled function."""
    jax = import_jax()

    def both(x_shape: tuple[int, ...], w_shape: tuple[int, ...], padding: int) -> tuple[Any, ...]:
        x, w = (jax.numpy.asarray(RNG(i).standard_normal(shape)) for i, shape in enumerate((x_shape, w_shape)))
        lax = jax.jit(lambda x, w: jax.lax.conv_general_dilated(x, w, [1] * (x.ndim - 2), [(padding,) * 2] * (x.ndim - 2)))
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
    x, w, lax = both((8, 16 * size // 5, 224, 224), (16 * size // 5, 16 * size // 5, 3, 3), 1)
    calls = {OURS: finished(lambda x, w: xpconv.conv(x, w, padding=1), x, w), "jax": finished(lax, x, w)}
    yield compared(f"JAX outside jit, 8x{x.shape[1]}x224x224, 3x3", "forward", 3, calls, pace)
    x, w, lax = both((1, 1, 1000 * size), (1, 1, 100 * size), 0)
    calls = {OURS: finished(jax.jit(xpconv.conv), x, w), "jax": finished(lax, x, w)}
    yield compared(f"JAX under jit, {1000 * size:,} by {100 * size:,}", "forward", 4, calls, pace)


def measure(pace: Pace, size: int = 20) -> dict[str, list[Row]]:
    """`size` is that of the jobs as they were reported; a smaller one makes them shorter."""
    found = [*borders(pace, max(size // 5, 1)), *whole_images(pace, size), *tensors(pace, size), *windows(pace)]
    if installed("scipy"):
        found += [*integers(pace, size), *resampling(pace, size)]
    if installed("jax"):
        found += of_jax(pace, size)
    return {"oddjobs": found}
