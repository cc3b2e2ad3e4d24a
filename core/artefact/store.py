"""Saving and loading: one JSON file that a person can read, and one safetensors file beside it.

``<stem>.json`` names the kind, the version, the project version that wrote it, the tensor file with its SHA-256, and
the tree; it carries the SHA-256 of itself. ``<stem>-<16 digits of the digest>.safetensors`` holds the tensors. The
order of writing makes every kill harmless: new tensors under a new name, then the JSON over the old one in a single
step, then the old tensors go.

A digest says that a file is as it was written, not who wrote it: whoever can write the folder can write a valid
artefact. Loading one therefore builds plain values and tensors only, executes nothing, and follows no link.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from core.artefact import disk
from core.artefact.structure import Flattener, Tree, unflatten
from core.errors import InputError

FORMAT = "manyformer-artefact"
SCHEMA = 1
MAX_JSON_BYTES = 64 * 2**20
_HEAD: dict[str, type] = {"schema": int, "kind": str, "version": int, "written_by": str, "tensors": dict}
_LINE = 110
_AGAIN = "copy it again, or train again"


def save(directory: str | os.PathLike[str], tree: Tree, *, kind: str, version: int, stem: str = "artefact") -> None:
    """Saves ``tree`` in ``directory`` (made when missing), replacing what was saved there under the same ``stem``.

    Killed at any moment, the folder holds the complete previous tree or the complete new one. One writer at a time;
    readers need no lock.

    Args:
        directory: the folder.
        tree: nested dict / list / tuple; see :mod:`core.artefact.structure` for leaves and what comes back.
        kind: what is saved, such as ``"tabular-predictor"``; ``load`` refuses another.
        version: the version of the tree's own form, 1 or more.
        stem: the name of the files, where one folder holds several artefacts.

    Raises:
        InputError: the folder cannot be written; the previous version is intact and nothing half-written remains.
        TypeError: a leaf of a type that cannot be saved.
    """
    folder, json_path = _paths(directory, stem)
    flat = Flattener()
    structure = flat.flatten(tree)
    blob = safetensors.torch.save(_own_storage(flat.tensors))
    digest = hashlib.sha256(blob).hexdigest()
    tensor_path = folder / _tensor_name(stem, digest)
    document = {
        "format": FORMAT,
        "schema": SCHEMA,
        "kind": kind,
        "version": version,
        "written_by": f"manyformer {_project_version()}",
        "tensors": {"file": tensor_path.name, "bytes": len(blob), "sha256": digest},
        "tree": structure,
    }
    text = _pretty({"sha256": _seal(document), **document}).encode("utf-8", "surrogatepass")
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"{len(text)} bytes of JSON: keep long lists of numbers in arrays")
    _write(folder, json_path, text, tensor_path, blob)
    _sweep(folder, stem, keep=tensor_path.name)


def load(directory: str | os.PathLike[str], *, kind: str, version: int, stem: str = "artefact") -> Tree:
    """The tree that was saved in ``directory``; tensors are on the CPU, tied ones are one object.

    Raises:
        InputError: missing, not ours, another kind or version, truncated or altered.
    """
    folder, json_path = _paths(directory, stem)
    data = _read_json(json_path)
    while True:
        document = _check_head(_parse(data, json_path), kind, version, json_path)
        tensor_path = folder / _checked_name(document["tensors"], stem, json_path)
        try:
            tensors = _read_tensors(tensor_path, document["tensors"])
            break
        except FileNotFoundError as error:
            # A save between our two reads has moved on: follow it.
            previous, data = data, _read_json(json_path)
            if data == previous:
                raise InputError("the tensors of this artefact are missing", where=str(tensor_path)) from error
    return unflatten(document["tree"], tensors, str(json_path))


@contextmanager
def understood(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Within the block an artefact that is whole as a file is taken apart; if it was made or changed by hand and has
    another form than its reader expects, one line says so.

    Raises:
        InputError: for whatever such a tree makes its reader raise.

    >>> with understood("r"):
    ...     {}["model"]
    Traceback (most recent call last):
    core.errors.InputError: r: the saved model does not fit together (KeyError: 'model'); copy it again, or train again
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}".splitlines()[0]
        what = f"the saved model does not fit together ({reason})"
        raise InputError(what, where=str(directory), mend="copy it again, or train again") from error


def _paths(directory: str | os.PathLike[str], stem: str) -> tuple[Path, Path]:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", stem):
        raise ValueError(f"stem {stem!r}: letters, digits, dot, dash and underscore only")
    folder = Path(directory)
    return folder, folder / f"{stem}.json"


def _tensor_name(stem: str, digest: str) -> str:
    return f"{stem}-{digest[:16]}.safetensors"


def _project_version() -> str:
    try:
        return package_version("manyformer")
    except PackageNotFoundError:  # unpacked, not installed
        return "unknown"


# ---------------------------------------------------------------------------------------------------- writing


def _own_storage(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors of which no two share memory, as safetensors wants them."""
    owned: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        dense = tensor.resolve_conj().resolve_neg().to("cpu").contiguous()
        if dense.untyped_storage().data_ptr() in seen:
            dense = dense.clone()
        seen.add(dense.untyped_storage().data_ptr())
        owned[name] = dense
    return owned


def _write(folder: Path, json_path: Path, text: bytes, tensor_path: Path, blob: bytes) -> None:
    writing = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        already = tensor_path.exists()
        try:
            writing = tensor_path
            disk.write_then_rename(tensor_path, blob)
            # The name of the tensors must be on the disk before the JSON that names them.
            disk.sync_folder(folder)
            writing = json_path
            disk.write_then_rename(json_path, text)
        except BaseException:
            if not already:
                disk.remove_quietly(tensor_path)
            raise
        disk.sync_folder(folder)
    except OSError as error:
        raise disk.cannot_write(writing, error) from error


def _sweep(folder: Path, stem: str, *, keep: str) -> None:
    """Removes older tensors of this stem and what a killed save left."""
    tensors = rf"{re.escape(stem)}-[0-9a-f]{{16}}\.safetensors"
    stale = re.compile(rf"{tensors}|\.{tensors}\.tmp|\.{re.escape(stem)}\.json\.tmp")
    for path in folder.iterdir():
        if path.name != keep and stale.fullmatch(path.name):
            disk.remove_quietly(path)


def _seal(document: dict[str, Any]) -> str:
    text = json.dumps(document, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _pretty(value: Any, indent: str = "") -> str:
    """JSON with everything that fits on one line on one line."""
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if len(flat) + len(indent) <= _LINE or not isinstance(value, dict | list) or not value:
        return flat
    deeper = indent + "  "
    if isinstance(value, dict):
        rows = [f"{json.dumps(key, ensure_ascii=False)}: {_pretty(item, deeper)}" for key, item in value.items()]
    else:
        rows = [_pretty(item, deeper) for item in value]
    start, end = "{}" if isinstance(value, dict) else "[]"
    return f"{start}\n{deeper}" + f",\n{deeper}".join(rows) + f"\n{indent}{end}"


# ---------------------------------------------------------------------------------------------------- reading


def _read_json(path: Path) -> bytes:
    try:
        return bytes(disk.read_plain_file(path, limit=MAX_JSON_BYTES))
    except FileNotFoundError as error:
        raise InputError(
            "there is no saved model here", where=str(path.parent), mend=f"{path.name} is missing"
        ) from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path)) from error


def _parse(data: bytes, path: Path) -> Any:
    try:
        return json.loads(
            data.decode("utf-8", "surrogatepass"), object_pairs_hook=_distinct, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not the JSON of a saved model ({_short(error)})", where=str(path)) from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key stands twice")
    return mapping


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _check_head(document: Any, kind: str, version: int, path: Path) -> dict[str, Any]:
    where = str(path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError("is not a model saved by manyformer", where=where)
    schema = document.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise InputError(
            f"is of schema {schema}, this manyformer reads {SCHEMA}", where=where, mend="update manyformer"
        )
    for name, type_ in _HEAD.items():
        if type(document.get(name)) is not type_:
            raise InputError(f"the field {name!r} is missing or wrong", where=where, mend="the artefact is damaged")
    if document["kind"] != kind:
        raise InputError(f"holds a {document['kind']!r}, not a {kind!r}", where=where)
    if document["version"] != version:
        by = document["written_by"]
        mend = "update manyformer" if document["version"] > version else "train again, or load it with that version"
        what = f"is version {document['version']} (written by {by}), this manyformer reads version {version}"
        raise InputError(what, where=where, mend=mend)
    _check_seal(document, where)
    return document


def _check_seal(document: dict[str, Any], where: str) -> None:
    body = {name: value for name, value in document.items() if name != "sha256"}
    try:
        intact = "tree" in body and document.get("sha256") == _seal(body)
    except (ValueError, RecursionError):  # an overflowing number, endless nesting: nothing that we write
        intact = False
    if not intact:
        raise InputError("was altered after it was saved (its digest differs)", where=where, mend=_AGAIN)


def _checked_name(entry: dict[str, Any], stem: str, path: Path) -> str:
    """The file name, which must be the one that the digest implies: so it can lead nowhere else."""
    digest, name, size = entry.get("sha256"), entry.get("file"), entry.get("bytes")
    good = isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest) and type(size) is int
    if not good or name != _tensor_name(stem, str(digest)):
        raise InputError(f"names a tensor file {name!r} that is not its own", where=str(path))
    return str(name)


def _read_tensors(path: Path, entry: dict[str, Any]) -> dict[str, Tensor]:
    where = str(path)
    try:
        data = disk.read_plain_file(path, limit=entry["bytes"])
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=where) from error
    if len(data) < entry["bytes"]:
        raise InputError(f"is truncated ({len(data)} of {entry['bytes']} bytes)", where=where, mend=_AGAIN)
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise InputError("was altered after it was saved (its digest differs)", where=where, mend=_AGAIN)
    try:
        return safetensors.torch.load(bytes(data))
    # What safetensors and torch raise for a header that lies: of the format, the dtype, the shape.
    except (SafetensorError, KeyError, ValueError, AssertionError, RuntimeError) as error:
        raise InputError(f"is not a tensor file that we write ({_short(error)})", where=where) from error


def _short(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:120]
