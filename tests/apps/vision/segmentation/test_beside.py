"""Runs beside one another: what is said of them is of the same images, and what contradicts is refused in a line."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from apps.vision.segmentation import evaluate
from apps.vision.segmentation.beside import Opened, compared, opened
from apps.vision.segmentation.data.geometry import CropConfig
from apps.vision.segmentation.data.sources import Source, load_adaptation
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.presets import tiny
from apps.vision.segmentation.segmenter import PLAIN, Prediction, Segmenter
from core.errors import InputError


@pytest.fixture
def three(finished, scored_target):
    """A source-only run, one that adapted, and one that learned from the target's labels."""
    return [
        finished(name, scored_target, kind, seed=seed)
        for seed, (name, kind) in enumerate({"lower": "none", "own": "adapt", "upper": "target"}.items())
    ]


def scores_of(words, path):
    assert evaluate.main([*map(str, words), "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_every_run_has_the_scores_that_it_has_alone(three, tmp_path, capsys):
    lower, own, upper = three
    words = [own, "--beside", lower, "--upper", upper, "--flip"]
    found = scores_of(words, tmp_path / "beside.json")
    said = capsys.readouterr().out
    alone = {run.name: scores_of([run, "--flip"], tmp_path / "alone.json")["metrics"] for run in three}
    assert found["metrics"] == alone["own"]
    beside = found["details"]["beside"]
    assert list(beside) == ["source-only", "oracle"]
    for name, run, kind in (("source-only", lower, "none"), ("oracle", upper, "target")):
        assert (beside[name]["run"], beside[name]["adaptation"]) == (str(run), kind)
        assert beside[name]["metrics"] == alone[run.name]
        assert set(beside[name]["difference"]) == {"miou", "pixel_accuracy", "iou/sky", "iou/car"}
        for metric, difference in beside[name]["difference"].items():
            expected = alone["own"][metric]["value"] - alone[run.name][metric]["value"]
            assert difference["value"] == pytest.approx(expected)
            assert difference["ci95"][0] <= expected <= difference["ci95"][1]
            assert 0 < difference["p"] <= 1
    for metric, closed in found["details"]["gap_closed"].items():
        gap = alone["upper"][metric]["value"] - alone["lower"][metric]["value"]
        assert closed["gap"]["value"] == pytest.approx(gap)
        assert (closed["share"] is None) == (not closed["gap"]["ci95"][0] > 0)
        gain = alone["own"][metric]["value"] - alone["lower"][metric]["value"]
        assert closed["share"] is None or closed["share"]["value"] == pytest.approx(100 * gain / gap)
    assert f"beside source-only ({lower}), on the same images: adapted minus source-only" in said
    assert "of the gap between source-only and oracle, adapted closes, in %" in said


def test_one_run_beside_needs_no_gap_and_two_of_a_kind_go_by_their_folders(three, finished, scored_target, tmp_path):
    _, own, _ = three
    other = finished("other", scored_target, "adapt", seed=5)
    found = scores_of([own, "--beside", other], tmp_path / "scores.json")["details"]
    assert list(found) == ["beside"]
    assert list(found["beside"]) == ["adapted (other)"]
    assert scores_of([own], tmp_path / "scores.json")["details"] == {}


class Says(Segmenter):
    """Says what it was told, whatever it sees."""

    def __init__(self, kind, classes, told):
        config = tiny()
        config = dataclasses.replace(config, adaptation=dataclasses.replace(config.adaptation, kind=kind))
        super().__init__(config, classes, Segmentor(len(classes), config.model))
        self.told = told

    def predict(self, images, inference=PLAIN, *, box=None):
        for labels, _ in zip(self.told, images, strict=True):
            yield Prediction(labels, np.ones(labels.shape, dtype=np.float32))


def test_the_gap_is_closed_by_as_much_as_was_made_right(scored_target, tmp_path):
    data = load_adaptation(Source(data=str(scored_target), source_domain="day", target_domain="dusk"))
    truths = [item.label.read() for item in data.split("test")]

    def right_in(rows):
        """The truth in so many rows of each image, more of them in some than in others."""
        return [
            np.where(np.arange(72)[:, None] < rows * (2 + place % 3) // 3, truth, (truth + 1) % 3).astype(np.uint8)
            for place, truth in enumerate(truths)
        ]

    torch.manual_seed(0)
    runs = [
        Opened(tmp_path / kind, Says(kind, data.classes, right_in(rows)), {})
        for kind, rows in {"adapt": 18, "none": 9, "target": 45}.items()
    ]
    own = np.stack([np.zeros((3, 3), dtype=np.int64)] * 6)
    for matrix, truth, said in zip(own, truths, runs[0].segmenter.told, strict=True):
        np.add.at(matrix, (truth.ravel(), said.ravel()), 1)
    found = compared(runs, data, "test", PLAIN, own)
    assert (found.name, found.lower.name, found.upper.name) == ("adapted", "source-only", "oracle")
    assert found.closed["pixel_accuracy"].share.value == pytest.approx(100 * (18 - 9) / (45 - 9))
    assert found.lower.differences["pixel_accuracy"].value == pytest.approx(100 * 9 / 72)
    assert set(found.closed) == {"miou", "pixel_accuracy", "iou/sky", "iou/car"}


def refusal(*words, **more):
    with pytest.raises(InputError) as error:
        opened(*words, split="test", **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_contradictions_are_refused_in_a_line(three, finished, scored_target, write_set, stripes, tmp_path):
    lower, own, upper = three
    assert "is the run that is evaluated" in refusal(own, own, None)
    assert "no end of a gap" in refusal(own, upper, lower)
    assert "--upper is a run with adaptation.kind=target" in refusal(own, lower, finished("x", scored_target, "adapt"))
    sized = finished("sized", scored_target, target=CropConfig(crop=(64, 96), box=(48, 64)))
    assert "it takes images of 48 x 64" in refusal(own, sized, None)
    assert f"{own} of their own size" in refusal(own, sized, None)

    retouched = tmp_path / "retouched"
    shutil.copytree(scored_target, retouched)
    shutil.copy(scored_target / "labels" / "aa-s.png", retouched / "labels" / "ke-t.png")
    other = finished("other", retouched)
    assert f"its images of test are not those of {own}" in refusal(own, other, None)
    assert len(opened(own, other, None, split="test", elsewhere=True)) == 2  # on data that are neither's
    assert len(opened(own, other, None, split="valid")) == 2

    shutil.copy(scored_target / "labels" / "at-t.png", retouched / "labels" / "aa-s.png")
    other = finished("another", retouched)
    assert "it learned from other images of the source" in refusal(own, other, None, elsewhere=True)

    items = [("a", "day", "train", stripes(0, 1)), ("b", "day", "valid", stripes(0, 1))]
    named = write_set(tmp_path / "named", [*items, ("c", "dusk", "train", None)], classes=("street", "sky", "car"))
    assert "its classes (street, sky, car, …) are not those of" in refusal(own, finished("named-run", named), None)


def test_what_is_wrong_on_the_line_ends_with_status_2(three, tmp_path, capsys):
    lower, own, upper = map(str, three)
    assert evaluate.main([own, "--upper", upper]) == 2
    assert "there is no lower end of the gap; give --beside too" in capsys.readouterr().err
    assert evaluate.main([own, "--beside", str(tmp_path / "nothing")]) == 2
    assert "is not a run directory" in capsys.readouterr().err
    assert evaluate.main([own, "--beside", lower, "--upper", upper, "--split", "source-valid"]) == 2
    assert "its images of source-valid are not those of" in capsys.readouterr().err
