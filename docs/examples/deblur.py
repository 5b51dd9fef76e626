"""A photograph that a shaking hand blurred, restored by SciPy's or CuPy's conjugate gradients over xpconv.

python deblur.py                    on the CPU, with NumPy and SciPy
python deblur.py --backend cupy     on the GPU, with CuPy and its solver; not a line changes

Blur and noise make of the picture v what is seen, b = A v + noise. The program looks for the picture with the least

    |A v - b|^2 + strength * (total variation of v)

where the total variation is the sum of all steps |D v| between neighbouring pixels: noise has many, edges are few. A
and D are convolutions. |D v| is no square, but it is |D v|^2 / |D v|: with the steps of the last round below the line
all is squares, and a round solves linear equations, with A and D and their adjoints.

The photograph is one of those that scikit-learn brings along.
"""

import argparse
from importlib import import_module
from math import prod
from pathlib import Path

import array_api_compat
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from tqdm import tqdm

from xpconv import conv, conv_input_grad, conv_output_size

SOLVERS = {"numpy": "scipy.sparse.linalg", "cupy": "cupyx.scipy.sparse.linalg"}
NOISE = 0.01
STEPS = [[[[-1, 1], [0, 0]]], [[[-1, 0], [1, 0]]]]  # (2, 1, 2, 2): to the right and down


def shake(size=15):
    """The blur, (1, 1, size, size): the path of a hand, brighter where it stays longer."""
    time = np.linspace(0, 1, 4000)
    down = 0.45 * size * np.sin(5 * time) * (1 - time / 2)
    right = 0.45 * size * (1.8 * time - 0.9 + 0.1 * np.sin(17 * time))
    edges = np.arange(size + 1) - size / 2
    path, *_ = np.histogram2d(down, right, bins=(edges, edges))
    return (path / path.sum()).astype("float32")[None, None]


def operator(linalg, weight, shape, **parameters):
    """The solver's operator of a convolution of pictures of this shape, and the shape of its results."""
    y_shape = (shape[0], weight.shape[0], *conv_output_size(shape[2:], weight.shape[2:], **parameters))

    def forward(v):
        return conv(v.reshape(shape), weight, **parameters).reshape(-1)

    def adjoint(dy):
        return conv_input_grad(dy.reshape(y_shape), weight, input_size=shape[2:], **parameters).reshape(-1)

    return linalg.LinearOperator((prod(y_shape), prod(shape)), forward, adjoint, dtype=weight.dtype), y_shape


def restore(b, camera, strength, rounds, iterations, linalg):
    """The picture, (3, 1, height, width): larger than what is seen of it, by what the blur reaches beyond the rim."""
    xp = array_api_compat.array_namespace(b)
    shape = (*b.shape[:2], *(seen + reach - 1 for seen, reach in zip(b.shape[2:], camera.shape[2:], strict=True)))
    A, _ = operator(linalg, camera, shape, flip=True)
    neighbours = {"padding": [(0, 1), (0, 1)], "padding_mode": "replicate"}
    D, steps_shape = operator(linalg, xp.asarray(STEPS, dtype=b.dtype), shape, **neighbours)

    b = b.reshape(-1)
    target, shares = A.rmatvec(b), A.rmatvec(xp.ones_like(b))
    v = (target + 0.01 * xp.mean(b)) / (shares + 0.01)  # for each pixel the mean of those that it was blurred into
    with tqdm(total=rounds * iterations, unit="step") as progress:
        for _ in range(rounds):
            steps = D.matvec(v).reshape(steps_shape)
            squares = xp.sum(steps**2, axis=(0, 1), keepdims=True)  # of all colours together
            weights = xp.broadcast_to(strength * (squares + NOISE**2) ** -0.5, steps_shape).reshape(-1)

            def normal(v, weights=weights):
                return A.rmatvec(A.matvec(v)) + D.rmatvec(weights * D.matvec(v))

            equations = linalg.LinearOperator(2 * v.shape, normal, dtype=v.dtype)
            v, _ = linalg.cg(equations, target, x0=v, maxiter=iterations, callback=lambda _: progress.update())
    return v.reshape(shape)


def decibels(picture, original):
    """The ratio of a signal from 0 to 1 to the error: 6 decibels more are half the error."""
    return -10 * np.log10(np.mean((picture - original) ** 2))


def draw(seen, restored, original, residual):
    """Before, after, and what is left; below, in detail, beside what was photographed."""
    figure = Figure(figsize=(11, 7.2), layout="constrained")
    detail = tuple(slice(n * 3 // 8, n * 5 // 8) for n in seen.shape[:2])
    panels = [
        ("seen", seen),
        ("restored", restored),
        ("residual, ten times", 0.5 + 10 * residual),
        ("seen, in detail", seen[detail]),
        ("restored, in detail", restored[detail]),
        ("the photograph, in detail", original[detail]),
    ]
    for axes, (title, picture) in zip(figure.subplots(2, 3).flat, panels, strict=True):
        axes.imshow(np.clip(picture, 0, 1))
        axes.set_title(title)
        axes.set_axis_off()
    return figure


def to_numpy(pictures):
    """(3, 1, height, width) -> (height, width, 3) on the host, for the eye."""
    host = pictures.get() if array_api_compat.is_cupy_array(pictures) else pictures
    return np.moveaxis(host[:, 0], 0, -1)


def main(argv=None):
    parser = argparse.ArgumentParser(description="Restore a photograph that is blurred and noisy.")
    parser.add_argument("--backend", default="numpy", choices=SOLVERS, help="the arrays and the solver")
    parser.add_argument("--strength", type=float, default=0.002, help="how much a step between neighbours costs")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=12, help="of conjugate gradients in a round")
    parser.add_argument("--size", type=int, default=320, help="pixels a side of the photograph's middle")
    parser.add_argument("--figure", default="deblur.png", help="where to save the figure")
    options = parser.parse_args(argv)
    if not Path(options.figure).absolute().parent.is_dir():
        parser.error(f"--figure {options.figure}: there is no such folder")
    if not 32 <= options.size <= 427:
        parser.error(f"--size must be from 32 to 427: got {options.size}")
    try:
        xp = array_api_compat.array_namespace(import_module(options.backend).empty(0))
        linalg = import_module(SOLVERS[options.backend])
        float(xp.sum(xp.ones(2)))
    except Exception as error:
        raise SystemExit(f"The backend {options.backend} does not work here: {error!r}") from None

    photograph = load_sample_image("china.jpg")
    photograph = photograph[
        tuple(slice((n - options.size) // 2, (n + options.size) // 2) for n in photograph.shape[:2])
    ]
    picture = xp.asarray(np.moveaxis(photograph, -1, 0)[:, None] / np.float32(255))  # (3 colours, 1, height, width)
    camera = xp.asarray(shake())
    blurred = conv(picture, camera, flip=True)  # what the blur brings in from beyond the rim is not seen
    noise = np.random.default_rng(0).standard_normal(blurred.shape, dtype="float32")
    seen = blurred + NOISE * xp.asarray(noise)

    restored = restore(seen, camera, options.strength, options.rounds, options.iterations, linalg)
    rim = camera.shape[2] // 2
    inner = (..., slice(rim, -rim), slice(rim, -rim))
    residual = conv(restored, camera, flip=True) - seen
    pictures = [to_numpy(array) for array in (seen, restored[inner], picture[inner], residual)]
    draw(*pictures).savefig(options.figure, dpi=120)
    before, after = (decibels(array, pictures[2]) for array in pictures[:2])
    left = float(np.std(pictures[3]))
    print(f"Signal to error: {before:.1f} dB as seen, {after:.1f} dB restored. Residual: {left:.4f}, noise: {NOISE}.")
    print(f"Figure: {options.figure}")


if __name__ == "__main__":
    main()
