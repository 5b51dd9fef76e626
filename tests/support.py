"""What the tests share: the backends, and how close two results must be."""

from __future__ import annotations

import importlib
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import array_api_compat
import cupy_standin
import ml_dtypes
import numpy as np

# Of NumPy, arrays that nobody can write to: to write to one is an error, where elsewhere a comparison has to notice it.
CPU = ("numpy:readonly", "array_api_strict", "torch", "cupy:standin")
GPU = ("cupy", "torch:cuda")
ALL = ("numpy", *CPU, *GPU)
NOT_ON_THE_HOST = (*GPU, "cupy:standin")


@dataclass(frozen=True)
class Backend:
    """An array library on a device, and the way between it and NumPy."""

    name: str
    xp: Any
    device: Any

    @classmethod
    def named(cls, name: str) -> Backend:
        """The backend of that name, or an error that says why it cannot run: it never goes missing silently."""
        library, _, variant = name.partition(":")
        if name not in ALL:
            raise LookupError(f"there is no backend {name!r}: there are {', '.join(ALL)}")
        try:
            if variant == "standin":
                cupy_standin.install()
            module = importlib.import_module(library)
        except ImportError as error:
            raise LookupError(f"backend {name!r} cannot run: {error}") from error
        if (variant == "standin") != cupy_standin.stands_for(module):
            raise LookupError(f"backend {name!r} cannot run: the stand-in has taken the place of CuPy itself")
        # Where there is a choice, it is a device that nothing takes by itself.
        device: Any = None
        if library == "array_api_strict":
            device = module.Device("device1")
        elif library == "torch":
            device = variant or "cpu"
        elif library == "cupy":
            device = module.cuda.Device(1 if variant == "standin" else 0)
        try:
            # CuPy imports, and torch knows the name "cuda", without a GPU: only an operation tells.
            backend = cls(name, array_api_compat.array_namespace(module.empty(0)), device)
            probe = backend.array(np.asarray([1.0, 2.0]))
            with backend.here():
                assert float((probe + probe)[1]) == 4.0
            return cls(name, backend.xp, array_api_compat.device(probe))
        except Exception as error:
            raise LookupError(f"backend {name!r} cannot run here: {type(error).__name__}: {error}") from error

    def __str__(self) -> str:
        version = importlib.import_module(self.name.partition(":")[0]).__version__
        return f"{self.name} {version} on {self.gpu or self.device}"

    @property
    def gpu(self) -> str | None:
        """What the GPU calls itself."""
        if self.name == "cupy":
            return self.xp.cuda.runtime.getDeviceProperties(self.device.id)["name"].decode()
        return self.xp.cuda.get_device_name(self.device) if self.name == "torch:cuda" else None

    @property
    def can_look(self) -> bool:
        """Whether values are at hand: those on a device that works on its own have to be waited for."""
        return self.name not in NOT_ON_THE_HOST

    @property
    def torch_device(self) -> str:
        """Where torch computes what this backend is compared with."""
        return "cuda" if self.name in GPU else "cpu"

    def dtype(self, name: str) -> Any:
        """The library's dtype of that name, or None; bfloat16 comes from ml_dtypes where arrays have NumPy's dtypes."""
        if name == "bfloat16" and self.name.partition(":")[0] in ("numpy", "cupy"):
            return np.dtype(ml_dtypes.bfloat16)
        return getattr(self.xp, name, None)

    def array(self, values: np.ndarray) -> Any:
        """The values as this backend's array; read-only where the backend is."""
        if self.name == "numpy:readonly":
            values = values.view()
            values.flags.writeable = False
            return values
        if self.name == "numpy":
            return values
        if self.name.startswith("torch"):
            return self.xp.from_numpy(values.copy()).to(self.device)
        return self.xp.asarray(values, device=self.device)

    def here(self) -> AbstractContextManager[Any]:
        """Makes the device current where that decides where arrays are made and computed with, as CuPy has it.

        For what tests make and compute without xpconv, which computes where its arguments lie.
        """
        return self.device if self.name.startswith("cupy") else nullcontext()

    def numpy(self, array: Any) -> np.ndarray:
        """The array's values, after a check that it is this backend's, on this backend's device."""
        assert array_api_compat.array_namespace(array) is self.xp
        assert array_api_compat.device(array) == self.device
        if self.name == "array_api_strict":
            array = array_api_compat.to_device(array, self.xp.Device("CPU_DEVICE"))
        return np.asarray(array_api_compat.to_device(array, "cpu") if not self.can_look else array)


def in_blocks_of(monkeypatch: Any, size: int) -> None:
    """Cut the work in blocks of so many bytes; what was chosen for other blocks is forgotten."""
    monkeypatch.setattr("xpconv._algorithms.contract.block_bytes", lambda *_: size)
    monkeypatch.setattr("xpconv._engines.problem._problems", {})


def run_example(name: str, *arguments: object, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """What an example of the documentation prints, called with these arguments in a process of its own.

    CuPy is there what it is here.
    """
    example = Path(__file__).parents[1] / "docs" / "examples" / name
    standin = [cupy_standin.__file__] if cupy_standin.stands_for(sys.modules.get("cupy")) else []
    command = [sys.executable, *standin, str(example), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)


def digits_read(output: str) -> float:
    """How many of the digits that it has not seen the example of the digits reads, in percent."""
    return float(output.partition("held-out fifth: ")[2].partition("%")[0])


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Normal numbers, for integers small ones of both signs where there are."""
    kind = np.dtype(dtype).kind
    if kind in "iu":
        return rng.integers(-3 if kind == "i" else 0, 4, shape).astype(dtype)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if kind == "c" else values).astype(dtype)


def whole_numbers(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = "float64", most: int = 8
) -> np.ndarray:
    """Of both signs where there are, and small enough that every sum in the tests is exact."""
    kind = np.dtype(dtype).kind
    low, high = {"b": (0, 1), "u": (0, most)}.get(kind, (-most, most))
    values = rng.integers(low, high + 1, shape).astype(dtype)
    return values + (1j * rng.integers(low, high + 1, shape)).astype(dtype) if kind == "c" else values


def assert_within(actual: np.ndarray, expected: np.ndarray, magnitude: np.ndarray, terms: int) -> None:
    """Every element of a sum of so many products, with `magnitude` the same sum over absolute values.

    The bound is that of any order of summation: the error of n products is at most (n + 1) eps magnitude, and
    four times that for complex numbers; twice as much where the expected value was rounded in the same way.
    Integers are exact.
    """
    assert actual.shape == expected.shape
    if actual.dtype.kind in "iu":
        np.testing.assert_array_equal(actual, expected.astype(actual.dtype))
        return
    factor = 8 if actual.dtype.kind == "c" else 2
    bound = factor * (terms + 1) * np.finfo(actual.dtype).eps * magnitude
    error = np.abs(actual - expected)
    assert np.all(error <= bound), f"error {np.max(error)}, {np.max(error / np.maximum(bound, 1e-300))} of the bound"
