"""Transforms of mmsegmentation in our batches: its own results, repeatable, and a run that goes on bit for bit."""

from __future__ import annotations

import dataclasses
import pickle
import random

import numpy as np
import pytest
import torch

from apps.vision.segmentation.config import AdaptationConfig, ModelConfig, SegmentationConfig
from apps.vision.segmentation.data.batches import AdaptationBatches, BatchConfig
from apps.vision.segmentation.data.geometry import CropConfig, normalised
from apps.vision.segmentation.data.mmseg_pipeline import Pipeline
from apps.vision.segmentation.data.rare import RareClassConfig
from apps.vision.segmentation.data.sources import Source, load_adaptation
from apps.vision.segmentation.fitting import fit_segmenter
from apps.vision.segmentation.mmseg import mmseg_module
from core.artefact import load
from core.errors import InputError
from core.optim import OptimConfig
from core.training import FitSettings, Loader, preserved
from core.training.randomness import reseed

pytestmark = pytest.mark.filterwarnings("ignore")
RANDOM = (
    "dict(type='RandomResize', scale=(96, 72), ratio_range=(0.5, 2.0), keep_ratio=True), "
    "dict(type='RandomCrop', crop_size=(32, 48), cat_max_ratio=0.75), dict(type='RandomFlip', prob=0.5), "
    "dict(type='PhotoMetricDistortion'), "
)


@pytest.fixture(autouse=True)
def installed():
    pytest.importorskip("mmengine")
    pytest.importorskip("mmcv")


@pytest.fixture
def write(tmp_path):
    def make(transforms=RANDOM, name="pipeline.py"):
        loading = "dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), "
        text = f"pipeline = [{loading}{transforms}dict(type='PackSegInputs')]\n"
        (tmp_path / name).write_text(f"{text}train_dataloader = dict(dataset=dict(type='X', pipeline=pipeline))\n")
        return tmp_path / name

    return make


@pytest.fixture
def data(two_domains):
    return load_adaptation(Source(data=str(two_domains), source_domain="day", target_domain="dusk"))


def example(data):
    item = data.source["train"][0]
    return torch.from_numpy(item.image.read().copy()).permute(2, 0, 1), torch.from_numpy(item.label.read().copy())


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_it_is_what_mmsegmentation_makes_of_the_file(write, data):
    """From loading to normalising by its own parts, seeded alike."""
    mmseg_module("mmseg.datasets")
    config = mmseg_module("mmengine.config").Config.fromfile(write())
    transforms = mmseg_module("mmseg.registry").TRANSFORMS
    with mmseg_module("mmengine.registry").DefaultScope.overwrite_default_scope("mmseg"):
        chain = [transforms.build(each) for each in config.pipeline]
    item, pipeline = data.source["train"][0], Pipeline(write(), (32, 48))
    preprocess = mmseg_module("mmseg.models.data_preprocessor").SegDataPreProcessor(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, size=(32, 48), seg_pad_val=255
    )
    seen = set()
    for seed in range(8):
        image, label = pipeline(*example(data), generator(seed))
        results = {"img_path": str(item.image.path), "seg_map_path": str(item.label.path), "seg_fields": []}
        results |= {"reduce_zero_label": False, "label_map": None}
        with preserved():
            reseed(int(torch.randint(1 << 62, (), generator=generator(seed))))
            for transform in chain:
                results = transform(results)
        made = preprocess({"inputs": [results["inputs"]], "data_samples": [results["data_samples"]]}, training=True)
        torch.testing.assert_close(image, made["inputs"][0], rtol=0, atol=1e-6)
        assert torch.equal(label.long(), made["data_samples"][0].gt_sem_seg.data[0])
        seen.add(image.sum().item())
    assert len(seen) == 8


def test_randomness_comes_from_the_generator_alone_and_is_put_back(write, data):
    pipeline = Pipeline(write(), (32, 48))
    first = pipeline(*example(data), generator(5))
    with preserved():
        reseed(1)
        second = pipeline(*example(data), generator(5))
        drawn = np.random.rand(), random.random(), torch.rand(()).item()  # noqa: NPY002
        reseed(1)
        assert drawn == (np.random.rand(), random.random(), torch.rand(()).item())  # noqa: NPY002
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    again = pickle.loads(pickle.dumps(pipeline))
    assert torch.equal(again(*example(data), generator(5))[0], first[0])


def test_what_is_smaller_is_padded(write, data):
    halved = Pipeline(write("dict(type='Resize', scale=(48, 36), keep_ratio=True), "), (40, 64))
    image, label = halved(*example(data), generator(0))
    assert (image.shape, label.shape) == ((3, 40, 64), (40, 64))
    assert (label != 255).sum() == 36 * 48
    assert (image[:, 36:] == 0).all()
    assert (image[:, :, 48:] == 0).all()
    nothing = Pipeline(write("", "nothing.py"), (72, 96))
    pixels, values = example(data)
    image, label = nothing(pixels, values, generator(0))
    assert torch.equal(image, normalised(pixels))
    assert torch.equal(label, values)


def batches(data, path, rare=None, **more):
    crop = CropConfig(crop=(32, 48), pipeline=str(path), **more)
    return AdaptationBatches(
        data.source["train"], data.target, data.classes.names, BatchConfig(source=crop, target=crop, rare=rare)
    )


def test_batches(write, data):
    some = batches(data, write(), RareClassConfig(temperature=0.5, crop_pixels=100))
    batch = next(iter(Loader(some, 3, shuffle=True)))
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    assert shapes == {
        "source": (3, 3, 32, 48),
        "labels": (3, 32, 48),
        "index": (3,),
        "target": (3, 3, 32, 48),
        "target_mask": (3, 32, 48),
    }
    assert batch["labels"].dtype == torch.int64
    assert batch["target_mask"].dtype == torch.bool
    padded = batches(data, write("dict(type='Resize', scale=(48, 24)), ", "small.py"))
    batch = next(iter(Loader(padded, 2, shuffle=True)))
    assert torch.equal(batch["target_mask"][0], torch.arange(32)[:, None].expand(32, 48) < 24)


def test_too_few_pixels_of_a_drawn_class_are_another_try(write, data):
    """A crop of one colour of three stripes: without another try two of three would lack the class that was drawn."""
    path = write("dict(type='RandomCrop', crop_size=(32, 16)), ")

    def share(tries):
        rare = RareClassConfig(temperature=100.0, crop_pixels=64, tries=tries)
        some = batches(data, path, rare)
        drawn = []
        for seed in range(40):
            chosen, index = some.sampler.draw(generator(seed))
            made = some._transformed(some._of_source, some.source[index], chosen, generator(seed + 100))
            drawn.append(int((made[1] == chosen).sum()) > 64)
        return np.mean(drawn)

    assert share(0) < 0.75
    assert share(10) > 0.9


def test_a_batch_depends_on_its_position_alone(write, data):
    def stream(epoch=0, batch=0, workers=0, count=3):
        found = Loader(batches(data, write()), 2, seed=1, shuffle=True, workers=workers).stream(epoch, batch)
        taken = [next(found) for _ in range(count)]
        found.close()
        return taken

    whole = stream(count=4)
    for other in (stream(count=4), stream(workers=1)):
        for a, b in zip(whole, other, strict=False):
            assert all(torch.equal(a[name], b[name]) for name in a)
    assert torch.equal(stream(epoch=1, count=1)[0]["source"], whole[3]["source"])
    assert not torch.equal(whole[0]["source"], whole[3]["source"])


def test_a_run_that_was_cut_is_the_unbroken_one(write, data, tmp_path):
    crop = CropConfig(crop=(32, 48), pipeline=str(write()))
    model = ModelConfig(
        widths=(8, 8, 8, 16), depths=(1, 1, 1, 1), heads=(1, 1, 1, 2), head_width=8, dilations=(1, 2), drop_path=0.2
    )
    config = SegmentationConfig(
        model=model,
        adaptation=AdaptationConfig(threshold=0.3, ignore_top=0, ignore_bottom=4),
        source=crop,
        target=crop,
        rare=RareClassConfig(temperature=0.1),
        optim=OptimConfig(lr=3e-3),
        fit=FitSettings(max_epochs=2),
        watch="last",
    )
    whole = fit_segmenter(config, data, directory=tmp_path / "whole")
    short = dataclasses.replace(config, fit=dataclasses.replace(config.fit, max_minutes=1e-9))
    for _ in range(whole.result.steps):
        again = fit_segmenter(short, data, directory=tmp_path / "again")
    assert again.result.stopped_by == "epochs"
    states = [load(tmp_path / name / "last", kind="training-state", version=1) for name in ("whole", "again")]
    assert all(torch.equal(states[0]["model"][name], states[1]["model"][name]) for name in states[0]["model"])
    other = dataclasses.replace(crop, pipeline=None)
    plain = fit_segmenter(dataclasses.replace(config, source=other, target=other), data)
    one, two = (dict(fitted.segmenter.model.state_dict()) for fitted in (whole, plain))
    assert not all(torch.equal(one[name], two[name]) for name in one)


def test_what_is_refused(write, data, tmp_path):
    def said(transforms, crop=(32, 48)):
        with pytest.raises(InputError) as error:
            Pipeline(write(transforms), crop)(*example(data), generator(0))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "gives 64 x 64, more than the crop of 32 x 48; set crop" in said("dict(type='Resize', scale=(64, 64)), ")
    assert "float32" in said("dict(type='Normalize', mean=[0, 0, 0], std=[1, 1, 1], to_rgb=True), ")
    assert "the transform RandmCrop cannot be built" in said("dict(type='RandmCrop', crop_size=(8, 8)), ")
    assert "the transform RandomCrop cannot be built" in said("dict(type='RandomCrop'), ")
    assert "the transform Albu draws from a generator of its own" in said("dict(type='Albu', transforms=[]), ")
    assert "RandomMosaic reads other images" in said("dict(type='RandomMosaic', prob=1.0), ")
    assert "the transform ConcatCDInput fails (KeyError: 'img2')" in said("dict(type='ConcatCDInput'), ")
    with pytest.raises(InputError, match="there is no such file"):
        batches(data, tmp_path / "nowhere.py")
    assert batches(data, write(RANDOM)).config.source.pipeline
