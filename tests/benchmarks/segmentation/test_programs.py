"""The programs for segmentation: both sides are one function, and tables say what the rows say; nothing is timed."""

import json
import math
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from apps.vision.segmentation.config import SIZES, Size
from benchmarks.segmentation import adaptation, bounded, encoder, head, networks, step, tables

pytestmark = pytest.mark.skipif(
    find_spec("mmseg") is None or find_spec("mmengine") is None or find_spec("mmcv") is None,
    reason="the peer of the benchmarks is missing",
)
RATIO = {"value": 1.5, "low": 1.25, "high": 1.75, "coverage": 0.96}


@pytest.fixture
def narrow(monkeypatch):
    """All sizes very small."""
    small = Size((8, 16, 24, 32), (1, 1, 2, 1))
    for size in list(SIZES):
        monkeypatch.setitem(SIZES, size, replace(small))
    heads = networks.our_config

    def config(size, **changes):
        return heads(size, **{"heads": (1, 2, 3, 4), "head_width": 16, **changes})

    for module in (networks, encoder, head, bounded):
        monkeypatch.setattr(module, "our_config", config, raising=False)


def encoder_row(mode="infer", precision="fp32", size="b0", value=1.5):
    return {
        **encoder.key((size, networks.Load(512, 512, 1), mode, precision)),
        "difference": 2e-6,
        "rounds": 7,
        "seconds_per_pass": {"ours": 0.2, "mmseg": 0.3},
        "multiply_adds": 3_600_000_000,
        "time": {**RATIO, "value": value},
        "memory_mib": {"ours": 50.0, "mmseg": 100.0},
        "memory": 2.0,
    }


def test_every_size_has_its_rows():
    points = list(encoder.plan(",".join(encoder.POINTS)))
    assert len(points) == len(set(points)) == 18
    assert {size for size, _, mode, _ in points if mode == "step"} == {"b0", "b2"}
    assert len({json.dumps(encoder.key(point)) for point in points}) == 18
    assert len(list(adaptation.plan("b0-256"))) == 4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mode", ["infer", "step"])
def test_encoders_are_one_function_and_another_one_is_noticed(narrow, mode, precision, monkeypatch):
    assert encoder.verified("b0", mode, precision) < 0.15
    theirs = networks.their_encoder

    def wrong(network):
        peer = theirs(network)
        with torch.no_grad():
            peer.layers[1][2].weight.mul_(1.5)
        return peer

    monkeypatch.setattr(encoder, "their_encoder", wrong)
    with pytest.raises(RuntimeError, match=f"{mode} of b0 in {precision}: ours and theirs are"):
        encoder.verified("b0", mode, precision)


def test_a_row_of_the_encoder(narrow, monkeypatch):
    monkeypatch.setattr(encoder.memory, "peak_growth", lambda *_, **__: 10.0)
    point = ("b0", networks.Load(64, 32, 1), "step", "fp32")
    row = encoder.measure(point, rounds=1, seconds=0.0, threads=1)
    assert encoder.key(point).items() <= row.items()
    assert (row["rounds"], row["memory"]) == (1, 1.0)
    assert row["multiply_adds"] > 0
    assert "64 x 32 x 1 step fp32: ours" in tables.encoder_told(row)
    step_pass = encoder.ready("ours", "b0", networks.Load(64, 32, 1), "step", "fp32")
    assert step_pass.network.training
    step_pass()
    assert step_pass.gradients().keys() == dict(step_pass.network.named_parameters()).keys()


def test_the_tables_of_the_encoder():
    rows = [encoder_row(), encoder_row(precision="bf16", value=1.1), encoder_row("step", size="b2")]
    payload = json.loads(json.dumps({"rows": rows}))
    text = tables.encoder_document(payload)
    line = "| B0, 512 x 512 x 1 | fp32 | 200 | 300 | 1.50 [1.25, 1.75] | 50 | 100 | 2.00 | 3.6 | 2e-06 |"
    assert text.count(line) == 1
    assert "- B0, inference, fp32: time ratio 1.50 (geometric mean over 1 loads), 1.2 reached; at 1 with" in text
    assert "- B0, inference, bf16: time ratio 1.10 (geometric mean over 1 loads), 1.2 missed; at 1 with" in text
    assert tables.encoder_headline(payload) == (
        "time of mmsegmentation's encoder in ours, with the same weights: inference 1.50 (fp32), "
        "inference 1.10 (bf16), training steps 1.50 (fp32) (geometric means)"
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_heads_and_their_peers_are_one_function_and_the_parts_are_the_whole(narrow, precision, capsys):
    row = head.measure(precision, rounds=1, seconds=0.0, side=96)  # of 24 x 24 cells, which no subgrid has to pad
    assert set(row["heads"]) == {"daformer", "segformer", *head.PEERS}
    ours, peer = row["heads"]["daformer"], row["heads"]["daformer of mmseg's modules"]
    assert ours["multiply_adds"] == peer["multiply_adds"]
    assert ours["parameters"] == peer["parameters"]
    assert sum(part["multiply_adds"] for part in row["parts"].values()) == ours["multiply_adds"]
    assert {"dilation 18, depth-wise", "dilation 6, pointwise", "branch 1 x 1"} <= set(row["parts"])
    text = tables.head_document(json.loads(json.dumps({"rows": [row]})))
    assert text.count("| bottleneck |") == 1
    assert tables.head_told(row).startswith(f"{precision}: daformer ")


@pytest.mark.parametrize("distance", [True, False])
def test_procedures_give_the_same_gradients(narrow, distance, monkeypatch):
    released = step.released
    monkeypatch.setattr(step, "released", lambda size: replace(released(size), model=networks.our_config(size)))
    steps = {name: step.prepare(name, "b0", 128, "fp32", distance) for name in adaptation.PROCEDURES}
    assert adaptation.verified(steps) < 1e-5
    losses = steps["ours"]()
    assert ("distance" in losses) == distance
    assert all(value > 0 for value in losses.values())
    # The teacher is in the result: its pseudo-labels are learned from.
    with torch.no_grad():
        for weight in steps["released"].task.model.teacher.parameters():
            weight.mul_(-1)
    with pytest.raises(RuntimeError, match="loss mixed in fp32"):
        adaptation.verified(steps)


def test_the_table_of_the_step():
    row = {
        **adaptation.key(("b0", 256, True, "fp32")),
        "difference": 1e-7,
        "rounds": 6,
        "seconds_per_step": {"ours": 1.0, "released": 1.5, "graph": 1.6},
        "time": {"released": RATIO, "graph": RATIO},
        "memory_mib": {"ours": 100.0, "released": 120.0, "graph": None},
        "memory": {"released": 1.2, "graph": None},
    }
    text = tables.adaptation_document({"rows": [row]})
    assert (
        "| B0, 256 x 256 | fp32 | yes | 1.00 | 1.50 | 1.50 [1.25, 1.75] | 1.50 [1.25, 1.75] | 100 | 120 | killed"
        in text
    )
    assert tables.adaptation_told(row).startswith("b0 256 fp32 with distance: ours 1.00 s, 100 MiB; released time 1.50")


def test_bounded_memory_is_of_one_function_and_its_growth_is_said(narrow, monkeypatch):
    bounded.verify.__wrapped__("b0")
    views = {}
    for name in bounded.CONTENDERS:
        views[name] = bounded.ready(name, networks.Load(48, 96, 1))()
        assert views[name].shape[:2] == (1, networks.CLASSES)
    assert torch.allclose(views["daformer"], views["mmseg daformer"], atol=1e-4)
    # An image within one window goes through whole.
    assert torch.equal(views["daformer"], views["daformer in windows"])
    rows = [
        {**bounded.key((n, n)), "memory_mib": {"daformer": n * n / 1000, "mmseg daformer": None}} for n in (256, 512)
    ]
    text = tables.bounded_document({"rows": rows, "size": "b5"})
    assert "| exponent of the growth with pixels | 1.00 | n/a |" in text
    assert "| 512 x 512 | 262 | killed |" in text
    assert math.isclose(tables.growth(rows, "daformer"), 1.0)
    assert tables.bounded_told(rows[0]) == "256 x 256, MiB: daformer 66, mmseg daformer killed"
