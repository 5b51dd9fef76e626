# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""The project's commands, each in an environment of its own: nox -l lists them."""

import os
import re
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = [
    "tests-cpu",
    "tests-peers",
    "tests-llvm",
    "tests-clients",
    "tests-dask",
    "tests-nvrtc",
    "lint",
    "typing",
    "docs",
    "build",
]
nox.options.error_on_external_run = True

PYPROJECT = nox.project.load_toml("pyproject.toml")

GITHUB = Path(".github")
READ_BY_OTHERS = {
    "citation-file-format": [Path("CITATION.cff")],
    "dependabot": [GITHUB / "dependabot.yml"],
    "github-actions": sorted(GITHUB.glob("actions/*/action.yml")),
    "github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
    "github-issue-forms": sorted(set(GITHUB.glob("ISSUE_TEMPLATE/*.yml")) - {GITHUB / "ISSUE_TEMPLATE" / "config.yml"}),
    "github-workflows": sorted(GITHUB.glob("workflows/*.yml")),
    "readthedocs": [Path(".readthedocs.yaml")],
}

# Of the extras, those that need no GPU and that tests use.
EXTRAS = ("dask", "examples", "fft", "volume")

# In two processes at once; with `-n 0` after -- in one.
WORKERS = ("-n", "2")


def group(name: str) -> list[str]:
    """What a dependency group of pyproject.toml asks for."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


@nox.session(name="tests-cpu")
def tests_cpu(session: nox.Session) -> None:
    """NumPy, array-api-strict, torch and a stand-in for CuPy, each against torch on the CPU."""
    session.install(".[examples]", *group("test"))
    session.run("pytest", *WORKERS, *session.posargs)


@nox.session(name="tests-lowest", python="3.11")
def tests_lowest(session: nox.Session) -> None:
    """The oldest releases that pyproject.toml allows: of Python, of what xpconv needs, and of its extras on a CPU."""
    project = PYPROJECT["project"]
    extras = [extra for name in EXTRAS for extra in project["optional-dependencies"][name]]
    lowest = [re.sub(r">=([\d.]+).*", r"==\1", asked) for asked in (*project["dependencies"], *extras)]
    session.install(f".[{','.join(EXTRAS)}]", *lowest, *group("test"))
    session.run("pytest", *WORKERS, *session.posargs)
    session.run("pytest", "tests/dask", "--backends=numpy", *WORKERS, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Which lines and branches of the package no test runs: some 15 minutes, in one process; NumPy, dask, llvmlite."""
    session.install("-e", f".[{','.join(EXTRAS)}]", *group("coverage"), *group("test"))
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "run", "-m", "pytest", "tests/dask", "--backends=numpy", *session.posargs)
    session.install("-e", ".[llvm]")
    session.run("coverage", "run", "-m", "pytest", "tests/llvm", "--backends=numpy:readonly", *session.posargs)
    session.run("coverage", "combine")
    session.run("coverage", "report")


def python_on_gpu(session: nox.Session, *more: str) -> str:
    """A Python with CuPy and a torch for CUDA: the session's own, or with --no-venv that which runs nox."""
    if not session.virtualenv.is_sandboxed:
        return sys.executable
    cuda = os.environ.get("XPCONV_CUDA", "13")
    # The CPU build of torch that the other sessions pin will not do here.
    tests = [requirement.replace("torch==", "torch>=") for requirement in group("test")]
    session.install(f".[cuda{cuda},examples]", *tests, *more)
    return "python"


def from_here() -> dict[str, str]:
    """The environment in which xpconv is that of this folder, installed or not."""
    return {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}


@nox.session(name="tests-gpu")
def tests_gpu(session: nox.Session) -> None:
    """CuPy and torch.cuda against torch on CUDA; with --no-venv in the Python that runs nox, without a network."""
    python = python_on_gpu(session)
    pytest = ["pytest"] if session.virtualenv.is_sandboxed else [python, "-m", "pytest"]
    session.run(*pytest, "--backends=cupy,torch:cuda", *session.posargs, external=True)


@nox.session(name="tests-peers")
def tests_peers(session: nox.Session) -> None:
    """JAX, Keras, ONNX, SciPy and torch: the same convolutions, and every row of the page on migration."""
    session.install(".", *group("test"), *group("peers"))
    session.run("pytest", "tests/peers", "--backends=numpy", *WORKERS, *session.posargs)


def install_clients(session: nox.Session) -> None:
    """The programs that the page "xpconv inside ..." is about, and a model for one of them."""
    session.install(*group("clients"))
    session.install("--no-deps", "basic-pitch==0.4.0")


@nox.session(name="tests-clients")
def tests_clients(session: nox.Session) -> None:
    """Programs with xpconv inside: sigpy, Keras, ONNX, autograd, pylops; their own tests, where they can be had."""
    session.install(".", *group("test"))
    install_clients(session)
    sdists = session.create_tmp()
    for program in ("autograd", "pylops"):  # their wheels have no tests
        code = f"import importlib.metadata as m; print(m.version('{program}'))"
        version = session.run("python", "-c", code, silent=True).strip()
        source = f"{program}=={version}"
        session.run("python", "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", sdists, source)
    backends = "--backends=numpy,cupy:standin"
    session.run("pytest", "tests/clients", backends, f"--sdists={sdists}", *WORKERS, *session.posargs)


@nox.session(name="tests-llvm")
def tests_llvm(session: nox.Session) -> None:
    """NumPy with llvmlite: the direct kernels, and functions and gradients that go through them."""
    session.install(".[llvm]", *group("test"))
    files = ("llvm", "arrays/test_direct.py", "api/test_conv.py", "api/test_derivatives.py")
    tests = [f"tests/{name}" for name in files]
    session.run("pytest", *tests, "--backends=numpy:readonly", *WORKERS, *session.posargs)


@nox.session(name="tests-dask")
def tests_dask(session: nox.Session) -> None:
    """dask's arrays, clusters whose workers are killed, and the example that runs on one."""
    session.install(".[dask,volume]", *group("test"))
    session.run("pytest", "tests/dask", "--backends=numpy", *WORKERS, *session.posargs)


@nox.session(name="tests-nvrtc")
def tests_nvrtc(session: nox.Session) -> None:
    """The kernels in CUDA C++, compiled for GPUs by NVIDIA's compiler, which needs none."""
    session.install(".", *group("test"), *group("nvrtc"))
    session.run("pytest", "tests/nvrtc", "--backends=numpy", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: style and format; spelling; and what GitHub, Read the Docs and citations read, against its schemas."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("codespell")
    for schema, files in READ_BY_OTHERS.items():
        session.run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files))


@nox.session
def typing(session: nox.Session) -> None:
    """Mypy, strict."""
    session.install(".", *group("typing"))
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The docstrings' examples, the digits and the voice to the end, and the documentation, every warning an error."""
    session.install(".[audio,examples,volume]", *group("docs"), *group("peers"), *group("test"))
    install_clients(session)
    session.run("pytest", "--doctest-modules", "--pyargs", "xpconv")
    session.run("pytest", "tests/examples")
    session.run("sphinx-build", "-n", "-W", "--keep-going", "-E", "docs", "docs/_build/html")


@nox.session
def build(session: nox.Session) -> None:
    """The sources, and the wheel made of them, installed and used; -- v0.2.0 if it is to be that version."""
    shutil.rmtree("dist", ignore_errors=True)
    session.install("build")
    session.run("python", "-m", "build")
    (wheel,) = Path("dist").glob("*.whl")
    for tag in session.posargs:
        if not wheel.name.startswith(f"xpconv-{tag.removeprefix('v')}-"):
            session.error(f"the tag is {tag}, and the package is {wheel.name}")
    session.install(str(wheel))
    version = "import importlib.metadata as m, xpconv; assert m.version('xpconv') == xpconv.__version__"
    with session.chdir(session.create_tmp()):  # away from the sources
        session.run("python", "-c", version)
        session.run("python", "-m", "xpconv")


@nox.session
def bench(session: nox.Session) -> None:
    """Ours against torch, JAX and SciPy, side by side; arguments after -- go to the benchmark, but --llvm."""
    given = [one for one in session.posargs if one != "--llvm"]
    session.install(".[llvm]" if "--llvm" in session.posargs else ".", *group("bench"))
    session.run("python", "tests/bench/bench.py", *given)


@nox.session(name="bench-gpu")
def bench_gpu(session: nox.Session) -> None:
    """On a GPU: the tests, the digits, and CuPy through xpconv beside torch (cuDNN); -- --standin does without one."""
    if "--standin" in session.posargs and session.virtualenv.is_sandboxed:
        session.install(".[examples]", *group("test"))
        python = "python"
    else:
        python = python_on_gpu(session)
    session.run(python, "tests/bench/gpu.py", *session.posargs, env=from_here(), external=True)


@nox.session(name="bench-dask")
def bench_dask(session: nox.Session) -> None:
    """What chunks cost, and a volume ten times larger than the workers' memory."""
    session.install(".[dask]", *group("bench"))
    session.run("python", "tests/bench/chunked.py", *session.posargs)


@nox.session
def fit(session: nox.Session) -> None:
    """The prices that algorithms are chosen by, measured on this machine (-- --library cupy: on its GPU)."""
    if "cupy" in session.posargs:
        python = python_on_gpu(session, "rich>=13", "scipy>=1.14")
    else:
        session.install(".[llvm]", *group("bench"))
        python = "python"
    session.run(python, "tests/bench/fit.py", *session.posargs, env=from_here(), external=True)


if __name__ == "__main__":
    nox.main()
