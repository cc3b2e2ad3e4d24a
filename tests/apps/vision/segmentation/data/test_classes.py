from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.vision.segmentation.data.classes import (
    IGNORE,
    MOST,
    Classes,
    LabelMap,
    classes_from,
    colours_for,
    oklab,
    read_classes,
)
from apps.vision.segmentation.data.labelmaps import CITYSCAPES, LABEL_IDS, SYNTHIA, TRAIN_IDS
from core.errors import InputError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4),
    max_leaves=10,
)
keys = st.sampled_from(["classes", "ignore_index", "palette", "ignore_colours", "ids", "reduce_zero_label", "things"])


def test_ids_of_the_public_sets():
    """Facts of the data sets: a class of each kind by its raw id."""
    names = CITYSCAPES.names
    raw = {7: "road", 8: "sidewalk", 17: "pole", 22: "terrain", 23: "sky", 24: "person", 26: "car", 33: "bicycle"}
    assert {value: names[LABEL_IDS.ids[value]] for value in raw} == raw
    assert [LABEL_IDS.ids[value] for value in (0, 9, 10, 14, 29, 30, 34)] == [IGNORE] * 7
    synthia = {1: "sky", 2: "building", 3: "road", 4: "sidewalk", 8: "car", 10: "person", 11: "bicycle", 21: "wall"}
    assert {value: names[SYNTHIA.ids[value]] for value in synthia} == synthia
    assert {names[train_id] for train_id in LABEL_IDS.ids.values() if train_id != IGNORE} == set(names)
    assert sorted(TRAIN_IDS.ids) == [*range(19), 255]
    things = {"light", "sign", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"}
    assert {names[train_id] for train_id in CITYSCAPES.things} == things


def test_what_classes_json_says():
    classes, labels = classes_from(
        {
            "classes": ["road", "sky"],
            "palette": [[1, 2, 3], [4, 5, 6]],
            "ids": {"7": "road", "23": "sky", "9": None},
            "ignore_index": 0,
            "ignore_colours": [[0, 0, 0]],
            "things": ["sky"],
        },
        "classes.json",
    )
    assert classes.names == ("road", "sky")
    assert classes.things == {1}
    assert labels.decode(np.array([[7, 23, 9, 0, 255]], dtype=np.uint8), "x").tolist() == [[0, 1, 255, 255, 255]]
    colours = np.array([[[4, 5, 6], [1, 2, 3], [0, 0, 0]]], dtype=np.uint8)
    assert labels.decode(colours, "x").tolist() == [[1, 0, 255]]
    assert Classes.from_dict(classes.to_dict()) == classes
    _, reduced = classes_from({"classes": ["a", "b"], "reduce_zero_label": True}, "x")
    assert reduced.decode(np.array([[0, 1, 2, 255]], dtype=np.uint16), "x").tolist() == [[255, 0, 1, 255]]
    _, mask = classes_from({"classes": ["nothing", "vessel"], "ids": {"0": "nothing", "255": "vessel"}}, "x")
    assert mask.decode(np.array([[0, 255]], dtype=np.uint8), "x").tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "no list of names"),
        ({"classes": ["road"]}, "1 classes"),
        ({"classes": ["road", "road"]}, "twice"),
        ({"classes": ["a", "b"], "palette": [[0, 0, 0]]}, "1 colours for 2"),
        ({"classes": ["a", "b"], "palette": [[0, 0, 0], [0, 0, 0]]}, "one colour"),
        ({"classes": ["a", "b"], "palette": [[0, 0, 0], [0, 0, 256]]}, "is no colour"),
        ({"classes": ["a", "b"], "ids": {"7": "c"}}, "'c' is no class"),
        ({"classes": ["a", "b"], "ids": {"x": "a"}}, "no value of a label"),
        ({"classes": ["a", "b"], "ignore_index": 1}, "both the class 'b' and 'not labelled'"),
        ({"classes": ["a", "b"], "ignore": 1}, "'ignore' means nothing"),
        ({"classes": ["a", "b"], "things": ["c"]}, "'c' is no class"),
    ],
)
def test_a_wrong_classes_json_is_one_line(data, said):
    with pytest.raises(InputError, match=said) as caught:
        classes_from(data, "classes.json")
    assert str(caught.value).count("classes.json") >= 1
    assert "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(data=st.dictionaries(keys, json_values, max_size=5) | json_values)
def test_any_json_is_read_or_refused(data):
    try:
        classes, labels = classes_from(data, "classes.json")
    except InputError:
        pass
    else:
        assert set(labels.ids.values()) <= {*range(len(classes)), IGNORE}


def test_files_that_are_no_json(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_classes(tmp_path / "classes.json")
    (tmp_path / "classes.json").write_bytes(b"\xff{")
    with pytest.raises(InputError, match="cannot be read"):
        read_classes(tmp_path / "classes.json")


@settings(max_examples=100, deadline=None)
@given(
    ids=st.dictionaries(st.integers(0, 300), st.integers(0, 20), max_size=20),
    values=st.lists(st.integers(0, 300), min_size=1, max_size=30),
    wide=st.booleans(),
)
def test_decoding_is_the_map_value_by_value(ids, values, wide):
    stored = np.array([values], dtype=np.int32 if wide or max(values) > 255 else np.uint8)
    unknown = sorted({value for value in values if value not in ids})
    labels = LabelMap(ids=ids)
    if unknown:
        with pytest.raises(InputError, match=f"\\b{unknown[0]}\\b"):
            labels.decode(stored, "a.png")
    else:
        assert labels.decode(stored, "a.png").tolist() == [[ids[value] for value in values]]


def test_unknown_values_are_all_named_with_the_file():
    with pytest.raises(InputError, match=r"a\.png: ids that no class has: 7, 9; list them"):
        LabelMap(ids={0: 0}).decode(np.array([[0, 9, 7]], dtype=np.uint8), "a.png")
    with pytest.raises(InputError, match="mask of 0 and 255"):
        LabelMap(ids={0: 0}).decode(np.array([[0, 255]], dtype=np.uint8), "a.png")
    with pytest.raises(InputError, match="no palette says"):
        LabelMap(ids={0: 0}).decode(np.zeros((1, 1, 3), dtype=np.uint8), "a.png")
    with pytest.raises(InputError, match=r"1 colours that the palette lacks: \(1, 2, 3\)"):
        LabelMap(ids={}, colours={(0, 0, 0): 0}).decode(np.array([[[1, 2, 3]]], dtype=np.uint8), "a.png")


def test_a_translated_map_ignores_what_the_other_lacks():
    labels = LabelMap(ids={7: 0, 8: 1, 9: IGNORE}, colours={(1, 1, 1): 1}).translated({0: 4})
    assert dict(labels.ids) == {7: 4, 8: IGNORE, 9: IGNORE}
    assert dict(labels.colours) == {(1, 1, 1): IGNORE}


def test_oklab_of_the_primaries():
    """Values as Ottosson's definition has them for sRGB."""
    primaries = 255.0 * np.eye(3)
    known = [[0.62796, 0.22486, 0.12585], [0.86644, -0.23389, 0.17950], [0.45201, -0.03246, -0.31153]]
    assert oklab(primaries) == pytest.approx(np.array(known), abs=1e-4)
    assert oklab(np.array([[255.0] * 3, [0.0] * 3])) == pytest.approx(np.array([[1.0, 0, 0], [0, 0, 0]]), abs=1e-6)


@pytest.mark.parametrize(("count", "apart"), [(11, 0.2), (19, 0.13), (MOST, 0.04)])
def test_colours_that_nobody_named_can_be_told_apart(count, apart):
    colours = colours_for(count)
    assert colours == colours_for(MOST)[:count]
    places = oklab(np.array([*colours, (255, 255, 255), (0, 0, 0)], dtype=np.float64))
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1) + 9 * np.eye(len(places))
    assert distances.min() > apart
