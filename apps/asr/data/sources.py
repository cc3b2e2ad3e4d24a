"""Where corpora come from: a folder, one manifest, or the sentences we speak ourselves.

A folder holds one of these, looked for in this order::

    manifest.csv | .tsv | .jsonl | .json      one manifest, its rows in splits by a column ``split``, or in none
    train.*, valid.*, test.*                  a manifest for each split; also ``dev.*``, ``train_manifest.*``, …
    {split}/{speaker}/{chapter}/*.trans.txt   the layout of LibriSpeech

Rows without splits are divided 70/15/15: whole speakers stay together when there are three or more, whole texts
otherwise. A corpus with ``train`` and ``test`` gives 15 % of ``train`` to ``valid`` in the same way.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from apps.asr.data.finding import SpeechFinding
from apps.asr.data.librispeech import LISTS, read_librispeech
from apps.asr.data.manifest import SUFFIXES, Manifest, Utterance, read_manifest, split_name
from apps.asr.data.synthetic import MARK, cached_corpus
from core.command import Finding, from_error
from core.errors import InputError, nearest

DEFAULT_DATA = "synthetic:sentences"
SPLITS = ("train", "valid", "test")
SHARES = {"train": 0.70, "valid": 0.15, "test": 0.15}
"""How a corpus without splits of its own is divided."""

OnBad = Literal["refuse", "skip"]
"""What to do with utterances that cannot be used: stop, or leave them out and count them."""

_FEWEST_SPEAKERS = 3


@dataclass(frozen=True)
class Corpus:
    """Utterances by split.

    Attributes:
        splits: name -> utterances, in the order of the manifest; names are among :data:`SPLITS`.
        name: as it was asked for.
        synthetic: nobody ever said this.
        digests: name -> digest of a split's keys, texts, speakers, parts and file sizes; not of where it lies.
        faults: rows that were left out.
    """

    splits: Mapping[str, tuple[Utterance, ...]]
    name: str
    synthetic: bool
    digests: Mapping[str, str]
    faults: tuple[Finding, ...] = ()

    def __str__(self) -> str:
        counts = ", ".join(f"{len(utterances)} {name}" for name, utterances in self.splits.items())
        return f"{self.name}{' (synthetic speech)' if self.synthetic else ''}: {counts}"


def load_corpus(
    data: str | Path = DEFAULT_DATA, *, seed: int = 0, cache: Path | None = None, on_bad: OnBad = "refuse"
) -> Corpus:
    """The utterances of a source by split; no audio is decoded.

    Args:
        data: a folder, a manifest, or ``synthetic:sentences``, which is spoken once and kept in the cache.
        seed: of the division, where we make it. The synthetic sentences are the same for every seed.
        cache: where to keep synthetic speech; see :func:`.synthetic.cache_folder`.
        on_bad: whether rows that cannot be used are refused, or left out and told in ``faults``.

    Raises:
        InputError: anything wrong with the source, naming file and line.
    """
    name = str(data)
    if name.startswith("synthetic:"):
        if name != DEFAULT_DATA:
            raise InputError(f"no such corpus {name!r}", mend=nearest(name, [DEFAULT_DATA]))
        folder = cached_corpus(cache)
        return _corpus(_manifests(folder), folder, name, seed, on_bad, synthetic=True)
    path = Path(data)
    root = path if path.is_dir() else path.parent
    return _corpus(_manifests(path), root, name, seed, on_bad, synthetic=_marked(root))


def _marked(folder: Path) -> bool:
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(mark, dict) and mark.get("synthetic") is True


def _manifests(path: Path) -> list[Manifest]:
    """What can be read at a path, with the splits that file names say already filled in."""
    if not path.is_dir():
        return [read_manifest(path)]
    single = [found for suffix in SUFFIXES if (found := path / f"manifest{suffix}").exists()]
    if len(single) > 1:
        raise InputError(f"both {single[0].name} and {single[1].name}", where=str(path), mend="keep one of them")
    if single:
        return [read_manifest(single[0])]
    files = _split_files(path)
    if files:
        return [_placed(read_manifest(file), name) for name, file in files.items()]
    if next(path.rglob(LISTS), None) is not None:
        return [read_librispeech(path)]
    mend = "put a manifest.csv with the columns path and text there, or give the manifest itself"
    raise InputError("no manifest and no transcript in this folder", where=str(path), mend=mend)


def _split_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = split_name(path.stem) if path.suffix.lower() in SUFFIXES and not path.is_dir() else None
        if name is None:
            continue
        if name in files:
            what = f"both {files[name].name} and {path.name} are {name}"
            raise InputError(what, where=str(folder), mend="keep one of them")
        files[name] = path
    return {name: files[name] for name in SPLITS if name in files}


def _placed(manifest: Manifest, split: str) -> Manifest:
    return replace(manifest, rows=tuple((split, utterance) for _, utterance in manifest.rows))


def _corpus(
    manifests: Sequence[Manifest], root: Path, name: str, seed: int, on_bad: OnBad, *, synthetic: bool
) -> Corpus:
    faults: list[Finding] = [fault for manifest in manifests for fault in manifest.faults]
    rows, repeated = _without_repeats([row for manifest in manifests for row in manifest.rows])
    faults += repeated
    splits = _split(rows, seed, faults, str(manifests[0].path))
    if faults and on_bad == "refuse":
        refuse(faults)
    if not rows:
        raise InputError(
            f"no row can be used ({len(faults)} faults)", where=name, mend=f"the first: {faults[0].error()}"
        )
    digests = {split: _digest(utterances, root) for split, utterances in splits.items()}
    return Corpus(splits, name, synthetic, digests, tuple(faults))


def refuse(faults: Sequence[Finding]) -> None:
    """Raise the first of several faults, saying how many there are.

    Raises:
        InputError: always.
    """
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    advice = "or train with on_bad=skip; `check` lists everything"
    mend = f"{first.mend}, {advice}" if first.mend else f"mend it, {advice}"
    raise InputError(f"{first.what}{more}", where=first.place, mend=mend)


Row = tuple[str | None, Utterance]


def _without_repeats(rows: Sequence[Row]) -> tuple[list[Row], list[Finding]]:
    """Rows of distinct keys, no recording with two texts: of those, nobody knows which is right, and all go."""
    said: dict[tuple[Path, int, int | None], set[str | None]] = {}
    for _, utterance in rows:
        said.setdefault(utterance.segment, set()).add(utterance.text)
    kept: list[Row] = []
    faults: list[Finding] = []
    keys: dict[str, Utterance] = {}
    for split, utterance in rows:
        texts = len(said[utterance.segment])
        first = keys.setdefault(utterance.key, utterance)
        if texts > 1:
            what = f"{texts} different texts for this recording"
            faults.append(about(utterance, "two-texts", what, "keep the one that is said", split))
        elif first is utterance:
            kept.append((split, utterance))
        else:
            again = first.segment == utterance.segment
            kind, what = ("duplicate-row", "the same recording") if again else ("duplicate-id", "the same id")
            what = f"{what} {'' if again else f'{utterance.key!r} '}as line {first.line} of {first.manifest}"
            mend = "leave one of them out" if again else "give every row an id of its own"
            faults.append(about(utterance, kind, what, mend, split))
    return kept, faults


def about(
    utterance: Utterance, kind: str, what: str, mend: str | None = None, split: str | None = None
) -> SpeechFinding:
    """An error concerning an utterance."""
    return SpeechFinding(
        severity="error",
        kind=kind,
        what=what,
        split=split,
        mend=mend,
        file=str(utterance.path),
        manifest=utterance.manifest,
        line=utterance.line,
        key=utterance.key,
    )


def _split(rows: Sequence[Row], seed: int, faults: list[Finding], where: str) -> dict[str, tuple[Utterance, ...]]:
    named = [row for row in rows if row[0] is not None]
    if named and len(named) < len(rows):
        faults += [
            about(utterance, "split", "in no split", "write train, valid or test") for s, utterance in rows if s is None
        ]
        rows = named
    splits = {name: tuple(utterance for split, utterance in rows if split == name) for name in SPLITS}
    splits = {name: utterances for name, utterances in splits.items() if utterances}
    if not named:
        splits = {"train": tuple(utterance for _, utterance in rows)} if rows else {}
    if "train" not in splits or "valid" in splits:
        return splits
    shares = {"train": 0.85, "valid": 0.15} if "test" in splits else SHARES
    try:
        parts = {**splits, **divide(splits["train"], shares, seed=seed, where=where)}
    except InputError as error:
        faults.append(from_error(error, "split"))
        return splits
    return {name: parts[name] for name in SPLITS if name in parts}


def divide(
    utterances: Sequence[Utterance], shares: Mapping[str, float], *, seed: int = 0, where: str | None = None
) -> dict[str, tuple[Utterance, ...]]:
    """Divide utterances into parts that share no speaker or, with fewer than three speakers, no text.

    Units (speakers, texts) are laid end to end in an order that depends on their names and the seed alone; one goes to
    the part that its middle falls in. Adding a speaker moves few of the others.

    Raises:
        InputError: fewer units than parts.
    """
    speakers = {utterance.speaker for utterance in utterances}
    by_speaker = None not in speakers and len(speakers) >= max(_FEWEST_SPEAKERS, len(shares))
    unit_of: Callable[[Utterance], str] = (lambda u: u.speaker or "") if by_speaker else (lambda u: same_text(u.text))
    counts: dict[str, int] = {}
    for utterance in utterances:
        counts[unit_of(utterance)] = counts.get(unit_of(utterance), 0) + 1
    if len(counts) < len(shares):
        what = f"{len(counts)} different texts cannot be divided into {', '.join(shares)}"
        raise InputError(what, where=where, mend="give more recordings, or a column split")
    part_of = _laid_out(sorted(counts, key=lambda unit: _hash(f"{seed}\0{unit}")), counts, shares)
    return {name: tuple(u for u in utterances if part_of[unit_of(u)] == name) for name in shares}


def _laid_out(units: Sequence[str], counts: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, str]:
    names, total, done = list(shares), sum(counts.values()), 0
    edges = [sum(list(shares.values())[: place + 1]) for place in range(len(names))]
    part_of: dict[str, str] = {}
    for unit in units:
        middle = (done + counts[unit] / 2) / total
        part_of[unit] = next((name for name, edge in zip(names, edges, strict=True) if middle < edge), names[-1])
        done += counts[unit]
    for name in names:  # few units may leave a part empty: it gets one of the part that has most
        if name not in part_of.values():
            fullest = max(names, key=lambda part: sum(p == part for p in part_of.values()))
            part_of[next(unit for unit in reversed(units) if part_of[unit] == fullest)] = name
    return part_of


def part_of(corpus: Corpus, share: float) -> Corpus:
    """The corpus with a share of its training utterances; which ones depends on their keys alone.

    >>> said = tuple(Utterance(key=f"u{i}", path=Path("x.wav")) for i in range(8))
    >>> corpus = Corpus({"train": said}, "talks", False, {"train": "abc"})
    >>> few, many = (part_of(corpus, share).splits["train"] for share in (0.25, 0.75))
    >>> len(few), len(many), set(few) < set(many)
    (2, 6, True)
    """
    said = corpus.splits["train"]
    kept = {u.key for u in sorted(said, key=lambda u: _hash(u.key))[: max(1, round(share * len(said)))]}
    part = tuple(utterance for utterance in said if utterance.key in kept)
    digest = hashlib.sha256("\0".join([corpus.digests["train"], *sorted(kept)]).encode()).hexdigest()
    return replace(corpus, splits={**corpus.splits, "train": part}, digests={**corpus.digests, "train": digest})


def same_text(text: str | None) -> str:
    """What two transcripts of the same words have in common: case, blanks and punctuation are left out.

    >>> same_text("Good-bye,  Tom!") == same_text("GOOD BYE TOM")
    True
    """
    kept = (character if character.isalnum() or character == "'" else " " for character in (text or "").casefold())
    return " ".join("".join(kept).split())


def _digest(utterances: Iterable[Utterance], root: Path) -> str:
    digest = hashlib.sha256()
    for u in utterances:
        path = os.path.relpath(u.path, root) if u.path.is_relative_to(root) else u.path.name
        row = (u.key, path, u.path.stat().st_size, u.text, u.speaker, u.start, u.stop)
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
