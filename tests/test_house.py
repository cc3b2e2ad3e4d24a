"""The laws of the house: what a wheel holds, who may import what, and that the checks of these laws can fail."""

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import core
from apps import cli

ROOT = Path(core.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SITE_PACKAGES = sysconfig.get_path("purelib")
BLOCK_ROOMS = [
    *("errors", "auxiliary", "clock", "sequence", "initialisation", "construction", "kernels", "optim"),
    *("attention", "norm", "feedforward", "convolution", "layout"),
]


def command(*words, **options):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# ------------------------------------------------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT)
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_core_and_apps_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    version = PROJECT["project"]["version"]
    assert {name.split("/")[0] for name in names} == {"core", "apps", f"manyformer-{version}.dist-info"}
    assert {"core/py.typed", "apps/py.typed"} <= set(names)
    assert any(name.endswith("licenses/NOTICE") for name in names)
    shipped = {name for name in names if name.split("/")[0] in ("core", "apps")}
    tracked = command("git", "-C", ROOT, "ls-files", "core", "apps").split() if (ROOT / ".git").exists() else []
    assert set(tracked) - shipped == set()
    strange = [name for name in shipped if not name.endswith((".py", "py.typed", ".html", ".md"))]
    assert strange == [], "say here what other kinds of files the packages hold"
    assert not any("__pycache__" in name or "/tests/" in name for name in names)


def test_the_wheel_works_from_outside_the_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "unpacked")
    (tmp_path / "elsewhere").mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'unpacked')!r})\n"
        "import apps.cli, core\n"
        "print(apps.cli.__file__); print(core.__file__)\n"
        "sys.exit(apps.cli.main([]))"
    )
    lines = command(sys.executable, "-I", "-c", code, cwd=tmp_path / "elsewhere").splitlines()
    assert all(line.startswith(str(tmp_path / "unpacked")) for line in lines[:2])
    assert any(line.split()[:1] == ["tabular"] for line in lines)


@pytest.mark.slow
def test_the_wheel_installs_into_an_empty_environment(wheel, tmp_path):
    """Its dependencies are those of this environment, by a path file: a plain line there does not carry ours along."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    command(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    (folder,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (folder / "dependencies.pth").write_text(SITE_PACKAGES + "\n")
    script = tmp_path / "env" / "bin" / "manyformer"
    assert "tabular" in command(script, cwd=tmp_path)
    assert command(script, "--version", cwd=tmp_path) == f"manyformer {PROJECT['project']['version']}\n"
    assert "train" in command(script, "tabular", cwd=tmp_path)
    home = command(python, "-c", "import core; print(core.__file__)", cwd=tmp_path)
    assert home.startswith(str(tmp_path / "env"))


# ------------------------------------------------------------------------------------------------------ import laws


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The code without this checkout, to break laws in."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("core", "apps"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint_imports(folder):
    words = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, " ".join(done.stdout.split())


def test_import_laws_hold(copy):
    status, text = lint_imports(copy)
    assert status == 0, text


BREACHES = {
    "core/norm/rogue.py": ("import apps.cli", "core never imports apps BROKEN"),
    "apps/tabular/rogue.py": ("import apps.cli", "nothing imports the command above them BROKEN"),
    "core/attention/rogue.py": ("import core.layout", "lower rooms never import higher ones BROKEN"),
    "core/evaluation/rogue.py": ("import lightning", "only core.training imports Lightning BROKEN"),
    "core/command/rogue.py": ("import pandas", "core imports no domain package BROKEN"),
    "core/optim/rogue.py": ("import scipy.linalg", "the block rooms need torch, numpy and jaxtyping only BROKEN"),
    "core/artefact/rogue.py": ("import yaml", "saved models need torch and safetensors only BROKEN"),
    "apps/rogue.py": ("import pytest", "only core.testing imports the test tools BROKEN"),
    "core/new_room/__init__.py": ("", "lower rooms never import higher ones BROKEN"),
}


def test_each_import_law_can_fail(copy):
    contracts = [contract["name"] for contract in PROJECT["tool"]["importlinter"]["contracts"]]
    assert all(any(line.removesuffix(" BROKEN") in name for _, line in BREACHES.values()) for name in contracts)
    for path, (line, _) in BREACHES.items():
        (copy / path).parent.mkdir(exist_ok=True)
        (copy / path).write_text(f"{line}\n")
    try:
        status, text = lint_imports(copy)
    finally:
        for path in BREACHES:
            (copy / path).unlink()
        (copy / "core" / "new_room").rmdir()
    assert status != 0
    for _, broken in BREACHES.values():
        assert broken in text


@pytest.mark.parametrize(
    "line",
    [
        "nn.MultiheadAttention(8, 2)",
        "nn.LayerNorm(8)",
        "nn.BatchNorm1d(8)",
        "nn.BatchNorm2d(8)",
        "nn.BatchNorm3d(8)",
        "functional.scaled_dot_product_attention(1, 2, 3)",
    ],
)
@pytest.mark.parametrize(("where", "status"), [("apps/tabular/rogue.py", 1), ("core/norm/rogue.py", 0)])
def test_applications_build_on_core_blocks(line, where, status):
    text = f'"""Text."""\n\nfrom torch import nn\nfrom torch.nn import functional\n\nx = {line}, nn, functional\n'
    words = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID251", "--stdin-filename", where, "-"]
    done = subprocess.run(words, cwd=ROOT, input=text, capture_output=True, text=True)
    assert done.returncode == status, done.stdout
    assert ("use" in done.stdout) == bool(status)


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield str(node.module)


def test_no_file_imports_tests_or_pickle():
    """A dependency installs a package named ``tests``; pickle executes what it loads."""
    banned = {"tests", "pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    for room in ("core", "apps"):
        for path in (ROOT / room).rglob("*.py"):
            assert not banned & {name.split(".")[0] for name in imported(path)}, path
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    name = ast.unparse(node.func)
                    assert name not in ("torch.save", "eval", "exec"), path
                    assert name != "torch.load" or "weights_only=True" in ast.unparse(node), path
    for path in (ROOT / "tests").rglob("*.py"):
        assert "tests" not in {name.split(".")[0] for name in imported(path)}, path


IMPORT = """
import importlib, pkgutil, sys
rooms, blocked = sys.argv[1].split(","), set(sys.argv[2].split(","))
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import torch
before = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
for room in rooms:
    package = importlib.import_module(room)
    for module in pkgutil.walk_packages(getattr(package, "__path__", []), room + "."):
        importlib.import_module(module.name)
after = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
assert before[0].equal(after[0]) and before[1:] == after[1:]
assert not torch.cuda.is_initialized()
"""


def import_without(rooms, blocked):
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", IMPORT, ",".join(rooms), ",".join(blocked)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_block_rooms_work_with_torch_alone():
    blocked = ["lightning", "matplotlib", "pandas", "pyarrow", "rich", "safetensors", "scipy", "sklearn"]
    import_without([f"core.{room}" for room in BLOCK_ROOMS], [*blocked, "torchmetrics", "tyro", "pytest", "hypothesis"])


def test_core_imports_without_domain_packages_and_without_effects():
    import_without(["core"], ["pandas", "pyarrow", "torchvision", "torchaudio", "open3d", "mne"])


def test_the_verbs_import_without_their_extras():
    """So that what is missing can be said in one line."""
    for task in cli.TASKS.values():
        folder = ROOT / task.module.replace(".", "/")
        verbs = [f"{task.module}.{verb}" for verb in cli.VERBS if (folder / f"{verb}.py").exists()]
        import_without(["apps.cli", *verbs], task.needs)


# ---------------------------------------------------------------------------------------------- the other documents


def test_version_is_the_same_everywhere():
    version = PROJECT["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_constraints_cover_every_requirement():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 for line in lines)
    assert not any(line.startswith(("nvidia", "cuda")) for line in lines)
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [
        *PROJECT["project"]["dependencies"],
        *(line for name in extras if name not in ("bench", "ray") for line in extras[name]),
    ]
    names = {line.split(">")[0].split("=")[0].split("[")[0].strip().lower() for line in wanted}
    assert names - pinned == {"manyformer"}
