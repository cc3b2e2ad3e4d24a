from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.asr.data.librispeech import read_librispeech
from apps.asr.data.manifest import read_manifest, split_name
from core.command import Finding, from_error
from core.errors import InputError


def _only(faults):
    (fault,) = faults
    return fault.kind, fault.line


def test_reads_columns_under_any_of_their_names_and_ignores_the_rest(record, manifest):
    for name in ("a.wav", "audio/b.wav"):
        record(name)
    for header in (
        "path,text,utt_id,speaker,split,age",
        "FILE,Sentence,id,client_id,Split,x",
        "AUDIO_FILEPATH,TRANSCRIPT,ID,speaker,split,y",
    ):
        read = read_manifest(manifest(header, "a.wav, HELLO  YOU ,u1,ann,dev,7", 'b.wav,"one, two",u2,,train,8'))
        (first, one), (second, two) = read.rows
        assert (first, one.key, one.text, one.speaker, one.line) == ("valid", "u1", "HELLO YOU", "ann", 2)
        assert (second, two.key, two.text, two.speaker, two.line) == ("train", "u2", "one, two", None, 3)
        assert one.path.name == "a.wav"
        assert two.path.parent.name == "audio"
        assert not read.faults


def test_tabs_keep_quotation_marks_and_rows_without_a_split_have_none(record, manifest):
    record("a.wav")
    ((split, row),) = read_manifest(
        manifest("PATH\tDURATION\tTRANSCRIPT", 'a.wav\t1.0\t"no" she said', name="m.tsv")
    ).rows
    assert split is None
    assert row.text == '"no" she said'
    assert row.key == "a.wav"
    assert row.declared == 1.0
    assert row.stop is None


def test_parts_of_a_recording_in_samples_and_in_seconds(record, manifest):
    record("a.wav", rate=8000)
    read = read_manifest(manifest("path,text,start,stop", "a.wav,x,0,2000", "a.wav,y,2000,", "a.wav,z,,"))
    assert [(u.start, u.stop) for _, u in read.rows] == [(0, 2000), (2000, None), (0, None)]
    assert len({u.key for _, u in read.rows}) == 3
    lines = [
        {"audio_filepath": "a.wav", "duration": 1.0, "text": "whole"},
        {"audio_filepath": "a.wav", "duration": 0.99, "text": "whole, rounded"},
        {"audio_filepath": "a.wav", "duration": 0.25, "offset": 0.5, "text": "part", "speaker": 7},
        {"audio_filepath": "a.wav", "duration": 0.5, "offset": 0.5, "text": "to the end"},
        {"audio_filepath": "a.wav", "duration": 0.3, "text": "beginning"},
    ]
    read = read_manifest(manifest(*map(json.dumps, lines), name="m.jsonl"))
    assert [(u.start, u.stop) for _, u in read.rows] == [(0, None), (0, None), (4000, 6000), (4000, None), (0, 2400)]
    assert read.rows[2][1].speaker == "7"


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("a.wav,", "no-text"),
        ("a.wav,  ", "no-text"),
        (",hello", "no-path"),
        ("gone.wav,hello", "missing-file"),
        ("x" * 5000 + ".wav,hello", "missing-file"),
        ("../a.wav,hello", "escape"),
        ("sub/../../a.wav,hello", "escape"),
        ("sub,hello", "folder"),
        ("a.wav,hello,there", "fields"),
        ("a.wav", "fields"),
        ("a.wav,caf\ufffd", "encoding"),
        ("a.wav,be\x07ll", "encoding"),
    ],
)
def test_a_bad_row_is_told_with_its_line_and_the_rest_is_read(record, manifest, tmp_path, row, kind):
    record("a.wav")
    (tmp_path / "sub").mkdir()
    read = read_manifest(manifest("path,text", "a.wav,fine", row, "a.wav,fine"))
    assert _only(read.faults) == (kind, 3)
    assert [u.line for _, u in read.rows] == [2, 4]


@pytest.mark.parametrize("bounds", ["5,5", "9,4", "-1,5", "a,5", "0.5,5", "nan,", "inf,", "1e400,", "0,0"])
def test_bounds_that_hold_nothing_are_told(record, manifest, bounds):
    record("a.wav")
    assert _only(read_manifest(manifest("path,text,start,stop", f"a.wav,x,{bounds}")).faults) == ("segment", 2)


def test_splits_nobody_knows_are_told(record, manifest):
    record("a.wav")
    read = read_manifest(manifest("path,text,split", "a.wav,x,trian", "a.wav,x,test-other"))
    assert _only(read.faults) == ("split", 2)
    assert "did you mean 'train'?" in str(read.faults[0])
    assert read.rows[0][0] == "test"
    assert split_name("validation") == split_name("DEV_other") == "valid"


@pytest.mark.parametrize("line", ["{", "[1]", "3", '"a"', '{"audio_filepath": 3}', "[" * 100_000])
def test_json_lines_that_are_no_rows_are_told(record, manifest, line):
    record("a.wav")
    good = json.dumps({"audio_filepath": "a.wav", "text": "x"})
    read = read_manifest(manifest(good, line, name="m.json"))
    assert [fault.line for fault in read.faults] == [2]
    assert len(read.rows) == 1


@pytest.mark.parametrize("duration", ["NaN", "-1", "true", '"long"', "1e400", "[1]"])
def test_json_durations_that_are_no_numbers_are_told(record, manifest, duration):
    record("a.wav")
    line = f'{{"audio_filepath": "a.wav", "text": "x", "duration": {duration}}}'
    assert _only(read_manifest(manifest(line, name="m.jsonl")).faults) == ("segment", 1)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_marks_and_line_ends_of_windows_make_no_difference(record, manifest, encoding, end):
    record("a.wav")
    ((_, row),) = read_manifest(manifest("path,text", "a.wav,né", "", encoding=encoding, end=end)).rows
    assert (row.text, row.line) == ("né", 2)
    line = json.dumps({"audio_filepath": "a.wav", "text": "a\u2028b"}, ensure_ascii=False)
    ((_, row),) = read_manifest(manifest(line, name="m.jsonl", encoding=encoding, end=end)).rows
    assert row.text == "a b"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "empty"),
        (["", "  "], "empty"),
        (["path,text"], "no rows"),
        (["path;text", "a.wav;x"], "separated by ';'"),
        (["path\ttext", "a.wav\tx"], "name the file .tsv"),
        (["wav,text", "a.wav,x"], "no column 'path'"),
        (["path,words", "a.wav,x"], "no column 'text'"),
        (["path,text,text", "a.wav,x,y"], "occur twice"),
        (["path,text", "a.wav,x\0y"], "zero byte"),
        (["path,text", 'a.wav,"' + "x" * 200_000], "not well-formed"),
    ],
)
def test_a_manifest_of_which_nothing_can_be_read_is_refused_in_one_line(manifest, lines, told):
    with pytest.raises(InputError, match=r"manifest\.csv") as caught:
        read_manifest(manifest(*lines))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_encodings_folders_and_absent_files_are_named(manifest, tmp_path):
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        with pytest.raises(InputError, match="UTF-16 or UTF-32; save it as UTF-8"):
            read_manifest(manifest("path,text", encoding=encoding))
    with pytest.raises(InputError, match="line 2: the text is not UTF-8"):
        read_manifest(manifest("path,text", "a.wav,né", encoding="latin-1"))
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(InputError, match=r"d\.csv: a folder where a file is needed"):
        read_manifest(tmp_path / "d.csv")
    with pytest.raises(InputError, match="no such file"):
        read_manifest(tmp_path / "gone.csv")
    with pytest.raises(InputError, match="not a manifest by its name"):
        read_manifest(tmp_path / "gone.txt")
    with pytest.raises(InputError, match="a JSON list"):
        read_manifest(manifest("[", "]", name="m.json"))


def test_absolute_paths_may_lead_anywhere_and_texts_may_be_unknown(record, manifest):
    path = record("elsewhere/a.wav")
    ((_, row),) = read_manifest(manifest("path", str(path), name="sub/m.csv"), texts=False).rows
    assert row.path == path
    assert row.text is None


def test_the_layout_of_librispeech(record, manifest):
    for split in ("train-clean-5", "dev-clean-2"):
        record(f"L/{split}/19/198/19-198-0001.flac", 0.1)
    listing = ("19-198-0001 HELLO THERE", "19-198-0002 NO SUCH FILE", "19-198-0001", "../../x ESCAPES")
    for split in ("train-clean-5", "dev-clean-2"):
        manifest(*listing, name=f"L/{split}/19/198/19-198.trans.txt")
    read = read_librispeech(manifest("x", name="L/README").parent)
    assert [(split, u.key, u.text, u.speaker, u.line) for split, u in read.rows] == [
        ("valid", "19-198-0001", "HELLO THERE", "19", 1),
        ("train", "19-198-0001", "HELLO THERE", "19", 1),
    ]
    assert [(fault.kind, fault.line) for fault in read.faults] == 2 * [
        ("missing-file", 2),
        ("no-text", 3),
        ("escape", 4),
    ]
    alone = read_librispeech(Path(read.path) / "dev-clean-2")
    assert [split for split, _ in alone.rows] == ["valid"]
    with pytest.raises(InputError, match=r"no \*\.trans\.txt file below"):
        read_librispeech(Path(read.path) / "dev-clean-2/19/198/nothing")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(max_size=60).map(lambda text: b"path,text,start\n" + text.encode("utf-8", "replace")),
    ),
    st.sampled_from([".csv", ".tsv", ".jsonl"]),
)
def test_any_bytes_give_rows_findings_or_one_line(tmp_path, content, suffix):
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes(content)
    faults = _faults(path)
    assert faults  # there are no recordings here
    assert all("\n" not in str(fault) and str(path) in str(fault) for fault in faults)


def _faults(path: Path) -> list[Finding]:
    try:
        return list(read_manifest(path).faults)
    except InputError as error:
        return [from_error(error)]
