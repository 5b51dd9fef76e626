"""`python -m xpconv`: right results pass, wrong ones and errors do not, and what is absent is said to be."""

from __future__ import annotations

import io
import json
import threading
from importlib import import_module

import numpy as np
import pytest

import xpconv
import xpconv.__main__ as command


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """NumPy and a library that there is not, and the small cases; the whole command runs in `nox -s build`."""
    monkeypatch.setattr(command, "LIBRARIES", {"numpy": (None,), "no_such_library": (None,)})
    monkeypatch.setattr(command, "CASES", command.CASES[:2])
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("WT_SESSION", "of a test")


def test_right(capsys, monkeypatch, library):
    monkeypatch.setitem(command.LIBRARIES, library, (None,))
    assert command.main() == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith(f"{library} ")]
    assert len(rows) == 2
    assert all(row.endswith(" ok") for row in rows)
    assert all(import_module(library).__version__ in row for row in rows)
    assert "no_such_library: absent" in lines


def test_wrong(capsys, monkeypatch):
    right = xpconv.conv

    def wrong(x, *arguments, **parameters):
        y = right(x, *arguments, **parameters)
        y[0, 0, 0, 0] += 1e-3 * abs(y).max()
        return y

    monkeypatch.setattr(command, "conv", wrong)
    assert command.main() == 1
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("numpy")]
    assert [row.split()[-1] for row in rows] == ["wrong", "wrong"]


def test_a_gradient_of_another_dtype(capsys, monkeypatch):
    right = xpconv.conv_backward

    def wrong(*arguments, **parameters):
        return [gradient.astype("complex128") for gradient in right(*arguments, **parameters)]

    monkeypatch.setattr(command, "conv_backward", wrong)
    assert command.main() == 1
    assert capsys.readouterr().out.count(" wrong") == 2


def test_an_error_is_a_failure_and_the_rest_still_runs(capsys, monkeypatch):
    right = xpconv.conv

    def fails_in_float64(x, *arguments, **parameters):
        if x.dtype == np.float64:
            raise MemoryError("no room")
        return right(x, *arguments, **parameters)

    monkeypatch.setattr(command, "conv", fails_in_float64)
    assert command.main() == 1
    output = capsys.readouterr().out
    assert output.count("MemoryError: no room") == 1
    assert output.count(" ok\n") == 1


def test_a_device_that_does_not_work_is_no_failure(capsys, monkeypatch):
    monkeypatch.setattr(command, "LIBRARIES", {"numpy": (None, "no such device")})
    assert command.main() == 0
    assert "numpy on no such device: does not work here" in capsys.readouterr().out


def test_json(capsys, monkeypatch):
    right = xpconv.conv_backward

    def fails_in_float64(dy, *arguments, **parameters):
        if dy.dtype == np.float64:
            raise MemoryError("no room")
        return right(dy, *arguments, **parameters)

    monkeypatch.setattr(command, "conv_backward", fails_in_float64)
    assert command.main(["--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["xpconv"] == xpconv.__version__
    assert told["notes"] == ["no_such_library: absent"]
    failed, passed = told["rows"]
    assert (failed["dtype"], failed["ms"], failed["error"]) == ("float64", None, None)
    assert failed["verdict"] == "MemoryError: no room"
    assert (passed["library"], passed["dtype"], passed["verdict"]) == ("numpy", "float32", "ok")
    assert passed["ms"] > 0
    assert 0 <= passed["error"] < 1e-6


def test_json_has_no_infinity(capsys, monkeypatch):
    monkeypatch.setattr(command.Trial, "error", lambda *_: float("inf"))
    assert command.main(["--json"]) == 1
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [(row["error"], row["verdict"]) for row in told["rows"]] == [(None, "wrong")] * 2


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_colours_are_for_terminals(monkeypatch):
    assert command.paint("ok", command.GREEN, io.StringIO()) == "ok"
    assert command.paint("ok", command.GREEN, Terminal()) == "\033[32mok\033[0m"
    monkeypatch.setenv("TERM", "dumb")
    assert command.paint("ok", command.GREEN, Terminal()) == "ok"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert command.paint("ok", command.GREEN, Terminal()) == "ok"


def test_rows_are_green_or_red(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setattr(command, "hints", lambda: ["get a faster machine"])
    right = xpconv.conv
    monkeypatch.setattr(command, "conv", lambda x, *more, **named: right(x, *more, **named) + (x.dtype == np.float64))
    command.main()
    wrong, ok = (line for line in screen.getvalue().splitlines() if "numpy" in line)
    assert wrong.startswith("\033[31m")
    assert ok.startswith("\033[32m")
    assert "\033[33mhint: get a faster machine\033[0m" in screen.getvalue()


def test_a_line_for_each_second_of_silence(capsys, monkeypatch):
    """The clock is the test's own: four ticks, half a second after the step began, then 2, 3 and 4 seconds."""
    clock, ticks = iter([10.0, 10.5, 12.0, 13.0, 14.0]), iter([False] * 4 + [True])
    monkeypatch.setattr(command.time, "monotonic", lambda: next(clock))
    patience = command.Patience()
    monkeypatch.setattr(patience.done, "wait", lambda _: next(ticks))
    patience.thread.run()
    assert capsys.readouterr().err.splitlines() == [f"... the reference, {seconds} s" for seconds in (2, 3, 4)]


def test_its_thread_ends():
    before = threading.active_count()
    command.main()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("kernels", "found", "hint"),
    [
        ("Haswell", ["SSE42", "AVX2", "AVX512_SKX"], "(Haswell), though this one has AVX-512"),  # NumPy up to 2.3
        ("Haswell", ["X86_V3", "X86_V4"], "(Haswell), though this one has AVX-512"),
        ("Nehalem", ["X86_V3"], "(Nehalem), though this one has AVX2"),
        ("Zen", ["X86_V3"], None),
        ("SkylakeX", ["X86_V3", "X86_V4"], None),
        ("Nehalem", [], None),
        ("neoversen1", ["ASIMD"], None),
    ],
)
def test_kernels_of_an_older_cpu(monkeypatch, kernels, found, hint):
    monkeypatch.setattr(np, "show_config", lambda **_: {"SIMD Extensions": {"found": found}})
    told = command.slow_kernels(kernels)
    assert told is None if hint is None else hint in told


def test_hints(monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    monkeypatch.setattr(command.os, "cpu_count", lambda: 8)
    blas = [{"filepath": "/site-packages/numpy.libs/blas.so", "architecture": "Haswell"}, {"filepath": "/scipy.so"}]
    monkeypatch.setattr(command, "threadpool_info", lambda: blas)
    monkeypatch.setattr(np, "show_config", lambda **_: {"SIMD Extensions": {"found": ["X86_V4"]}})
    with xpconv.options(workers=1):
        scipy, core, kernels = command.hints()
    assert "pip install scipy" in scipy
    assert "on one core of the machine's 8" in core
    assert "Haswell" in kernels
    monkeypatch.setattr(command, "find_spec", lambda name: name)
    monkeypatch.setattr(command, "threadpool_info", list)
    with xpconv.options(workers=2):
        assert command.hints() == []
