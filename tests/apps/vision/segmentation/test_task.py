"""The teacher, and the step as a whole."""

import copy

import pytest
import torch
from torch import nn

from apps.vision.segmentation.adaptation import draw_mask, mixed_images, mixed_labels, pixel_loss, pseudo_labels
from apps.vision.segmentation.adapting import Adapting, follows, logits_of
from apps.vision.segmentation.config import AdaptationConfig, ModelConfig, SegmentationConfig
from apps.vision.segmentation.data.augment import strong_augment
from apps.vision.segmentation.data.geometry import CropConfig
from apps.vision.segmentation.data.style import STYLES
from apps.vision.segmentation.distance import feature_distance, thing_cells
from apps.vision.segmentation.fitting import optimizer_of, task_of
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.presets import PRESETS
from apps.vision.segmentation.task import AdaptationTask, Reference, SupervisedTask, step_generator
from core.clock import advance
from core.errors import InputError
from core.norm import BatchNorm

CLASSES = 4
MODEL = ModelConfig(
    widths=(8, 8, 8, 16), depths=(1, 1, 1, 1), heads=(1, 1, 1, 2), head_width=8, dilations=(1, 2), drop_path=0.0
)
DROPS = ModelConfig(**{**vars(MODEL), "drop_path": 0.5, "head_dropout": 0.5})


def network(config=MODEL, seed=0):
    torch.manual_seed(seed)
    return Segmentor(CLASSES, config)


def batch_of(size=(32, 64), seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(1, CLASSES, (2, size[0] // 32, size[1] // 32), generator=generator)
    labels = labels.repeat_interleave(32, 1).repeat_interleave(32, 2)
    labels[:, 0] = 255
    images = torch.randn(2, 2, 3, *size, generator=generator)
    mask = torch.ones(2, *size, dtype=torch.bool)
    return {"source": images[0], "labels": labels, "target": images[1], "target_mask": mask}


def config_of(model=MODEL, **changes):
    adaptation = AdaptationConfig(threshold=0.2505, ignore_top=2, ignore_bottom=3)
    crop = CropConfig(crop=(32, 64))
    return SegmentationConfig(**{"model": model, "adaptation": adaptation, "source": crop, "target": crop, **changes})


def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, BatchNorm)]


def test_how_fast_the_teacher_follows():
    assert follows(1, 0.999) == 0.5
    assert follows(2, 0.999) == pytest.approx(2 / 3)
    assert follows(999, 0.999) == 0.999 == follows(10**6, 0.999)
    assert follows(10**6, 0.99) == 0.99


def test_the_teacher_is_the_average_that_the_recursion_says():
    pair = Adapting(network(), 0.6)
    expected = None
    for step in range(5):
        with torch.no_grad():
            for parameter in pair.student.parameters():
                parameter.add_(torch.randn(parameter.shape))
        advance(pair, step, 5)
        live = [parameter.detach().double() for parameter in pair.student.parameters()]
        a = min(1 - 1 / (step + 1), 0.6)
        expected = live if expected is None else [a * h + (1 - a) * f for h, f in zip(expected, live, strict=True)]
    for teacher, value in zip(pair.teacher.parameters(), expected, strict=True):
        assert torch.allclose(teacher.double(), value, atol=1e-6)
        assert not teacher.requires_grad


def test_the_first_step_copies_the_student_exactly_and_leaves_its_statistics():
    pair = Adapting(network(), 0.9)
    with torch.no_grad():
        for value in pair.student.state_dict().values():
            value.add_(1)
    advance(pair, 0, 10)
    for (name, student), teacher in zip(pair.student.named_parameters(), pair.teacher.parameters(), strict=True):
        assert torch.equal(student, teacher), name
    assert all(bool((norm.running_mean == 0).all()) for norm in batch_norms(pair.teacher))


def test_the_teacher_uses_the_statistics_of_its_batch_and_drops_nothing():
    pair = Adapting(network(DROPS), 0.9).train()
    images = torch.randn(2, 3, 32, 64)
    oracle = copy.deepcopy(pair.teacher).eval()
    for norm in batch_norms(oracle):
        norm.train()
    told = pair.taught(images)
    assert torch.equal(told, pair.taught(images))
    assert torch.equal(told, logits_of(oracle, images))
    for norm in batch_norms(pair.teacher):
        norm.running_mean.fill_(100.0)
    assert torch.equal(told, pair.taught(images))
    assert not torch.equal(told, pair.eval().taught(images))
    with torch.no_grad():
        assert not torch.equal(pair.train()(images), pair(images))  # the student does drop


def test_a_step_that_nobody_told_is_refused():
    task = AdaptationTask(Adapting(network(), 0.9), config_of(), CLASSES)
    with pytest.raises(InputError, match=r"adaptation: does not know how far"):
        task.training_loss(batch_of())


def test_one_backward_pass_is_the_three_of_the_released_program():
    config = config_of()
    reference = network(seed=7).eval().requires_grad_(False)
    task = AdaptationTask(Adapting(network(), 0.9), config, CLASSES, Reference(reference.features, frozenset({1, 2})))
    advance(task.model, 0, 10)
    other, batch = copy.deepcopy(task.model), batch_of()
    torch.manual_seed(3)
    losses = task.training_loss(batch)
    losses["loss"].backward()

    torch.manual_seed(3)
    student, settings, generator = other.student, config.adaptation, step_generator()
    features = student.features(batch["source"])
    first = pixel_loss(student.logits(features), batch["labels"])
    first.backward(retain_graph=True)
    grid = features[-1].shape[2], features[-1].shape[3]
    cells = thing_cells(batch["labels"], grid, CLASSES, {1, 2}, 0.75)
    second = 0.005 * feature_distance(features[-1], reference.features(batch["source"])[-1], cells, "batch")
    second.backward()
    pseudo = pseudo_labels(other.taught(batch["target"]), batch["target_mask"], settings)
    mask = draw_mask(batch["labels"], settings, generator)
    labels, weights = mixed_labels(mask, batch["labels"], pseudo)
    images = strong_augment(mixed_images(mask, batch["source"], batch["target"]), settings.augment, generator)
    third = pixel_loss(logits_of(student, images), labels, weights)
    third.backward()

    assert cells.any()
    assert pseudo.confident.mean() > 0
    assert second > 0
    assert losses["loss"].item() == pytest.approx((first + second + third).item(), rel=1e-6)
    for name in ("source", "distance", "mixed"):
        expected = {"source": first, "distance": second, "mixed": third}[name]
        assert losses[name].item() == pytest.approx(expected.item(), rel=1e-6)
    for one, three in zip(task.model.student.parameters(), student.parameters(), strict=True):
        assert torch.allclose(one.grad, three.grad, atol=1e-6, rtol=1e-4)
    assert all(parameter.grad is None for parameter in task.model.teacher.parameters())
    for one, three in zip(batch_norms(task.model), batch_norms(other), strict=True):
        assert torch.equal(one.running_mean, three.running_mean)


def test_the_mixed_loss_comes_in_where_it_starts_and_costs_nothing_before(monkeypatch):
    config = config_of(adaptation=AdaptationConfig(mix_start=0.2, mix_ramp=0.5, threshold=0.2505))
    task = AdaptationTask(Adapting(network(), 0.9), config, CLASSES)
    taught = []
    monkeypatch.setattr(Adapting, "taught", lambda pair, images: taught.append(1) or logits_of(pair.teacher, images))
    for step, weight in ((0, None), (1, None), (2, None), (4, 0.4), (9, 1.0)):
        advance(task.model, step, 10)
        losses = task.training_loss(batch_of())
        assert ("mixed" in losses) == ("confident" in losses) == (weight is not None) == bool(taught)
        expected = losses["source"] + (weight or 0.0) * losses.get("mixed", 0.0)
        assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_running_statistics_are_the_students_until_images_are_mixed_and_then_whose_it_says():
    for whose in ("student", "teacher"):
        config = config_of(adaptation=AdaptationConfig(mix_start=0.5, threshold=0.2505, statistics=whose))
        task = AdaptationTask(Adapting(network(), 0.9), config, CLASSES)
        for step, mixed in ((0, False), (4, False), (5, True), (9, True)):
            advance(task.model, step, 10)
            task.training_loss(batch_of(seed=step))
            pairs = zip(batch_norms(task.model.student), batch_norms(task.model.teacher), strict=True)
            same = [torch.equal(a.running_mean, b.running_mean) for a, b in pairs]
            assert all(same) if not mixed or whose == "teacher" else not any(same)
        own = batch_norms(task.model.student)[0].running_mean
        with torch.no_grad():  # the teacher's follow the target's batches, from where mixing began
            task.model.taught(batch_of(seed=9)["target"])
        assert not torch.equal(own, batch_norms(task.model.teacher)[0].running_mean)


def test_some_source_images_take_the_light_of_the_target_in_both_losses(monkeypatch):
    seen = []
    config = config_of(adaptation=AdaptationConfig(style=0.5, threshold=0.2505))
    task = AdaptationTask(Adapting(network(), 0.9), config, CLASSES)
    monkeypatch.setattr(task, "_source", lambda images, generator: seen.append(images) or images)
    batch, choices = batch_of(), set()
    styled = STYLES["moments"](batch["source"], batch["target"], batch["target_mask"])
    for step in range(12):
        advance(task.model, step, 12)
        torch.manual_seed(step)
        task.training_loss(batch)
        plain = [bool(torch.equal(a, b)) for a, b in zip(seen[-1], batch["source"], strict=True)]
        assert all(
            torch.equal(image, whole if same else other)
            for image, whole, other, same in zip(seen[-1], batch["source"], styled, plain, strict=True)
        )
        choices.add(tuple(plain))
    assert choices >= {(True, False), (False, True)}


def test_any_module_with_features_and_logits_can_be_adapted():
    class Theirs(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.Dropout2d(0.5))
            self.top = nn.Conv2d(6, CLASSES, 1)

        def features(self, images):
            return (self.body(images),)

        def logits(self, features):
            return self.top(features[-1])

    task = AdaptationTask(Adapting(Theirs(), 0.9), config_of(), CLASSES)
    advance(task.model, 0, 2)
    images = batch_of()["target"]
    assert torch.equal(task.model.taught(images), task.model.taught(images))
    before = [parameter.detach().clone() for parameter in task.model.student.parameters()]
    optimizer = torch.optim.SGD(task.model.student.parameters(), lr=0.1)
    task.training_loss(batch_of())["loss"].backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, task.model.student.parameters(), strict=True))


def test_photometric_augmentation_is_of_the_source_alone_and_in_every_kind():
    batch = batch_of()
    for kind in ("none", "target"):
        losses = {}
        for photometric in (False, True):
            config = config_of(adaptation=AdaptationConfig(kind=kind), photometric=photometric)
            task = SupervisedTask(network(), config, CLASSES)
            torch.manual_seed(1)
            losses[photometric] = task.training_loss(batch)["loss"].item()
        assert losses[True] != losses[False]


def test_rates_and_decays_are_those_of_the_released_program():
    config = PRESETS["b0"]()
    model = Segmentor(CLASSES, config.model)
    groups = {id(p): group for group in optimizer_of(config, model).param_groups for p in group["params"]}
    schedule = config.schedule.build(40_000)
    for name, parameter in model.named_parameters():
        group = groups[id(parameter)]
        head, norm = name.startswith("head."), "norm" in name
        assert group["lr"] * schedule(49) == pytest.approx((10 if head else 1) * 1.958e-6, rel=3e-4), name
        assert group["weight_decay"] == (0.0 if norm and not head else 0.01), name


def test_presets_differ_where_the_card_says():
    released, paper, fixed = (PRESETS[name]() for name in ("released", "paper", "fixed"))
    a, b, c = (config.adaptation for config in (released, paper, fixed))
    assert released == PRESETS["b5"]()
    assert (a.share_of, b.share_of, c.share_of) == ("batch", "image", "image")
    assert (a.mix_classes_of, b.mix_classes_of, c.mix_classes_of) == ("batch", "image", "image")
    assert (a.mix_ignored, c.mix_ignored, a.test, b.test) == (True, False, "at_least", "above")
    assert (a.distance_mean, b.distance_mean) == ("batch", "image")
    assert (released.rare.shares_of, paper.rare.shares_of) == ("labelled", "all")
    assert (released.mean_over, fixed.mean_over) == ("all", "labelled")
    assert (a.alpha, a.threshold, a.ignore_top, a.ignore_bottom, a.distance) == (0.999, 0.968, 15, 120, 0.005)


@pytest.mark.untyped
def test_without_image_net_weights_the_distance_is_off_and_said(capsys):
    class Data:
        class classes:
            things = frozenset({1})

            def __len__(self):
                return CLASSES

        classes = classes()

    assert task_of(config_of(), Data, network()).reference is None
    assert capsys.readouterr().err == "the feature distance is off: no ImageNet weights (pretrained)\n"
