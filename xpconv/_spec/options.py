"""The options: what the caller may decide about how a convolution is computed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import NamedTuple

from .geometry import integer
from .names import says_names

__all__ = ["METHODS", "Options", "current", "options", "under"]

METHODS = ("auto", "lowering", "winograd", "banded", "fft")
PRECISIONS = ("auto", "highest")


class Options(NamedTuple):
    workers: int | None = None  # None: as many as there are cores
    workspace: int = 2**26
    method: str = "auto"
    precision: str = "auto"

    @property
    def threads(self) -> int:
        return self.workers or _cores()


@lru_cache(maxsize=1)
def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_options: ContextVar[Options] = ContextVar("xpconv", default=Options())  # noqa: B039, a tuple does not change
current = _options.get


@contextmanager
def under(chosen: Options) -> Iterator[None]:
    """These options inside a ``with`` block, unchecked."""
    token = _options.set(chosen)
    try:
        yield
    finally:
        _options.reset(token)


@says_names
@contextmanager
def options(
    *,
    workers: int | None = None,
    workspace: int | None = None,
    method: str | None = None,
    precision: str | None = None,
) -> Iterator[None]:
    """Change how convolutions are computed inside a ``with`` block; what is left out stays as it was outside.

    The options belong to the thread, or the asynchronous task, that sets them.

    Parameters
    ----------
    workers : int, optional
        How many threads NumPy's work is shared between; at first as many as the process has cores. Results do not
        depend on it. Small work is done by one thread, and other libraries use their own threads.
    workspace : int, optional
        How many bytes all threads together may take beside the operands and the result; at first 64 MiB, and 1 MiB at
        least. Algorithms that need more are not chosen. Where all need more, an error says how much would do: the
        inputs that one window of one channel spans must fit in several times. Not counted are copies of a whole array
        that do not depend on the algorithm: a weight (or its gradient) that is flipped, conjugated or not contiguous in
        memory, an array with several batch axes, and, where a dtype is not that to compute in (16 bits, integers), the
        weight and the result in that. Two cases take more as well, up to twice the size of the result with its border:
        the input's gradient with a border or a dilated input (up to four times with both 16-bit numbers and a dilated
        input), and real numbers with complex ones. In a trace of JAX, parts are few, whatever the workspace. Results
        depend on the workspace in the last digits, as they do on the batch size, because the sums are cut differently.
    method : {"auto", "lowering", "winograd", "banded", "fft"}, optional
        The algorithm; at first ``"auto"``, the one that a cost model finds fastest. `explain` names it. ``"lowering"``
        is of windows or of whole rows (``Flat``). All but it may spread NaN and infinities to outputs that do not read
        them. On a CPU such results are found and computed again. On a GPU, and in JAX, reading a result to find them
        would wait for the device or break a trace, so ``"auto"`` is ``"lowering"`` there. One thing remains there with
        every method: in the input's gradient, and so in a transposed convolution, a weight that is NaN or infinite
        makes NaN also of elements near the border which that weight does not reach.
    precision : {"auto", "highest"}, optional
        At first ``"auto"``: the largest error is within 2e-5 of the largest result in float32 and within 1e-13 in
        float64, for operands of zero mean. ``"highest"`` is within 2e-6 in float32, by fewer algorithms.
        Neither holds in float32 where the library is told to multiply in TF32, which keeps 11 bits of each number: on
        a GPU by the environment variable ``CUPY_TF32=1``, or by ``torch.backends.cuda.matmul.allow_tf32`` and
        ``torch.set_float32_matmul_precision``.

    Raises
    ------
    TypeError, ValueError
        If an option has a value that is not allowed; in a convolution, if the method or the workspace cannot do it.

    See Also
    --------
    explain : What would run.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import conv, options
    >>> x, weight = np.ones((1, 1, 4)), np.ones((1, 1, 2))
    >>> with options(workers=1, method="fft"):
    ...     conv(x, weight).round(12)
    array([[[2., 2., 2.]]])
    """
    changed = current()
    if workers is not None:
        changed = changed._replace(workers=integer("workers", workers, 1))
    if workspace is not None:
        changed = changed._replace(workspace=integer("workspace", workspace, 2**20))
    for name, value, allowed in (("method", method, METHODS), ("precision", precision, PRECISIONS)):
        if value is not None and (not isinstance(value, str) or value not in allowed):
            kind = ValueError if isinstance(value, str) else TypeError
            raise kind(f"{name} must be one of {', '.join(map(repr, allowed))}: got {value!r}")
    changed = changed._replace(method=method or changed.method, precision=precision or changed.precision)
    with under(changed):
        yield
