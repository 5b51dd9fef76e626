"""Past one machine's memory: what chunks cost, and a volume ten times larger than the memory of the workers.

`python tests/bench/chunked.py` measures both on a cluster of processes on this machine; `--json PATH` writes it down.

The large volume lies on the disk. It is convolved, and the result, on the disk as well, is carried back as if it were
the output's gradient: then <y, y> = <x, dx> = <w, dw>, and the three numbers are compared. Workers that exceed their
memory are killed by dask, and nothing is spilled to the disk.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster, progress, wait
from rich.console import Console
from rich.table import Table

import xpconv

MIB = 2**20
PARAMETERS = {"padding": 1}


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, dtype="float32")


def peak() -> float:
    """The most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 2**10)


def run(client: Client, name: str, *lazy: Any) -> tuple[list[Any], float]:
    """Their values and the seconds that they took, behind a progress bar."""
    print(name, flush=True)
    start = time.perf_counter()
    futures = client.compute(list(lazy))
    progress(futures, notebook=False)
    values = client.gather(futures)
    print(flush=True)
    return values, time.perf_counter() - start


def large(limit: int, workers: int, times: int) -> dict[str, Any]:
    """A volume of so many times the workers' memory, `limit` MiB each.

    In slabs of 4 MiB, whole planes: what waits for its neighbours is then three chunks, and not whole planes of them.
    """
    shape = (1, 1, times * workers * limit, 512, 512)  # a MiB for each plane
    chunks = (1, 1, 4, 512, 512)
    settings = {f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")}
    w = draw(1, 1, 3, 3, 3)
    with (
        TemporaryDirectory() as folder,
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=limit * MIB,
            dashboard_address=":0",
            local_directory=folder,
        ) as cluster,
        Client(cluster) as client,
    ):
        begin = max(client.run(peak).values())

        def disk(name: str) -> da.Array:
            return da.from_zarr(f"{folder}/{name}.zarr")

        def to_disk(array: da.Array, name: str) -> Any:
            return array.to_zarr(f"{folder}/{name}.zarr", compute=False, compressors=None)

        seconds = {}
        random = da.random.default_rng(0).standard_normal(shape, dtype="float32", chunks=chunks)
        _, seconds["written"] = run(client, "a random volume to the disk", to_disk(random, "x"))
        x = disk("x")
        y = xpconv.conv(x, w, **PARAMETERS)
        (yy, _), seconds["forward"] = run(client, "forward", da.sum(y * y, dtype="float64"), to_disk(y, "y"))
        dx, dw, _ = xpconv.conv_backward(disk("y"), x, w, needs=(True, True, False), **PARAMETERS)
        (dw, xdx), seconds["backward"] = run(client, "backward", dw, da.sum(x * dx, dtype="float64"))
        products = [float(yy), float(xdx), float(np.sum(w * dw, dtype="float64"))]
        peaks = list(client.run(peak).values())
    return {
        "voxels": int(np.prod(shape)),
        "shape": shape,
        "chunks": x.npartitions,
        "volume_mib": x.nbytes / MIB,
        "workers": workers,
        "limit_mib": limit,
        "begin_mib": begin,
        "peak_mib": peaks,
        "seconds": seconds,
        "products": products,
        "apart": (max(products) - min(products)) / products[0],
    }


def halos(workers: int, turns: int) -> list[dict[str, Any]]:
    """One volume in cubes of several edges, forward and backward, beside one call on all of it."""
    volume = da.random.default_rng(0).standard_normal((1, 4, 192, 192, 192), dtype="float32", chunks=-1)
    x, w = volume.compute(scheduler="sync"), draw(4, 4, 5, 5, 5)
    parameters = {"padding": 2}

    def lazily(x: Any) -> list[Any]:
        y = xpconv.conv(x, w, **parameters)
        return [y, *xpconv.conv_backward(y, x, w, needs=(True, True, False), **parameters)[:2]]

    rows: list[dict[str, Any]] = [{"edge": None, "seconds": []}]
    rows += [{"edge": edge, "seconds": []} for edge in (192, 96, 64, 32)]
    expected = lazily(x)
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        for turn in range(turns + 1):  # the first does not count
            for row in rows:
                edge = row["edge"]
                if edge is None:
                    start = time.perf_counter()
                    lazily(x)
                    seconds = time.perf_counter() - start
                else:
                    chunked = volume.rechunk((1, 4, edge, edge, edge)).persist()
                    wait(chunked)
                    results = lazily(chunked)
                    row["tasks"] = len(dask.optimize(results)[0][0].__dask_graph__())
                    start = time.perf_counter()
                    results = client.compute(results)
                    wait(results)
                    seconds = time.perf_counter() - start
                    row["blocks"] = chunked.npartitions
                    row["halo"] = ((edge + 4) / edge) ** 3 - 1
                    if turn == 0:
                        row["apart"] = max(
                            float(np.max(np.abs(future.result() - one)) / np.max(np.abs(one)))
                            for future, one in zip(results, expected, strict=True)
                        )
                if turn:
                    row["seconds"].append(seconds)
    return [{**row, "seconds": statistics.median(row["seconds"])} for row in rows]


def report(console: Console, found: dict[str, Any]) -> None:
    rows, whole = found["halos"], found["halos"][0]["seconds"]
    table = Table("edge", "blocks", "tasks a block", "halo", "seconds", "times one call", "error", title="chunks")
    for row in rows[1:]:
        numbers = (
            row["tasks"] / row["blocks"],
            100 * row["halo"],
            row["seconds"],
            row["seconds"] / whole,
            row["apart"],
        )
        cells = (
            text % number for text, number in zip(("%.1f", "%.0f %%", "%.2f", "%.2f", "%.0e"), numbers, strict=True)
        )
        table.add_row(str(row["edge"]), str(row["blocks"]), *cells)
    console.print(table, f"one call on all of it: {whole:.2f} s")
    one = found["large"]
    memory = one["workers"] * one["limit_mib"]
    console.print(
        f"{one['volume_mib']:.0f} MiB in {one['chunks']} chunks through {one['workers']} workers of {one['limit_mib']} "
        f"MiB, {one['volume_mib'] / memory:.1f} times their memory; at most {max(one['peak_mib']):.0f} MiB each, "
        f"{one['begin_mib']:.0f} to begin with"
    )
    console.print(", ".join(f"{name} {seconds:.0f} s" for name, seconds in one["seconds"].items()))
    console.print(f"<y, y>, <x, dx>, <w, dw> differ by {one['apart']:.0e}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each (2)")
    parser.add_argument("--limit", type=int, default=256, help="the memory of each in MiB (256)")
    parser.add_argument("--times", type=int, default=10, help="how much larger the volume is than all of it (10)")
    parser.add_argument("--turns", type=int, default=3, help="of the small volume's measurements (3)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write down all that was measured")
    chosen = parser.parse_args()
    found = {
        "large": large(chosen.limit, chosen.workers, chosen.times),
        "halos": halos(chosen.workers, chosen.turns),
    }
    # torch comes with it: the workers, who import this file, have no room for that, and begin with this process's peak.
    from measure import machine

    found = {"machine": machine() | {"dask": dask.__version__}, **found}
    console = Console(highlight=False, soft_wrap=True)
    console.print(", ".join(f"{name} {value}" for name, value in found["machine"].items()))
    report(console, found)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")
    one = found["large"]
    within = max(one["peak_mib"]) <= one["limit_mib"] and one["apart"] < 1e-4
    return 0 if within and all(row["apart"] < 1e-4 for row in found["halos"][1:]) else 1


if __name__ == "__main__":
    sys.exit(main())
