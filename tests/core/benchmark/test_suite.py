"""Suites as they are written: what they run, and what is said of wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

from ebsc_core.benchmark.suite import Suite, load_suite
from ebsc_core.config.schema import RunConfig
from ebsc_core.plugins.registry import Registry
from ebsc_core.utils.errors import ConfigError

MakeSuite = Callable[..., Suite]
Swapped = Callable[[str, str], str]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry()


@pytest.fixture
def good(one_row: str) -> str:
    """The text of a suite of one row (lines 7 and 8), and of two seeds."""
    return one_row.replace("[0]", "[3, 4]")


@pytest.fixture
def swapped(good: str) -> Swapped:
    """That text with something else in place of a part of it."""

    def swap(old: str, new: str) -> str:
        assert old in good
        return good.replace(old, new)

    return swap


class TestCells:
    def test_are_every_row_on_every_data_set_with_every_seed(self, suite: MakeSuite, good: str) -> None:
        text = good + '[rows.energy]\n[data.faces]\ndata.name = "faces.npz"\n'
        cells = [(cell.seed, cell.column, cell.row) for cell in suite(text).cells()]
        rows = [(column, row) for column in ("digits", "faces") for row in ("knn", "energy")]
        assert cells == [(seed, *pair) for seed in (3, 4) for pair in rows]

    def test_a_column_wins_over_the_settings_and_a_row_over_both(
        self, suite: MakeSuite, swapped: Swapped
    ) -> None:
        text = swapped("[settings]", "[settings]\ntop_k = 3\nn_clusters = 3\ntest_share = 0.3")
        text = text.replace("[rows.knn]", "top_k = 4\nn_clusters = 4\n[rows.knn]\ntop_k = 5")
        cell = suite(text).cells()[0]
        assert (cell.config.top_k, cell.config.n_clusters, cell.config.test_share) == (5, 4, 0.3)

    def test_the_command_line_wins_over_all(self, suite: MakeSuite, swapped: Swapped) -> None:
        text = swapped("[rows.knn]", "[rows.knn]\ntop_k = 5")
        assert suite(text, ["top_k=7"]).cells()[0].config.top_k == 7

    def test_another_part_of_the_command_line_drops_the_options_of_the_row_s(
        self, suite: MakeSuite, swapped: Swapped
    ) -> None:
        text = swapped('coefficients.name = "knn"', 'coefficients.name = "energy"\ncoefficients.hidden = 8')
        cell = suite(text, ["coefficients.name=knn"]).cells()[0]
        assert (cell.config.coefficients.name, cell.config.coefficients.options) == ("knn", {})

    def test_environment_variables_are_filled_in_paths_and_nowhere_else(
        self, suite: MakeSuite, swapped: Swapped, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HERE", "/some where")
        text = swapped('"digits"', '"$HERE/a.npz"\ndata.root = "${HERE}/b"')
        cell = suite(text.replace("[rows.knn]", '[rows.knn]\nobjective.note = "$HERE"')).cells()[0]
        assert (cell.config.data.name, cell.config.data.root) == ("/some where/a.npz", "/some where/b")
        assert cell.config.objective.options == {"note": "$HERE"}
        assert cell.settings["data"]["name"] == "$HERE/a.npz"

    def test_the_protocol_is_the_suite_s(self, suite: MakeSuite, good: str) -> None:
        assert suite(good).cells()[0].config.protocol == "all"
        assert suite('protocol = "train-test"\n' + good).cells()[0].config.protocol == "train-test"


class TestSharingFeatures:
    @pytest.fixture
    def keys(self, suite: MakeSuite, swapped: Swapped) -> Callable[..., list[str]]:
        """What features are kept under, for each of these rows."""
        text = swapped('[rows.knn]\ncoefficients.name = "knn"\n', "")

        def keys_of(*rows: str) -> list[str]:
            chosen = suite(text + "".join(f"[rows.r{i}]\n{row}\n" for i, row in enumerate(rows)))
            return [cell.features_key for cell in chosen.cells()[: len(rows)]]

        return keys_of

    def test_cells_that_differ_downstream_only_share_them(self, keys: Callable[..., list[str]]) -> None:
        downstream = (
            'coefficients.name = "knn"',
            'clusterer.name = "k-subspaces"',
            "top_k = 3",
            "n_clusters = 9",
            "refine.steps = 3",
            'affinity.form = "nearest_neighbors"',
            'search.method = "cells"',
            "dictionary_size = 100",
            'like = "earlier"',
        )
        assert len(set(keys("", *downstream))) == 1

    @pytest.mark.parametrize(
        "row",
        [
            'backbone.name = "identity"',
            'objective.name = "byol"',
            f"train.epochs = {RunConfig().train.epochs}",  # trained weights have another default
            "train.lr = 0.5",
            "views.flip = 0.1",
            'joint.form = "reconstruction"',
            "data.limit = 99",
            'express = "features"',
        ],
    )
    def test_others_do_not(self, keys: Callable[..., list[str]], row: str) -> None:
        assert len(set(keys("", row))) == 2

    def test_nor_do_seeds(self, suite: MakeSuite, good: str) -> None:
        assert len({cell.features_key for cell in suite(good).cells()}) == 2


class TestImagesAndFeatures:
    """A suite may compare on data of both kinds; a setting is left out where it says nothing, and named."""

    MIXED = """title = "T"
seeds = [0]
[settings]
train.epochs = 0
backbone.name = "pca"
features.labels = "kind"
whiten = true
[data.digits]
data.name = "digits"
[data.mine]
features.path = "x.npz"
[rows.knn]
coefficients.name = "knn"
[rows.energy]
coefficients.name = "energy"
[rows.small]
coefficients.name = "energy"
data.limit = 9
"""

    def test_each_cell_has_what_its_kind_of_data_takes(self, suite: MakeSuite, registry: Registry) -> None:
        chosen = suite(self.MIXED, ["objective.name=byol"])
        chosen.check(registry)
        images, features = (
            next(c.config for c in chosen.cells() if c.column == column) for column in ("digits", "mine")
        )
        assert (images.backbone.name, images.objective.name, images.features) == ("pca", "byol", None)
        assert features.features
        assert (features.features.path, features.features.labels) == ("x.npz", "kind")
        assert not {"backbone", "objective", "train", "data"} & features.model_fields_set
        assert images.whiten is features.whiten is True

    def test_what_is_left_out_is_said_once_a_data_set(self, suite: MakeSuite) -> None:
        assert suite(self.MIXED).notes() == [
            "data set 'digits' holds images: settings of features say nothing there and are left out "
            "(features.labels)",
            "data set 'mine' holds features: settings of images say nothing there and are left out "
            "(backbone.name, data.limit, train.epochs); rows 'energy' and 'small' are the same run there",
        ]

    def test_a_suite_of_one_kind_has_no_notes(self, suite: MakeSuite, good: str) -> None:
        assert suite(good).notes() == []

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ('features.path = "x.npz"', 'features.path = "x.npz"\nbackbone.name = "pca"', "'backbone' says"),
            ('data.name = "digits"', 'features.path = "y.npz"', "'backbone' says nothing"),
            (
                'data.name = "digits"',
                'data.name = "digits"\nfeatures.labels = "x"',
                "'features.path' is miss",
            ),
            ("seeds = [0]", 'seeds = [0]\nprotocol = "train-test"', "'protocol' says nothing"),
        ],
    )
    def test_what_no_data_set_could_take_is_a_mistake(
        self, suite: MakeSuite, registry: Registry, old: str, new: str, said: str
    ) -> None:
        text = self.MIXED.replace('features.labels = "kind"\n', "")
        assert old in text
        with pytest.raises(ConfigError, match=said):
            suite(text.replace(old, new)).check(registry)


MISTAKES = {
    "part": ('"knn"', '"enrgy"', 8, "unknown coefficient model 'enrgy': did you mean energy?"),
    "option": (
        'coefficients.name = "knn"',
        'objective.name = "simclr"\nobjective.temprature = 1',
        9,
        "unknown option 'objective.temprature': did you mean 'objective.temperature'?",
    ),
    "type": (
        'coefficients.name = "knn"',
        '[rows.knn.objective]\nname = "simclr"\ntemperature = "hot"',
        10,
        "option 'objective.temperature': input should be a valid number",
    ),
    "setting": (
        "train.epochs",
        "train.epoch",
        4,
        "unknown option 'train.epoch': did you mean 'train.epochs'?",
    ),
    "range": ("train.epochs = 0", "train.epochs = 0\nn_clusters = 1", 5, "option 'n_clusters'"),
    "section": ('coefficients.name = "knn"', 'coefficients = "knn"', 8, "'coefficients' is a section"),
    "column": ('"digits"\n', '"digits"\ndata.limt = 3\n', 7, "unknown option 'data.limt'"),
    "joint": (
        "train.epochs = 0",
        'train.epochs = 2\njoint.name = "knn"\njoint.form = "neighbors"',
        5,
        "joint.name is 'knn', which has nothing to train",
    ),
    "view": ("train.epochs = 0", "train.epochs = 0\nviews.flp = 1", 5, "unknown option 'views.flp'"),
    "device": ("train.epochs = 0", 'train.epochs = 0\ndevice = "tpu"', 5, "unknown device 'tpu'"),
    "comment": ("coefficients.name", "# enrgy is no model\ncoefficients.name", 9, "'enrgy'"),
    "row's name": ("[rows.knn]", "[rows.enrgy] # enrgy", 8, "'enrgy'"),
    "quoted row": ("[rows.knn]", '[ rows . "a row" ]', 8, "row 'a row': unknown coefficient model"),
    "inline": (
        '[rows.knn]\ncoefficients.name = "knn"',
        '[rows]\nknn = {coefficients.name = "enrgy"}',
        8,
        "'enrgy'",
    ),
    "dotted": ("[rows.knn]\ncoefficients", "[rows]\nknn.coefficients", 8, "'enrgy'"),
    "variable": ('"digits"', '"$EBSC_NOT_SET/x.npz"', 6, "environment variable $EBSC_NOT_SET is not set"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named_with_its_line(
    suite: MakeSuite, swapped: Swapped, registry: Registry, case: str
) -> None:
    old, new, line, said = MISTAKES[case]
    text = swapped(old, new)
    if said == "'enrgy'" or case == "quoted row":
        text = text.replace('"knn"', '"enrgy"')
    with pytest.raises(ConfigError) as error:
        suite(text).check(registry)
    message = str(error.value)
    assert f"suite.toml:{line}: row " in message, message
    assert said in message


def test_a_mistake_of_the_command_line_is_not_looked_for_in_the_file(
    suite: MakeSuite, good: str, registry: Registry
) -> None:
    with pytest.raises(ConfigError, match=r"^`settings`: row 'knn': unknown coefficient model 'enrgy'"):
        suite(good, ["coefficients.name=enrgy"]).check(registry)


def test_a_section_given_as_a_value_below_one_given_as_a_section(
    suite: MakeSuite, swapped: Swapped, registry: Registry
) -> None:
    text = swapped("[settings]", "[settings]\ntop_k = 3").replace("[rows.knn]", "[rows.knn]\ntop_k.x = 3")
    with pytest.raises(ConfigError, match=r"suite\.toml:9: row 'knn': cannot set 'top_k\.x'"):
        suite(text).check(registry)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title", "titel", "title"),
        ('"T"', "3", "'title': input should be a valid string, got 3"),
        ("[3, 4]", "[3, 3]", "seeds .* twice"),
        ("[3, 4]", "[]", "'seeds'"),
        ("[3, 4]", "3", "'seeds'.*got 3"),
        ("[3, 4]", "[3, -1]", r"'seeds\.1'.*got -1"),
        ("[3, 4]", "[4294967296]", r"'seeds\.0'.*got 4294967296"),
        ("[3, 4]", '["x"]', r"'seeds\.0'.*got 'x'"),
        ("[settings]", "[setings]", "unknown option 'setings': did you mean 'settings'"),
        ("[rows.knn]\ncoefficients.name", "[rows]\nknn", r"'rows\.knn'.*got 'knn'"),
        ('[rows.knn]\ncoefficients.name = "knn"', "", "'rows'"),
        ('[rows.knn]\ncoefficients.name = "knn"', "[rows]", "'rows'"),
        ('[rows.knn]\ncoefficients.name = "knn"', "[[rows]]\nx = 1", "'rows'"),
        ('[data.digits]\ndata.name = "digits"', "", "'data'"),
        ('[data.digits]\ndata.name = "digits"', "[data]", "'data'"),
        ("[rows.knn]", '[rows.""]', "empty name"),
        ("[rows.knn]", '[rows." "]', "empty name"),
        ("[settings]", 'baseline = "kn"\n[settings]', "baseline 'kn' is no row; rows are knn"),
        ("[settings]", '[baseline]\nknn = "kn"\n[settings]', "baseline 'kn' is no row; rows are knn"),
        ("[settings]", '[baseline]\nkn = "knn"\n[settings]', "baseline 'kn' is no row; rows are knn"),
        ("[settings]", '[baseline]\nknn = "knn"\n[settings]', "row 'knn' is its own baseline"),
        (
            "[settings]",
            "[baseline]\nknn = 3\n[settings]",
            "'baseline': input should be the name of a row, or",
        ),
        ("[settings]", "baseline = 3\n[settings]", "'baseline': input should be the name of a row, or"),
        ("[settings]", 'protocol = "train"\n[settings]', "'protocol': input should be 'all' or 'train-test'"),
        ("[settings]", "[[published]]\nacc = 1\n[settings]", r"'published\.0\.row'"),
        ("train.epochs = 0", 'protocol = "train-test"', r"\[settings\] cannot set 'protocol'"),
        ('"digits"', '"digits"\nseed = 3', r"\[data\.digits\] cannot set 'seed'; use `seeds`"),
        ('"knn"', '"knn"\nout = "x"', r"\[rows\.knn\] cannot set 'out'; use `out`"),
        ('"knn"', '"knn"\ncache = "none"', r"\[rows\.knn\] cannot set 'cache'; use `cache`"),
    ],
)
def test_what_is_no_suite(suite: MakeSuite, swapped: Swapped, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        suite(swapped(old, new))
    assert "suite.toml" in str(error.value)


def test_settings_need_not_be_there(suite: MakeSuite, swapped: Swapped) -> None:
    assert suite(swapped("[settings]\ntrain.epochs = 0", "")).file.settings == {}


PUBLISHED = '[[published]]\nrow = "{row}"\ndata = "{data}"\nprotocol = "all"\nsource = "a paper"\n'


@pytest.mark.parametrize(
    ("row", "data", "said"),
    [("EnSC", "digit", "'digit', which is no data set"), ("knn", "digits", "row 'knn'")],
)
def test_published_figures_of_nothing(suite: MakeSuite, good: str, row: str, data: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        suite(good + PUBLISHED.format(row=row, data=data))


@pytest.mark.parametrize("setting", ["protocol=train-test", "seed=3", "out=x", "cache=none"])
def test_what_the_command_line_has_other_means_for(suite: MakeSuite, good: str, setting: str) -> None:
    with pytest.raises(ConfigError, match="`settings` cannot set"):
        suite(good, [setting])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"title = = 3", "not valid TOML: .*line 1"),
        (b"\xff\xfe\x00", "not valid TOML"),
        (b'title = "a\nb"', "not valid TOML"),
        (b"", "missing"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "suite.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"suite\.toml.*{said}"):
        load_suite(tmp_path / "suite.toml")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml: No such file"):
        load_suite(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        load_suite(tmp_path)


def test_the_baseline_of_the_command_line_wins_and_must_be_a_row(suite: MakeSuite, good: str) -> None:
    text = 'baseline = "knn"\n' + good + "[rows.energy]\n"
    assert suite(text, baseline="energy").file.baseline == "energy"
    assert (
        suite(good + "[rows.energy]\n[baseline]\nenergy = 'knn'", baseline="energy").file.baseline == "energy"
    )
    with pytest.raises(ConfigError, match="baseline 'x' is no row; rows are knn, energy"):
        suite(text, baseline="x")


NAMES = [
    "a b",
    "quotes \"and\" 'these'",
    "dots.and.dots",
    "ünï",
    "a|b",
    "a\nb",
    "x" * 3000,
    "[a]",
    "#",
    "=",
    "-1",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_row_may_have_any_name(suite: MakeSuite, swapped: Swapped, registry: Registry, name: str) -> None:
    text = swapped('[rows.knn]\ncoefficients.name = "knn"\n', "")
    text += tomli_w.dumps({"rows": {name: {"coefficients": {"name": "knn"}}}})
    chosen = suite(text)
    chosen.check(registry)
    assert chosen.cells()[0].row == name
