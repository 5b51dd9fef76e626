"""Sharpen a blurred brain, in chunks on a cluster: by a filter that is learned, and by descent on the volume itself.

python volume.py                                      a cluster of its own, one process for each core
python volume.py --scheduler tcp://192.168.0.1:8786   one that runs already: dask scheduler, dask worker

The volume is the MNI152 template, the mean of 152 brains seen by magnetic resonance, a number for each cubic
millimetre; nilearn brings it along. Blurred and with noise it is the data of two problems of least squares:

    the filter f  with  conv(blurred, f) = brain     by gradients of the weight
    the volume v  with  conv(v, blur) = blurred      by gradients of the input

Conjugate gradients solve both. A step is a convolution of all chunks, and its adjoint.
"""

import argparse
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster
from matplotlib.figure import Figure
from nilearn.datasets import load_mni152_template
from tqdm import tqdm

from xpconv import conv, conv_input_grad, conv_weight_grad

SAME = {"padding": "same", "padding_mode": "replicate"}
SIZE = (197, 233, 189)
FILTER = (7, 7, 7)


def load():
    """The template, from 0 to 1; a worker reads it, so that it is not sent to any."""
    brain = load_mni152_template(resolution=1).get_fdata(dtype="float32")
    return (brain / brain.max())[None, None]


def gaussian(size, width):
    """A blur, (1, 1, size, size, size), whose weights sum to one."""
    line = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * width**2))
    cube = line[:, None, None] * line[:, None] * line
    return (cube / cube.sum()).astype("float32")[None, None]


def product(a, b):
    return da.sum(da.asarray(a) * b, dtype="float64")


def least_squares(forward, adjoint, target, start, steps, name):
    """Conjugate gradients: `steps` from the start towards the least |forward(u) - target|."""
    u, residual = start, (target - forward(start)).persist()
    gradient = adjoint(residual).persist()
    direction, slope = gradient, float(product(gradient, gradient))
    bar = tqdm(range(steps), desc=name, unit="step")
    for _ in bar:
        image = forward(direction).persist()
        length = np.float32(slope / float(product(image, image)))
        u, residual = dask.persist(u + length * direction, residual - length * image)
        gradient = adjoint(residual).persist()
        old, (slope, left) = slope, map(float, dask.compute(product(gradient, gradient), product(residual, residual)))
        direction = (gradient + np.float32(slope / old) * direction).persist()
        bar.set_postfix(residual=f"{(left / target.size) ** 0.5:.4f}")
    return u


def draw(pictures, path):
    """The same slice of each volume."""
    figure = Figure(figsize=(3 * len(pictures), 3.6), layout="constrained")
    for axes, (title, picture) in zip(figure.subplots(1, len(pictures)), pictures.items(), strict=True):
        axes.imshow(picture.T, cmap="gray", origin="lower", vmin=0, vmax=1)
        axes.set_title(title)
        axes.axis("off")
    figure.savefig(path, dpi=120)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a cluster that runs already")
    parser.add_argument("--chunk", type=int, default=100, help="the edge of a chunk (100)")
    parser.add_argument("--steps", type=int, default=8, help="for each of the two (8)")
    parser.add_argument("--figure", type=Path, default=Path("volume.png"), help="where to draw (volume.png)")
    chosen = parser.parse_args(arguments)
    if not chosen.figure.resolve().parent.is_dir():
        parser.error(f"--figure must be in a folder that exists: got {chosen.figure}")

    own = LocalCluster(threads_per_worker=1, dashboard_address=":0") if chosen.scheduler is None else None
    # Fused tasks may have other contents under the same names in the next graph, and the scheduler warns of that.
    without_fusion = dask.config.set({"optimization.fuse.active": False})
    with without_fusion, Client(own or chosen.scheduler) as client:
        brain = da.from_delayed(dask.delayed(load)(), (1, 1, *SIZE), "float32").rechunk((1, 1, *[chosen.chunk] * 3))
        brain = brain.persist()
        noise = da.random.default_rng(0).normal(0, 0.01, brain.shape, chunks=brain.chunks).astype("float32")
        blur = gaussian(9, 1.5)
        blurred = (conv(brain, blur, **SAME) + noise).persist()
        workers = len(client.scheduler_info()["workers"])
        print(f"{brain.size / 1e6:.1f} million voxels in {brain.npartitions} chunks, {workers} workers")

        start = time.perf_counter()
        kernel = least_squares(
            lambda f: conv(blurred, f, **SAME),
            lambda dy: conv_weight_grad(dy, blurred, kernel_size=FILTER, **SAME),
            brain,
            np.zeros((1, 1, *FILTER), "float32"),
            chosen.steps,
            "filter",
        )
        volume = least_squares(
            lambda v: conv(v, blur, **SAME),
            lambda dy: conv_input_grad(dy, blur, input_size=brain.shape[2:], **SAME),
            blurred,
            blurred,
            chosen.steps,
            "volume",
        )
        seconds = time.perf_counter() - start

        versions = {
            "the brain": brain,
            "blurred, with noise": blurred,
            "by the learned filter": conv(blurred, kernel, **SAME),
            "by descent": volume,
        }
        errors = [da.sqrt(da.mean((version - brain) ** 2)) for version in versions.values()]
        slices = [version[0, 0, :, :, brain.shape[4] // 2] for version in versions.values()]
        errors, slices = dask.compute(errors, slices)
        for name, error in zip(versions, errors, strict=True):
            print(f"{name}: off by {error:.4f}")
        draw(dict(zip(versions, slices, strict=True)), chosen.figure)
        print(f"{2 * chosen.steps} steps in {seconds:.0f} s; see {chosen.figure}")
    if own is not None:
        own.close()


if __name__ == "__main__":
    main()
