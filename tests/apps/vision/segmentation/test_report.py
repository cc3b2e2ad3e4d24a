"""The page of an evaluation: what is said of the classes, and frames in the colours of their palette."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from apps.vision.segmentation import evaluate, train
from apps.vision.segmentation.data.classes import Classes
from apps.vision.segmentation.data.sources import load_adaptation
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.presets import tiny
from apps.vision.segmentation.report import frames_figure, write_report
from apps.vision.segmentation.segmenter import Segmenter

CLASSES = Classes(names=("road", "sky", "car"), palette=((200, 0, 0), (0, 200, 0), (0, 0, 200)))


def drawn(figure):
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return np.asarray(Image.open(stream).convert("RGB"))


def test_frames_stand_side_by_side_in_the_colours_of_their_classes():
    image = np.full((40, 60, 3), 90, dtype=np.uint8)
    truth, said = np.zeros((40, 60), dtype=np.uint8), np.ones((40, 60), dtype=np.uint8)
    truth[:, :5] = 255
    figure = frames_figure([(image, truth, said)], ["one: 0 %"], CLASSES)
    pixels = drawn(figure)
    middle = [
        np.flatnonzero((pixels == colour).all(-1).sum(0) > 20).mean() for colour in ((90, 90, 90), *CLASSES.palette[:2])
    ]
    assert middle == sorted(middle)
    assert not (pixels == CLASSES.palette[2]).all(-1).any()  # no pixel of it, and not in the legend
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["road", "sky", "not labelled"]


@pytest.fixture
def run(two_domains, tmp_path):
    words = ["--preset", "tiny", "--data", str(two_domains), "--source-domain", "day", "--target-domain", "dusk"]
    words += ["--out", str(tmp_path / "run"), "--fit.max-epochs", "1", "--batch", "2", "--progress", "off"]
    assert train.main(words) == 0
    return tmp_path / "run"


def test_the_page_says_scores_classes_frames_and_learning(run, tmp_path, capsys):
    folder = tmp_path / "page"
    assert evaluate.main([str(run), "--report", str(folder), "--flip"]) == 0
    assert f"report: {folder / 'index.html'}" in capsys.readouterr().out
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", page) == ["Quality", "Classes", "Frames", "Learning"]
    assert "Without a labelled pixel, and not in the mean: road." in page
    assert "synthetic" not in page.lower()
    rows = re.findall(r"<tr>\s*<td[^>]*>(sky|car|road)</td>(.*?)</tr>", page, re.DOTALL)
    assert [name for name, _ in rows] == ["sky", "car"]
    assert all("50.00 %" in row and ">2<" in row for _, row in rows)  # two stripes, in both images
    assert "2 of 2 images, from the one" in page
    pictures = re.findall(r"data:image/(?:png|svg\+xml);base64,([^\"]+)", page)
    assert len(pictures) == 3
    assert all(len(base64.b64decode(one)) > 1000 for one in pictures)


def test_images_that_we_drew_are_called_synthetic(tmp_path):
    data, config = load_adaptation(), tiny()
    torch.manual_seed(0)
    segmenter = Segmenter(config, data.classes, Segmentor(len(data.classes), config.model))
    evaluation = evaluate.evaluate(segmenter, data, "valid")
    page = write_report(evaluation, tmp_path / "run", tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Synthetic images: the scores say that the program works" in page
    assert f"6 of {len(data.split('valid'))} images, synthetic" in page
    assert re.findall("<h2>(.*?)</h2>", page) == ["Quality", "Classes", "Frames"]  # nothing says how it learned
