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

METHODS = ("auto", "lowering", "direct", "winograd", "banded", "fft")
PRECISIONS = ("auto", "high", "highest")


class Options(NamedTuple):
    workers: int | None = None  # None: as many as there are cores
    workspace: int | None = None  # None: what suits the device
    method: str = "auto"
    precision: str = "auto"
    finite: bool = False
    batch_invariant: bool = False

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
    batch_invariant: bool | None = None,
    finite: bool | None = None,
) -> Iterator[None]:
    """Change how convolutions are computed inside a ``with`` block; what is left out stays as it was outside.

    The options belong to the thread, or the asynchronous task, that sets them.

    Parameters
    ----------
    workers : int, optional
        How many threads NumPy's work is shared between; at first as many as the process has cores. Results do not
        depend on it. Small work is done by one thread, and other libraries use their own threads.
    workspace : int, optional
        How many bytes all threads together may take beside the operands and the result, 1 MiB at least; at first 64
        MiB, and 1 GiB on a GPU, where one part is made after the other. Algorithms that need more are not chosen. Where
        all need more, an error says how much would do: the inputs that one window of one channel spans must fit in
        several times. Not counted are copies of a whole array that do not depend on the algorithm: a weight (or its
        gradient) that is flipped, conjugated or not contiguous in memory, an array with several batch axes, and, where
        a dtype is not that to compute in (16 bits, integers), the weight and the result in that. Two cases take more as
        well, up to twice the size of the result with its border: the input's gradient with a border or a dilated input
        (up to four times with both 16-bit numbers and a dilated input), and real numbers with complex ones. In JAX,
        parts are few, whatever the workspace. Results depend on the workspace in the last digits, as they do on the
        batch size, because the sums are cut differently.
    method : {"auto", "lowering", "direct", "winograd", "banded", "fft"}, optional
        The algorithm; at first ``"auto"``, the one that a cost model finds fastest. `explain` names it. Integers are
        exact with each; ``"auto"`` takes ``"fft"`` in float64 for many of them, where it is proven that rounding the
        result makes it exact. ``"lowering"`` is of windows, of whole rows (``Flat``) or of so many taps at a time
        (``Split``). ``"direct"`` adds the products where the operands lie, without columns: it is for libraries that
        compile kernels, which are CuPy, where it is best for depthwise convolutions, and NumPy with llvmlite for
        float32 and float64 (``pip install "xpconv[llvm]"``), where it is best for most. All but these two may spread
        NaN and infinities to outputs that do not read them. On a CPU such results are found and computed again. On a
        GPU, and in JAX, reading a result to find them would wait for the device or break a trace, so ``"auto"`` is one
        of these two there unless `finite` is set.
        One thing remains there with every method but ``"direct"``: in the input's gradient, and so in a transposed
        convolution, a weight that is NaN or infinite makes NaN also of elements near the border which that weight does
        not reach.
    precision : {"auto", "high", "highest"}, optional
        How large errors may be, for any data. They are measured by the largest sum of ``|x| * |weight|``, which is what
        the convolution of the absolute values has; where sums cancel, results are much smaller than that. At first
        ``"auto"``: within 2e-5 in float32 and within 1e-13 in float64. ``"high"``: within 2e-6 in float32, by fewer
        algorithms. ``"highest"``: numbers of 32 and 16 bits are multiplied and summed in float64, by every algorithm,
        and the result is rounded once; it is about half as fast, and refused where there is no float64. Neither
        ``"auto"`` nor ``"high"`` holds in float32 where the library is told to multiply in TF32, which keeps 11 bits of
        each number: on a GPU by the environment variable ``CUPY_TF32=1``, or by
        ``torch.backends.cuda.matmul.allow_tf32`` and ``torch.set_float32_matmul_precision``.
    batch_invariant : bool, optional
        Whether a sample's result, or its input's gradient, has the same bits in any batch, at any place in it, with any
        workspace and any number of workers; at first False. Samples are computed one after the other then, within the
        workspace that is usual. The weight's gradient is a sum over samples, and depends on the batch. Libraries other
        than NumPy have threads of their own, and may round differently for another number of these.
    finite : bool, optional
        The caller's word that operands hold no NaN and no infinity, and that no sum overflows; at first False. Nothing
        is checked then, and on a GPU and in JAX ``"auto"`` takes every algorithm. Where the word is broken, NaN and
        infinities reach outputs that do not read them.

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
    for name, word in (("finite", finite), ("batch_invariant", batch_invariant)):
        if word is not None and not isinstance(word, bool):
            raise TypeError(f"{name} must be True or False: got {word!r}")
    changed = changed._replace(
        method=method or changed.method,
        precision=precision or changed.precision,
        finite=changed.finite if finite is None else finite,
        batch_invariant=changed.batch_invariant if batch_invariant is None else batch_invariant,
    )
    with under(changed):
        yield
