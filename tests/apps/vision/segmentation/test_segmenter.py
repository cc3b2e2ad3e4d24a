"""Prediction: any size, windows, views; saved and loaded; the verbs."""

import json
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from apps.vision.segmentation import evaluate, info, train
from apps.vision.segmentation import segmenter as module
from apps.vision.segmentation.adaptation import enlarged
from apps.vision.segmentation.baseline import RowMajority
from apps.vision.segmentation.config import ModelConfig, SegmentationConfig
from apps.vision.segmentation.data.classes import Classes, colours_for
from apps.vision.segmentation.data.geometry import CropConfig
from apps.vision.segmentation.data.sources import load_adaptation
from apps.vision.segmentation.inference import Inference, enlarged_rows, starts, view_logits
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.presets import tiny
from apps.vision.segmentation.segmenter import Segmenter
from core.errors import InputError

MODEL = ModelConfig(
    widths=(8, 8, 8, 16), depths=(1, 1, 1, 1), heads=(1, 1, 1, 2), head_width=8, dilations=(1, 2), drop_path=0.0
)
CLASSES = Classes(names=("road", "sky", "car"), palette=colours_for(3))


class Pointwise(nn.Module):
    """A network of 1 x 1 convolutions; counts how many images it is given at most."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.map, self.most = nn.Conv2d(3, 4, 1), 0

    def features(self, images):
        self.most = max(self.most, len(images))
        return (images,)

    def logits(self, features):
        return self.map(features[-1])


@pytest.fixture
def segmenter():
    torch.manual_seed(1)
    model = Segmentor(3, MODEL)
    nn.init.normal_(model.head.classifier.weight)
    return Segmenter(SegmentationConfig(model=MODEL, target=CropConfig(box=(64, 96))), CLASSES, model)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("window", "stride"), [((8, 8), (5, 7)), ((8, 40), None), ((20, 9), (20, 3))])
def test_windows_give_what_the_whole_image_gives_where_pixels_are_alone(window, stride):
    images, network = torch.randn(2, 3, 20, 31), Pointwise()
    (whole,) = view_logits(network, images, Inference())
    network.most = 0
    (windowed,) = view_logits(network, images, Inference(window=window, stride=stride, batch=3))
    assert torch.allclose(whole, windowed, atol=1e-5)
    assert network.most <= 3


def test_windows_reach_every_pixel_and_stay_inside():
    for whole, side, step in ((31, 8, 7), (16, 8, 8), (17, 8, 8), (8, 8, 3)):
        found = starts(whole, side, step)
        covered = {pixel for start in found for pixel in range(start, start + side)}
        assert covered == set(range(whole))


def test_views_are_averaged_as_probabilities(segmenter):
    image = picture(40, 60)
    plain, mirrored = (next(segmenter.probabilities([each])) for each in (image, np.ascontiguousarray(image[:, ::-1])))
    both = next(segmenter.probabilities([image], Inference(flip=True)))
    assert torch.allclose(both, (plain + mirrored.flip(-1)) / 2, atol=1e-6)
    scaled = next(segmenter.probabilities([image], Inference(scales=(1.0, 0.5))))
    assert scaled.shape == plain.shape
    assert torch.allclose(scaled.sum(0), torch.ones(40, 60), atol=1e-5)
    assert not torch.allclose(scaled, plain)


def test_images_of_all_sizes_come_back_in_order_as_each_alone(segmenter):
    images = [picture(40, 60), picture(64, 96, 1), picture(40, 60, 2), picture(33, 50, 3)]
    together = list(segmenter.predict(iter(images), Inference(batch=3)))
    for image, found in zip(images, together, strict=True):
        alone = next(segmenter.predict([image]))
        assert found.labels.shape == image.shape[:2]
        assert found.labels.dtype == np.uint8
        assert np.mean(found.labels == alone.labels) > 0.999
        assert np.allclose(found.certainty, alone.certainty, atol=1e-5)


@pytest.mark.parametrize("size", [(40, 60), (9, 300), (301, 17), (5, 5), (1, 7)])
def test_rows_are_those_of_the_whole(size):
    logits = torch.randn(3, 10, 15, generator=torch.Generator().manual_seed(1))
    whole = enlarged(logits[None], size)[0]
    for first in range(0, size[0], 7):
        rows = slice(first, min(first + 7, size[0]))
        assert torch.allclose(enlarged_rows(logits, size, rows), whole[:, rows], atol=1e-5)
    assert torch.equal(enlarged_rows(logits, (10, 15), slice(3, 5)), logits[:, 3:5])


def test_images_are_judged_some_rows_at_a_time(segmenter, monkeypatch):
    image, flip = picture(70, 90), Inference(flip=True)
    (whole,) = segmenter.predict([image], flip, uncertainty=True)
    mean = next(segmenter.probabilities([image], flip))
    most = []
    kept = module._bands

    def seen(views, size):
        for rows, part in kept(views, size):
            most.append(part.numel() * 4)
            yield rows, part

    monkeypatch.setattr(module, "_BAND", 5000)
    monkeypatch.setattr(module, "_bands", seen)
    (banded,) = segmenter.predict([image], flip, uncertainty=True)
    assert len(most) == 18  # 4 rows of 90 x 3
    assert max(most) <= 5000
    assert np.array_equal(banded.labels, mean.argmax(0).numpy())
    for name in ("labels", "certainty", "entropy"):
        assert np.allclose(getattr(banded, name), getattr(whole, name), atol=1e-6)


def test_logits_of_windows_are_held_of_one_image(segmenter):
    drawn = []

    def images():
        for number in range(4):
            drawn.append(number)
            yield picture(64, 96, number)

    next(segmenter.predict(images(), Inference(window=(32, 32), batch=3)))
    assert drawn == [0]


def test_precision_changes_numbers_a_little(segmenter):
    image = picture(64, 96)
    exact, rough = (next(segmenter.probabilities([image], Inference(precision=word))) for word in ("fp32", "bf16"))
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    assert (exact - rough).abs().max() < 0.2


def test_saved_and_loaded_it_says_the_same(segmenter, tmp_path):
    segmenter.save(tmp_path)
    again = Segmenter.load(tmp_path)
    image = picture(50, 50)
    one, other = (next(each.probabilities([image])) for each in (segmenter, again))
    assert torch.equal(one, other)
    assert again.classes == segmenter.classes
    assert again.config == segmenter.config


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda s: next(s.predict([np.zeros((4, 4), dtype=np.uint8)])), "is no RGB image"),
        (lambda s: next(s.predict(["nowhere.png"])), r"nowhere\.png"),
        (lambda s: Inference(window=(4, 4), stride=(5, 4)), "stride: "),
        (lambda s: Inference(scales=()), "scales: "),
        (lambda s: Segmenter(s.config, Classes(names=("a", "b"), palette=colours_for(2)), s.model), "3 outputs for 2"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(segmenter, make, said):
    with pytest.raises(InputError, match=said):
        make(segmenter)


@pytest.mark.untyped
def test_the_floor_is_the_class_of_a_row(two_domains):
    from apps.vision.segmentation.data.folders import open_folder

    class Item:
        class label:
            @staticmethod
            def read():
                return np.array([[0, 0, 1], [1, 1, 2], [255, 255, 255], [2, 2, 2]], dtype=np.uint8)

    assert RowMajority.learned([Item], 3, bands=4).classes.tolist() == [0, 1, 2, 2]
    items = open_folder(two_domains, domain="day").labelled("train")
    assert set(RowMajority.learned(items, 3).predict((72, 96)).labels.ravel().tolist()) <= {0, 1, 2}


def test_trained_and_evaluated_from_the_command_line(two_domains, tmp_path, capsys):
    out, scores = tmp_path / "run", tmp_path / "scores.json"
    words = ["--preset", "tiny", "--data", str(two_domains), "--source-domain", "day", "--target-domain", "dusk"]
    words += ["--out", str(out), "--fit.max-epochs", "1", "--batch", "2", "--progress", "off"]
    assert train.main(words) == 0
    assert "6 labelled images and 2 of the target without labels" in capsys.readouterr().out
    assert evaluate.main([str(out), "--json", str(scores), "--window", "48", "48"]) == 0
    record = json.loads(scores.read_text())
    assert record["n"] == 2
    assert {"miou", "pixel_accuracy", "iou/sky"} <= record["metrics"].keys()
    assert "iou/road" not in record["metrics"]  # no label of the split has it
    assert "without a labelled pixel" in capsys.readouterr().out
    assert evaluate.main([str(out), "--split", "source-valid"]) == 0
    assert evaluate.main([str(out), "--split", "train"]) == 2
    assert "there is no labelled split 'train'" in capsys.readouterr().err
    assert info.main([str(out), "--height", "64", "--width", "64"]) == 0
    assert "adapt" in capsys.readouterr().out
    assert train.main(words) == 0  # again: finished
    assert train.main([*words, "--adaptation.kind", "target"]) == 2


def test_seconds_are_those_until_things_come(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(evaluate.time, "perf_counter", lambda: now[0])

    def things():
        for number in range(5):
            now[0] += 2.0
            yield number

    clock, got = evaluate.Stopwatch(), []
    for thing in clock.timed(things()):
        now[0] += 100.0  # what is done with it
        got.append(thing)
    assert got == list(range(5))
    assert clock.seconds == 10.0


def test_an_evaluation_holds_one_prediction_at_a_time(monkeypatch):
    data, config = load_adaptation(), tiny()
    torch.manual_seed(0)
    segmenter = Segmenter(config, data.classes, Segmentor(len(data.classes), config.model))
    seen, most = [], []
    kept = evaluate.predicted

    def watched(*given):
        for prediction in kept(*given):
            seen.append(weakref.ref(prediction))
            yield prediction
            del prediction
            most.append(sum(each() is not None for each in seen))

    whole = evaluate.matrices(data.split("valid"), list(kept(segmenter, data, "valid")), len(data.classes))
    monkeypatch.setattr(evaluate, "predicted", watched)
    found = evaluate.evaluate(segmenter, data, "valid")
    assert np.array_equal(found.matrices, whole)
    assert len(most) == len(whole) > 8
    assert max(most) <= 1
