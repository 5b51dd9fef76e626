"""The direct algorithm in code for a processor: what `direct_cpu.py` compiles for each kind of convolution.

    y[n, g, o, j] = bias[g, o] + sum over c, t of  x[n, g, c, stride*j + dilation*t - lo] * w[g, o, c, t]
    dw[g, o, c, t] =             sum over n, j of  x[n, g, c, stride*j + dilation*t - lo] * dy[n, g, o, j]

A plane of x, of which the taps along the last two axes read, is copied with its padding to memory that stays in the
cache: places along the last axis are sorted by their rest when divided by the stride, so that the outputs of a row meet
each tap in a run of memory. Then vectors of outputs, several rows of them, are summed in registers; the taps of both
axes are written out one by one. Where a plane begins is looked up in a table, for each `term`: each input channel, with
each tap along the axes before the last two.

The last vector of a row, and the last rows, begin earlier where they would reach beyond the end: some numbers are then
computed twice, and are the same.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from .assembly import Code

__all__ = ["FORWARD", "MISSING", "SIZES", "WEIGHT_GRAD", "Kind", "forward_code", "weight_grad_code"]

MISSING = -(2**62)  # where a plane begins that is nothing but padding


class Kind(NamedTuple):
    """What is known when code is written; all the rest is handed over in integers."""

    types: tuple[str, str, str]  # of x, of w and the sums, of y or dy: "float" or "double"
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    lanes: int  # numbers of a vector
    registers: int  # that hold a vector each
    block: tuple[int, int, int] = (1, 1, 1)  # output channels, rows and vectors that are summed together
    run: int = 0  # numbers of each place modulo the stride that are copied together; 0: one by one
    bias: bool = False
    y_step: int = 1  # from one output of a row to the next


SIZES = {"float": 4, "double": 8}


class Writer(Code):
    """Code for a kind of convolution; the integers that it knows by name come in the argument `%{ints}`."""

    def __init__(self, kind: Kind, ints: int, names: tuple[str, ...]) -> None:
        super().__init__()
        self.kind = kind
        self.x, self.number, self.y = kind.types
        self.vector = f"<{kind.lanes} x {self.number}>"
        self.of = {name: self.load("i64", self.at(f"%{ints}", "i64", i), 8) for i, name in enumerate(names)}

    def digits(self, number: str, *names: str) -> list[str]:
        """The digits of a number, the last one first, where so many are at each place; then what is left."""
        found = []
        for name in names:
            number, digit = self.divided(number, self.of[name])
            found.append(digit)
        return [*found, number]

    def cast(self, value: str, kind: str, to: str, lanes: int = 0) -> str:
        if kind == to:
            return value
        old, new = (f"<{lanes} x {kind}>", f"<{lanes} x {to}>") if lanes else (kind, to)
        return self.let(f"{'fpext' if to == 'double' else 'fptrunc'} {old} {value} to {new}")

    def spread(self, pointer: str) -> str:
        """The number at a place, in all lanes."""
        value = self.load(self.number, pointer, SIZES[self.number])
        one = self.let(f"insertelement {self.vector} poison, {self.number} {value}, i64 0")
        zeros = f"<{self.kind.lanes} x i32> zeroinitializer"
        return self.let(f"shufflevector {self.vector} {one}, {self.vector} poison, {zeros}")

    def added(self, total: str, a: str, b: str) -> str:
        """The total and a product: rounded once, where the processor can."""
        name = f"llvm.fmuladd.v{self.kind.lanes}f{8 * SIZES[self.number]}"
        return self.let(f"call {self.vector} @{name}({self.vector} {a}, {self.vector} {b}, {self.vector} {total})")

    def first_lanes(self, count: str) -> str:
        """A mask of so many lanes."""
        lanes = self.kind.lanes
        few = self.let(f"trunc i64 {count} to i32")
        one = self.let(f"insertelement <{lanes} x i32> poison, i32 {few}, i64 0")
        many = self.let(f"shufflevector <{lanes} x i32> {one}, <{lanes} x i32> poison, <{lanes} x i32> zeroinitializer")
        numbers = ", ".join(f"i32 {lane}" for lane in range(lanes))
        return self.let(f"icmp ult <{lanes} x i32> <{numbers}>, {many}")

    def read_y(self, pointer: str, mask: str) -> str:
        """A vector of dy; under a mask nothing else is read."""
        read, align = f"<{self.kind.lanes} x {self.y}>", SIZES[self.y]
        if mask:
            name = f"llvm.masked.load.v{self.kind.lanes}f{8 * align}.p0"
            lanes = f"<{self.kind.lanes} x i1> {mask}"
            found = self.let(f"call {read} @{name}(ptr align {align} {pointer}, {lanes}, {read} zeroinitializer)")
        else:
            found = self.load(read, pointer, align)
        return self.cast(found, self.y, self.number, self.kind.lanes)

    def add_to(self, pointer: str, lanes: str) -> None:
        """Add all lanes to the number at a place."""
        name, number = f"llvm.vector.reduce.fadd.v{self.kind.lanes}f{8 * SIZES[self.number]}", self.number
        total = self.let(f"call reassoc {number} @{name}({number} 0.0, {self.vector} {lanes})")
        before = self.load(number, pointer, SIZES[number])
        self.store(number, self.let(f"fadd {number} {before}, {total}"), pointer, SIZES[number])

    def input_at(self, line: str, tap: int) -> str:
        """Where the inputs lie that the outputs of a row, from its first one, meet by a tap along the last axis."""
        place = self.kind.dilation[1] * tap
        step, rest = divmod(place, self.kind.stride[1])
        at = self.add(self.mul(self.of["phase"], rest), step) if rest else step
        return self.at(line, self.number, at)

    def copy_planes(self, x: str, scratch: str, table: str, lead: str, first: str, rows: str) -> None:
        """So many rows of the padded planes of all terms, from the row that output row `first` meets first."""
        kind, of = self.kind, self.of
        first_row = self.sub(self.mul(first, kind.stride[0]), of["lo"])
        tables = self.at(table, "i64", self.mul(lead, of["terms"]))
        with self.loop(of["terms"]) as term:
            offset = self.load("i64", self.at(tables, "i64", term.index), 8)
            present = self.let(f"icmp ne i64 {offset}, {MISSING}")
            plane = self.at(scratch, self.number, self.mul(term.index, of["plane"]))
            with self.loop(rows) as i:
                row, line = self.add(first_row, i.index), self.at(plane, self.number, self.mul(i.index, of["pitch"]))
                with self.loop(of["pitch"], kind.lanes) as at:
                    place = self.at(line, self.number, at.index)
                    self.store(self.vector, "zeroinitializer", place, SIZES[self.number])
                inside = self.let(f"icmp ult i64 {row}, {of['size']}")
                with self.when(self.let(f"and i1 {inside}, {present}")):
                    self.copy_row(line, self.at(x, self.x, self.add(offset, self.mul(row, of["x_row"]), of["from"])))

    def copy_row(self, line: str, source: str) -> None:
        """The numbers of a row, sorted by their place modulo the stride; the last ones, if need be, twice."""
        run, step = self.kind.run, self.kind.stride[1]
        wide = run * step
        if not run:
            with self.loop(self.of["count"]) as loop:
                one = self.cast(self.load(self.x, self.at(source, self.x, loop.index), SIZES[self.x]), self.x, self.number)
                place, rest = self.divided(self.add(self.of["to"], loop.index), step)
                where = self.at(line, self.number, self.add(self.mul(rest, self.of["phase"]), place))
                self.store(self.number, one, where, SIZES[self.number])
            return
        with self.loop(self.of["count"], wide) as loop:
            at = self.smaller(loop.index, self.sub(self.of["count"], wide))
            read = self.load(f"<{wide} x {self.x}>", self.at(source, self.x, at), SIZES[self.x])
            first = self.add(self.of["to"], at)
            for k in range(step):
                order = ", ".join(f"i32 {step * lane + k}" for lane in range(run))
                some = self.let(
                    f"shufflevector <{wide} x {self.x}> {read}, <{wide} x {self.x}> poison, <{run} x i32> <{order}>"
                )
                some = self.cast(some, self.x, self.number, run)
                place, rest = self.divided(self.add(first, k), step)
                where = self.at(line, self.number, self.add(self.mul(rest, self.of["phase"]), place))
                self.store(f"<{run} x {self.number}>", some, where, SIZES[self.number])


FORWARD = tuple(
    "first last slabs leads groups outputs terms plane pitch phase lo size x_row from to count "
    "x_n x_g slab rows read cols y_n y_c y_row".split()
)


def forward_code(kind: Kind) -> Code:
    """Arguments: x, w, bias, y, scratch, integers, where planes of x are, where those of y are."""
    code = Writer(kind, 5, FORWARD)
    of, (outputs, rows, vectors) = code.of, kind.block
    wide = vectors * kind.lanes
    with code.loop(code.sub(of["last"], of["first"])) as job:
        slab, lead, group, n = code.digits(code.add(of["first"], job.index), "slabs", "leads", "groups")
        first = code.smaller(code.mul(slab, of["slab"]), code.sub(of["rows"], of["slab"]))
        x = code.at("%0", code.x, code.add(code.mul(n, of["x_n"]), code.mul(group, of["x_g"])))
        code.copy_planes(x, "%4", "%6", lead, first, of["read"])
        y = code.load("i64", code.at("%7", "i64", lead), 8)
        y = code.add(y, code.mul(n, of["y_n"]), code.mul(first, of["y_row"]))
        with code.loop(of["outputs"], outputs) as o_loop:
            o = code.smaller(o_loop.index, code.sub(of["outputs"], outputs))
            channel = code.add(code.mul(group, of["outputs"]), o)
            with code.loop(of["slab"], rows) as row_loop:
                row = code.smaller(row_loop.index, code.sub(of["slab"], rows))
                with code.loop(of["cols"], wide) as col_loop:
                    col = code.smaller(col_loop.index, code.sub(of["cols"], wide))
                    sums = _sums(code, channel, row, col)
                    place = code.add(y, code.mul(channel, of["y_c"]), code.mul(row, of["y_row"]))
                    _write(code, sums, place, col)
    return code


def _sums(code: Writer, channel: str, row: str, col: str) -> list[str]:
    """(output channel, row, vector), one after the other."""
    kind, of = code.kind, code.of
    outputs, rows, vectors = kind.block
    taps = kind.kernel[0] * kind.kernel[1]
    first = []
    for o in range(outputs):
        bias = "zeroinitializer"
        if kind.bias:
            bias = code.spread(code.at("%2", code.number, code.add(channel, o)))
        first += [bias] * (rows * vectors)
    start = code.add(code.mul(code.mul(row, kind.stride[0]), of["pitch"]), col)
    with code.loop(of["terms"], 1, code.vector, first) as loop:
        sums = list(loop.carried)
        plane = code.at("%4", code.number, code.add(start, code.mul(loop.index, of["plane"])))
        weights = [
            code.at("%1", code.number, code.mul(code.add(code.mul(code.add(channel, o), of["terms"]), loop.index), taps))
            for o in range(outputs)
        ]
        known: dict[tuple[int, int, int], str] = {}

        def weight(o: int, t: int, u: int) -> str:
            if taps * outputs > kind.registers // 2 or (o, t, u) not in known:  # they do not stay in registers
                at = code.at(weights[o], code.number, t * kind.kernel[1] + u)
                known[o, t, u] = code.spread(at)
            return known[o, t, u]

        met: dict[int, list[tuple[int, int]]] = {}  # rows of x: which rows of y meet it, by which tap
        for r, t in product(range(rows), range(kind.kernel[0])):
            met.setdefault(r * kind.stride[0] + t * kind.dilation[0], []).append((r, t))
        for i, pairs in sorted(met.items()):
            line = code.at(plane, code.number, code.mul(of["pitch"], i))
            for u in range(kind.kernel[1]):
                at = code.input_at(line, u)
                read = [
                    code.load(code.vector, code.at(at, code.number, v * kind.lanes), SIZES[code.number])
                    for v in range(vectors)
                ]
                for (r, t), o in product(pairs, range(outputs)):
                    factor = weight(o, t, u)
                    for v in range(vectors):
                        k = (o * rows + r) * vectors + v
                        sums[k] = code.added(sums[k], read[v], factor)
        loop.next = sums
    return loop.carried


def _write(code: Writer, sums: list[str], place: str, col: str) -> None:
    """The sums to where they belong, and nothing between them."""
    kind, of = code.kind, code.of
    outputs, rows, vectors = kind.block
    wide = kind.lanes * kind.y_step
    order = ", ".join(f"i32 {lane // kind.y_step}" for lane in range(wide))
    mask = ", ".join(f"i1 {int(lane % kind.y_step == 0)}" for lane in range(wide))
    for made, (o, r, v) in zip(sums, product(range(outputs), range(rows), range(vectors)), strict=True):
        at = code.mul(code.add(col, v * kind.lanes), kind.y_step)
        start = code.add(place, code.mul(of["y_c"], o), code.mul(of["y_row"], r), at)
        where, numbers = code.at("%3", code.y, start), f"<{kind.lanes} x {code.y}>"
        made = code.cast(made, code.number, code.y, kind.lanes)
        if kind.y_step == 1 or kind.lanes == 1:
            code.store(numbers, made, where, SIZES[code.y])
            continue
        apart = code.let(f"shufflevector {numbers} {made}, {numbers} poison, <{wide} x i32> <{order}>")
        name = f"llvm.masked.store.v{wide}f{8 * SIZES[code.y]}.p0"
        code.do(f"call void @{name}(<{wide} x {code.y}> {apart}, ptr align {SIZES[code.y]} {where}, <{wide} x i1> <{mask}>)")


WEIGHT_GRAD = tuple(
    "first last slabs leads samples outputs terms plane pitch phase lo size x_row from to count "
    "x_n x_g slab rows cols y_n y_g y_c y_row".split()
)


def weight_grad_code(kind: Kind) -> Code:
    """Arguments: dy, x, sums, scratch, integers, where planes of x are, where those of dy are."""
    code = Writer(kind, 4, WEIGHT_GRAD)
    of, taps = code.of, list(product(range(kind.kernel[0]), range(kind.kernel[1])))
    with code.loop(code.sub(of["last"], of["first"])) as job:
        slab, lead, n, group = code.digits(code.add(of["first"], job.index), "slabs", "leads", "samples")
        first = code.mul(slab, of["slab"])
        rows = code.smaller(of["slab"], code.sub(of["rows"], first))
        x = code.at("%1", code.x, code.add(code.mul(n, of["x_n"]), code.mul(group, of["x_g"])))
        reach = (kind.kernel[0] - 1) * kind.dilation[0] + 1
        code.copy_planes(x, "%3", "%5", lead, first, code.add(code.mul(code.sub(rows, 1), kind.stride[0]), reach))
        y = code.load("i64", code.at("%6", "i64", lead), 8)
        y = code.add(y, code.mul(n, of["y_n"]), code.mul(group, of["y_g"]), code.mul(first, of["y_row"]))
        with code.loop(of["outputs"], kind.block[0]) as o, code.loop(of["terms"]) as term:
            dy = code.at("%0", code.y, code.add(y, code.mul(o.index, of["y_c"])))
            plane = code.at("%3", code.number, code.mul(term.index, of["plane"]))
            channel = code.add(code.mul(group, of["outputs"]), o.index)
            most = (kind.registers - 6) // kind.block[0]
            for k in range(0, len(taps), most):
                sums = [
                    code.add(code.mul(code.add(code.mul(code.add(channel, i), of["terms"]), term.index), len(taps)), k)
                    for i in range(kind.block[0])
                ]
                _add_products(code, taps[k : k + most], (dy, plane), sums, rows)
    return code


def _add_products(
    code: Writer, taps: list[tuple[int, int]], planes: tuple[str, str], starts: list[str], rows: str
) -> None:
    """Add what some taps of a plane, and the planes of some output channels, make to the sums that begin there."""
    kind, of = code.kind, code.of
    lanes, size = kind.lanes, SIZES[code.number]
    rest = code.let(f"urem i64 {of['cols']}, {lanes}")
    full = code.sub(of["cols"], rest)
    mask = code.first_lanes(rest)

    def added(sums: list[str], dy: str, line: str, masked: bool) -> list[str]:
        """The last vector of a row has lanes that lie beyond it: a number there need not be finite."""
        factors = [code.read_y(code.at(dy, code.y, code.mul(of["y_c"], i)), mask if masked else "") for i in range(len(starts))]
        made = list(sums)
        for k, (t, u) in enumerate(taps):
            at = code.at(line, code.number, code.mul(of["pitch"], t * kind.dilation[0]))
            x = code.load(code.vector, code.input_at(at, u), size)
            if masked:
                x = code.let(f"select <{lanes} x i1> {mask}, {code.vector} {x}, {code.vector} zeroinitializer")
            for i, factor in enumerate(factors):
                made[i * len(taps) + k] = code.added(made[i * len(taps) + k], x, factor)
        return made

    with code.loop(rows, 1, code.vector, ["zeroinitializer"] * (len(taps) * len(starts))) as row:
        dy = code.at(planes[0], code.y, code.mul(row.index, of["y_row"]))
        line = code.at(planes[1], code.number, code.mul(row.index, code.mul(of["pitch"], kind.stride[0])))
        with code.loop(full, lanes, code.vector, row.carried) as col:
            at = code.at(dy, code.y, col.index), code.at(line, code.number, col.index)
            col.next = added(col.carried, *at, masked=False)
        with code.loop(rest, lanes, code.vector, col.carried) as tail:  # once, or not at all
            at = code.at(dy, code.y, full), code.at(line, code.number, full)
            tail.next = added(tail.carried, *at, masked=True)
        row.next = tail.carried
    for k, total in enumerate(row.carried):
        i, tap = divmod(k, len(taps))
        code.add_to(code.at("%2", code.number, code.add(starts[i], tap)), total)
