"""Floor 3: the three contractions of the one trilinear form, once for all algorithms.

    T(dy, x, w) = sum over n, g, o, c, j, t of  dy[n, g, o, j] * x[n, g, c, stride*j + dilation*t - lo] * w[g, o, c, t]

An algorithm is a change of basis, three linear maps Ex, Ew, Ey after which T is a batch of matrix products:

    T = sum over g, b, o, k, l of  Y[g, b, o, l] * W[g, b, o, k] * X[g, b, k, l],   X = Ex(x), W = Ew(w), Y = Ey(dy)

Leave one slot open, and what is left is a contraction, with the transposes of the maps starred:

    y = Ey*( W @ X )            dx = Ex*( W^T @ Y )             dw = Ew*( Y @ X^T )

Nothing here is conjugated: of complex numbers, Hermitian gradients are those of the conjugate of w, or of x. The
operands w and bias have the dtype to work in; dy and x may be an `Operand`, which has it where it is read.

T is also the sum of its parts. A part is small enough for all of its columns X to exist at once; those of the whole
never do. Parts of a result lie apart, so that several can be made side by side, and what each is does not depend on
how many are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, groupby
from typing import Any, TypeAlias

from .._arrays.dtypes import accumulating
from .._arrays.namespace import add, convert, device, flip, is_finite, is_floating, matmul, put, quietly, side_by_side
from .._arrays.typing import ArrayT, Namespace
from .._spec.blocks import Part, channels
from .._spec.geometry import Geometry
from .plan import Phase, Plan

__all__ = ["Kept", "forward", "input_grad", "input_grad_by_phases", "nothing_but", "per_channel", "weight_grad"]

Where: TypeAlias = tuple[Any, ...]
Job: TypeAlias = tuple[Part, Any]  # with the weights in the basis
Kept: TypeAlias = dict[Any, Any]  # a layer's filters in each basis, for as long as they are its filters


def forward(
    x: ArrayT,
    w: ArrayT,
    bias: ArrayT | None,
    dtype: Any,
    geometry: Geometry,
    plan: Plan,
    threads: int,
    kept: Kept | None = None,
    *,
    xp: Namespace,
) -> ArrayT:
    """y = Ey*( W @ X ) + bias."""
    y: ArrayT = xp.empty(geometry.y_shape, dtype=_summing(plan, w, dtype, xp=xp), device=device(x))
    y = correlate(y, lambda where: where, x, lambda part: w[part.w], bias, plan, threads, kept, xp=xp)
    return convert(y, dtype, xp=xp)


def correlate(
    out: ArrayT,
    place: Callable[[Where], Where],
    x: ArrayT,
    filters: Callable[[Part], ArrayT],
    bias: ArrayT | None,
    plan: Plan,
    threads: int,
    kept: Kept | None = None,
    *,
    xp: Namespace,
) -> ArrayT:
    """The same, a part of y with the filters of that part going to its place in `out`."""
    basis, watched = plan.basis, "y" in plan.basis.spreads

    def work(job: Job) -> tuple[Where, ArrayT]:
        part, W = job
        with quietly(bool(basis.spreads)):
            X = basis.ex(x[part.x], part.geometry, xp=xp)
            y = basis.ey_adjoint(_product(W, X, plan, xp=xp), part.geometry, xp=xp)
            spread = watched and not is_finite(y, xp=xp)
        if spread:
            del X, y
            w, plain = filters(part), plan.lowered(part.geometry, "y")
            y = forward(x[part.x], w, None, w.dtype, part.geometry, plain, 1, xp=xp)
        if bias is not None and part.inputs.start == 0:
            y = add(y, (...,), per_channel(bias[part.y[1]], y.ndim, xp=xp), xp=xp)
        return place(part.y), y

    return _fill(out, work, filters, plan, threads, kept, xp=xp)


def input_grad(
    dy: ArrayT,
    w: ArrayT,
    bias: ArrayT | None,
    dtype: Any,
    geometry: Geometry,
    plan: Plan,
    threads: int,
    kept: Kept | None = None,
    *,
    xp: Namespace,
) -> ArrayT:
    """dx = Ex*( W^T @ Y ) + bias, which makes it the transposed convolution of dy."""
    basis, watched = plan.basis, "x" in plan.basis.spreads

    def filters(part: Part) -> ArrayT:
        return w[part.w]

    def product(part: Part, W: Any) -> ArrayT:
        if not part.geometry.positions:  # no window reaches these inputs
            nothing: ArrayT = xp.zeros(part.geometry.x_shape, dtype=w.dtype, device=device(dy))
            return nothing
        with quietly(bool(basis.spreads)):
            Y = basis.ey(dy[part.y], part.geometry, xp=xp)
            dx: ArrayT = basis.ex_adjoint(_product(xp.matrix_transpose(W), Y, plan, xp=xp), part.geometry, xp=xp)
            spread = watched and not is_finite(dx, xp=xp)
        if spread:
            del Y, dx
            plain = plan.lowered(part.geometry, "x")
            dx = input_grad(dy[part.y], w[part.w], None, w.dtype, part.geometry, plain, 1, xp=xp)
        return dx

    def work(job: Job) -> tuple[Where, ArrayT]:
        part, dx = job[0], product(*job)
        if bias is not None and part.outputs.start == 0 and not plan.overlapping:
            dx = add(dx, (...,), per_channel(bias[part.x[1]], dx.ndim, xp=xp), xp=xp)
        return part.x, dx

    summing = _summing(plan, w, dtype, xp=xp)
    if plan.overlapping:
        dx = nothing_but(bias, geometry.x_shape, w, summing, xp=xp)
    else:
        dx = xp.empty(geometry.x_shape, dtype=summing, device=device(dy))
    return convert(_fill(dx, work, filters, plan, threads, kept, xp=xp), dtype, xp=xp)


def input_grad_by_phases(
    dy: ArrayT,
    w: ArrayT,
    bias: ArrayT | None,
    dtype: Any,
    geometry: Geometry,
    phases: tuple[Phase, ...],
    threads: int,
    kept: Kept | None = None,
    *,
    xp: Namespace,
) -> ArrayT:
    """The same as forward contractions: x is correlated with w, so dx is dy convolved with it, taps turned around."""
    planned = [phase.plan for phase in phases if phase.plan]
    # Zeros around dy make NaN of a weight that is not finite. Where reading it would wait for a device or break a
    # trace, `is_finite` returns True unchecked: there, what `options` tells of such weights holds.
    if is_floating(w.dtype, xp=xp) and not is_finite(w, xp=xp):
        return input_grad(dy, w, bias, dtype, geometry, planned[0].lowered(geometry, "x"), threads, xp=xp)
    accumulators = {_summing(plan, w, dtype, xp=xp) for plan in planned}
    summing = dtype if accumulators <= {dtype} else accumulating(xp, dtype, w.dtype)
    if len(planned) == len(phases):
        dx: ArrayT = xp.empty(geometry.x_shape, dtype=summing, device=device(dy))
    else:
        dx = nothing_but(bias, geometry.x_shape, w, summing, xp=xp)
    axes = tuple(range(3, 3 + len(geometry.axes)))
    for number, (inputs, taps, plan) in enumerate(phases):
        if plan is None:
            continue

        def filters(part: Part, taps: tuple[slice, ...] = taps) -> ArrayT:
            # What are outputs here are inputs of w, and the reverse.
            rows = channels(part.groups, part.inputs, geometry.outputs)
            turned = w[(rows, part.outputs, *taps)]
            turned = xp.reshape(turned, (part.geometry.groups, part.geometry.inputs, *turned.shape[1:]))
            turned = flip(xp.permute_dims(turned, (0, 2, 1, *axes)), axes, xp=xp)
            return xp.reshape(turned, part.geometry.w_shape)

        def place(where: Where, inputs: tuple[slice, ...] = inputs) -> Where:
            return (*where[:2], *map(_within, inputs, where[2:]))

        mine = None if kept is None else _drawer(kept, number, taps)
        dx = correlate(dx, place, dy, filters, bias, plan, threads, mine, xp=xp)
    return convert(dx, dtype, xp=xp)


def weight_grad(
    dy: ArrayT, x: ArrayT, dtype: Any, geometry: Geometry, plan: Plan, threads: int, *, xp: Namespace
) -> ArrayT:
    """dw = Ew*( Y @ X^T ): summed over the parts before it leaves the basis, in chains and then over these."""
    basis, parts, watched = plan.basis, plan.parts, "w" in plan.basis.spreads
    links = parts.count // plan.weight_cuts  # parts of the same weights

    def link(part: Part) -> ArrayT:
        Y = basis.ey(dy[part.y], part.geometry, xp=xp)
        X = basis.ex(x[part.x], part.geometry, xp=xp)
        return _product(Y, xp.matrix_transpose(X), plan, xp=xp)

    def plain(part: Part) -> ArrayT:
        plain = plan.lowered(part.geometry, "w")
        return weight_grad(dy[part.y], x[part.x], x.dtype, part.geometry, plain, 1, xp=xp)

    def work(job: tuple[int, int]) -> tuple[Where, ArrayT]:
        weights, i = job
        chained = range(links * i // plan.chains, links * (i + 1) // plan.chains)
        part = parts[weights * links + chained[0]]
        with quietly(bool(basis.spreads)):
            dw = basis.ew_adjoint(_sum(link, parts, weights * links, chained), part.geometry, xp=xp)
            spread = watched and not is_finite(dw, xp=xp)
        if spread:
            dw = _sum(plain, parts, weights * links, chained)
        return (i, *part.w), dw

    if not links:
        zeros: ArrayT = xp.zeros(geometry.w_shape, dtype=dtype, device=device(x))
        return zeros
    sums: ArrayT = xp.empty((plan.chains, *geometry.w_shape), dtype=x.dtype, device=device(x))
    jobs = ((weights, i) for weights in range(plan.weight_cuts) for i in range(plan.chains))
    sums = side_by_side(sums, put, work, jobs, plan.threads(threads), xp=xp)
    dw: ArrayT = sums[0, ...]
    for i in range(1, plan.chains):
        dw = xp.add(dw, sums[i, ...])  # a new array: a view would hold all of them
    return convert(dw, dtype, xp=xp)


def per_channel(bias: ArrayT, ndim: int, *, xp: Namespace) -> ArrayT:
    """(channels,) -> (channels, 1, ...), as many as there are axes after the batch."""
    return xp.reshape(bias, (-1, *(1,) * (ndim - 2)))


def nothing_but(bias: ArrayT | None, shape: tuple[int, ...], like: ArrayT, dtype: Any, *, xp: Namespace) -> ArrayT:
    """Zeros, or the bias: what the convolution is where no window reaches."""
    zeros: ArrayT = xp.zeros(shape, dtype=dtype, device=device(like))
    return zeros if bias is None else put(zeros, (...,), per_channel(bias, len(shape), xp=xp), xp=xp)


def _summing(plan: Plan, w: ArrayT, dtype: Any, *, xp: Namespace) -> Any:
    """The accumulator's dtype: that of the result, unless several parts are added to one number of it."""
    several = plan.overlapping or plan.parts.counts[plan.parts.rounds] > 1
    return accumulating(xp, dtype, w.dtype) if several else dtype


def _fill(
    out: ArrayT,
    work: Callable[[Job], tuple[Where, ArrayT]],
    filters: Callable[[Part], ArrayT],
    plan: Plan,
    threads: int,
    kept: Kept | None,
    *,
    xp: Namespace,
) -> ArrayT:
    """`out` part by part, and round by round through what is summed."""
    parts = plan.parts
    if parts.count == 1 and not plan.overlapping:  # the shortest way, for where a call is all that counts
        return put(out, *work((parts[0], _weights(parts[0], filters, plan, kept, xp=xp))), xp=xp)
    rounds = parts.counts[parts.rounds]
    size, threads = parts.count // rounds, plan.threads(threads)

    def jobs(begin: int) -> Iterator[Job]:
        numbered = (parts[begin + i] for i in range(size))
        for _, group in groupby(numbered, key=lambda part: part.w):
            first = next(group)
            W = _weights(first, filters, plan, kept, xp=xp)  # shared by all parts of the same weights
            for part in chain([first], group):
                yield part, W

    for i in range(rounds):
        out = side_by_side(out, add if i or plan.overlapping else put, work, jobs(size * i), threads, xp=xp)
    return out


def _weights(part: Part, filters: Callable[[Part], ArrayT], plan: Plan, kept: Kept | None, *, xp: Namespace) -> Any:
    """The part's weights in the basis; from what a layer keeps, if there are no others and they are no view."""
    basis, geometry = plan.basis, part.geometry
    keeps = kept is not None and plan.weight_cuts == 1 and basis.numbers(geometry)[1] > 0
    key = (basis, [axis[1:4] for axis in geometry.axes]) if keeps else None  # kernel, stride, dilation
    known, W = kept.get("W", (None, None)) if kept is not None else (None, None)
    if keeps and known == key:
        return W
    with quietly(bool(basis.spreads)):
        W = basis.ew(filters(part), geometry, xp=xp)
    if kept is not None and keeps:
        kept["W"] = key, W  # in one piece: another thread may be reading
    return W


def _drawer(kept: Kept, number: int, taps: tuple[slice, ...]) -> Kept:
    """What is kept for a phase. For an input of another size it may have other taps."""
    mine: Kept = kept.setdefault(number, {})
    if mine.get("taps") != taps:
        mine.clear()
        mine["taps"] = taps
    return mine


def _product(a: ArrayT, b: ArrayT, plan: Plan, *, xp: Namespace) -> ArrayT:
    if not plan.basis.swapped:
        return matmul(a, b, xp=xp)
    return xp.matrix_transpose(matmul(xp.matrix_transpose(b), xp.matrix_transpose(a), xp=xp))


def _within(whole: slice, part: slice) -> slice:
    """A part of a whole that is a slice with steps, as one slice."""
    first = whole.start + whole.step * part.start
    return slice(first, first + whole.step * (part.stop - part.start - 1) + 1, whole.step)


def _sum(link: Callable[[Part], ArrayT], parts: Any, begin: int, chained: range) -> ArrayT:
    total = link(parts[begin + chained[0]])
    for i in chained[1:]:
        total += link(parts[begin + i])  # type: ignore[operator]
    return total
