import numpy as np
from onnx.reference.op_run import OpRun

from xpconv import conv, conv_transpose, conv_transpose_output_size, fold

PADDING = {"VALID": "valid", "SAME_UPPER": "same", "SAME_LOWER": "same_lower"}


def centred(array, zero):
    """Without the zero point, one or one for each filter, and in 16 bits, so that nothing wraps around."""
    return array - np.reshape(zero, (-1, *[1] * (array.ndim - 1))).astype("int16")


class Conv(OpRun):
    xp = np  # the library to compute with: NumPy or CuPy

    def of(self, function, *arrays, **options):
        y = function(*(array if array is None else self.xp.asarray(array) for array in arrays), **options)
        return (y if self.xp is np else y.get(),)

    def options(self, auto_pad=None, dilations=None, group=None, pads=None, strides=None, **_):
        padding = PADDING.get(auto_pad, np.reshape(pads, (2, -1)).T if pads else 0)
        groups = {"groups": group} if group else {}
        return groups | {"padding": padding, "stride": strides or 1, "dilation": dilations or 1}

    def _run(self, x, w, b=None, **attributes):
        return self.of(conv, x, w, b, **self.options(**attributes))


class ConvTranspose(Conv):
    def _run(self, x, w, b=None, output_padding=None, output_shape=None, **attributes):
        options = self.options(**attributes) | {"output_padding": output_padding or 0}
        if output_shape:  # what is too much is cropped, the odd element at the start or at the end
            longest = conv_transpose_output_size(x.shape[2:], w.shape[2:], **options | {"padding": 0})
            excess = np.subtract(longest, output_shape)
            start = (excess + (attributes["auto_pad"] != "SAME_UPPER")) // 2
            options["padding"] = np.stack((start, excess - start), axis=1)
        return self.of(conv_transpose, x, w, b, **options)


class ConvInteger(Conv):
    def _run(self, x, w, x_zero=0, w_zero=0, **attributes):
        return self.of(conv, centred(x, x_zero), centred(w, w_zero), dtype="int32", **self.options(**attributes))


class QLinearConv(Conv):
    def _run(self, x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, b=None, **attributes):
        (y,) = self.of(conv, centred(x, x_zero), centred(w, w_zero), b, dtype="int32", **self.options(**attributes))
        y = np.rint(y * np.reshape(x_scale * w_scale / y_scale, (-1, *[1] * (w.ndim - 2)))) + y_zero
        return (np.clip(y, np.iinfo(y_zero.dtype).min, np.iinfo(y_zero.dtype).max).astype(y_zero.dtype),)


class Col2Im(Conv):
    def _run(self, columns, image_shape, block_shape, **attributes):
        return self.of(fold, columns, image_shape, block_shape, **self.options(**attributes))
