"""The layers that the benchmark measures, from real networks, and which of them are the quick ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import xpconv

KINDS = ("dense", "depthwise", "grouped", "large", "one channel", "tiny")


@dataclass(frozen=True)
class Layer:
    kind: str
    x: tuple[int, ...]  # (channels, *spatial)
    weight: tuple[int, ...]
    batches: tuple[int, ...] = (1, 8)
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    @property
    def parameters(self) -> dict[str, int]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    def shapes(self, batch: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Of x, weight and y."""
        geometry = {name: value for name, value in self.parameters.items() if name != "groups"}
        out = xpconv.conv_output_size(self.x[1:], self.weight[2:], **geometry)
        return (batch, *self.x), self.weight, (batch, self.weight[0], *out)

    def multiplications(self, batch: int) -> int:
        """Of a direct convolution, the padding's zeros included; the gradients have as many."""
        return math.prod(self.shapes(batch)[2]) * math.prod(self.weight[1:])


def dense(x: tuple[int, ...], weight: tuple[int, ...], *batches: int, **parameters: int) -> Layer:
    return Layer("dense", x, weight, batches or (1, 8), **parameters)


def depthwise(x: tuple[int, ...], kernel: tuple[int, ...], *batches: int, **parameters: int) -> Layer:
    kind = "large" if max(kernel) >= 15 else "depthwise"
    return Layer(kind, x, (x[0], 1, *kernel), batches or (1, 8), groups=x[0], **parameters)


def grouped(x: tuple[int, ...], weight: tuple[int, ...], *batches: int, **parameters: int) -> Layer:
    return Layer("grouped", x, weight, batches or (1, 8), groups=x[0] // weight[1], **parameters)


def one_channel(*spatial: int, taps: int) -> Layer:
    return Layer("one channel", (1, *spatial), (1, 1, *[taps] * len(spatial)), (1,), padding=taps // 2)


def tiny(x: tuple[int, ...], weight: tuple[int, ...], **parameters: int) -> Layer:
    return Layer("tiny", x, weight, (1,), **parameters)


LAYERS = {
    "ResNet stem 7x7/2 @224": dense((3, 224, 224), (64, 3, 7, 7), 1, 8, 32, stride=2, padding=3),
    "ResNet 3x3 @56": dense((64, 56, 56), (64, 64, 3, 3), 1, 8, 32, padding=1),
    "ResNet 3x3 @28": dense((128, 28, 28), (128, 128, 3, 3), 1, 8, 32, padding=1),
    "ResNet 3x3 @14": dense((256, 14, 14), (256, 256, 3, 3), 1, 8, 32, padding=1),
    "ResNet 3x3 @7": dense((512, 7, 7), (512, 512, 3, 3), 1, 8, 32, padding=1),
    "ResNet 3x3/2 @56": dense((128, 56, 56), (128, 128, 3, 3), stride=2, padding=1),
    "ResNet 1x1 wide @56": dense((64, 56, 56), (256, 64, 1, 1), 1, 8, 32),
    "ResNet 1x1 narrow @56": dense((256, 56, 56), (64, 256, 1, 1)),
    "ResNet 1x1 wide @14": dense((256, 14, 14), (1024, 256, 1, 1), 1, 8, 32),
    "ResNet 1x1/2 @56": dense((256, 56, 56), (512, 256, 1, 1), stride=2),
    "VGG first 3x3 @224": dense((3, 224, 224), (64, 3, 3, 3), padding=1),
    "VGG 3x3 @224": dense((64, 224, 224), (64, 64, 3, 3), padding=1),
    "VGG 3x3 @14": dense((512, 14, 14), (512, 512, 3, 3), padding=1),
    "GoogLeNet 5x5 @28": dense((32, 28, 28), (96, 32, 5, 5), 1, 8, 32, padding=2),
    "AlexNet 5x5 @27": dense((64, 27, 27), (192, 64, 5, 5), padding=2),
    "DeepLab 3x3 dilated 2 @28": dense((256, 28, 28), (256, 256, 3, 3), padding=2, dilation=2),
    "ViT patches 16x16/16 @224": dense((3, 224, 224), (768, 3, 16, 16), 1, 8, 32, stride=16),
    "DCGAN 4x4/2 @32": dense((128, 32, 32), (256, 128, 4, 4), stride=2, padding=1),  # dx is the upsampling
    "DCGAN 4x4/2 @64": dense((64, 64, 64), (128, 64, 4, 4), stride=2, padding=1),  # dx is the upsampling
    "U-Net 3x3 @128": dense((32, 128, 128), (32, 32, 3, 3)),
    "U-Net 3x3x3 @32": dense((32, 32, 32, 32), (32, 32, 3, 3, 3), padding=1),
    "U-Net 3x3x3 @48": dense((16, 48, 48, 48), (16, 16, 3, 3, 3), 1, padding=1),
    "WaveNet 2 taps dilated 64": dense((64, 16000), (64, 64, 2), dilation=64),
    "x-vector 3 taps dilated 3": dense((512, 300), (512, 512, 3), dilation=3),
    "wav2vec stem 10 taps/5": dense((1, 16000), (512, 1, 10), stride=5),
    "MobileNet 3x3 @56": depthwise((144, 56, 56), (3, 3), 1, 8, 32, padding=1),
    "MobileNet 3x3/2 @56": depthwise((144, 56, 56), (3, 3), stride=2, padding=1),
    "MobileNet 3x3 @14": depthwise((576, 14, 14), (3, 3), 1, 8, 32, padding=1),
    "EfficientNet 5x5/2 @28": depthwise((240, 28, 28), (5, 5), stride=2, padding=2),
    "ConvNeXt 7x7 @56": depthwise((96, 56, 56), (7, 7), padding=3),
    "ConvNeXt 7x7 @28": depthwise((192, 28, 28), (7, 7), 1, 8, 32, padding=3),
    "ConvNeXt 7x7 @14": depthwise((384, 14, 14), (7, 7), padding=3),
    "ResNeXt 32 groups of 4 @56": grouped((128, 56, 56), (128, 4, 3, 3), 1, 8, 32, padding=1),
    "ResNeXt 32 groups of 8 @28": grouped((256, 28, 28), (256, 8, 3, 3), padding=1),
    "ResNeXt 32 groups of 8/2 @56": grouped((256, 56, 56), (256, 8, 3, 3), stride=2, padding=1),
    "wav2vec positional 128 taps": grouped((768, 249), (768, 48, 128), padding=64),
    "RepLKNet 31x31 @28": depthwise((128, 28, 28), (31, 31), padding=15),
    "RepLKNet 27x27 @14": depthwise((256, 14, 14), (27, 27), padding=13),
    "Conformer 31 taps": depthwise((256, 500), (31,), padding=15),
    "picture 512, 3x3": one_channel(512, 512, taps=3),
    "picture 512, 15x15": one_channel(512, 512, taps=15),
    "picture 256, 63x63": one_channel(256, 256, taps=63),  # at 512, torch would take 8 GB for it in float64
    "signal 100000, 1025 taps": one_channel(100000, taps=1025),
    "tiny 3x3 @4": tiny((3, 4, 4), (8, 3, 3, 3), padding=1),
    "tiny 2x2/2 @4": tiny((3, 4, 4), (3, 3, 2, 2), stride=2),
    "tiny 3 taps": tiny((1, 16), (1, 1, 3)),
    "tiny 1x1 @1": tiny((8, 1, 1), (8, 8, 1, 1)),
}
QUICK = (
    "ResNet stem 7x7/2 @224",
    "ResNet 3x3 @56",
    "ResNet 3x3 @14",
    "ResNet 1x1 narrow @56",
    "ResNet 3x3/2 @56",
    "x-vector 3 taps dilated 3",
    "ViT patches 16x16/16 @224",
    "DCGAN 4x4/2 @64",
    "MobileNet 3x3 @56",
    "ConvNeXt 7x7 @28",
    "ResNeXt 32 groups of 4 @56",
    "RepLKNet 27x27 @14",
    "picture 512, 15x15",
    "tiny 3x3 @4",
)
ON_GPU = (
    "ResNet stem 7x7/2 @224",
    "ResNet 3x3 @56",
    "ResNet 3x3 @14",
    "ResNet 3x3 @7",
    "ResNet 3x3/2 @56",
    "ResNet 1x1 narrow @56",
    "ResNet 1x1/2 @56",
    "VGG 3x3 @224",
    "DeepLab 3x3 dilated 2 @28",
    "ViT patches 16x16/16 @224",
    "DCGAN 4x4/2 @64",
    "U-Net 3x3x3 @32",
    "x-vector 3 taps dilated 3",
    "MobileNet 3x3 @56",
    "EfficientNet 5x5/2 @28",
    "ConvNeXt 7x7 @56",
    "ResNeXt 32 groups of 4 @56",
    "wav2vec positional 128 taps",
    "RepLKNet 31x31 @28",
    "picture 512, 15x15",
)
