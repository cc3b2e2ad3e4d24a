from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.tabular.prediction.data import files
from apps.tabular.prediction.data.files import read_table
from core.errors import InputError


def write(folder: Path, content: bytes | str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_reads_text_with_quotes_blanks_and_missing_values(tmp_path: Path) -> None:
    path = write(tmp_path, '\ufeffa , b,c\n1,"x, ""y""\nz", NA \n\n01,, 2.50\n')
    frame = read_table(path)
    assert list(frame.columns) == ["a", "b", "c"]
    assert frame.astype(object).where(frame.notna(), None).to_numpy().tolist() == [
        ["1", 'x, "y"\nz', None],
        ["01", None, "2.50"],
    ]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.parquet"])
def test_every_format_gives_the_same_cells(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"a": ["1", "2", None], "b": ["x", "y", "z"]})
    path = tmp_path / name
    if name.endswith("parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if "tsv" in name else ",")
    pd.testing.assert_frame_equal(read_table(path), frame, check_dtype=False)


def test_more_rows_than_one_chunk(tmp_path: Path) -> None:
    n = 2 * files._CHUNK + 7
    frame = read_table(write(tmp_path, "a,b\n" + "".join(f"{i},{i % 3}\n" for i in range(n))))
    assert frame["a"].astype(int).tolist() == list(range(n))


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ("", "t.csv", "empty"),
        (" \n\n", "t.csv", "empty"),
        ("a,b\n", "t.csv", "only a header"),
        ("a,b\n1,2\n1,2,3\n", "line 3", "3 fields where the header has 2"),
        ("a,b\n1,2\n\n1\n", "line 4", "1 fields where the header has 2"),
        ('a,b\n1,"x\ny"\n1\n', "line 4", "1 fields where the header has 2"),
        ("a;b\n1;2\n", "line 1", "separated by ';'"),
        ("a\tb\n1\t2\n", "line 1", "name the file .tsv"),
        ("a,b,a\n1,2,3\n", "line 1", "'a'"),
        ("a,,b\n1,2,3\n", "line 1", "column 2 has no name"),
        ('a,b\n1,2\n3,"4\n5,6\n', "line 3", "not well-formed"),
        (b"a,b\n1,2\ncaf\xe9,3\n", "line 3", "byte 11 (0xe9)"),
        (b"a,b\n1,\x00\n", "line 2", "zero byte"),
        ("a,b\n1,2\n".encode("utf-16"), "t.csv", "UTF-16"),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, content: str | bytes, where: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        read_table(write(tmp_path, content))
    assert str(tmp_path / "t.csv") in str(caught.value)
    assert (caught.value.where or "").endswith(where)
    assert what in str(caught.value)


def test_refuses_absent_foreign_and_broken_files(tmp_path: Path) -> None:
    for path, what in (
        (tmp_path / "none.csv", "no such file"),
        (write(tmp_path, "x", "t.xlsx"), "one of .csv"),
        (write(tmp_path, "not gzip", "t.csv.gz"), "cannot be read"),
        (write(tmp_path, gzip.compress(b"a,b\n1,2\n" * 99)[:-9], "cut.csv.gz"), "cannot be read"),
        (write(tmp_path, "PAR1 nonsense", "t.parquet"), "not a Parquet file"),
    ):
        with pytest.raises(InputError, match=what):
            read_table(path)


def test_bounds(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n" + "1,2\n" * 50)
    assert len(read_table(path, max_cells=102)) == 50
    with pytest.raises(InputError, match="more than 101 cells"):
        read_table(path, max_cells=101)
    bomb = write(tmp_path, gzip.compress(b"a,b\n" + b" " * 100_000), "bomb.csv.gz")
    with pytest.raises(InputError, match="bytes"):
        read_table(bomb, max_cells=100)
    parquet = tmp_path / "t.parquet"
    pd.DataFrame({"a": range(60), "b": range(60)}).to_parquet(parquet)
    with pytest.raises(InputError, match="cells"):
        read_table(parquet, max_cells=100)


def test_ten_thousand_columns(tmp_path: Path) -> None:
    header = ",".join(f"c{i}" for i in range(10_000))
    frame = read_table(write(tmp_path, header + "\n" + (",".join("7" * 10_000) + "\n") * 3))
    assert frame.shape == (3, 10_000)


def test_without_pandas_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(InputError, match=r'pip install "manyformer\[tabular\]"'):
        files.pandas()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.text('ab1,;"\n\r\t é\x00', max_size=60).map(str.encode),
        st.binary(max_size=80).map(gzip.compress),
    ),
    name=st.sampled_from(["t.csv", "t.csv.gz", "t.tsv", "t.parquet"]),
)
def test_any_bytes_give_a_frame_or_an_input_error(tmp_path: Path, content: bytes, name: str) -> None:
    path = write(tmp_path, content, name)
    try:
        frame = read_table(path)
    except InputError:
        return
    assert len(frame) >= 1
    assert len(set(frame.columns)) == len(frame.columns) >= 1
