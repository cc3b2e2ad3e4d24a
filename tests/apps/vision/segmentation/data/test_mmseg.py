"""Datasets of mmsegmentation itself, on small folders; what it makes of a label is the oracle."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from apps.vision.segmentation.data.items import Labelled, View
from apps.vision.segmentation.data.mmseg import domain_of, label_map
from core.errors import InputError


@pytest.fixture(scope="module")
def mmseg_datasets():
    pytest.importorskip("mmseg")
    from apps.vision.segmentation.mmseg import without_compiled_ops

    without_compiled_ops()
    import mmseg.datasets

    return mmseg.datasets


@pytest.fixture
def cityscapes(tmp_path):
    rng = np.random.default_rng(0)
    for city in ("aachen", "bochum"):
        for index in range(2):
            name = f"{city}/{city}_00000{index}_000019"
            image = tmp_path / f"leftImg8bit/train/{name}_leftImg8bit.png"
            label = tmp_path / f"gtFine/train/{name}_gtFine_labelTrainIds.png"
            for path in (image, label):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)).save(image)
            Image.fromarray(rng.choice([*range(19), 255], (8, 10)).astype(np.uint8)).save(label)
    return tmp_path


def _theirs(datasets, dataset, index):
    """The label as mmsegmentation loads it."""
    info = {**dataset.get_data_info(index)}
    return datasets.transforms.LoadAnnotations()(info)["gt_seg_map"]


@pytest.mark.filterwarnings("ignore")
def test_cityscapes_dataset(mmseg_datasets, cityscapes):
    prefix = {"img_path": "leftImg8bit/train", "seg_map_path": "gtFine/train"}
    dataset = mmseg_datasets.CityscapesDataset(data_root=str(cityscapes), data_prefix=prefix, pipeline=[])
    domain = domain_of(dataset)
    assert [item.group for item in domain.splits["train"]] == ["aachen", "aachen", "bochum", "bochum"]
    assert domain.classes.names[13] == "car"
    assert domain.classes.palette[13] == (0, 0, 142)
    for index, item in enumerate(domain.splits["train"]):
        assert isinstance(item, Labelled)
        assert np.array_equal(item.label.read(), _theirs(mmseg_datasets, dataset, index))
    assert len(domain_of(dataset, "valid").labelled("valid")) == 4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reduce_zero_label", [False, True])
@pytest.mark.parametrize("classes", [("a", "b", "c"), ("c", "a")])
def test_reduced_zero_and_chosen_classes(mmseg_datasets, tmp_path, reduce_zero_label, classes):
    class Small(mmseg_datasets.BaseSegDataset):
        METAINFO: ClassVar = {"classes": ("a", "b", "c"), "palette": [[1, 1, 1], [2, 2, 2], [3, 3, 3]]}

    values = [0, 1, 2, 3, 255] if reduce_zero_label else [0, 1, 2, 255]
    for folder, array in (("img", np.zeros((2, 5, 3), np.uint8)), ("ann", np.array([[*values, 0][:5]] * 2, np.uint8))):
        (tmp_path / folder).mkdir()
        Image.fromarray(array).save(tmp_path / folder / f"x.{'jpg' if folder == 'img' else 'png'}")
    dataset = Small(
        data_prefix={"img_path": str(tmp_path / "img"), "seg_map_path": str(tmp_path / "ann")},
        metainfo={"classes": classes},
        reduce_zero_label=reduce_zero_label,
        pipeline=[],
    )
    (item,) = domain_of(dataset).splits["train"]
    assert np.array_equal(item.label.read(), _theirs(mmseg_datasets, dataset, 0))
    assert domain_of(dataset).classes.names == classes


class Fake:
    metainfo: ClassVar = {"classes": ("a", "b"), "palette": None}
    ignore_index = 255

    def __init__(self, infos):
        self.infos = infos

    def __len__(self):
        return len(self.infos)

    def get_data_info(self, idx):
        return self.infos[idx]


def test_without_labels_and_what_is_refused():
    (view,) = domain_of(Fake([{"img_path": "/x/y.png"}])).splits["train"]
    assert (type(view), view.key, view.group) == (View, "y", None)
    with pytest.raises(InputError, match="no images"):
        domain_of(Fake([]))
    with pytest.raises(InputError, match="pairs of images"):
        domain_of(Fake([{"img_path": "/x/y.png", "img_path2": "/x/z.png"}]))
    with pytest.raises(InputError, match="no split 'val'"):
        domain_of(Fake([{"img_path": "/x/y.png"}]), "val")
    assert label_map(2, 2, False, {}).ids == {0: 0, 1: 1, 2: 255, 255: 255}
