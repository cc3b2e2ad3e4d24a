"""What a run learns from and what it came to, so that the same command can resume it, refuse it, or say it is over.

::

    RUN/data.json       the source, and a digest of each of its splits: other data are refused
    RUN/outcome.json    written last; whether nothing is left to train
    RUN/metrics.jsonl   one record an epoch
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from core.artefact import replace_file
from core.command.directory import RunDirectory
from core.command.output import read_facts, to_json
from core.errors import InputError

S = TypeVar("S")


def claim_data(run: RunDirectory, facts: Mapping[str, Any]) -> None:
    """Writes what the run learns from, or refuses to resume it on something else.

    Args:
        run: begun before this.
        facts: plain data; ``data`` is the source as given on the command line, ``digest`` maps each split to a
            fingerprint of all of it that training reads.

    Raises:
        InputError: the run was begun on data of other digests, or its file is damaged.
    """
    if not run.data.is_file():
        replace_file(run.data, to_json(facts) + "\n")
        return
    known, digests = data_facts(run)["digest"], facts["digest"]
    changed = [name for name in {**known, **digests} if known.get(name) != digests.get(name)]
    if changed:
        what = f"this run was begun on other data (its {changed[0]} split differs)"
        raise InputError(what, where=str(run.path), mend="give the same --data, or another --out")


def data_facts(run: RunDirectory) -> dict[str, Any]:
    """What :func:`claim_data` wrote.

    Raises:
        InputError: the file is missing or damaged.
    """
    facts = read_facts(run.data)
    if not isinstance(facts.get("data"), str) or not isinstance(facts.get("digest"), dict):
        raise InputError("does not say what the run was trained on", where=str(run.data), mend="the file is damaged")
    return facts


def source_from(facts: Mapping[str, Any], kind: Callable[..., S]) -> S:
    """The source that a run was given: what its facts hold of the fields of a dataclass, the rest being defaults.

    >>> @dataclasses.dataclass
    ... class Source:
    ...     data: str = "bundled"
    ...     group: str | None = None
    >>> source_from({"data": "wine.csv", "digest": {}}, Source)
    Source(data='wine.csv', group=None)
    """
    names = [field.name for field in dataclasses.fields(cast(Any, kind))]
    return kind(**{name: facts[name] for name in names if name in facts})


@contextmanager
def discarded_if_refused(run: RunDirectory) -> Iterator[None]:
    """Takes the run back when its input is refused, or Ctrl-C comes, before the first state was saved.

    A folder that nothing came of must not tie the next try to this config.
    """
    try:
        yield
    except (InputError, KeyboardInterrupt):
        if not run.last.exists():
            run.discard()
        raise


def write_outcome(
    run: RunDirectory, facts: Mapping[str, Any], history: Iterable[Mapping[str, Any]], *, complete: bool
) -> None:
    """The history of the run, and what it came to, which comes last.

    Args:
        run: whose model is saved.
        facts: plain data.
        history: one record an epoch.
        complete: nothing is left to train; False for a run that ended for want of minutes.
    """
    replace_file(run.metrics, "".join(to_json(dict(record), lines=False) + "\n" for record in history))
    replace_file(run.outcome, to_json({"complete": complete, **facts}) + "\n")


def is_complete(run: RunDirectory) -> bool:
    """Whether nothing is left to train: a run that ended for want of minutes goes on when it is called again."""
    return run.outcome.is_file() and read_facts(run.outcome).get("complete") is True


def read_history(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``, each of which has an ``epoch`` from 1; none where there is no file.

    Raises:
        InputError: the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [record for record in records if record["epoch"] > 0]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"is no history of a run ({error!r})", where=str(path), mend="the file is damaged") from error
