import hashlib
import json
import os
import subprocess

import pytest
import torch
from safetensors.torch import load_file

import core.artefact.store as store
from core.artefact import load, save
from core.errors import InputError

KIND = {"kind": "test", "version": 3}


def tree(number, size=100):
    return {"number": number, "weights": {"w": torch.full((size,), float(number))}}


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(folder, **options):
    """The line that loading ends in, which must be one line that begins with a path in the folder."""
    with pytest.raises(InputError) as caught:
        load(folder, **{**KIND, **options})
    line = str(caught.value)
    assert line.startswith(str(folder))
    assert "\n" not in line
    return line


def rewrite(folder, change, *, seal=True):
    """Alters the JSON, as an attacker does who knows the format."""
    path = folder / "artefact.json"
    document = json.loads(path.read_text())
    document.pop("sha256")
    change(document)
    path.write_text(json.dumps({"sha256": store._seal(document) if seal else "0" * 64, **document}))


def swap_tensors(folder, blob):
    """Puts another tensor file in place, with a digest that fits."""
    digest = hashlib.sha256(blob).hexdigest()
    name = f"artefact-{digest[:16]}.safetensors"
    (folder / name).write_bytes(blob)
    rewrite(folder, lambda document: document.update(tensors={"file": name, "bytes": len(blob), "sha256": digest}))


# ----------------------------------------------------------------------------------------------- what is on disk


def test_two_files_that_other_programs_can_read(tmp_path):
    save(tmp_path / "deep" / "er", tree(7), **KIND)
    tensor_name, json_name = files(tmp_path / "deep" / "er")
    assert json_name == "artefact.json"
    blob = (tmp_path / "deep" / "er" / tensor_name).read_bytes()
    digest = hashlib.sha256(blob).hexdigest()
    assert tensor_name == f"artefact-{digest[:16]}.safetensors"
    assert load_file(tmp_path / "deep" / "er" / tensor_name)["weights/w"].tolist() == [7.0] * 100
    text = (tmp_path / "deep" / "er" / json_name).read_text()
    document = json.loads(text)
    assert document["kind"] == "test"
    assert document["version"] == 3
    assert document["written_by"].startswith("manyformer ")
    assert document["tensors"] == {"file": tensor_name, "bytes": len(blob), "sha256": digest}
    assert max(map(len, text.splitlines())) <= 120


def test_text_in_other_scripts_stays_readable(tmp_path):
    save(tmp_path, {"列": ["größe"]}, **KIND)
    assert "größe" in (tmp_path / "artefact.json").read_text(encoding="utf-8")


def test_the_same_tree_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / name, tree(1), **KIND)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    for name in files(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_saving_again_replaces_and_sweeps_its_own_leftovers_only(tmp_path):
    foreign = ["artefact-notes.safetensors", "other-0123456789abcdef.safetensors", "notes.txt", ".other.json.tmp"]
    for name in foreign:
        (tmp_path / name).write_text("keep")
    for name in (".artefact.json.tmp", ".artefact-0123456789abcdef.safetensors.tmp"):
        (tmp_path / name).write_text("left by a kill")
    for number in (1, 2, 2, 1):
        save(tmp_path, tree(number), **KIND)
        assert load(tmp_path, **KIND)["number"] == number
        ours = set(files(tmp_path)) - set(foreign)
        assert len(ours) == 2, ours


def test_stems_share_a_folder(tmp_path):
    save(tmp_path, tree(1), **KIND)
    save(tmp_path, tree(2), stem="artefact-0", **KIND)
    save(tmp_path, tree(3), **KIND)
    assert load(tmp_path, **KIND)["number"] == 3
    assert load(tmp_path, stem="artefact-0", **KIND)["weights"]["w"][0] == 2
    for stem in ("", "../x", "a/b", ".hidden", "a b"):
        with pytest.raises(ValueError, match="stem"):
            save(tmp_path, 1, stem=stem, **KIND)


# ----------------------------------------------------------------------------------------------- what is refused


def test_missing(tmp_path):
    assert "there is no saved model here" in refused(tmp_path)
    assert "there is no saved model here" in refused(tmp_path / "nowhere")
    save(tmp_path, tree(1), **KIND)
    next(tmp_path.glob("*.safetensors")).unlink()
    assert "missing" in refused(tmp_path)


def test_foreign_kind_and_versions(tmp_path):
    save(tmp_path, tree(1), **KIND)
    assert "holds a 'test', not a 'tabular-predictor'" in refused(tmp_path, kind="tabular-predictor")
    newer = refused(tmp_path, version=2)
    assert "is version 3" in newer
    assert "update manyformer" in newer
    assert "train again" in refused(tmp_path, version=4)
    rewrite(tmp_path, lambda document: document.update(schema=99, tree={"$new": 1}))
    assert "schema 99" in refused(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        '{"format": "gguf"}',
        '{"a": 1}',
        "\x00\xff",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"format": "manyformer-artefact", "format": "manyformer-artefact"}',
        '{"format": "manyformer-artefact", "schema": NaN}',
        '{"format": "manyformer-artefact", "schema": 1e999}',
        '{"format": "manyformer-artefact", "schema": ' + "9" * 5000 + "}",
        '{"format": "manyformer-artefact", "schema": true}',
    ],
    ids=lambda text: text[:30],
)
def test_json_that_is_not_ours(text, tmp_path):
    (tmp_path / "artefact.json").write_bytes(text.encode("latin-1"))
    refused(tmp_path)


@pytest.mark.parametrize("field", ["schema", "kind", "version", "written_by", "tensors", "tree", "sha256"])
@pytest.mark.parametrize("value", [None, [], "delete"], ids=str)
def test_a_head_with_a_wrong_field(field, value, tmp_path):
    save(tmp_path, tree(1), **KIND)
    path = tmp_path / "artefact.json"
    document = json.loads(path.read_text())
    document[field] = value
    if value == "delete":
        del document[field]
    path.write_text(json.dumps(document))
    refused(tmp_path)


def test_an_altered_tree(tmp_path):
    save(tmp_path, tree(1), **KIND)
    rewrite(tmp_path, lambda document: document["tree"].update(number=2), seal=False)
    assert "altered" in refused(tmp_path)
    rewrite(tmp_path, lambda document: document["tree"].update(number=1e308), seal=False)
    path = tmp_path / "artefact.json"
    path.write_text(path.read_text().replace("1e+308", "1e+309"))
    assert "altered" in refused(tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 60, -1])
def test_truncated_tensors(keep, tmp_path):
    save(tmp_path, tree(1), **KIND)
    path = next(tmp_path.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:keep])
    assert "truncated" in refused(tmp_path)


def test_any_altered_byte_of_the_tensors(tmp_path):
    save(tmp_path, tree(1, size=2), **KIND)
    path = next(tmp_path.glob("*.safetensors"))
    blob = path.read_bytes()
    for i in range(len(blob)):
        path.write_bytes(blob[:i] + bytes([blob[i] ^ 1]) + blob[i + 1 :])
        assert "altered" in refused(tmp_path)
    path.write_bytes(blob + b"\0")
    assert "more than" in refused(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"F32"', b'"I32"'),
        (b'"F32"', b'"F64"'),
        (b'"F32"', b'"XYZ"'),
        (b'"F32"', b'"C64"'),
        (b"[2]", b"[3]"),
        (b"[0,8]", b"[0,9]"),
        (b"[0,8]", b"[4,8]"),
        (b'"weights/w"', b'"weights/v"'),
        (b"{", b"["),
    ],
)
def test_a_tensor_header_that_lies_with_a_digest_that_fits(old, new, tmp_path):
    save(tmp_path, tree(1, size=2), **KIND)
    blob = next(tmp_path.glob("*.safetensors")).read_bytes()
    assert old in blob
    swap_tensors(tmp_path, blob.replace(old, new, 1))
    refused(tmp_path)


@pytest.mark.parametrize("blob", [b"", b"\xff" * 8, (2**40).to_bytes(8, "little") + b"{}", b"\x80\x04N."], ids=repr)
def test_a_tensor_file_that_is_none(blob, tmp_path):
    save(tmp_path, tree(1), **KIND)
    swap_tensors(tmp_path, blob)
    assert "tensor file" in refused(tmp_path)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/../secret", "secret", "", None, 7, "artefact-0.safetensors"]
)
def test_a_json_that_names_another_file(name, tmp_path):
    save(tmp_path / "model", tree(1), **KIND)
    (tmp_path / "secret").write_text("secret")
    rewrite(tmp_path / "model", lambda document: document["tensors"].update(file=name))
    assert "not its own" in refused(tmp_path / "model")


@pytest.mark.parametrize("digest", ["../" * 22, "x" * 64, "", None, 3])
def test_a_digest_that_is_none(digest, tmp_path):
    save(tmp_path, tree(1), **KIND)
    rewrite(
        tmp_path,
        lambda document: document["tensors"].update(sha256=digest, file=f"artefact-{str(digest)[:16]}.safetensors"),
    )
    assert "not its own" in refused(tmp_path)


def test_links_pipes_and_folders_are_not_followed(tmp_path):
    save(tmp_path / "real", tree(1), **KIND)
    tensor_name, json_name = files(tmp_path / "real")
    for name, other in ((tensor_name, json_name), (json_name, tensor_name)):
        for make in (
            lambda path: path.symlink_to(tmp_path / "real" / path.name),
            lambda path: path.mkdir(),
            lambda path: os.mkfifo(path),
        ):
            folder = tmp_path / "made"
            folder.mkdir()
            (folder / other).write_bytes((tmp_path / "real" / other).read_bytes())
            make(folder / name)
            assert "cannot be read" in refused(folder)
            subprocess.run(["rm", "-r", folder], check=True)


def test_a_json_of_unbounded_size(tmp_path):
    with open(tmp_path / "artefact.json", "wb") as file:
        file.truncate(2**40)
    assert "more than" in refused(tmp_path)


def test_loading_runs_nothing(tmp_path):
    """The saved text of a pickle or a call stays text."""
    hostile = {"__reduce__": ["os.system", "touch owned"], "__class__": "subprocess.Popen", "!!python/object": 1}
    save(tmp_path, hostile, **KIND)
    assert load(tmp_path, **KIND) == hostile
