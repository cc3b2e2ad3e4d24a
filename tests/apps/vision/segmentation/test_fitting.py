"""Training as a whole: resumed anywhere it is the unbroken run, and labels of the target are nowhere in it."""

import dataclasses
import shutil

import pytest
import torch
from safetensors.torch import save_file

from apps.vision.segmentation.adaptation import ramp
from apps.vision.segmentation.application import APPLICATION
from apps.vision.segmentation.choice import choice
from apps.vision.segmentation.config import AdaptationConfig, ModelConfig, SegmentationConfig
from apps.vision.segmentation.data import items
from apps.vision.segmentation.data.batches import Store
from apps.vision.segmentation.data.geometry import CropConfig
from apps.vision.segmentation.data.items import count_labels
from apps.vision.segmentation.data.rare import RareClassConfig
from apps.vision.segmentation.data.sources import Source
from apps.vision.segmentation.fitting import fit_segmenter, new_model, task_of, training
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.task import AdaptationTask
from apps.vision.segmentation.weights import encoder_state
from core.application.base import FILLED
from core.artefact import load
from core.errors import InputError
from core.optim import OptimConfig
from core.training import FitSettings, Pace

CROP = CropConfig(crop=(32, 48))
CONFIG = SegmentationConfig(
    model=ModelConfig(
        widths=(8, 8, 8, 16), depths=(1, 1, 1, 1), heads=(1, 1, 1, 2), head_width=8, dilations=(1, 2), drop_path=0.2
    ),
    adaptation=AdaptationConfig(threshold=0.3, ignore_top=0, ignore_bottom=4, mix_ramp=0.5),
    source=CROP,
    target=CROP,
    rare=RareClassConfig(temperature=0.1),
    photometric=True,
    optim=OptimConfig(lr=3e-3),
    fit=FitSettings(max_epochs=2),
    watch="target_agreement",
)


def config_of(kind="adapt", **changes):
    watch = "target_agreement" if kind == "adapt" else "source_miou"
    adaptation = dataclasses.replace(CONFIG.adaptation, kind=kind)
    return dataclasses.replace(CONFIG, **{"adaptation": adaptation, "watch": watch, **changes})


def source_of(folder):
    return Source(data=str(folder), source_domain="day", target_domain="dusk")


def fitted(folder, config, directory=None):
    return fit_segmenter(config, APPLICATION.load(source_of(folder), config), directory=directory)


def state_of(directory):
    tree = load(directory / "last", kind="training-state", version=1)
    numbers = {name: value for name, value in tree["state"].items() if "seconds" not in name and name != "history"}
    records = [{k: v for k, v in record.items() if k != "seconds"} for record in tree["state"]["history"]]
    return tree["model"], tree["optimizer"], (numbers, records)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    return a == b


@pytest.mark.parametrize("kind", ["adapt", "none"])
def test_stopped_after_every_step_it_is_the_unbroken_run(two_domains, tmp_path, kind):
    config = config_of(kind)
    whole = fitted(two_domains, config, tmp_path / "whole")
    assert (whole.result.steps, whole.result.stopped_by) == (6, "epochs")
    short = dataclasses.replace(config, fit=dataclasses.replace(config.fit, max_minutes=1e-9))
    for _ in range(6):
        again = fitted(two_domains, short, tmp_path / "again")  # one step, in mid-epoch in two of three calls
    assert again.result.stopped_by == "epochs"
    for one, other in zip(state_of(tmp_path / "whole"), state_of(tmp_path / "again"), strict=True):
        assert same(one, other)
    model = state_of(tmp_path / "whole")[0]
    assert any(name.startswith("teacher.") for name in model) == (kind == "adapt")
    assert same(dict(whole.segmenter.model.state_dict()), dict(again.segmenter.model.state_dict()))


def test_seeds_decide(two_domains):
    one, same_again = (fitted(two_domains, config_of()).segmenter.model.state_dict() for _ in range(2))
    other = fitted(two_domains, config_of(seed=1)).segmenter.model.state_dict()
    assert same(dict(one), dict(same_again))
    assert not same(dict(one), dict(other))


@pytest.fixture
def labelled_target(write_set, stripes, tmp_path):
    """As ``two_domains``, with labels of the target's training images too, and a valid split."""
    source = [(f"{letter}a-s", "day", "train", stripes(0, 1, 2)) for letter in "abcdef"]
    source += [(f"{letter}v-s", "day", "valid", stripes(0, 1, 2)) for letter in "gh"]
    target = [(f"{letter}t-t", "dusk", "train", stripes(2, 1, 0)) for letter in "ab"]
    target += [(f"{letter}e-t", "dusk", split, stripes(1, 2)) for letter, split in (("c", "valid"), ("d", "test"))]
    return write_set(tmp_path / "labelled", [*source, *target])


def test_labels_of_the_target_are_not_read(labelled_target, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(labelled_target, broken)
    for file in (broken / "labels").glob("*-t.png"):
        file.write_bytes(b"no picture at all")
    for kind in ("adapt", "none"):
        config = config_of(kind)
        results = [fitted(folder, config) for folder in (labelled_target, broken)]
        one, other = (dict(result.segmenter.model.state_dict()) for result in results)
        assert same(one, other)
        histories = [[{k: v for k, v in r.items() if k != "seconds"} for r in f.result.history] for f in results]
        assert histories[0] == histories[1]
    facts = [APPLICATION.facts(source_of(f), APPLICATION.load(source_of(f), CONFIG)) for f in (labelled_target, broken)]
    assert facts[0]["digest"]["target-train"] == facts[1]["digest"]["target-train"]


def test_labels_of_the_target_are_read_where_they_are_asked_for(labelled_target, tmp_path):
    config = config_of("target")
    data = APPLICATION.load(source_of(labelled_target), config)
    assert {item.key for item in data.source["train"]} == {"at-t", "bt-t"}
    adapted = APPLICATION.load(source_of(labelled_target), CONFIG)
    assert data.split("test") == adapted.split("test")
    digests = [APPLICATION.facts(source_of(labelled_target), each)["digest"] for each in (data, adapted)]
    assert digests[0]["test"] == digests[1]["test"]
    assert digests[0]["valid"] == digests[1]["valid"]
    assert fitted(labelled_target, config).images == {"source": 2, "target": 0}
    for file in (labelled_target / "labels").glob("*t-t.png"):
        file.write_bytes(b"no picture at all")
    with pytest.raises(InputError, match=r"at-t\.png|bt-t\.png"):
        fitted(labelled_target, config)


def test_what_cannot_be_trained_on_is_one_line(two_domains, write_set, stripes, tmp_path):
    with pytest.raises(InputError, match=r"there is no labelled image in 'train'; training on the target's labels"):
        APPLICATION.load(source_of(two_domains), config_of("target"))
    with pytest.raises(InputError, match="no teacher to agree with"):
        config_of("none", watch="target_agreement")
    with pytest.raises(InputError, match="of one size to be mixed"):
        config_of(target=CropConfig(crop=(64, 64)))
    with pytest.raises(InputError, match="no such file"):
        fitted(two_domains, config_of(pretrained=str(tmp_path / "mit_b0.pth")))
    one = [("a", "day", "train", stripes(0, 1)), ("b", "day", "valid", stripes(0, 1))]
    alone = write_set(tmp_path / "alone", [*one, ("c", "dusk", "test", stripes(0, 1))])
    with pytest.raises(InputError, match="no target image in 'train'"):
        APPLICATION.load(source_of(alone), CONFIG)


def test_with_image_net_weights_the_student_begins_with_them_and_stays_near_on_things(write_set, stripes, tmp_path):
    items = [(f"{letter}a-s", "day", split, stripes(1, 1, 1, 0)) for letter, split in (("a", "train"), ("b", "valid"))]
    folder = write_set(tmp_path / "set", [*items, ("ct-t", "dusk", "train", None)], things=["sky"])
    torch.manual_seed(5)
    model = dataclasses.replace(CONFIG.model, drop_path=0.0)
    theirs = Segmentor(1000, model)
    save_file(encoder_state(theirs, "official"), tmp_path / "mit.safetensors")
    config = config_of(pretrained=str(tmp_path / "mit.safetensors"), model=model, batch=1, rare_classes=False)
    data = APPLICATION.load(source_of(folder), config)
    student = new_model(config, 3)
    assert same(dict(student.encoder.state_dict()), dict(theirs.encoder.state_dict()))
    task = task_of(config, data, student)
    assert task.reference.things == {1}
    task.model.at_step(0, 1)
    batches = [batch for _, batch in zip(range(6), training(config, data, Store()).stream(), strict=False)]
    assert all(task.training_loss(batch)["distance"] < 1e-7 for batch in batches)  # the same network still
    with torch.no_grad():
        list(student.encoder.parameters())[-1].add_(1)  # the bias of the last norm
    assert any(task.training_loss(batch)["distance"] > 1e-6 for batch in batches)
    other = task_of(dataclasses.replace(config, pretrained=None), data, student)
    assert other.reference is None


def test_the_last_weights_are_those_of_the_end_whatever_was_seen(two_domains, monkeypatch):
    seen = iter([9.0, 1.0, 5.0])
    monkeypatch.setattr(AdaptationTask, "evaluate", lambda *_: {"source_miou": next(seen), "target_agreement": 1.0})
    config = config_of(watch="last", fit=FitSettings(max_epochs=3))
    result = fitted(two_domains, config).result
    assert (result.best, result.best_epoch) == (5.0, 3)
    assert [record["source_miou"] for record in result.history] == [9.0, 1.0, 5.0]


def test_labels_of_valid_are_shown_only_where_that_is_asked(labelled_target):
    shown, hidden = (fitted(labelled_target, config_of(show_target=show)) for show in (True, False))
    said = {"target_miou", "teacher_miou", "teacher_accuracy", "pseudo_confident", "pseudo_accuracy"}
    assert said <= set(shown.result.history[-1])
    assert not said & set(hidden.result.history[-1])
    one, other = (dict(each.segmenter.model.state_dict()) for each in (shown, hidden))
    assert same(one, other)


def test_minutes_are_divided_among_steps_with_and_without_mixing(monkeypatch):
    paces = {
        1.0: Pace(step=1.0, evaluation=5.0, steps_an_epoch=10),
        0.0: Pace(step=3.0, evaluation=5.0, steps_an_epoch=10),
    }
    seen = []

    def pace(application, config, data, minutes):
        seen.append(config.adaptation)
        return paces[config.adaptation.mix_start]

    monkeypatch.setattr(type(APPLICATION), "_pace", pace)
    late = dataclasses.replace(CONFIG.adaptation, mix_start=0.25)
    config = dataclasses.replace(CONFIG, adaptation=late)
    epochs = APPLICATION.within(config, None, 10.0).fit.max_epochs
    assert epochs == int(600 * FILLED / (10 * (0.25 * 1.0 + 0.75 * 3.0) + 5.0))
    assert [each.mix_ramp for each in seen] == [0.0, 0.0]
    assert [ramp(99, 100, each.mix_start, each.mix_ramp) for each in seen] == [0.0, 1.0]
    for kind in ("none", "target"):
        alone = dataclasses.replace(config, adaptation=dataclasses.replace(late, kind=kind), watch="source_miou")
        assert APPLICATION.phases(alone) == [(1.0, alone)]


def test_the_epoch_that_a_rule_would_have_picked_is_the_one_that_it_does_pick(labelled_target):
    for kind in ("adapt", "none"):
        config = config_of(kind, show_target=True, fit=FitSettings(max_epochs=4))
        result = fitted(labelled_target, config).result
        picked = {each.rule: each.epoch for each in choice(result.history).picked}
        assert picked[config.watch] == result.best_epoch
        assert picked["last"] == 4
        assert ("target_agreement" in picked) == (kind == "adapt")


def test_labels_are_counted_once_however_often_they_are_trained_on(two_domains, monkeypatch):
    counted = []

    def counts(labelled, classes):
        counted.append(len(labelled))
        return count_labels(labelled, classes)

    monkeypatch.setattr(items, "count_labels", counts)
    data = APPLICATION.load(source_of(two_domains), CONFIG)
    for _ in range(2):
        sampler = training(CONFIG, data, Store()).dataset.sampler
    assert counted == [6]
    assert sampler.shares == pytest.approx(1 / 3)
