"""ONNX: the file says what the model says, whatever the size, or it is not kept."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from apps import cli
from apps.vision.segmentation import export as verb
from apps.vision.segmentation import exporting
from apps.vision.segmentation.config import ModelConfig, SegmentationConfig
from apps.vision.segmentation.data.classes import Classes
from apps.vision.segmentation.data.geometry import CropConfig
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.segmenter import TASK, Segmenter
from core.command import RunDirectory
from core.errors import InputError

CLASSES = Classes(names=("road", "sky", "car"), palette=((200, 0, 10), (0, 200, 20), (0, 0, 230)))
TRACED = []
NEEDS = ("onnx", "onnxscript", "onnxruntime")


def make(**changes):
    options = {"widths": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "heads": (1, 1, 2, 2), "head_width": 16} | changes
    crops = CropConfig(box=(64, 96), crop=(64, 96))
    config = SegmentationConfig(
        model=ModelConfig(drop_path=0.0, dilations=(1, 2), **options), source=crops, target=crops
    )
    torch.manual_seed(2)
    model = Segmentor(len(CLASSES), config.model)
    nn.init.normal_(model.head.classifier.weight)
    return Segmenter(config, CLASSES, model)


@pytest.fixture(scope="module")
def segmenter():
    return make()


@pytest.fixture
def onnx():
    for name in NEEDS:
        pytest.importorskip(name)
    return pytest.importorskip("onnx")


@pytest.fixture
def traced(onnx, segmenter, monkeypatch):
    """The graph of 48 x 70, made once: the exporter takes its time."""
    if not TRACED:
        TRACED.append(exporting._program(segmenter, (48, 70), fixed=True))
    monkeypatch.setattr(exporting, "_program", lambda *given, **more: TRACED[0])


@pytest.fixture
def run(segmenter, tmp_path):
    folder = tmp_path / "run"
    segmenter.save(RunDirectory.create(folder, segmenter.config, task=TASK).best)
    return folder


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.untyped
@pytest.mark.timeout(400)  # free sizes are traced as symbols, which a busy machine is long at
def test_any_size_and_batch_gives_what_the_model_gives(onnx, segmenter, tmp_path):
    path = tmp_path / "out" / "model.onnx"
    parity = exporting.export(segmenter, path)
    assert files_in(path.parent) == ["model.onnx"]
    assert parity.images == 7
    assert parity.sizes == ((64, 96), (96, 64), (49, 77), (32, 33))
    assert parity.difference < 1e-5
    assert parity.agreement > 0.9999
    run = exporting.session(path)
    rng = np.random.default_rng(5)
    for batch, height, width in ((1, 40, 101), (5, 32, 64), (2, 130, 67)):
        images = rng.integers(0, 256, (batch, 3, height, width), dtype=np.uint8)
        found = run(images)
        for image, probabilities in zip(images, found, strict=True):
            (wanted,) = segmenter.probabilities([image.transpose(1, 2, 0).copy()], box=(height, width))
            assert np.abs(probabilities - wanted.numpy()).max() < 1e-4
    model = onnx.load(str(path))
    told = {entry.key: json.loads(entry.value) for entry in model.metadata_props if entry.key in ("classes", "box")}
    assert told == {"classes": ["road", "sky", "car"], "box": [64, 96]}
    axes = [
        [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert axes == [["batch", 3, "height", "width"], ["batch", 3, "height", "width"]]


@pytest.mark.untyped
def test_a_fixed_size_takes_that_size_alone(traced, run, tmp_path, capsys):
    out = tmp_path / "fixed.onnx"
    words = [str(run), "--out", str(out), "--size", "48", "70"]
    assert verb.main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["sizes"] == [[48, 70]]
    assert facts["images"] == 3
    assert facts["bytes"] == out.stat().st_size
    ran = exporting.session(out)
    assert ran(np.zeros((3, 3, 48, 70), dtype=np.uint8)).shape == (3, 3, 48, 70)
    with pytest.raises(Exception, match="invalid dimensions"):
        ran(np.zeros((1, 3, 64, 64), dtype=np.uint8))
    assert verb.main(words) == 2
    assert capsys.readouterr().err == f"error: {out}: is there already; give --overwrite, or another name\n"
    assert verb.main([*words, "--overwrite"]) == 0
    assert "labels agree on 100.000 %" in capsys.readouterr().out


@pytest.mark.untyped
@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: found + np.float32(2e-4),
        lambda found: found[:, ::-1],
        lambda found: found * np.float32("nan"),
    ],
    ids=["a little", "other labels", "nan"],
)
def test_a_file_that_says_something_else_is_not_kept(traced, run, tmp_path, monkeypatch, capsys, spoil):
    kept = exporting.session
    monkeypatch.setattr(exporting, "session", lambda path: lambda images: spoil(kept(path)(images)))
    out = tmp_path / "out" / "model.onnx"
    out.parent.mkdir()
    out.write_text("an older one")
    assert verb.main([str(run), "--out", str(out), "--overwrite", "--size", "48", "70"]) == 2
    error = capsys.readouterr().err
    assert "the file does not say what the model says: probabilities differ by up to" in error
    assert error.count("\n") == 1
    assert files_in(out.parent) == ["model.onnx"]
    assert out.read_text() == "an older one"


@pytest.mark.slow
@pytest.mark.untyped
@pytest.mark.parametrize("changes", [{"context": "none"}, {"mixer": "softmax", "feedforward": "mlp"}], ids=str)
def test_other_networks_pass_the_gate(onnx, changes, tmp_path):
    assert exporting.export(make(**changes), tmp_path / "model.onnx").difference < 1e-4


@pytest.mark.slow
@pytest.mark.untyped
@pytest.mark.parametrize(
    ("mixer", "said"), [("topk", "no operator for aten.sort.stable"), ("relative", "onnxruntime cannot run it")]
)
def test_blocks_that_onnx_has_not_are_said_in_a_line(onnx, mixer, said, tmp_path, capfd):
    with pytest.raises(InputError, match=said) as caught:
        exporting.export(make(mixer=mixer), tmp_path / "model.onnx", size=(64, 96))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_what_is_missing_is_said_in_a_line(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert verb.main([str(run), "--out", str(tmp_path / "model.onnx")]) == 2
    assert capsys.readouterr().err == 'error: onnxruntime is not installed; pip install "manyformer[export]"\n'
    assert not (tmp_path / "model.onnx").exists()


def test_what_is_wrong_is_said_in_a_line(run, segmenter, tmp_path, monkeypatch, capsys):
    for module in (verb, exporting):
        monkeypatch.setattr(module, "require", lambda module, extra: None)
    for words, said in (
        (["--out", str(tmp_path / "model.pt")], "does not end in .onnx"),
        (["--out", str(tmp_path / "model.onnx"), "--tolerance", "0"], "--tolerance: 0 allows nothing"),
        (["--out", str(tmp_path / "model.onnx"), "--size", "31", "64"], "size: (31, 64) is smaller than 32 x 32"),
    ):
        assert verb.main([str(run), *words]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert cli.main(["tabular", "export", "x"]) == 2
    said = "'export' is not a verb of this task; segmentation can; known here: train, evaluate, predict, check, info"
    assert capsys.readouterr().err == f"error: manyformer tabular: {said}\n"
