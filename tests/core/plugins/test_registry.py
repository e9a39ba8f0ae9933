"""Finding components, conflicts, families and defaults."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ebsc_core import Options, __version__
from ebsc_core.plugins.installed import Provider, installed_entry_points
from ebsc_core.plugins.kinds import REQUIRED
from ebsc_core.plugins.registry import BrokenPluginError, Kind, Registry, UnknownComponentError
from ebsc_core.utils.errors import ComponentError
from support.plugin_sources import HEAD, MakePlugin, answers_to, family, objective


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

    @pytest.mark.parametrize(
        ("line", "named"),
        [
            ("no equals sign", "no equals sign"),
            ("bad =", "bad"),
            ("bad = two words", "bad = two words"),
            ("bad = no-such:", "bad = no-such:"),
        ],
    )
    def test_a_malformed_entry_point_is_told_of_and_hides_no_other(
        self, site: Path, line: str, named: str
    ) -> None:
        lines = f"[other]\nbroken\n[ebsc]\n{line}\nalpha-parts = alpha_test_parts\n"
        (site / "alpha_dist-1.0.dist-info" / "entry_points.txt").write_text(lines)
        registry = Registry()
        assert registry.find(Kind.OBJECTIVE, "alpha-loss")
        (failure,) = registry.failures
        assert (
            failure.reason
            == f"ValueError: its entry point {named!r} names no module; write 'name = package.module'"
        )

    @pytest.mark.parametrize("group", ["ebsc.plugin", "ebsc_plugins", "EBSC"])
    def test_a_misspelt_group_is_told_of(self, site: Path, group: str) -> None:
        lines = f"[{group}]\nalpha-parts = alpha_test_parts\n"
        (site / "alpha_dist-1.0.dist-info" / "entry_points.txt").write_text(lines)
        with pytest.raises(BrokenPluginError, match=f"is of the group '{group}'; it belongs to 'ebsc'"):
            Registry().find(Kind.OBJECTIVE, "alpha-dist")

    def test_a_group_of_other_software_beside_ours_is_let_be(self, site: Path) -> None:
        with (site / "alpha_dist-1.0.dist-info" / "entry_points.txt").open("a") as file:
            file.write("[ebsc_alpha.more]\nx = y\n")
        assert Registry().failures == []

    def test_damaged_metadata_of_others_are_passed_over(self, site: Path) -> None:
        (site / "alpha_dist-1.0.dist-info" / "entry_points.txt").write_bytes(b"[ebsc]\n\xff = x\n")
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

    @pytest.mark.parametrize("declared", ["dict", "1"])
    def test_options_that_are_no_class_of_options(self, plugin: MakePlugin, declared: str) -> None:
        registry = Registry([plugin(objective("x", f", options={declared}"), "mine", "3")])
        said = "objective 'x' of mine 3: its options must be a class derived from ebsc_core.Options"
        with pytest.raises(ComponentError, match=f"^{said}$"):
            registry.find(Kind.OBJECTIVE, "x").options_class  # noqa: B018
        with pytest.raises(ComponentError, match=f"^{said}$"):
            registry.options_of(registry.of(Kind.OBJECTIVE)[0])

    def test_options_of_a_family_that_are_no_class_of_options(self, plugin: MakePlugin) -> None:
        registry = Registry([plugin(family("many", "dict", "tuple, options=dict"), "mine", "3")])
        with pytest.raises(ComponentError, match="'many' of mine 3: its options must be a class derived"):
            registry.options_of(registry.of(Kind.OBJECTIVE)[0])

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
