"""Packages as their authors have them: written by ``ebsc plugins new``, the tutorial's, and the examples.

They are installed by pip, beside ours, pass their own tests and are used in a run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ebsc_core.plugins.kinds import REQUIRED
from ebsc_core.plugins.registry import Registry
from ebsc_core.plugins.scaffold import KINDS, write_package

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "plugins"
TUTORIAL = ROOT / "docs" / "plugins" / "tutorial.md"
NEW = {kind.section: f"my-{kind.section}" for kind in REQUIRED}
SMALL = ["--limit", "60", "--epochs", "1", "--batch-size", "30", "--precision", "fp32", "--device", "cpu"]
QUICK = ["--set", "refine.steps=5", "--set", "objective.hidden=16", "--set", "objective.width=8"]
OFFLINE = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]

pytestmark = pytest.mark.slow


def call(*command: str | Path, path: Path | None = None, cwd: Path | None = None) -> str:
    """What a command printed; ``path`` goes before everything that Python imports."""
    known = [str(path or ""), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, known)), "COLUMNS": "250"}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tutorial_files() -> dict[str, str]:
    """The files the tutorial shows in full, by the path in the first line of their blocks."""
    blocks = re.findall(r"^```python\n# (\S+)\n(.*?)^```", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    return dict(blocks)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Sources: a new package of each kind, the tutorial's, and the examples."""
    folder, registry = tmp_path_factory.mktemp("packages"), Registry()
    found = {s: write_package(s, name, folder / s, registry) for s, name in NEW.items()}
    found["tutorial"] = write_package("objective", "wmse", folder / "tutorial", registry)
    for file, text in tutorial_files().items():
        (found["tutorial"] / file).write_text(text)
    for example in ("ebsc-lrsc", "ebsc-leiden"):
        found[example] = shutil.copytree(EXAMPLES / example, folder / example)
    return found


@pytest.fixture(scope="module")
def site(packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder all of them are installed into: an environment of its own would need its own torch."""
    target = tmp_path_factory.mktemp("site")
    call("pip", "install", *OFFLINE, "--target", target, *packages.values())
    return target


def test_each_passes_its_own_tests(packages: dict[str, Path], site: Path) -> None:
    """In one process, since importing torch for each would take most of the time."""
    tests = [test for folder in packages.values() for test in (folder / "tests").glob("test_*.py")]
    assert len(tests) == len(packages)
    folder = packages["data"].parent
    (folder / "pytest.ini").write_text("[pytest]\n")  # none of ours, nor of theirs
    options = ["--import-mode=importlib", "-q", "-rA", "--rootdir", folder, "-c", folder / "pytest.ini"]
    out = call("pytest", *options, "-p", "no:cacheprovider", *tests, path=site, cwd=folder)
    for test in tests:
        assert f"PASSED {test.relative_to(folder)}::test_contract[" in out


@pytest.mark.parametrize("name", ["new", "tutorial", "examples"])
def test_a_run_uses_them(name: str, site: Path, tmp_path: Path) -> None:
    parts = {
        "new": NEW,
        "tutorial": {"objective": "wmse", "backbone": "identity"},
        "examples": {"coefficients": "lrsc", "clusterer": "leiden", "backbone": "identity"},
    }[name]
    chosen = [word for section, part in parts.items() for word in (f"--{section}", part)]
    ours = [] if "data" in parts else ["--data", a_few_images(tmp_path), "--n-clusters", "3"]
    options = [] if "coefficients" in parts else ["--set", "coefficients.hidden=8"]
    call("ebsc_cli", "run", *chosen, *ours, *SMALL, *QUICK, *options, "--out", tmp_path / "run", path=site)
    record = tomllib.loads((tmp_path / "run" / "run.toml").read_text())
    theirs = [section for section, part in parts.items() if part != "identity"]
    for section in theirs:
        assert record["provenance"]["parts"][section].startswith("ebsc-"), section
    assert len((tmp_path / "run" / "assignments.csv").read_text().splitlines()) == 61


def a_few_images(folder: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images)
    return folder / "images.npz"


def test_the_wheel_holds_the_templates_and_no_example(tmp_path: Path) -> None:
    source = tmp_path / "source"  # building leaves files in the tree
    for part in ("ebsc_core", "plugins", "cli", "examples"):
        shutil.copytree(
            ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, source)
    call("pip", "wheel", *OFFLINE, "--wheel-dir", tmp_path, source)
    (wheel,) = tmp_path.glob("ebsc-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    templates = ROOT / "ebsc_core/plugins/templates"
    wanted = {path.relative_to(ROOT).as_posix() for path in templates.rglob("*.template")}
    assert {f"{templates.relative_to(ROOT).as_posix()}/{kind}/part.py.template" for kind in KINDS} <= wanted
    assert wanted <= names
    assert not [name for name in names if "leiden" in name or "lrsc" in name]
