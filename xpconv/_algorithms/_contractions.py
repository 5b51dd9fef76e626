"""Floor 3: the three contractions of the one trilinear form, once for all algorithms.

    T(dy, x, w) = sum over n, g, o, c, j, t of  dy[n, g, o, j] * x[n, g, c, stride*j + dilation*t - lo] * w[g, o, c, t]

An algorithm is a change of basis, three linear maps Ex, Ew, Ey after which T is a batch of matrix products:

    T = sum over g, b, o, k, l of  Y[g, b, o, l] * W[g, b, o, k] * X[g, b, k, l],   X = Ex(x), W = Ew(w), Y = Ey(dy)

Leave one slot open, and what is left is a contraction, with the transposes of the maps starred:

    y = Ey*( W @ X )            dx = Ex*( W^T @ Y )             dw = Ew*( Y @ X^T )

For complex numbers the gradients are to be Hermitian: dx takes the conjugate of w for w, and dw that of x for x. The
maps know nothing of it.

T is also the sum of its parts over groups, samples and positions. A part is small enough for all of its columns X to
exist at once; those of the whole never do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Protocol

from .._geometry import Geometry, Part
from .._namespace import add, block_bytes, conj, device, item_bytes, matmul, put, side_by_side
from .._padding import pad, pad_adjoint
from .._typing import ArrayT, Namespace

__all__ = ["Basis", "forward", "input_grad", "weight_grad"]


class Basis(Protocol):
    """An algorithm: three maps and their adjoints. In the basis arrays are (group, *point, row, column)."""

    def column_size(self, geometry: Geometry) -> int:
        """How many numbers X holds for one group, sample and position."""

    def ex(self, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...
    def ex_adjoint(self, columns: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...
    def ew(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...
    def ew_adjoint(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...
    def ey(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...
    def ey_adjoint(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...


def forward(x: ArrayT, w: ArrayT, bias: ArrayT | None, geometry: Geometry, basis: Basis, *, xp: Namespace) -> ArrayT:
    """y = Ey*( W @ X ) + bias."""
    W = basis.ew(w, geometry, xp=xp)
    per_channel = (-1, *(1,) * len(geometry.axes))

    def contract(part: Part) -> ArrayT:
        X = basis.ex(pad(x[part.x], part.geometry, xp=xp), part.geometry, xp=xp)
        y = basis.ey_adjoint(matmul(W[part.groups, ...], X, xp=xp), part.geometry, xp=xp)
        return y if bias is None else add(y, (...,), xp.reshape(bias[part.y[1]], per_channel), xp=xp)

    y: ArrayT = xp.empty(geometry.y_shape, dtype=x.dtype, device=device(x))
    return _assemble(y, put, attrgetter("y"), contract, geometry, basis, xp=xp)


def input_grad(dy: ArrayT, w: ArrayT, geometry: Geometry, basis: Basis, *, xp: Namespace) -> ArrayT:
    """dx = Ex*( W^T @ Y ): the parts of x overlap, so they are added."""
    W = xp.matrix_transpose(basis.ew(conj(w, xp=xp), geometry, xp=xp))

    def contract(part: Part) -> ArrayT:
        Y = basis.ey(dy[part.y], part.geometry, xp=xp)
        padded = basis.ex_adjoint(matmul(W[part.groups, ...], Y, xp=xp), part.geometry, xp=xp)
        return pad_adjoint(padded, part.geometry)

    dx: ArrayT = xp.zeros(geometry.x_shape, dtype=dy.dtype, device=device(dy))
    return _assemble(dx, add, attrgetter("x"), contract, geometry, basis, xp=xp)


def weight_grad(dy: ArrayT, x: ArrayT, geometry: Geometry, basis: Basis, *, xp: Namespace) -> ArrayT:
    """dw = Ew*( Y @ X^T ): summed over the parts before it leaves the basis."""

    def contract(part: Part) -> ArrayT:
        Y = basis.ey(dy[part.y], part.geometry, xp=xp)
        X = basis.ex(pad(conj(x[part.x], xp=xp), part.geometry, xp=xp), part.geometry, xp=xp)
        return matmul(Y, xp.matrix_transpose(X), xp=xp)

    # Zeros in the shape that the basis gives to weights, and no view of others: some libraries write to no views.
    shape = basis.ew(xp.empty(geometry.w_shape, dtype=x.dtype, device=device(x)), geometry, xp=xp).shape
    dW: ArrayT = xp.zeros(shape, dtype=x.dtype, device=device(x))
    dW = _assemble(dW, add, lambda part: (part.groups, ...), contract, geometry, basis, xp=xp)
    return basis.ew_adjoint(dW, geometry, xp=xp)


def _assemble(
    out: ArrayT,
    write: Callable[..., ArrayT],
    where: Callable[[Part], Any],
    contract: Callable[[Part], ArrayT],
    geometry: Geometry,
    basis: Basis,
    *,
    xp: Namespace,
) -> ArrayT:
    """Every part's contraction, written to where it belongs.

    A part is as large as its columns of X and Y, and the inputs that their windows move over, fit into a block.
    """
    inputs = geometry.inputs * math.prod(axis.stride for axis in geometry.axes)
    numbers = basis.column_size(geometry) + geometry.outputs + inputs
    parts = geometry.parts(block_bytes(out) // max(numbers * item_bytes(out), 1))
    for part, block in side_by_side(contract, parts):
        out = write(out, where(part), block, xp=xp)
        del block  # not to be kept while the next is made
    return out
