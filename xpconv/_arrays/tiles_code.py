"""The direct algorithm's code for many channels in a group: tiles of a matrix product whose columns are never copied.

    y:   rows are output channels, columns are places, and each product of the sum is a term with a tap
    dw:  rows are terms with taps, columns are output channels, and each product of the sum is a place

A tile is summed in registers. Its columns are vectors; of its rows, one number after the other is spread to all lanes.
Tables tell where a term with a tap begins in the planes, and where its weight is: so the same code is for any kernel.

For y, all rows of a plane are one long row: each tap meets it in one run of memory. What the run holds between the
end of a row and the begin of the next is computed too, and left out when a tile is copied to y.
"""

from __future__ import annotations

from typing import NamedTuple

from .assembly import Code
from .direct_code import BYTES, Writer

__all__ = ["Tiles", "forward_code", "weight_grad_code"]


class Tiles(NamedTuple):
    """What code depends on."""

    types: tuple[str, str, str]
    lanes: int
    run: int
    rests: int
    step: int
    height: int  # rows of a tile
    vectors: int  # of each of these rows
    y_lanes: int = 1  # numbers that are written to a row of y together
    y_step: int = 1
    bias: bool = False
    joined: bool = False  # whether rows of y follow each other without a gap, in memory as in planes


def forward_code(kind: Tiles) -> Code:
    """Arguments: x, w, bias, y, how many are busy, jobs, memory, numbers; where planes of x and y begin, places,
    weights.

    A job has the digits (cut of the output channels, sample, group, position, slab of rows).
    """
    code, tile = Writer(kind, 12, numbers="%7"), _forward_tile(kind)
    of = code.of
    with code.taken("%4", "%5") as job:
        digits = code.digits(job, "slabs", "positions", "groups", "samples")
        slab, position, group, n, cut = digits
        first = code.mul(slab, of["slab"])
        rows = code.smaller(of["slab"], code.sub(of["rows"], first))
        x = code.at("%0", code.x, code.add(code.mul(n, of["x_sample"]), code.mul(group, of["x_group"])))
        code.copy_planes(x, "%6", code.at("%8", "i64", code.mul(position, of["terms"])), (first, rows))
        plane = code.load("i64", code.at("%9", "i64", position), 8)
        y = code.add(plane, code.mul(n, of["y_sample"]), code.mul(first, of["y_row"]))
        begin = code.mul(cut, of["cut"])
        count = code.smaller(of["cut"], code.sub(of["outputs"], begin))
        made, width = code.at("%6", code.number, of["beside"]), kind.vectors * kind.lanes
        flat = code.add(code.mul(code.sub(rows, 1), of["pitch"]), of["cols"])
        with code.loop(count, kind.height) as some:  # the last ones once more, if need be
            output = code.smaller(code.add(begin, some.index), code.sub(of["outputs"], kind.height))
            channel = code.add(code.mul(group, of["outputs"]), output)
            weights = code.at("%1", code.number, code.mul(channel, of["w_channel"]))
            bias = code.at("%2", code.number, channel) if kind.bias else "%2"
            with code.loop(flat, width) as at:
                pointers = code.at("%6", code.number, at.index), weights, bias, code.at(made, code.number, at.index)
                integers = of["products"], of["w_channel"], of["run"]
                code.do_inner("forward_tile", tile, *pointers, "%10", "%11", *integers)
            with code.loop(kind.height) as row:
                here = code.at(made, code.number, code.mul(row.index, of["run"]))
                there = code.add(y, code.mul(code.add(channel, row.index), of["y_channel"]))
                _copy_rows(code, kind, here, there, rows)
    return code


def _forward_tile(kind: Tiles) -> Code:
    """Arguments: planes, w, bias, the tile, places, weights; products, from a row of w and of the tile to the next."""
    code, rows, columns = Writer(kind, 6, 3), range(kind.height), range(kind.vectors)
    ahead = [code.mul("%7", r) for r in rows]
    first = ["zeroinitializer"] * kind.height
    if kind.bias:
        first = [code.spread(code.number, code.read(code.at("%2", code.number, r))) for r in rows]
    with code.loop("%6", 1, code.vector, [one for one in first for _ in columns]) as k:
        place, weight = (code.load("i64", code.at(table, "i64", k.index), 8) for table in ("%4", "%5"))
        here, there = code.at("%0", code.number, place), code.at("%1", code.number, weight)
        k.next = _products(code, kind, k.carried, here, [code.at(there, code.number, one) for one in ahead])
    for r in rows:
        row = code.at("%3", code.number, code.mul("%8", r))
        for v in columns:
            code.write_vector(code.at(row, code.number, v * kind.lanes), k.carried[r * kind.vectors + v])
    return code


def _products(code: Writer, kind: Tiles, sums: list[str], vectors: str, numbers: list[str]) -> list[str]:
    """The sums of a tile with the products of vectors that lie there, one after the other, and of numbers."""
    columns = [code.read_vector(code.at(vectors, code.number, v * kind.lanes)) for v in range(kind.vectors)]
    made = []
    for r, number in enumerate(numbers):
        factor = code.spread(code.number, code.read(number))
        made += [code.with_product(sums[r * kind.vectors + v], columns[v], factor) for v in range(kind.vectors)]
    return made


def _copy_rows(code: Writer, kind: Tiles, made: str, y: str, rows: str) -> None:
    """Rows of y, out of one long row; the last numbers of each twice, if need be."""
    of, lanes = code.of, kind.y_lanes
    cols = code.mul(of["cols"], rows) if kind.joined else of["cols"]
    with code.loop(1 if kind.joined else rows) as row:
        here = code.at(made, code.number, code.mul(row.index, of["pitch"]))
        there = code.add(y, code.mul(row.index, of["y_row"]))
        with code.loop(cols, lanes) as loop:
            col = code.smaller(loop.index, code.sub(cols, lanes))
            some = code.load(f"<{lanes} x {code.number}>", code.at(here, code.number, col), BYTES[code.number])
            code.write_y(code.at("%3", code.y, code.add(there, code.mul(col, kind.y_step))), some, lanes)


def weight_grad_code(kind: Tiles) -> Code:
    """Arguments: dy, x, sums, the first job and the one after the last, memory, numbers; where planes of x and dy
    begin, products, places.

    A job has the digits (sample, position, slab of rows), all of one group. The memory beside planes is for dy of a
    job, (place, output), and for the sums, (product, output).
    """
    code, tile, width = Writer(kind, 10, numbers="%5"), _weight_grad_tile(kind), kind.vectors * kind.lanes
    of = code.of
    across = code.mul(code.divided(code.add(of["outputs"], width - 1), width)[0], width)
    turned = code.at("%4", code.number, of["beside"])
    sums = code.at(turned, code.number, code.mul(code.mul(of["slab"], of["cols"]), across))
    tall = code.mul(code.divided(code.add(of["products"], kind.height - 1), kind.height)[0], kind.height)
    with code.loop(code.mul(tall, across), kind.lanes) as at:
        code.write_vector(code.at(sums, code.number, at.index), "zeroinitializer")
    begin, end = (code.load("i64", code.at("%3", "i64", i), 8) for i in range(2))
    with code.loop(code.sub(end, begin)) as job:
        slab, position, n = code.digits(code.add(begin, job.index), "slabs", "positions")
        first = code.mul(slab, of["slab"])
        rows = code.smaller(of["slab"], code.sub(of["rows"], first))
        x = code.at("%1", code.x, code.mul(n, of["x_sample"]))
        code.copy_planes(x, "%4", code.at("%6", "i64", code.mul(position, of["terms"])), (first, rows))
        plane = code.load("i64", code.at("%7", "i64", position), 8)
        y = code.add(plane, code.mul(n, of["y_sample"]), code.mul(first, of["y_row"]))
        _turn(code, kind, code.at("%0", code.y, y), turned, rows, across)
        with code.loop(across, width) as column, code.loop(tall, kind.height) as product:
            to = code.add(code.mul(product.index, across), column.index)
            pointers = "%4", code.at(turned, code.number, column.index), code.at(sums, code.number, to)
            products = code.at("%8", "i64", product.index)
            code.do_inner("weight_tile", tile, *pointers, products, "%9", code.mul(rows, of["cols"]), across)
    _add_sums(code, sums, across)
    return code


def _add_sums(code: Writer, sums: str, across: str) -> None:
    """Add the sums, (product, output), to those of the call, (output, product)."""
    of, lanes = code.of, code.lanes
    with code.loop(of["products"], lanes) as product:
        mask = code.first_lanes(code.sub(of["products"], product.index))
        with code.loop(of["outputs"], lanes) as output:
            here = code.at(sums, code.number, code.add(code.mul(product.index, across), output.index))
            rows = [code.read_vector(code.at(here, code.number, code.mul(across, lane))) for lane in range(lanes)]
            for lane, some in enumerate(code.transposed(rows)):
                channel = code.add(output.index, lane)
                with code.when(code.let(f"icmp slt i64 {channel}, {of['outputs']}")):
                    to = code.at("%2", code.number, code.add(code.mul(channel, of["w_channel"]), product.index))
                    code.write_some(to, code.let(f"fadd {code.vector} {code.read_some(to, mask)}, {some}"), mask)


def _weight_grad_tile(kind: Tiles) -> Code:
    """Arguments: planes, dy, the tile, products, places; how many, and from one of dy or a row of sums to the next."""
    code = Writer(kind, 5, 2)
    at = [code.load("i64", code.at("%3", "i64", r), 8) for r in range(kind.height)]
    planes = [code.at("%0", code.number, one) for one in at]
    tile = [
        code.at(code.at("%2", code.number, code.mul("%6", r)), code.number, v * kind.lanes)
        for r in range(kind.height)
        for v in range(kind.vectors)
    ]
    with code.loop("%5", 1, code.vector, [code.read_vector(one) for one in tile]) as place:
        here = code.at("%1", code.number, code.mul(place.index, "%6"))
        at_place = code.load("i64", code.at("%4", "i64", place.index), 8)
        place.next = _products(code, kind, place.carried, here, [code.at(one, code.number, at_place) for one in planes])
    for one, total in zip(tile, place.carried, strict=True):
        code.write_vector(one, total)
    return code


def _turn(code: Writer, kind: Tiles, dy: str, turned: str, rows: str, across: str) -> None:
    """dy of some rows as (place, output), with zeros behind the last output."""
    of = code.of
    with code.loop(rows) as row, code.loop(of["cols"]) as col:
        here = code.at(dy, code.y, code.add(code.mul(row.index, of["y_row"]), code.mul(col.index, kind.y_step)))
        place = code.mul(code.add(code.mul(row.index, of["cols"]), col.index), across)
        with code.loop(across, kind.lanes) as output:
            mask = code.first_lanes(code.larger(code.sub(of["outputs"], output.index), 0))
            channel = code.at(here, code.y, code.mul(output.index, of["y_channel"]))
            some = code.cast(code.apart(channel, of["y_channel"], mask, code.y), code.y, code.number, kind.lanes)
            code.write_vector(code.at(turned, code.number, code.add(place, output.index)), some)
