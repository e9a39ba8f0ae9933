"""Finding parts, and surviving the plugins of others."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ebsc_core import Options, __version__
from ebsc_core.plugins.hookspecs import ENTRY_POINT_GROUP
from ebsc_core.plugins.kinds import REQUIRED
from ebsc_core.plugins.registry import (
    BrokenPluginError,
    Kind,
    Provider,
    Registry,
    UnknownComponentError,
    installed_entry_points,
)
from ebsc_core.utils.errors import ComponentError

Plugin = tuple[EntryPoint, Provider]
MakePlugin = Callable[..., Plugin]

HEAD = "from ebsc_core import ComponentFamily, ComponentSpec, Options, hookimpl\n"
NUMBERS = itertools.count()


def objective(name: str, extra: str = "") -> str:
    record = f'ComponentSpec("{name}", "A loss.", dict{extra})'
    return f"{HEAD}@hookimpl\ndef ebsc_objectives():\n    yield {record}\n"


def family(name: str, resolve: str, names: str = "tuple") -> str:
    record = f'ComponentFamily("{name}", "Many losses.", {resolve}, names={names})'
    return f"{HEAD}@hookimpl\ndef ebsc_objectives():\n    yield {record}\n"


def answers_to(prefix: str) -> str:
    spec = 'ComponentSpec(n, "One of many.", dict)'
    return f"lambda n: {spec} if n.startswith('{prefix}') else None"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePlugin:
    """Writes a module and gives the entry point an installed distribution would have for it."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(source: str, distribution: str = "alpha", version: str = "1.0", name: str = "") -> Plugin:
        module = f"ebsc_test_plugin_{next(NUMBERS)}"
        (tmp_path / f"{module}.py").write_text(source)
        entry_point = EntryPoint(name or f"{distribution}-parts", module, ENTRY_POINT_GROUP)
        return entry_point, Provider(distribution, version)

    return make


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on ``sys.path`` with a distribution ``alpha-dist`` and its entry point ``alpha-parts``."""
    info = tmp_path / "alpha_dist-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: alpha-dist\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\nalpha-parts = alpha_test_parts\n")
    (tmp_path / "alpha_test_parts.py").write_text(objective("alpha-loss"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "alpha_test_parts", raising=False)
    return tmp_path


class TestDiscovery:
    def test_an_installed_distribution_is_found(self, site: Path) -> None:
        part = Registry().find(Kind.OBJECTIVE, "alpha-loss")
        assert part.provider == Provider("alpha-dist", "1.0")

    def test_a_distribution_found_twice_on_the_path_counts_once(
        self, site: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        second = tmp_path_factory.mktemp("second")
        info = second / "alpha_dist-1.0.dist-info"
        info.mkdir()
        for file in (site / info.name).iterdir():
            (info / file.name).write_bytes(file.read_bytes())
        monkeypatch.syspath_prepend(second)
        assert [p.distribution for _, p in installed_entry_points()].count("alpha-dist") == 1

    @pytest.mark.parametrize("disabled", ["alpha-parts", "alpha-dist", " other , alpha-dist "])
    def test_a_disabled_plugin_is_left_out(
        self, site: Path, monkeypatch: pytest.MonkeyPatch, disabled: str
    ) -> None:
        monkeypatch.setenv("EBSC_DISABLE_PLUGINS", disabled)
        providers = {entry.provider.distribution for entry in Registry().entries}
        assert providers == {"ebsc"}

    def test_a_half_removed_distribution_is_told_of(self, site: Path) -> None:
        (site / "alpha_dist-1.0.dist-info" / "METADATA").unlink()
        assert "unknown unknown" in {str(plugin.provider) for plugin in Registry().plugins}

    def test_damaged_metadata_of_others_are_passed_over(self, site: Path) -> None:
        (site / "alpha_dist-1.0.dist-info" / "entry_points.txt").write_text("[ebsc]\nno equals sign\n")
        assert {plugin.provider.distribution for plugin in Registry().plugins} == {"ebsc"}

    def test_all_but_our_own_can_be_left_out(self, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EBSC_DISABLE_PLUGINS", "*")
        assert [str(found) for _, found in installed_entry_points()] == [f"ebsc {__version__}"]

    def test_a_disabled_plugin_is_not_imported(self, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EBSC_DISABLE_PLUGINS", "alpha-parts")
        Registry()
        assert "alpha_test_parts" not in sys.modules

    def test_no_entry_points_means_no_parts(self) -> None:
        assert Registry([]).entries == []

    def test_the_packages_of_plugins_are_known_and_those_of_broken_ones_are_not(
        self, plugin: MakePlugin
    ) -> None:
        works, fails = plugin(objective("mine")), plugin("raise RuntimeError")
        assert Registry([works, fails]).packages == {works[0].module}
        assert Registry([]).packages == set()

    def test_of_a_module_within_a_package_the_package_is_known(self) -> None:
        ours = [found for found in installed_entry_points() if found[1].distribution == "ebsc"]
        assert Registry(ours).packages == {"ebsc_plugins"}

    def test_each_hook_yields_its_kind(self, plugin: MakePlugin) -> None:
        hooks = "".join(
            f'@hookimpl\ndef {kind.hook}():\n    yield ComponentSpec("x-{kind.section}", "X.", dict)\n'
            for kind in Kind
        )
        registry = Registry([plugin(HEAD + hooks)])
        assert {kind: [e.name for e in registry.of(kind)] for kind in Kind} == {
            kind: [f"x-{kind.section}"] for kind in Kind
        }


class TestFind:
    def test_a_part_is_imported_only_when_used(self, plugin: MakePlugin) -> None:
        heavy, _ = plugin("def build(options): return 'built'")
        source = objective("late").replace("dict", f'"{heavy.value}:build"')
        part = Registry([plugin(source)]).find(Kind.OBJECTIVE, "late")
        assert heavy.value not in sys.modules
        assert part.factory({}) == "built"

    @pytest.mark.parametrize(
        ("body", "options", "expected"),
        [
            ("class Factory:\n    class Options(Options): pass\n", "None", "Factory.Options"),
            ("class Factory: pass\nclass Mine(Options): pass\n", "Mine", "Mine"),
            ("class Factory: pass\n", "None", "Options"),
        ],
        ids=["the factory's own", "declared", "none"],
    )
    def test_options_class(self, plugin: MakePlugin, body: str, options: str, expected: str) -> None:
        source = objective("x", f", options={options}").replace("dict", "Factory")
        part = Registry([plugin(source.replace(HEAD, HEAD + body))]).find(Kind.OBJECTIVE, "x")
        assert part.options_class.__qualname__ == expected
        assert issubclass(part.options_class, Options)

    def test_a_part_that_cannot_be_imported_names_its_supplier_and_the_cure(self, plugin: MakePlugin) -> None:
        source = objective("x").replace("dict", '"no_such_module:build"')
        part = Registry([plugin(source, "alpha", "3.1")]).find(Kind.OBJECTIVE, "x")
        with pytest.raises(ComponentError, match=r"'x' of alpha 3\.1 .*no_such_module.*reinstall alpha"):
            part.factory  # noqa: B018

    @pytest.mark.parametrize("typed", ["alpha-los", "alhpa-loss", "ALPHA-LOSS"])
    def test_a_near_name_is_suggested(self, plugin: MakePlugin, typed: str) -> None:
        with pytest.raises(UnknownComponentError, match=r"did you mean alpha-loss\?"):
            Registry([plugin(objective("alpha-loss"))]).find(Kind.OBJECTIVE, typed)

    def test_a_part_may_be_called_like_its_distribution(self, plugin: MakePlugin) -> None:
        assert Registry([plugin(objective("alpha"), "alpha")]).find(Kind.OBJECTIVE, "alpha")

    def test_nothing_near_points_to_the_list(self, plugin: MakePlugin) -> None:
        with pytest.raises(UnknownComponentError, match=r"objective 'zzz': see `ebsc plugins list`"):
            Registry([plugin(objective("alpha-loss"))]).find(Kind.OBJECTIVE, "zzz")

    def test_a_part_of_another_kind_does_not_answer(self, plugin: MakePlugin) -> None:
        with pytest.raises(UnknownComponentError):
            Registry([plugin(objective("alpha-loss"))]).find(Kind.CLUSTERER, "alpha-loss")

    def test_an_unknown_name_mentions_plugins_that_did_not_load(self, plugin: MakePlugin) -> None:
        registry = Registry([plugin("import no_such_module", "beta", "2.0")])
        with pytest.raises(UnknownComponentError, match=r"not loaded: beta-parts of beta 2\.0"):
            registry.find(Kind.OBJECTIVE, "beta-loss")


class TestConflicts:
    def test_they_are_told(self, registry: Registry) -> None:
        (line,) = registry.conflicts()
        assert line.startswith("objective 'same' is offered by alpha 1.0, beta 2.0; say which: ")

    @pytest.fixture
    def registry(self, plugin: MakePlugin) -> Registry:
        first = plugin(objective("same") + '    yield ComponentSpec("alone", "A loss.", dict)\n', "alpha")
        return Registry([first, plugin(objective("same"), "beta", "2.0")])

    def test_a_claimed_name_names_the_choices(self, registry: Registry) -> None:
        with pytest.raises(
            ComponentError, match=r"alpha 1\.0, beta 2\.0; say which: alpha:same or beta:same"
        ):
            registry.find(Kind.OBJECTIVE, "same")

    @pytest.mark.parametrize("distribution", ["alpha", "beta"])
    def test_the_distribution_settles_it(self, registry: Registry, distribution: str) -> None:
        part = registry.find(Kind.OBJECTIVE, f"{distribution}:same")
        assert part.provider.distribution == distribution

    def test_a_settled_choice_can_be_made_again_by_its_name(self, registry: Registry) -> None:
        part = registry.find(Kind.OBJECTIVE, "beta:same")
        assert registry.find(Kind.OBJECTIVE, part.name).provider == part.provider

    def test_other_names_are_not_affected(self, registry: Registry) -> None:
        assert registry.find(Kind.OBJECTIVE, "alone").provider.distribution == "alpha"

    def test_another_distribution_does_not_answer(self, registry: Registry) -> None:
        with pytest.raises(UnknownComponentError):
            registry.find(Kind.OBJECTIVE, "gamma:same")


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


class TestFamilies:
    def test_it_answers_to_its_names(self, plugin: MakePlugin) -> None:
        part = Registry([plugin(family("many", answers_to("many-")))]).find(Kind.OBJECTIVE, "many-7")
        assert (part.name, part.spec.name) == ("many-7", "many-7")

    def test_it_does_not_answer_to_others(self, plugin: MakePlugin) -> None:
        with pytest.raises(UnknownComponentError):
            Registry([plugin(family("many", answers_to("many-")))]).find(Kind.OBJECTIVE, "few-7")

    def test_its_names_are_suggested(self, plugin: MakePlugin) -> None:
        names = "lambda: ['many-seven', 'many-eight']"
        with pytest.raises(UnknownComponentError, match="did you mean many-seven"):
            Registry([plugin(family("many", "lambda n: None", names))]).find(Kind.OBJECTIVE, "many-seve")

    def test_a_single_part_comes_before_a_family(self, plugin: MakePlugin) -> None:
        registry = Registry([plugin(family("many", answers_to("m")), "a"), plugin(objective("mine"), "b")])
        assert registry.find(Kind.OBJECTIVE, "mine").provider.distribution == "b"

    def test_the_distribution_chooses_a_family_over_a_single_part(self, plugin: MakePlugin) -> None:
        registry = Registry([plugin(family("many", answers_to("m")), "a"), plugin(objective("mine"), "b")])
        part = registry.find(Kind.OBJECTIVE, "a:mine")
        assert (part.provider.distribution, part.spec.name) == ("a", "mine")

    def test_two_families_can_conflict(self, plugin: MakePlugin) -> None:
        registry = Registry([plugin(family(name, answers_to("m")), name) for name in ("a", "b")])
        with pytest.raises(ComponentError, match="say which: a:mine or b:mine"):
            registry.find(Kind.OBJECTIVE, "mine")

    @pytest.mark.parametrize("resolve", ['"no_such_module:resolve"', "lambda n: 1 / 0", "lambda n: n"])
    def test_a_broken_one_does_not_silence_another(self, plugin: MakePlugin, resolve: str) -> None:
        broken = plugin(family("a-broken", resolve), "broken")
        registry = Registry([broken, plugin(family("many", answers_to("m")), "works")])
        assert registry.find(Kind.OBJECTIVE, "mine").provider.distribution == "works"

    @pytest.mark.parametrize("resolve", ['"no_such_module:resolve"', "lambda n: 1 / 0", "lambda n: n"])
    def test_a_broken_one_is_mentioned_when_nothing_answers(self, plugin: MakePlugin, resolve: str) -> None:
        registry = Registry([plugin(family("many", resolve), "broken", "0.9")])
        with pytest.raises(UnknownComponentError, match=r"not loaded: .*broken 0\.9"):
            registry.find(Kind.OBJECTIVE, "mine")

    def test_names_that_fail_only_cost_their_suggestions(self, plugin: MakePlugin) -> None:
        broken = plugin(family("many", "lambda n: None", "lambda: 1 / 0"), "broken")
        with pytest.raises(UnknownComponentError, match="did you mean mine"):
            Registry([broken, plugin(objective("mine"), "works")]).find(Kind.OBJECTIVE, "mind")


class TestDefaults:
    def test_the_one_offered(self, plugin: MakePlugin) -> None:
        default = plugin(objective("mine", ", default=True"), "a")
        assert Registry([plugin(objective("other"), "b"), default]).default(Kind.OBJECTIVE) == "mine"

    def test_none_offered(self, plugin: MakePlugin) -> None:
        with pytest.raises(ComponentError, match=r"none is installed.*`objective\.name`"):
            Registry([plugin(objective("mine"))]).default(Kind.OBJECTIVE)

    def test_two_offered(self, plugin: MakePlugin) -> None:
        plugins = [plugin(objective(f"{d}-loss", ", default=True"), d) for d in ("a", "b")]
        with pytest.raises(ComponentError, match=r"a-loss \(a 1\.0\), b-loss \(b 1\.0\).*`objective\.name`"):
            Registry(plugins).default(Kind.OBJECTIVE)

    def test_ours_stays_the_default_if_another_claims_its_name(self, plugin: MakePlugin) -> None:
        default = ", default=True"
        plugins = [plugin(objective("mine", default), d) for d in ("alpha", "ebsc")]
        registry = Registry(plugins)
        assert registry.default(Kind.OBJECTIVE) == "ebsc:mine"
        part = registry.find(Kind.OBJECTIVE, "ebsc:mine")
        assert (part.provider.distribution, part.bare_name) == ("ebsc", "mine")

    def test_every_kind_has_one_among_our_own_parts(self) -> None:
        ours = [found for found in installed_entry_points() if found[1].distribution == "ebsc"]
        registry = Registry(ours)
        assert all(registry.default(kind) for kind in REQUIRED)
