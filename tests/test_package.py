"""The package as a whole: its names, its folders, and what importing it brings along."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import xpconv

ROOT = Path(xpconv.__file__).parent

FOLDERS = ("_spec", "_arrays", "_algorithms", "_engines", "_api")  # each imports only from itself and those before it


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
            ours |= (inside & {name for name, _ in modules()}) or {".".join(base)}
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
        "ConvolveGradients",
        "Explanation",
        "__version__",
        "conv",
        "conv_backward",
        "conv_double_backward",
        "conv_input_grad",
        "conv_jvp",
        "conv_output_size",
        "conv_stream",
        "conv_transpose",
        "conv_transpose_backward",
        "conv_transpose_double_backward",
        "conv_transpose_jvp",
        "conv_transpose_output_size",
        "conv_weight_grad",
        "convolve",
        "convolve_backward",
        "correlate",
        "correlate_backward",
        "explain",
        "fold",
        "local_conv",
        "local_conv_backward",
        "local_conv_transpose",
        "options",
        "unfold",
    }
    assert len(xpconv.__all__) == len(set(xpconv.__all__))
    public = {name for name in vars(xpconv) if not name.startswith("_")}
    assert public == {name for name in xpconv.__all__ if not name.startswith("_")}
    assert (ROOT / "py.typed").exists()


def test_every_module_says_what_it_hands_out():
    for name, path in modules():
        if name in ("", "__main__", "_engines.dask", "_engines.jax") or not path.read_text():  # they import these
            continue
        module = importlib.import_module(f"xpconv.{name}")
        assert len(module.__all__) == len(set(module.__all__))
        assert all(hasattr(module, public) for public in module.__all__)


def test_every_public_name_is_documented():
    for name in xpconv.__all__:
        if name != "__version__":
            assert getattr(xpconv, name).__doc__.strip()


def test_imports_go_down():
    """From folder to folder; the package itself and what is run as a program stand on top."""

    def height(name):
        folder = name.partition(".")[0]
        return FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS) + (name == "__main__")

    for name, path in modules():
        for other in imports(name, path)[0]:
            assert height(other) <= height(name), f"{name or 'xpconv'} imports {other}"


def test_no_module_imports_itself_in_a_circle():
    """Imports inside functions count as well."""
    graph = {name: imports(name, path)[0] for name, path in modules()}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError


def test_one_folder_knows_the_array_libraries():
    theirs = {"_engines.dask": {"dask"}, "_engines.torch": {"torch"}, "_engines.torch_compile": {"torch"}}
    theirs["_engines.jax"] = {"jax"}
    for name, path in modules():
        foreign = imports(name, path)[1]
        assert foreign & {"cupy", "torch", "jax", "dask", "array_api_strict"} == theirs.get(name, set()), name
        if name.partition(".")[0] not in ("_arrays", "__main__"):
            assert not foreign & {"array_api_compat", "array_api_extra", "scipy"}, name
        if name.startswith("_spec"):
            assert foreign <= set(sys.stdlib_module_names), name


def test_importing_it_imports_no_array_library_but_numpy():
    code = "import sys, xpconv; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not {"torch", "cupy", "jax", "dask", "array_api_strict", "scipy", "sparse", "ndonnx"} & set(loaded)
