"""The package as a whole: its names, its floors, and what importing it brings along."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import xpconv

ROOT = Path(xpconv.__file__).parent

# A file imports only from floors below its own; __main__ stands on top of all.
FLOORS = {
    "_geometry": 0,
    "_typing": 0,
    "_options": 0.2,  # of floor 0 as well, over the geometry, as the next
    "_parameters": 0.27,
    "_parts": 0.2,
    "_form": 0.3,
    "_threads": 0.2,
    "_namespace": 0.25,  # of floor 0 as well, over the types and the threads
    "_numbers": 0.6,
    "_layout": 1,
    "_padding": 1,
    "_windows": 2,
    "_algorithms._banded": 3,
    "_algorithms._costs": 3,
    "_algorithms._fourier": 3,
    "_algorithms._lowering": 3,
    "_algorithms._flat": 3.05,  # lowering, too
    "_algorithms._winograd": 3,
    "_algorithms._plan": 3.1,
    "_algorithms._choose": 3.2,
    "_algorithms._contractions": 3.2,
    "_algorithms": 3.5,  # the folder's own door
    "_slots": 3.6,
    "_chunked": 3.7,  # for dask, as the next two for torch: they import it, and are imported when its arrays come
    "_tape": 3.7,
    "_graph": 0.3,
    "_call": 3.8,
    "_functional": 4,
    "_patches": 4,
    "_transposed": 4.1,  # the same floor, with the gradients' names from beside it
    "_explain": 4.5,
    "_layers": 5,
    "": 6,
    "__main__": 7,
}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


def imports(name, path):
    """The modules of xpconv that one of them imports, and the names of all others."""
    ours, others = set(), set()
    package = name.split(".") if path.name == "__init__.py" and name else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            others |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            inside = {".".join([*base, alias.name]) for alias in node.names}
            ours |= (inside & set(FLOORS)) or {".".join(base)}
        elif isinstance(node, ast.ImportFrom):
            others.add(node.module)
    ours |= {other.removeprefix("xpconv").lstrip(".") for other in others if other.split(".")[0] == "xpconv"}
    return ours, {other.split(".")[0] for other in others} - {"xpconv"}


def test_public_names():
    assert set(xpconv.__all__) == {
        "Contraction",
        "Conv",
        "Conv1d",
        "Conv2d",
        "Conv3d",
        "ConvDoubleGradients",
        "ConvGradients",
        "ConvTranspose",
        "ConvTranspose1d",
        "ConvTranspose2d",
        "ConvTranspose3d",
        "Explanation",
        "__version__",
        "conv",
        "conv_backward",
        "conv_double_backward",
        "conv_input_grad",
        "conv_jvp",
        "conv_output_size",
        "conv_transpose",
        "conv_transpose_backward",
        "conv_transpose_double_backward",
        "conv_transpose_jvp",
        "conv_transpose_output_size",
        "conv_weight_grad",
        "explain",
        "fold",
        "options",
        "unfold",
    }
    assert len(xpconv.__all__) == len(set(xpconv.__all__))
    public = {name for name in vars(xpconv) if not name.startswith("_")}
    assert public == {name for name in xpconv.__all__ if not name.startswith("_")}
    assert (ROOT / "py.typed").exists()


def test_every_module_says_what_it_hands_out():
    for name, _ in modules():
        if name in ("", "__main__", "_chunked"):  # the last one imports dask
            continue
        module = importlib.import_module(f"xpconv.{name}")
        assert len(module.__all__) == len(set(module.__all__))
        assert all(hasattr(module, public) for public in module.__all__)


def test_every_public_name_is_documented():
    for name in xpconv.__all__:
        if name != "__version__":
            assert getattr(xpconv, name).__doc__.strip()


def test_imports_go_down():
    seen = set()
    for name, path in modules():
        seen.add(name)
        compiling = {"_parameters": {"_graph"}, "_tape": {"_call"}}.get(name, set())  # imported while torch compiles
        for other in imports(name, path)[0] - compiling:
            assert FLOORS[other] < FLOORS[name], f"{name or 'xpconv'} imports {other}"
    assert seen == set(FLOORS)


def test_one_file_knows_the_array_libraries():
    for name, path in modules():
        foreign = imports(name, path)[1]
        theirs = {"_chunked": {"dask"}, "_graph": {"torch"}, "_tape": {"torch"}}.get(name, set())
        assert foreign & {"cupy", "torch", "jax", "dask", "array_api_strict"} == theirs, name
        if name not in ("_namespace", "__main__"):
            assert not foreign & {"array_api_compat", "array_api_extra", "scipy"}, name
    assert imports("_geometry", ROOT / "_geometry.py")[1] <= set(sys.stdlib_module_names)


def test_importing_it_imports_no_array_library_but_numpy():
    code = "import sys, xpconv; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not {"torch", "cupy", "jax", "dask", "array_api_strict", "scipy", "sparse", "ndonnx"} & set(loaded)
