import sigpy.conv

from xpconv import conv, conv_input_grad, conv_weight_grad


def with_channel(array, axes):
    return array.reshape((*array.shape[:-axes], 1, *array.shape[-axes:]))


def options(mode, strides):
    return {"padding": mode, "stride": strides or 1, "flip": True}


def convolve(data, filt, mode="full", strides=None, multi_channel=False):
    if not multi_channel:
        return convolve(with_channel(data, filt.ndim), filt[None, None], mode, strides, True).squeeze(-1 - filt.ndim)
    return conv(data, filt, **options(mode, strides))


def convolve_data_adjoint(output, filt, data_shape, mode="full", strides=None, multi_channel=False):
    output, filt = (output, filt) if multi_channel else (with_channel(output, filt.ndim), filt[None, None])
    dx = conv_input_grad(output, filt, input_size=data_shape[2 - filt.ndim :], **options(mode, strides))
    return dx.reshape(data_shape)


def convolve_filter_adjoint(output, data, filt_shape, mode="full", strides=None, multi_channel=False):
    output, data = (a if multi_channel else with_channel(a, len(filt_shape)) for a in (output, data))
    dw = conv_weight_grad(output, data, kernel_size=filt_shape[2 * multi_channel :], **options(mode, strides))
    return dw.reshape(filt_shape)


for function in (convolve, convolve_data_adjoint, convolve_filter_adjoint):
    setattr(sigpy.conv, function.__name__, function)
