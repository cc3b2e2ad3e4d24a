"""Images to labels on disk: what is in the files, where they lie, and what is refused before anything is written."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from apps.vision.segmentation import predict
from apps.vision.segmentation.data.classes import Classes
from apps.vision.segmentation.data.pictures import read_image, read_values
from apps.vision.segmentation.inference import Inference
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.presets import tiny
from apps.vision.segmentation.segmenter import TASK, Segmenter
from core.command import RunDirectory

CLASSES = Classes(names=("road", "sky", "car"), palette=((200, 0, 10), (0, 200, 20), (0, 0, 230)))


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(1)
    config = tiny()
    model = Segmentor(len(CLASSES), config.model)
    nn.init.normal_(model.head.classifier.weight)
    return Segmenter(config, CLASSES, model)


@pytest.fixture(scope="module")
def run(tmp_path_factory, segmenter):
    folder = tmp_path_factory.mktemp("predict") / "run"
    segmenter.save(RunDirectory.create(folder, segmenter.config, task=TASK).best)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Two images, one of them deeper, and a file that is none."""
    found = tmp_path / "in"
    (found / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (48, 80, 3), dtype=np.uint8)).save(found / "b.jpg")
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(found / "deep" / "b.png")
    (found / "notes.txt").write_text("no image")
    return found


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_files_hold_the_classes_their_colours_and_half_of_the_image(run, segmenter, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict.main([str(run), str(folder), "--out", str(out)]) == 0
    assert files_in(out) == ["labels/b.png", "labels/deep/b.png", "overlays/b.png", "overlays/deep/b.png"]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"2 images: labels and overlays are in {out}"
    image = read_image(folder / "b.jpg")
    expected = next(segmenter.predict([image])).labels
    assert len(np.unique(expected)) > 1
    assert np.array_equal(read_values(out / "labels" / "b.png"), expected)
    colours = np.array(CLASSES.palette)[expected]
    with Image.open(out / "labels" / "b.png") as label:
        assert label.mode == "P"
        assert np.array_equal(np.asarray(label.convert("RGB")), colours)
    assert np.array_equal(read_image(out / "overlays" / "b.png"), (image.astype(int) + colours) // 2)


def test_a_line_of_json_for_each_image_and_the_views_that_were_asked_for(run, segmenter, folder, tmp_path, capsys):
    words = [str(run), str(folder / "b.jpg"), "--out", str(tmp_path / "out"), "--json"]
    assert predict.main([*words, "--window", "32", "32", "--flip"]) == 0
    (facts,) = map(json.loads, capsys.readouterr().out.splitlines())
    said = next(segmenter.predict([folder / "b.jpg"], Inference(window=(32, 32), flip=True)))
    assert (facts["height"], facts["width"]) == (48, 80)
    assert facts["certainty"] == pytest.approx(said.certainty.mean(), abs=1e-4)
    for index, name in enumerate(CLASSES.names):
        assert facts["classes"].get(name, 0.0) == pytest.approx(np.mean(said.labels == index), abs=1e-6)
    assert list(facts["classes"].values()) == sorted(facts["classes"].values(), reverse=True)
    assert facts["label"] == str(tmp_path / "out" / "labels" / "b.png")


def test_what_is_there_is_kept_unless_it_is_said(run, folder, tmp_path, capsys):
    out = tmp_path / "out"
    words = [str(run), str(folder), "--out", str(out)]
    there = out / "overlays" / "deep" / "b.png"
    there.parent.mkdir(parents=True)
    there.write_text("mine")
    assert predict.main(words) == 2
    assert f"{there}: is there already" in capsys.readouterr().err
    assert files_in(out) == ["overlays/deep/b.png"]  # refused before anything was written
    assert there.read_text() == "mine"
    assert predict.main([*words, "--overwrite"]) == 0
    assert there.read_bytes().startswith(b"\x89PNG")


def test_what_it_made_itself_is_not_taken_from_a_folder(run, folder, capsys):
    words = [str(run), str(folder), "--out", str(folder), "--overwrite"]
    for _ in range(2):
        assert predict.main(words) == 0
        assert "2 images: " in capsys.readouterr().out


def test_what_is_wrong_is_said_in_a_line_and_nothing_is_written(run, folder, tmp_path, capsys):
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    cases = [
        ([], "no image"),
        ([empty], "a folder without images"),
        ([folder, folder / "nowhere.png"], "nowhere.png"),
        ([folder, folder / "notes.txt"], "notes.txt"),
        ([folder / "b.jpg", folder / "deep" / "b.png"], "would both be written there"),
    ]
    for inputs, said in cases:
        assert predict.main([str(run), *map(str, inputs), "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not out.exists()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / "labels").symlink_to(elsewhere)
    assert predict.main([str(run), str(folder), "--out", str(out)]) == 2
    assert "a link leads out of" in capsys.readouterr().err
    assert not files_in(elsewhere)
