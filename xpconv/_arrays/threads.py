"""Blocks of work on several threads, each with a BLAS of one thread.

A block copies and multiplies. BLAS has threads of its own, but copying has none; with whole blocks on several threads
all cores do both. The calling thread works too, so a call goes on even where all helpers are busy with other calls, or
could not be started.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import lru_cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

__all__ = ["alone", "run_all"]

S = TypeVar("S")


def run_all(work: Callable[[S], object], items: Iterable[S], threads: int) -> None:
    """Do the work on every item. After an exception no further item is begun; the first exception is raised here."""
    queue, end, turn = iter(items), object(), threading.Condition()
    helping, closed = 0, False
    errors: list[BaseException] = []

    def toil() -> None:
        with _one_own_blas_thread():
            while True:
                with turn:  # one thread at a time makes the next item
                    item: Any = end if closed else next(queue, end)
                if item is end:
                    return
                work(item)

    def help_out() -> None:
        nonlocal helping, closed
        with turn:
            if closed:  # too late: the call may have returned its result
                return
            helping += 1
        try:
            toil()
        except BaseException as error:
            errors.append(error)
            closed = True
        finally:
            with turn:
                helping -= 1
                turn.notify_all()

    with _one_blas_thread():
        try:
            with suppress(RuntimeError):  # no more threads, or the interpreter is about to end
                for _ in range(threads - 1):
                    # numpy.errstate and our own options are context variables: helpers see the caller's.
                    _helpers().submit(copy_context().run, help_out)
            toil()
        finally:
            with turn:
                closed = True
                while helping:  # they still write to the result
                    try:
                        turn.wait()
                    except KeyboardInterrupt as interrupt:
                        errors.append(interrupt)
    if errors:
        raise errors[0]


@contextmanager
def alone() -> Iterator[None]:
    """For a call on one of several threads of a scheduler, such as dask's: BLAS starts no threads of its own."""
    with _one_blas_thread(), _one_own_blas_thread():
        yield


@lru_cache(maxsize=1)
def _helpers() -> ThreadPoolExecutor:
    """The helping threads: they start when they are first needed, and then wait for more work."""
    return ThreadPoolExecutor(max(32, 4 * (os.cpu_count() or 1)), thread_name_prefix="xpconv")


class _Limit:
    """How many calls hold BLAS to one thread at this moment, and what it had before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders = 0
        self.before: list[tuple[Any, int]] = []


_limit = _Limit()


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """The number of BLAS's threads belongs to the process: the first call that enters sets it, the last restores it."""
    limit = _limit
    with limit.lock:
        if not limit.holders:
            limit.before = _hold(own=False)
        limit.holders += 1
    try:
        yield
    finally:
        with limit.lock:
            limit.holders -= 1
            if not limit.holders:
                _restore(limit.before)


@contextmanager
def _one_own_blas_thread() -> Iterator[None]:
    """With OpenMP, the number of BLAS's threads belongs to each thread that calls."""
    before = _hold(own=True)
    try:
        yield
    finally:
        _restore(before)


@lru_cache(maxsize=1)
def _blas() -> list[Any]:
    """The BLAS libraries of the process. NumPy's is there since the import of this package."""
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


def _hold(own: bool) -> list[tuple[Any, int]]:
    """Set those libraries to one thread, and return how many they had."""
    libraries = [one for one in _blas() if (getattr(one, "threading_layer", None) == "openmp") is own]
    before = [(library, library.get_num_threads()) for library in libraries]
    _restore([(library, 1) for library in libraries])
    return before


def _restore(numbers: list[tuple[Any, int]]) -> None:
    for library, threads in numbers:
        # threadpoolctl lets the thread that set a number first set it again, and no other; ours may be another.
        release = getattr(library, "clear_controlling_thread", dict)
        release(force=True)
        library.set_num_threads(threads)
        release(force=True)


def _after_fork() -> None:
    """A forked child has none of its parent's threads: no helpers, and none that would restore BLAS."""
    global _limit
    _helpers.cache_clear()
    if _limit.holders:
        _restore(_limit.before)
    _limit = _Limit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
