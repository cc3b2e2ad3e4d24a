"""Planning, keeping and scoring of the error rates; and that every network trains through the same code."""

import json
from dataclasses import asdict, replace
from importlib.util import find_spec

import pytest

from apps.asr.config import ModelConfig
from apps.asr.presets import PRESETS
from benchmarks.asr import accuracy, accuracy_table
from benchmarks.asr.peers import parameters
from benchmarks.asr.systems import OFF_THE_SHELF, SYSTEMS, peer_size, system_names
from core.errors import InputError

# Not imported to find out: once loaded, its lazy modules answer whoever looks through all modules.
pytestmark = pytest.mark.skipif(find_spec("speechbrain") is None, reason="a peer of the benchmarks is missing")

TRAINED = [name for name in SYSTEMS if name != OFF_THE_SHELF]


def keys(*more):
    options = accuracy._parser().parse_args(["--data", "/a/corpus", "--threads", "1", *more])
    return list(accuracy.plan(options))


def test_the_plan_interleaves_the_systems():
    found = keys("--systems", "squeezeformer,torchaudio", "--seeds", "0,3")
    assert [(key.system, key.seed) for key in found] == [
        ("squeezeformer", 0), ("torchaudio", 0), ("squeezeformer", 3), ("torchaudio", 3)
    ]  # fmt: skip
    assert found[1].stem == "corpus--torchaudio--0"
    assert set(found[1].versions) == {"torch", "torchaudio"}


def test_wrong_names_are_one_line_and_status_two(capsys):
    assert accuracy.main(["--data", "x", "--systems", "torchaudoi"]) == 2
    assert capsys.readouterr().err == "no system 'torchaudoi'; did you mean 'torchaudio'?\n"
    with pytest.raises(InputError, match="no preset"):
        keys("--preset", "defualt")
    assert set(TRAINED) <= set(system_names())


def record(errors, *, speakers=None):
    speakers = speakers or [None] * len(errors)
    return {
        "status": "finished",
        "synthetic": True,
        "parameters": 10,
        "fit": {"seconds": 60.0, "epochs": 3},
        "predict": {"seconds": 1.0, "audio_seconds": 100.0},
        "memory": {"peak_mib": 5.0},
        "provenance": {"commit": "c", "machine": {"processor": "p"}},
        "utterances": [
            {
                **{"key": str(i), "speaker": speaker, "words": {"errors": n, "of": 4 + i}},
                "characters": {"errors": n, "of": 20},
            }
            for i, (n, speaker) in enumerate(zip(errors, speakers, strict=True))
        ],
    }  # fmt: skip


ERRORS = {"squeezeformer": ([1, 0, 2], [0, 1, 2]), "torchaudio": ([3, 3, 3], [4, 2, 3])}


@pytest.fixture
def folder(tmp_path):
    for key in keys("--systems", ",".join(ERRORS), "--seeds", "0,1"):
        accuracy.save(tmp_path / "runs", key, record(ERRORS[key.system][key.seed]))
    return tmp_path / "runs"


def test_a_run_counts_only_for_the_same_request_and_with_refresh_the_same_code(folder):
    (key,) = keys("--systems", "torchaudio")
    assert accuracy.is_done(folder, key, refresh=True)
    assert not accuracy.is_done(folder, replace(key, minutes=1.0), refresh=False)
    assert not accuracy.is_done(folder, replace(key, seed=9), refresh=False)
    path = folder / f"{key.stem}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source": "old"}))
    assert accuracy.is_done(folder, key, refresh=False)
    assert not accuracy.is_done(folder, key, refresh=True)
    accuracy.save(folder, key, {"status": "failed"})
    assert not accuracy.is_done(folder, key, refresh=False)


def test_a_run_that_raises_says_why(tmp_path):
    (key,) = keys("--systems", "torchaudio")
    assert accuracy.execute(key, str(tmp_path / "absent"), tmp_path) == "failed"
    assert "InputError" in accuracy.load(tmp_path, key.stem)["reason"]


def test_rates_are_of_the_corpus_and_differences_are_paired(folder, tmp_path):
    assert accuracy_table.main(["--runs", str(folder), "--out", str(tmp_path / "a.json"), "--resamples", "200"]) == 0
    found = json.loads((tmp_path / "a.json").read_text())["corpora"]["corpus"]
    assert found["systems"]["squeezeformer"]["wer"]["value"] == pytest.approx(100 * 3 / 15)
    assert found["systems"]["torchaudio"]["cer"]["value"] == pytest.approx(100 * 9 / 60)
    difference = found["differences"]["torchaudio"]["wer"]
    assert difference["value"] == pytest.approx(20 - 60)
    assert "independent units" in difference["note"]
    text = (tmp_path / "a.md").read_text()
    assert "| squeezeformer | 20.0 [" in text
    assert "| torchaudio | -40.0 [" in text
    assert text.startswith("## corpus\n\nsynthetic speech, 3 test utterances")


def test_speakers_are_resampled_whole_where_there_are_enough():
    names = [f"s{i % 10}" for i in range(30)]
    assert list(accuracy_table.speakers(record([0] * 30, speakers=names))) == names
    assert accuracy_table.speakers(record([0] * 30, speakers=[*names[:-1], None])) is None
    assert accuracy_table.speakers(record([0] * 9, speakers=names[:9])) is None


def test_other_utterances_are_not_compared(folder):
    runs = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    for run in runs:
        if run["key"]["system"] == "torchaudio":
            run["utterances"].reverse()
    with pytest.raises(ValueError, match="same utterances"):
        accuracy_table.summarise(runs, 10)


def test_other_conditions_are_not_compared(folder):
    runs = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    runs[0]["key"]["minutes"] = 1.0
    with pytest.raises(ValueError, match="same conditions"):
        accuracy_table.summarise(runs, 10)


def test_peers_take_our_measures_and_our_number_of_parameters():
    config = PRESETS["default"]().model
    ours = parameters(SYSTEMS["squeezeformer"].build(80, 30, config))
    for name in ("torchaudio", "speechbrain"):
        size = peer_size(name, 80, 30, config)
        assert (size.width, size.layers, size.kernel) == (config.width, config.layers, config.kernel)
        assert abs(parameters(SYSTEMS[name].build(80, 30, config)) / ours - 1) < 0.02


@pytest.mark.parametrize("name", TRAINED)
def test_our_optimiser_places_every_parameter(name):
    config = ModelConfig(width=16, layers=2, heads=2, reduce=0, kernel=3)
    model = SYSTEMS[name].build(80, 8, config)
    optimizer = PRESETS["default"]().optim.build(model, SYSTEMS[name].rules)
    groups = {group["name"]: group["params"] for group in optimizer.param_groups}
    assert sum(len(group) for group in groups.values()) == len(list(model.parameters()))
    assert [weight.shape for weight in groups["head"]] == [model.head.weight.shape]
    assert all(weight.ndim >= 2 for weight in groups["matrix"])


def test_the_key_is_plain_data():
    (key,) = keys("--systems", "torchaudio")
    assert accuracy.RunKey(**json.loads(json.dumps(asdict(key)))) == key
