"""The voice that audioFlux brings along, over the telephone: to the end, as a reader would run it."""

from __future__ import annotations

from support import run_example


def test_the_voice_comes_through(tmp_path):
    figure = tmp_path / "audio.png"
    done = run_example("audio.py", "--figure", figure)
    assert done.returncode == 0, done.stderr
    assert "8.1 s at 32000 Hz are 8.1 s at 8000 Hz." in done.stdout
    assert float(done.stdout.partition("the largest difference is ")[2].partition(". ")[0]) < 2e-6
    assert "1032/1032" in done.stderr  # the progress bar
    assert figure.read_bytes().startswith(b"\x89PNG")
