"""Filters of each sample and of each place against JAX's, and a stream in its loop.

The numbers are whole, so that every sum is exact.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from support import whole_numbers

from xpconv import conv, conv_stream, local_conv, local_conv_backward, local_conv_transpose, options

LOCAL = {
    "1-D": ((2, 3, 7), (4, 3, 3), {"stride": (2,), "padding": ((1, 1),), "dilation": (1,)}),
    "2-D": ((2, 2, 6, 5), (3, 2, 3, 2), {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2)}),
}


@pytest.mark.parametrize("name", LOCAL)
def test_local_as_jax(rng, name):
    x_shape, w_shape, said = LOCAL[name]
    kernel = w_shape[2:]

    def by_jax(x, w):  # its weight is (out, in * taps, *out positions)
        w = w.reshape(w.shape[0], -1, *w.shape[2 + len(kernel) :])
        stride, padding, dilation = said.values()
        return lax.conv_general_dilated_local(x, w, stride, padding, kernel, rhs_dilation=dilation)

    out = jax.eval_shape(
        lambda x, w: lax.conv_general_dilated(x, w, said["stride"], said["padding"], rhs_dilation=said["dilation"]),
        *(jax.ShapeDtypeStruct(shape, "float32") for shape in (x_shape, w_shape)),
    ).shape
    dy, x, w = (jnp.asarray(whole_numbers(rng, shape)) for shape in (out, x_shape, (*w_shape, *out[2:])))

    @jax.jit  # all compiled at once: that is what takes the time
    def both(dy, x, w):
        y, pull = jax.vjp(by_jax, x, w)
        made, ours = jax.vjp(lambda x, w: local_conv(x, w, **said), x, w)
        transposed = local_conv_transpose(dy, w, output_size=x_shape[2:], **said)
        written = local_conv(x, w, **said), *local_conv_backward(dy, x, w, **said)[:2]
        return (y, *pull(dy)), (made, *ours(dy)), written, transposed

    with options(method="lowering"):
        theirs, taped, written, transposed = both(dy, x, w)
    for ours in (taped, written):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(transposed, theirs[1])


def test_per_sample_as_jax_maps_it(rng):
    said = {"stride": (2, 1), "padding": ((1, 1), (0, 1))}
    x, w = (jnp.asarray(whole_numbers(rng, shape)) for shape in ((3, 4, 6, 5), (3, 6, 2, 3, 2)))

    def by_jax(x, w):
        return jax.vmap(lambda x, w: lax.conv_general_dilated(x[None], w, *said.values(), feature_group_count=2)[0])(
            x, w
        )

    with options(method="lowering"):
        y, pull = jax.vjp(jax.jit(lambda x, w: conv(x, w, groups=2, per_sample=True, **said)), x, w)
        expected, theirs = jax.vjp(by_jax, x, w)
        dy = jnp.asarray(whole_numbers(rng, y.shape))
        for one, other in zip((y, *pull(dy)), (expected, *theirs(dy)), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_stream_in_a_loop(rng):
    """In `lax.scan` the state has one shape for all blocks; mapped over streams, and differentiated."""
    x, w = (jnp.asarray(whole_numbers(rng, shape)) for shape in ((2, 1, 3, 24), (4, 3, 4)))
    said = {"stride": 2, "dilation": 2}

    def scanned(x, w):
        def step(state, block):
            y, state = conv_stream(block, w, state=state, **said)
            return state, y

        blocks = jnp.moveaxis(x.reshape(*x.shape[:2], 6, 4), 2, 0)
        state, ys = lax.scan(step, jnp.zeros((*x.shape[:2], 6)), blocks)
        return jnp.moveaxis(ys, 0, 2).reshape(x.shape[0], 4, 12), state

    with options(method="lowering"):
        y, state = jax.jit(jax.vmap(scanned, in_axes=(0, None)))(x, w)
        expected = jnp.stack([conv(one, w, padding="causal", **said) for one in x])
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(state, x[..., -6:])
        gradient = jax.grad(lambda x: (scanned(x, w)[0] ** 2).sum() / 2)(x[0])
        whole = jax.grad(lambda x: (conv(x, w, padding="causal", **said) ** 2).sum() / 2)(x[0])
        np.testing.assert_array_equal(gradient, whole)
