"""A config file of mmsegmentation 1.x as data: the datasets of its loaders, and its training pipeline.

``train_dataloader``, ``val_dataloader`` and ``test_dataloader`` are the splits; label maps, chosen classes and
``reduce_zero_label`` hold. Wrappers (concatenation, repetition, balance of classes) are looked through: how often an
image is drawn is the business of :mod:`.batches`. Where the images of ``test`` are those of ``val``, as in most
configs, they are ``test`` alone: what is scored must not pick the weights.

**Reading such a file executes it**, as mmengine's ``Config.fromfile`` does, its ``custom_imports`` included. So it is
read only where a person named it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from apps.vision.segmentation.data.items import Domain, Item, Labelled
from apps.vision.segmentation.data.mmseg import SegDataset, domain_of_all
from apps.vision.segmentation.data.pictures import ImageFile, LabelFile
from apps.vision.segmentation.mmseg.ops import mmseg_module
from core.command import Finding
from core.errors import InputError, nearest

LOADERS = {"train": "train_dataloader", "valid": "val_dataloader", "test": "test_dataloader"}
"""Of a config, by our splits."""
_PLAIN: Mapping[str, Any] = {"pipeline": [], "lazy_init": False, "serialize_data": False}
"""How datasets are built: listed at once, and nothing run."""
_WRAPPERS = ("ConcatDataset", "RepeatDataset", "ClassBalancedDataset", "MultiImageMixDataset")


def read_config(path: Path) -> Mapping[str, Any]:
    """A config file, executed with everything that it is based on.

    Raises:
        InputError: no such file, mmsegmentation is not installed, or the file fails.
    """
    if not path.is_file():
        raise InputError("there is no such file", where=str(path))
    if path.suffix not in (".py", ".json", ".yaml", ".yml"):
        raise InputError("is no config file of mmsegmentation", where=str(path), mend="name a .py file")
    mmseg_module("mmseg.datasets")  # what the config may import by name
    reader = mmseg_module("mmengine.config").Config
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = reader.fromfile(str(path))
    except InputError:
        raise
    except Exception as error:  # it is executed, and may raise anything
        raise InputError(f"fails as a config ({_said(error)})", where=str(path)) from error
    return {name: config[name] for name in config}


def open_config(path: Path) -> Domain:
    """The datasets of a config as a domain; no image is opened.

    Raises:
        InputError: as for :func:`read_config`; no dataset, one that is not known or cannot be opened, or classes that
            differ. Files that are missing are in the ``faults`` of the domain.
    """
    config = read_config(path)
    datasets = {split: [_built(each, path) for each in _leaves(config, split)] for split in LOADERS}
    datasets = {split: some for split, some in datasets.items() if some}
    if not datasets:
        mend = f"give it {', '.join(LOADERS.values())}"
        raise InputError("the config names no dataset", where=str(path), mend=mend)
    domain = domain_of_all(datasets, str(path))
    splits, faults = dict(domain.splits), []
    if _images(splits.get("valid", ())) == _images(splits.get("test", ())):
        splits.pop("valid", None)
    for split, items in splits.items():
        found = [_fault(item, split) for item in items]
        faults += [fault for fault in found if fault is not None]
        splits[split] = tuple(item for item, fault in zip(items, found, strict=True) if fault is None)
    return replace(domain, name=str(path), splits=splits, faults=tuple(faults))


def training_pipeline(path: Path) -> list[Mapping[str, Any]]:
    """The transforms of the training dataset of a config, as it describes them.

    Raises:
        InputError: as for :func:`read_config`; no training dataset, or several with different transforms.
    """
    pipelines = [each.get("pipeline") or [] for each in _leaves(read_config(path), "train")]
    if not pipelines:
        raise InputError("the config names no dataset to train on", where=str(path), mend=f"give it {LOADERS['train']}")
    if any(pipeline != pipelines[0] for pipeline in pipelines):
        raise InputError("the training datasets have different pipelines", where=str(path), mend="give them one")
    return list(pipelines[0])


def _leaves(config: Mapping[str, Any], split: str) -> Iterator[Mapping[str, Any]]:
    loader = config.get(LOADERS[split])
    if loader:
        yield from _unwrapped(loader.get("dataset"))


def _unwrapped(dataset: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(dataset, list | tuple):
        for each in dataset:
            yield from _unwrapped(each)
    elif dataset and _name(dataset).rpartition(".")[2] in _WRAPPERS:
        yield from _unwrapped(dataset.get("datasets") or dataset.get("dataset"))
    elif dataset:
        yield dataset


def _name(dataset: Mapping[str, Any]) -> str:
    kind = dataset.get("type")
    return kind if isinstance(kind, str) else getattr(kind, "__name__", repr(kind))


def _built(dataset: Mapping[str, Any], path: Path) -> SegDataset:
    registry, name = mmseg_module("mmseg.registry").DATASETS, _name(dataset)
    if isinstance(dataset.get("type"), str) and not _known(registry, name):
        known = sorted(registry.module_dict)
        mend = f"{nearest(name, known)} (what is not mmsegmentation's own needs custom_imports)"
        raise InputError(f"there is no dataset {name!r}", where=str(path), mend=mend)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            built: SegDataset = registry.build({**dataset, **_PLAIN})
    except InputError:
        raise
    except FileNotFoundError as error:
        mend = f"correct data_root and data_prefix in {path}"
        raise InputError(f"there is no such folder for {name}", where=str(error.filename), mend=mend) from error
    except Exception as error:  # of the dataset's own: assertions, types, keys
        raise InputError(f"the dataset {name} cannot be opened ({_said(error)})", where=str(path)) from error
    if not isinstance(built, SegDataset):
        raise InputError(f"{name} is no dataset of images with labels", where=str(path))
    return built


def _known(registry: Any, name: str) -> bool:
    try:
        return registry.get(name) is not None
    except Exception:  # it tries to import what looks like a path
        return False


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _images(items: tuple[Item, ...]) -> list[str]:
    return [item.image.where for item in items]


def _fault(item: Item, split: str) -> Finding | None:
    """The file that a list of the dataset names and that is not there."""
    pictures = {"image": item.image, **({"label": item.label} if isinstance(item, Labelled) else {})}
    for what, picture in pictures.items():
        if isinstance(picture, ImageFile | LabelFile) and not picture.path.is_file():
            return Finding(
                severity="error",
                kind="missing",
                what=f"there is no such {what}",
                where=picture.where,
                split=split,
                mend="correct the config, or the list of the dataset",
            )
    return None
