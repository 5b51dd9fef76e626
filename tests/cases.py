"""Convolutions that the tests share: what is said of each, and what the loop (oracle.py) makes of it."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import numpy as np
import oracle

NUMPY_MODES = {"zeros": "constant", **oracle.PAD}


def per_axis(value: Any, ndim: int) -> tuple[Any, ...]:
    """One for each spatial axis, of what may be said once for all."""
    return (value,) * ndim if isinstance(value, int | str) else tuple(value)


class Case(NamedTuple):
    """One convolution in the inner order of axes; what is None is left to its default."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    padding: Any = 0
    sides: tuple[tuple[int, int], ...] | None = None  # what the padding comes to, where it is said by name
    stride: Any = None
    dilation: Any = None
    groups: int = 1
    padding_mode: str | tuple[str, ...] = "zeros"
    input_dilation: Any = None
    flip: bool = False
    padding_value: complex = 0.0

    @property
    def ndim(self):
        return len(self.x) - 2

    def each(self, value):
        return per_axis(1 if value is None else value, self.ndim)

    @property
    def pairs(self):
        if self.sides is not None:
            return self.sides
        return tuple((p, p) if isinstance(p, int) else tuple(p) for p in per_axis(self.padding, self.ndim))

    @property
    def parameters(self):
        said = {name: getattr(self, name) for name in ("padding", "groups", "padding_mode", "padding_value", "flip")}
        several = {name: getattr(self, name) for name in ("stride", "dilation", "input_dilation")}
        return {**said, **{name: value for name, value in several.items() if value is not None}}

    @property
    def y(self):
        """The shape of the result: as many windows as fit, counted one by one."""
        rows = (
            self.x[2:],
            self.w[2:],
            self.pairs,
            self.each(self.stride),
            self.each(self.dilation),
            self.each(self.input_dilation),
        )
        out = []
        for size, kernel, (lo, hi), stride, dilation, spread in zip(*rows, strict=True):
            places = len(range(0, spread * size, spread)) + (spread - 1) * max(size - 1, 0) + lo + hi
            out.append(len([j for j in range(0, max(places, 0), stride) if j + dilation * (kernel - 1) < places]))
        return (self.x[0], self.w[0], *out)

    @property
    def shapes(self):
        """Of dy, x, weight and bias."""
        return self.y, self.x, self.w, self.w[:1]

    def expected(self, dy, x, w, bias=None):
        return oracle.contract(
            dy,
            x,
            w,
            bias,
            stride=self.each(self.stride),
            lo=[lo for lo, _ in self.pairs],
            hi=[hi for _, hi in self.pairs],
            dilation=self.each(self.dilation),
            groups=self.groups,
            modes=per_axis(self.padding_mode, self.ndim),
            spread=self.each(self.input_dilation),
            flip=self.flip,
            value=self.padding_value,
        )


class TransposedCase(NamedTuple):
    """One transposed convolution in the inner order of axes."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    size: tuple[int, ...]  # the output's
    parameters: dict[str, Any] = {}  # noqa: RUF012, nobody writes to it
    lo: int | tuple[int, ...] = 0  # what the padding comes to
    hi: int | tuple[int, ...] = 0

    def of(self, name, default):
        return per_axis(self.parameters.get(name, default), len(self.size))

    @property
    def groups(self):
        return self.parameters.get("groups", 1)

    @property
    def y(self):
        return (self.x[0], self.groups * self.w[1], *self.size)

    @property
    def shapes(self):
        """Of dy, x, weight and bias."""
        return self.y, self.x, self.w, self.y[1:2]

    def expected(self, dy, x, w, bias=None):
        return oracle.contract_transposed(
            dy,
            x,
            w,
            bias,
            stride=self.of("stride", 1),
            lo=per_axis(self.lo, len(self.size)),
            hi=per_axis(self.hi, len(self.size)),
            dilation=self.of("dilation", 1),
            groups=self.groups,
            modes=self.of("padding_mode", "zeros"),
            spread=self.of("input_dilation", 1),
            flip=self.parameters.get("flip", False),
        )


class WindowCase(NamedTuple):
    """Windows of one size: as columns, and back."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    parameters: dict[str, Any] = {}  # noqa: RUF012, nobody writes to it
    pad: tuple[tuple[int, int], ...] | None = None  # what the padding comes to

    def of(self, name, default):
        return per_axis(self.parameters.get(name, default), len(self.size))

    def sources(self):
        """For every tap and position the input that is seen there, or None: (taps, positions)."""
        places = []
        pads = self.pad or ((0, 0),) * len(self.size)
        for size, (lo, hi), mode in zip(self.size, pads, self.of("padding_mode", "zeros"), strict=True):
            more = {"constant_values": -1} if mode == "zeros" else {}
            at = np.arange(size)
            if lo > 0 or hi > 0:
                at = np.pad(at, (max(lo, 0), max(hi, 0)), NUMPY_MODES[mode], **more)
            places.append(at[max(-lo, 0) : len(at) - max(-hi, 0)])
        strides, dilations = self.of("stride", 1), self.of("dilation", 1)
        extents = [d * (k - 1) for d, k in zip(dilations, self.kernel, strict=True)]
        outs = [range((len(at) - e - 1) // s + 1) for at, e, s in zip(places, extents, strides, strict=True)]
        rows = []
        for t in np.ndindex(self.kernel):
            row = []
            for j in product(*outs):
                i = tuple(
                    int(at[s * j_ + d * t_]) for at, s, j_, d, t_ in zip(places, strides, j, dilations, t, strict=True)
                )
                row.append(None if -1 in i else i)
            rows.append(row)
        return rows

    def unfolded(self, x):
        rows = self.sources()
        columns = np.zeros((x.shape[0], x.shape[1] * len(rows), len(rows[0])), x.dtype)
        for c, (t, row) in product(range(x.shape[1]), enumerate(rows)):
            for j, i in enumerate(row):
                if i is not None:
                    columns[:, c * len(rows) + t, j] = x[(slice(None), c, *i)]
        return columns

    def folded(self, columns):
        rows = self.sources()
        channels = columns.shape[1] // len(rows)
        x = np.zeros((columns.shape[0], channels, *self.size), columns.dtype)
        for c, (t, row) in product(range(channels), enumerate(rows)):
            for j, i in enumerate(row):
                if i is not None:
                    x[(slice(None), c, *i)] += columns[:, c * len(rows) + t, j]
        return x


def placed(values, batch, channel_axis):
    """(n, c, *spatial) with other batch axes instead of n, and the channels where the axis says."""
    at = channel_axis % values.ndim  # as if there were one batch axis
    values = values.reshape(*batch, *values.shape[1:])
    return np.moveaxis(values, len(batch), at + len(batch) - 1 if at else 0)
