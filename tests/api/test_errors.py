"""Bad input: one sentence that names the argument, what was given and what is allowed, and nothing changed."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
import torch

from xpconv import (
    conv,
    conv_backward,
    conv_double_backward,
    conv_input_grad,
    conv_jvp,
    conv_output_size,
    conv_transpose,
    conv_transpose_backward,
    conv_weight_grad,
    fold,
    options,
    unfold,
)

X, W, DY = np.ones((2, 8, 5, 6)), np.ones((4, 8, 3, 3)), np.ones((2, 4, 3, 4))
PLAIN = "must be a plain array of a library that speaks the Array API: got"
NUMBERS = "must be of real or complex numbers of 16, 32 or 64 bits, or of integers: got"
BOOL = "; convert it first, to float32 for weighted sums or to int32 for counts"
ONE_DTYPE = (
    "must both be integers that one dtype holds, or both real or complex numbers, or go with a dtype for the result: "
    "got"
)
RANK = "axes (channels, 2 spatial; any number for the batch before them): got"
OPTIONS = "workers, workspace, method, precision, batch_invariant, finite"
FOLD = "columns, output_size, kernel_size, stride, padding, dilation, padding_mode, padding_value, channel_axis"
NAMES = (
    "x, weight, bias, stride, padding, dilation, groups, padding_mode, padding_value, input_dilation, flip, "
    "channel_axis, dtype, per_sample"
)
MODES = (
    "padding_mode must be one of 'zeros', 'reflect', 'replicate', 'circular', 'symmetric', 'constant', or a sequence "
    "of 2 of them: got"
)
CONSTANT = {"padding": 1, "padding_mode": "constant"}
CHANNELS = "channel_axis must be an integer from -4 to 3: got"
LIBRARY = "dtype must be one for numbers, of the operands' library: got"
LOSSLESS = "and hold all its numbers: got"
AXES = "must be an integer of at least 1, or a sequence of 2, one per spatial axis: got"
PADDING = (
    "padding must be 'valid', 'same', 'same_lower', 'full', 'causal', an integer, "
    "or 2 integers or (lo, hi) pairs, one per spatial axis: got"
)

NO_FIT = (
    "the kernel must fit into the padded input: on spatial axis 1 it spans 7 (3 taps, dilation 3), "
    "the padded input has 6"
)
TRACED = "; pass the array in it, and tell the library that traces it of the gradient: conv_backward's"


class DataArray:
    """As xarray has it: an array with names for its axes."""

    def __init__(self, values):
        self.data = values
        self.shape = values.shape

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.data, dtype=dtype, copy=copy)


class Sparse:
    """As scipy.sparse has it: `data` is all that is not zero."""

    def __init__(self, values):
        self.data, self.shape = values[values != 0], values.shape
        self.toarray = lambda: values


class ArrayBox:
    """As autograd has it: an array on a tape, which no function but autograd's own takes."""

    def __init__(self, values):
        self._value = values
        self.shape, self.ndim, self.dtype = values.shape, values.ndim, values.dtype


BAD_ARRAYS = [
    (TypeError, f"x {PLAIN} list; pass np.asarray(x)", lambda: conv([[1.0]], W)),
    (TypeError, f"x {PLAIN} NoneType", lambda: conv(None, W)),
    (TypeError, f"weight {PLAIN} float; pass np.asarray(weight)", lambda: conv(X, 1.0)),
    (TypeError, f"weight {PLAIN} numpy.float64; pass np.asarray(weight)", lambda: conv(X, np.float64(1.0))),
    (TypeError, f"bias {PLAIN} list; pass np.asarray(bias)", lambda: conv(X, W, [0.0] * 4)),
    (
        TypeError,
        f"x {PLAIN} numpy.ma.MaskedArray; fill it first, or pass its .data, which forgets the mask",
        lambda: conv(np.ma.ones(X.shape), W),
    ),
    (
        TypeError,
        f"weight {PLAIN} numpy.matrix; pass np.asarray(weight)",
        lambda: conv(X, np.ones((2, 2)).view(np.matrix)),
    ),
    (TypeError, f"x {PLAIN} {__name__}.DataArray; pass its .data", lambda: conv(DataArray(X), W)),
    (
        TypeError,
        f"x {PLAIN} {__name__}.DataArray; pass np.asarray(x)",
        lambda: conv(DataArray(np.ma.ones(X.shape)), W),
    ),
    (
        TypeError,
        f"dy {PLAIN} {__name__}.ArrayBox{TRACED}",
        lambda: conv_backward(ArrayBox(DY), X, W),
    ),
    (
        TypeError,
        f"x {PLAIN} {__name__}.Sparse; pass its .toarray()",
        lambda: conv(Sparse(X), W),
    ),
    (TypeError, f"dy {PLAIN} str", lambda: conv_backward("dy", X, W)),
    (TypeError, f"x {PLAIN} type", lambda: conv(np.ndarray, W)),
    (
        TypeError,
        f"x {PLAIN} torch.Tensor of layout torch.sparse_coo; pass its .to_dense()",
        lambda: conv(torch.ones(1, 1, 2).to_sparse(), torch.ones(1, 1, 2)),
    ),
    (TypeError, f"x must be of numbers: got bool{BOOL}", lambda: conv(X > 0, W > 0)),
    (TypeError, f"weight must be of numbers: got bool{BOOL}", lambda: conv(X, W > 0)),
    (TypeError, f"bias must be of numbers: got bool{BOOL}", lambda: conv(X, W, np.ones(4, dtype="bool"))),
    (TypeError, f"dy must be of numbers: got bool{BOOL}", lambda: conv_backward(DY > 0, X, W)),
    (
        TypeError,
        f"x must be of numbers: got torch.bool{BOOL}",
        lambda: conv(torch.ones(1, 1, 2) > 0, torch.ones(1, 1, 2)),
    ),
    (TypeError, f"x {NUMBERS} object", lambda: conv(X.astype(object), W)),
    (TypeError, f"x {NUMBERS} <U1", lambda: conv(X.astype("U1"), W)),
    (TypeError, f"weight {NUMBERS} datetime64[s]", lambda: conv(X, W.astype("int64").astype("M8[s]"))),
    (TypeError, f"x {NUMBERS} torch.float8_e5m2", lambda: conv(*(torch.ones(1, 1, 2).to(torch.float8_e5m2),) * 2)),
    (TypeError, f"x and weight {ONE_DTYPE} float64 and int64", lambda: conv(X, W.astype("int64"))),
    (TypeError, f"x and weight {ONE_DTYPE} int8 and uint64", lambda: conv(X.astype("int8"), W.astype("uint64"))),
    (
        TypeError,
        f"dy and weight {ONE_DTYPE} float32 and int8",
        lambda: conv_input_grad(DY.astype("float32"), W.astype("int8"), input_size=(5, 6)),
    ),
    (
        TypeError,
        f"dy and x {ONE_DTYPE} float64 and uint8",
        lambda: conv_weight_grad(DY, X.astype("uint8"), kernel_size=(3, 3)),
    ),
    (TypeError, "bias must have dtype float64: got int64", lambda: conv(X, W, np.zeros(4, dtype="int64"))),
    (
        TypeError,
        "bias must have dtype float32: got float64",
        lambda: conv(X.astype("float32"), W.astype("float32"), np.zeros(4)),
    ),
    (TypeError, "bias must have dtype float64: got complex128", lambda: conv(X, W, np.zeros(4) + 0j)),
    (
        TypeError,
        "bias must have dtype float32 or complex64: got float64",
        lambda: conv(X.astype("float32"), W.astype("complex64"), np.zeros(4)),
    ),
    (
        TypeError,
        "bias must have dtype int8 or int32: got uint32",
        lambda: conv(X.astype("int8"), W.astype("int8"), np.zeros(4, dtype="uint32"), dtype="int32"),
    ),
    (TypeError, "dy must have dtype float64: got float32", lambda: conv_backward(DY.astype("float32"), X, W)),
    (TypeError, "dy must have dtype complex128: got float64", lambda: conv_backward(DY, X, W + 0j)),
    (TypeError, "dy must have dtype float64: got complex128", lambda: conv_backward(DY + 0j, X, W)),
    (
        TypeError,
        "dy must have dtype float32: got float16",
        lambda: conv_backward(*(a.astype("float16") for a in (DY, X, W)), dtype="float32"),
    ),
    (TypeError, "tx must have dtype float64: got float32", lambda: conv_jvp(X.astype("float32"), None, None, X, W)),
    (TypeError, "tweight must have dtype float64: got complex128", lambda: conv_jvp(None, W + 0j, None, X, W)),
    (TypeError, "tbias must have dtype float64: got int64", lambda: conv_jvp(None, None, np.ones(4, "int64"), X, W)),
    (
        TypeError,
        "ddx must have dtype float64: got float32",
        lambda: conv_double_backward(X.astype("float32"), None, None, DY, X, W),
    ),
    (TypeError, "x and weight must have one library: got numpy and torch", lambda: conv(X, torch.asarray(W))),
    (
        TypeError,
        "dy and x must have one library: got array_api_strict and numpy",
        lambda: conv_weight_grad(array_api_strict.asarray(DY), X, kernel_size=(3, 3)),
    ),
    (
        TypeError,
        "x and weight must have one device: got cpu and meta",
        lambda: conv(torch.ones(1, 1, 2), torch.ones(1, 1, 2, device="meta")),
    ),
]

CONVOLVE = "arrays without channels are for convolve"
NO_CHANNELS = f"; a weight of 2 axes has no spatial axes: {CONVOLVE}"

BAD_SHAPES = [
    (
        ValueError,
        f"weight must have 8 input channels (8 in 1 groups): got 3{NO_CHANNELS}",
        lambda: conv(np.ones((9, 8)), np.ones((3, 3))),
    ),
    (
        ValueError,
        f"weight must have 8 input channels, as many as x: got 3{NO_CHANNELS}",
        lambda: conv_transpose(np.ones((9, 8)), np.ones((3, 3))),
    ),
    (
        ValueError,
        f"weight must have at least 2 axes (out channels, in channels / groups, *kernel): got 1; {CONVOLVE}",
        lambda: conv(X, np.ones(3)),
    ),
    (
        ValueError,
        f"x must have at least 3 {RANK} 2",
        lambda: conv(X[0, 0], W),
    ),
    (
        ValueError,
        "weight must have 8 input channels (8 in 1 groups): got 7",
        lambda: conv(X, W[:, :7]),
    ),
    (
        ValueError,
        "weight must have 4 input channels (8 in 2 groups): got 8",
        lambda: conv(X, W, groups=2),
    ),
    (
        ValueError,
        "groups must divide the input channels: got groups=3, 8 channels",
        lambda: conv(X, W, groups=3),
    ),
    (
        ValueError,
        "groups must divide the output channels: got groups=8, 4 channels",
        lambda: conv(X, W[:, :1], groups=8),
    ),
    (
        ValueError,
        NO_FIT,
        lambda: conv(X, W, dilation=(2, 3)),
    ),
    (
        ValueError,
        "the kernel must have at least one tap on each axis: got kernel size (3, 0)",
        lambda: conv(X, W[..., :0]),
    ),
    (
        ValueError,
        "padding must not crop more than there is: got (-7, 5) on spatial axis 1, which has 6",
        lambda: conv(X, W, padding=[(0, 0), (-7, 5)]),
    ),
    (ValueError, "bias must have shape (4,): got (3,)", lambda: conv(X, W, np.ones(3))),
    (ValueError, "bias must have shape (4,): got (4, 1)", lambda: conv(X, W, np.ones((4, 1)))),
    (ValueError, "dy must have shape (2, 4, 3, 4): got (2, 4, 3, 3)", lambda: conv_backward(DY[..., :3], X, W)),
    (ValueError, "dy must have shape (2, 4, 3, 4): got (1, 4, 3, 4)", lambda: conv_backward(DY[:1], X, W)),
    (ValueError, "dy must have shape (2, 4, 3, 4): got (4, 3, 4)", lambda: conv_backward(DY[0], X, W)),
    (ValueError, "dy must have shape (4, 3, 4): got (1, 4, 3, 4)", lambda: conv_backward(DY[:1], X[0], W)),
    (
        ValueError,
        "dy must have shape (2, 4, 5, 6): got (2, 4, 3, 4)",
        lambda: conv_input_grad(DY, W, input_size=(7, 8)),
    ),
    (
        ValueError,
        f"dy must have at least 3 {RANK} 1",
        lambda: conv_input_grad(np.ones(3), W, input_size=5),
    ),
    (
        ValueError,
        "dy must have shape (2, 4, 4, 5): got (2, 4, 3, 4)",
        lambda: conv_weight_grad(DY, X, kernel_size=(2, 2)),
    ),
    (
        ValueError,
        f"x must have at least 3 {RANK} 0",
        lambda: conv(np.ones(()), W, channel_axis=-1),
    ),
    (
        ValueError,
        f"dy must have at least 3 {RANK} 2",
        lambda: conv_weight_grad(DY[0, 0], X, kernel_size=(3, 3)),
    ),
    (ValueError, "dy must have shape (1, 2, 4, 3, 4): got (2, 4, 3, 4)", lambda: conv_backward(DY, X[None], W)),
    (
        ValueError,
        "dy must have shape (2, 5, 4, 1): got (2, 4, 1, 4)",
        lambda: conv_backward(np.ones((2, 4, 1, 4)), np.ones((2, 5, 6, 8)), np.ones((1, 8, 1, 3)), channel_axis=-1),
    ),
    (
        ValueError,
        "weight must have 6 input channels (6 in 1 groups): got 8",
        lambda: conv(X, W, channel_axis=-1),
    ),
    (ValueError, "tx must have shape (2, 8, 5, 6): got (8, 5, 6)", lambda: conv_jvp(X[0], None, None, X, W)),
    (
        ValueError,
        "ddweight must have shape (4, 8, 3, 3): got (4, 8, 3, 2)",
        lambda: conv_double_backward(None, W[..., :2], None, DY, X, W),
    ),
    (
        ValueError,
        "ddbias must have shape (4,): got (1,)",
        lambda: conv_double_backward(None, None, X[0, 0, 0, :1], DY, X, W),
    ),
]

ELEMENTS = "must lead to an array of less than 2**63 bytes: got one of shape"

TOO_LARGE = [
    (
        ValueError,
        f"padding and input_dilation {ELEMENTS} (2, 4, 2000000000000000003, 2000000000000000004)",
        lambda: conv(X, W, padding=10**18),
    ),
    (
        ValueError,
        f"padding and input_dilation {ELEMENTS} (2, 4, 399999999999999999999, 4)",
        lambda: conv(X, W, input_dilation=(10**20, 1)),
    ),
    *(
        (
            ValueError,
            f"stride, dilation, padding and output_size {ELEMENTS} (2, 4, 3, {5 * 10**n + 3})",
            lambda n=n: conv_transpose(X, np.ones((8, 4, 3, 3)), stride=(1, 10**n), padding=(2, 0)),
        )
        for n in (18, 25)
    ),
    (
        ValueError,
        f"input_size {ELEMENTS} (2, 8, 5, {2**65})",
        lambda: conv_input_grad(DY[..., :1], W, input_size=(5, 2**65), stride=(1, 2**65)),
    ),
    (
        ValueError,
        f"kernel_size {ELEMENTS} (4, 8, 3, {2**65})",
        lambda: conv_weight_grad(DY[..., :1], X, kernel_size=(3, 2**65), padding=[0, (2**65 - 6, 0)]),
    ),
    (ValueError, f"padding {ELEMENTS} (2, 8, 3, 3, {2**65 + 3}, {2**65 + 4})", lambda: unfold(X, 3, padding=2**64)),
    (
        ValueError,
        f"output_size {ELEMENTS} (2, 1, {2**65})",
        lambda: fold(np.ones((2, 2, 1)), 2**65, 2, stride=2**65),
    ),
]

BAD_PARAMETERS = [
    # torch says that any float casts to any other: asked of it alone, these would pass.
    *(
        (
            TypeError,
            f"dtype must be of the kind of x's {LOSSLESS} {wide} for {ours}",
            lambda ours=ours, wide=wide: conv(*(torch.ones(1, 1, 2).to(ours),) * 2, dtype=wide),
        )
        for ours, wide in (
            (torch.bfloat16, torch.float16),
            (torch.float16, torch.bfloat16),
            (torch.float64, torch.float32),
            (torch.complex128, torch.complex64),
            (torch.int64, torch.int8),
            (torch.uint8, torch.int8),
            (torch.int8, torch.uint8),
            (torch.int8, torch.uint32),
            (torch.uint32, torch.int32),
        )
    ),
    (ValueError, f"stride {AXES} 0", lambda: conv(X, W, stride=0)),
    (ValueError, f"stride {AXES} (1, -2)", lambda: conv(X, W, stride=(1, -2))),
    (ValueError, f"stride {AXES} (1, 1, 1)", lambda: conv(X, W, stride=(1, 1, 1))),
    (ValueError, f"stride {AXES} ()", lambda: conv(X, W, stride=())),
    (TypeError, f"stride {AXES} 1.0", lambda: conv(X, W, stride=1.0)),
    (TypeError, f"stride {AXES} nan", lambda: conv(X, W, stride=float("nan"))),
    (TypeError, f"stride {AXES} True", lambda: conv(X, W, stride=True)),
    (TypeError, f"stride {AXES} None", lambda: conv(X, W, stride=None)),
    (TypeError, f"stride {AXES} '12'", lambda: conv(X, W, stride="12")),
    (TypeError, f"stride {AXES} {{1, 2}}", lambda: conv(X, W, stride={1, 2})),
    (TypeError, f"stride {AXES} {b'12'!r}", lambda: conv(X, W, stride=b"12")),
    (TypeError, f"stride {AXES} array(1.5)", lambda: conv(X, W, stride=np.asarray(1.5))),
    (TypeError, f"stride {AXES} (1, nan)", lambda: conv(X, W, stride=(1, float("nan")))),
    (ValueError, f"dilation {AXES} 0", lambda: conv_backward(DY, X, W, dilation=0)),
    (TypeError, f"dilation {AXES} (1, 1.5)", lambda: conv(X, W, dilation=(1, 1.5))),
    (ValueError, "groups must be an integer of at least 1: got 0", lambda: conv(X, W, groups=0)),
    (
        ValueError,
        "groups must be an integer of at least 1: got -1",
        lambda: conv_input_grad(DY, W, input_size=5, groups=-1),
    ),
    (TypeError, "groups must be an integer of at least 1: got 2.0", lambda: conv(X, W, groups=2.0)),
    (TypeError, "groups must be an integer of at least 1: got (1, 1)", lambda: conv(X, W, groups=(1, 1))),
    (ValueError, f"{PADDING} 'Full' (did you mean 'full'?)", lambda: conv(X, W, padding="Full")),
    (ValueError, f"{PADDING} 'SAME' (did you mean 'same'?)", lambda: conv(X, W, padding="SAME")),
    (ValueError, f"{PADDING} 'SAME_UPPER' (did you mean 'same'?)", lambda: conv(X, W, padding="SAME_UPPER")),
    (ValueError, f"{PADDING} 'mirror'", lambda: conv(X, W, padding="mirror")),
    (ValueError, f"{PADDING} ''", lambda: conv(X, W, padding="")),
    (ValueError, f"{PADDING} [1, 1, 1]", lambda: conv(X, W, padding=[1, 1, 1])),
    (TypeError, f"{PADDING} ['same', 1]", lambda: conv(X, W, padding=["same", 1])),
    (ValueError, f"{PADDING} (1,)", lambda: conv(X, W, padding=(1,))),
    (ValueError, f"{PADDING} [(1, 2, 3), (0, 0)]", lambda: conv(X, W, padding=[(1, 2, 3), (0, 0)])),
    (TypeError, f"{PADDING} 0.5", lambda: conv(X, W, padding=0.5)),
    (TypeError, f"{PADDING} nan", lambda: conv(X, W, padding=float("nan"))),
    (TypeError, f"{PADDING} [(0, 0), (0, 0.5)]", lambda: conv(X, W, padding=[(0, 0), (0, 0.5)])),
    (TypeError, f"{PADDING} None", lambda: conv(X, W, padding=None)),
    (TypeError, f"{PADDING} array(0.5)", lambda: conv(X, W, padding=np.asarray(0.5))),
    (
        TypeError,
        f"conv has no parameter 'strides' (did you mean 'stride'?): it has {NAMES}",
        lambda: conv(X, W, strides=2),
    ),
    (TypeError, f"conv has no parameter 'w' (did you mean 'weight'?): it has {NAMES}", lambda: conv(X, w=W)),
    (
        TypeError,
        f"conv has no parameter 'pads' (did you mean 'padding'?), 'rates', 'kernel': it has {NAMES}",
        lambda: conv(X, W, pads=1, stride=1, rates=1, kernel=0),
    ),
    (
        TypeError,
        f"conv_output_size has no parameter 'mode' (did you mean 'padding_mode'?): it has {NAMES}".replace(
            "x, weight, bias", "input_size, kernel_size"
        ),
        lambda: conv_output_size(5, 3, mode="reflect"),
    ),
    (
        TypeError,
        f"conv_transpose has no parameter 'out_size' (did you mean 'output_size'?): it has {NAMES}".replace(
            "bias", "bias, output_padding, output_size"
        ),
        lambda: conv_transpose(X, X, out_size=X),
    ),
    (
        TypeError,
        f"fold has no parameter 'size' (did you mean 'output_size'?): it has {FOLD}",
        lambda: fold(X, size=3),
    ),
    (
        TypeError,
        f"options has no parameter 'worker' (did you mean 'workers'?): it has {OPTIONS}",
        lambda: options(worker=1),
    ),
    (ValueError, f"{MODES} 'mirror'", lambda: conv(X, W, padding=1, padding_mode="mirror")),
    (ValueError, f"{MODES} 'zeros, reflect'", lambda: conv(X, W, padding_mode="zeros, reflect")),
    (ValueError, f"{MODES} ('zeros', 'edge')", lambda: conv(X, W, padding=1, padding_mode=("zeros", "edge"))),
    (ValueError, f"{MODES} ('reflect',)", lambda: conv_backward(DY, X, W, padding_mode=("reflect",))),
    (ValueError, f"{MODES} ()", lambda: conv(X, W, padding_mode=())),
    (ValueError, f"{MODES} ['zeros', 'zeros', 'zeros']", lambda: conv(X, W, padding_mode=["zeros"] * 3)),
    (TypeError, f"{MODES} None", lambda: conv(X, W, padding_mode=None)),
    (TypeError, f"{MODES} 1", lambda: conv_input_grad(DY, W, input_size=(5, 6), padding_mode=1)),
    (TypeError, f"{MODES} ('reflect', 1)", lambda: conv(X, W, padding_mode=("reflect", 1))),
    (TypeError, f"{MODES} {{'zeros'}}", lambda: conv(X, W, padding_mode={"zeros"})),
    (
        ValueError,
        "padding_mode must be 'zeros' where input_dilation is not 1: got 'reflect' on spatial axis 1",
        lambda: conv(X, W, padding=1, padding_mode="reflect", input_dilation=(1, 2)),
    ),
    (
        ValueError,
        "padding_mode must be 'zeros' where input_dilation is not 1: got 'circular' on spatial axis 0",
        lambda: conv_transpose(
            X, np.ones((8, 4, 3, 3)), padding=1, padding_mode=("circular", "zeros"), input_dilation=(2, 1)
        ),
    ),
    (
        ValueError,
        "padding_mode must be 'zeros' where there is nothing to repeat: got 'circular' on spatial axis 1",
        lambda: conv(X[..., :0], W, padding=3, padding_mode="circular"),
    ),
    *(
        (TypeError, f"flip must be a bool: got {flip!r}", lambda flip=flip: conv(X, W, flip=flip))
        for flip in (1, 0, None, "yes", (True, False), np.True_)
    ),
    (TypeError, "flip must be a bool: got 'no'", lambda: conv_output_size(5, 3, flip="no")),
    *((ValueError, f"{CHANNELS} {axis}", lambda axis=axis: conv(X, W, channel_axis=axis)) for axis in (4, -5, 10**30)),
    # The range does not depend on how many batch axes there are.
    (ValueError, f"{CHANNELS} 4", lambda: conv(X[None], W, channel_axis=4)),
    (ValueError, f"{CHANNELS} -5", lambda: conv_input_grad(DY[0], W, input_size=(5, 6), channel_axis=-5)),
    (ValueError, f"{CHANNELS} 4", lambda: conv_weight_grad(DY, X, kernel_size=(3, 3), channel_axis=4)),
    *(
        (TypeError, f"{CHANNELS} {axis!r}", lambda axis=axis: conv(X, W, channel_axis=axis))
        for axis in (1.0, True, None, "last", (1,))
    ),
    (
        ValueError,
        "padding_value must be 0 where padding_mode is not 'constant': got 2.5, 'zeros'",
        lambda: conv(X, W, padding=1, padding_value=2.5),
    ),
    (
        ValueError,
        "padding_value must be 0 where padding_mode is not 'constant': got 1, ('zeros', 'symmetric')",
        lambda: conv_transpose(DY, W, padding=1, padding_mode=("zeros", "symmetric"), padding_value=1),
    ),
    *(
        (
            TypeError,
            f"padding_value must be a number: got {value!r}",
            lambda value=value: conv(X, W, padding_value=value),
        )
        for value in (None, "0", True, (1, 2), [0.0])
    ),
    (
        TypeError,
        "padding_value must be a number: got tensor(1.)",
        lambda: conv(torch.ones(1, 1, 2), torch.ones(1, 1, 2), padding_value=torch.tensor(1.0), **CONSTANT),
    ),
    *(
        (
            ValueError,
            f"padding_value must be a number that x's dtype has: got {value!r} for {dtype}",
            lambda value=value, dtype=dtype: conv(X.astype(dtype), W.astype(dtype), padding_value=value, **CONSTANT),
        )
        for value, dtype in (
            (1j, "float64"),
            (1e39, "float32"),
            (-1e39, "complex64"),
            (70000, "float16"),
            (256, "uint8"),
            (-1, "uint8"),
            (0.5, "int8"),
            (float("nan"), "int64"),
            (float("inf"), "int64"),
        )
    ),
    (
        ValueError,
        "padding_value must be a number that x's dtype has: got 3j for float64",
        lambda: conv_weight_grad(DY, X, kernel_size=(3, 3), padding_value=3j, **CONSTANT),
    ),
    (
        ValueError,
        "padding_mode must be 'zeros' where input_dilation is not 1: got 'constant' on spatial axis 0",
        lambda: conv(X, W, input_dilation=2, padding_value=3, **CONSTANT),
    ),
    (ValueError, f"input_dilation {AXES} 0", lambda: conv(X, W, input_dilation=0)),
    (ValueError, f"input_dilation {AXES} (2,)", lambda: conv(X, W, input_dilation=(2,))),
    (TypeError, f"input_dilation {AXES} 1.5", lambda: conv_backward(DY, X, W, input_dilation=1.5)),
    (TypeError, f"input_dilation {AXES} True", lambda: conv(X, W, input_dilation=True)),
    (
        ValueError,
        "input_dilation must be an integer of at least 1, or a sequence of 1, one per spatial axis: got -2",
        lambda: conv_output_size(5, 3, input_dilation=-2),
    ),
    *(
        (TypeError, f"{LIBRARY} {dtype!r}", lambda dtype=dtype: conv(X, W, dtype=dtype))
        for dtype in (3, [], {}, "wide", 1.5)
    ),
    (TypeError, f"{LIBRARY} 'bool'", lambda: conv(X, W, dtype="bool")),
    (TypeError, f"{LIBRARY} <class 'object'>", lambda: conv(X, W, dtype=object)),
    (TypeError, f"{LIBRARY} torch.float64", lambda: conv(X, W, dtype=torch.float64)),
    (TypeError, f"{LIBRARY} 'float64'", lambda: conv(torch.ones(1, 1, 2), torch.ones(1, 1, 2), dtype="float64")),
    (TypeError, f"{LIBRARY} torch.bool", lambda: conv(*(torch.ones(1, 1, 2),) * 2, dtype=torch.bool)),
    (
        TypeError,
        f"dtype must be of the kind of x's {LOSSLESS} float32 for float64",
        lambda: conv(X, W, dtype="float32"),
    ),
    (
        TypeError,
        f"dtype must be of the kind of x's {LOSSLESS} float16 for float64",
        lambda: conv(X, W, dtype=np.float16),
    ),
    (TypeError, f"dtype must be of the kind of x's {LOSSLESS} int64 for float64", lambda: conv(X, W, dtype="int64")),
    (
        TypeError,
        f"dtype must be of the kind of x's {LOSSLESS} complex128 for float64",
        lambda: conv(X, W, dtype="complex128"),
    ),
    (
        TypeError,
        f"dtype must be of the kind of x's {LOSSLESS} float64 for complex128",
        lambda: conv(X + 0j, W, dtype=float),
    ),
    (
        TypeError,
        f"dtype must be of the kind of weight's {LOSSLESS} float32 for float64",
        lambda: conv(X.astype("float32"), W, dtype="float32"),
    ),
    (
        TypeError,
        f"dtype must be of the kind of x's {LOSSLESS} complex64 for int8",
        lambda: conv(X.astype("int8"), W.astype("float32"), dtype="complex64"),
    ),
    (
        TypeError,
        f"dtype must be of the kind of x's {LOSSLESS} uint32 for int8",
        lambda: conv(X.astype("int8"), W.astype("uint8"), dtype="uint32"),
    ),
    (
        TypeError,
        f"dtype must be of the kind of weight's {LOSSLESS} int32 for uint32",
        lambda: conv(X.astype("int8"), W.astype("uint32"), dtype="int32"),
    ),
    (
        TypeError,
        "dtype must be of the kind of dy's: got complex128 for float64",
        lambda: conv_input_grad(DY, W, input_size=(5, 6), dtype="complex128"),
    ),
    (
        TypeError,
        "dtype must be of the kind of dy's: got int64 for float64",
        lambda: conv_weight_grad(DY, X, kernel_size=(3, 3), dtype="int64"),
    ),
    (
        TypeError,
        f"dtype must be of the kind of x's {LOSSLESS} float32 for float64",
        lambda: conv_transpose_backward(X, DY, W, dtype="float32"),
    ),
    (
        TypeError,
        "needs must be three bools, for dx, dweight and dbias: got (True, False)",
        lambda: conv_backward(DY, X, W, needs=(True, False)),
    ),
    (
        TypeError,
        "needs must be three bools, for dx, dweight and dbias: got True",
        lambda: conv_backward(DY, X, W, needs=True),
    ),
    (
        TypeError,
        "needs must be three bools, for dx, dweight and dbias: got (1, 0, 1)",
        lambda: conv_backward(DY, X, W, needs=(1, 0, 1)),
    ),
    (
        TypeError,
        "input_size must be an integer of at least 0, or a sequence of 1, one per spatial axis: got None",
        lambda: conv_output_size(None, 3),
    ),
    (
        ValueError,
        "input_size must be an integer of at least 0, or a sequence of 2, one per spatial axis: got (5,)",
        lambda: conv_input_grad(DY, W, input_size=(5,)),
    ),
    (
        TypeError,
        "kernel_size must be a sequence of integers of at least 1, one per spatial axis: got 3",
        lambda: conv_weight_grad(DY, X, kernel_size=3),
    ),
    (
        ValueError,
        "kernel_size must be a sequence of integers of at least 1, one per spatial axis: got (3, 0)",
        lambda: conv_weight_grad(DY, X, kernel_size=(3, 0)),
    ),
    (
        ValueError,
        "kernel_size must be an integer of at least 1, or a sequence of 2, one per spatial axis: got (3,)",
        lambda: conv_output_size((5, 5), (3,)),
    ),
    (
        TypeError,
        "input_size must be a sequence of integers of at least 0, one per spatial axis: got (5.0, 5)",
        lambda: conv_output_size((5.0, 5), 3),
    ),
]


@pytest.mark.parametrize(("error", "sentence", "call"), [*BAD_ARRAYS, *BAD_SHAPES, *TOO_LARGE, *BAD_PARAMETERS])
def test_sentence(error, sentence, call):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == sentence
    for array in (X, W, DY):
        assert (array == 1).all()


def test_two_devices_of_one_library():
    one, two = (array_api_strict.Device(name) for name in ("device1", "CPU_DEVICE"))
    x, weight = (array_api_strict.ones((1, 1, 2), dtype=array_api_strict.float32, device=d) for d in (one, two))
    with pytest.raises(TypeError) as caught:
        conv(x, weight)
    assert str(caught.value) == f"x and weight must have one device: got {one} and {two}"


def test_numpys_own_integers_are_integers():
    y = conv(X, W, stride=np.int64(2), padding=np.asarray([1, 0]), dilation=[np.uint8(1), 1], groups=np.int32(1))
    assert y.shape == (2, 4, 3, 2)
    assert conv(X, W, stride=np.asarray(2), padding=torch.tensor(1)).shape == (2, 4, 3, 3)
    assert conv(X, W, input_dilation=np.asarray([2, 3])).shape == (2, 4, 7, 14)


def test_numpys_own_integers_are_axes():
    assert conv(X, W[:, :6], channel_axis=np.int64(3)).shape == (2, 6, 3, 4)


def test_what_is_refused_once_is_refused_again():
    """What a call settles is remembered: an argument that is equal to an allowed one must not pass as that."""
    conv(X, W, stride=1, channel_axis=1, input_dilation=1, groups=1)
    conv(X, W, stride=(1, 1), padding_mode=("zeros", "zeros"))
    for name in ("stride", "dilation", "groups", "channel_axis", "input_dilation", "padding"):
        for value in (True, 1.0, (1.0, 1.0), (True, True)):
            for _ in range(2):
                with pytest.raises(TypeError, match=f"^{name} must be "):
                    conv(X, W, **{name: value})


class Traced:
    """An integer that has no value yet, as JAX's in a trace: its error is made of the array, not of a sentence."""

    class NoValue(TypeError):
        def __init__(self, array):
            super().__init__(array.text)

    text = "no value"

    def __index__(self):
        raise self.NoValue(self)


@pytest.mark.parametrize("name", ["stride", "padding", "dilation", "groups", "input_dilation", "channel_axis"])
def test_an_integer_without_a_value_gets_the_same_sentence(name):
    x = np.ones((1, 1, 5))
    with pytest.raises(TypeError, match=f"^{name} must be "):
        conv(x, x, **{name: Traced()})


def test_a_padding_of_pairs_may_be_an_array():
    """As a stride may be one. What it holds may change between two calls."""
    for make in (np.asarray, torch.tensor):
        pairs = make([[1, 2], [0, 3]])
        np.testing.assert_array_equal(conv(X, W, padding=pairs), conv(X, W, padding=[(1, 2), (0, 3)]))
        pairs[0, 0] = 3
        np.testing.assert_array_equal(conv(X, W, padding=pairs), conv(X, W, padding=[(3, 2), (0, 3)]))
        for wrong in (pairs[:1, :], pairs[:, :1], pairs[None, :, :]):
            with pytest.raises((TypeError, ValueError), match=r"^padding must be "):
                conv(X, W, padding=wrong)


@pytest.mark.parametrize("name", ["stride", "dilation", "input_dilation", "padding"])
def test_an_array_that_changes_is_another_parameter(name):
    sizes = torch.tensor([1, 1])
    conv(X, W, **{name: sizes})
    sizes[1] = 2
    np.testing.assert_array_equal(conv(X, W, **{name: sizes}), conv(X, W, **{name: (1, 2)}))
