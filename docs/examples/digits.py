"""Handwritten digits, read by four convolutions that xpconv trains.

python digits.py                    on the CPU, with NumPy
python digits.py --backend cupy     on the GPU, with CuPy; not a line changes

The data are scikit-learn's 1797 scans of 8 x 8 pixels. A fifth of them is held out.
"""

import argparse
from importlib import import_module
from pathlib import Path

import array_api_compat
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

from xpconv import Conv2d


class ReLU:
    """max(z, 0): where it let a value pass, backward lets the gradient pass."""

    def forward(self, z):
        self.passed = array_api_compat.array_namespace(z).astype(z > 0, z.dtype)
        return z * self.passed

    def backward(self, dy):
        return dy * self.passed


class Convolution(Conv2d):
    """A layer that learns by gradient descent, and keeps most of its speed from step to step."""

    speed = 0.0, 0.0  # of the weight and of the bias

    def __init__(self, *shape, **options):
        super().__init__(*shape, **options)
        # The weights come with variance 2 / channels, but an output sums over channels and taps. Divided by the root
        # of the taps, the width of a square kernel, they have 2 / (channels * taps): signals keep their size.
        self.set_params(self.weight / self.weight.shape[-1], self.bias)

    def step(self, rate):
        gradients = self.dweight, self.dbias
        self.speed = [0.9 * speed - rate * gradient for speed, gradient in zip(self.speed, gradients, strict=True)]
        self.set_params(self.weight + self.speed[0], self.bias + self.speed[1])


def network(seed, xp):
    """Strides shrink the picture, where others pool: it is 8 pixels wide, then 4, 2 and 1."""
    options = {"rng": np.random.default_rng(seed), "xp": xp, "dtype": xp.float32}
    return [
        Convolution(1, 16, 5, padding="same", **options),
        ReLU(),
        Convolution(16, 32, 3, stride=2, padding="same", **options),
        ReLU(),
        Convolution(32, 64, 3, stride=2, padding="same", **options),
        ReLU(),
        Convolution(64, 10, 2, **options),
    ]


def forward(layers, x):
    for layer in layers:
        x = layer.forward(x)
    return x[:, :, 0, 0]  # (samples, 10, 1, 1) -> (samples, 10): a score for each digit


def backward(layers, dscores):
    dy = dscores[:, :, None, None]
    for layer in reversed(layers):
        dy = layer.backward(dy)


def cross_entropy(scores, target, xp):
    """The mean of -log(probability of the true digit), and its gradient: (probability - target) / samples."""
    shifted = scores - xp.max(scores, axis=1, keepdims=True)  # the same probabilities, and no exp overflows
    exponentials = xp.exp(shifted)
    total = xp.sum(exponentials, axis=1, keepdims=True)
    loss = xp.mean(xp.log(total[:, 0]) - xp.sum(shifted * target, axis=1))
    return loss, (exponentials / total - target) / scores.shape[0]


def train(layers, images, labels, epochs, seed, xp, batch=32, rate=0.05):
    """Train on (samples, 1, 10, 10) images, whose rim is blank, and return the mean loss of each epoch."""
    samples = images.shape[0]
    targets = xp.astype(labels[:, None] == xp.arange(10), images.dtype)  # (samples, 10): 1 at the true digit
    rng = np.random.default_rng(seed)
    losses = []
    with tqdm(range(epochs), unit="epoch") as progress:
        for epoch in progress:
            order = rng.permutation(samples)
            loss_sum = hits = 0
            for start in range(0, samples, batch):
                chosen = xp.asarray(order[start : start + batch])
                i, j = map(int, rng.integers(0, 3, size=2))  # a digit is the same digit one pixel further
                x = xp.take(images, chosen, axis=0)[:, :, i : i + 8, j : j + 8]
                target = xp.take(targets, chosen, axis=0)
                scores = forward(layers, x)
                loss, dscores = cross_entropy(scores, target, xp)
                backward(layers, dscores)
                for layer in layers[::2]:  # the convolutions
                    layer.step(rate * (1 - epoch / epochs))
                loss_sum += loss * x.shape[0]
                hits += xp.count_nonzero(xp.argmax(scores, axis=1) == xp.argmax(target, axis=1))
            losses.append(float(loss_sum) / samples)
            progress.set_postfix(loss=f"{losses[-1]:.4f}", accuracy=f"{int(hits) / samples:.1%}")
    return losses


def draw(filters, losses, wrong):
    """What the first layer looks for, how the loss fell, and (image, label, guess) of the digits missed."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=(1, 1.4, 1.2))
    left.suptitle("Filters of the first layer")
    for i, kernel in enumerate(filters[:, 0]):
        axes = left.add_subplot(4, 4, i + 1, xticks=(), yticks=())
        axes.imshow(kernel, cmap="RdBu", vmin=-abs(filters).max(), vmax=abs(filters).max())
    middle.suptitle("Training loss")
    axes = middle.add_subplot(xlabel="epoch", yscale="log")
    axes.plot(range(1, len(losses) + 1), losses)
    axes.grid(alpha=0.3)
    right.suptitle("Digits that it misread")
    for i, (image, label, guess) in enumerate(wrong[:6]):
        axes = right.add_subplot(2, 3, i + 1, xticks=(), yticks=())
        axes.imshow(image, cmap="gray_r")
        axes.set_title(f"{label}, read as {guess}", fontsize="small")
    return figure


def array_library(name):
    """The namespace of an array library that works here: one for GPUs may well import without a GPU."""
    try:
        xp = array_api_compat.array_namespace(import_module(name).empty(0))
        float(xp.sum(xp.ones((2, 2)) @ xp.ones((2, 2))))
    except Exception as error:
        raise SystemExit(f"The backend {name} does not work here: {error!r}") from None
    return xp


def to_numpy(array):
    """A copy on the host, for the eye: nothing else in this program asks whose array it has."""
    return array.get() if array_api_compat.is_cupy_array(array) else np.asarray(array)


def main(argv=None):
    parser = argparse.ArgumentParser(description="Train a small network of convolutions on handwritten digits.")
    parser.add_argument("--backend", default="numpy", help="numpy, cupy, torch, array_api_strict, ...")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the order of the samples")
    parser.add_argument("--figure", default="digits.png", help="where to save the figure")
    options = parser.parse_args(argv)
    if not Path(options.figure).absolute().parent.is_dir():
        parser.error(f"--figure {options.figure}: there is no such folder")
    xp = array_library(options.backend)

    digits = load_digits()
    images = np.pad(digits.images / 16, [(0, 0), (1, 1), (1, 1)])[:, None].astype(np.float32)  # (samples, 1, 10, 10)
    split = train_test_split(images, digits.target, test_size=0.2, stratify=digits.target, random_state=0)
    train_images, test_images, train_labels, test_labels = split
    test_images = test_images[:, :, 1:-1, 1:-1]

    layers = network(options.seed, xp)
    losses = train(layers, xp.asarray(train_images), xp.asarray(train_labels), options.epochs, options.seed, xp)
    guesses = to_numpy(xp.argmax(forward(layers, xp.asarray(test_images)), axis=1))
    accuracy = float(np.mean(guesses == test_labels))

    wrong = [(test_images[i, 0], test_labels[i], guesses[i]) for i in np.flatnonzero(guesses != test_labels)]
    draw(to_numpy(layers[0].weight), losses, wrong).savefig(options.figure, dpi=150)
    print(f"Accuracy on the held-out fifth: {accuracy:.1%}. Figure: {options.figure}")
    return accuracy


if __name__ == "__main__":
    main()
