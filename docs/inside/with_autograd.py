from autograd.extend import defjvp, defvjp, primitive

import xpconv

# autograd conjugates nothing, so what our gradients conjugate is conjugated before.
conv = primitive(xpconv.conv)
to_x = primitive(lambda dy, w, shape, **o: xpconv.conv_input_grad(dy, w.conj(), input_size=shape[2:], **o))
to_w = primitive(lambda dy, x, shape, **o: xpconv.conv_weight_grad(dy, x.conj(), kernel_size=shape[2:], **o))


def define(function, *gradients):
    """Linear in each of two arrays: forward mode is the function itself, and backward mode two others."""
    defjvp(function, "same", "same")
    defvjp(function, *(lambda _y, a, b, *_, f=f, **o: lambda g: f(g, a, b, o) for f in gradients))


define(conv, lambda dy, x, w, o: to_x(dy, w, x.shape, **o), lambda dy, x, w, o: to_w(dy, x, w.shape, **o))
define(to_x, lambda u, _, w, o: conv(u, w, **o), lambda u, dy, w, o: to_w(dy, u, w.shape, **o))
define(to_w, lambda v, _, x, o: conv(x, v, **o), lambda v, dy, x, o: to_x(dy, v, x.shape, **o))
