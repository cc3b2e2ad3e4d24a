"""Our domains as a dataset of mmsegmentation, and back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from apps.vision.segmentation.data import labelmaps
from apps.vision.segmentation.data.folders import open_folder
from apps.vision.segmentation.data.mmseg import domain_of
from apps.vision.segmentation.data.sources import open_domain
from apps.vision.segmentation.mmseg import mmseg_module, register
from core.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")
LOADING = [{"type": "LoadManyformerImage"}, {"type": "LoadManyformerLabels"}]


@pytest.fixture(scope="module", autouse=True)
def registered():
    pytest.importorskip("mmengine")
    pytest.importorskip("mmcv")
    register()


def dataset_of(data, pipeline=LOADING, **more):
    registry = mmseg_module("mmseg.registry").DATASETS
    scope = mmseg_module("mmengine.registry").DefaultScope
    with scope.overwrite_default_scope("mmseg"):
        return registry.build({"type": "ManyformerDataset", "data": str(data), "pipeline": pipeline, **more})


def same(dataset, domain, split):
    """Everything that is read and known of a domain's split."""
    items = domain.labelled(split)
    assert len(dataset) == len(items)
    for index, item in enumerate(items):
        results = dataset[index]
        assert np.array_equal(results["img"][..., ::-1], item.image.read())
        assert np.array_equal(results["gt_seg_map"], item.label.read())
        assert results["img_shape"] == item.image.size
    again = domain_of(dataset, split)
    assert again.splits[split] == items
    assert again.classes == domain.classes


def grey(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def synthia(tmp_path):
    ids = np.random.default_rng(1).integers(0, 23, (2, 6, 8))
    for index, values in enumerate(ids):
        for folder in ("RGB", "GT/LABELS"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey((6, 8), index)).save(tmp_path / f"RGB/000000{index}.png")
        label = np.zeros((6, 8, 3), dtype=np.uint16)
        label[..., 2], label[..., 1] = values, 7
        cv2.imwrite(str(tmp_path / f"GT/LABELS/000000{index}.png"), label)
    return tmp_path, ids


def test_synthia_with_its_16_bit_labels(synthia):
    folder, ids = synthia
    dataset = dataset_of(folder)
    same(dataset, open_folder(folder), "train")
    assert dataset.metainfo["classes"][6:8] == ("traffic light", "traffic sign")
    theirs = mmseg_module("mmseg.datasets").CityscapesDataset.METAINFO
    assert (list(dataset.metainfo["classes"]), dataset.metainfo["palette"]) == (
        list(theirs["classes"]),
        theirs["palette"],
    )
    wanted = np.vectorize(labelmaps.SYNTHIA.ids.get)(ids[0])
    assert np.array_equal(dataset[0]["gt_seg_map"], wanted)


def test_gta_with_a_palette(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    raw = np.random.default_rng(2).integers(0, 35, (6, 8), dtype=np.uint8)
    Image.fromarray(grey((6, 8))).save(tmp_path / "images/00001.png")
    label = Image.fromarray(raw, mode="P")
    label.putpalette([7 * (index % 36) for index in range(768)])
    label.save(tmp_path / "labels/00001.png")
    same(dataset_of(tmp_path), open_folder(tmp_path), "train")


def test_acdc_one_condition_and_all(tmp_path):
    for condition in ("fog", "night"):
        for split in ("train", "val"):
            for kind, name in (("rgb_anon", "rgb_anon"), ("gt", "gt_labelTrainIds")):
                file = tmp_path / kind / condition / split / "GOPR1" / f"GOPR1_frame_{name}.png"
                file.parent.mkdir(parents=True)
                pixels = grey((6, 8)) if kind == "rgb_anon" else grey((6, 8))[..., 0] % 19
                Image.fromarray(pixels).save(file)
    assert len(dataset_of(tmp_path)) == 2
    night = open_folder(tmp_path, "acdc", "night")
    for split in ("train", "test"):
        same(dataset_of(tmp_path, domain="night", split=split), night, split)


def test_the_world_that_we_draw():
    dataset = dataset_of("synthetic:streets", domain="dusk", split="valid", indices=3)
    assert len(dataset) == 3
    domain = open_domain("synthetic:streets", "dusk", "auto")
    again = domain_of(dataset, "valid")
    assert again.splits["valid"] == domain.splits["valid"][:3]
    assert again.classes == domain.classes  # with its things
    assert np.array_equal(dataset[2]["gt_seg_map"], domain.splits["valid"][2].label.read())


def test_images_without_labels_and_what_is_refused(two_domains):
    dusk = dataset_of(two_domains, [LOADING[0], {"type": "PackSegInputs"}], domain="dusk")
    assert len(dusk) == 2
    assert dusk[0]["inputs"].shape == (3, 72, 96)
    with pytest.raises(InputError, match="the image has no label; leave LoadManyformerLabels out"):
        dataset_of(two_domains, domain="dusk")[0]
    with pytest.raises(InputError, match="no split 'val'; did you mean 'valid'"):
        dataset_of(two_domains, domain="day", split="val")
    with pytest.raises(InputError, match="no image in 'test'"):
        dataset_of(two_domains, domain="day", split="test")
    with pytest.raises(InputError, match="several domains"):
        dataset_of(two_domains)
    loading = mmseg_module("mmseg.registry").TRANSFORMS.build(LOADING[0])
    with pytest.raises(InputError, match="is no image of a ManyformerDataset"):
        loading({"img_path": "a.png"})
    # Label files that need a map must not be read as train ids.
    theirs = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
    with pytest.raises(KeyError, match="seg_map_path"):
        dataset_of(two_domains, theirs, domain="day")[0]
    (two_domains / "images" / "aa-s.png").unlink()
    with pytest.raises(InputError, match="there is no such image"):
        dataset_of(two_domains, domain="day")


def test_camvid(real_data):
    folder = real_data / "seg_camvid"
    if not folder.is_dir():
        pytest.skip("no CamVid here")
    dataset = dataset_of(folder, domain="dusk", split="test", indices=2)
    domain = open_folder(folder, domain="dusk")
    assert domain_of(dataset, "test").splits["test"] == domain.splits["test"][:2]
    assert np.array_equal(dataset[1]["gt_seg_map"], domain.splits["test"][1].label.read())
