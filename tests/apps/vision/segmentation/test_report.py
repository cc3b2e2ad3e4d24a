"""The page of an evaluation: what is said of the classes, and frames in the colours of their palette."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from apps.vision.segmentation import evaluate, train
from apps.vision.segmentation.data.classes import Classes
from apps.vision.segmentation.data.sources import load_adaptation
from apps.vision.segmentation.frames import Frame, frames_figure
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.presets import tiny
from apps.vision.segmentation.report import write_report
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
    figure = frames_figure([Frame(title="one", image=image, truth=truth, said=(said,))], CLASSES)
    pixels = drawn(figure)
    middle = [
        np.flatnonzero((pixels == colour).all(-1).sum(0) > 20).mean() for colour in ((90, 90, 90), *CLASSES.palette[:2])
    ]
    assert middle == sorted(middle)
    assert not (pixels == CLASSES.palette[2]).all(-1).any()  # no pixel of it, and not in the legend
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["road", "sky", "not labelled"]


def test_each_run_has_a_column_under_its_name_with_its_score():
    image = np.full((400, 600, 3), 90, dtype=np.uint8)
    labels = [np.full((400, 600), value, dtype=np.uint8) for value in (0, 1, 2, 0)]
    frame = Frame(title="one", image=image, truth=labels[0], said=tuple(labels[1:]), notes=("1 %", "2 %", "100 %"))
    figure = frames_figure([frame.smaller()] * 2, CLASSES, ("source-only", "adapted", "oracle"), "image (synthetic)")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:5] == ["image (synthetic)\none", "truth\n", "source-only\n1 %", "adapted\n2 %", "oracle\n100 %"]
    assert titles[5:] == ["one", "", "1 %", "2 %", "100 %"]
    shown = [axes.images[0].get_array() for axes in figure.axes[:5]]
    assert {one.shape for one in shown} == {(320, 480, 3)}
    assert [tuple(one[0, 0]) for one in shown[1:]] == [CLASSES.palette[index] for index in (0, 1, 2, 0)]


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
    assert re.findall("<h2>(.*?)</h2>", page) == ["Quality", "Classes", "Frames", "Learning", "Pseudo-labels"]
    assert "Without a labelled pixel, and not in the mean: road." in page
    assert "synthetic" not in page.lower()
    rows = re.findall(r"<tr>\s*<td[^>]*>(sky|car|road)</td>(.*?)</tr>", page, re.DOTALL)
    assert [name for name, _ in rows] == ["sky", "car"]
    assert all("50.00 %" in row and ">2<" in row for _, row in rows)  # two stripes, in both images
    assert "2 of 2 images, from the one" in page
    pictures = re.findall(r"data:image/(?:png|svg\+xml);base64,([^\"]+)", page)
    assert len(pictures) == 4
    assert all(len(base64.b64decode(one)) > 1000 for one in pictures)


HISTORY = [
    {
        "epoch": epoch,
        "train_loss": 1.0 / epoch,
        "train_confident": 0.1 * epoch,
        "source_miou": 20.0 + epoch,
        "target_miou": miou,
        "teacher_miou": miou + 1,
        "teacher_accuracy": 50.0,
        "pseudo_confident": 10.0 * epoch,
        "pseudo_accuracy": None if epoch == 1 else 80.0,
    }
    for epoch, miou in enumerate((10.0, 30.0, 22.5), start=1)
]


def table_under(page, caption):
    """Cells of the rows of the table with a caption that begins so."""
    (table,) = re.findall(rf"<figcaption>{caption}.*?<tbody>(.*?)</tbody>", page, re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    return [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]


def test_the_page_says_what_lies_between_runs_and_how_weights_could_be_chosen(finished, scored_target, tmp_path):
    lower, upper = finished("lower", scored_target, "none", seed=1), finished("upper", scored_target, "target", seed=2)
    own = finished("own", scored_target, "adapt", history=HISTORY)
    words = [own, "--beside", lower, "--upper", upper, "--report", tmp_path / "page"]
    assert evaluate.main([*map(str, words), "--json", str(tmp_path / "scores.json")]) == 0
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    heads = ["Quality", "Classes", "Beside other runs", "Frames", "Learning", "Pseudo-labels", "Choice of the weights"]
    assert re.findall("<h2>(.*?)</h2>", page) == heads
    details = json.loads((tmp_path / "scores.json").read_text())["details"]
    rows = {row[0]: row[1:] for row in table_under(page, "Difference: adapted less source-only")}
    assert list(rows) == ["Mean IoU, %", "Pixel accuracy, %", "IoU sky, %", "IoU car, %"]
    for cells, closed in zip(rows.values(), details["gap_closed"].values(), strict=True):
        assert ("p = " in cells[3], cells[4] == "\N{EN DASH}") == (True, closed["share"] is None)
    assert "stands for: gap not distinguishable from zero" in page
    assert "of these trainings: other seeds may turn them" in page
    assert "what each run predicted, with its mean IoU on the image" in page
    assert "a probability of 0.9 or more" in page
    picked = table_under(page, "The epoch that each rule would have picked")
    assert picked[0] == ["source_miou", "3", "22.5", "7.500", "0.500"]
    assert [row[:4] for row in picked[-3:]] == [
        ["last (picked these weights)", "3", "22.5", "7.500"],
        ["an epoch at random", "\N{EN DASH}", "20.8", "9.167"],
        ["labels of the target", "2", "30.0", "0.000"],
    ]
    assert details["checkpoints"]["rules"]["source_miou"]["epoch"] == 3
    assert len(re.findall(r"data:image/(?:png|svg\+xml);base64", page)) == 5


def test_images_that_we_drew_are_called_synthetic(tmp_path):
    data, config = load_adaptation(), tiny()
    torch.manual_seed(0)
    segmenter = Segmenter(config, data.classes, Segmentor(len(data.classes), config.model))
    evaluation = evaluate.evaluate(segmenter, data, "valid")
    page = write_report(evaluation, tmp_path / "run", tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Synthetic images: the scores say that the program works" in page
    assert f"6 of {len(data.split('valid'))} images, synthetic" in page
    assert re.findall("<h2>(.*?)</h2>", page) == ["Quality", "Classes", "Frames"]  # nothing says how it learned
