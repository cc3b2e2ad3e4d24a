from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from apps.vision.segmentation.application import APPLICATION
from apps.vision.segmentation.data.sources import Source
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.presets import tiny
from apps.vision.segmentation.segmenter import TASK, Segmenter
from core.command import RunDirectory, claim_data, write_outcome


@pytest.fixture(scope="session")
def write_set():
    """Write a folder with a table: items of (id, domain, split, label or None); images are grey steps by number."""

    def write(folder, items, classes=("road", "sky", "car"), size=(72, 96), suffix=".png", **more):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "labels").mkdir(exist_ok=True)
        rows = ["id,domain,sequence,split,image,label"]
        for number, (key, domain, split, label) in enumerate(items):
            pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{key}{suffix}")
            if label is not None:
                Image.fromarray(label).save(folder / "labels" / f"{key}.png")
            name = "" if label is None else f"labels/{key}.png"
            rows.append(f"{key},{domain},{key[:2]},{split},images/{key}{suffix},{name}")
        (folder / "splits.csv").write_text("\n".join(rows) + "\n")
        (folder / "classes.json").write_text(json.dumps({"classes": list(classes), **more}))
        return folder

    return write


@pytest.fixture(scope="session")
def stripes():
    """A label ``(H, W)`` with the given values side by side."""

    def make(*values, size=(72, 96)):
        label = np.zeros(size, dtype=np.uint8)
        for part, value in zip(np.array_split(np.arange(size[1]), len(values)), values, strict=True):
            label[:, part] = value
        return label

    return make


@pytest.fixture
def two_domains(write_set, stripes, tmp_path):
    """Eight sound source images and four of the target, of which the training ones have no labels."""
    source = [(f"{letter}a-s", "day", "train", stripes(0, 1, 2)) for letter in "abcdef"]
    source += [(f"{letter}v-s", "day", "valid", stripes(0, 1, 2)) for letter in "gh"]
    target = [(f"{letter}t-t", "dusk", "train", None) for letter in "ab"]
    target += [(f"{letter}e-t", "dusk", "test", stripes(1, 2)) for letter in "cd"]
    return write_set(tmp_path / "set", [*source, *target])


@pytest.fixture
def finished(tmp_path):
    """Write a run as training leaves it, of a network that was drawn: its folder."""

    def make(name, folder, kind="none", *, history=(), seed=0, **changes):
        adaptation = dataclasses.replace(tiny().adaptation, kind=kind)
        config = dataclasses.replace(tiny(), adaptation=adaptation, seed=seed, **changes)
        source = Source(data=str(folder), source_domain="day", target_domain="dusk")
        data = APPLICATION.load(source, config)
        torch.manual_seed(seed)
        model = Segmentor(len(data.classes), config.model)
        nn.init.normal_(model.head.classifier.weight)
        run = RunDirectory.create(tmp_path / name, config, task=TASK)
        claim_data(run, APPLICATION.facts(source, data))
        Segmenter(config, data.classes, model).save(run.best)
        write_outcome(run, {}, history, complete=True)
        return run.path

    return make


@pytest.fixture
def scored_target(write_set, stripes, tmp_path):
    """A source, and a target whose six test images and four training ones have labels."""
    source = [(f"{letter}a-s", "day", "train", stripes(0, 1, 2)) for letter in "abcd"]
    source += [(f"{letter}v-s", "day", "valid", stripes(0, 1, 2)) for letter in "gh"]
    target = [(f"{letter}t-t", "dusk", "train", stripes(2, 1, 0)) for letter in "abcd"]
    target += [(f"{letter}v-t", "dusk", "valid", stripes(2, 1, 0)) for letter in "ef"]
    target += [(f"{letter}e-t", "dusk", "test", stripes(1, 2, 1)) for letter in "klmnop"]
    return write_set(tmp_path / "scored", [*source, *target])
