from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
import tyro

from core.command import parse_arguments, parse_config
from core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Optim:
    """The optimiser."""

    lr: float = 1e-3
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise InputError(f"must be positive, got {self.lr}", where="optim.lr")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A config."""

    width: int = 32
    """Width of a token."""
    kind: Literal["none", "feat"] = "none"
    bias: bool = True
    max_rows: int | None = None
    optim: Optim = field(default_factory=Optim)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Trains something."""

    data: str
    """Where the data are."""
    out: str = "runs/new"
    max_minutes: float | None = None


PRESETS = {"base": Config, "tiny": lambda: Config(width=8, optim=Optim(lr=0.1, betas=(0.5, 0.5)))}


def parse(*argv):
    return parse_config(Config, PRESETS, argv, arguments=Train, prog="manyformer test train")


def test_layers_preset_then_file_then_fields(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("width: 16\noptim: {lr: 1e-2}\nkind: feat\n")
    assert parse("--data", "d").config == Config()
    assert parse("--data", "d").preset == "base"
    parsed = parse("--data", "d", "--width", "9", "--preset", "tiny", f"--config={file}", "--no-bias")
    expected = Config(width=9, kind="feat", bias=False, optim=Optim(lr=0.01, betas=(0.5, 0.5)))
    assert parsed.config == expected
    assert parsed.preset == "tiny"
    assert parsed.arguments == Train(data="d")


def test_types_of_options():
    parsed = parse("--data=d", "--max-rows", "5", "--optim.betas", "0", "1", "--max_minutes", "0.5", "--out", "-")
    assert parsed.config.max_rows == 5
    assert parsed.config.optim.betas == (0.0, 1.0)
    assert parsed.arguments == Train(data="d", max_minutes=0.5, out="-")
    assert parse("--data", "d", "--max-rows", "None").config.max_rows is None
    assert parse("--data", "d", "--optim.lr", "1e-4").config.optim.lr == 1e-4


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), ["--data"]),
        (("--data",), ["--data"]),
        (("--data", "d", "--widht", "3"), ["--widht: is not an option; did you mean '--width'?"]),
        (("--dta", "d"), ["--dta: is not an option; did you mean '--data'?"]),
        (("--data", "d", "--optim.l", "3"), ["--optim.l: is not an option; did you mean '--optim.lr'?"]),
        (("--data", "d", "--lr", "3"), ["--lr: is not an option"]),
        (("--data", "d", "--qqqqqq=3"), ["--qqqqqq: is not an option; manyformer test train --help lists"]),
        (("--data", "d", "--width", "x"), ["--width", "'x'"]),
        (("--data", "d", "--width", "1.5"), ["--width", "'1.5'"]),
        (("--data", "d", "--width", "9" * 300 + "x"), ["--width"]),
        (("--data", "d", "--kind", "fet"), ["--kind", "'fet'", "'feat'"]),
        (("--data", "d", "word"), ["word"]),
        (("--data", "d", "--optim.lr", "-3"), ["optim.lr: must be positive, got -3.0"]),
        (("--preset", "tinny"), ["--preset: 'tinny' is not a preset; did you mean 'tiny'?"]),
        (("--preset",), ["--preset"]),
        (("--config",), ["--config"]),
        (("--config", "nowhere.yaml"), ["nowhere.yaml: cannot be read"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
@pytest.mark.parametrize("columns", ["40", "200"])
def test_wrong_lines_are_refused_in_one_line(argv, words, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(InputError) as caught:
        parse(*argv)
    line = str(caught.value)
    assert all(word in line for word in words), line
    assert not set(line) & set("\n│╭╰─"), line
    assert capsys.readouterr() == ("", "")


def test_what_a_record_refuses_keeps_its_line():
    with pytest.raises(InputError) as caught:
        parse("--data", "d", "--optim.lr", "-3")
    assert str(caught.value) == "optim.lr: must be positive, got -3.0"


def test_help_shows_arguments_fields_and_defaults_of_the_preset(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--preset", "tiny", "--help")
    assert not caught.value.code
    text = capsys.readouterr().out
    for words in (
        "manyformer test train",
        "Trains something.",
        "--data",
        "Where the data are.",
        "--optim.lr",
        "--debug",
    ):
        assert words in text
    assert "Peak learning rate. (default: 0.1)" in text
    assert "{base,tiny}" in text


def test_positional_arguments_of_other_verbs():
    @dataclass(frozen=True, kw_only=True)
    class Predict:
        """Predicts."""

        run: tyro.conf.Positional[str]
        inputs: tyro.conf.Positional[tuple[str, ...]]
        json: bool = False

    parsed = parse_arguments(Predict, ["r", "a", "b", "--json"], prog="predict")
    assert (parsed.run, parsed.inputs, parsed.json) == ("r", ("a", "b"), True)
    with pytest.raises(InputError, match=r"--jsn: is not an option; did you mean '--json'\?"):
        parse_arguments(Predict, ["r", "--jsn"], prog="predict")
    with pytest.raises(InputError, match="RUN"):
        parse_arguments(Predict, [], prog="predict")


def test_a_group_without_a_name_gives_its_fields_to_the_verb(capsys):
    @dataclass(frozen=True, kw_only=True)
    class Predict:
        """Predicts."""

        run: tyro.conf.Positional[str]
        how: Annotated[Optim, tyro.conf.arg(name="")] = Optim()

    parsed = parse_arguments(Predict, ["r", "--lr", "0.5"], prog="predict")
    assert (parsed.run, parsed.how) == ("r", Optim(lr=0.5))
    with pytest.raises(InputError, match=r"^optim\.lr: must be positive, got -3\.0$"):
        parse_arguments(Predict, ["r", "--lr", "-3"], prog="predict")
    for wrong in ("--how", "--how.lr"):
        with pytest.raises(InputError, match=rf"^{wrong}: is not an option"):
            parse_arguments(Predict, ["r", wrong, "1"], prog="predict")
    with pytest.raises(InputError, match=r"^--l: is not an option; did you mean '--lr'\?"):
        parse_arguments(Predict, ["r", "--l", "1"], prog="predict")
    with pytest.raises(SystemExit):
        parse_arguments(Predict, ["--help"], prog="predict")
    assert "Peak learning rate." in capsys.readouterr().out
