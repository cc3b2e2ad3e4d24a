"""Planning, pairing and tables of the cost of the encoders; nothing is timed."""

import json
from importlib.util import find_spec

import pytest

from benchmarks.asr import encoder, encoder_table
from benchmarks.asr.contenders import CONTENDERS, Load, described, prepare

# Not imported to find out: once loaded, its lazy modules answer whoever looks through all modules.
pytestmark = pytest.mark.skipif(find_spec("speechbrain") is None, reason="a peer of the benchmarks is missing")

FASTER = {"ours": [1.0, 1.1, 1.0], "torchaudio": [3.0, 3.3, 3.3], "speechbrain": [1.2, 1.1, 0.9]}
COUNTS = {"ours": 100, "torchaudio": 150, "speechbrain": 130}
MEMORY = {"ours": 50.0, "torchaudio": 100.0, "speechbrain": None}


def row(seconds=2.0, precision="fp32", mode="infer"):
    return {
        **encoder.key((Load(seconds, 1), precision, mode)),
        "rounds": 3,
        "seconds_per_pass": {"ours": 1.0, "torchaudio": 3.3, "speechbrain": 1.1},
        "multiply_adds": COUNTS,
        "memory_mib": MEMORY,
        "peers": encoder.compare(FASTER, COUNTS, MEMORY),
    }


def test_every_load_has_both_passes_in_both_precisions():
    points = list(encoder.plan("2x1,30x8"))
    assert len(points) == len(set(points)) == 8
    assert {load.frames for load, _, _ in points} == {201, 3001}
    assert len(list(encoder.plan(",".join(encoder.LOADS)))) == 24
    with pytest.raises(SystemExit, match="no point '3x1'"):
        list(encoder.plan("3x1"))


def test_the_time_ratio_is_held_against_the_multiply_adds():
    found = encoder.compare(FASTER, COUNTS, MEMORY)
    assert found["torchaudio"]["time"]["value"] == pytest.approx(3.0)
    assert found["torchaudio"]["multiply_adds"] == 1.5
    assert (found["torchaudio"]["at_least"], found["torchaudio"]["clear"]) == (True, True)
    assert found["torchaudio"]["memory"] == 2.0
    assert (found["speechbrain"]["at_least"], found["speechbrain"]["clear"]) == (False, True)
    assert found["speechbrain"]["memory"] is None
    even = encoder.compare(FASTER, {**COUNTS, "speechbrain": 110}, MEMORY)["speechbrain"]
    assert (even["at_least"], even["clear"]) == (False, False)


def test_tables_come_from_the_stored_rows():
    payload = json.loads(
        json.dumps(
            {
                "contenders": {name: {"parameters": 9_031_808, "width": 144} | dict.fromkeys(
                    ("layers", "heads", "hidden", "kernel"), 1) for name in CONTENDERS},
                "rows": [row(), row(10.0), row(mode="step", precision="bf16")],
            }
        )
    )  # fmt: skip
    text = encoder_table.document(payload)
    assert text.count("| 2 s x 1 | fp32 | 1000 | 3300 | 3.00 [3.00, 3.30] | 1.50 | yes | 50 | 100 | 2.00 |") == 1
    assert text.count("| 2 s x 1 | bf16 | 1000 | 1100 | 1.00 [0.90, 1.20] | 1.30 | no | 50 | killed | n/a |") == 1
    facts = encoder_table.facts(payload["rows"], "torchaudio")
    assert set(facts) == {"infer fp32", "step bf16"}
    assert facts["infer fp32"]["points"] == facts["infer fp32"]["met"] == facts["infer fp32"]["faster"] == 2
    assert facts["infer fp32"]["time"] == pytest.approx(3.0)
    assert encoder_table.facts(payload["rows"], "speechbrain")["infer fp32"]["slower"] == 0
    assert encoder_table.headline(payload).startswith(
        "inference 3.00 times as fast as the torchaudio Conformer and 1.0"
    )


def test_what_is_stored_is_not_measured_again_and_a_kill_loses_one_row(tmp_path, monkeypatch, capsys):
    measured = []

    def measure(point, **_):
        measured.append(point)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return row(point[0].seconds, point[1], point[2])

    monkeypatch.setattr(encoder, "measure", measure)
    monkeypatch.setattr(encoder, "described", lambda name: dict.fromkeys(encoder_table.MEASURES, 1))
    arguments = ["--out", str(tmp_path / "e.json"), "--points", "2x1", "--threads", "1"]
    with pytest.raises(KeyboardInterrupt):
        encoder.main(arguments)
    assert encoder.main(arguments) == 0
    assert measured[2:] == [*list(encoder.plan("2x1"))[2:3], *list(encoder.plan("2x1"))[2:]]
    assert len(json.loads((tmp_path / "e.json").read_text())["rows"]) == 4
    assert (tmp_path / "e.md").read_text().startswith("## Contenders")


def test_contenders_have_equal_parameters_within_two_percent():
    sizes = {name: described(name) for name in CONTENDERS}
    assert sizes["ours"]["parameters"] == 9_031_808
    for name in ("torchaudio", "speechbrain"):
        assert abs(sizes[name]["parameters"] / sizes["ours"]["parameters"] - 1) < 0.02
        assert all(sizes[name][key] == sizes["ours"][key] for key in ("width", "layers", "heads", "kernel", "dropout"))


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_training_step_gives_every_weight_a_gradient_and_inference_none(name):
    step, infer = (prepare(name, Load(0.2, 1), "fp32", mode) for mode in ("step", "infer"))
    step()
    infer()
    assert all(weight.grad is not None for weight in step.network.parameters())
    assert all(weight.grad is None for weight in infer.network.parameters())
    assert step.network.training
    assert not any(module.training for module in infer.network.modules())
