"""Config files of mmsegmentation as data of our verbs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from apps.vision.segmentation import check, evaluate, train
from apps.vision.segmentation.data import labelmaps
from apps.vision.segmentation.data.items import Labelled
from apps.vision.segmentation.data.mmseg_config import open_config, training_pipeline
from apps.vision.segmentation.data.sources import Source, load_adaptation
from core.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def installed():
    pytest.importorskip("mmengine")
    pytest.importorskip("mmcv")


@pytest.fixture
def data(tmp_path):
    """``img`` and ``ann`` below train, other, val; values 0 (not labelled) to 3."""
    for part, names in {"train": "abcdef", "other": "xy", "val": "gh"}.items():
        for name in names:
            rng = np.random.default_rng(ord(name))
            for folder in ("img", "ann"):
                (tmp_path / folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(tmp_path / f"img/{part}/{name}.png")
            label = np.repeat(rng.permutation(4).astype(np.uint8), 16)[None].repeat(48, 0)
            Image.fromarray(label).save(tmp_path / f"ann/{part}/{name}.png")
    return tmp_path


TEXT = """
root = {root!r}
def part(name):
    return dict(
        type="BaseSegDataset",
        data_root=root,
        data_prefix=dict(img_path="img/" + name, seg_map_path="ann/" + name),
        img_suffix=".png",
        metainfo=dict(classes=("a", "b", "c"), palette=[[1, 1, 1], [2, 2, 2], [3, 3, 3]]),
        reduce_zero_label=True,
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="RandomFlip", prob=0.5)],
    )
"""
FULL = """
train_dataloader = dict(dataset=dict(type="RepeatDataset", times=3, dataset=dict(
    type="ConcatDataset", datasets=[part("train"), part("other"), part("train")])))
val_dataloader = dict(dataset=part("val"))
test_dataloader = val_dataloader
"""


@pytest.fixture
def write(data):
    def make(text=FULL, name="config.py"):
        (data / name).write_text(TEXT.format(root=str(data)) + text)
        return data / name

    return make


def test_the_loaders_are_the_splits(write, data):
    domain = open_config(write())
    assert {split: [item.key for item in items] for split, items in domain.splits.items()} == {
        "train": [f"train/{name}" for name in "abcdef"] + ["other/x", "other/y"],
        "test": ["val/g", "val/h"],
    }
    assert domain.classes.names == ("a", "b", "c")
    assert {item.group for item in domain.splits["train"]} == {None}
    item = domain.splits["train"][0]
    assert isinstance(item, Labelled)
    values = np.asarray(Image.open(data / "ann/train/a.png"))
    assert np.array_equal(item.label.read(), np.where(values == 0, 255, values.astype(int) - 1))
    other = FULL.replace("test_dataloader = val_dataloader", 'test_dataloader = dict(dataset=part("other"))')
    assert {*open_config(write(other)).splits} == {"train", "valid", "test"}
    assert [each["type"] for each in training_pipeline(data / "config.py")][-1] == "RandomFlip"


def test_cityscapes_are_our_cityscapes(data, write):
    text = """
train_dataloader = dict(dataset=dict(type="CityscapesDataset", data_root=root, img_suffix=".png", seg_map_suffix=".png",
    data_prefix=dict(img_path="img/train", seg_map_path="ann/train")))
"""
    assert open_config(write(text)).classes == labelmaps.CITYSCAPES
    chosen = text.replace("img_suffix", 'metainfo=dict(classes=("road", "traffic sign", "car")), img_suffix', 1)
    classes = open_config(write(chosen)).classes
    assert (classes.names, classes.things, classes.palette[1]) == (("road", "sign", "car"), {1, 2}, (220, 220, 0))


def test_configs_that_import(write, data):
    """The other style of mmengine, whose types are classes."""
    path = data / "lazy.py"
    prefix = {"img_path": "img/val", "seg_map_path": "ann/val"}
    path.write_text(
        "from mmengine.dataset import RepeatDataset\nfrom mmseg.datasets import CityscapesDataset\n"
        "train_dataloader = dict(dataset=dict(type=RepeatDataset, times=2, dataset=dict(type=CityscapesDataset, "
        f"data_root={str(data)!r}, img_suffix='.png', seg_map_suffix='.png', data_prefix={prefix!r})))\n"
    )
    assert len(open_config(path).splits["train"]) == 2


def test_a_config_of_our_own_dataset(two_domains, tmp_path):
    text = 'custom_imports = dict(imports=["apps.vision.segmentation.mmseg.plugin"])\n'
    dataset = f'dict(type="ManyformerDataset", data={str(two_domains)!r}, domain="day")'
    text += f"train_dataloader = dict(dataset={dataset})\n"
    (tmp_path / "own.py").write_text(text)
    domain = open_config(tmp_path / "own.py")
    assert [item.key for item in domain.splits["train"]] == [f"{letter}a-s" for letter in "abcdef"]


def test_the_verbs_take_them(write, data, capsys, tmp_path):
    config, target = str(write()), str(write(FULL.replace('part("other"), ', ""), "target.py"))
    assert check.main(["--data", config, "--target", target, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["images"]["source"]["train"] == {"images": 8, "labelled": 8}
    assert facts["images"]["target"]["train"]["images"] == 6
    words = ["--preset", "tiny", "--data", config, "--target", target, "--out", str(tmp_path / "run")]
    words += ["--fit.max-epochs", "1", "--batch", "2", "--progress", "off", "--source.pipeline", config]
    words += ["--source.crop", "48", "64", "--target.crop", "48", "64"]
    assert train.main(words) == 0, capsys.readouterr().err
    assert evaluate.main([str(tmp_path / "run"), "--split", "test", "--json", str(tmp_path / "scores.json")]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["n"] == 2


def test_images_are_held_out_where_val_is_what_is_scored(write):
    data = load_adaptation(Source(data=str(write()), target=str(write()), layout="mmseg"))
    assert {split: len(items) for split, items in data.source.items()} == {"train": 7, "valid": 1, "test": 2}
    assert len(data.target) == 8
    assert {split: len(items) for split, items in data.scored.items()} == {"test": 2}


BAD = {
    "x = 1": "the config names no dataset; give it train_dataloader, val_dataloader, test_dataloader",
    "train_dataloader = dict(batch_size=2)": "the config names no dataset",
    "train_dataloader = dict(dataset=dict(part('train'), type='CityscapeDataset'))": "there is no dataset "
    "'CityscapeDataset'; did you mean 'CityscapesDataset'?",
    "train_dataloader = dict(dataset=part('nowhere'))": "there is no such folder for BaseSegDataset; correct data_root",
    "train_dataloader = dict(dataset=dict(part('train'), colour=3))": "the dataset BaseSegDataset cannot be opened",
    "train_dataloader = dict(dataset=dict(part('train'), img_suffix='.tif'))": "the dataset has no images",
    "train_dataloader = dict(dataset=dict(part('train'), metainfo=dict()))": "the dataset has no classes",
    "train_dataloader = dict(dataset=[part('train'), dict(part('other'), metainfo=dict(classes=('a', 'b')))])": "its "
    "classes are not those of BaseSegDataset",
    "raise RuntimeError('two\\nlines')": "fails as a config (RuntimeError: two lines)",
    "custom_imports = dict(imports=['no_such_plugin'])": "fails as a config (ImportError",
}


@pytest.mark.parametrize(("text", "said"), BAD.items())
def test_mistakes_are_one_line(write, text, said):
    with pytest.raises(InputError) as error:
        open_config(write(text))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not check.check(Source(data=str(write(text)), target="synthetic:streets")).ok


def test_mistakes_of_the_command_line(write, data, tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.py: there is no such file"):
        open_config(tmp_path / "nowhere.py")
    with pytest.raises(InputError, match="there is no such file"):
        load_adaptation(Source(data=str(data / "ann"), layout="mmseg", target="synthetic:streets"))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="is no config file of mmsegmentation"):
        open_config(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="a config has no domains, so none is 'night'"):
        load_adaptation(Source(data=str(write()), source_domain="night"))
    text = FULL.replace('part("other")', 'dict(part("other"), pipeline=[])')
    with pytest.raises(InputError, match="different pipelines"):
        training_pipeline(write(text))
    with pytest.raises(InputError, match="no dataset to train on"):
        training_pipeline(write('val_dataloader = dict(dataset=part("val"))'))


def test_files_that_are_missing_are_faults(write, data):
    path = write()
    (data / "ann/train/c.png").unlink()
    domain = open_config(path)
    assert [(fault.kind, fault.split, fault.where) for fault in domain.faults] == [
        ("missing", "train", str(data / "ann/train/c.png"))
    ]
    assert len(domain.splits["train"]) == 7
    found = check.check(Source(data=str(path), target=str(path))).findings
    assert any(one.kind == "missing" and one.severity == "error" for one in found)
