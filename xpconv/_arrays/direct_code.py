"""The direct algorithm as code for a processor, which `direct_cpu.py` compiles for each kind of convolution.

    y[n, g, o, j] = bias[g, o] + sum over c, t of  x[n, g, c, stride*j + dilation*t - lo] * w[g, o, c, t]
    dw[g, o, c, t] =             sum over n, j of  x[n, g, c, stride*j + dilation*t - lo] * dy[n, g, o, j]

(n sample, g group, o output channel in its group, c input channel in its group, j output position, t kernel tap.)

A plane is what the last two axes span. A job copies the planes of x that it reads, with their padding, to memory that
stays in the cache. Places along the last axis are sorted there by their rest when divided by the stride: the outputs of
a row then meet each tap in a run of memory. Vectors of outputs, of several rows and channels, are summed in registers,
with the taps of a plane written out one after the other. Which planes there are stands in a table: one for each `term`,
an input channel with a tap along each axis before the last two.

The last vector of a row, and the last rows, begin earlier where they would reach beyond the end. So some outputs are
computed twice, in the same way.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from .assembly import Code

__all__ = ["BYTES", "MISSING", "Kind", "Numbers", "forward_code", "weight_grad_code"]

BYTES = {"float": 4, "double": 8}
MISSING = -(2**62)  # where a plane begins that is nothing but padding

Pair = tuple[int, int]


class Kind(NamedTuple):
    """What code depends on; pairs are of the last two axes."""

    types: tuple[str, str, str]  # of x, of w and the sums, and of y: "float" or "double"
    kernel: Pair
    stride: Pair
    dilation: Pair
    lanes: int  # numbers in a vector
    registers: int  # of the processor, each for a vector
    run: int  # numbers of each rest that are copied together; 0: all numbers one by one
    outputs: int  # channels of a group that are summed together
    rows: int = 1  # of y that are summed together
    vectors: int = 1  # of each of these rows
    bias: bool = False
    y_step: int = 1  # from one output of a row to the next


class Numbers(NamedTuple):
    """What code is told by a call; steps count elements."""

    first: int  # of the jobs to do
    last: int  # the job after them
    samples: int
    groups: int
    outputs: int  # of a group
    terms: int
    positions: int  # along the axes before the last two
    rows: int  # of y
    cols: int
    slab: int  # rows of y that a job makes
    slabs: int
    plane: int  # from one copied plane to the next
    pitch: int  # from one of its rows to the next
    phase: int  # from the places of one rest to those of the next
    lo: int  # padding before the rows of x
    size: int  # rows of x
    start: int  # the first number of a row that is copied
    to: int  # its place in the padded row
    copied: int  # how many numbers are copied
    x_sample: int
    x_group: int
    x_row: int
    y_sample: int
    y_channel: int
    y_row: int


class Writer(Code):
    """Writes code for a kind of convolution; its numbers are in the argument `numbers`."""

    def __init__(self, kind: Kind, pointers: int, numbers: str) -> None:
        super().__init__(pointers)
        self.kind = kind
        self.x, self.number, self.y = kind.types
        self.vector = f"<{kind.lanes} x {self.number}>"
        self.of = {name: self.load("i64", self.at(numbers, "i64", i), 8) for i, name in enumerate(Numbers._fields)}

    def digits(self, number: str, *names: str) -> list[str]:
        """The digits of a number, the last one first, with so many at each place; then what is left."""
        found = []
        for name in names:
            number, digit = self.divided(number, self.of[name])
            found.append(digit)
        return [*found, number]

    def cast(self, value: str, kind: str, to: str, lanes: int) -> str:
        if kind == to:
            return value
        name = "fpext" if to == "double" else "fptrunc"
        return self.let(f"{name} <{lanes} x {kind}> {value} to <{lanes} x {to}>")

    def spread(self, kind: str, value: str) -> str:
        """A value in all lanes."""
        lanes = self.kind.lanes
        one = self.let(f"insertelement <{lanes} x {kind}> poison, {kind} {value}, i64 0")
        zeros = f"<{lanes} x i32> zeroinitializer"
        return self.let(f"shufflevector <{lanes} x {kind}> {one}, <{lanes} x {kind}> poison, {zeros}")

    def read(self, pointer: str) -> str:
        return self.load(self.number, pointer, BYTES[self.number])

    def read_vector(self, pointer: str) -> str:
        return self.load(self.vector, pointer, BYTES[self.number])

    def read_y(self, pointer: str, mask: str | None) -> str:
        """A vector of dy; under a mask nothing else is read."""
        lanes, align = self.kind.lanes, BYTES[self.y]
        kind = f"<{lanes} x {self.y}>"
        if mask is None:
            return self.cast(self.load(kind, pointer, align), self.y, self.number, lanes)
        arguments = ("ptr", pointer), ("i32", align), (f"<{lanes} x i1>", mask), (kind, "zeroinitializer")
        found = self.let(self.call(kind, f"masked.load.v{lanes}f{8 * align}.p0", *arguments))
        return self.cast(found, self.y, self.number, lanes)

    def write_y(self, pointer: str, value: str) -> None:
        """Write a vector of y, and nothing between its numbers."""
        lanes, step, align = self.kind.lanes, self.kind.y_step, BYTES[self.y]
        value, kind = self.cast(value, self.number, self.y, lanes), f"<{lanes} x {self.y}>"
        if step == 1 or lanes == 1:
            self.store(kind, value, pointer, align)
            return
        wide = lanes * step
        order = ", ".join(f"i32 {lane // step}" for lane in range(wide))
        mask = ", ".join(f"i1 {int(lane % step == 0)}" for lane in range(wide))
        apart = self.let(f"shufflevector {kind} {value}, {kind} poison, <{wide} x i32> <{order}>")
        arguments = (f"<{wide} x {self.y}>", apart), ("ptr", pointer), ("i32", align), (f"<{wide} x i1>", f"<{mask}>")
        self.do(self.call("void", f"masked.store.v{wide}f{8 * align}.p0", *arguments))

    def with_product(self, total: str, a: str, b: str) -> str:
        """The total and a * b: rounded once, where the processor can."""
        name, kind = f"fmuladd.v{self.kind.lanes}f{8 * BYTES[self.number]}", self.vector
        return self.let(self.call(kind, name, (kind, a), (kind, b), (kind, total)))

    def add_lanes(self, pointer: str, value: str) -> None:
        """Add all lanes to the number at a place."""
        name = f"vector.reduce.fadd.v{self.kind.lanes}f{8 * BYTES[self.number]}"
        arguments = (self.number, "0.0"), (self.vector, value)
        total = self.let(self.call(self.number, name, *arguments, flags="reassoc"))
        total = self.let(f"fadd {self.number} {self.read(pointer)}, {total}")
        self.store(self.number, total, pointer, BYTES[self.number])

    def first_lanes(self, count: str) -> str:
        """A mask of so many lanes."""
        lanes = self.kind.lanes
        many = self.spread("i32", self.let(f"trunc i64 {count} to i32"))
        numbers = ", ".join(f"i32 {lane}" for lane in range(lanes))
        return self.let(f"icmp ult <{lanes} x i32> <{numbers}>, {many}")

    def input_at(self, row: str, tap: int) -> str:
        """Where a copied row has the input that its first output meets by a tap along the last axis."""
        step, rest = divmod(self.kind.dilation[1] * tap, self.kind.stride[1])
        return self.at(row, self.number, self.add(self.mul(self.of["phase"], rest), step))

    def weights_of(self, channel: str, term: str) -> str:
        """The number of the first weight of an output channel and a term."""
        return self.mul(self.add(self.mul(channel, self.of["terms"]), term), self.kind.kernel[0] * self.kind.kernel[1])

    def copy_planes(self, x: str, scratch: str, starts: str, rows: tuple[str, str]) -> None:
        """The planes of all terms, as far as these rows of y read them: a first one, and how many."""
        kind, of = self.kind, self.of
        first = self.sub(self.mul(rows[0], kind.stride[0]), of["lo"])
        reach = (kind.kernel[0] - 1) * kind.dilation[0] + 1
        count = self.add(self.mul(self.sub(rows[1], 1), kind.stride[0]), reach)
        with self.loop(of["terms"]) as term:
            start = self.load("i64", self.at(starts, "i64", term.index), 8)
            present = self.let(f"icmp ne i64 {start}, {MISSING}")
            plane = self.at(scratch, self.number, self.mul(term.index, of["plane"]))
            with self.loop(count) as i:
                row, copied = self.add(first, i.index), self.at(plane, self.number, self.mul(i.index, of["pitch"]))
                with self.loop(of["pitch"], kind.lanes) as at:
                    where = self.at(copied, self.number, at.index)
                    self.store(self.vector, "zeroinitializer", where, BYTES[self.number])
                inside = self.let(f"icmp ult i64 {row}, {of['size']}")  # as a negative number is a large one
                with self.when(self.let(f"and i1 {inside}, {present}")):
                    here = self.add(start, self.mul(row, of["x_row"]), of["start"])
                    self.copy_row(self.at(x, self.x, here), copied)

    def copy_row(self, row: str, copied: str) -> None:
        """The numbers of a row, to places sorted by their rest; the last ones twice, if need be."""
        run, step, count = max(self.kind.run, 1), self.kind.stride[1], self.of["copied"]
        parts = step if self.kind.run else 1
        wide = run * parts
        with self.loop(count, wide) as loop:
            at = self.smaller(loop.index, self.sub(count, wide))
            read = self.load(f"<{wide} x {self.x}>", self.at(row, self.x, at), BYTES[self.x])
            for part in range(parts):
                lanes = ", ".join(f"i32 {parts * lane + part}" for lane in range(run))
                operands = f"<{wide} x {self.x}> {read}, <{wide} x {self.x}> poison, <{run} x i32> <{lanes}>"
                some = self.cast(self.let(f"shufflevector {operands}"), self.x, self.number, run)
                place, rest = self.divided(self.add(self.of["to"], at, part), step)
                where = self.at(copied, self.number, self.add(self.mul(rest, self.of["phase"]), place))
                self.store(f"<{run} x {self.number}>", some, where, BYTES[self.number])


def forward_code(kind: Kind) -> Code:
    """Arguments: x, w, bias, y, memory for planes, numbers, where planes of x begin, where those of y do.

    A job has the digits (sample, group, position, slab of rows).
    """
    code = Writer(kind, 8, "%5")
    of = code.of
    with code.loop(code.sub(of["last"], of["first"])) as job:
        slab, position, group, n = code.digits(code.add(of["first"], job.index), "slabs", "positions", "groups")
        first = code.smaller(code.mul(slab, of["slab"]), code.sub(of["rows"], of["slab"]))
        x = code.at("%0", code.x, code.add(code.mul(n, of["x_sample"]), code.mul(group, of["x_group"])))
        code.copy_planes(x, "%4", code.at("%6", "i64", code.mul(position, of["terms"])), (first, of["slab"]))
        plane = code.load("i64", code.at("%7", "i64", position), 8)
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
                        code.write_y(code.at("%3", code.y, here), total)
    return code


def _block(kind: Kind) -> list[tuple[int, int, int]]:
    """What is summed together: output channels, rows and vectors."""
    return list(product(range(kind.outputs), range(kind.rows), range(kind.vectors)))


def _sums(code: Writer, channel: str, row: str, col: str) -> list[str]:
    """The vectors of a block that begins there, summed over all terms and taps."""
    kind, of = code.kind, code.of
    first = ["zeroinitializer"] * kind.outputs
    if kind.bias:
        at = [code.at("%2", code.number, code.add(channel, o)) for o in range(kind.outputs)]
        first = [code.spread(code.number, code.read(one)) for one in at]
    start = code.add(code.mul(code.mul(row, kind.stride[0]), of["pitch"]), col)
    with code.loop(of["terms"], 1, code.vector, [first[o] for o, _, _ in _block(kind)]) as term:
        plane = code.at("%4", code.number, code.add(start, code.mul(term.index, of["plane"])))
        weights = [
            code.at("%1", code.number, code.weights_of(code.add(channel, o), term.index)) for o in range(kind.outputs)
        ]
        term.next = _products(code, dict(zip(_block(kind), term.carried, strict=True)), plane, weights)
    return term.carried


def _products(code: Writer, sums: dict[tuple[int, int, int], str], plane: str, weights: list[str]) -> list[str]:
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
        row = code.at(plane, code.number, code.mul(code.of["pitch"], i))
        for u in range(kind.kernel[1]):
            at = code.input_at(row, u)
            x = [code.read_vector(code.at(at, code.number, v * kind.lanes)) for v in range(kind.vectors)]
            for (r, t), o in product(pairs, range(kind.outputs)):
                factor = weight(o, t, u)
                for v in range(kind.vectors):
                    sums[o, r, v] = code.with_product(sums[o, r, v], x[v], factor)
    return list(sums.values())


def weight_grad_code(kind: Kind) -> Code:
    """Arguments: dy, x, sums, memory for planes, numbers, where planes of x begin, where those of dy do.

    A job has the digits (group, sample, position, slab of rows), and adds its products to the sums (g, o, c, *kernel).
    """
    code = Writer(kind, 7, "%4")
    of, taps = code.of, list(product(range(kind.kernel[0]), range(kind.kernel[1])))
    with code.loop(code.sub(of["last"], of["first"])) as job:
        slab, position, n, group = code.digits(code.add(of["first"], job.index), "slabs", "positions", "samples")
        first = code.mul(slab, of["slab"])
        rows = code.smaller(of["slab"], code.sub(of["rows"], first))
        x = code.at("%1", code.x, code.add(code.mul(n, of["x_sample"]), code.mul(group, of["x_group"])))
        code.copy_planes(x, "%3", code.at("%5", "i64", code.mul(position, of["terms"])), (first, rows))
        plane = code.load("i64", code.at("%6", "i64", position), 8)
        y = code.add(plane, code.mul(n, of["y_sample"]), code.mul(first, of["y_row"]))
        with code.loop(of["outputs"], kind.outputs) as output, code.loop(of["terms"]) as term:
            channel = code.add(code.mul(group, of["outputs"]), output.index)
            dy = code.at("%0", code.y, code.add(y, code.mul(channel, of["y_channel"])))
            copied = code.at("%3", code.number, code.mul(term.index, of["plane"]))
            weights = [code.weights_of(code.add(channel, o), term.index) for o in range(kind.outputs)]
            some = (kind.registers - 6) // kind.outputs  # as many taps as there are registers for sums
            for i in range(0, len(taps), some):
                sums = [code.at("%2", code.number, code.add(one, i)) for one in weights]
                _add_products(code, taps[i : i + some], (dy, copied), sums, rows)
    return code


def _add_products(code: Writer, taps: list[Pair], planes: tuple[str, str], sums: list[str], rows: str) -> None:
    """Add the products of planes of dy, one for each output channel, and a plane of x, at some taps, to their sums."""
    kind, of = code.kind, code.of
    rest = code.let(f"urem i64 {of['cols']}, {kind.lanes}")
    whole, mask = code.sub(of["cols"], rest), code.first_lanes(rest)

    def added(totals: list[str], dy: str, row: str, mask: str | None) -> list[str]:
        """With a mask where lanes lie beyond the end of a row: what is there need not be finite."""
        at = [code.at(dy, code.y, code.mul(of["y_channel"], o)) for o in range(len(sums))]
        factors, made = [code.read_y(one, mask) for one in at], list(totals)
        for k, (t, u) in enumerate(taps):
            here = code.at(row, code.number, code.mul(of["pitch"], t * kind.dilation[0]))
            x = code.read_vector(code.input_at(here, u))
            if mask is not None:
                x = code.let(f"select <{kind.lanes} x i1> {mask}, {code.vector} {x}, {code.vector} zeroinitializer")
            for o, factor in enumerate(factors):
                made[o * len(taps) + k] = code.with_product(made[o * len(taps) + k], x, factor)
        return made

    with code.loop(rows, 1, code.vector, ["zeroinitializer"] * (len(taps) * len(sums))) as row:
        dy = code.at(planes[0], code.y, code.mul(row.index, of["y_row"]))
        x = code.at(planes[1], code.number, code.mul(row.index, code.mul(of["pitch"], kind.stride[0])))
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
