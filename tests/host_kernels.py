"""Kernels in CUDA C++, compiled for the host and run there, thread after thread.

It shows that a source compiles, and what is computed from which indices: the memory around arrays is NaN, and to write
there is an error. There is no shared memory and nothing else by which threads meet, and no telling how fast it is.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

__all__ = ["launch"]

# What a compiler of CUDA knows by itself.
PRELUDE = """
#include <cstdint>
#include <utility>
#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
struct dim3 { unsigned x, y, z; };
static thread_local dim3 gridDim, blockDim, blockIdx, threadIdx;
typedef _Float16 __half;
static float __half2float(__half from) { return from; }
static __half __float2half(float from) { return from; }
"""

# Runs a kernel, if the arguments have the sizes of its parameters, which it finds out from the kernel's own type.
LAUNCH = """
template <class... Parameters, std::size_t... I>
static int launch(void (*kernel)(Parameters...), std::index_sequence<I...>, const unsigned* shape, int count,
                  const int64_t* sizes, void** arguments) {
  const int64_t expected[] = {sizeof(Parameters)...};
  if (count != sizeof...(Parameters)) return 1;
  for (int i = 0; i < count; ++i) if (sizes[i] != expected[i]) return 1;
  gridDim = {shape[0], shape[1], shape[2]};
  blockDim = {shape[3], shape[4], shape[5]};
  for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)
  for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
  for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)
  for (threadIdx.z = 0; threadIdx.z < blockDim.z; ++threadIdx.z)
  for (threadIdx.y = 0; threadIdx.y < blockDim.y; ++threadIdx.y)
  for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x)
    kernel(*static_cast<Parameters*>(arguments[I])...);
  return 0;
}
template <class... Parameters>
static int launch_any(void (*kernel)(Parameters...), const unsigned* shape, int count, const int64_t* sizes,
                      void** arguments) {
  return launch(kernel, std::index_sequence_for<Parameters...>(), shape, count, sizes, arguments);
}
"""
LAUNCH_ONE = """
extern "C" int launch_{name}(const unsigned* shape, int count, const int64_t* sizes, void** arguments) {{
  return launch_any({name}, shape, count, sizes, arguments);
}}
"""

MARGIN = 4096  # bytes of memory around each array


def launch(code, name, grid, block, arguments):
    """Run the kernel of that name: NumPy's arrays in C order stand for pointers, its scalars for themselves."""
    shape = (*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])
    assert all(0 < n < most for n, most in zip(shape[:3], (2**31, 2**16, 2**16), strict=True)), f"a grid of {grid}"
    assert 0 < np.prod(block) <= 1024, f"a block of {block}"
    guarded = {i: _guarded(one) for i, one in enumerate(arguments) if isinstance(one, np.ndarray)}
    values = [
        np.asarray(guarded[i].ctypes.data + MARGIN, np.uintp) if i in guarded else np.asarray(one)
        for i, one in enumerate(arguments)
    ]
    count = len(values)
    sizes, pointers = (ctypes.c_int64 * count)(), (ctypes.c_void_p * count)()
    sizes[:], pointers[:] = [one.itemsize for one in values], [one.ctypes.data for one in values]
    run = getattr(_compiled(code), f"launch_{name}")
    assert not run((ctypes.c_uint * 6)(*shape), count, sizes, pointers), f"{name} has other parameters than {values}"
    for i, memory in guarded.items():
        inner = slice(MARGIN, memory.size - MARGIN)
        assert np.all(np.delete(memory, inner) == 0xFF), f"{name} has written out of bounds of argument {i}"
        arguments[i].reshape(-1).view(np.uint8)[...] = memory[inner]


def _guarded(array):
    """The bytes of an array, with a margin on both sides."""
    assert array.flags.c_contiguous, "a kernel takes memory as it lies: its arrays must be in C order"
    return np.pad(array.reshape(-1).view(np.uint8), MARGIN, constant_values=0xFF)


@functools.cache
def _compiled(code):
    """A library with a function `launch_...` for each kernel in the source; kept between runs of the tests."""
    names = re.findall(r'extern "C" __global__ void (\w+)', code)
    source = "".join([PRELUDE, code, LAUNCH, *(LAUNCH_ONE.format(name=name) for name in names)])
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise RuntimeError("the tests compile kernels for the host: install a C++ compiler, as c++, g++ or clang++")
    folder = Path(tempfile.gettempdir()) / f"xpconv-host-kernels-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{hashlib.sha256(source.encode()).hexdigest()}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as own:  # other processes may be at the same
            written, made = Path(own, "kernel.cpp"), Path(own, "kernel.so")
            written.write_text(source)
            command = [compiler, "-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-o", str(made), str(written)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise RuntimeError(f"a kernel does not compile:\n{result.stderr}")
            made.replace(library)
    return ctypes.CDLL(str(library))
