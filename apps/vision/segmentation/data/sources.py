"""From what a person names to an :class:`.items.Adaptation`: a source with labels, a target to adapt to.

Source and target are named apart: two folders (or configs of mmsegmentation), two domains of one folder, or
``synthetic:streets``. Where the target has class names of its own, its labels are carried over by name, and what the
source does not have is not scored. A source without ``valid`` gives 5 % of the groups (or images) of its ``train``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from apps.vision.segmentation.data.classes import Classes
from apps.vision.segmentation.data.folders import Layout, open_folder
from apps.vision.segmentation.data.items import SPLITS, Adaptation, Domain, Item, Labelled, held_out
from apps.vision.segmentation.data.pictures import LabelFile
from apps.vision.segmentation.data.streets import NAME, street_domain
from core.command import Finding
from core.errors import InputError

DEFAULT_DATA = NAME
VALID_SHARE = 0.05
"""Of a source's training groups, what is watched where there is no ``valid``."""
_DAY, _DUSK = "day", "dusk"


@dataclass(frozen=True, kw_only=True)
class Source:
    """The arguments that say which data."""

    data: str = DEFAULT_DATA
    """Labelled source: a folder (splits.csv, images/ and labels/, or a public set), a config file of mmsegmentation
    (.py, which is executed), or synthetic:streets."""
    source_domain: str | None = None
    """Which domain of it, where it has several: a value of the column "domain", a condition, day or dusk."""
    target: str | None = None
    """Folder or config file of the target; the same as the source unless given."""
    target_domain: str | None = None
    """Which domain of that."""
    layout: Layout = "auto"
    """What lies in the source's folder."""
    target_layout: Layout = "auto"
    """What lies in the target's folder."""

    @property
    def name(self) -> str:
        """Both, as one reads them."""
        source = ":".join(filter(None, (self.data, self.source_domain)))
        target = ":".join(filter(None, (self.target or self.data, self.target_domain)))
        return source if source == target else f"{source} -> {target}"


def open_domains(source: Source) -> tuple[Domain, Domain]:
    """Source and target as they are named; no image is opened, and faults are kept in them.

    Raises:
        InputError: a folder, layout or domain that is not there; no target is named.
    """
    data, target = source.data, source.target or source.data
    unnamed = source.target is None and source.source_domain is None and source.target_domain is None
    if unnamed and not data.startswith("synthetic:"):
        mend = "give --target, or --source-domain and --target-domain"
        raise InputError("there is a source and no target to adapt to", where=data, mend=mend)
    of_source = open_domain(data, source.source_domain or (_DAY if data == NAME else None), source.layout)
    layout = source.target_layout if source.target else source.layout
    domain = source.target_domain or (_DUSK if target == NAME else None)
    return of_source, open_domain(target, domain, layout, of_source.classes)


def open_domain(data: str, domain: str | None, layout: Layout, classes: Classes | None = None) -> Domain:
    """One domain as it is named; no image is opened, and faults are kept in it.

    Args:
        data: a folder, a config of mmsegmentation, or ``synthetic:streets``.
        domain: which one of it.
        layout: what lies in the folder.
        classes: what its labels are where it does not say so itself.

    Raises:
        InputError: a folder, layout or domain that is not there.
    """
    if data.startswith("synthetic:"):
        if data != NAME:
            raise InputError(f"there is no world {data!r}", mend=f"did you mean {NAME!r}?")
        return street_domain(domain or _DAY)
    opened = open_folder(Path(data), layout, domain, classes)
    return replace(opened, name=f"{data}:{domain}") if domain else opened


def load_adaptation(source: Source | None = None) -> Adaptation:
    """As :func:`open_domains`, put together for training and scoring.

    Raises:
        InputError: also for any fault of either domain; ``check`` lists all of them.

    >>> data = load_adaptation()
    >>> len(data.source["train"]), len(data.target), sorted(data.scored)
    (192, 192, ['test', 'valid'])
    """
    named = source or Source()
    own, other = open_domains(named)
    refuse_faults([*own.faults, *other.faults])
    return paired_domains(own, other, name=named.name)


def load_supervised(source: Source) -> Adaptation:
    """The target alone, as source and target, with the labels of its training images, in the source's classes.

    This is what adaptation is measured against, and the only way to those labels.

    Raises:
        InputError: also where the target's training images have no labels.
    """
    own, other = open_domains(source)
    refuse_faults([*own.faults, *other.faults])
    if own.classes is None:
        raise InputError("nothing says which classes there are", where=own.name, mend="write classes.json there")
    if not other.labelled("train"):
        mend = "training on the target's labels needs them; adapt, or train on the source alone"
        raise InputError("there is no labelled image in 'train'", where=other.name, mend=mend)
    splits = {split: items for split in SPLITS if (items := carried(other, split, own.classes))}
    labelled = replace(other, classes=own.classes, splits=splits)
    return paired_domains(labelled, labelled, name=f"{source.name}, labels of the target")


def paired_domains(source: Domain, target: Domain, *, name: str) -> Adaptation:
    """Both in the classes of the source; target labels are in ``scored`` only, and never those of its ``train``.

    Raises:
        InputError: no classes or labelled images in the source, no image in the target, or no class in common.
    """
    classes = source.classes
    if classes is None:
        raise InputError("nothing says which classes there are", where=source.name, mend="write classes.json there")
    splits = {split: items for split in SPLITS if (items := source.labelled(split))}
    if "train" not in splits:
        raise InputError("there is no labelled image in 'train'", where=source.name, mend="the source needs labels")
    if "valid" not in splits:
        train, valid = held_out(splits["train"], _unit, VALID_SHARE)
        if not valid:
            what = "one image (or one sequence) cannot be divided into train and valid"
            raise InputError(what, where=source.name, mend="give a split 'valid'")
        splits = {"train": train, "valid": valid, **splits, **{"train": train}}
    views = target.views("train")
    if not views:
        mend = "adaptation trains on the target's images; they need no labels"
        raise InputError("there is no target image in 'train'", where=target.name, mend=mend)
    scored = {split: carried(target, split, classes) for split in SPLITS[1:]}
    return Adaptation(
        name=name,
        classes=classes,
        source=splits,
        target=views,
        scored={split: items for split, items in scored.items() if items},
        synthetic=source.synthetic and target.synthetic,
    )


def carried(domain: Domain, split: str, classes: Classes) -> tuple[Labelled, ...]:
    """Labelled items of a domain's split, in other classes of partly the same names.

    Raises:
        InputError: no name in common.
    """
    own = domain.classes
    items = domain.labelled(split)
    if not items or own is None or own.names == classes.names:
        return items
    train_ids = {index: classes.index(name) for index, name in enumerate(own.names) if name in classes.names}
    if not train_ids:
        what = f"no class in common: {', '.join(own.names[:5])} … and {', '.join(classes.names[:5])} …"
        raise InputError(what, where=domain.name, mend="name the same classes in both classes.json")
    return tuple(
        replace(item, label=LabelFile(item.label.path, item.label.labels.translated(train_ids)))
        for item in items
        if isinstance(item.label, LabelFile)
    )


def _unit(item: Item) -> str:
    return item.key if item.group is None else item.group


def refuse_faults(faults: Sequence[Finding]) -> None:
    """Stop at the first of them.

    Raises:
        InputError: there is one.
    """
    if faults:
        first = faults[0]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        advice = "`check` lists everything"
        mend = f"{first.mend}; {advice}" if first.mend else advice
        raise InputError(f"{first.what}{more}", where=first.place, mend=mend)
