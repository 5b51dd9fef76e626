"""A voice over the telephone: sound that is filtered and resampled block by block, as a microphone would give it.

python audio.py                                   a voice that audioFlux brings along, at 32 kHz
python audio.py --sound mine.wav --rate 11025     another sound, to another rate
python audio.py --backend torch                   with another array library; not a line changes

Two streams follow one another. The first is a filter: it lets pass what a telephone does, 300 to 3400 Hz. The second
changes the rate by a ratio of whole numbers, up / down. Each `down` samples give way to `up` new ones, and each of
these has a filter of its own: so it is a convolution with stride `down` and `up` output channels.
"""

import argparse
import wave
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import array_api_compat
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from xpconv import conv, conv_stream

LOW, HIGH = 300, 3400  # Hz
ZEROS = 24  # of the sinc, on each side: more of them make a sharper edge


def sinc(places, cutoff, reach):
    """The impulse response of a low pass at `cutoff` cycles per sample, faded out towards +-reach."""
    fade = np.where(abs(places) < reach, np.cos(np.pi / 2 * places / reach) ** 2, 0)
    return 2 * cutoff * np.sinc(2 * cutoff * places) * fade


def telephone(rate):
    """The filter, (1, 1, taps), and by how many samples it delays."""
    reach = int(ZEROS * rate / LOW / 2)
    places = np.arange(-reach, reach + 1)
    return (sinc(places, HIGH / rate, reach) - sinc(places, LOW / rate, reach))[None, None], reach


def resampler(up, down):
    """The filters, (up, 1, taps), one for each new sample in the place of `down` old ones, and by how much they delay.

    None may read a sample that has not come yet when the first of the `down` is there: so all are late by that much.
    """
    cutoff = 0.95 * min(1, up / down) / 2
    reach = int(ZEROS / cutoff / 2)
    delay, taps = reach + down, 2 * reach + down + 1
    here, there = (
        np.arange(up)[:, None] * down / up - delay,
        np.arange(taps) - (taps - 1),
    )  # the last tap is the present
    return sinc(here - there, cutoff, reach)[:, None], delay


def interleaved(y, xp):
    """(channels, up, positions) -> (channels, 1, positions * up): the new samples one after the other."""
    return xp.reshape(xp.permute_dims(y, (0, 2, 1)), (y.shape[0], 1, -1))


def streamed(blocks, band, phases, down, xp):
    """The result of each block as it comes. Two states are all that is remembered."""
    heard, before = None, None
    for block in blocks:
        filtered, heard = conv_stream(block, band, state=heard)
        new, before = conv_stream(filtered, phases, state=before, stride=down)
        yield interleaved(new, xp)


def as_a_whole(x, band, phases, down, xp):
    filtered = conv(x, band, padding="causal")
    return interleaved(conv(filtered, phases, stride=down, padding="causal"), xp)


def read(path):
    """The samples, (channels, 1, samples) from -1 to 1, and their rate."""
    with wave.open(str(path)) as file:
        if file.getsampwidth() != 2:
            raise SystemExit(f"--sound must have 16 bits in a sample: {path} has {8 * file.getsampwidth()}")
        values = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
        return (values.T[:, None] / 2**15).astype(np.float32), file.getframerate()


def write(path, values, rate):
    with wave.open(str(path), "wb") as file:
        file.setparams((values.shape[0], 2, rate, 0, "NONE", "not compressed"))
        file.writeframes((np.clip(values[:, 0].T, -1, 1) * (2**15 - 1)).astype("<i2").tobytes())


def draw(x, rate, y, new_rate, late, block):
    """Which frequencies there are before and after, and where blocks end in the middle of a word."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, title, one, of in (panels[0], "as it was", x, rate), (panels[1], "over the telephone", y, new_rate):
        axes.specgram(one, NFFT=of // 32, noverlap=of // 64, Fs=of, cmap="magma", vmin=-120, vmax=-30)
        axes.set(title=title, xlabel="seconds", ylim=(0, min(rate / 2, 8000)), facecolor="black")
    panels[0].set_ylabel("Hz")
    loudest = np.argmax(abs(x)) / rate
    t, new_t = np.arange(len(x)) / rate, np.arange(len(y)) / new_rate - late
    for times, values, form in (t, x, "0.7"), (new_t, y, "C0"):
        near = abs(times - loudest) < 0.012
        panels[2].plot(times[near], values[near], form, marker="." if form == "C0" else None, markersize=4)
    ends = np.arange(0, len(x), block) / rate
    for end in ends[abs(ends - loudest) < 0.012][:50]:
        panels[2].axvline(end, color="C1", linewidth=0.6, alpha=0.5)
    panels[2].set(title="both, and where blocks end", xlabel="seconds", yticks=[])
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
    return array.get() if array_api_compat.is_cupy_array(array) else np.asarray(array)


def voice():
    """A recording of some seconds, which audioFlux brings along; nothing of it is imported."""
    found = find_spec("audioflux")
    if found is None:
        raise SystemExit("Without audioFlux there is no voice: pip install audioflux, or name a WAV file by --sound")
    return Path(found.submodule_search_locations[0]) / "utils" / "sample_data" / "voice.wav"


def main(argv=None):
    parser = argparse.ArgumentParser(description="Filter and resample sound block by block.")
    parser.add_argument("--backend", default="numpy", help="numpy, cupy, torch, array_api_strict, ...")
    parser.add_argument("--sound", help="a WAV file of 16 bits; by default a voice")
    parser.add_argument("--rate", type=int, default=8000, help="samples per second of the result")
    parser.add_argument("--block", type=int, default=250, help="samples that come at a time")
    parser.add_argument("--figure", default="audio.png", help="where to save the figure")
    parser.add_argument("--result", help="where to save the sound, if at all")
    options = parser.parse_args(argv)
    if min(options.rate, options.block) < 1:
        parser.error("--rate and --block must be at least 1")
    for name in ("figure", "result"):
        path = getattr(options, name)
        if path and not Path(path).absolute().parent.is_dir():
            parser.error(f"--{name} {path}: there is no such folder")
    xp = array_library(options.backend)

    sound, rate = read(options.sound or voice())
    ratio = Fraction(options.rate, rate)
    up, down = ratio.numerator, ratio.denominator
    (band, first), (phases, second) = telephone(rate), resampler(up, down)
    x, band, phases = (xp.asarray(one.astype(np.float32)) for one in (sound, band, phases))

    starts = tqdm(range(0, x.shape[-1], options.block), unit="block")
    blocks = (x[..., start : min(start + options.block, x.shape[-1])] for start in starts)
    y = xp.concat(list(streamed(blocks, band, phases, down, xp)), axis=-1)
    whole = as_a_whole(x, band, phases, down, xp)
    difference = float(xp.max(xp.abs(y - whole)))

    y = to_numpy(y)
    draw(sound[0, 0], rate, y[0, 0], options.rate, (first + second) / rate, options.block).savefig(
        options.figure, dpi=150
    )
    if options.result:
        write(options.result, y, options.rate)
    print(f"{x.shape[-1] / rate:.1f} s at {rate} Hz are {y.shape[-1] / options.rate:.1f} s at {options.rate} Hz.")
    print(
        f"In {len(starts)} blocks or as a whole: the largest difference is {difference:.1e}. Figure: {options.figure}"
    )
    return difference


if __name__ == "__main__":
    main()
