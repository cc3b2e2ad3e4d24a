from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from apps.vision.segmentation.data.batches import AdaptationBatches, BatchConfig, Store
from apps.vision.segmentation.data.geometry import CropConfig
from apps.vision.segmentation.data.rare import RareClassConfig
from apps.vision.segmentation.data.sources import Source, load_adaptation
from core.errors import InputError
from core.training import Loader

CROP = CropConfig(crop=(32, 40), box=(60, 80))
CONFIG = BatchConfig(source=CROP, target=CROP, rare=RareClassConfig(temperature=0.5))


@pytest.fixture
def data(two_domains):
    return load_adaptation(Source(data=str(two_domains), source_domain="day", target_domain="dusk"))


def _batches(data, config=CONFIG, **more):
    return AdaptationBatches(data.source["train"], data.target, data.classes.names, config, **more)


def _same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_what_a_batch_holds(data):
    batch = next(iter(Loader(_batches(data), 3, shuffle=True)))
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "source": (3, 3, 32, 40),
        "labels": (3, 32, 40),
        "index": (3,),
        "target": (3, 3, 32, 40),
        "target_mask": (3, 32, 40),
    }
    assert batch["labels"].dtype == torch.int64
    assert set(batch["labels"].unique().tolist()) <= {0, 1, 2}
    assert batch["target_mask"].all()


def test_labels_lie_on_their_pixels(write_set, tmp_path):
    """Images that show their own labels, through resizing, cropping, mirroring and sampling."""
    label = np.repeat(np.arange(3, dtype=np.uint8), 32)[None].repeat(72, 0)
    path = write_set(
        tmp_path / "s", [("a", "s", "train", label), ("b", "s", "valid", label), ("c", "t", "train", None)]
    )
    Image.fromarray(np.stack([label * 100] * 3, -1)).save(path / "images" / "a.png")
    data = load_adaptation(Source(data=str(path), source_domain="s", target_domain="t"))
    grey = torch.tensor([(value * 100 - 116.28) / 57.12 for value in range(3)])
    for config in (CONFIG, BatchConfig(source=CROP, target=CROP, rare=None)):
        for batch in Loader(_batches(data, config, length=16), 4, shuffle=True):
            near = (batch["source"][:, 1, ..., None] - grey).abs()
            assert (near.argmin(-1) == batch["labels"]).float().mean() > 0.97  # borders are mixed by resizing


def test_a_batch_depends_on_its_position_alone(data):
    def stream(seed=1, epoch=0, batch=0, workers=0, count=4):
        batches = Loader(_batches(data), 2, seed=seed, shuffle=True, workers=workers).stream(epoch, batch)
        found = [next(batches) for _ in range(count)]
        batches.close()
        return found

    whole = stream(count=6)
    assert all(_same(a, b) for a, b in zip(whole, stream(count=6), strict=True))
    assert all(_same(a, b) for a, b in zip(whole[4:], stream(epoch=1, batch=1, count=2), strict=True))
    assert all(_same(a, b) for a, b in zip(whole, stream(workers=1, count=2), strict=False))
    assert not _same(whole[0], stream(seed=2, count=1)[0])
    assert not _same(whole[0], whole[3])


def test_without_sampling_by_class_an_epoch_visits_every_image_once(data):
    config = BatchConfig(source=CROP, target=CROP, rare=None)
    seen = torch.cat([batch["index"] for batch in Loader(_batches(data, config), 4, shuffle=True)])
    assert seen.sort().values.tolist() == [0, 1, 2, 3, 4, 5]
    source_only = AdaptationBatches(data.source["train"], (), data.classes.names, config)
    assert sorted(next(iter(Loader(source_only, 2, shuffle=True)))) == ["index", "labels", "source"]


def test_padding_is_masked_and_ignored(data):
    large = CropConfig(crop=(80, 100), tries=0)
    batch = next(iter(Loader(_batches(data, BatchConfig(source=large, target=large, rare=None)), 2, shuffle=True)))
    assert batch["target_mask"].sum().item() == 2 * 72 * 96
    assert torch.equal(batch["target_mask"], batch["labels"] != 255)
    assert (batch["target"].permute(0, 2, 3, 1)[~batch["target_mask"]] == 0).all()


def test_the_store_keeps_what_fits(data):
    item = data.source["train"][0]
    store, none = Store(), Store(limit_bytes=0)
    assert store.image(item, None) is store.image(item, None)
    assert none.image(item, None) is not none.image(item, None)
    assert torch.equal(store.label(item, (60, 80)), none.label(item, (60, 80)))
    assert torch.equal(pickle.loads(pickle.dumps(store)).image(item, None), store.image(item, None))


def test_what_cannot_be_batched(data):
    other = BatchConfig(source=CROP, target=CropConfig(crop=(16, 16)))
    with pytest.raises(InputError, match="one size to be mixed"):
        _batches(data, other)
    with pytest.raises(InputError, match="no source image"):
        AdaptationBatches((), data.target, data.classes.names, CONFIG)
    item = data.source["train"][2]
    Image.new("L", (40, 72)).save(item.label.path)
    with pytest.raises(InputError, match=r"the label is 40 x 72, its image 96 x 72; label the image"):
        Store().label(item, None)
    Image.new("L", (72, 96)).save(item.label.path)
    with pytest.raises(InputError, match="one of them is turned"):
        Store().label(item, None)
