import numpy as np
from keras.src.backend.numpy import nn

import xpconv


def prepared(inputs, kernel, strides, dilation_rate, data_format):
    x, kernel = nn.convert_to_tensor(inputs), nn.convert_to_tensor(kernel)
    channel_axis = -1 if nn.backend.standardize_data_format(data_format) == "channels_last" else 1
    weight = np.moveaxis(kernel, (-1, -2), (0, 1))  # from (*kernel, in, out), and transposed (*kernel, out, in)
    return x, weight, {"stride": strides, "dilation": dilation_rate, "channel_axis": channel_axis}


def conv(inputs, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1):
    x, weight, options = prepared(inputs, kernel, strides, dilation_rate, data_format)
    return xpconv.conv(
        x, weight, padding=padding, groups=x.shape[options["channel_axis"]] // weight.shape[1], **options
    )


def depthwise_conv(inputs, kernel, *options, **more):
    return conv(inputs, np.reshape(kernel, (*kernel.shape[:-2], 1, -1)), *options, **more)


def conv_transpose(inputs, kernel, strides=1, padding="valid", output_padding=None, data_format=None, dilation_rate=1):
    x, weight, options = prepared(inputs, kernel, strides, dilation_rate, data_format)
    sizes = x.shape, kernel.shape, strides, padding, output_padding, dilation_rate
    added = np.asarray(nn.compute_conv_transpose_padding_args_for_jax(*sizes))  # to all that a kernel reaches, less
    crop = (np.asarray(dilation_rate) * (np.asarray(weight.shape[2:]) - 1))[:, None] - added
    return xpconv.conv_transpose(x, weight, padding=crop, **options)


for function in (conv, depthwise_conv, conv_transpose):
    setattr(nn, function.__name__, function)
