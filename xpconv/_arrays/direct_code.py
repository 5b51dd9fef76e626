"""The direct algorithm as code for a processor: what its two kinds of code share.

    y[n, g, o, j] = bias[g, o] + sum over c, t of  x[n, g, c, stride*j + dilation*t - lo] * w[g, o, c, t]
    dw[g, o, c, t] =             sum over n, j of  x[n, g, c, stride*j + dilation*t - lo] * dy[n, g, o, j]

(n sample, g group, o output channel in its group, c input channel in its group, j output position, t kernel tap.)

A plane is what the last two axes span. A job copies the planes of x that it reads, with their padding, to memory that
stays in the cache. Places along both axes are sorted there by their rest when divided by the stride: the outputs of a
row then meet each tap in a run of memory, and the next row of outputs meets it one row further. Which planes there are
stands in a table: one for each `term`, an input channel with a tap along each axis before the last two.

`rows_code.py` is for few channels in a group, `tiles_code.py` for many.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from .assembly import Code

__all__ = ["BYTES", "MISSING", "Numbers", "Writer"]

BYTES = {"float": 4, "double": 8}
MISSING = -(2**62)  # where a plane begins that is nothing but padding


class Kind(Protocol):
    """What code depends on."""

    @property
    def types(self) -> tuple[str, str, str]:
        """Of x, of w and the sums, and of y: "float" or "double"."""

    @property
    def lanes(self) -> int:
        """How many numbers a vector has."""

    @property
    def run(self) -> int:
        """How many numbers of each rest are copied together; 0: all numbers one by one."""

    @property
    def step(self) -> int:
        """The stride along the last axis."""

    @property
    def rests(self) -> int:
        """How many rests along it some tap meets."""

    @property
    def y_step(self) -> int:
        """From one output of a row to the next."""


class Numbers(NamedTuple):
    """What code is told by a call; steps count elements."""

    jobs: int
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
    pitch: int  # from one of its rows to the next row of the same rest
    row_rest: int  # from the rows of one rest to those of the next
    col_rest: int  # from the places of one rest to those of the next
    row_step: int  # the stride along the axis of rows
    row_reach: int  # how many rows a window spans
    row_rests: int  # how many rests along it some tap meets
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
    beside: int  # where in the memory is what it holds beside planes
    cut: int = 0  # output channels of a job
    run: int = 0  # numbers of a tile's row, in all
    w_channel: int = 0  # from the weights of an output channel to those of the next
    products: int = 0  # terms with a tap of the last two axes


class Writer(Code):
    """Writes code for a kind of convolution; its numbers, if told, are in the argument `numbers`."""

    def __init__(self, kind: Kind, pointers: int, integers: int = 0, numbers: str | None = None) -> None:
        super().__init__(pointers, integers)
        self.lanes, self.run, self.step, self.rests = kind.lanes, kind.run, kind.step, kind.rests
        self.y_step = kind.y_step
        self.x, self.number, self.y = kind.types
        self.vector = f"<{kind.lanes} x {self.number}>"
        told = () if numbers is None else enumerate(Numbers._fields)
        self.of = {name: self.load("i64", self.at(f"{numbers}", "i64", i), 8) for i, name in told}

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
        one = self.let(f"insertelement <{self.lanes} x {kind}> poison, {kind} {value}, i64 0")
        zeros = f"<{self.lanes} x i32> zeroinitializer"
        return self.let(f"shufflevector <{self.lanes} x {kind}> {one}, <{self.lanes} x {kind}> poison, {zeros}")

    def read(self, pointer: str) -> str:
        return self.load(self.number, pointer, BYTES[self.number])

    def read_vector(self, pointer: str) -> str:
        return self.load(self.vector, pointer, BYTES[self.number])

    def write_vector(self, pointer: str, value: str) -> None:
        self.store(self.vector, value, pointer, BYTES[self.number])

    def write_y(self, pointer: str, value: str, lanes: int) -> None:
        """Write a vector of y, and nothing between its numbers."""
        step, align = self.y_step, BYTES[self.y]
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
        name, kind = f"fmuladd.v{self.lanes}f{8 * BYTES[self.number]}", self.vector
        return self.let(self.call(kind, name, (kind, a), (kind, b), (kind, total)))

    def first_lanes(self, count: str) -> str:
        """A mask of so many lanes."""
        many = self.spread("i32", self.let(f"trunc i64 {count} to i32"))
        numbers = ", ".join(f"i32 {lane}" for lane in range(self.lanes))
        return self.let(f"icmp ult <{self.lanes} x i32> <{numbers}>, {many}")

    def apart(self, pointer: str, step: str, mask: str, kind: str) -> str:
        """A vector of numbers that lie a step apart; zeros, and nothing read, where the mask is not set."""
        lanes, align = self.lanes, BYTES[kind]
        numbers = ", ".join(f"i64 {lane}" for lane in range(lanes))
        many = self.let(f"mul <{lanes} x i64> <{numbers}>, {self.spread('i64', step)}")
        at = self.let(f"getelementptr {kind}, ptr {pointer}, <{lanes} x i64> {many}")
        vector = f"<{lanes} x {kind}>"
        arguments = (f"<{lanes} x ptr>", at), ("i32", align), (f"<{lanes} x i1>", mask), (vector, "zeroinitializer")
        return self.let(self.call(vector, f"masked.gather.v{lanes}f{8 * align}.v{lanes}p0", *arguments))

    def transposed(self, vectors: list[str]) -> list[str]:
        """As many vectors as a vector has lanes: the first lanes of all, the second ones, and so on."""
        lanes, made, half = self.lanes, list(vectors), self.lanes // 2
        while half:
            for i in (i for i in range(lanes) if not i & half):
                first, second = made[i], made[i + half]
                low = [lane if not lane & half else lanes + lane - half for lane in range(lanes)]
                for to, order in ((i, low), (i + half, [lane + half for lane in low])):
                    numbers = ", ".join(f"i32 {lane}" for lane in order)
                    operands = f"{self.vector} {first}, {self.vector} {second}, <{lanes} x i32> <{numbers}>"
                    made[to] = self.let(f"shufflevector {operands}")
            half //= 2
        return made

    def read_some(self, pointer: str, mask: str) -> str:
        arguments = (
            ("ptr", pointer),
            ("i32", BYTES[self.number]),
            (f"<{self.lanes} x i1>", mask),
            (self.vector, "zeroinitializer"),
        )
        name = f"masked.load.v{self.lanes}f{8 * BYTES[self.number]}.p0"
        return self.let(self.call(self.vector, name, *arguments))

    def write_some(self, pointer: str, value: str, mask: str) -> None:
        align = BYTES[self.number]
        arguments = (self.vector, value), ("ptr", pointer), ("i32", align), (f"<{self.lanes} x i1>", mask)
        self.do(self.call("void", f"masked.store.v{self.lanes}f{8 * align}.p0", *arguments))

    def copy_planes(self, x: str, planes: str, starts: str, rows: tuple[str, str]) -> None:
        """The planes of all terms, as far as these rows of y read them: a first one, and how many."""
        of = self.of
        first = self.sub(self.mul(rows[0], of["row_step"]), of["lo"])
        count = self.add(rows[1], self.divided(self.sub(of["row_reach"], 1), of["row_step"])[0])
        with self.loop(of["beside"], self.lanes) as at:
            self.write_vector(self.at(planes, self.number, at.index), "zeroinitializer")
        with self.loop(of["terms"]) as term:
            start = self.load("i64", self.at(starts, "i64", term.index), 8)
            plane = self.at(planes, self.number, self.mul(term.index, of["plane"]))
            with self.when(self.let(f"icmp ne i64 {start}, {MISSING}")), self.loop(of["row_rests"]) as rest:
                begin = self.mul(rest.index, of["row_rest"])
                with self.loop(count) as place:
                    row = self.add(first, rest.index, self.mul(place.index, of["row_step"]))
                    with self.when(self.let(f"icmp ult i64 {row}, {of['size']}")):  # a negative one is a large one
                        here = self.add(start, self.mul(row, of["x_row"]), of["start"])
                        there = self.add(begin, self.mul(place.index, of["pitch"]))
                        self.copy_row(self.at(x, self.x, here), self.at(plane, self.number, there))

    def copy_row(self, row: str, copied: str) -> None:
        """The numbers of a row, to places sorted by their rest; the last ones twice, if need be."""
        run, step, count = max(self.run, 1), self.step, self.of["copied"]
        parts = step if self.run else 1
        wide = run * parts
        with self.loop(count, wide) as loop:
            at = self.smaller(loop.index, self.sub(count, wide))
            read = self.load(f"<{wide} x {self.x}>", self.at(row, self.x, at), BYTES[self.x])
            for part in range(parts):
                lanes = ", ".join(f"i32 {parts * lane + part}" for lane in range(run))
                operands = f"<{wide} x {self.x}> {read}, <{wide} x {self.x}> poison, <{run} x i32> <{lanes}>"
                some = self.cast(self.let(f"shufflevector {operands}"), self.x, self.number, run)
                place, rest = self.divided(self.add(self.of["to"], at, part), step)
                where = self.at(copied, self.number, self.add(self.mul(rest, self.of["col_rest"]), place))
                with self.when(self.let(f"icmp ult i64 {rest}, {self.rests}")):
                    self.store(f"<{run} x {self.number}>", some, where, BYTES[self.number])
