"""The example of sound, block by block, on tones: what is let through comes out as it was, late and at another rate."""

from __future__ import annotations

import wave

import numpy as np
import pytest
from support import run_example

RATE = 24000


def tone(hertz, seconds=0.5, rate=RATE):
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate) / 2


def write(path, values, bits=16):
    with wave.open(str(path), "wb") as file:
        file.setparams((values.shape[0], bits // 8, RATE, 0, "NONE", "not compressed"))
        file.writeframes((values.T * (2 ** (bits - 1) - 1)).astype(f"<i{bits // 8}").tobytes())


def test_what_comes_out(library, tmp_path):
    """1 kHz on the left is let through, 6 kHz on the right is not; with each library at another rate."""
    new_rate = {"numpy": 11025, "torch": 8000, "cupy": 32000}.get(library, 9600)
    sound, result, figure = (tmp_path / name for name in ("sound.wav", "result.wav", "figure.png"))
    write(sound, np.stack([tone(1000), tone(6000)]))
    said = ("--sound", sound, "--result", result, "--figure", figure, "--rate", new_rate, "--block", 517)
    done = run_example("audio.py", "--backend", library, *said)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.partition("the largest difference is ")[2].partition(". ")[0]) < 1e-6
    assert "24/24" in done.stderr  # the progress bar
    assert figure.read_bytes().startswith(b"\x89PNG")
    with wave.open(str(result)) as file:
        assert file.getparams()[:3] == (2, 2, new_rate)
        left, right = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2).T / 2**15
    assert abs(len(left) - new_rate / 2) <= 1 + new_rate // 100
    inner = slice(new_rate // 6, new_rate // 3)  # away from where the tone begins and ends
    t = np.arange(len(left))[inner] / new_rate
    waves = np.stack([np.sin(2000 * np.pi * t), np.cos(2000 * np.pi * t)])
    found, rest, *_ = np.linalg.lstsq(waves.T, left[inner], rcond=None)
    assert abs(np.hypot(*found) - 0.5) < 0.005
    assert np.sqrt(rest[0] / len(t)) < 0.002
    assert np.max(abs(right[inner])) < 0.002


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--block", 0), "audio.py: error: --rate and --block must be at least 1"),
        (("--result", "no such folder/audio.wav"), "--result no such folder/audio.wav: there is no such folder"),
        (("--backend", "no_such_library"), "The backend no_such_library does not work here: "),
    ],
)
def test_what_is_wrong_is_said_first(arguments, sentence):
    done = run_example("audio.py", *arguments)
    assert done.returncode
    assert done.stdout == ""
    assert sentence in done.stderr.splitlines()[-1]


def test_a_sound_of_other_bits(tmp_path):
    write(tmp_path / "sound.wav", tone(1000)[None], bits=32)
    done = run_example("audio.py", "--sound", tmp_path / "sound.wav")
    assert done.stderr.splitlines()[-1] == f"--sound must have 16 bits in a sample: {tmp_path}/sound.wav has 32"
