"""Plugins of others that are broken: each is recorded with its reason, and the rest works."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from ebsc_core.plugins.registry import (
    BrokenPluginError,
    Kind,
    Registry,
)
from ebsc_core.utils.errors import ComponentError
from support.plugin_sources import HEAD, MakePlugin, family, objective

OWN_OPTIONS = "    class Options(Options):\n        name: str = 'mine'\n"
BROKEN = {
    "import error": ("import no_such_module", "ModuleNotFoundError"),
    "syntax error": ("def", "SyntaxError"),
    "exits": ("import sys; sys.exit(3)", "SystemExit"),
    "hook raises": (
        objective("x").replace("yield", "raise ValueError('no\\nluck')\n    yield"),
        "ValueError: no luck",
    ),
    "hook raises after a part": (objective("x") + "    raise ValueError('late')\n", "late"),
    "hook takes arguments": (objective("x").replace("ctives()", "ctives(registry)"), "registry"),
    "hook returns nothing": (f"{HEAD}@hookimpl\ndef ebsc_objectives(): pass\n", "TypeError"),
    "hook returns a record": (
        objective("x").replace("yield", "return"),
        "ebsc_objectives returned a ComponentSpec; it must yield records or return a list of them",
    ),
    "misspelt hook": (objective("x").replace("ebsc_objectives", "ebsc_objektives"), "ebsc_objektives"),
    "no record": (f"{HEAD}@hookimpl\ndef ebsc_objectives(): return ['x']\n", "yielded a str"),
    "name is no text": (objective("x").replace('"x"', "None"), "name"),
    "name is empty": (objective(""), "name"),
    "summary is no text": (objective("x").replace('"A loss."', "None"), "summary"),
    "name holds a colon": (objective("a:x"), "'a:x' may hold letters, digits"),
    "name cannot be hashed": (objective("x").replace('"x"', "['x']"), "name is not a line of text"),
    "name is a command to the terminal": (objective("x").replace('"x"', r'"\x1b[2J"'), "not a line of text"),
    "reference is no text": (objective("x", ", reference=object()"), "reference is not a line of text"),
    "raises what few catch": ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
    "raises what has no text": (
        "class Mute(BaseException):\n    def __str__(self): raise ValueError\nraise Mute",
        "Mute: (its text cannot be read)",
    ),
    "factory is no import string": (objective("x").replace("dict", "'dict'"), "neither callable nor"),
    "preference of another kind": (
        objective("x", ", top_k=3"),
        "top_k is for records of ebsc_coefficient_models",
    ),
    "preference that is none": (
        objective("x", ", express='rows'"),
        "'x': express is 'rows', not 'features' or",
    ),
    "another api": (objective("x", ", api_version=99"), "api_version 99"),
    "twice": (objective("x") + '    yield ComponentSpec("x", "A loss.", dict)\n', "'x' twice"),
    "no mark": (
        objective("x").replace("@hookimpl\n", ""),
        "'ebsc_objectives' is not marked with @hookimpl",
    ),
    "misspelt and no mark": (
        objective("x").replace("@hookimpl\ndef ebsc_objectives", "def ebsc_objektives"),
        "did you mean ebsc_objectives?",
    ),
    "no hook": (HEAD, "implements no hook"),
    "a hook of observers": (
        f"{HEAD}@hookimpl\ndef ebsc_run_started(event): pass\n",
        "a hook of observers, which are offered through ebsc_observers",
    ),
    "an option of ours": (
        objective("x").replace("dict", "Mine").replace(HEAD, HEAD + "class Mine:\n" + OWN_OPTIONS),
        "option 'name' is a setting of [objective] itself",
    ),
}


class TestBrokenPlugins:
    @pytest.mark.parametrize(("source", "reason"), BROKEN.values(), ids=BROKEN.keys())
    def test_it_is_recorded_and_the_rest_works(self, plugin: MakePlugin, source: str, reason: str) -> None:
        broken = plugin(source, "broken", "0.9")
        registry = Registry([plugin(objective("before"), "a"), broken, plugin(objective("after"), "z")])
        assert [entry.name for entry in registry.of(Kind.OBJECTIVE)] == ["after", "before"]
        (failure,) = registry.failures
        assert (failure.plugin, str(failure.provider)) == ("broken-parts", "broken 0.9")
        assert reason in failure.reason
        assert "\n" not in failure.reason

    def test_what_it_prints_is_not_printed_where_we_print(
        self, plugin: MakePlugin, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Registry([plugin("print('hello')\n" + objective("x"))])
        assert tuple(capsys.readouterr()) == ("", "hello\n")

    @pytest.mark.parametrize("source", ["raise SystemExit(0)", "raise GeneratorExit"])
    def test_a_part_that_ends_the_program_is_an_error_of_its_own(
        self, plugin: MakePlugin, tmp_path: Path, source: str
    ) -> None:
        (tmp_path / "leaving.py").write_text(f"class Part:\n    pass\n{source}\n")
        found = Registry([plugin(objective("x").replace("dict", '"leaving:Part"'))]).find(Kind.OBJECTIVE, "x")
        with pytest.raises(ComponentError, match=r"'x' of .* could not be loaded"):
            _ = found.factory

    def test_a_function_that_only_begins_like_a_hook_is_let_be(self, plugin: MakePlugin) -> None:
        source = objective("x") + "\ndef ebsc_helper(): pass\nebsc_objectives_of_mine = ['x']\n"
        assert Registry([plugin(source)]).failures == []

    @pytest.mark.parametrize("name", ["broken-parts", "Broken", "broken:anything", "x"])
    def test_who_wants_a_part_of_it_is_told_why(self, plugin: MakePlugin, name: str) -> None:
        source = objective("x") + "    raise ValueError('late')\n"
        registry = Registry([plugin(source, "broken", "0.9")])
        with pytest.raises(
            BrokenPluginError, match=r"broken-parts of broken 0\.9.*ValueError: late"
        ) as caught:
            registry.find(Kind.OBJECTIVE, name)
        assert isinstance(caught.value.__cause__, ValueError)

    def test_one_that_works_comes_before_a_broken_one(self, plugin: MakePlugin) -> None:
        broken = plugin(objective("x") + "    raise ValueError\n", "broken")
        assert Registry([broken, plugin(objective("x"), "works")]).find(Kind.OBJECTIVE, "x")

    @pytest.mark.parametrize(("setting", "ends"), [("1", True), ("0", False), ("", False)])
    def test_strictly_it_ends_the_command(
        self, plugin: MakePlugin, monkeypatch: pytest.MonkeyPatch, setting: str, ends: bool
    ) -> None:
        monkeypatch.setenv("EBSC_STRICT_PLUGINS", setting)
        broken = plugin("raise ValueError('no luck')", "broken", "0.9")
        with (
            pytest.raises(BrokenPluginError, match=r"broken-parts of broken 0\.9 did not load: .*no luck")
            if ends
            else nullcontext()
        ):
            Registry([broken])

    def test_strictly_a_family_that_raises_ends_it_too(
        self, plugin: MakePlugin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("EBSC_STRICT_PLUGINS", "1")
        registry = Registry([plugin(family("many", "lambda n: 1 / 0"), "broken", "0.9")])
        with pytest.raises(BrokenPluginError, match=r"many of broken 0\.9: ZeroDivisionError"):
            registry.find(Kind.OBJECTIVE, "mine")

    @pytest.mark.parametrize("section", ["coefficients", "joint"])
    def test_options_that_are_imported_late_are_checked_then(self, plugin: MakePlugin, section: str) -> None:
        name = {"coefficients": "name", "joint": "weight"}[section]
        late, _ = plugin(f"{HEAD}class Model:\n    class Options(Options):\n        {name}: float = 1\n")
        source = objective("x").replace("objectives", "coefficient_models")
        registry = Registry([plugin(source.replace("dict", f'"{late.value}:Model"'), "mine", "3")])
        part = registry.find(Kind.COEFFICIENTS, "x")
        with pytest.raises(
            ComponentError, match=rf"'x' of mine 3: its option '{name}' is .*\[{section}\] itself"
        ):
            part.options_class  # noqa: B018

    def test_two_broken_plugins_are_both_recorded(self, plugin: MakePlugin) -> None:
        misspelt = BROKEN["misspelt hook"][0]
        registry = Registry([plugin(misspelt, "one"), plugin(misspelt, "two")])
        assert [failure.provider.distribution for failure in registry.failures] == ["one", "two"]
