"""CuPy and torch on one GPU: how long a call takes there, by CUDA's events, and what it takes of the device."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import Pace

RUN = 0.01  # seconds of calls between two events
PAUSE = 0.02  # seconds before each contestant's turn


class Device:
    """CuPy's current device, which is torch's too; or CuPy's stand-in and torch on the CPU, whose times mean nothing.

    Both libraries work on the default stream, so an event of CuPy's times calls of either.
    """

    def __init__(self, standin: bool) -> None:
        if standin:
            sys.path.append(str(Path(__file__).parents[1]))
            import cupy_standin

            cupy_standin.install()
            self.trace = cupy_standin.trace
        import cupy

        self.cupy, self.standin, self.place = cupy, standin, "cpu" if standin else "cuda"
        float(cupy.sum(cupy.ones(2))) + float(torch.ones(2, device=self.place).sum())  # both import without a GPU
        self.name = "a stand-in for CuPy, without a GPU" if standin else torch.cuda.get_device_name()

    def array(self, tensor: Any) -> Any:
        """CuPy's, of the same memory on a GPU."""
        return self.cupy.asarray(tensor.numpy() if self.standin and torch.is_tensor(tensor) else tensor)

    def error(self, result: Any, expected: Any) -> float:
        """The largest, beside the largest number expected."""
        cupy, result, expected = self.cupy, self.array(result), self.array(expected)
        if result.shape != expected.shape:
            return math.inf
        apart = cupy.max(cupy.abs(result.astype(expected.dtype) - expected))
        return float(f"{float(apart) / float(cupy.max(cupy.abs(expected))):.3g}")

    def run(self, call: Callable[[], Any], count: int) -> tuple[float, float]:
        """The milliseconds of each of so many calls, of the device, and of the host that asks for them."""
        start, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        begin = time.perf_counter()
        start.record()
        for _ in range(count):
            call()
        end.record()
        host = 1e3 * (time.perf_counter() - begin)
        end.synchronize()
        return self.cupy.cuda.get_elapsed_time(start, end) / count, host / count

    def measure(self, calls: dict[str, Callable[[], Any]], pace: Pace) -> dict[str, list[tuple[float, float]]]:
        """What `run` gives, for each contestant and run; they take turns. On the stand-in each has one call.

        A run has so many calls that the device has a queue of them, as it has in training; the first do not count.
        """
        if self.standin:
            return {who: [self.run(call, 1)] for who, call in calls.items()}
        runs: dict[str, list[tuple[float, float]]] = {who: [] for who in calls}
        for _ in range(pace.turns):
            for who, call in calls.items():
                time.sleep(PAUSE)
                call()
                count = max(1, min(100, math.ceil(1e3 * RUN / max(self.run(call, 1)))))
                end = time.perf_counter() + pace.seconds
                while True:
                    runs[who].append(self.run(call, count))
                    if time.perf_counter() >= end:
                        break
        return runs

    def seconds(self, call: Callable[[], Any]) -> float:
        """The fastest of some runs: what others do on the machine only adds to it."""
        return min(ms for ms, _ in self.measure({"": call}, Pace(turns=1, seconds=0.05))[""]) / 1e3

    def takes(self, who: str, call: Callable[[], Any]) -> dict[str, int | None]:
        """The bytes that a call holds at its peak beside its result, and how often the device is given work.

        Each library's allocator counts its bytes, and CUPTI the work: kernels, copies and fills. The stand-in counts
        what would be asked of a GPU, where a product of matrices is one launch.
        """
        if self.standin and who == "torch":
            return {"extra_bytes": None, "launches": None}
        call()  # what is made once is there
        with self.held() as held:
            launches, result = self.counted(call)
        extra = held.peak - result.nbytes
        if not self.standin:
            extra += torch.cuda.max_memory_allocated() - held.of_torch
        return {"extra_bytes": max(0, extra), "launches": launches}

    def counted(self, call: Callable[[], Any]) -> tuple[int | None, Any]:
        if self.standin:
            with self.trace() as trace:
                result = call()
            return sum(count for kind, count in trace.items() if kind != "sync"), result
        with torch.profiler.profile() as profile:
            result = call()
            torch.cuda.synchronize()
        on_device = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
        return len(on_device) or None, result  # none: CUPTI does not work here

    def held(self) -> Any:
        """While it is entered, counts the bytes that CuPy's pool has given to arrays, as torch counts its own."""

        class Held(self.cupy.cuda.MemoryHook):  # type: ignore[name-defined, misc]
            name = "Held"
            now = peak = of_torch = 0

            def malloc_postprocess(self, **facts: int) -> None:
                self.now += facts["mem_size"]
                self.peak = max(self.peak, self.now)

            def free_postprocess(self, **facts: int) -> None:
                self.now -= facts["mem_size"]

        held = Held()
        if not self.standin:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            held.of_torch = torch.cuda.memory_allocated()
        return held

    def free(self) -> None:
        """Give back what the two pools hold, each of which would else keep it from the other."""
        if not self.standin:
            self.cupy.get_default_memory_pool().free_all_blocks()
            torch.cuda.empty_cache()
