"""Blocks of work on several threads, each with a BLAS of one thread.

A block copies and multiplies. BLAS has threads of its own, but copying has none; with whole blocks on several threads
all cores do both. The calling thread works too, so a call goes on even where all helpers are busy with other calls, or
could not be started.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import lru_cache, partial
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

from threadpoolctl import ThreadpoolController

__all__ = ["alone", "run_all", "run_jobs"]

S = TypeVar("S")
Offer: TypeAlias = Callable[[], object]


def run_all(work: Callable[[S], object], items: Iterable[S], threads: int) -> None:
    """Do the work on every item. After an exception no further item is begun, and it is raised here."""
    if threads > 1:
        _run_together(work, items, threads)
        return
    with _calls, alone():
        for item in items:
            work(item)


def run_jobs(
    work: Callable[[], object], help_out: Callable[[], object], wait: Callable[[], object], threads: int
) -> None:
    """Let threads do jobs that they take themselves, without the interpreter's lock and without BLAS.

    The calling thread's `work` and the helpers' `help_out` return when there are no more jobs to take, and `wait` when
    no helper is doing one. A helper may come when the call has returned, and finds nothing to do.
    """
    offers: list[Offer] = [help_out] * (threads - 1)
    with _calls:
        try:
            if offers and _calls.count == 1:  # helpers would only be in the way of other calls
                with suppress(RuntimeError):  # no more threads, or the interpreter is about to end
                    _helpers.ask(offers)
            work()
        finally:
            try:
                offers.clear()
            finally:
                wait()


def _run_together(work: Callable[[S], object], items: Iterable[S], threads: int) -> None:
    queue, end, turn = iter(items), object(), threading.Condition()
    helping, closed = 0, False
    errors: list[BaseException] = []

    def work_through(waiting: bool = False) -> None:
        with _one_own_blas_thread():
            while True:
                if waiting and _calls.count == 1:  # helpers would only be in the way of other calls
                    waiting = False
                    with suppress(RuntimeError):  # no more threads, or the interpreter is about to end
                        _helpers.ask(offers)
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
            work_through()
        except BaseException as error:
            errors.append(error)
            closed = True
        finally:
            with turn:
                helping -= 1
                turn.notify_all()

    # numpy.errstate and our own options are context variables: helpers see the caller's.
    offers: list[Offer] = [partial(copy_context().run, help_out) for _ in range(threads - 1)]
    with _calls, _limit:
        try:
            work_through(waiting=True)
        finally:
            with turn:
                closed = True
                while helping:  # they still write to the result
                    try:
                        turn.wait()
                    except KeyboardInterrupt as interrupt:
                        errors.append(interrupt)
            offers.clear()
    if errors:
        raise errors[0]


class _Helpers:
    """Threads that help with the work of any call. They start when they are first needed, and then wait for more.

    Calls that ask at the same time share them: there are never more than one call could use. An offer that is still
    waiting when its call is done is withdrawn. They are daemons: the process may end while they wait.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads: list[threading.Thread] = []
        self.queue: SimpleQueue[list[Offer]] = SimpleQueue()

    def ask(self, offers: list[Offer]) -> None:
        try:
            with self.lock:
                self.threads = self._alive()
                while len(self.threads) < len(offers):
                    thread = threading.Thread(target=self._serve, name=f"xpconv-{len(self.threads)}", daemon=True)
                    self.threads.append(thread)  # before it starts: an interrupt may come right after that
                    thread.start()
        finally:  # where no more threads can be started, those that there are help
            for _ in self._alive()[: len(offers)]:
                self.queue.put(offers)

    def _alive(self) -> list[threading.Thread]:
        return [thread for thread in self.threads if thread.is_alive()]

    def _serve(self) -> None:
        while True:
            with suppress(IndexError):
                self.queue.get().pop()()


_helpers = _Helpers()


@contextmanager
def alone() -> Iterator[None]:
    """For a call on one of several threads of a scheduler, such as dask's: BLAS starts no threads of its own."""
    with _limit, _one_own_blas_thread():
        yield


class _Calls:
    """How many calls are at work."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0

    def __enter__(self) -> None:
        with self.lock:
            self.count += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.count -= 1


_calls = _Calls()


class _Limit:
    """Holds BLAS to one thread while calls are within.

    The number of BLAS's threads belongs to the process: the first call that enters sets it, the last restores it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders = 0
        self.before: list[tuple[Any, int]] = []

    def __enter__(self) -> None:
        with self.lock:
            if not self.holders:
                self.before = _hold(own=False)
            self.holders += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.holders -= 1
            if not self.holders:
                _restore(self.before)


_limit = _Limit()


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
    """Set those libraries to one thread, and return those that had more, with how many."""
    held = []
    for library in _blas():
        if (getattr(library, "threading_layer", None) == "openmp") is own and (
            before := library.get_num_threads()
        ) != 1:
            held.append((library, before))
            _set(library, 1)
    return held


def _restore(held: list[tuple[Any, int]]) -> None:
    for library, threads in held:
        _set(library, threads)


def _set(library: Any, threads: int) -> None:
    """Sets the number, and lets any other thread set it next: threadpoolctl would let only the first thread do so."""
    release = getattr(library, "clear_controlling_thread", dict)  # `dict` does nothing
    release(force=True)
    library.set_num_threads(threads)
    release(force=True)


def _after_fork() -> None:
    """A forked child has none of its parent's threads: no helpers, and none that would restore BLAS."""
    global _calls, _helpers, _limit
    _calls, _helpers = _Calls(), _Helpers()
    if _limit.holders:
        _restore(_limit.before)
    _limit = _Limit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
