"""What may be said about how a convolution is computed, and what is said back."""

from __future__ import annotations

import math
import threading
import tracemalloc

import numpy as np
import pytest
from support import draw

from xpconv import conv, conv_input_grad, conv_weight_grad, explain, options
from xpconv._spec.options import Options, current


def test_options_nest_and_end():
    assert current() == Options()
    with options(workers=3, method="fft"):
        with options(workspace=2**25, method="lowering"):
            assert current() == Options(3, 2**25, "lowering", "auto")
        try:
            with options(precision="highest"):
                assert current() == Options(3, None, "fft", "highest")
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        assert current() == Options(3, None, "fft", "auto")
    assert current() == Options()


def test_options_belong_to_their_thread():
    seen = []
    with options(workers=1):
        other = threading.Thread(target=lambda: seen.append(current()))
        other.start()
        other.join()
    assert seen == [Options()]


METHODS = "'auto', 'lowering', 'direct', 'winograd', 'banded', 'fft'"


@pytest.mark.parametrize(
    ("option", "error", "sentence"),
    [
        ({"workers": 0}, ValueError, "workers must be an integer of at least 1: got 0"),
        ({"workers": "2"}, TypeError, "workers must be an integer of at least 1: got '2'"),
        ({"workspace": 1000}, ValueError, "workspace must be an integer of at least 1048576: got 1000"),
        ({"workspace": 1e9}, TypeError, "workspace must be an integer of at least 1048576: got 1000000000.0"),
        (
            {"method": "im2col"},
            ValueError,
            f"method must be one of {METHODS}: got 'im2col'",
        ),
        (
            {"method": 1},
            TypeError,
            f"method must be one of {METHODS}: got 1",
        ),
        ({"precision": "low"}, ValueError, "precision must be one of 'auto', 'high', 'highest': got 'low'"),
    ],
)
def test_sentences(option, error, sentence):
    with pytest.raises(error) as caught, options(**option):
        pass
    assert str(caught.value) == sentence
    assert current() == Options()


def test_explain(backend, rng):
    x, w = draw(rng, (2, 16, 30, 30), "float32"), draw(rng, (24, 16, 3, 3), "float32")
    with options(method="winograd"):
        plan = explain(backend.array(x), backend.array(w), padding=1)
    forward = plan.contractions[0]
    assert [made.name for made in plan.contractions] == ["forward", "input gradient", "weight gradient"]
    assert all("Winograd(tile=(" in made.algorithm for made in plan.contractions)
    assert plan.direct_flops == 2 * 2 * 24 * 30 * 30 * 16 * 9
    assert forward.flops < plan.direct_flops / 2
    assert all(0 < made.part_bytes <= made.workspace <= 2**26 for made in plan.contractions)
    assert all(made.seconds > 0 for made in plan.contractions)
    assert all(other > forward.seconds for other in forward.others.values())
    text = str(plan)
    assert text.startswith("x (2, 16, 30, 30), weight (24, 16, 3, 3), stride (1, 1), padding ((1, 1), (1, 1)), ")
    assert f"forward: {forward.algorithm}, about" in text


def test_explain_one_sample_and_phases():
    plan = explain(np.empty((3, 8, 9)), np.empty((4, 3, 4, 4)), stride=2, padding=1)
    assert plan.contractions[1].algorithm.startswith(("Lowering", "4 phases by "))
    with pytest.raises(ValueError, match=r"^the kernel must fit"):
        explain(np.empty((1, 1, 2)), np.empty((1, 1, 3)))


MEMORY = {
    "every window": ((24, 3, 96, 96), (2, 3, 7, 7), {}),
    "every output": ((2, 1, 64, 64), (512, 1, 1, 1), {}),
    "a wide stride": ((1, 1, 2000, 2000), (1, 1, 1, 1), {"stride": 50, "padding": 1}),
    "many weights": ((2, 512, 6, 6), (1024, 512, 3, 3), {}),
    "windows that reach far": ((1, 64, 260, 260), (8, 64, 3, 3), {"dilation": 120}),
    "one long axis": ((1, 1, 2_000_000), (1, 1, 64), {}),
    "a long kernel": ((1, 2, 200_000), (2, 2, 30_000), {}),
    "depthwise": ((4, 96, 80, 80), (96, 1, 31, 31), {"padding": 15, "groups": 96}),
    "many channels": ((4, 512, 14, 14), (512, 512, 3, 3), {"padding": 1}),
    "three axes": ((1, 16, 40, 40, 40), (16, 16, 3, 3, 3), {"padding": 1}),
    "a reflected border": ((8, 16, 128, 128), (16, 16, 3, 3), {"padding": 3, "padding_mode": "reflect"}),
    "borders of three axes": (
        (1, 8, 40, 64, 64),
        (8, 8, 3, 3, 3),
        {"padding": 4, "padding_mode": ("circular", "replicate", "reflect")},
    ),
    "channels last": ((8, 128, 128, 16), (16, 16, 3, 3), {"channel_axis": -1}),
}
HALVES = {
    "16 bits": ((8, 32, 128, 128), (32, 32, 3, 3), {"padding": 1}),
}
# Every case in a workspace that is hard to keep, and those in the default one that come nearest to filling it.
WORKSPACES = [
    *((name, 2**24) for name in [*MEMORY, *HALVES]),
    *((name, 2**26) for name in ("every window", "windows that reach far", "many channels")),
]


@pytest.mark.parametrize(("name", "workspace"), WORKSPACES)
def test_the_workspace_holds(rng, name, workspace):
    (x, w, parameters), dtype = {**MEMORY, **HALVES}[name], "float32" if name in MEMORY else "float16"
    x, w = ((rng.standard_normal(shape, dtype="float32") / 16).astype(dtype) for shape in (x, w))
    size = x.shape[1:-1] if "channel_axis" in parameters else x.shape[2:]
    with options(workers=4, workspace=workspace):
        dy = conv(x, w, **parameters)
        calls = {
            "forward": lambda: conv(x, w, **parameters),
            "input gradient": lambda: conv_input_grad(dy, w, input_size=size, **parameters),
            "weight gradient": lambda: conv_weight_grad(dy, x, kernel_size=w.shape[2:], **parameters),
        }
        for name, call in calls.items():
            tracemalloc.start()
            result = call()
            peak = tracemalloc.get_traced_memory()[1] - result.nbytes
            tracemalloc.stop()
            assert peak <= workspace, f"{name}: {peak / 2**20:.1f} MiB beside the result"


BORDER = {"padding": 3, "padding_mode": "reflect"}
BESIDE = {  # how many times the result with its border the input's gradient may take beside the workspace
    "integers with a border": ("int8", BORDER, 2),
    "integers, dilated": ("int8", {"input_dilation": 2}, 2),
    "16 bits with a border": ("float16", BORDER, 2),
    "16 bits, dilated": ("float16", {"input_dilation": 2}, 4),
}


@pytest.mark.parametrize(("dtype", "parameters", "times"), BESIDE.values(), ids=BESIDE)
def test_what_the_input_gradient_takes_beside_the_workspace(rng, dtype, parameters, times):
    x, w = draw(rng, (4, 8, 128, 128), dtype), draw(rng, (8, 8, 3, 3), dtype)
    workspace = 2**20
    with options(workspace=workspace):
        dy = conv(x, w, **parameters)
        for _ in range(2):  # the first call also remembers how the work is cut
            tracemalloc.start()
            result = conv_input_grad(dy, w, input_size=x.shape[2:], **parameters)
            peak = tracemalloc.get_traced_memory()[1] - result.nbytes
            tracemalloc.stop()
    bordered = math.prod(size + 2 * parameters.get("padding", 0) for size in x.shape[2:]) / math.prod(x.shape[2:])
    objects = 2**14  # of Python
    assert peak <= workspace + times * bordered * result.nbytes + objects, (
        f"{peak / result.nbytes:.1f} times the result"
    )


def test_explain_plans_the_transposed_one_as_the_gradient_that_it_is():
    x, w = np.ones((2, 16, 30, 30), dtype="float32"), np.ones((24, 16, 3, 3), dtype="float32")
    dy = np.ones((2, 24, 15, 15), dtype="float32")
    forward, input_grad, weight_grad = explain(x, w, stride=2, padding=1).contractions
    made = explain(dy, w, transposed=True, stride=2, padding=1, output_size=30).contractions
    assert forward[1:] != input_grad[1:]
    assert [one[1:] for one in made] == [input_grad[1:], forward[1:], weight_grad[1:]]


def test_explain_the_transposed_one_and_forms_of_several_geometries():
    x, w = np.ones((1, 2, 3)), np.ones((2, 1, 1))
    parameters = {"stride": 3, "dilation": 3, "padding": [(5, 2)]}
    plan = explain(x, w, transposed=True, output_padding=1, **parameters)
    assert [made.name for made in plan.contractions] == ["forward", "input gradient", "weight gradient"]
    assert plan.direct_flops == 2 * 3 * 2

    x, w = np.ones((1, 2, 20, 20), dtype="float32"), np.ones((3, 2, 3, 3), dtype="float32")
    plain = explain(x, w)
    dilated, bordered = explain(x, w, input_dilation=2), explain(x, w, padding=1, padding_mode="reflect")
    assert dilated.contractions[0].parts >= 4  # one for each phase
    assert bordered.contractions[1].flops > plain.contractions[1].flops  # of the border, too
    assert all(made.others == {} for made in dilated.contractions)
    assert "instead of" in str(plain)
