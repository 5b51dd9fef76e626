"""Machine code for the processor at hand, through llvmlite where that is installed: `pip install "xpconv[llvm]"`.

`Code` writes LLVM's assembly, a line for each operation, with vectors of any length; LLVM cuts them to what the
processor has. A function takes some tens of milliseconds to compile, and is kept as long as the process lives.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, cast

__all__ = ["Code", "Loop", "can_compile", "compiled", "registers", "vector_bytes"]


class Loop:
    """A loop: its index, the values that it carries from turn to turn, and what these are in the next turn."""

    def __init__(self, index: str, carried: list[str]) -> None:
        self.index = index
        self.carried = carried  # after the loop: what is left
        self.next = carried


class Code:
    """The lines of a function, every value in a name of its own; integers have 64 bits."""

    def __init__(self, pointers: int, integers: int = 0) -> None:
        self.kinds = ["ptr noalias"] * pointers + ["i64"] * integers  # of the arguments, named %0, %1 and on
        self.lines: list[str] = []
        self.inner: dict[str, Code] = {}
        self.declared: dict[str, None] = {}
        self.names = 0

    def do(self, line: str) -> None:
        self.lines.append(line)

    def let(self, value: str) -> str:
        self.names += 1
        self.do(f"%v{self.names} = {value}")
        return f"%v{self.names}"

    def call(self, kind: str, name: str, *arguments: tuple[str, str | int], flags: str = "") -> str:
        """A call of LLVM's own function of that name: what it returns, and the kinds and values of its arguments."""
        self.declared[f"declare {kind} @llvm.{name}({', '.join(one for one, _ in arguments)})"] = None
        return f"call {flags} {kind} @llvm.{name}({', '.join(f'{one} {value}' for one, value in arguments)})"

    def do_inner(self, name: str, code: Code, *arguments: str) -> None:
        """A call of another function of ours, which has all registers for itself."""
        self.inner[name] = code
        given = ", ".join(f"{kind.split()[0]} {value}" for kind, value in zip(code.kinds, arguments, strict=True))
        self.do(f"call void @{name}({given})")

    def add(self, *terms: str | int) -> str:
        total = str(terms[0])
        for term in terms[1:]:
            total = self.let(f"add i64 {total}, {term}")
        return total

    def mul(self, a: str | int, b: str | int) -> str:
        return self.let(f"mul i64 {a}, {b}")

    def sub(self, a: str | int, b: str | int) -> str:
        return self.let(f"sub i64 {a}, {b}")

    def smaller(self, a: str | int, b: str | int) -> str:
        return self.let(self.call("i64", "smin.i64", ("i64", a), ("i64", b)))

    def larger(self, a: str | int, b: str | int) -> str:
        return self.let(self.call("i64", "smax.i64", ("i64", a), ("i64", b)))

    def divided(self, a: str | int, b: str | int) -> tuple[str, str]:
        """The quotient and the rest, of numbers that are not negative."""
        return self.let(f"udiv i64 {a}, {b}"), self.let(f"urem i64 {a}, {b}")

    def at(self, pointer: str, kind: str, index: str | int) -> str:
        return self.let(f"getelementptr {kind}, ptr {pointer}, i64 {index}")

    def load(self, kind: str, pointer: str, align: int) -> str:
        return self.let(f"load {kind}, ptr {pointer}, align {align}")

    def store(self, kind: str, value: str, pointer: str, align: int) -> None:
        self.do(f"store {kind} {value}, ptr {pointer}, align {align}")

    @contextmanager
    def loop(self, count: str | int, step: int = 1, kind: str = "", carried: Sequence[str] = ()) -> Iterator[Loop]:
        """From 0 to before `count`; it carries values of a kind along."""
        self.names += 1
        n = self.names
        loop = Loop(f"%i{n}", [f"%c{n}.{k}" for k in range(len(carried))])
        self.do(f"br label %before{n}")
        self.do(f"before{n}:")
        self.do(f"br label %head{n}")
        self.do(f"head{n}:")
        self.do(f"%i{n} = phi i64 [0, %before{n}], [%next{n}, %latch{n}]")
        here = len(self.lines)
        self.do(f"%more{n} = icmp slt i64 %i{n}, {count}")
        self.do(f"br i1 %more{n}, label %body{n}, label %after{n}")
        self.do(f"body{n}:")
        yield loop
        self.do(f"br label %latch{n}")
        self.do(f"latch{n}:")
        self.do(f"%next{n} = add nuw nsw i64 %i{n}, {step}")
        self.do(f"br label %head{n}")
        self.do(f"after{n}:")
        names = [f"%c{n}.{k}" for k in range(len(carried))]
        self.lines[here:here] = [
            f"{name} = phi {kind} [{first}, %before{n}], [{then}, %latch{n}]"
            for name, first, then in zip(names, carried, loop.next, strict=True)
        ]

    @contextmanager
    def taken(self, busy: str, jobs: str) -> Iterator[str]:
        """For each number that is taken off the first of two, up to before the second; several threads may share them.

        Meanwhile this thread is counted among those that are busy.
        """
        self.names += 1
        n, last = self.names, self.load("i64", self.at(jobs, "i64", 1), 8)
        self.do(f"atomicrmw add ptr {busy}, i64 1 seq_cst")
        self.do(f"br label %take{n}")
        self.do(f"take{n}:")
        self.do(f"%taken{n} = atomicrmw add ptr {jobs}, i64 1 seq_cst")
        self.do(f"%left{n} = icmp slt i64 %taken{n}, {last}")
        self.do(f"br i1 %left{n}, label %work{n}, label %done{n}")
        self.do(f"work{n}:")
        yield f"%taken{n}"
        self.do(f"br label %take{n}")
        self.do(f"done{n}:")
        self.do(f"atomicrmw sub ptr {busy}, i64 1 seq_cst")

    def until_zero(self, pointer: str, turns: int) -> None:
        """Read a number until it is 0, so many times at most."""
        self.names += 1
        n = self.names
        self.do(f"br label %wait{n}")
        self.do(f"wait{n}:")
        self.do(f"%turn{n} = phi i64 [0, %start], [%then{n}, %wait{n}]")
        self.do(f"%then{n} = add i64 %turn{n}, 1")
        self.do(f"%read{n} = load atomic i64, ptr {pointer} seq_cst, align 8")
        self.do(f"%zero{n} = icmp eq i64 %read{n}, 0")
        self.do(f"%late{n} = icmp sge i64 %then{n}, {turns}")
        self.do(f"%end{n} = or i1 %zero{n}, %late{n}")
        self.do(f"br i1 %end{n}, label %over{n}, label %wait{n}")
        self.do(f"over{n}:")

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        self.names += 1
        n = self.names
        self.do(f"br i1 {condition}, label %then{n}, label %end{n}")
        self.do(f"then{n}:")
        yield
        self.do(f"br label %end{n}")
        self.do(f"end{n}:")


@lru_cache(maxsize=1)
def can_compile() -> bool:
    """Whether an LLVM is installed that knows this assembly; it is not imported."""
    if find_spec("llvmlite") is None:
        return False
    first, second, *_ = version("llvmlite").split(".")
    return (int(first), int(second)) >= (0, 45)


@lru_cache(maxsize=1)
def _processor() -> tuple[str, Any]:
    """Its name, and which of LLVM's features it has."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features()


def vector_bytes() -> int:
    """How many bytes a register holds."""
    features = _processor()[1]
    return 64 if features.get("avx512f") else 32 if features.get("avx") else 16


def registers() -> int:
    """How many there are."""
    features = _processor()[1]
    return 16 if features.get("sse2") and not features.get("avx512f") else 32


def compiled(name: str, code: Code) -> Callable[..., None]:
    """The function of that code; a call lets other threads run."""
    import llvmlite.binding as llvm

    processor, features = _processor()
    functions = {name: code, **code.inner}
    declared = dict.fromkeys(line for one in functions.values() for line in one.declared)
    source = "\n".join([*declared, *(_defined(one, functions[one], inner=one != name) for one in functions)])
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=processor, features=features.flatten(), opt=3, jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(source, llvm.create_context()), machine)
    engine.finalize_object()
    function: Any = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(code.kinds))(engine.get_function_address(name))
    function.memory = engine  # lives as long as the function
    return cast(Callable[..., None], function)


def _defined(name: str, code: Code, inner: bool) -> str:
    kind, attributes = ("internal ", " noinline") if inner else ("", "")
    body = "\n".join(code.lines)
    return f"define {kind}void @{name}({', '.join(code.kinds)}){attributes} {{\nstart:\n{body}\nret void\n}}"
