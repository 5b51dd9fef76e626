"""The prices of `choose` on a GPU, in seconds, until they have been measured on one.

They are derived from what each algorithm launches, moves and multiplies, counted on a stand-in for CuPy, and the rates
of an NVIDIA H100: 3 us a launch, 3.3 TB/s, 60 TFLOP/s in float32 without TF32 and 30 in float64.
"""

from __future__ import annotations

__all__ = ["GPU_COSTS", "GPU_TURN"]

LAUNCH, BYTES, FLOPS = 3e-6, 3.3e12, {4: 60e12, 8: 30e12}

# Of each algorithm and slot: the launches of a part, and how often each number of X, of Y and of W is moved through the
# memory of the device. The transforms of Winograd's are counted with `Footprint.effort`, which is 46 for 6 x 6 points.
MOVES = {
    ("lowering", "y"): (7, 2.4, 1.5, 0),
    ("lowering", "x"): (12, 7.5, 1, 0),
    ("lowering", "w"): (7, 2.4, 1.5, 2),
    ("banded", "y"): (14, 3, 3, 6),
    ("banded", "x"): (20, 6, 3, 6),
    ("banded", "w"): (16, 3, 3, 6),
    ("fft", "y"): (14, 6, 6, 6),
    ("fft", "x"): (14, 6, 6, 6),
    ("fft", "w"): (14, 6, 6, 6),
    ("winograd", "y"): (12, 0.045, 0.045, 1.5),
    ("winograd", "x"): (14, 0.06, 0.045, 1.5),
    ("winograd", "w"): (12, 0.045, 0.045, 1.5),
}
# A direct sum reads a number from a cache for each multiplication, or less; it has nothing else to move.
DIRECT = {"y": 2.5e-13, "x": 2.5e-13, "w": 3e-13}

GPU_TURN = 2 * 8 / BYTES  # for each number of a weight whose taps are reversed

GPU_COSTS = {
    item: {
        **{
            key: (launches * LAUNCH, 2 / FLOPS[item], *(moves * item / BYTES for moves in numbers))
            for key, (launches, *numbers) in MOVES.items()
        },
        **{("direct", slot): (2 * LAUNCH, price * item / 4, 0.0, 0.0, 0.0) for slot, price in DIRECT.items()},
    }
    for item in (4, 8)
}
