"""The example that the README gives first, trained to the end as a reader would: it learns, and it draws."""

from __future__ import annotations

from support import digits_read, run_example


def test_it_learns_to_read(tmp_path):
    figure = tmp_path / "digits.png"
    result = run_example("digits.py", "--figure", figure)
    assert result.returncode == 0, result.stderr
    assert digits_read(result.stdout) >= 97
    assert str(figure) in result.stdout
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "loss" in result.stderr  # the progress bar
