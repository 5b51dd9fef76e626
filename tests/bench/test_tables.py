"""The benchmark's tables, each in its shortest form: that they run to their end, and notice results that are wrong."""

from __future__ import annotations

import floors
import measure
import networks
import numpy as np
import oddjobs
import pytest
import server
import shapes
from contestants import OURS, WHOLE, installed
from measure import ALLOWED, Pace, wrong_rows

import xpconv

PACE = Pace(turns=1, seconds=0.001)
RIVALS = [who for who in ("torch", "jax") if installed(who)]
SHORTEST = {
    "shapes": lambda: {"shapes": [shapes.first_and_second("5 taps 32 to 32", what, 2) for what in WHOLE]},
    "lengths": lambda: {"lengths": [shapes.in_turn(30, rounds=2)]},
    "networks": lambda: networks.measure(RIVALS, PACE, {"small": list(networks.squeeze_and_excite())[:2]}),
    "server": lambda: server.measure(seconds=0.01, turns=1, threads=(1, 4)),
    "floors": lambda: floors.measure(PACE, size=7, channels=3),
    "oddjobs": lambda: oddjobs.measure(PACE, shrink=20),
}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    for module in (measure, server, shapes):
        monkeypatch.setattr(module, "SPIN", 0)


@pytest.mark.parametrize("table", SHORTEST)
def test_a_table_runs_to_its_end_and_all_contestants_agree(table):
    found = SHORTEST[table]()
    assert table in found
    for row in (row for rows in found.values() for row in rows):
        assert len(row["by"]) > 1
        for who, numbers in row["by"].items():
            assert numbers["error"] <= ALLOWED[row["dtype"]], (row["case"], row["what"], who)
            assert all(value > 0 for name, value in numbers.items() if name.endswith(("ms", "us", "per_s", "ratio")))
    assert not [text for rows in found.values() for text in wrong_rows(rows)]


def altered(change):
    """Of a result, or of each of the gradients, its last number changed."""

    def decorator(function):
        def wrapper(*args, **kwargs):
            result = function(*args, **kwargs)
            for array in result if isinstance(result, tuple) else [result]:
                if array is not None:
                    array[(-1,) * array.ndim] = change(array[(-1,) * array.ndim])
            return result

        return wrapper

    return decorator


ALTERED = {name: shortest for name, shortest in SHORTEST.items() if name != "oddjobs"}  # not of NumPy's arrays alone
ALTERED["oddjobs"] = lambda: {"oddjobs": [*oddjobs.borders(PACE), *oddjobs.whole_images(PACE, 20)]}


@pytest.mark.parametrize("table", ALTERED)
@pytest.mark.parametrize("change", [lambda number: number + 1e-2, lambda _: np.nan], ids=["off", "nan"])
def test_a_single_wrong_number_is_noticed(table, change, monkeypatch):
    for name in ("conv", "conv_backward", "conv_input_grad"):
        monkeypatch.setattr(xpconv, name, altered(change)(getattr(xpconv, name)))
    for name, rows in ALTERED[table]().items():
        for row in rows:
            ours = [who for who in row["by"] if who.startswith(OURS)]
            assert len(wrong_rows([row])) == len(ours), (name, row["case"], row["what"])


def test_results_that_threads_mix_up_are_noticed(monkeypatch):
    conv, first = xpconv.conv, []

    def mixed(*args, **kwargs):
        first.append(conv(*args, **kwargs)) if not first else None
        return first[0]

    monkeypatch.setattr(xpconv, "conv", mixed)
    row = server.row("1x1 16 to 32 @14", threads=2, seconds=0.01, turns=1)
    assert wrong_rows([row])


@pytest.mark.parametrize(
    ("network", "convolutions", "billions"),
    [("ResNet-18", 20, 1.81), ("MobileNetV2", 52, 0.30), ("ConvNeXt-Tiny", 58, 4.45)],
)
def test_networks_have_the_multiplications_that_were_published(network, convolutions, billions):
    layers = networks.NETWORKS[network]
    assert len(layers) == convolutions
    assert round(sum(layer.multiplications(1) for layer in layers) / 1e9, 2) == billions
