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

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, groupby
from typing import Any, Generic, NamedTuple, TypeAlias

from .._arrays.devices import device
from .._arrays.direct import direct_forward, direct_weight_grad, has_kernels
from .._arrays.doors import add, convert, is_finite, matmul, multiplied_into, put, quietly, side_by_side
from .._arrays.dtypes import accumulating
from .._arrays.padding import Operand, as_it_is
from .._arrays.typing import ArrayT, Namespace
from .._spec.convolution import part_of
from .._spec.options import current
from .._spec.parts import Part, Parts
from .direct import Direct
from .plan import Plan
from .unmet import exact
from .weight import Weight

__all__ = ["Target", "accumulator", "forward", "input_grad", "nothing_but", "per_channel", "weight_grad"]

Within: TypeAlias = tuple[slice, ...] | None
Write: TypeAlias = Callable[..., ArrayT]  # `put` or `add`
Job: TypeAlias = tuple[Part, Any]  # with the weight of the part in the basis


class Target(NamedTuple, Generic[ArrayT]):
    """Where a result goes: to a new array, or to an array at steps along each spatial axis."""

    dtype: Any  # of a new array, unless sums need a wider one
    array: ArrayT | None = None
    within: Within = None


def forward(
    plan: Plan, x: ArrayT, w: Weight[ArrayT], bias: ArrayT | None, target: Target[ArrayT], *, xp: Namespace
) -> ArrayT:
    """y = Ey*( W @ X ) + bias, in the target."""
    if isinstance(plan.basis, Direct) and has_kernels(w.array):
        return _directly(plan, x, w, bias, target, xp=xp)
    plan = w.suited(plan)
    # A product of 16-bit numbers is rounded once, so the bias has to be in it: as one more term, times 1.
    in_product, bias = (bias, None) if plan.in_halves else (None, bias)

    def factors(part: Part, W: ArrayT) -> tuple[ArrayT, ArrayT]:
        X = plan.basis.ex(_read(x, part.x, plan), part.geometry, xp=xp)
        if not plan.in_halves:
            return W, X
        if in_product is not None:
            ones: ArrayT = xp.ones((1, 1, X.shape[-1]), dtype=X.dtype, device=device(W))
            W = xp.concat([W, xp.reshape(in_product[part.y[1]], (1, -1, 1))], axis=2)
            X = xp.concat([X, ones], axis=1)
        return convert(W, X.dtype, xp=xp), X

    def lowered(part: Part) -> ArrayT:
        plain, piece = plan.lowered(part.geometry, "y"), w.part(part, plan.parts.geometry.inputs, xp=xp)
        return forward(plain, x[part.x], Weight(piece), None, Target(w.array.dtype), xp=xp)

    return _Filling("y", plan, factors, lowered, bias, xp).into(target, w)


def input_grad(
    plan: Plan, dy: ArrayT, w: Weight[ArrayT], bias: ArrayT | None, target: Target[ArrayT], *, xp: Namespace
) -> ArrayT:
    """dx = Ex*( W^T @ Y ) + bias: with a bias, the transposed convolution of dy."""
    plan, whole = w.suited(plan), plan.parts.geometry

    def factors(part: Part, W: ArrayT) -> tuple[ArrayT, ArrayT]:
        return W.mT, plan.basis.ey(dy[part.y], part.geometry, xp=xp)

    def lowered(part: Part) -> ArrayT:
        plain, piece = plan.lowered(part.geometry, "x"), Weight(w.part(part, whole.inputs, xp=xp))
        return input_grad(plain, dy[part.y], piece, None, Target(w.array.dtype), xp=xp)

    return _Filling("x", plan, factors, lowered, bias, xp).into(target, w)


def weight_grad(plan: Plan, dy: ArrayT, x: ArrayT, *, xp: Namespace) -> ArrayT:
    """dw = Ew*( Y @ X^T ): summed in the basis over the parts, in several partial sums, and then over these."""
    basis, parts, limits = plan.basis, plan.parts, plan.limits
    if isinstance(basis, Direct) and has_kernels(x.array if isinstance(x, Operand) else x):
        geometry = parts.geometry
        dw: ArrayT = direct_weight_grad(_whole(dy, geometry.out), _whole(x, geometry.size), geometry, x.dtype)
        return dw
    count = parts.count // plan.weight_cuts  # parts of the same weights

    def product(part: Part) -> ArrayT:
        Y = basis.ey(_read(dy, part.y, plan), part.geometry, xp=xp)
        X = basis.ex(_read(x, part.x, plan), part.geometry, xp=xp)
        # Where several matrices are multiplied at once, some libraries copy one that is transposed: the smaller, then.
        reverse = basis.swapped != (not limits.in_place and math.prod(X.shape[:-2]) > 1 and X.shape[-2] > Y.shape[-2])
        return _product(Y, X.mT, plan, reverse, xp=xp)

    def lowered(part: Part) -> ArrayT:
        return weight_grad(plan.lowered(part.geometry, "w"), dy[part.y], x[part.x], xp=xp)

    def in_the_whole(made: ArrayT) -> ArrayT:
        return exact("w", basis, made, parts.geometry, xp=xp)

    def summed(some: Sequence[int]) -> ArrayT:
        """The sum over parts of the same weights."""
        geometry = parts[some[0]].geometry
        return _checked(
            "w",
            plan,
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
    alone = plan.is_tiny or (plan.partial_sums * plan.weight_cuts == 1 and not limits.threaded)
    if alone and basis.reshapes("w", parts.geometry):
        return summed(range(count))
    sums: ArrayT = xp.empty((plan.partial_sums, *parts.geometry.w_shape), dtype=x.dtype, device=device(x))
    jobs = ((weights, i) for weights in range(plan.weight_cuts) for i in range(plan.partial_sums))
    sums = side_by_side(sums, partial(compute, write=put), jobs, plan.threads(current().threads))
    dw = sums[0, ...]
    for i in range(1, plan.partial_sums):
        dw = xp.add(dw, sums[i, ...])  # a new array: a view would hold all of them
    return dw


def _directly(
    plan: Plan, x: ArrayT, w: Weight[ArrayT], bias: ArrayT | None, target: Target[ArrayT], *, xp: Namespace
) -> ArrayT:
    """y by a kernel that has no parts."""
    geometry, out = plan.parts.geometry, target.array
    if out is None:
        out = xp.empty(geometry.y_shape, dtype=target.dtype, device=device(w.array))
    weight = w.part(plan.whole, geometry.inputs, copied=False, xp=xp)
    direct_forward(_whole(x, geometry.size), weight, bias, out, target.within, geometry)
    return out


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
        if out is None and not plan.limits.in_place and self.is_one_product:
            return self.one_product(w)
        if out is None:
            out = self.new(target.dtype, w)
        if plan.is_tiny:  # the shortest way: small calls are mostly overhead
            return self.compute(target.within, put, out, (parts[0], w.in_basis(parts[0], plan, xp=self.xp)))
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

    @property
    def is_one_product(self) -> bool:
        """Whether one product makes the whole result, so that it need not be copied to its place."""
        plan, geometry = self.plan, self.plan.parts.geometry
        if plan.parts.count > 1 or plan.overlapping or not geometry.positions:
            return False
        checked = plan.limits.check_finite and plan.basis.propagates_nonfinite
        return plan.basis.makes_y(geometry) and not checked if self.slot == "y" else plan.basis.reshapes("x", geometry)

    def one_product(self, w: Weight[ArrayT]) -> ArrayT:
        part, bias = self.plan.parts[0], self.bias
        made = self.product(part, *self.factors(part, w.in_basis(part, self.plan, xp=self.xp)))
        return made if bias is None else add(made, (...,), per_channel(bias, made.ndim, xp=self.xp), xp=self.xp)

    def new(self, dtype: Any, w: Weight[ArrayT]) -> ArrayT:
        """An array for the result, where parts are added to it with the bias in it."""
        plan, geometry = self.plan, self.plan.parts.geometry
        dtype = accumulator(plan, w, dtype, xp=self.xp)
        shape = geometry.y_shape if self.slot == "y" else geometry.x_shape
        if plan.overlapping:
            return nothing_but(self.bias, shape, w.array, dtype, xp=self.xp)
        made: ArrayT = self.xp.empty(shape, dtype=dtype, device=device(w.array))
        return made

    def compute(self, within: Within, write: Write[ArrayT], out: ArrayT, job: Job) -> ArrayT:
        """Compute a part, and write it."""
        (part, W), (slot, plan, factors, lowered, bias, xp) = job, self
        bias = None if plan.overlapping else bias
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
            made = _checked(slot, plan, lambda: self.product(part, *factors(part, W)), lambda: lowered(part), xp=xp)
        return write(out, where, made if own is None else add(made, (...,), own, xp=xp), xp=xp)

    def product(self, part: Part, a: ArrayT, b: ArrayT) -> ArrayT:
        basis = self.plan.basis
        back = basis.ey_adjoint if self.slot == "y" else basis.ex_adjoint
        made = back(_product(a, b, self.plan, basis.swapped, xp=self.xp), part.geometry, xp=self.xp)
        return exact(self.slot, basis, made, part.geometry, xp=self.xp)


def _whole(x: ArrayT, size: tuple[int, ...]) -> ArrayT:
    """All of an operand, in the dtype that it has in memory."""
    return as_it_is(x, (slice(None), slice(None), *(slice(0, length) for length in size)))


def _read(x: ArrayT, where: tuple[Any, ...], plan: Plan) -> ArrayT:
    return as_it_is(x, where) if plan.in_halves else x[where]


def _product(a: ArrayT, b: ArrayT, plan: Plan, reverse: bool, *, xp: Namespace) -> ArrayT:
    if not reverse:
        return matmul(a, b, pieces=plan.pieces, xp=xp)
    return matmul(b.mT, a.mT, pieces=plan.pieces, xp=xp).mT


def _checked(
    slot: str, plan: Plan, make: Callable[[], ArrayT], lowered: Callable[[], ArrayT], *, xp: Namespace
) -> ArrayT:
    """What `make` returns; where the basis has spread NaN or infinities in it, what `lowered` returns."""
    spread = plan.basis.propagates_nonfinite
    if not spread:
        return make()
    with quietly():
        made = make()
        if slot not in spread or not plan.limits.check_finite or is_finite(made, xp=xp):
            return made
    del made
    return lowered()


def _sum(product: Callable[[Part], ArrayT], parts: Parts, some: Sequence[int]) -> ArrayT:
    first, *others = some
    total = product(parts[first])
    for i in others:
        total += product(parts[i])  # type: ignore[operator]
    return total
