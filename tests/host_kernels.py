"""Kernels in CUDA C++, compiled for the host and run there, thread after thread.

It shows that a source compiles, what it computes, and that it neither reads nor writes beyond its arrays. There is no
shared memory and nothing else by which threads meet, and no telling how fast a kernel is.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import mmap
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
#include <csetjmp>
#include <csignal>
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

# Runs a kernel. Returns 1 if the arguments have other sizes than its parameters, whose types its own type tells, and 2
# if a thread has reached for memory where there is none.
LAUNCH = """
static thread_local sigjmp_buf out_of_bounds;
static void leave(int) { siglongjmp(out_of_bounds, 1); }

template <class... Parameters, std::size_t... I>
static int launch(void (*kernel)(Parameters...), std::index_sequence<I...>, const unsigned* shape, int count,
                  const int64_t* sizes, void** arguments) {
  const int64_t expected[] = {sizeof(Parameters)...};
  if (count != sizeof...(Parameters)) return 1;
  for (int i = 0; i < count; ++i) if (sizes[i] != expected[i]) return 1;
  gridDim = {shape[0], shape[1], shape[2]};
  blockDim = {shape[3], shape[4], shape[5]};
  struct sigaction before[2], now = {};
  now.sa_handler = leave;
  sigaction(SIGSEGV, &now, &before[0]);
  sigaction(SIGBUS, &now, &before[1]);
  const int left = sigsetjmp(out_of_bounds, 1);
  if (!left)
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)
    for (threadIdx.z = 0; threadIdx.z < blockDim.z; ++threadIdx.z)
    for (threadIdx.y = 0; threadIdx.y < blockDim.y; ++threadIdx.y)
    for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x)
      kernel(*static_cast<Parameters*>(arguments[I])...);
  sigaction(SIGSEGV, &before[0], nullptr);
  sigaction(SIGBUS, &before[1], nullptr);
  return left ? 2 : 0;
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


def launch(code, name, grid, block, arguments):
    """Run the kernel of that name: NumPy's arrays in C order stand for pointers, its scalars for themselves."""
    shape = (*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])
    assert all(0 < n < most for n, most in zip(shape[:3], (2**31, 2**16, 2**16), strict=True)), f"a grid of {grid}"
    assert 0 < np.prod(block) <= 1024, f"a block of {block}"
    guarded = [(one, _guarded(one)) for one in arguments if isinstance(one, np.ndarray)]
    addresses = iter([inner.ctypes.data for _, (_, inner) in guarded])
    values = [np.asarray(next(addresses) if isinstance(one, np.ndarray) else one) for one in arguments]
    count = len(values)
    sizes, pointers = (ctypes.c_int64 * count)(), (ctypes.c_void_p * count)()
    sizes[:], pointers[:] = [one.itemsize for one in values], [one.ctypes.data for one in values]
    problem = getattr(_compiled(code), f"launch_{name}")((ctypes.c_uint * 6)(*shape), count, sizes, pointers)
    assert problem != 1, f"{name} has other parameters than {arguments}"
    outside = problem == 2 or any(np.any(before != 0xFF) for _, (before, _) in guarded)
    assert not outside, f"{name} goes out of bounds"
    for one, (_, inner) in guarded:
        one.reshape(-1).view(np.uint8)[...] = inner


def _guarded(array):
    """A copy of the array's bytes, and what lies before it on its pages, between two pages that nobody may touch."""
    assert array.flags.c_contiguous, "a kernel takes memory as it lies: its arrays must be in C order"
    page = mmap.PAGESIZE
    size = -(-array.nbytes // page) * page
    memory = np.frombuffer(mmap.mmap(-1, size + 2 * page), np.uint8)
    for start in (memory.ctypes.data, memory.ctypes.data + page + size):
        assert not ctypes.CDLL(None).mprotect(ctypes.c_void_p(start), ctypes.c_size_t(page), 0)
    before, inner = memory[page : page + size - array.nbytes], memory[page + size - array.nbytes : page + size]
    before[...], inner[...] = 0xFF, array.reshape(-1).view(np.uint8)
    return before, inner


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
