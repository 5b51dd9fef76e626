"""On a cluster of processes, of which one is killed: that costs time, never the result.

Weights are in the graph, so whatever a dead worker held is made again. Results are compared to the bit with those of
this process.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
from dask.local import get_sync
from distributed import Client, LocalCluster, wait

from xpconv import Conv, conv, conv_backward, options

SOON = 60  # seconds, after which something hangs


@pytest.fixture(scope="module")
def client():
    """Two workers, each a process with one thread."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0
        ) as cluster,
        Client(cluster, timeout=SOON) as client,
    ):
        yield client
    assert not [pid for pid in _seen if _runs(pid)]


_seen: set[int] = set()  # every worker's process


def pids(client):
    """By address, once both are there."""
    client.wait_for_workers(2, timeout=SOON)
    found = client.run(os.getpid)
    _seen.update(found.values())
    return found


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def on_cluster(client, lazy):
    futures = client.compute(lazy)
    return [future.result(timeout=SOON) for future in futures]


def operands():
    """Numbers of which sums depend on their order."""
    rng = np.random.default_rng(13)
    x, w, b = (rng.standard_normal(shape) for shape in ((4, 4, 24, 24), (6, 4, 3, 3), (6,)))
    return da.from_array(x, chunks=(2, 2, 8, 12)), w, b


def there_and_back(x, w, b, between=lambda dy: dy):
    """y and all gradients; the gradient of y needs all of y."""
    y = conv(x, w, b, padding=1)
    dy = between(y / abs(y).max())
    return [y, *conv_backward(dy, x, w, padding=1)]


def assert_same(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def dies_once(block, marker=None, block_id=None):
    """What it is given; but in the first process to come here for the last block, the end of that process."""
    if block_id == (1, 0, 2, 1):
        try:
            with Path(marker).open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return block
        os.kill(os.getpid(), signal.SIGKILL)
    return block


@pytest.mark.parametrize("kept", ["NumPy's", "dask's"])
def test_forward_and_backward_are_what_they_are_here(client, kept):
    x, w, b = operands()
    if kept == "dask's":
        w, b = da.from_array(w, chunks=(3, 2, 3, 3)), da.from_array(b, chunks=2)
    lazy = there_and_back(x, w, b)
    assert_same(on_cluster(client, lazy), dask.compute(*lazy, scheduler=get_sync))
    pids(client)


def test_options_hold_in_other_processes(client):
    x, w, b = operands()
    with options(method="fft"):
        lazy = there_and_back(x, w, b)
        expected = dask.compute(*lazy, scheduler=get_sync)
    assert_same(on_cluster(client, lazy), expected)
    others = dask.compute(*there_and_back(x, w, b), scheduler=get_sync)
    assert any(np.any(one != other) for one, other in zip(expected, others, strict=True))


def test_a_layer_learns(client):
    """Steps with the values of the gradients: the layer's own weights stay NumPy's."""
    x, *_ = operands()
    layers = [Conv(4, 6, (3, 3), padding=1, rng=0) for _ in range(2)]
    for _ in range(3):
        for layer, compute in zip(
            layers, (on_cluster, lambda _, lazy: dask.compute(*lazy, scheduler=get_sync)), strict=True
        ):
            layer.backward(layer.forward(x))
            dweight, dbias = compute(client, [layer.dweight, layer.dbias])
            layer.weight -= 1e-4 * dweight
            layer.bias -= 1e-4 * dbias
    assert_same(layers[0].parameters().values(), layers[1].parameters().values())


def test_a_worker_that_is_killed_at_work_costs_nothing_but_time(client, tmp_path):
    """All of the forward is done, and in the memory of both, when one dies amid the backward."""
    x, w, b = operands()
    expected = dask.compute(*there_and_back(x, w, b), scheduler=get_sync)
    before, marker = pids(client), tmp_path / "killed"

    def between(dy):
        assert dy.numblocks == (2, 1, 3, 2)
        return dy.map_blocks(dies_once, marker=str(marker), dtype=dy.dtype, meta=dy._meta)

    assert_same(on_cluster(client, there_and_back(x, w, b, between)), expected)
    killed = int(marker.read_text())
    assert killed in before.values()
    assert killed not in pids(client).values()


def test_a_worker_that_is_killed_at_rest_takes_chunks_along_that_are_made_again(client):
    x, w, b = operands()
    expected = dask.compute(*there_and_back(x + 1, w, b), scheduler=get_sync)
    chunks = client.persist(x + 1)
    assert not wait(chunks, timeout=SOON).not_done
    held = client.has_what()
    address, pid = max(pids(client).items(), key=lambda one: len(held[one[0]]))
    assert held[address]
    os.kill(pid, signal.SIGKILL)
    assert_same(on_cluster(client, there_and_back(chunks, w, b)), expected)
    assert pid not in pids(client).values()
