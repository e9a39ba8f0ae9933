"""``ebsc plugins new``: what it writes, and what it refuses to."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ebsc_core.plugins import scaffold
from ebsc_core.plugins.installed import installed_entry_points
from ebsc_core.plugins.kinds import Kind
from ebsc_core.plugins.registry import Registry
from ebsc_core.plugins.scaffold import KINDS, LICENSE, UNKNOWN, Author, author, package_files, write_package
from ebsc_core.utils.errors import PackageError

each_kind = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.section)
WORDS = {kind: word for word, kind in KINDS.items()}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry([found for found in installed_entry_points() if found[1].distribution == "ebsc"])


def test_an_objective_takes_at_most_40_lines() -> None:
    """Options and registration included: what somebody writes who has a loss."""
    files = package_files(Kind.OBJECTIVE, "my-loss")
    written = [line for name, text in files.items() if name.startswith("ebsc_") for line in text.splitlines()]
    assert len([line for line in written if line.strip()]) <= 40


@each_kind
def test_the_package_is_written_whole(kind: Kind, tmp_path: Path, registry: Registry) -> None:
    folder = write_package(WORDS[kind], "my-part", tmp_path / "deep" / "mine", registry)
    assert folder == tmp_path / "deep" / "mine"
    assert os.listdir(tmp_path / "deep") == ["mine"]
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == package_files(kind, "my-part").keys()
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["name"] == "ebsc-my-part"
    assert project["project"]["entry-points"]["ebsc"] == {"my-part": "ebsc_my_part"}
    assert project["project"]["license"] == LICENSE
    assert project["project"]["authors"] == [{"name": UNKNOWN.name, "email": UNKNOWN.email}]
    assert all("$" not in path.read_text() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("by", "authors"),
    [
        (Author("Ada Lovelace", "ada@example.org"), [{"name": "Ada Lovelace", "email": "ada@example.org"}]),
        (Author('A "B" \\ Ç', "root@(none)"), [{"name": 'A "B" \\ Ç'}]),
    ],
)
def test_its_author_is_as_git_knows_him(
    by: Author, authors: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_COUNT", "2")
    for number, (name, value) in enumerate((("user.name", by.name), ("user.email", by.email))):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", name)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    assert author() == by
    project = tomllib.loads(package_files(Kind.OBJECTIVE, "my-loss", author())["pyproject.toml"])
    assert project["project"]["authors"] == authors


def test_without_git_the_author_is_a_placeholder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert author() == UNKNOWN


@each_kind
def test_what_is_written_is_tidy(kind: Kind, tmp_path: Path, registry: Registry) -> None:
    folder = write_package(WORDS[kind], "my-part", tmp_path / "mine", registry)
    ruff = [sys.executable, "-m", "ruff"]
    rules = ["--select", "E,F,I,UP,B,SIM,C4,RUF,PT,D1", "--ignore", "D107"]
    for command in (["check", *rules], ["format", "--check"]):
        # From its own folder: from ours, ruff would sort imports as if ebsc_core were part of the package.
        done = subprocess.run(
            [*ruff, *command, "--isolated"], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


@each_kind
def test_its_readme_names_a_page_of_ours(kind: Kind) -> None:
    text = package_files(kind, "my-part")["README.md"]
    page = next(word for word in text.replace("`", " ").split() if word.startswith("docs/plugins/"))
    assert (Path(__file__).parents[3] / page).is_file()


@pytest.mark.parametrize(
    ("section", "name", "said"),
    [
        ("objectve", "mine", "there is no kind of component 'objectve': did you mean objective?"),
        ("loss", "mine", "choose one of data, backbone, objective, coefficients, clusterer, observer"),
        ("objective", "", "cannot be called ''"),
        ("objective", "My_Loss", "names are lower-case letters"),
        ("objective", "../mine", "cannot be called '../mine'"),
        ("objective", "3d", "start with a letter"),
        ("objective", "mine-", "cannot be called 'mine-'"),
        ("objective", "mine\n", "cannot be called 'mine\\n'"),
        ("objective", "simclr", "objective 'simclr' is there already"),
        ("objective", "sim-clr", "objective 'simclr' is there already"),
        ("clusterer", "k-means", "clusterer 'KMeans' is there already"),
        ("objective", "core", "a package 'ebsc_core' is installed already"),
        ("objective", "none", "None would hide"),
        ("objective", "tensor", "Tensor would hide"),
        ("objective", "projector", "would hide"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_line(
    section: str, name: str, said: str, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PackageError) as refused:
        write_package(section, name, None, registry)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("existing", ["file", "folder", "broken link"])
def test_nothing_that_exists_is_touched(existing: str, tmp_path: Path, registry: Registry) -> None:
    target = tmp_path / "mine"
    {
        "file": lambda: target.write_text("x"),
        "folder": target.mkdir,
        "broken link": lambda: target.symlink_to("nowhere"),
    }[existing]()
    with pytest.raises(PackageError, match="exists already; name another folder with `into`"):
        write_package("objective", "mine", target, registry)
    assert os.listdir(tmp_path) == ["mine"]


def test_nothing_half_written_is_left(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, text: str, encoding: str) -> None:
        if self.name == "__init__.py":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(scaffold.Path, "write_text", full)
    with pytest.raises(PackageError, match="No space left on device"):
        write_package("objective", "mine", tmp_path / "mine", registry)
    assert not os.listdir(tmp_path)


class TestCommand:
    def test_says_what_to_do_next(self, ebsc: Callable[..., tuple[int, str, str]]) -> None:
        code, out, _ = ebsc("plugins", "new", "objective", "my-loss")
        assert code == 0
        wanted = "cd ebsc-my-loss && pip install -e '.[test]' && pytest && ebsc run --objective my-loss"
        assert wanted in out
        assert Path("ebsc-my-loss/ebsc_my_loss/objective.py").is_file()
        assert f"the licence is {LICENSE}: change what is wrong" in out
        assert "the author is" in out

    def test_the_test_of_a_new_observer_passes(
        self, ebsc: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert ebsc("plugins", "new", "observer", "my-watch").code == 0
        folder = tmp_path / "ebsc-my-watch"
        info = folder / "ebsc_my_watch-0.1.0.dist-info"  # as an installation would leave it
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ebsc-my-watch\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text("[ebsc]\nmy-watch = ebsc_my_watch\n")
        monkeypatch.syspath_prepend(folder)
        namespace: dict[str, Any] = {}
        exec((folder / "tests" / "test_ebsc_my_watch.py").read_text(), namespace)
        namespace["test_a_run_is_told_from_start_to_end"](tmp_path)

    def test_a_mistake_is_one_line(self, ebsc: Callable[..., tuple[int, str, str]]) -> None:
        code, _, err = ebsc("plugins", "new", "objective", "simclr", "--into", "here")
        assert code == 2
        assert err.startswith("ebsc: error: objective 'simclr' is there already")
        assert err.count("\n") == 1
        assert not os.listdir()
