"""One file to one frame: CSV, TSV (plain or gzip) and Parquet, with every fault named by file and line.

Text files are read as text, whole: which columns are numbers is a question for the schema, and a file must not
answer it differently from its neighbour (``01`` next to ``1A`` is text, ``01`` alone would be a number). Cells are
stripped of surrounding blanks; the markers of a missing value are those of ``pandas.read_csv``.

pandas and pyarrow are imported here and nowhere else, so that one line names the extra to install when they are absent.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import itertools
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

MAX_CELLS = 50_000_000
"""Rows times columns beyond which a file is refused unless the caller allows more."""

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")

MISSING = frozenset(
    {"", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "-NaN", "-nan", "#N/A", "#N/A N/A", "#NA"}
    | {"-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN"}
)
"""Cells of a text file that mean "not known"."""

_CHUNK = 16_384  # rows that live as Python strings at any one time
_MAX_BYTES_PER_CELL = 64  # bounds what a compressed file may unfold to, at MAX_CELLS


def pandas() -> ModuleType:
    """The pandas module.

    Raises:
        InputError: pandas is not installed.
    """
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise _absent("pandas") from error


def pyarrow() -> ModuleType:
    """The pyarrow module, with ``parquet`` and ``compute`` loaded.

    Raises:
        InputError: pyarrow is not installed.
    """
    try:
        module = importlib.import_module("pyarrow")
        importlib.import_module("pyarrow.compute")
        importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise _absent("pyarrow") from error
    return module


def _absent(name: str) -> InputError:
    return InputError(f"reading tables needs {name}, which is not installed", mend='pip install "manyformer[tabular]"')


def read_table(path: str | Path, *, max_cells: int = MAX_CELLS, max_columns: int | None = None) -> pd.DataFrame:
    """Read one table file.

    Args:
        path: a file ending in .csv, .csv.gz, .tsv, .tsv.gz or .parquet. Text is UTF-8 with or without a byte-order
            mark, comma or tab separated, first line the column names.
        max_cells: rows times columns above which the file is refused.
        max_columns: columns above which it is refused, before its rows are looked at.

    Returns:
        A frame of (rows, columns). Columns of a text file hold text or a missing value, numbers included; columns of a
        Parquet file keep their types.

    Raises:
        InputError: anything wrong with the file, naming the file and, for text, the line.
    """
    path = Path(path)
    suffix = table_suffix(path)
    if suffix is None:
        raise InputError("not a table file by its name", where=str(path), mend=f"use one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError("no such file", where=str(path))
    if suffix == ".parquet":
        return _read_parquet(path, max_cells, max_columns)
    delimiter = "\t" if suffix.startswith(".tsv") else ","
    return _read_text(path, _decode(_content(path, max_cells), path), delimiter, max_cells, max_columns)


def table_suffix(path: Path) -> str | None:
    """The table suffix that ``path`` ends in, or None.

    >>> table_suffix(Path("a/train.csv.gz"))
    '.csv.gz'
    """
    name = path.name.lower()
    return next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(suffix)), None)


def _content(path: Path, max_cells: int) -> bytes:
    """The file's bytes, unfolded when compressed; bounded, so that a small hostile file cannot fill the memory."""
    limit = max_cells * _MAX_BYTES_PER_CELL
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
            content: bytes = stream.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot be read ({error})", where=str(path), mend="write the file again") from error
    if len(content) > limit:
        raise InputError(f"holds more than {limit:,} bytes", where=str(path), mend="take a sample of the rows")
    return content


def _decode(content: bytes, path: Path) -> str:
    if not content.strip():
        raise InputError("the file is empty", where=str(path))
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError("the text is UTF-16", where=str(path), mend="save it as UTF-8")
    if b"\x00" in content:
        line = content.count(b"\n", 0, content.index(b"\x00")) + 1
        raise InputError("a zero byte: not a text file", where=f"{path}, line {line}", mend="save it as UTF-8 text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = f"0x{content[error.start]:02x}"
        mend = "save it as UTF-8, for example: iconv -f WINDOWS-1252 -t UTF-8"
        raise InputError(
            f"byte {error.start} ({byte}) is not UTF-8", where=f"{path}, line {line}", mend=mend
        ) from error


def _read_text(path: Path, text: str, delimiter: str, max_cells: int, max_columns: int | None) -> pd.DataFrame:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = _checked_rows(reader, path, max_cells)
    names = _header(next(rows), delimiter, path)
    _check_width(len(names), max_columns, path)
    arrow = pyarrow()
    chunks = []
    while chunk := list(itertools.islice(rows, _CHUNK)):
        columns = [_text_column(cells, arrow) for cells in zip(*chunk, strict=True)]
        chunks.append(arrow.table(columns, names=names))
    if not chunks:
        raise InputError("only a header, no rows", where=str(path))
    frame = arrow.concat_tables(chunks).to_pandas()
    return frame  # type: ignore[no-any-return]


def _checked_rows(reader: Any, path: Path, max_cells: int) -> Iterator[list[str]]:
    """Header and rows of equal width; blank lines are skipped, as spreadsheets leave them at the end."""
    width, cells, end = 0, 0, 0
    try:
        for row in reader:
            start, end = end + 1, reader.line_num
            if not row:
                continue
            width = width or len(row)
            if len(row) != width:
                raise InputError(
                    f"{len(row)} fields where the header has {width}",
                    where=f"{path}, line {start}",
                    mend="quote fields that hold the delimiter or a line break",
                )
            cells += width
            if cells > max_cells:
                raise InputError(f"more than {max_cells:,} cells", where=str(path), mend="take a sample of the rows")
            yield row
    except csv.Error as error:
        if "field limit" in str(error):
            what = f"a cell of more than {csv.field_size_limit():,} characters"
            mend = "check the quotes from that line on, or leave columns of long texts out"
            raise InputError(what, where=f"{path}, line {end + 1}", mend=mend) from error
        mend = "check the quotes from that line on"
        raise InputError(f"not well-formed ({error})", where=f"{path}, line {end + 1}", mend=mend) from error


def _header(row: list[str], delimiter: str, path: Path) -> list[str]:
    names = [name.strip() for name in row]
    where = f"{path}, line 1"
    if len(names) == 1:
        other = next((d for d in ";\t|," if d != delimiter and d in names[0]), None)
        if other is not None:
            mend = "name the file .tsv" if other == "\t" else "save it comma separated"
            raise InputError(f"one column only: the fields seem to be separated by {other!r}", where=where, mend=mend)
    if "" in names:
        raise InputError(f"column {names.index('') + 1} has no name", where=where, mend="name every column")
    check_distinct(names, where)
    return names


def check_distinct(names: list[str], where: str | None) -> None:
    """Refuse column names that occur twice.

    Raises:
        InputError: naming the repeated columns.
    """
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        listed = ", ".join(repr(name) for name in repeated[:5])
        raise InputError(f"column names occur twice: {listed}", where=where, mend="give every column its own name")


def _check_width(columns: int, most: int | None, path: Path) -> None:
    if most is not None and columns > most:
        mend = "keep fewer columns, or raise encoding.max_features (time and memory grow with its square)"
        raise InputError(f"{columns:,} columns, more than {most:,}", where=str(path), mend=mend)


def _text_column(cells: tuple[str, ...], arrow: ModuleType) -> Any:
    compute = arrow.compute
    column = compute.utf8_trim_whitespace(arrow.array(cells, type=arrow.large_string()))
    missing = compute.is_in(column, value_set=arrow.array(sorted(MISSING), type=arrow.large_string()))
    return compute.if_else(missing, arrow.scalar(None, type=arrow.large_string()), column)


def _read_parquet(path: Path, max_cells: int, max_columns: int | None) -> pd.DataFrame:
    arrow = pyarrow()
    try:
        with arrow.parquet.ParquetFile(path) as file:
            rows, names = file.metadata.num_rows, [str(name) for name in file.schema_arrow.names]
            _check_width(len(names), max_columns, path)
            if rows * len(names) > max_cells:
                raise InputError(f"more than {max_cells:,} cells", where=str(path), mend="take a sample of the rows")
            check_distinct(names, str(path))
            frame = file.read().to_pandas(ignore_metadata=True)
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"not a Parquet file we can read ({error})", where=str(path)) from error
    if not len(frame):
        raise InputError("no rows", where=str(path))
    return frame  # type: ignore[no-any-return]
