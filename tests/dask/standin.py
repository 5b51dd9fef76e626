"""A second kind of chunks where there is no GPU: NumPy's dtypes and protocols, and never taken for NumPy's arrays.

As CuPy does, it refuses to become an array of NumPy unless it is told to.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

NAME = "standin"


class Array(np.lib.mixins.NDArrayOperatorsMixin):
    device = "cpu"

    def __init__(self, values):
        self.values = np.asarray(values)

    def __array__(self, *_, **__):
        raise TypeError("this is no array of NumPy's")

    def __array_namespace__(self, **_):
        return namespace

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return _wrapped(getattr(ufunc, method)(*_bare(inputs), **_bare(kwargs)))

    def __array_function__(self, function, types, args, kwargs):
        assert all(issubclass(one, Array) for one in types), types
        return _wrapped(function(*_bare(args), **_bare(kwargs)))

    def __getattr__(self, name):
        if name in ("shape", "dtype", "ndim", "size", "nbytes", "itemsize", "mT", "T", "real", "imag"):
            return _wrapped(getattr(self.values, name))
        if name in ("astype", "reshape", "transpose", "sum", "copy"):
            return lambda *args, **kwargs: _wrapped(getattr(self.values, name)(*_bare(args), **kwargs))
        raise AttributeError(name)

    def __getitem__(self, where):
        return _wrapped(self.values[where])

    def __setitem__(self, where, value):
        self.values[where] = _bare(value)

    def __len__(self):
        return len(self.values)

    def __bool__(self):
        return bool(self.values)


class _Namespace(ModuleType):
    def __getattr__(self, name):
        there = getattr(np, name)
        if isinstance(there, type) or not callable(there):
            return there

        def function(*args, device=None, **kwargs):
            assert device in (None, Array.device), device
            return _wrapped(there(*_bare(args), **_bare(kwargs)))

        return function


namespace = _Namespace(NAME)


def _bare(value):
    if isinstance(value, Array):
        return value.values
    if isinstance(value, tuple | list):
        return type(value)(map(_bare, value))
    return {key: _bare(one) for key, one in value.items()} if isinstance(value, dict) else value


def _wrapped(value):
    return Array(value) if isinstance(value, np.ndarray | np.generic) else value


class Standin:
    """As tests/support.py's Backend."""

    name = NAME

    @staticmethod
    def array(values):
        return Array(values.copy())

    @staticmethod
    def numpy(array):
        assert type(array) is Array
        return array.values
