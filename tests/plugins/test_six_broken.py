"""Six broken plugins, installed together as distributions, beside one that is sane."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HEAD = "from ebsc_core import ComponentSpec, hookimpl\n\n@hookimpl\ndef {hook}():\n"
OBJECTIVES = HEAD.format(hook="ebsc_objectives")


def record(name: str, extra: str = "") -> str:
    return f'    yield ComponentSpec("{name}", "A loss.", "some_module:Loss"{extra})\n'


BROKEN = {
    "importing": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "raising": (OBJECTIVES + "    raise RuntimeError('no luck')\n", "RuntimeError: no luck"),
    "malformed": (OBJECTIVES + "    yield {'name': 'x'}\n", "ebsc_objectives yielded a dict"),
    "twice": (OBJECTIVES + 2 * record("same"), "twice 1.2 offers the objective 'same' twice"),
    "newer": (OBJECTIVES + record("late", ", api_version=2"), "written for api_version 2, this is 1"),
    "misspelt": (
        HEAD.format(hook="ebsc_objectivs") + record("lost"),
        "there is no hook 'ebsc_objectivs': did you mean ebsc_objectives?",
    ),
}
SANE = OBJECTIVES + record("sane-loss")
# Claims a name of ours, and the default; it is not broken.
RIVAL = OBJECTIVES + record("simclr", ", default=True")


def install(site: Path, name: str, source: str, version: str = "1.2") -> None:
    """What pip leaves of a package: a module and its metadata."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[ebsc]\n{name}-parts = {name}_plugin\n")
    (site / f"{name}_plugin.py").write_text(source)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    for name, (source, _) in BROKEN.items():
        install(folder, name, source)
    install(folder, "sane", SANE)
    install(folder, "rival", RIVAL)
    return folder


def command(site: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = os.environ | {"PYTHONPATH": path, "COLUMNS": "250"} | environment
    words = [sys.executable, "-m", "ebsc_cli", *arguments]
    return subprocess.run(words, capture_output=True, text=True, env=own, timeout=120, check=False)


@pytest.fixture(scope="module")
def listing(site: Path) -> dict[str, Any]:
    return json.loads(command(site, "plugins", "list", "--json").stdout)


@pytest.mark.parametrize("name", BROKEN)
def test_each_is_listed_with_its_version_and_reason(site: Path, listing: dict[str, Any], name: str) -> None:
    (plugin,) = [plugin for plugin in listing["plugins"] if plugin["distribution"] == name]
    assert (plugin["status"], plugin["version"]) == ("failed", "1.2")
    assert BROKEN[name][1] in plugin["reason"]
    assert name not in {part["distribution"] for part in listing["parts"]}


def test_the_others_work(listing: dict[str, Any]) -> None:
    statuses = {plugin["distribution"]: plugin["status"] for plugin in listing["plugins"]}
    assert statuses == dict.fromkeys(BROKEN, "failed") | dict.fromkeys(("ebsc", "sane", "rival"), "ok")
    (part,) = [part for part in listing["parts"] if part["name"] == "sane-loss"]
    assert (part["distribution"], part["section"], part["default"]) == ("sane", "objective", False)


def test_the_default_stays_ours_and_the_conflict_is_listed(listing: dict[str, Any]) -> None:
    defaults = [part for part in listing["parts"] if part["default"] and part["section"] == "objective"]
    assert [part["distribution"] for part in defaults] == ["ebsc"]
    said = "objective 'simclr' is offered by ebsc 0.1.0, rival 1.2; say which: ebsc:simclr or rival:simclr"
    assert listing["conflicts"] == [said]


def test_people_read_the_same(site: Path) -> None:
    done = command(site, "plugins", "list")
    assert done.returncode == 0, done.stderr
    for name, (_, reason) in BROKEN.items():
        (line,) = [s for s in done.stdout.splitlines() if s.startswith(f"not loaded: {name}-parts of {name}")]
        assert reason in line
    assert "conflict: objective 'simclr' is offered by" in done.stdout


@pytest.fixture
def here(site: Path, ebsc: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The same in this process, where torch is imported already."""
    monkeypatch.syspath_prepend(site)
    return ebsc


def test_a_run_with_our_own_parts_does_not_notice(here: Callable[..., Any], tmp_path: Path) -> None:
    small = ("--limit", "60", "--epochs", "1", "--backbone", "resnet10t", "--set", "refine.steps=2")
    done = here("run", *small, "--device", "cpu", "--out", "run")
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("typed", "distribution"),
    [("importing:x", "importing"), ("raising-parts", "raising"), ("same", "twice"), ("late", "newer")],
)
def test_selecting_a_broken_one_is_one_line(here: Callable[..., Any], typed: str, distribution: str) -> None:
    for command in (("run", "--objective"), ("plugins", "show")):
        done = here(*command, typed)
        assert done.code == 2
        said = f"{typed!r} belongs to plugin {distribution}-parts of {distribution} 1.2, which did not load: "
        assert done.err.startswith(f"ebsc: error: {said}")
        assert BROKEN[distribution][1] in done.err
        assert done.err.count("\n") == 1


def test_with_traceback_it_is_all_of_it(here: Callable[..., Any]) -> None:
    done = here("run", "--objective", "importing:x", "--traceback")
    assert done.code == 2
    assert "Traceback" in done.err
    assert 'importing_plugin.py", line 1' in done.err
    assert done.err.splitlines()[-1].startswith("ebsc: error: 'importing:x' belongs to plugin")


@pytest.mark.parametrize(
    "arguments", [("--no-plugins", "plugins", "list"), ("plugins", "list", "--no-plugins")]
)
def test_no_plugins_leaves_our_own(site: Path, arguments: tuple[str, ...]) -> None:
    found = json.loads(command(site, *arguments, "--json").stdout)
    assert [plugin["distribution"] for plugin in found["plugins"]] == ["ebsc"]
    assert found["conflicts"] == []


def test_strictly_the_first_of_them_ends_the_command(site: Path) -> None:
    done = command(site, "plugins", "list", EBSC_STRICT_PLUGINS="1")
    assert done.returncode == 2
    said = "plugin importing-parts of importing 1.2 did not load: ModuleNotFoundError: "
    assert done.stderr.startswith(f"ebsc: error: {said}")
    assert command(site, "plugins", "list", "--no-plugins", EBSC_STRICT_PLUGINS="1").returncode == 0


def test_a_slow_one_is_named_and_works(tmp_path: Path) -> None:
    install(tmp_path, "slow", f"import time\ntime.sleep(1.05)\n{SANE}")
    done = command(tmp_path, "plugins", "list")
    assert "slow: slow-parts of slow 1.2 takes " in done.stdout
    assert "sane-loss" in done.stdout
