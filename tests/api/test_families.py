"""What convolution and transposed convolution have in common, each against the loop or against itself."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, TransposedCase
from families import CONV, FAMILIES, TRANSPOSED
from support import draw, in_blocks_of, whole_numbers

from xpconv import options

# A family, one of its convolutions, and the bytes of a block.
BLOCKS = {
    "conv": (
        CONV,
        Case((2, 4, 7, 6), (6, 2, 3, 2), "same", ((1, 1), (0, 1)), stride=(2, 1), groups=2),
        (1, 300, 1000, 3000, 10**4, 10**9),
    ),
    **{
        f"conv_transpose, {mode}": (
            TRANSPOSED,
            TransposedCase(
                (2, 4, 3, 4),
                (4, 3, 3, 2),
                (5, 3),
                {"stride": (2, 1), "padding": (1, 1), "groups": 2, "padding_mode": mode},
                1,
                1,
            ),
            (300, 3000, 10**9),
        )
        for mode in ("zeros", "reflect")
    },
    # So many phases that it is made as the gradient it is.
    "conv_transpose, wide strides": (
        TRANSPOSED,
        TransposedCase((1, 4, 2, 2), (4, 3, 2, 2), (7, 6), {"stride": (5, 4), "groups": 2}),
        (1, 300, 10**9),
    ),
}


@pytest.mark.parametrize("method", ["lowering", "banded"])
@pytest.mark.parametrize("name", BLOCKS)
def test_whole_numbers_are_the_same_to_the_bit_in_any_blocks(backend, rng, monkeypatch, name, method):
    # Sums of whole numbers below 2**24 are exact in float32, in whatever order they are made.
    family, case, sizes = BLOCKS[name]
    operands = [whole_numbers(rng, shape, "float32") for shape in case.shapes]
    expected = case.expected(*operands)
    dy, x, w, bias = map(backend.array, operands)
    for size in sizes:
        in_blocks_of(monkeypatch, size)
        with options(method=method):
            results = (
                family.forward(x, w, bias, **case.parameters),
                *family.backward(dy, x, w, **case.parameters),
            )
        for result, values in zip(results, expected, strict=True):
            np.testing.assert_array_equal(backend.numpy(result), values)


@FAMILIES
def test_needs(backend, rng, family):
    w = (3, 2, 2) if family is CONV else (2, 3, 2)
    x, w = draw(rng, (2, 2, 5), "float32"), draw(rng, w, "float32")
    dy = draw(rng, family.forward(x, w).shape, "float32")
    operands = [backend.array(values) for values in (dy, x, w)]
    everything = family.backward(*operands)
    for mask in np.ndindex(2, 2, 2):
        some = family.backward(*operands, needs=[bool(bit) for bit in mask])
        for needed, one, other in zip(mask, some, everything, strict=True):
            if needed:
                np.testing.assert_array_equal(backend.numpy(one), backend.numpy(other))
            else:
                assert one is None
