"""Files that are either the old ones or the new ones, whatever happens in between.

A file is written under a temporary name in its own folder, flushed to the disk, and renamed over the old one, which
POSIX makes a single step; then the folder is flushed, so that the new name itself outlives a power cut. The flush has
no off switch: without it a rename can reach the disk before the data, and what survives a power cut is an empty file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import InputError


def replace_file(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Writes ``data`` (text as UTF-8) to ``path`` in one step; its folder is made when missing. One writer at a time.

    Raises:
        InputError: the disk is full, the folder read-only, …; the old file is untouched and nothing else remains.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     replace_file(f"{folder}/runs/note.txt", "done")
    ...     print(Path(f"{folder}/runs/note.txt").read_text())
    done
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_then_rename(path, data.encode("utf-8") if isinstance(data, str) else data)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_then_rename(path: Path, data: bytes) -> None:
    """The step without the flush of the folder, raising OSError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        # Taking away what a killed run left, and refusing to follow a link that someone put there.
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with open(descriptor, "wb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        remove_quietly(temporary)
        raise


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """As :func:`replace_file` for what writes its file itself: an empty file beside ``path`` that takes its place.

    Its name ends as ``path`` does, which tells many writers the format. Where the block raises, it goes and the old
    one stays.

    Raises:
        InputError: the folder cannot be written to.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(f"{folder}/runs/note.txt") as temporary:
    ...         _ = temporary.write_text("done")
    ...     print(temporary.name, Path(f"{folder}/runs/note.txt").read_text())
    .note.tmp.txt done
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        # What cannot be written is known before anything is computed.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield temporary
        _take_place(temporary, path)
    except BaseException:
        remove_quietly(temporary)
        raise


def _take_place(temporary: Path, path: Path) -> None:
    try:
        descriptor = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def sync_folder(folder: Path) -> None:
    """Makes the names in ``folder`` last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_plain_file(path: Path, *, limit: int | None = None) -> bytearray:
    """The bytes of a regular file of at most ``limit`` bytes; a link, a pipe or a device raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        if limit is not None and status.st_size > limit:
            raise InputError(f"{status.st_size} bytes are more than the {limit} expected", where=str(path))
        data = bytearray(status.st_size)
        view, filled = memoryview(data), 0
        while filled < len(data) and (count := file.readinto(view[filled:])):
            filled += count
    view.release()
    del data[filled:]
    return data


def remove_quietly(path: Path) -> None:
    """Removes a file that no longer matters; one that cannot be removed now is removed by the next save."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def cannot_write(path: Path, error: OSError) -> InputError:
    """One line for an OSError of writing.

    >>> import errno, os
    >>> print(cannot_write(Path("runs/a"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    runs/a: cannot be written (No space left on device); free some space or choose another folder
    """
    reason = error.strerror or str(error)
    return InputError(f"cannot be written ({reason})", where=str(path), mend="free some space or choose another folder")
