"""Blocks side by side: nothing of the process is left changed, and nothing depends on how many threads there are."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import threadpoolctl

from xpconv import conv, conv_backward, options
from xpconv._arrays.doors import matmul, multiplied_into
from xpconv._arrays.threads import _Helpers, run_all

LAYER = ((4, 16, 60, 60), (24, 16, 3, 3))
ONE_PART = ((1, 128, 16, 15), (96, 128, 3, 3))  # whose product is made in pieces


# NumPy's, and what else there is by now: libraries that are loaded later, SciPy's say, are not for us to hold.
LIBRARIES = {library["filepath"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"}


def blas_threads():
    return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["filepath"] in LIBRARIES]


@contextmanager
def two_blas_threads():
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        yield


@pytest.mark.parametrize("method", ["lowering", "winograd", "banded", "fft"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", [LAYER, ONE_PART], ids=["several parts", "one part"])
def test_results_do_not_depend_on_the_number_of_workers(rng, method, dtype, layer):
    x, w = (rng.standard_normal(shape).astype(dtype) for shape in layer)
    dy = rng.standard_normal((x.shape[0], w.shape[0], *x.shape[2:])).astype(dtype)
    expected = None
    for workers in (1, 2, 3, 7):
        with options(workers=workers, method=method):
            results = conv(x, w, padding=1), *conv_backward(dy, x, w, padding=1)
        expected = expected or results
        for result, first in zip(results, expected, strict=True):
            assert result.tobytes() == first.tobytes()


@pytest.mark.parametrize("pieces", [2, 4])
@pytest.mark.parametrize("shape", [(1, 40, 7, 9), (1, 3, 7, 50), (30, 5, 7, 6), (2, 3, 4, 5, 6, 1), (1, 1, 3, 1)])
def test_a_product_in_pieces_is_the_product(rng, shape, pieces):
    """Cut along whichever axis is longest: rows, columns or matrices."""
    *batch, rows, terms, columns = shape
    a, b = rng.standard_normal((*batch, rows, terms)), rng.standard_normal((*batch, terms, columns))
    expected = np.einsum("...ij,...jk->...ik", a, b)
    with options(workers=2):
        np.testing.assert_allclose(matmul(a, b, pieces=pieces, xp=np), expected, rtol=0, atol=1e-13)
        out = np.full((2, *expected.shape[1:]), np.nan) if len(batch) == 1 and batch[0] == 1 else None
        if out is not None:
            assert multiplied_into(out, (slice(1, 2),), a, b, pieces)
            np.testing.assert_allclose(out[1:], expected, rtol=0, atol=1e-13)
            assert np.isnan(out[0]).all()


def test_blocks_run_at_the_same_time():
    both = threading.Barrier(2, timeout=60)
    run_all(lambda _: both.wait(), range(2), 2)


def test_blas_has_one_thread_within_and_as_many_as_before_after():
    with two_blas_threads():
        seen = []
        run_all(lambda _: seen.append(blas_threads()), range(3), 2)
        assert all(threads == [1] * len(threads) for threads in seen)
        assert blas_threads() == [2] * len(seen[0])


def test_nested_and_concurrent_calls_restore_blas_once_the_last_is_out():
    with two_blas_threads():
        inside, leave = threading.Event(), threading.Event()

        def stay(_):
            inside.set()
            assert leave.wait(60)

        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(run_all, stay, range(1), 1)
            assert inside.wait(60)
            run_all(lambda _: run_all(lambda _: None, range(2), 2), range(2), 2)
            assert set(blas_threads()) == {1}  # the other is still in
            leave.set()
            other.result()
        assert set(blas_threads()) == {2}


def test_an_exception_ends_the_others_and_is_raised():
    done = []

    def work(item):
        if item == 3:
            raise ZeroDivisionError("at 3")
        done.append(item)

    with two_blas_threads():
        with pytest.raises(ZeroDivisionError, match="at 3"):
            run_all(work, range(10**6), 3)
        assert set(blas_threads()) == {2}
    assert len(done) < 10**6


def test_an_exception_of_a_helper_is_raised():
    caller, met = threading.current_thread(), threading.Barrier(2, timeout=60)

    def work(_):
        met.wait()
        if threading.current_thread() is not caller:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_all(work, range(2), 2)


def test_an_interrupt_waits_for_the_helpers():
    caller, started, running = threading.current_thread(), threading.Barrier(2, timeout=60), []

    def work(_):
        if threading.current_thread() is caller:
            started.wait()
            raise KeyboardInterrupt
        running.append(1)
        started.wait()
        np.linalg.inv(np.eye(200) + 1)
        running.pop()

    with pytest.raises(KeyboardInterrupt):
        run_all(work, range(2), 2)
    assert not running


def test_helpers_compute_under_the_callers_error_state():
    both = threading.Barrier(2, timeout=60)

    def work(_):
        both.wait()
        return np.asarray([1.0]) / 0.0

    with np.errstate(divide="ignore"):
        run_all(work, range(2), 2)
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        run_all(work, range(2), 2)


@pytest.mark.parametrize("layer", [LAYER, ONE_PART], ids=["several parts", "one part"])
def test_callers_of_many_threads(rng, layer):
    x, w = (rng.standard_normal(shape).astype("float32") for shape in layer)
    expected = conv(x, w)
    with ThreadPoolExecutor(8) as pool:
        for y in pool.map(lambda _: conv(x, w), range(24)):
            assert y.tobytes() == expected.tobytes()


def test_calls_at_the_same_time_share_the_helpers(monkeypatch):
    """Eight calls of two threads each start one helping thread, not eight; and each is done without waiting for it."""
    helpers = _Helpers()
    monkeypatch.setattr("xpconv._arrays.threads._helpers", helpers)
    with ThreadPoolExecutor(8) as pool:
        done = [[] for _ in range(8)]
        for call in [pool.submit(run_all, one.append, range(50), 2) for one in done]:
            call.result(timeout=60)
    assert [sorted(one) for one in done] == [list(range(50))] * 8
    assert len(helpers.threads) == 1


def test_what_nobody_helped_with_is_not_kept(monkeypatch):
    """The only helper is at work for another call; this call's arrays are free as soon as it returns."""
    monkeypatch.setattr("xpconv._arrays.threads._helpers", _Helpers())
    helping, leave = threading.Event(), threading.Event()
    caller = threading.current_thread()

    def long(_):
        if threading.current_thread() is not caller:
            helping.set()
            assert leave.wait(60)
        else:
            assert helping.wait(60)

    class Held:
        def __call__(self, _):
            pass

    freed = []

    def other():
        work = Held()
        weakref.finalize(work, freed.append, True)
        run_all(work, range(3), 2)

    def both(item):
        long(item)
        if threading.current_thread() is caller:
            other()
            gc.collect()
            freed.append("seen")
            leave.set()

    run_all(both, range(2), 2)
    assert freed[0] is True


def test_without_threads_to_be_had_the_caller_does_it_all(monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("xpconv._arrays.threads._helpers", _Helpers())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = []
    run_all(done.append, range(5), 4)
    assert done == list(range(5))


def test_an_interrupt_while_a_helper_starts(monkeypatch):
    """The helper is one of those that there are: later calls start no other in its place."""
    helpers, start = _Helpers(), threading.Thread.start

    def interrupted(thread):
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr("xpconv._arrays.threads._helpers", helpers)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_all(lambda _: None, range(5), 3)
    both = threading.Barrier(3, timeout=60)
    run_all(lambda _: both.wait(), range(3), 3)
    assert [thread.name for thread in helpers.threads] == ["xpconv-0", "xpconv-1"]


INTERRUPTED = """
import signal, threading
from xpconv._arrays.threads import run_all

signal.signal(signal.SIGINT, signal.default_int_handler)  # what starts programs in the background has it ignored

start = threading.Thread.start

def interrupted(thread):
    start(thread)
    signal.raise_signal(signal.SIGINT)

threading.Thread.start = interrupted
try:
    run_all(lambda _: None, range(5), 3)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_process_that_is_interrupted_while_a_helper_starts_ends():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "interrupted\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_computes(rng):
    x, w = (rng.standard_normal(shape).astype("float32") for shape in LAYER)
    with options(workers=2):
        expected = conv(x, w).tobytes()  # helpers exist now, and a child has none of them
        child = os.fork()
        if not child:
            os._exit(0 if conv(x, w).tobytes() == expected else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_within_a_call_has_blas_as_it_was():
    children = []

    def work(_):
        child = os.fork()
        if not child:
            os._exit(0 if set(blas_threads()) == {2} else 1)
        children.append(child)

    with two_blas_threads():
        run_all(work, range(1), 1)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0]


def test_where_each_thread_has_its_own_number_each_sets_it(monkeypatch):
    class OverOpenMP:
        threading_layer = "openmp"
        threads = threading.local()

        def get_num_threads(self):
            return getattr(self.threads, "number", 8)

        def set_num_threads(self, number):
            self.threads.number = number

    library, seen, both = OverOpenMP(), [], threading.Barrier(2, timeout=60)
    monkeypatch.setattr("xpconv._arrays.threads._blas", lambda: [library])

    def work(_):
        both.wait()
        seen.append(library.get_num_threads())

    run_all(work, range(2), 2)
    assert seen == [1, 1]
    assert library.get_num_threads() == 8
