import sigpy.conv

from xpconv import conv, conv_input_grad, conv_weight_grad


def with_channel(array, axes):
    return array.reshape((*array.shape[:-axes], 1, *array.shape[-axes:]))


def convolve(data, filt, mode="full", strides=None, multi_channel=False):
    if not multi_channel:
        y = convolve(with_channel(data, filt.ndim), filt[None, None], mode, strides, True)
        return y.squeeze(-1 - filt.ndim)
    return conv(data, filt, padding=mode, stride=strides or 1, flip=True)


def convolve_data_adjoint(output, filt, data_shape, mode="full", strides=None, multi_channel=False):
    if not multi_channel:
        output, filt = with_channel(output, filt.ndim), filt[None, None]
    size = data_shape[2 - filt.ndim :]
    dx = conv_input_grad(output, filt, input_size=size, padding=mode, stride=strides or 1, flip=True)
    return dx.reshape(data_shape)


def convolve_filter_adjoint(output, data, filt_shape, mode="full", strides=None, multi_channel=False):
    if not multi_channel:
        output, data = (with_channel(array, len(filt_shape)) for array in (output, data))
    size = filt_shape[2 * multi_channel :]
    dw = conv_weight_grad(output, data, kernel_size=size, padding=mode, stride=strides or 1, flip=True)
    return dw.reshape(filt_shape)


for function in (convolve, convolve_data_adjoint, convolve_filter_adjoint):
    setattr(sigpy.conv, function.__name__, function)
