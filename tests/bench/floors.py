"""Odd jobs beside what does them best: kernels as large as the image, and a weight in another order of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from contestants import OURS, installed, ours, torchs
from layers import dense
from measure import Pace, Row, largest_error, measured

import xpconv

Calls = dict[str, Callable[[], Any]]


def compared(case: str, what: str, calls: Calls, expected: Any, pace: Pace) -> Row:
    errors = {who: largest_error(call(), expected) for who, call in calls.items()}
    times = pace.measure(calls, all_turns=calls)
    by = {who: asdict(measured(times[who], errors[who])) for who in calls}
    return {"case": case, "what": what, "dtype": str(calls[OURS]().dtype), "by": by}


def torch_product(a: np.ndarray, b: np.ndarray, size: int, conjugate: bool) -> np.ndarray:
    """The circular convolution, or correlation, of two images in torch's transforms of this size."""
    first, second = (torch.fft.rfft2(torch.from_numpy(np.asarray(image)), s=(size, size)) for image in (a, b))
    return np.asarray(torch.fft.irfft2(first * (second.conj() if conjugate else second), s=(size, size)))


def full(size: int, pace: Pace) -> Iterator[Row]:
    """torch itself would take terabytes, so what is expected comes from its transforms."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal((1, 1, size, size)) for _ in range(2))
    dy = rng.standard_normal((1, 1, 2 * size - 1, 2 * size - 1))
    case, flipped = f"padding full, {size}x{size} by {size}x{size}", np.flip(w[0, 0])
    forward: Calls = {OURS: lambda: xpconv.conv(x, w, padding="full")[0, 0]}
    backward: Calls = {OURS: lambda: xpconv.conv_input_grad(dy, w, input_size=(size, size), padding="full")[0, 0]}
    if installed("scipy"):
        from scipy.signal import fftconvolve

        forward["scipy"] = lambda: fftconvolve(x[0, 0], flipped)
        backward["scipy"] = lambda: fftconvolve(dy[0, 0], w[0, 0], mode="valid")
    y = torch_product(x[0, 0], flipped.copy(), 2 * size - 1, conjugate=False)
    # dx[i] = sum over t of dy[i + size - 1 - t] w[t]: the end of a convolution that wraps round at 2 size - 1.
    dx = torch_product(dy[0, 0], w[0, 0], 2 * size - 1, conjugate=False)[size - 1 :, size - 1 :]
    yield compared(case, "forward", forward, y, pace)
    yield compared(case, "dx", backward, dx, pace)


def circular(size: int, pace: Pace) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    x, w, dy = (rng.standard_normal((1, 1, size, size)) for _ in range(3))
    before = (size - 1) // 2  # "same" adds the odd element at the end
    rolled = np.roll(w[0, 0], (-before, -before), (0, 1))  # now tap 0 meets the output's own place
    parameters: Any = {"padding": "same", "padding_mode": "circular"}
    case = f"padding circular, {size}x{size} by {size}x{size}"

    def product(image: np.ndarray, conjugate: bool) -> np.ndarray:
        transform = np.fft.rfft2(rolled)
        return np.fft.irfft2(np.fft.rfft2(image) * (transform.conj() if conjugate else transform), s=image.shape)

    forward: Calls = {
        OURS: lambda: xpconv.conv(x, w, **parameters)[0, 0],
        "numpy.fft": lambda: product(x[0, 0], conjugate=True),
    }
    backward: Calls = {
        OURS: lambda: xpconv.conv_input_grad(dy, w, input_size=(size, size), **parameters)[0, 0],
        "numpy.fft": lambda: product(dy[0, 0], conjugate=False),
    }
    yield compared(case, "forward", forward, torch_product(x[0, 0], rolled, size, conjugate=True), pace)
    yield compared(case, "dx", backward, torch_product(dy[0, 0], rolled, size, conjugate=False), pace)


def hwio(channels: int, pace: Pace) -> Iterator[Row]:
    """A view of memory in the order height, width, in, out, as Keras and JAX have it."""
    layer = dense((channels, 6, 6), (channels, channels, 3, 3), padding=1)
    rng = np.random.default_rng(0)
    x, weight, dy = (rng.standard_normal(shape, dtype=np.float32) for shape in layer.shapes(1))
    view = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)
    references = torchs(layer, *(operand.astype(np.float64) for operand in (x, weight, dy)))
    on_view, contiguous = (ours(layer, x, w, dy) for w in (view, weight))
    theirs = torchs(layer, x, view, dy)
    for index, what in enumerate(("forward", "dx")):
        calls = {OURS: on_view[index], f"{OURS} contiguous": contiguous[index], "torch": theirs[index]}
        yield compared(f"HWIO weight, 3x3, {channels} @6", what, calls, references[index](), pace)


def measure(pace: Pace, size: int = 512, channels: int = 512) -> dict[str, list[Row]]:
    return {"floors": [*full(size, pace), *circular(size, pace), *hwio(channels, pace)]}
