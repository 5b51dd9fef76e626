"""Whole networks at batch 1: every convolution of the published architectures, forward and backward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from contestants import OURS, WHOLE
from layers import Layer, dense, depthwise
from measure import Pace, Row, compare


def resnet18() -> Iterator[Layer]:
    """He et al., 2015: four stages of two blocks of two convolutions."""
    yield dense((3, 224, 224), (64, 3, 7, 7), stride=2, padding=3)
    for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7)):
        if channels > 64:
            half, double = channels // 2, (channels // 2, 2 * size, 2 * size)
            yield dense(double, (channels, half, 3, 3), stride=2, padding=1)
            yield dense(double, (channels, half, 1, 1), stride=2)
        for _ in range(4 if channels == 64 else 3):
            yield dense((channels, size, size), (channels, channels, 3, 3), padding=1)


def mobilenet_v2() -> Iterator[Layer]:
    """Sandler et al., 2018, table 2: expansion, channels, repetitions and the first one's stride."""
    yield dense((3, 224, 224), (32, 3, 3, 3), stride=2, padding=1)
    c, size = 32, 112
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, channels, repetitions, first_stride in table:
        for stride in (first_stride, *[1] * (repetitions - 1)):
            wide = expansion * c
            if expansion > 1:
                yield dense((c, size, size), (wide, c, 1, 1))
            yield depthwise((wide, size, size), (3, 3), stride=stride, padding=1)
            size //= stride
            yield dense((wide, size, size), (channels, wide, 1, 1))
            c = channels
    yield dense((320, 7, 7), (1280, 320, 1, 1))


def convnext_tiny() -> Iterator[Layer]:
    """Liu et al., 2022, table 9; the products over channels are convolutions of 1x1 there."""
    yield dense((3, 224, 224), (96, 3, 4, 4), stride=4)
    for c, size, blocks in ((96, 56, 3), (192, 28, 3), (384, 14, 9), (768, 7, 3)):
        if c > 96:
            yield dense((c // 2, 2 * size, 2 * size), (c, c // 2, 2, 2), stride=2)
        for _ in range(blocks):
            yield depthwise((c, size, size), (7, 7), padding=3)
            yield dense((c, size, size), (4 * c, c, 1, 1))
            yield dense((4 * c, size, size), (c, 4 * c, 1, 1))


def squeeze_and_excite() -> Iterator[Layer]:
    """MobileNetV3-Large (Howard et al., 2019): each of its blocks, two layers on one pixel."""
    for wide, narrow, blocks in ((72, 24, 1), (120, 32, 2), (480, 120, 1), (672, 168, 2), (960, 240, 2)):
        for _ in range(blocks):
            yield dense((wide, 1, 1), (narrow, wide, 1, 1))
            yield dense((narrow, 1, 1), (wide, narrow, 1, 1))


NETWORKS = {
    "ResNet-18": list(resnet18()),
    "MobileNetV2": list(mobilenet_v2()),
    "ConvNeXt-Tiny": list(convnext_tiny()),
    "MobileNetV3 squeeze-excite": list(squeeze_and_excite()),
}


def described(layer: Layer) -> str:
    kernel = "x".join(map(str, layer.weight[2:]))
    stride = f"/{layer.stride}" if layer.stride > 1 else ""
    channels = f"depthwise {layer.x[0]}" if layer.kind == "depthwise" else f"{layer.x[0]} to {layer.weight[0]}"
    return f"{kernel}{stride} {channels} @{layer.x[-1]}"


def rows(network: str, layer: Layer, count: int, rivals: Collection[str], pace: Pace) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    operands = [rng.standard_normal(shape, dtype=np.float32) for shape in layer.shapes(1)]
    doubles = [operand.astype(np.float64) for operand in operands]
    # ONNX has a number for each side of each axis: where an image is one pixel, padding is said in pairs.
    pairs = replace(layer, padding=((0, 0), (0, 0))) if layer.x[1:] == (1, 1) else layer  # type: ignore[arg-type]
    for what in WHOLE:
        makers = WHOLE[what]
        calls = {
            who: makers[who](pairs if who == OURS else layer, *operands) for who in makers if who in (OURS, *rivals)
        }
        by = {who: asdict(numbers) for who, numbers in compare(calls, makers["torch"](layer, *doubles)(), pace).items()}
        facts = {"case": f"{network}, {described(layer)}", "network": network, "layer": described(layer)}
        yield {**facts, "count": count, "what": what, "dtype": "float32", "by": by}


def sums(rows: list[Row]) -> Iterator[Row]:
    """Each network's times as a whole, its mean ratio, each convolution as often as it occurs, and its worst one."""
    for network, what in dict.fromkeys((row["network"], row["what"]) for row in rows):
        chosen = [row for row in rows if (row["network"], row["what"]) == (network, what)]
        counts = [row["count"] for row in chosen]
        ms = {who: [row["by"][who]["median_ms"] for row in chosen] for who in chosen[0]["by"]}
        by: dict[str, Any] = {
            who: {
                "ms": round(float(np.dot(counts, times)), 5),
                "error": float(np.max([row["by"][who]["error"] for row in chosen])),
            }
            for who, times in ms.items()
        }
        for who in list(by)[1:]:
            ratios = np.divide(ms[who], ms[OURS])
            worst = int(np.argmin(ratios))
            by[who] |= {
                "ratio": by[who]["ms"] / by[OURS]["ms"],
                "mean_ratio": float(np.exp(np.average(np.log(ratios), weights=counts))),
                "worst_ratio": float(ratios[worst]),
                "worst": chosen[worst]["layer"],
            }
        yield {"case": network, "what": what, "dtype": "float32", "convolutions": sum(counts), "by": by}


def measure(
    rivals: Collection[str], pace: Pace, layers_of: Mapping[str, Sequence[Layer]] = MappingProxyType(NETWORKS)
) -> dict[str, list[Row]]:
    found = [
        row
        for network, layers in layers_of.items()
        for layer, count in Counter(layers).items()
        for row in rows(network, layer, count, rivals, pace)
    ]
    return {"networks": found, "network_sums": list(sums(found))}
