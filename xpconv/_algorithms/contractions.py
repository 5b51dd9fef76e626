"""The three contractions of the one trilinear form, once for all algorithms.

    T(dy, x, w) = sum over n, g, o, c, j, t of  dy[n, g, o, j] * x[n, g, c, stride*j + dilation*t - lo] * w[g, o, c, t]

An algorithm is a change of basis, three linear maps Ex, Ew, Ey after which T is a batch of matrix products:

    T = sum over g, b, o, k, l of  Y[g, b, o, l] * W[g, b, o, k] * X[g, b, k, l],   X = Ex(x), W = Ew(w), Y = Ey(dy)

Leave one slot open, and a contraction is left; a star marks the adjoint of a map:

    y = Ey*( W @ X )            dx = Ex*( W^T @ Y )             dw = Ew*( Y @ X^T )

Nothing here is conjugated: to get the Hermitian gradients of complex numbers, the caller passes the conjugate of w or
of x. The weight and the bias have the dtype to compute in; dy and x may be an `Operand`, which converts what is read.

T is also the sum of its parts. A part is small enough for all of its columns X to exist at once; those of the whole
never do. Parts of a result that have no element in common can be computed at the same time, and the result does not
depend on how many; parts that share elements are added one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, groupby
from typing import Any, Generic, NamedTuple, TypeAlias

from .._arrays.devices import device
from .._arrays.doors import add, is_finite, matmul, multiplied_into, put, quietly, side_by_side
from .._arrays.dtypes import accumulating
from .._arrays.typing import ArrayT, Namespace
from .._spec.convolution import part_of
from .._spec.options import current
from .._spec.parts import Part, Parts
from .basis import Basis
from .plan import Plan
from .unmet import exact
from .weight import Weight

__all__ = ["Target", "accumulator", "forward", "input_grad", "nothing_but", "per_channel", "weight_grad"]

Within: TypeAlias = tuple[slice, ...] | None
Write: TypeAlias = Callable[..., ArrayT]  # `put` or `add`
Job: TypeAlias = tuple[Part, Any]  # with the weight of the part in the basis


class Target(NamedTuple, Generic[ArrayT]):
    """The array that a result is written to, or its elements at steps along each spatial axis."""

    array: ArrayT
    within: Within = None


def forward(
    plan: Plan, x: ArrayT, w: Weight[ArrayT], bias: ArrayT | None, target: Target[ArrayT], *, xp: Namespace
) -> ArrayT:
    """y = Ey*( W @ X ) + bias, in the target."""
    plan = w.suited(plan)

    def factors(part: Part, W: ArrayT) -> tuple[ArrayT, ArrayT]:
        return W, plan.basis.ex(x[part.x], part.geometry, xp=xp)

    def lowered(part: Part) -> ArrayT:
        plain, piece = plan.lowered(part.geometry, "y"), w.part(part, plan.parts.geometry.inputs, xp=xp)
        y: ArrayT = xp.empty(part.geometry.y_shape, dtype=w.array.dtype, device=device(piece))
        return forward(plain, x[part.x], Weight(piece), None, Target(y), xp=xp)

    return _Filling("y", plan, factors, lowered, bias, xp).into(target, w)


def input_grad(plan: Plan, dy: ArrayT, w: Weight[ArrayT], bias: ArrayT | None, dtype: Any, *, xp: Namespace) -> ArrayT:
    """dx = Ex*( W^T @ Y ) + bias: with a bias, the transposed convolution of dy."""
    plan, whole = w.suited(plan), plan.parts.geometry

    def factors(part: Part, W: ArrayT) -> tuple[ArrayT, ArrayT]:
        return W.mT, plan.basis.ey(dy[part.y], part.geometry, xp=xp)

    def lowered(part: Part) -> ArrayT:
        plain, piece = plan.lowered(part.geometry, "x"), Weight(w.part(part, whole.inputs, xp=xp))
        return input_grad(plain, dy[part.y], piece, None, w.array.dtype, xp=xp)

    sums_dtype = accumulator(plan, w, dtype, xp=xp)
    if plan.overlapping:
        dx, bias = nothing_but(bias, whole.x_shape, w.array, sums_dtype, xp=xp), None
    else:
        dx = xp.empty(whole.x_shape, dtype=sums_dtype, device=device(w.array))
    return _Filling("x", plan, factors, lowered, bias, xp).into(Target(dx), w)


def weight_grad(plan: Plan, dy: ArrayT, x: ArrayT, *, xp: Namespace) -> ArrayT:
    """dw = Ew*( Y @ X^T ): summed in the basis over the parts, in several partial sums, and then over these."""
    basis, parts = plan.basis, plan.parts
    count = parts.count // plan.weight_cuts  # parts of the same weights

    def product(part: Part) -> ArrayT:
        Y = basis.ey(dy[part.y], part.geometry, xp=xp)
        X = basis.ex(x[part.x], part.geometry, xp=xp)
        return _product(Y, X.mT, plan, xp=xp)

    def lowered(part: Part) -> ArrayT:
        return weight_grad(plan.lowered(part.geometry, "w"), dy[part.y], x[part.x], xp=xp)

    def in_the_whole(made: ArrayT) -> ArrayT:
        return exact("w", basis, made, parts.geometry, xp=xp)

    def summed(some: Sequence[int]) -> ArrayT:
        """The sum over parts of the same weights."""
        geometry = parts[some[0]].geometry
        return _checked(
            "w",
            basis,
            lambda: in_the_whole(basis.ew_adjoint(_sum(product, parts, some), geometry, xp=xp)),
            lambda: _sum(lowered, parts, some),
            xp=xp,
        )

    def compute(out: ArrayT, job: tuple[int, int], write: Write[ArrayT]) -> ArrayT:
        weights, i = job
        first, last = (weights * count + count * end // plan.partial_sums for end in (i, i + 1))
        return write(out, (i, *parts[first].w), summed(range(first, last)), xp=xp)

    if not count:
        zeros: ArrayT = xp.zeros(parts.geometry.w_shape, dtype=x.dtype, device=device(x))
        return zeros
    if plan.is_tiny and basis.reshapes("w", parts.geometry):
        return summed((0,))
    sums: ArrayT = xp.empty((plan.partial_sums, *parts.geometry.w_shape), dtype=x.dtype, device=device(x))
    jobs = ((weights, i) for weights in range(plan.weight_cuts) for i in range(plan.partial_sums))
    sums = side_by_side(sums, partial(compute, write=put), jobs, plan.threads(current().threads))
    dw: ArrayT = sums[0, ...]
    for i in range(1, plan.partial_sums):
        dw = xp.add(dw, sums[i, ...])  # a new array: a view would hold all of them
    return dw


def per_channel(bias: ArrayT, ndim: int, *, xp: Namespace) -> ArrayT:
    """(channels,) -> (channels, 1, ...), as many as there are axes after the batch."""
    return xp.reshape(bias, (-1, *(1,) * (ndim - 2)))


def nothing_but(bias: ArrayT | None, shape: tuple[int, ...], like: ArrayT, dtype: Any, *, xp: Namespace) -> ArrayT:
    """Zeros, or the bias: what the convolution is where no window reaches."""
    zeros: ArrayT = xp.zeros(shape, dtype=dtype, device=device(like))
    return zeros if bias is None else put(zeros, (...,), per_channel(bias, len(shape), xp=xp), xp=xp)


def accumulator(plan: Plan, w: Weight[ArrayT], dtype: Any, *, xp: Namespace) -> Any:
    """The accumulator's dtype: that of the result, unless several parts are added to one number of it."""
    several = plan.overlapping or plan.parts.counts[plan.parts.reduced] > 1
    return accumulating(xp, dtype, w.array.dtype) if several else dtype


class _Filling(NamedTuple, Generic[ArrayT]):
    """How y or dx is filled: each part is a product of two factors, taken back from the basis."""

    slot: str
    plan: Plan
    factors: Callable[[Part, ArrayT], tuple[ArrayT, ArrayT]]
    lowered: Callable[[Part], ArrayT]  # computes a part anew where the basis has spread NaN
    bias: ArrayT | None
    xp: Namespace

    def into(self, target: Target[ArrayT], w: Weight[ArrayT]) -> ArrayT:
        """The target, part by part; parts that are added to the same numbers come in steps, one after another."""
        plan, parts, out = self.plan, self.plan.parts, target.array
        if plan.is_tiny:  # the shortest way: small calls are mostly overhead
            part = parts[0]
            return self.compute(target.within, put, out, (part, w.in_basis(part, plan, xp=self.xp)))
        threads, steps = plan.threads(current().threads), parts.counts[parts.reduced]
        size = parts.count // steps

        def jobs(begin: int) -> Iterator[Job]:
            numbered = (parts[begin + i] for i in range(size))
            for _, group in groupby(numbered, key=lambda part: part.w):
                first = next(group)
                W = w.in_basis(first, plan, xp=self.xp)  # shared by all parts of the same weights
                for part in chain([first], group):
                    yield part, W

        for i in range(steps):
            write = add if i or plan.overlapping else put
            out = side_by_side(out, partial(self.compute, target.within, write), jobs(size * i), threads)
        return out

    def compute(self, within: Within, write: Write[ArrayT], out: ArrayT, job: Job) -> ArrayT:
        """Compute a part, and write it."""
        (part, W), (slot, plan, factors, lowered, bias, xp) = job, self
        geometry, where, summed = (
            (part.geometry, part.y, part.inputs) if slot == "y" else (part.geometry, part.x, part.outputs)
        )
        own = None if bias is None or summed.start else per_channel(bias[where[1]], out.ndim, xp=xp)
        if within is not None:
            where = (*where[:2], *map(part_of, within, where[2:]))
        if not geometry.positions:  # no window reaches these inputs
            made: ArrayT = xp.zeros(geometry.x_shape, dtype=out.dtype, device=device(out))
        elif write is put and plan.basis.reshapes(slot, geometry):
            a, b = factors(part, W)
            if multiplied_into(out, where, a, b, plan.pieces):
                return out if own is None else add(out, where, own, xp=xp)
            made = self.product(part, a, b)
        else:
            made = _checked(
                slot, plan.basis, lambda: self.product(part, *factors(part, W)), lambda: lowered(part), xp=xp
            )
        return write(out, where, made if own is None else add(made, (...,), own, xp=xp), xp=xp)

    def product(self, part: Part, a: ArrayT, b: ArrayT) -> ArrayT:
        basis = self.plan.basis
        back = basis.ey_adjoint if self.slot == "y" else basis.ex_adjoint
        made = back(_product(a, b, self.plan, xp=self.xp), part.geometry, xp=self.xp)
        return exact(self.slot, basis, made, part.geometry, xp=self.xp)


def _product(a: ArrayT, b: ArrayT, plan: Plan, *, xp: Namespace) -> ArrayT:
    if not plan.basis.swapped:
        return matmul(a, b, pieces=plan.pieces, xp=xp)
    return matmul(b.mT, a.mT, pieces=plan.pieces, xp=xp).mT


def _checked(
    slot: str, basis: Basis, make: Callable[[], ArrayT], lowered: Callable[[], ArrayT], *, xp: Namespace
) -> ArrayT:
    """What `make` returns; where the basis has spread NaN or infinities in it, what `lowered` returns."""
    if not basis.propagates_nonfinite:
        return make()
    with quietly():
        made = make()
        if slot not in basis.propagates_nonfinite or is_finite(made, xp=xp):
            return made
    del made
    return lowered()


def _sum(product: Callable[[Part], ArrayT], parts: Parts, some: Sequence[int]) -> ArrayT:
    first, *others = some
    total = product(parts[first])
    for i in others:
        total += product(parts[i])  # type: ignore[operator]
    return total
