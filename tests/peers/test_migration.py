"""Every row of docs/migration.md: the other library's expression and ours give the same arrays."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import torch
from support import assert_within, draw

import xpconv

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
ROW = re.compile(r"\| `([^`]+)` \| `([^`]+)` \|")

# torch warns of its lazy layers, of a kernel of even size with "same", and of what its own torch.func still calls.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning:torch"),
]


class Row(NamedTuple):
    section: str
    line: int
    theirs: str
    ours: str


class Page(NamedTuple):
    rows: list[Row]
    code: dict[str, str]  # by section; "" is what all begin with


def parse(text: str) -> Page:
    """The rows of all tables, and the blocks of code; whatever in a table is no row is an error."""
    rows: list[Row] = []
    code: dict[str, str] = {"": ""}
    section, fenced = "", None
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if line.startswith("```"):
            fenced = None if fenced else line[3:].strip()
            if fenced not in (None, "python"):
                raise ValueError(f"line {number}: a block must be of python: got {line!r}")
        elif fenced:
            code[section] += line + "\n"
        elif line.startswith("## "):
            section = line[3:].strip()
            if section in code:
                raise ValueError(f"line {number}: there is a section {section!r} already")
            code[section] = ""
        elif line.lstrip().startswith("|"):
            begins = lines[number : number + 1] == ["|---|---|"]
            if not begins and line != "|---|---|":
                rows.append(parsed(line, number, section))
    for name in code:
        if name and not any(row.section == name for row in rows):
            raise ValueError(f"section {name!r} has no rows")
    if not rows:
        raise ValueError("there are no sections")
    return Page(rows, code)


def parsed(line: str, number: int, section: str) -> Row:
    match = ROW.fullmatch(line)
    if not match or not section:
        raise ValueError(f"line {number}: a row must have two expressions, and be in a section: got {line!r}")
    theirs, ours = (expression.replace(r"\|", "|") for expression in match.groups())
    for expression in (theirs, ours):
        try:
            compile(expression, f"line {number}", "eval")
        except SyntaxError as error:
            raise ValueError(f"line {number}: {expression!r} is no expression: {error}") from None
    return Row(section, number, theirs, ours)


def to_torch(values: np.ndarray) -> torch.Tensor:
    tensor = torch.asarray(values.copy())
    return tensor.requires_grad_(tensor.is_floating_point() or tensor.is_complex())


CONVERTERS: dict[str, Callable[[np.ndarray], Any]] = {
    "torch": to_torch,
    "JAX": jax.numpy.asarray,
    "SciPy": np.copy,
    "Keras": jax.numpy.asarray,
    "scipy.ndimage and scikit-image": np.copy,
    "ONNX": np.copy,
    "Chainer": np.copy,
}


def conv_transpose_by_spec(x, w, b=None, *, strides, group=1, output_shape=None):
    """ConvTranspose as the specification has it, without auto_pad and pads."""
    kernel = w.shape[2:]
    longest = [s * (n - 1) + k for s, n, k in zip(strides, x.shape[2:], kernel, strict=True)]
    inputs, outputs = x.shape[1] // group, w.shape[1]
    y = np.zeros((x.shape[0], group * outputs, *longest))
    for n, c in np.ndindex(x.shape[:2]):
        first = c // inputs * outputs
        for j in np.ndindex(x.shape[2:]):
            window = tuple(slice(s * i, s * i + k) for s, i, k in zip(strides, j, kernel, strict=True))
            y[(n, slice(first, first + outputs), *window)] += x[(n, c, *j)] * w[c]
    total = [size - wanted for size, wanted in zip(longest, output_shape or longest, strict=True)]
    # "Else: pads[start_i] = total_padding[i] - (total_padding[i]/2); pads[end_i] = (total_padding[i]/2)"
    crop = tuple(slice(p - p // 2, size - p // 2) for p, size in zip(total, longest, strict=True))
    y = y[(..., *crop)]
    return y if b is None else y + b[:, None, None]


def checked(node: Callable[..., Any]) -> Callable[..., Any]:
    """ONNX's reference, where it does what its specification says.

    That of onnx 1.23 fails where ConvTranspose has groups of more than one output channel (it has room for one),
    and where it has an output shape without auto_pad (it has no padding, and looks for as many columns as fit then).
    """

    def node_or_loop(operator, *inputs, **attributes):
        if operator == "ConvTranspose" and ("group" in attributes or {*attributes} == {"strides", "output_shape"}):
            return conv_transpose_by_spec(*inputs, **attributes)
        return node(operator, *inputs, **attributes)

    return node_or_loop


@lru_cache(maxsize=1)
def page() -> Page:
    return parse(PAGE.read_text(encoding="utf-8"))


@lru_cache
def names_of(section: str) -> dict[str, Any]:
    """What the page defines for a section."""
    names: dict[str, Any] = {}
    exec(page().code[""] + page().code[section], names)  # as a reader would, from the top
    if "node" in names:
        names["node"] = checked(names["node"])
    return names


def with_arrays(names: dict[str, Any], change: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    """The names with other arrays."""
    return {key: change(value) if isinstance(value, np.ndarray) else value for key, value in names.items()}


def leaves(result: Any) -> list[Any]:
    """The arrays of a result, None for what was not asked for."""
    if isinstance(result, tuple | list):
        return [leaf for entry in result for leaf in leaves(entry)]
    if isinstance(result, torch.Tensor):
        return [result.detach().resolve_conj().numpy()]
    if isinstance(result, jax.Array):
        return [np.asarray(result)]
    assert result is None or isinstance(result, np.ndarray), f"no array: {type(result)}"
    return [result]


def check(row: Row, names: dict[str, Any]) -> None:
    """Equal within what sums of so many terms of such a size may differ by.

    Each expression is linear in each of its arrays. So its size is what it is of absolute values, and the number of its
    terms what it is of ones. Fourier transforms are off by as much everywhere, so the largest counts.
    """
    theirs = eval(row.theirs, with_arrays(names, CONVERTERS[row.section]))
    ours = eval(row.ours, dict(names))
    if isinstance(ours, xpconv.Conv):
        check_layers(theirs, ours)
        return
    of_numbers = [
        eval(row.ours, with_arrays(names, lambda a, change=change: a if a.dtype.kind in "iu" else change(a)))
        for change in (np.abs, np.ones_like)
    ]
    rows = [leaves(result) for result in (theirs, ours, *of_numbers)]
    for expected, actual, size, terms in zip(*rows, strict=True):
        assert (expected is None) == (actual is None)
        if expected is not None:
            compare(actual, expected, size, terms)


def compare(actual: np.ndarray, expected: np.ndarray, size: np.ndarray, terms: np.ndarray) -> None:
    assert actual.dtype == expected.dtype
    assert expected.size > 0
    assert np.any(expected != 0)
    magnitude = np.full(actual.shape, max(np.max(np.abs(size)), np.max(np.abs(expected))))
    assert_within(actual, expected, magnitude, int(np.max(np.abs(terms))))


def check_layers(theirs: torch.nn.Module, ours: xpconv.Conv) -> None:
    """The same parameters give the same output and the same gradients."""
    rng = np.random.default_rng(1)
    x = draw(rng, (2, 4, *(9, 8, 7)[: ours.ndim]), "float64")
    theirs = theirs.double()
    theirs(torch.asarray(x))  # a lazy one learns its channels
    ours.forward(x)
    ours.state = theirs.state_dict()
    inputs = torch.asarray(x).requires_grad_()
    y = theirs(inputs)
    dy = draw(rng, tuple(y.shape), "float64")
    y.backward(torch.asarray(dy))
    z, dx = ours.forward(x), ours.backward(dy)
    pairs = [(z, y), (dx, inputs.grad), (ours.dweight, theirs.weight.grad)]
    if theirs.bias is not None:
        pairs.append((ours.dbias, theirs.bias.grad))
    taps = int(np.prod(ours.weight.shape[2:]))
    terms = max(int(np.prod(z.shape)), int(np.prod(x.shape))) * taps
    for actual, expected in pairs:
        (values,) = leaves(expected)
        assert actual.dtype == values.dtype == np.float64
        assert_within(actual, values, np.full(actual.shape, np.max(np.abs(values))), terms)


@pytest.mark.parametrize("row", page().rows, ids=lambda row: f"{row.section}-line{row.line}")
def test_row(row):
    check(row, names_of(row.section))


def test_every_section_is_known():
    assert {row.section for row in page().rows} == set(CONVERTERS)


WRONG = [
    "conv(x, w, padding=[(0, -1)] * 2)",  # another shape
    "conv(x, w, flip=True)",  # other values
    "conv(x.astype('float32'), w.astype('float32'))",  # another dtype
    "(conv(x, w), conv(x, w))",  # one array more
    "conv(x, w) * (1 + 1e-12)",  # nearly
    "None",
]


@pytest.mark.parametrize("ours", WRONG)
def test_a_wrong_row_fails(ours):
    with pytest.raises((AssertionError, ValueError)):
        check(Row("torch", 0, "F.conv2d(x, w)", ours), names_of("torch"))


@pytest.mark.parametrize("ours", ["xpconv.Conv2d(4, 6, 3, stride=2)", "xpconv.Conv2d(4, 6, 3, padding=1)"])
def test_a_wrong_layer_fails(ours):
    with pytest.raises((AssertionError, ValueError)):
        check(Row("torch", 0, "nn.Conv2d(4, 6, 3, padding=1, padding_mode='reflect')", ours), names_of("torch"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("## A\n| a | b |\n|---|---|\n| `x` | x |\n", "line 4: a row must have two expressions"),
        ("## A\n| a | b |\n|---|---|\n| `x` | `y` | `z` |\n", "line 4: a row must have two expressions"),
        ("## A\n| a | b |\n|---|---|\n| `x +` | `y` |\n", "line 4: 'x \\+' is no expression"),
        ("## A\n| a | b |\n|---|---|\n| `x` | `y` |\n  | `x` |\n", "line 5: a row must have two expressions"),
        ("| a | b |\n|---|---|\n| `x` | `y` |\n", "line 3: a row must have two expressions, and be in a section"),
        ("## A\n| a | b |\n|---|---|\n| `x` | `y` |\n## B\n", "section 'B' has no rows"),
        ("## A\n```python\n| `x` | `y` |\n```\n", "section 'A' has no rows"),
        ("## A\n```sh\n", "line 2: a block must be of python"),
        ("", "there are no sections"),
    ],
)
def test_what_cannot_be_parsed_is_an_error(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse(text)


def test_a_pipe_may_stand_in_an_expression():
    (row,) = parse("## A\n| a | b |\n|---|---|\n| `x \\| y` | `y` |\n").rows
    assert row == Row("A", 4, "x | y", "y")
