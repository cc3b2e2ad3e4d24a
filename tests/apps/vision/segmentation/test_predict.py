"""Images to labels on disk: what is in the files, where they lie, and what is refused before anything is written."""

import copy
import json
import shutil
import weakref

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from apps.vision.segmentation import evaluate, predict
from apps.vision.segmentation.colours import overlaid, share_png
from apps.vision.segmentation.data.classes import Classes
from apps.vision.segmentation.data.pictures import read_image, read_values
from apps.vision.segmentation.data.video import read_clip, read_frames
from apps.vision.segmentation.inference import Inference
from apps.vision.segmentation.jobs import jobs
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.presets import tiny
from apps.vision.segmentation.records import records
from apps.vision.segmentation.segmenter import TASK, Segmenter
from core.command import RunDirectory
from core.errors import InputError

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


def test_uncertainty_is_the_entropy_of_the_mean_in_log_k(run, segmenter, folder, tmp_path, capsys):
    out = tmp_path / "out"
    words = [str(run), str(folder / "b.jpg"), "--out", str(out), "--json", "--uncertainty", "--flip"]
    assert predict.main(words) == 0
    (facts,) = map(json.loads, capsys.readouterr().out.splitlines())
    mean = next(segmenter.probabilities([folder / "b.jpg"], Inference(flip=True))).double()
    expected = -(mean * mean.log()).sum(0) / np.log(len(CLASSES))
    assert facts["uncertainty"] == str(out / "uncertainty" / "b.png")
    assert facts["entropy"] == pytest.approx(expected.mean().item(), abs=1e-4)
    with Image.open(facts["uncertainty"]) as picture:
        assert picture.mode == "L"
        values = np.asarray(picture)
    assert values.shape == (48, 80)
    assert np.abs(values / 255 - expected.numpy()).max() <= 0.5 / 255 + 1e-5
    assert values.max() > values.min()


def test_entropy_goes_from_0_to_1(segmenter):
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    sure, unsure = (copy.deepcopy(segmenter) for _ in range(2))
    for each, bias in ((sure, 99.0), (unsure, 0.0)):
        nn.init.zeros_(each.model.head.classifier.weight)
        nn.init.zeros_(each.model.head.classifier.bias)
        each.model.head.classifier.bias[0] = bias
    for each, expected in ((sure, 0.0), (unsure, 1.0)):
        entropy = next(each.predict([image], uncertainty=True)).entropy
        assert np.abs(entropy - expected).max() < 1e-6
        assert share_png(entropy) == share_png(np.full((8, 8), expected, dtype=np.float32))
    assert next(segmenter.predict([image])).entropy is None


@pytest.mark.parametrize("verb", [predict, evaluate])
def test_verbs_have_one_set_of_options_for_inference(verb, capsys):
    assert verb.main(["--help"]) == 0
    said = capsys.readouterr().out
    for name in ("--window", "--stride", "--flip", "--scales", "--batch", "--precision"):
        assert name in said
    assert "--inference" not in said


def test_options_of_inference_reach_it(run, folder, tmp_path, monkeypatch, capsys):
    asked = []
    kept = Segmenter.predict

    def seen(self, images, inference, **more):
        asked.append(inference)
        return kept(self, images, inference, **more)

    monkeypatch.setattr(Segmenter, "predict", seen)
    words = [str(run), str(folder / "b.jpg"), "--out", str(tmp_path / "out"), "--precision", "bf16"]
    words += ["--batch", "3", "--window", "32", "40", "--stride", "16", "20", "--scales", "0.5", "1", "--flip"]
    assert predict.main(words) == 0
    wanted = Inference(window=(32, 40), stride=(16, 20), flip=True, scales=(0.5, 1.0), batch=3, precision="bf16")
    assert asked == [wanted]
    capsys.readouterr()
    for more, said in ((["--stride", "4", "4"], "stride: (4, 4) must"), (["--batch", "0"], "batch: 0 images")):
        assert predict.main([str(run), str(folder), "--out", str(tmp_path / "new"), *more]) == 2
        assert capsys.readouterr().err.startswith(f"error: {said}")


def write_video(path, frames, rate=10.0):
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"MJPG"), rate, (width, height))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()


@pytest.fixture
def clip(tmp_path):
    """Five frames of 48 x 64, of which the third is as the second."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (5, 6, 8, 3), dtype=np.uint8)
    coarse[2] = coarse[1]
    frames = [np.kron(each, np.ones((8, 8, 1), dtype=np.uint8)) for each in coarse]
    (tmp_path / "film").mkdir()
    write_video(tmp_path / "film" / "drive.avi", frames)
    return tmp_path / "film" / "drive.avi"


def test_a_video_gives_a_video_and_labels_of_some_frames(run, segmenter, clip, tmp_path, capsys):
    out = tmp_path / "out"
    words = [str(run), str(clip), "--out", str(out), "--json", "--every", "2", "--uncertainty", "--batch", "2"]
    assert predict.main(words) == 0
    *frames, whole = map(json.loads, capsys.readouterr().out.splitlines())
    made = [f"{kind}/drive.avi/{number:06d}.png" for kind in ("labels", "uncertainty") for number in (0, 2, 4)]
    assert files_in(out) == sorted([*made, "overlays/drive.mp4"])
    images = list(read_frames(read_clip(clip)))
    said = list(segmenter.predict(images, uncertainty=True))
    assert [facts["frame"] for facts in frames] == list(range(5))
    assert [facts["seconds"] for facts in frames] == [0.0, 0.1, 0.2, 0.3, 0.4]
    for number, (facts, prediction) in enumerate(zip(frames, said, strict=True)):
        assert facts["certainty"] == pytest.approx(prediction.certainty.mean(), abs=1e-3)
        assert facts["entropy"] == pytest.approx(prediction.entropy.mean(), abs=1e-3)
        assert ("label" in facts) == (number % 2 == 0)
        if number:
            changed = np.mean(prediction.labels != said[number - 1].labels)
            assert facts["changed"] == pytest.approx(changed, abs=2e-3)
    assert "changed" not in frames[0]
    assert frames[2]["changed"] == 0 < frames[1]["changed"]
    assert np.mean(read_values(out / "labels" / "drive.avi" / "000004.png") == said[4].labels) > 0.999
    assert (whole["frames"], whole["rate"], whole["height"], whole["width"]) == (5, 10.0, 48, 64)
    assert whole["changed"] == pytest.approx(np.mean([facts["changed"] for facts in frames[1:]]), abs=1e-5)
    for name, share in whole["classes"].items():
        assert share == pytest.approx(np.mean([facts["classes"].get(name, 0.0) for facts in frames]), abs=1e-5)
    overlay = read_clip(out / "overlays" / "drive.mp4")
    assert (overlay.size, overlay.rate, overlay.frames) == ((48, 64), 10.0, 5)
    for shown, image, prediction in zip(read_frames(overlay), images, said, strict=True):
        wanted = overlaid(image, prediction.labels, CLASSES)
        assert np.abs(shown.astype(int) - wanted).mean() < 16


def test_videos_lie_beside_images_in_folders(run, clip, tmp_path, capsys):
    Image.new("RGB", (40, 32)).save(clip.parent / "drive.png")
    out = tmp_path / "out"
    assert predict.main([str(run), str(clip.parent), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{clip}\t5 frames, ")
    assert lines[-1] == f"1 image and 1 video: labels and overlays are in {out}"
    assert files_in(out) == ["labels/drive.png", "overlays/drive.mp4", "overlays/drive.png"]
    assert predict.main([str(run), str(clip), "--out", str(out)]) == 2
    assert f"{out / 'overlays' / 'drive.mp4'}: is there already" in capsys.readouterr().err
    assert predict.main([str(run), str(clip), "--out", str(out), "--overwrite"]) == 0
    assert capsys.readouterr().out.endswith(f"1 video: overlays are in {out}\n")


def test_two_videos_of_one_name_are_refused(run, clip, tmp_path, capsys):
    shutil.copy(clip, clip.with_suffix(".mkv"))
    out = tmp_path / "out"
    assert predict.main([str(run), str(clip.parent), "--out", str(out)]) == 2
    assert f"{out / 'overlays' / 'drive.mp4'}: {clip} and " in capsys.readouterr().err
    assert not out.exists()


def test_of_a_video_only_the_frames_of_two_batches_are_held(segmenter, clip, tmp_path, monkeypatch):
    alive, most = [], []

    def watched(clip):
        for frame in list(read_frames(clip)) * 4:
            mine = frame.copy()
            alive.append(weakref.ref(mine))
            yield mine
            del mine
            most.append(sum(each() is not None for each in alive))

    monkeypatch.setattr("apps.vision.segmentation.records.read_frames", watched)
    (job,) = jobs([clip], tmp_path / "out")
    done = list(records([job], segmenter, Inference(batch=3)))
    assert done[-1]["frames"] == len(most) == 20
    assert max(most) <= 6


def test_a_video_that_cannot_be_finished_leaves_nothing(run, clip, tmp_path, monkeypatch, capsys):
    def broken(clip):
        yield from list(read_frames(clip))[:3]
        raise InputError("the disk went away", where=str(clip.path))

    monkeypatch.setattr("apps.vision.segmentation.records.read_frames", broken)
    out = tmp_path / "out"
    assert predict.main([str(run), str(clip), "--out", str(out), "--batch", "1"]) == 2
    assert capsys.readouterr().err == f"error: {clip}: the disk went away\n"
    assert files_in(out) == []
    content = clip.read_bytes()
    clip.write_bytes(content[: 4 * len(content) // 5])
    assert predict.main([str(run), str(clip), "--out", str(tmp_path / "other")]) == 2
    assert "is truncated or broken" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert predict.main([str(run), str(clip), "--out", str(out), "--every", "0"]) == 2
    assert capsys.readouterr().err == "error: --every: every 0 frames are none\n"
