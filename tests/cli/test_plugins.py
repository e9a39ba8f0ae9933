"""``ebsc plugins list`` and ``ebsc plugins show``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ebsc_core import __version__
from ebsc_core.config.flags import FLAGS
from ebsc_core.plugins.kinds import REQUIRED
from ebsc_core.plugins.registry import Kind, Registry

Ebsc = Callable[..., tuple[object, str, str]]
MakeDistribution = Callable[[str, str, str], None]

PLUGIN = """
from ebsc_core import ComponentSpec, hookimpl
@hookimpl
def ebsc_objectives():
    yield ComponentSpec({name!r}, "A loss [of mine].", dict)
"""


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeDistribution:
    """Puts a distribution with one plugin on ``sys.path``, as an installation would."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, version: str, source: str) -> None:
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[ebsc]\n{name}-parts = ebsc_test_{name}\n")
        (tmp_path / f"ebsc_test_{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, f"ebsc_test_{name}", raising=False)

    return make


def row(out: str, first: str) -> list[str]:
    """The cells of the table's row that begins with ``first``."""
    rows = ([cell.strip() for cell in line.strip("│ \n").split("│")] for line in out.splitlines())
    return next(cells for cells in rows if cells[0] == first)


class TestList:
    @pytest.mark.parametrize("kind", Kind)
    def test_shows_every_kind_with_the_flag_that_chooses_it(self, ebsc: Ebsc, kind: Kind) -> None:
        _, out, _ = ebsc("plugins", "list")
        assert f"{kind.words}s ({FLAGS[kind.setting][0]})" in out

    def test_shows_every_part_with_its_distribution_and_version(self, ebsc: Ebsc) -> None:
        _, out, _ = ebsc("plugins", "list")
        for entry in Registry().entries:
            assert f" {entry.name}" in out or f"({entry.name})" in out
        assert row(out, "byol")[2] == f"ebsc {__version__}"

    @pytest.mark.parametrize("kind", REQUIRED)
    def test_marks_the_default(self, ebsc: Ebsc, kind: Kind) -> None:
        registry = Registry()
        _, out, _ = ebsc("plugins", "list")
        others = {entry.name for entry in registry.of(kind)} - {registry.default(kind)}
        assert row(out, f"{registry.default(kind)}*")
        assert not any(f" {other}*" in out for other in others)

    def test_shows_a_part_of_another_distribution(self, ebsc: Ebsc, distribution: MakeDistribution) -> None:
        distribution("acme", "4.2", PLUGIN.format(name="acme-loss"))
        _, out, _ = ebsc("plugins", "list")
        assert row(out, "acme-loss") == ["acme-loss", "A loss [of mine].", "acme 4.2"]

    def test_shows_a_plugin_that_does_not_load_and_why(
        self, ebsc: Ebsc, distribution: MakeDistribution
    ) -> None:
        distribution("acme", "4.2", "raise ValueError('no [bold] luck' + 20 * '\\nbecause of something')")
        distribution("sane", "1.0", PLUGIN.format(name="sane-loss"))
        code, out, _ = ebsc("plugins", "list")
        assert code == 0
        (line,) = (line for line in out.splitlines() if "acme" in line)
        assert line.startswith("not loaded: acme-parts of acme 4.2: ValueError: no [bold] luck because of")
        assert line.endswith("…")
        assert len(line) < 250
        assert row(out, "sane-loss")


class TestShow:
    def test_says_what_it_is_and_where_it_comes_from(self, ebsc: Ebsc) -> None:
        code, out, _ = ebsc("plugins", "show", "simclr")
        assert code == 0
        assert "simclr (objective)" in out
        assert "source:  arXiv:2002.05709" in out
        assert f"from:    ebsc {__version__}" in out

    def test_explains_each_option(self, ebsc: Ebsc) -> None:
        _, out, _ = ebsc("plugins", "show", "simclr")
        option, kind, default, meaning = row(out, "objective.temperature")
        assert (option, kind, default) == ("objective.temperature", "float", "0.2")
        assert meaning.startswith("The softmax temperature of the similarities; a smaller one")

    def test_the_name_of_an_option_is_whole_on_a_narrow_terminal(
        self, ebsc: Ebsc, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "50")
        _, out, _ = ebsc("plugins", "show", "tensorboard")
        first = "".join(line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│"))
        assert first == "observers.tensorboard.folder"

    def test_a_part_without_options(self, ebsc: Ebsc) -> None:
        _, out, _ = ebsc("plugins", "show", "digits")
        assert "options: none" in out

    def test_a_member_of_a_family(self, ebsc: Ebsc) -> None:
        code, out, _ = ebsc("plugins", "show", "resnet50")
        assert code == 0
        assert "resnet50 (backbone)" in out
        assert row(out, "backbone.weights")[1:3] == ["str | None", "None"]

    def test_a_family(self, ebsc: Ebsc) -> None:
        code, out, _ = ebsc("plugins", "show", "timm")
        assert code == 0
        assert out.splitlines()[0] == "(timm) (backbone)"
        assert f"ebsc {__version__}" in out
        assert row(out, "backbone.pretrained")[1:3] == ["bool", "False"]

    @pytest.mark.parametrize(
        ("name", "option"),
        [("folder", "labels"), ("zip", "labels"), ("npz", "images"), ("npy", "stream")],
    )
    def test_a_family_of_data_sets_has_the_options_of_its_members(
        self, ebsc: Ebsc, name: str, option: str
    ) -> None:
        _, out, _ = ebsc("plugins", "show", name)
        assert row(out, f"data.{option}")

    def test_a_part_by_its_distribution(self, ebsc: Ebsc, distribution: MakeDistribution) -> None:
        distribution("acme", "4.2", PLUGIN.format(name="simclr"))
        _, out, _ = ebsc("plugins", "show", "acme:simclr")
        assert "from:    acme 4.2" in out

    def test_options_that_are_no_class_of_options_are_an_error_in_a_line(
        self, ebsc: Ebsc, distribution: MakeDistribution
    ) -> None:
        distribution("acme", "4.2", PLUGIN.format(name="acme-loss").replace("dict", "dict, options=dict"))
        said = "objective 'acme-loss' of acme 4.2: its options must be a class derived from ebsc_core.Options"
        assert_one_line(ebsc("plugins", "show", "acme-loss"), said)

    @pytest.mark.parametrize(
        ("typed", "meant"), [("simcrl", "simclr"), ("spectrl", "spectral"), ("kmeens", "KMeans")]
    )
    def test_an_unknown_name_suggests_the_nearest_of_all_kinds(
        self, ebsc: Ebsc, typed: str, meant: str
    ) -> None:
        assert_one_line(
            ebsc("plugins", "show", typed), f"no component is called '{typed}': did you mean {meant}"
        )

    def test_a_name_near_none(self, ebsc: Ebsc) -> None:
        assert_one_line(ebsc("plugins", "show", "nothing-like-it"), "see `ebsc plugins list`")

    def test_a_name_two_plugins_claim(self, ebsc: Ebsc, distribution: MakeDistribution) -> None:
        distribution("acme", "4.2", PLUGIN.format(name="simclr"))
        assert_one_line(ebsc("plugins", "show", "simclr"), "say which: acme:simclr or ebsc:simclr")

    def test_a_part_that_cannot_be_imported(self, ebsc: Ebsc, distribution: MakeDistribution) -> None:
        source = PLUGIN.format(name="acme-loss").replace("dict", '"no_such_module:Loss"')
        distribution("acme", "4.2", source)
        said = "objective 'acme-loss' of acme 4.2 could not be loaded"
        assert_one_line(ebsc("plugins", "show", "acme-loss"), said)


def assert_one_line(result: tuple[object, str, str], said: str) -> None:
    """A user's mistake: status 2 and one line on standard error, without a traceback."""
    code, _, err = result
    assert code == 2
    assert err.startswith("ebsc: error: ")
    assert said in err
    assert err.count("\n") == 1
