"""The direct algorithm's code for few channels in a group: vectors along rows of outputs.

Vectors of several rows and channels are summed in registers, with the taps of a plane written out one after the other.
The last vector of a row, and the last rows, begin earlier where they would reach beyond the end. So some outputs are
computed twice, in the same way.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from .assembly import Code
from .direct_code import BYTES, Writer

__all__ = ["Rows", "forward_code", "weight_grad_code"]

Pair = tuple[int, int]


class Rows(NamedTuple):
    """What code depends on; pairs are of the last two axes."""

    types: tuple[str, str, str]
    lanes: int
    run: int
    rests: int
    kernel: Pair
    stride: Pair
    dilation: Pair
    registers: int  # of the processor, each for a vector
    outputs: int  # channels of a group that are summed together
    rows: int = 1  # of y that are summed together
    vectors: int = 1  # of each of these rows
    bias: bool = False
    y_step: int = 1

    @property
    def step(self) -> int:
        return self.stride[1]


class _Writer(Writer):
    def __init__(self, kind: Rows, pointers: int, numbers: str) -> None:
        super().__init__(kind, pointers, numbers=numbers)
        self.kind = kind

    def read_y(self, pointer: str, mask: str | None) -> str:
        """A vector of dy; under a mask nothing else is read."""
        lanes, align = self.lanes, BYTES[self.y]
        kind = f"<{lanes} x {self.y}>"
        if mask is None:
            return self.cast(self.load(kind, pointer, align), self.y, self.number, lanes)
        arguments = ("ptr", pointer), ("i32", align), (f"<{lanes} x i1>", mask), (kind, "zeroinitializer")
        found = self.let(self.call(kind, f"masked.load.v{lanes}f{8 * align}.p0", *arguments))
        return self.cast(found, self.y, self.number, lanes)

    def add_lanes(self, pointer: str, value: str) -> None:
        """Add all lanes to the number at a place."""
        name = f"vector.reduce.fadd.v{self.lanes}f{8 * BYTES[self.number]}"
        arguments = (self.number, "0.0"), (self.vector, value)
        total = self.let(self.call(self.number, name, *arguments, flags="reassoc"))
        total = self.let(f"fadd {self.number} {self.read(pointer)}, {total}")
        self.store(self.number, total, pointer, BYTES[self.number])

    def row_at(self, plane: str, row: int) -> str:
        """Where a plane has the row that the first row of outputs meets so many rows further."""
        place, rest = divmod(row, self.kind.stride[0])
        return self.at(
            plane, self.number, self.add(self.mul(self.of["row_rest"], rest), self.mul(self.of["pitch"], place))
        )

    def input_at(self, row: str, tap: int) -> str:
        """Where a copied row has the input that its first output meets by a tap along the last axis."""
        step, rest = divmod(self.kind.dilation[1] * tap, self.kind.stride[1])
        return self.at(row, self.number, self.add(self.mul(self.of["col_rest"], rest), step))

    def weights_of(self, channel: str, term: str) -> str:
        """The number of the first weight of an output channel and a term."""
        return self.mul(self.add(self.mul(channel, self.of["terms"]), term), self.kind.kernel[0] * self.kind.kernel[1])


def forward_code(kind: Rows) -> Code:
    """Arguments: x, w, bias, y, how many are busy, jobs, memory, numbers; where planes of x and y begin.

    A job has the digits (sample, group, position, slab of rows).
    """
    code = _Writer(kind, 10, "%7")
    of = code.of
    with code.taken("%4", "%5") as job:
        slab, position, group, n = code.digits(job, "slabs", "positions", "groups")
        first = code.smaller(code.mul(slab, of["slab"]), code.sub(of["rows"], of["slab"]))
        x = code.at("%0", code.x, code.add(code.mul(n, of["x_sample"]), code.mul(group, of["x_group"])))
        code.copy_planes(x, "%6", code.at("%8", "i64", code.mul(position, of["terms"])), (first, of["slab"]))
        plane = code.load("i64", code.at("%9", "i64", position), 8)
        y = code.add(plane, code.mul(n, of["y_sample"]), code.mul(first, of["y_row"]))
        with code.loop(of["outputs"], kind.outputs) as outputs:
            output = code.smaller(outputs.index, code.sub(of["outputs"], kind.outputs))
            channel = code.add(code.mul(group, of["outputs"]), output)
            with code.loop(of["slab"], kind.rows) as rows:
                row = code.smaller(rows.index, code.sub(of["slab"], kind.rows))
                with code.loop(of["cols"], kind.vectors * kind.lanes) as cols:
                    col = code.smaller(cols.index, code.sub(of["cols"], kind.vectors * kind.lanes))
                    sums = _sums(code, channel, row, col)
                    for total, (o, r, v) in zip(sums, _block(kind), strict=True):
                        at_row = code.mul(code.add(row, r), of["y_row"])
                        at_col = code.mul(code.add(col, v * kind.lanes), kind.y_step)
                        here = code.add(y, code.mul(code.add(channel, o), of["y_channel"]), at_row, at_col)
                        code.write_y(code.at("%3", code.y, here), total, kind.lanes)
    return code


def _block(kind: Rows) -> list[tuple[int, int, int]]:
    """What is summed together: output channels, rows and vectors."""
    return list(product(range(kind.outputs), range(kind.rows), range(kind.vectors)))


def _sums(code: _Writer, channel: str, row: str, col: str) -> list[str]:
    """The vectors of a block that begins there, summed over all terms and taps."""
    kind, of = code.kind, code.of
    first = ["zeroinitializer"] * kind.outputs
    if kind.bias:
        at = [code.at("%2", code.number, code.add(channel, o)) for o in range(kind.outputs)]
        first = [code.spread(code.number, code.read(one)) for one in at]
    start = code.add(code.mul(row, of["pitch"]), col)
    with code.loop(of["terms"], 1, code.vector, [first[o] for o, _, _ in _block(kind)]) as term:
        plane = code.at("%6", code.number, code.add(start, code.mul(term.index, of["plane"])))
        weights = [
            code.at("%1", code.number, code.weights_of(code.add(channel, o), term.index)) for o in range(kind.outputs)
        ]
        term.next = _products(code, dict(zip(_block(kind), term.carried, strict=True)), plane, weights)
    return term.carried


def _products(code: _Writer, sums: dict[tuple[int, int, int], str], plane: str, weights: list[str]) -> list[str]:
    """The sums with the products of one term. Each number of a plane is read once for all rows that meet it."""
    kind = code.kind
    stay = kind.kernel[0] * kind.kernel[1] * kind.outputs <= kind.registers // 2  # weights in registers
    known: dict[tuple[int, int, int], str] = {}

    def weight(o: int, t: int, u: int) -> str:
        if not stay or (o, t, u) not in known:
            at = code.at(weights[o], code.number, t * kind.kernel[1] + u)
            known[o, t, u] = code.spread(code.number, code.read(at))
        return known[o, t, u]

    met: dict[int, list[Pair]] = {}  # rows of the plane: which rows of y meet it, by which taps
    for r, t in product(range(kind.rows), range(kind.kernel[0])):
        met.setdefault(r * kind.stride[0] + t * kind.dilation[0], []).append((r, t))
    for i, pairs in sorted(met.items()):
        row = code.row_at(plane, i)
        for u in range(kind.kernel[1]):
            at = code.input_at(row, u)
            x = [code.read_vector(code.at(at, code.number, v * kind.lanes)) for v in range(kind.vectors)]
            for (r, t), o in product(pairs, range(kind.outputs)):
                factor = weight(o, t, u)
                for v in range(kind.vectors):
                    sums[o, r, v] = code.with_product(sums[o, r, v], x[v], factor)
    return list(sums.values())


def weight_grad_code(kind: Rows) -> Code:
    """Arguments: dy, x, sums, the first job and the one after the last, memory, numbers; where planes of x and dy
    begin.

    A job has the digits (group, sample, position, slab of rows), and adds its products to the sums (g, o, c, *kernel).
    """
    code = _Writer(kind, 8, "%5")
    of, taps = code.of, list(product(range(kind.kernel[0]), range(kind.kernel[1])))
    begin, end = (code.load("i64", code.at("%3", "i64", i), 8) for i in range(2))
    with code.loop(code.sub(end, begin)) as job:
        slab, position, n, group = code.digits(code.add(begin, job.index), "slabs", "positions", "samples")
        first = code.mul(slab, of["slab"])
        rows = code.smaller(of["slab"], code.sub(of["rows"], first))
        x = code.at("%1", code.x, code.add(code.mul(n, of["x_sample"]), code.mul(group, of["x_group"])))
        code.copy_planes(x, "%4", code.at("%6", "i64", code.mul(position, of["terms"])), (first, rows))
        plane = code.load("i64", code.at("%7", "i64", position), 8)
        y = code.add(plane, code.mul(n, of["y_sample"]), code.mul(first, of["y_row"]))
        with code.loop(of["outputs"], kind.outputs) as output, code.loop(of["terms"]) as term:
            channel = code.add(code.mul(group, of["outputs"]), output.index)
            dy = code.at("%0", code.y, code.add(y, code.mul(channel, of["y_channel"])))
            copied = code.at("%4", code.number, code.mul(term.index, of["plane"]))
            weights = [code.weights_of(code.add(channel, o), term.index) for o in range(kind.outputs)]
            some = (kind.registers - 6) // kind.outputs  # as many taps as there are registers for sums
            for i in range(0, len(taps), some):
                sums = [code.at("%2", code.number, code.add(one, i)) for one in weights]
                _add_products(code, taps[i : i + some], (dy, copied), sums, rows)
    return code


def _add_products(code: _Writer, taps: list[Pair], planes: tuple[str, str], sums: list[str], rows: str) -> None:
    """Add the products of planes of dy, one for each output channel, and a plane of x, at some taps, to their sums."""
    kind, of = code.kind, code.of
    rest = code.let(f"urem i64 {of['cols']}, {kind.lanes}")
    whole, mask = code.sub(of["cols"], rest), code.first_lanes(rest)

    def added(totals: list[str], dy: str, row: str, mask: str | None) -> list[str]:
        """With a mask where lanes lie beyond the end of a row: what is there need not be finite."""
        at = [code.at(dy, code.y, code.mul(of["y_channel"], o)) for o in range(len(sums))]
        factors, made = [code.read_y(one, mask) for one in at], list(totals)
        for k, (t, u) in enumerate(taps):
            here = code.row_at(row, t * kind.dilation[0])
            x = code.read_vector(code.input_at(here, u))
            if mask is not None:
                x = code.let(f"select <{kind.lanes} x i1> {mask}, {code.vector} {x}, {code.vector} zeroinitializer")
            for o, factor in enumerate(factors):
                made[o * len(taps) + k] = code.with_product(made[o * len(taps) + k], x, factor)
        return made

    with code.loop(rows, 1, code.vector, ["zeroinitializer"] * (len(taps) * len(sums))) as row:
        dy = code.at(planes[0], code.y, code.mul(row.index, of["y_row"]))
        x = code.at(planes[1], code.number, code.mul(row.index, of["pitch"]))
        with code.loop(whole, kind.lanes, code.vector, row.carried) as col:
            here = code.at(dy, code.y, col.index), code.at(x, code.number, col.index)
            col.next = added(col.carried, *here, None)
        with code.loop(rest, kind.lanes, code.vector, col.carried) as end:  # once, or not at all
            here = code.at(dy, code.y, whole), code.at(x, code.number, whole)
            end.next = added(end.carried, *here, mask)
        row.next = end.carried
    for k, total in enumerate(row.carried):
        o, tap = divmod(k, len(taps))
        code.add_lanes(code.at(sums[o], code.number, tap), total)
