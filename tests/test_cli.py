import ast
import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from apps import cli

ROOT = Path(cli.__file__).parents[1]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A task of one verb, which says what it is given."""
    package = tmp_path / "fake_task"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "train.py").write_text("def main(argv):\n    print('train', argv)\n    return 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.TASKS, "fake", cli.Task("fake_task", "fakes", ("json",), "a fake"))
    yield "fake"
    for name in [name for name in sys.modules if name.split(".")[0] == "fake_task"]:
        del sys.modules[name]


def test_without_arguments_the_tasks_are_listed(capsys):
    assert cli.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, task in cli.TASKS.items():
        assert sum(name in line and task.line in line for line in lines) == 1
    assert cli.main(["--help"]) == 0


def test_every_task_exists():
    for name, task in cli.TASKS.items():
        assert importlib.util.find_spec(task.module), name
        assert (ROOT / task.module.replace(".", "/")).is_dir()


def test_a_verb_gets_the_rest_of_the_line_and_gives_the_status(fake, capsys):
    assert cli.main([fake, "train", "--data", "x", "--help"]) == 7
    assert capsys.readouterr().out == "train ['--data', 'x', '--help']\n"


def test_the_debug_word_reaches_the_verb(fake, tmp_path, capsys):
    (tmp_path / "fake_task" / "train.py").write_text(
        "from core.command import run\n"
        "from core.errors import InputError\n"
        "def fail(argv):\n    raise InputError(f'wrong {argv}')\n"
        "def main(argv):\n    return run(fail, argv)\n"
    )
    assert cli.main([fake, "train", "a", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("error: wrong ['a']\n")


def test_only_verbs_that_exist_are_listed(fake, capsys):
    assert cli.main([fake]) == 0
    out = capsys.readouterr().out
    assert "train" in out
    assert "predict" not in out


def test_studies_are_listed_and_list_the_tasks(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    for name, line in cli.STUDIES.items():
        assert f"  {name}" in out
        assert line in out
        assert cli.main([name]) == 0
        listed = capsys.readouterr().out
        assert f"manyformer {name} TASK" in listed
        assert all(task in listed for task in cli.TASKS)


@pytest.mark.parametrize("name", cli.STUDIES)
def test_a_study_gets_the_application_and_the_rest_of_the_line(name, fake, tmp_path, monkeypatch, capsys):
    import core.study

    (tmp_path / "fake_task" / "application.py").write_text("APPLICATION = 'an application'\n")
    monkeypatch.setattr(core.study, name, lambda *given: cli.say(str(given)))
    assert cli.main([name, fake, "--out", "x", "--help"]) == 0
    assert capsys.readouterr().out == "('an application', ['--out', 'x', '--help'])\n"


@pytest.mark.parametrize("name", cli.TASKS)
def test_each_task_has_an_application_of_its_name(name):
    application = importlib.import_module(f"{cli.TASKS[name].module}.application").APPLICATION
    assert application.name == name


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["compare", "tabluar"], "error: manyformer compare: 'tabluar' is not a task; did you mean 'tabular'?\n"),
        (["comapre"], "error: manyformer: 'comapre' is not a task; did you mean 'compare'?\n"),
        (["tabluar"], "error: manyformer: 'tabluar' is not a task; did you mean 'tabular'?\n"),
        (["--tabular"], "error: manyformer: '--tabular' is not a task; did you mean 'tabular'?\n"),
        (["fake", "trian"], "error: manyformer fake: 'trian' is not a verb; did you mean 'train'?\n"),
        (
            ["fake", "export"],
            "error: manyformer fake: 'export' is not a verb of this task; segmentation can; known here: train\n",
        ),
    ],
    ids=" ".join,
)
def test_unknown_names_offer_the_nearest(argv, line, fake, capsys):
    assert cli.main(argv) == 2
    assert capsys.readouterr() == ("", line)


def test_a_missing_extra_is_named(fake, monkeypatch, capsys):
    monkeypatch.setitem(cli.TASKS, "fake", cli.Task("fake_task", "fakes", ("no_such_module",), "a fake"))
    for argv in ([fake, "train"], ["compare", fake], ["tune", fake]):
        assert cli.main(argv) == 2
        assert capsys.readouterr().err == 'error: no_such_module is not installed; pip install "manyformer[fakes]"\n'


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"manyformer {importlib.metadata.version('manyformer')}\n"


def test_listing_imports_no_task():
    code = "import sys; from apps.cli import main; main([]); sys.exit('apps.tabular.prediction' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", cli.TASKS)
def test_each_verb_runs_as_a_module_too(name):
    """`python -m <module>.<verb>` needs a `main` and the guard at the end."""
    for verb in cli.VERBS:
        path = ROOT / cli.TASKS[name].module.replace(".", "/") / f"{verb}.py"
        if path.exists():
            body = ast.parse(path.read_text(encoding="utf-8")).body
            assert any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in body), path
            guard = ast.unparse(body[-1])
            assert guard.startswith("if __name__ == '__main__':"), path
            assert guard.endswith("(main())"), path
