"""Windows against the sum over taps as written, on the view and on the slices; the fold as their adjoint."""

import numpy as np
import pytest
from support import draw

from xpconv._arrays.padding import pad, pad_adjoint
from xpconv._arrays.windows import fold, windows, windows_by_slices
from xpconv._spec.geometry import Axis, Geometry

GEOMETRIES = [
    Geometry(2, 1, 1, 3, axes)
    for axes in (
        (),
        (Axis(5, 3, 1, 1, 0, 0),),
        (Axis(6, 2, 2, 3, 1, 0),),
        (Axis(1, 1, 5, 1, 0, 0), Axis(7, 3, 2, 1, 2, 1)),
        (Axis(4, 2, 1, 1, 0, 0), Axis(3, 2, 3, 1, 0, 2), Axis(5, 2, 1, 2, 1, 1)),
        # Of too many taps for a slice each:
        (Axis(150, 100, 1, 1, 0, 0),),
        (Axis(120, 20, 3, 1, 0, 1),),
        (Axis(330, 70, 1, 3, 0, 0),),
        (Axis(160, 18, 3, 2, 0, 0),),
        # Inputs that are cropped, windows and taps that meet none:
        (Axis(9, 3, 2, 1, -2, -1), Axis(4, 2, 3, 1, 7, 8)),
        (Axis(3, 3, 1, 9, 11, 12), Axis(2, 1, 10, 1, 20, 21)),
        (Axis(4, 3, 7, 8, 15, 9),),
        (Axis(5, 2, 1, 1, 6, -5),),
        (Axis(150, 100, 1, 1, 60, 170),),
        (Axis(120, 20, 3, 1, 50, -30),),
        (Axis(110, 70, 1, 3, 200, 90),),
        (Axis(3, 40, 2, 1, 100, 90),),
    )
]


@pytest.mark.parametrize("way", [windows, windows_by_slices])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_windows(backend, rng, geometry, way):
    values = draw(rng, (2, 3, *geometry.padded), "float64")
    expected = np.empty((2, 3, *geometry.kernel, *geometry.out))
    ndim = len(geometry.axes)
    for cell in np.ndindex(expected.shape):
        taps, out = cell[2 : 2 + ndim], cell[2 + ndim :]
        where = tuple(a.stride * j + a.dilation * t for a, j, t in zip(geometry.axes, out, taps, strict=True))
        expected[cell] = values[cell[:2] + where]
    with backend.here():
        result = way(backend.array(values), geometry, xp=backend.xp)
    np.testing.assert_array_equal(backend.numpy(result), expected)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_fold_is_the_adjoint_of_windows_of_the_padded(backend, rng, geometry):
    # Integers below 2**53: both inner products are exact, so the law holds to the last bit.
    x = rng.integers(-9, 9, (2, 3, *geometry.size)).astype("float64")
    padded = np.zeros((2, 3, *geometry.padded))
    kept = tuple(slice(max(-axis.lo, 0), axis.size + min(axis.hi, 0)) for axis in geometry.axes)
    padded[geometry.inner] = x[(..., *kept)]
    columns = rng.integers(-9, 9, (2, 3, *geometry.kernel, *geometry.out)).astype("float64")
    with backend.here():
        left = backend.numpy(windows(backend.array(padded), geometry, xp=backend.xp))
        right = backend.numpy(fold(backend.array(columns), geometry, xp=backend.xp))
    assert right.shape == x.shape
    assert np.sum(left * columns) == np.sum(x * right)


@pytest.mark.parametrize("geometry", [one for one in GEOMETRIES if min((0, *sum((a[4:6] for a in one.axes), ()))) == 0])
def test_padding_and_its_adjoint(backend, rng, geometry):
    x = rng.integers(-9, 9, (2, 3, *geometry.size)).astype("float64")
    padded = rng.integers(-9, 9, (2, 3, *geometry.padded)).astype("float64")
    expected = np.pad(x, [(0, 0), (0, 0), *((axis.lo, axis.hi) for axis in geometry.axes)])
    given = backend.array(x)
    with backend.here():
        result = pad(given, geometry, xp=backend.xp)
    assert (result is given) == (geometry.padded == geometry.size)
    left = backend.numpy(result)
    np.testing.assert_array_equal(left, expected)
    with backend.here():
        right = backend.numpy(pad_adjoint(backend.array(padded), geometry, xp=backend.xp))
    assert right.shape == x.shape
    assert np.sum(left * padded) == np.sum(x * right)


def test_the_adjoint_of_padding_gives_zeros_where_inputs_are_cropped(backend):
    geometry = Geometry(1, 1, 1, 1, (Axis(5, 1, 1, 1, -2, 1),))
    with backend.here():
        x = pad_adjoint(backend.array(np.asarray([[[1.0, 2.0, 3.0, 4.0]]])), geometry, xp=backend.xp)
    np.testing.assert_array_equal(backend.numpy(x), [[[0.0, 0.0, 1.0, 2.0, 3.0]]])
