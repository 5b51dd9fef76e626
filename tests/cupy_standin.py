"""A stand-in for CuPy over NumPy's memory: it shows without a GPU whether code would work with CuPy.

`install()` puts it into `sys.modules` under CuPy's names. It follows CuPy 14.2 in what decides whether a call works:
names and signatures, dtypes, layouts, no mixing with NumPy's arrays, and two devices of which one is current. Fresh
memory is full of NaN, and no view may leave its memory. Whatever the tests do not need is absent.

`trace()` counts what a GPU would have to do, and `forbidden()` makes an error of it. The stand-in says nothing of
speed, and it cannot find mistakes that only happen while the host runs ahead of a GPU.
"""

from __future__ import annotations

import runpy
import sys
import threading
import time
import warnings
import weakref
from collections import Counter
from contextlib import contextmanager
from types import ModuleType

import host_kernels
import ml_dtypes
import numpy as np
from numpy.lib.array_utils import byte_bounds

DEVICES = 2
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = (*map(np.dtype, "?bhilqBHILQefdFD"), BFLOAT16)
HALVES = (np.dtype("float16"), BFLOAT16)


# What a GPU would have to do.

_traces: list[Counter] = []
_forbidden: list[str] = []


class Trace(Counter):
    bytes = 0


@contextmanager
def trace():
    """Count operations by kind.

    "kernel", "copy" (on a device), "fft", "h2d" (from the host to a device), "sync" (the host waits for a device), and
    products of matrices by the function of cuBLAS: "gemm", "gemm-strided", "gemm-pointers"; "gemm-int" of integers.
    `bytes` are those that all of these read and write, each element of memory once.
    """
    record = Trace()
    _traces.append(record)
    try:
        yield record
    finally:
        _traces[:] = [other for other in _traces if other is not record]


@contextmanager
def forbidden(*kinds):
    """Make an error of every operation of these kinds."""
    _forbidden.extend(kinds)
    try:
        yield
    finally:
        del _forbidden[-len(kinds) :]


def _count(kind, name, *arrays):
    moved = sum(min(one.nbytes, _extent(one)) for one in arrays if isinstance(one, np.ndarray))
    assert kind not in _forbidden, f"{kind} is forbidden here: {name}"
    for record in _traces:
        record[kind] += 1
        record.bytes += moved


def _extent(values):
    """The bytes between the first and the last of an array: windows that overlap are read from memory once."""
    first, end = byte_bounds(values)
    return end - first


# Devices.


class PerformanceWarning(RuntimeWarning):
    """CuPy's, about arrays on a device that is not current."""

    __module__ = "cupy._util"


class _Current(threading.local):
    def __init__(self):
        self.device, self.before = 0, []


_current = _Current()


class Device:
    __module__ = "cupy.cuda.device"
    __hash__ = None

    def __init__(self, device=None):
        self.id = _current.device if device is None else int(device)

    def __int__(self):
        return self.id

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __repr__(self):
        return f"<CUDA Device {self.id}>"

    def __enter__(self):
        _current.before.append(_current.device)
        return self.use()

    def __exit__(self, *_):
        _current.device = _current.before.pop()

    def use(self):
        if not 0 <= self.id < DEVICES:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        _current.device = self.id
        return self


class Event:
    """Nothing runs after it was asked for, so an event has happened when it is recorded."""

    __module__ = "cupy.cuda.stream"

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        _only(not (block or disable_timing or interprocess), "other kinds of events")

    def record(self, stream=None):
        _only(stream is None, "events of a stream")
        self.time = time.perf_counter()

    def synchronize(self):
        _count("sync", "an event")


def get_elapsed_time(start_event, end_event):
    """In milliseconds, of the host: they say nothing of a GPU."""
    return 1e3 * (end_event.time - start_event.time)


_hooks: list[MemoryHook] = []


class MemoryHook:
    """Is told of the memory of arrays that are made while it is entered, in the pool's units of 512 bytes."""

    __module__ = "cupy.cuda.memory_hook"

    def __enter__(self):
        _hooks.append(self)
        return self

    def __exit__(self, *_):
        _hooks.remove(self)

    def malloc_postprocess(self, **facts):
        pass

    def free_postprocess(self, **facts):
        pass


def _tell_hooks(memory):
    for hook in _hooks:
        size = -(-memory.nbytes // 512) * 512
        hook.malloc_postprocess(mem_size=size)
        weakref.finalize(memory, hook.free_postprocess, mem_size=size).atexit = False


class Stream:
    """The default stream, the only one."""

    ptr = 0


def _current_stream(device_id=-1):
    _only(device_id in (-1, _current.device), "streams of other devices")
    return Stream()


# Arrays.


class ndarray:
    """An array on a device: `_bytes` are all of its memory there, and `_values` is a view of them, both NumPy's."""

    __module__ = "cupy"
    __slots__ = ("__weakref__", "_bytes", "_device", "_values")
    __array_priority__ = 100
    __hash__ = None

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        _only(memptr is None and strides is None, "arrays over memory that is there already")
        self._adopt(np.empty(shape, _supported(dtype), order))
        self._bytes[...] = 0xFF  # NaN, and -1 among the integers

    def _adopt(self, values, of=None):
        """Become a view of another array's memory or, without one, an array on the current device."""
        self._values = values
        self._bytes = values.ravel("K").view(np.uint8) if of is None else of._bytes
        self._device = _current.device if of is None else of._device
        if of is None:
            _tell_hooks(self._bytes)
        return self

    def _view(self, values):
        return ndarray.__new__(ndarray)._adopt(values, self)

    device = property(lambda self: Device(self._device))
    T = property(lambda self: self.transpose())
    mT = property(lambda self: self.swapaxes(-1, -2))

    def transpose(self, *axes):
        return self._view(self._values.transpose(*axes))

    def swapaxes(self, axis1, axis2):
        return self._view(self._values.swapaxes(axis1, axis2))

    def squeeze(self, axis=None):
        return self._view(self._values.squeeze(axis))

    def reshape(self, *shape, order="C", copy=None):
        _only(order == "C" and copy is None, "other ways to reshape")
        shape = shape[0] if len(shape) == 1 else shape
        try:
            return self._view(np.reshape(self._values, shape, copy=False))
        except ValueError:  # it takes a copy, or it cannot be done
            made = self.copy()
            return made._view(made._values.reshape(shape))

    @property
    def real(self):
        return self._view(self._values.real) if self.dtype.kind == "c" else self

    @real.setter
    def real(self, value):
        _assign(self.real, value)

    @property
    def imag(self):
        return self._view(self._values.imag) if self.dtype.kind == "c" else full(self.shape, 0, self.dtype)

    @imag.setter
    def imag(self, value):
        if self.dtype.kind != "c":
            raise TypeError("cupy.ndarray does not have imaginary part to set")
        _assign(self.imag, value)

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        _only(casting is None and subok is None, "casting and subok, and nor has CuPy")
        dtype = _supported(dtype)
        ordered = order == "K" or (order == "C" and self._values.flags.c_contiguous)
        if dtype == self.dtype and ordered and not copy:
            return self
        with np.errstate(all="ignore"):
            values = _near(self).astype(dtype, order)
        _count("copy", f"astype({dtype})", self._values, values)
        return _owned(values)

    def copy(self, order="C"):
        if self._device == _current.device or not self.size:
            return self.astype(self.dtype, order)
        with self.device:
            there = self.astype(self.dtype, order, copy=False)._values
        if not there.flags.forc:
            raise NotImplementedError("CuPy cannot copy non-contiguous array between devices.")
        _count("copy", "copy between devices", there, there)
        return _owned(there.copy("K"))

    def fill(self, value):
        """Refuses all arrays but scalars, NumPy's too."""
        value = np.asarray(_near(value) if isinstance(value, ndarray) else value, dtype=self.dtype)
        if value.shape:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        _near(self)[...] = value
        _count("kernel", "fill", self._values)

    def __deepcopy__(self, memo):
        with self.device:
            return self.copy()

    def __reduce__(self):
        """Through the host, to whichever device is current then."""
        return array, (self.get(order="A"),)

    def __array__(self, dtype=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def get(self, stream=None, order="C", out=None, blocking=True):
        _only(stream is None and out is None and blocking, "other ways to get values")
        _count("sync", "the values of an array")
        return self._values.copy(order)

    def item(self):
        return self.get().item()

    def __len__(self):
        return len(self._values)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, slices):
        slices, chosen = _index(slices)
        if chosen is None:
            return self._view(self._values[slices])
        _only(chosen.dtype.kind == "b", "indices in brackets: there is take")
        _count("sync", "how many a mask has chosen")
        return _launch("mask", lambda values: values[slices], self)

    def __setitem__(self, slices, value):
        slices, chosen = _index(slices)
        _only(chosen is None, "assignment to what a mask or indices choose")
        _assign(self._view(self._values[slices]), value)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        function = FUNCTIONS.get(ufunc.__name__)
        return function(*inputs, **kwargs) if function and method == "__call__" else NotImplemented

    def __array_function__(self, func, types, args, kwargs):
        function = FUNCTIONS.get(func.__name__)
        handled = all(issubclass(one, ndarray | np.ndarray) for one in types)
        return function(*args, **kwargs) if function and handled else NotImplemented


for _name in ("shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides"):
    setattr(ndarray, _name, property(lambda self, name=_name: getattr(self._values, name)))
for _type in (bool, int, float, complex, repr, str):
    setattr(ndarray, f"__{_type.__name__}__", lambda self, type_=_type: type_(self.get()))


def _only(supported, what):
    if not supported:
        raise NotImplementedError(f"the stand-in for CuPy has no {what}")


def _supported(dtype):
    dtype = np.dtype(dtype)
    if dtype not in DTYPES:
        raise ValueError(f"Unsupported dtype {dtype}")
    return dtype


def _owned(values):
    """An array on the current device of NumPy's values, in their layout; nothing else may hold them."""
    return ndarray.__new__(ndarray)._adopt(values)


def _near(operand):
    """The values of an operand, as a kernel on the current device meets it."""
    if isinstance(operand, ndarray):
        if operand._device != _current.device:
            message = (
                f"The device where the array resides ({operand._device}) is different from the current device "
                f"({_current.device}). Peer access has been activated automatically."
            )
            warnings.warn(message, PerformanceWarning, stacklevel=3)
        return operand._values
    if not isinstance(operand, bool | int | float | complex | np.generic):
        raise TypeError(f"Unsupported type {type(operand)}")
    return operand


def _launch(name, function, *operands, **kwargs):
    """The result of a kernel: a new array in C order."""
    operands = [_near(operand) for operand in operands]
    with np.errstate(all="ignore"):
        values = np.asarray(function(*operands, **kwargs))
    _count("kernel", name, *operands, values)
    return _owned(values if values.flags.owndata and values.flags.c_contiguous else values.copy("C"))


def _assign(target, value):
    if not isinstance(value, ndarray):
        target.fill(value)
        return
    with np.errstate(all="ignore"):
        _near(target)[...] = _near(value)
    _count("copy", "assignment", target._values, value._values)


def _index(slices):
    """An index for NumPy that gives a view where there is one, and the mask or the indices in it, or None."""
    slices = slices if isinstance(slices, tuple) else (slices,)
    slices = [array(one) if isinstance(one, np.ndarray | list) else one for one in slices]
    chosen = next((one for one in slices if isinstance(one, ndarray)), None)
    where = [_near(one) if isinstance(one, ndarray) else one for one in slices]
    return tuple(where if any(one is ... for one in where) else [*where, ...]), chosen


# Element by element.


class ufunc:
    def __init__(self, name):
        self.__name__, self._function = name, getattr(np, name)

    def __call__(self, *args, out=None, dtype=None):
        if out is None:
            return _launch(self.__name__, self._function, *args, dtype=dtype)
        values = [_near(one) for one in args]
        with np.errstate(all="ignore"):
            self._function(*values, out=_near(out), dtype=dtype, casting="same_kind")
        _count("kernel", self.__name__, *values, out._values)
        return out


NAMES = (
    *("absolute", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "bitwise_and", "conj"),
    *("exp", "invert", "isfinite", "isnan", "left_shift", "log", "logical_and", "logical_not", "negative"),
    "right_shift",
)
OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "pow": "power", "lt": "less",
    "le": "less_equal", "eq": "equal", "ne": "not_equal", "gt": "greater", "ge": "greater_equal",
}  # fmt: skip
UFUNCS = {name: ufunc(name) for name in (*NAMES, *OPERATORS.values())} | {"abs": ufunc("absolute")}
for _operator, _name in OPERATORS.items():
    setattr(ndarray, f"__{_operator}__", lambda self, other, f=UFUNCS[_name]: f(self, other))
    setattr(ndarray, f"__r{_operator}__", lambda self, other, f=UFUNCS[_name]: f(other, self))
    setattr(ndarray, f"__i{_operator}__", lambda self, other, f=UFUNCS[_name]: f(self, other, out=self))
for _operator, _name in {"neg": "negative", "abs": "absolute", "invert": "invert"}.items():
    setattr(ndarray, f"__{_operator}__", lambda self, f=UFUNCS[_name]: f(self))


# Functions, each with CuPy's signature. Arrays are made on the current device.


def full(shape, fill_value, dtype=None, order="C"):
    made = ndarray(shape, np.asarray(fill_value).dtype if dtype is None else dtype, order=order)
    made.fill(fill_value)
    return made


def full_like(a, fill_value, dtype=None, order="K", subok=None, shape=None):
    _only(subok is None, "subclasses")
    made = _owned(np.empty_like(a._values, dtype, order, shape=shape))
    made.fill(fill_value)
    return made


def arange(start, stop=None, step=1, dtype=None):
    return _launch("arange", lambda: np.arange(*((start,) if stop is None else (start, stop, step)), dtype=dtype))


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    _only(not (subok or ndmin or blocking), "other ways to make arrays")
    if isinstance(obj, ndarray):
        dtype = obj.dtype if dtype is None else dtype
        here = obj._device == _current.device
        return obj.astype(dtype, order or "K", copy=copy) if here else obj.copy(order or "K").astype(dtype, copy=False)
    values = np.array(obj, dtype=dtype, order=order or "K")
    _supported(values.dtype)
    _count("h2d" if values.ndim else "kernel", "array")
    return _owned(values)


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, bool(copy), order, blocking=blocking)


def broadcast_to(array, shape):
    view = np.broadcast_to(array._values, shape)
    return array._view(np.lib.stride_tricks.as_strided(array._values, view.shape, view.strides))


def as_strided(x, shape=None, strides=None):
    """A view, but none that leaves the memory: CuPy would give it, too."""
    offset = x._values.__array_interface__["data"][0] - x._bytes.__array_interface__["data"][0]
    return x._view(np.ndarray(shape, x.dtype, x._bytes, 0 if 0 in shape else offset, strides))


def concatenate(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
    _only(out is None and casting == "same_kind", "other ways to concatenate")
    made = _launch("concatenate", lambda *values: np.concatenate(values, axis, dtype=dtype), *tup)
    if len(tup) > 8 and made.nbytes < 2**21 * len(tup):
        _count("h2d", "concatenate sends the addresses of more than 8 small arrays")
    return made


def stack(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
    arrays = [one._view(np.expand_dims(one._values, axis)) for one in tup]
    return concatenate(arrays, axis, out, dtype=dtype, casting=casting)


def take(a, indices, axis=None, out=None):
    """Indices out of bounds wrap around."""
    _only(out is None, "take into an array")
    indices = indices if isinstance(indices, ndarray | int) else array(indices, dtype=int)
    length = a.size if axis is None else a.shape[axis]
    if not length and np.size(_near(indices)):
        raise IndexError("cannot do a non-empty take from an empty axes.")
    return _launch("take", lambda values, where: np.take(values, where % max(length, 1), axis), a, indices)


def where(condition, x=None, y=None):
    _only(x is not None and y is not None, "where as nonzero")
    return _launch("where", np.where, condition, x, y)


def _reduced(name, a, axis, dtype, out, keepdims):
    """A reduction. Halves are summed in float32."""
    _only(out is None, "reductions into an array")
    function, kwargs = getattr(np, name), {} if dtype is None else {"dtype": dtype}
    dtype = np.dtype(a.dtype if dtype is None else dtype)
    if name in ("sum", "mean") and dtype in HALVES:
        return _launch(name, lambda x: function(x, axis, dtype="float32", keepdims=keepdims).astype(dtype), a)
    return _launch(name, function, a, axis=axis, keepdims=keepdims, **kwargs)


def _summing(name):
    return lambda a, axis=None, dtype=None, out=None, keepdims=False: _reduced(name, a, axis, dtype, out, keepdims)


def _choosing(name):
    return lambda a, axis=None, out=None, keepdims=False: _reduced(name, a, axis, None, out, keepdims)


def matmul(
    *args, axes=None, axis=None, keepdims=False, casting="same_kind", dtype=None, signature=None, order="K", out=None
):
    """By the ways that CuPy goes: matrices in either order as they are, batches of them in C order and in float32."""
    defaults = (None, None, False, "same_kind", None, None, "K", None)
    _only((axes, axis, keepdims, casting, dtype, signature, order, out) == defaults, "other ways to multiply matrices")
    a, b = args
    if not isinstance(a, ndarray) or not isinstance(b, ndarray):
        raise TypeError(f"Unsupported types {type(a)} and {type(b)}")
    dtype, batched = np.promote_types(a.dtype, b.dtype), max(a.ndim, b.ndim) > 2
    work = np.dtype("float32") if dtype in HALVES else dtype
    if batched and dtype == BFLOAT16:
        raise TypeError("bfloat16 is not supported by batched matmul")
    for one in args:
        if one.dtype != (work if batched else dtype) or not one._values.flags["C" if batched else "FORC"]:
            _count("copy", "an operand of matmul", one._values, one._values)
    with np.errstate(all="ignore"):
        values = np.asarray(np.matmul(*(_near(one).astype(dtype).astype(work) for one in args)))
    kind = "gemm-strided" if a.shape[:-2] == b.shape[:-2] else "gemm-pointers"
    kind = "gemm-int" if dtype.kind in "biu" else kind if batched else "gemm"
    _count(kind, f"matmul of {dtype}", a._values, b._values, values)
    return _owned(np.array(values, dtype=dtype, order="C"))


ndarray.__matmul__ = lambda self, other: matmul(self, other)
ndarray.__rmatmul__ = lambda self, other: matmul(other, self)


def _transform(name):
    def transform(a, s=None, axes=None, norm=None):
        """In the precision that it has in CuPy; it has the results' values, not their layout."""
        real = np.dtype("float32" if a.dtype.char in "efF" else "float64")
        operand = a.astype(real if name == "rfftn" else np.promote_types(real, "complex64"), copy=False)
        values = getattr(np.fft, name)(_near(operand), s, axes, norm)
        _count("fft", name, operand._values, values)
        return _owned(values.copy("C"))

    return transform


REDUCTIONS = {name: _summing(name) for name in ("sum", "mean", "argmax")}
REDUCTIONS |= {name: _choosing(name) for name in ("max", "min", "any", "all")}
for _name in ("sum", "mean", "max", "min", "any", "all"):
    setattr(ndarray, _name, REDUCTIONS[_name])
TRANSFORMS = {name: _transform(name) for name in ("fftn", "ifftn", "rfftn", "irfftn")}
FUNCTIONS = {
    **UFUNCS,
    **REDUCTIONS,
    "empty": lambda shape, dtype=float, order="C": ndarray(shape, dtype, order=order),
    "zeros": lambda shape, dtype=float, order="C": full(shape, 0, dtype, order),
    "ones": lambda shape, dtype=float, order="C": full(shape, 1, dtype, order),
    "full": full,
    "zeros_like": lambda a, dtype=None, order="K", subok=None, shape=None: full_like(a, 0, dtype, order, subok, shape),
    "ones_like": lambda a, dtype=None, order="K", subok=None, shape=None: full_like(a, 1, dtype, order, subok, shape),
    "full_like": full_like,
    "arange": arange,
    "array": array,
    "asarray": asarray,
    "reshape": lambda a, newshape, order="C", *, copy=None: a.reshape(newshape, order=order, copy=copy),
    "transpose": lambda a, axes=None: a.transpose(axes),
    "swapaxes": lambda a, axis1, axis2: a.swapaxes(axis1, axis2),
    "moveaxis": lambda a, source, destination: a._view(np.moveaxis(a._values, source, destination)),
    "flip": lambda a, axis=None: a._view(np.flip(a._values, axis)),
    "broadcast_to": broadcast_to,
    "concatenate": concatenate,
    "stack": stack,
    "take": take,
    "astype": lambda x, dtype, /, *, copy=True: x.astype(dtype, copy=copy),
    "real": lambda val: val.real,
    "imag": lambda val: val.imag,
    "count_nonzero": lambda a, axis=None: _reduced("count_nonzero", a, axis, None, None, False),
    "matmul": matmul,
    "result_type": lambda *arrays_and_dtypes: np.result_type(*arrays_and_dtypes),
    "where": where,
}


# Kernels.


class RawKernel:
    def __init__(
        self,
        code,
        name,
        options=(),
        backend="nvrtc",
        translate_cucomplex=False,
        *,
        enable_cooperative_groups=False,
        jitify=None,
    ):
        others = (options, backend, translate_cucomplex, enable_cooperative_groups, jitify)
        _only(others == ((), "nvrtc", False, False, None), "other ways to compile kernels")
        self.code, self.name = code, name

    def __call__(self, grid, block, args, *, shared_mem=0):
        _only(shared_mem == 0, "shared memory")
        host_kernels.launch(self.code, self.name, grid, block, [_near(one) for one in args])
        _count("kernel", self.name, *(one._values for one in args if isinstance(one, ndarray)))


# The modules.


class _Absent:
    """What other libraries expect to find in CuPy, and no test calls."""

    def __call__(self, *_, **__):
        raise NotImplementedError("the stand-in for CuPy lacks this")


OF_NUMPY = (
    *("bool_", "int8", "int16", "int32", "int64", "intp", "uint8", "uint16", "uint32", "uint64", "float16", "float32"),
    *("float64", "complex64", "complex128", "dtype", "finfo", "iinfo", "isdtype", "issubdtype", "integer", "pi"),
)


def modules():
    """CuPy's modules as far as they are here, by name."""
    contents = {
        "cupy": {"__version__": "14.2.0+standin", "ndarray": ndarray, "RawKernel": RawKernel}
        | {name: getattr(np, name) for name in OF_NUMPY}
        | {name: _Absent() for name in ("round", "tensordot")}
        | FUNCTIONS,
        "cupy._util": {"PerformanceWarning": PerformanceWarning},
        "cupy.cuda": {"Device": Device, "Stream": Stream, "get_current_stream": _current_stream}
        | {"Event": Event, "MemoryHook": MemoryHook, "get_elapsed_time": get_elapsed_time},
        "cupy.cuda.device": {"Device": Device},
        "cupy.fft": TRANSFORMS,
        "cupy.linalg": {"lstsq": _Absent()},
        "cupy.lib": {},
        "cupy.lib.stride_tricks": {"as_strided": as_strided},
    }
    made = {name: ModuleType(name) for name in contents}
    for name, module in made.items():
        vars(module).update(contents[name], __path__=[])
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(made[parent], child, module)
    return made


def install():
    """Take CuPy's place; a second time is as good as one."""
    if "cupy" not in sys.modules:
        sys.modules.update(modules())
    elif not stands_for(sys.modules["cupy"]):
        raise ImportError("the stand-in cannot take CuPy's place: CuPy itself has been imported")


def stands_for(module):
    """Whether a module is the stand-in, and not CuPy itself."""
    return getattr(module, "ndarray", None) is ndarray


if __name__ == "__main__":  # run a program with the stand-in: python cupy_standin.py [-m] program.py arguments
    install()
    sys.argv.pop(0)
    if sys.argv[0] == "-m":
        sys.argv.pop(0)
        runpy.run_module(sys.argv[0], run_name="__main__")
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
