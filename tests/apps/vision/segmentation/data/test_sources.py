from __future__ import annotations

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from apps.vision.segmentation.data.folders import open_folder
from apps.vision.segmentation.data.items import Labelled, View
from apps.vision.segmentation.data.labelmaps import CITYSCAPES
from apps.vision.segmentation.data.sources import Source, load_adaptation, open_domains, paired_domains
from core.errors import InputError


def _image(path, value=0, mode="RGB", size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    fill = (value, value, value) if mode == "RGB" else value
    Image.new(mode, size, fill).save(path)
    return path


def test_the_target_has_no_label_to_train_with(two_domains):
    data = load_adaptation(Source(data=str(two_domains), source_domain="day", target_domain="dusk"))
    assert {name: len(items) for name, items in data.source.items()} == {"train": 6, "valid": 2}
    assert all(type(item) is Labelled for items in data.source.values() for item in items)
    assert [type(item) for item in data.target] == [View, View]
    assert "label" not in {field.name for field in dataclasses.fields(View)}
    assert [item.key for item in data.scored["test"]] == ["ce-t", "de-t"]
    assert data.split("source-valid") == data.source["valid"]
    with pytest.raises(InputError, match="no labelled split 'valid'"):
        data.split("valid")


def test_labels_of_the_targets_training_images_change_nothing_that_is_learned_from(write_set, stripes, tmp_path):
    items = [("a", "day", "train", stripes(0, 1)), ("b", "day", "valid", stripes(0, 1))]
    read = []
    for name, label in (("with", stripes(0, 2)), ("without", None)):
        path = write_set(tmp_path / name, [*items, ("c", "dusk", "train", label)])
        data = load_adaptation(Source(data=str(path), source_domain="day", target_domain="dusk"))
        read.append(data.digests()["target-train"])
        assert data.scored == {}
    assert read[0] == read[1]


def test_digests_follow_what_is_read_and_not_where_it_lies(write_set, stripes, tmp_path):
    items = [("a", "day", "train", stripes(0, 1)), ("b", "day", "valid", stripes(0, 1)), ("c", "dusk", "train", None)]

    def digests(name, change=None, **more):
        path = write_set(tmp_path / name, items, **more)
        if change is not None:
            change(path)
        return load_adaptation(Source(data=str(path), source_domain="day", target_domain="dusk")).digests()

    one = digests("one")
    assert sorted(one) == ["source-train", "source-valid", "target-train"]
    assert digests("two") == one
    other = digests("other", lambda path: Image.fromarray(stripes(0, 2)).save(path / "labels" / "a.png"))
    assert {name for name in one if one[name] != other[name]} == {"source-train"}
    target = digests("target", lambda path: _image(path / "images" / "c.png", 3, size=(96, 72)))
    assert {name for name in one if one[name] != target[name]} == {"target-train"}
    meant = digests("meant", ids={"0": "car", "1": "sky", "2": "road"})
    assert {name for name in one if one[name] != meant[name]} == {"source-train", "source-valid"}


def test_plain_folders_in_three_ways(tmp_path):
    for way in ("folders", "lists", "none"):
        root = tmp_path / way
        for index in range(4):
            part = ("train", "train", "val", "test")[index]
            name = f"{part}/seq/{index}" if way == "folders" else f"{index}"
            _image(root / "images" / f"{name}.jpg")
            _image(root / "labels" / f"{name}.png", 1, "L")
            if way == "lists":
                with (root / f"{part}.txt").open("a") as file:
                    file.write(f"{index}.jpg\n")
        (root / "classes.json").write_text('{"classes": ["a", "b"]}')
        domain = open_folder(root)
        counts = {name: len(items) for name, items in domain.splits.items()}
        assert counts == ({"train": 4} if way == "none" else {"train": 2, "valid": 1, "test": 1})
        assert not domain.faults
        item = domain.splits["train"][0]
        assert item.group == ("seq" if way == "folders" else None)
        assert np.array_equal(item.label.read(), np.ones((6, 8)))


def test_cityscapes(tmp_path):
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "munster"), ("test", "berlin")):
        stem = f"{city}_000001_000019"
        _image(tmp_path / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
        kind, value = ("labelTrainIds", 13) if city == "aachen" else ("labelIds", 26)  # both are car
        _image(tmp_path / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png", value, "L")
    domain = open_folder(tmp_path)
    assert {name: [item.group for item in items] for name, items in domain.splits.items()} == {
        "train": ["aachen_000001", "bochum_000001"],
        "test": ["munster_000001"],
    }
    for items in domain.splits.values():
        assert all((item.label.read() == CITYSCAPES.index("car")).all() for item in items)


def test_gta_and_its_palette_images(tmp_path):
    for index in range(3):
        _image(tmp_path / "images" / f"{index:05d}.png")
        label = Image.new("P", (8, 6), 23)
        label.putpalette([70, 130, 180] * 256)
        (tmp_path / "labels").mkdir(exist_ok=True)
        label.save(tmp_path / "labels" / f"{index:05d}.png")
    domain = open_folder(tmp_path)
    assert domain.classes == CITYSCAPES
    assert (domain.splits["train"][0].label.read() == CITYSCAPES.index("sky")).all()


def test_synthia(tmp_path):
    cv2 = pytest.importorskip("cv2")
    _image(tmp_path / "RGB" / "0000000.png")
    label = np.zeros((6, 8, 3), dtype=np.uint16)
    label[..., 2] = 8  # OpenCV's last channel; 8 is car
    (tmp_path / "GT" / "LABELS").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "GT" / "LABELS" / "0000000.png"), label)
    (item,) = open_folder(tmp_path).splits["train"]
    assert (item.label.read() == CITYSCAPES.index("car")).all()


def test_conditions_of_acdc_and_dark_zurich(tmp_path):
    acdc, zurich = tmp_path / "acdc", tmp_path / "zurich"
    for condition in ("fog", "night"):
        for split in ("train", "val", "test"):
            name = f"{condition}/{split}/GOPR1/GOPR1_frame_000001"
            _image(acdc / "rgb_anon" / f"{name}_rgb_anon.png")
            _image(acdc / "gt" / f"{name}_gt_labelTrainIds.png", 10, "L")
    domain = open_folder(acdc, domain="night")
    assert {name: [item.group for item in items] for name, items in domain.splits.items()} == {
        "train": ["night/GOPR1"],
        "test": ["night/GOPR1"],
    }
    with pytest.raises(InputError, match=r"no domain 'day'.*known: fog, night"):
        open_folder(acdc, domain="day")
    _image(zurich / "rgb_anon/train/night/GOPR2/GOPR2_frame_000002_rgb_anon.png")
    _image(zurich / "rgb_anon/val/night/GOPR3/GOPR3_frame_000003_rgb_anon.png")
    _image(zurich / "gt/val/night/GOPR3/GOPR3_frame_000003_gt_labelTrainIds.png", 10, "L")
    domain = open_folder(zurich, domain="night")
    assert [type(items[0]) for items in domain.splits.values()] == [View, Labelled]


def test_classes_are_carried_over_by_name(write_set, stripes, tmp_path):
    source = write_set(
        tmp_path / "s", [("a", "", "train", stripes(0, 1, 2)), ("b", "", "valid", stripes(0))], ("road", "sky", "car")
    )
    target = write_set(
        tmp_path / "t", [("c", "", "train", None), ("d", "", "test", stripes(0, 1, 255))], ("car", "boat")
    )
    data = load_adaptation(Source(data=str(source), target=str(target)))
    label = data.scored["test"][0].label.read()
    assert np.unique(label).tolist() == [2, 255]
    assert (label == 2).sum() == 72 * 32
    (target / "classes.json").write_text(json.dumps({"classes": ["boat", "ship"]}))
    with pytest.raises(InputError, match="no class in common"):
        load_adaptation(Source(data=str(source), target=str(target)))


def test_a_source_without_valid_gives_whole_sequences(write_set, stripes, tmp_path):
    items = [(f"{letter}{index}", "day", "train", stripes(0, 1)) for letter in "abcdefgh" for index in range(3)]
    items = [(key[0] * 2 + key[1], *rest) for key, *rest in items]
    path = write_set(tmp_path / "set", [*items, ("zz", "dusk", "train", None)])
    data = load_adaptation(Source(data=str(path), source_domain="day", target_domain="dusk"))
    assert len(data.source["valid"]) == 3
    assert len(data.source["train"]) == 21
    groups = [{item.group for item in data.source[split]} for split in ("train", "valid")]
    assert not groups[0] & groups[1]


def test_a_part_lies_within_a_larger_one():
    data = load_adaptation()
    keys = [{item.key for item in data.part(share).source["train"]} for share in (0.1, 0.5)]
    assert [len(some) for some in keys] == [19, 96]
    assert keys[0] < keys[1]
    assert data.part(0.1).digests()["source-train"] != data.digests()["source-train"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"data": "absent"}, "no target to adapt to"),
        ({"data": "absent", "target": "absent"}, "no such folder"),
        ({"data": "synthetic:street"}, "did you mean"),
        ({"source_domain": "night"}, "no domain 'night'"),
        ({"data": "{set}", "target": "{set}"}, "several domains: day, dusk"),
        ({"data": "{set}", "source_domain": "dy", "target_domain": "dusk"}, "did you mean 'day'"),
        ({"data": "{set}", "source_domain": "day", "target": "{empty}"}, "no layout that is known"),
        ({"data": "{set}", "source_domain": "dusk", "target_domain": "day"}, "no labelled image in 'train'"),
    ],
)
def test_what_is_named_wrongly_is_one_line(arguments, said, two_domains, tmp_path):
    (tmp_path / "empty").mkdir()
    places = {"set": two_domains, "empty": tmp_path / "empty"}
    filled = {name: value.format(**places) for name, value in arguments.items()}
    if "target" in filled and filled["data"] == "absent":
        filled["data"] = str(tmp_path / "absent")
    with pytest.raises(InputError, match=said) as caught:
        load_adaptation(Source(**filled))
    assert "\n" not in str(caught.value)


def test_faults_of_rows_are_refused_with_their_number(two_domains):
    (two_domains / "labels" / "aa-s.png").unlink()
    (two_domains / "images" / "ba-s.png").unlink()
    source = Source(data=str(two_domains), source_domain="day", target_domain="dusk")
    with pytest.raises(InputError, match=r"aa-s\.png: there is no such label \(and 1 more\).*check"):
        load_adaptation(source)
    own, other = open_domains(source)
    assert [fault.kind for fault in own.faults] == ["missing", "missing"]
    assert len(paired_domains(own, other, name="x").source["train"]) == 4


def test_a_misspelt_split_is_not_left_out_in_silence(two_domains):
    table = two_domains / "splits.csv"
    table.write_text(table.read_text().replace("aa-s,day,aa,train", "aa-s,day,aa,trian"))
    with pytest.raises(InputError, match="'trian' is no split"):
        load_adaptation(Source(data=str(two_domains), source_domain="day", target_domain="dusk"))


@settings(max_examples=150, deadline=None)
@given(
    head=st.lists(st.sampled_from(["image", "label", "split", "domain", "id", "sequence", "x"]), max_size=6),
    rows=st.lists(st.lists(st.text(max_size=6) | st.sampled_from(["train", "day", "a.png"]), max_size=7), max_size=5),
    noise=st.binary(max_size=4),
)
def test_any_table_is_read_or_refused(head, rows, noise, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "any-table"
    folder.mkdir(exist_ok=True)
    (folder / "a.png").touch()
    (folder / "classes.json").write_text('{"classes": ["a", "b"]}')
    text = io.StringIO()
    csv.writer(text).writerows([head, *rows])
    (folder / "splits.csv").write_bytes(text.getvalue().encode() + noise)
    try:
        domain = open_folder(folder)
    except InputError:
        return
    assert all(fault.severity == "error" and fault.where for fault in domain.faults)
    assert {item.image.path for items in domain.splits.values() for item in items} <= {folder / "a.png"}


def test_an_empty_target_is_one_line(write_set, stripes, tmp_path):
    source = write_set(tmp_path / "s", [("a", "", "train", stripes(0, 1)), ("b", "", "valid", stripes(0, 1))])
    (tmp_path / "t" / "images").mkdir(parents=True)
    with pytest.raises(InputError, match="no target image in 'train'"):
        load_adaptation(Source(data=str(source), target=str(tmp_path / "t")))


def test_camvid(real_data):
    folder = real_data / "seg_camvid"
    if not folder.is_dir():
        pytest.skip("no CamVid here")
    data = load_adaptation(Source(data=str(folder), source_domain="day", target_domain="dusk"))
    assert {name: len(items) for name, items in data.source.items()} == {"train": 268, "valid": 37, "test": 54}
    assert (len(data.target), {name: len(items) for name, items in data.scored.items()}) == (
        69,
        {"valid": 10, "test": 13},
    )
    label = data.source["train"][0].label.read()
    assert label.shape == data.source["train"][0].image.size == (240, 320)
    assert set(np.unique(label)) <= {*range(11), 255}
