"""Settings from a file, ``--set`` and flags, and what is said of wrong ones."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from ebsc_core.config.loading import load_config, overlay, parse_settings
from ebsc_core.config.schema import PROVENANCE, RunConfig
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.plan import make_plan
from ebsc_core.runs.store.directory import RunDirectory
from ebsc_core.utils.errors import ConfigError

WriteToml = Callable[[str], Path]


class TestPrecedence:
    def test_nothing_given(self) -> None:
        assert load_config() == RunConfig()

    def test_a_file_over_the_defaults(self, toml: WriteToml) -> None:
        assert load_config(toml("[train]\nepochs = 3")).train.epochs == 3

    def test_a_setting_over_the_file(self, toml: WriteToml) -> None:
        assert load_config(toml("[train]\nepochs = 3"), ["train.epochs=4"]).train.epochs == 4

    def test_a_flag_over_the_file(self, toml: WriteToml) -> None:
        assert load_config(toml("seed = 3"), flags={"seed": 5}).seed == 5

    @pytest.mark.parametrize(
        ("setting", "flags", "says"),
        [
            ("seed=4", {"seed": 5}, "`seed=5` and `settings=seed=4` contradict each other"),
            ("data={limit=4}", {"data.limit": 5}, "`data.limit=5` and `settings=data.limit=4`"),
            ("features.path=a.npy", {"features.path": "b.npy"}, "features.path=b.npy and `settings=feat"),
        ],
    )
    def test_a_flag_against_a_setting(self, setting: str, flags: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigError, match=re.escape(says)):
            load_config(settings=[setting], flags=flags)

    def test_a_flag_that_says_what_a_setting_says(self) -> None:
        flags = {"n_clusters": "5", "backbone.pretrained": True}
        config = load_config(settings=["n_clusters=5", "backbone.pretrained=true"], flags=flags)
        assert config.n_clusters == 5

    def test_the_last_of_two_settings(self) -> None:
        assert load_config(settings=["seed=4", "seed=5"]).seed == 5

    def test_a_flag_not_given_changes_nothing(self, toml: WriteToml) -> None:
        assert load_config(toml("seed = 3"), flags={"seed": None}).seed == 3

    def test_the_rest_of_a_section_stays(self, toml: WriteToml) -> None:
        config = load_config(toml("[train]\nepochs = 3\nlr = 0.5"), ["train.epochs=4"])
        assert (config.train.epochs, config.train.lr) == (4, 0.5)


class TestNamingAnotherPart:
    FILE = '[objective]\nname = "one"\ntemperature = 0.2\n'

    @pytest.mark.parametrize(
        ("settings", "flags"), [(["objective.name=two"], {}), ([], {"objective.name": "two"})]
    )
    def test_drops_the_file_s_options_of_the_old(
        self, toml: WriteToml, settings: list[str], flags: dict[str, str]
    ) -> None:
        config = load_config(toml(self.FILE), settings, flags)
        assert (config.objective.name, config.objective.options) == ("two", {})

    def test_keeps_options_given_for_the_new(self, toml: WriteToml) -> None:
        config = load_config(toml(self.FILE), ["objective.momentum=0.9"], {"objective.name": "two"})
        assert config.objective.options == {"momentum": 0.9}

    def test_naming_the_same_keeps_its_options(self, toml: WriteToml) -> None:
        config = load_config(toml(self.FILE), flags={"objective.name": "one"})
        assert config.objective.options == {"temperature": 0.2}

    def test_leaves_other_parts_alone(self, toml: WriteToml) -> None:
        config = load_config(toml(self.FILE), flags={"backbone.name": "two"})
        assert config.objective.options == {"temperature": 0.2}

    def test_keeps_the_settings_of_the_data_section(self, toml: WriteToml) -> None:
        file = toml('[data]\nname = "one"\nroot = "/images"\nlimit = 9\nsplit = "test"\n')
        config = load_config(file, flags={"data.name": "two"})
        assert (config.data.root, config.data.limit, config.data.options) == ("/images", 9, {})

    def test_keeps_the_settings_of_the_joint_section(self, toml: WriteToml) -> None:
        file = toml('[joint]\nname = "one"\nweight = 2.0\nhidden = 64\n')
        config = load_config(file, ["joint.name=two"])
        assert (config.joint.weight, config.joint.options) == (2.0, {})


class TestWrongSettings:
    @pytest.mark.parametrize(
        ("setting", "said"),
        [
            ("n_cluster=3", "unknown option 'n_cluster': did you mean 'n_clusters'?"),
            ("train.epoch=3", "unknown option 'train.epoch': did you mean 'train.epochs'?"),
            (
                "features={path='f', lables='y'}",
                "unknown option 'features.lables': did you mean 'features.labels'?",
            ),
            ("epochs=3", "unknown option 'epochs': did you mean 'train.epochs'?"),
            ("trian.epochs=3", "unknown option 'trian': did you mean 'train'?"),
            (
                "refine.zzz=3",
                "unknown option 'refine.zzz': known: steps, rows, queries, lr, weight_decay, clip",
            ),
            ("train.epochs=many", "option 'train.epochs': input should be a valid integer"),
            ("train.epochs=-1", "option 'train.epochs': input should be greater than or equal to 0, got -1"),
            ("train.lr=nan", "option 'train.lr': input should be "),
            ("joint.weight=inf", "option 'joint.weight': input should be a finite number"),
            (
                "joint.form=other",
                "option 'joint.form': input should be 'none', 'reconstruction' or 'neighbors'",
            ),
            (
                "n_clusters=1",
                "option 'n_clusters': input should be a whole number from 2 on, or 'auto'",
            ),
            ("data.limit=0", "option 'data.limit': input should be greater than 0, got 0"),
            ("seed.x=1", "option 'seed': input should be a valid integer"),
            ("train=3", "'train' is a section, not an option"),
            ("objective=simclr", "'objective' is a section, not an option"),
        ],
    )
    def test_are_named(self, setting: str, said: str) -> None:
        with pytest.raises(ConfigError) as error:
            load_config(settings=[setting])
        assert str(error.value).startswith(said)

    def test_how_many_more_there_are_is_said(self) -> None:
        with pytest.raises(ConfigError, match=r"and 2 more"):
            load_config(settings=["seed=a", "train.lr=b", "refine.lr=c"])

    @pytest.mark.parametrize("setting", ["seed", "", "=3", "train.=3", ".lr=3", "train..lr=3", " =3"])
    def test_malformed_ones_show_the_form(self, setting: str) -> None:
        with pytest.raises(ConfigError, match=r"not of the form section\.option=value"):
            load_config(settings=[setting])

    def test_a_value_where_the_file_should_have_a_section(self, toml: WriteToml) -> None:
        with pytest.raises(ConfigError, match="'objective' is given as a single value, not as a section"):
            load_config(toml('objective = "one"'), flags={"objective.name": "two"})

    def test_a_number_too_long_to_read_is_no_number(self) -> None:
        with pytest.raises(ConfigError, match="option 'seed'"):
            load_config(settings=["seed=" + "9" * 5000])


class TestWrongOptionsOfParts:
    @pytest.mark.parametrize(
        ("setting", "said"),
        [
            (
                "objective.temprature=1",
                r"'objective\.temprature': did you mean 'objective\.temperature'\?.*'simclr'",
            ),
            ("objective.temperature=hot", r"'objective\.temperature': input should be a valid number"),
            ("data.limt=3", r"'data\.limt': did you mean 'data\.limit'\?"),
            ("joint.wieght=3", r"'joint\.wieght': did you mean 'joint\.weight'\?"),
        ],
    )
    def test_are_named(self, setting: str, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            make_plan(load_config(settings=[setting]), Registry())


class TestFiles:
    def test_bad_toml_names_the_file_and_the_line(self, toml: WriteToml) -> None:
        with pytest.raises(ConfigError, match=r"config\.toml is not valid TOML: .*line 2"):
            load_config(toml("seed = 1\nseed 2"))

    def test_what_windows_writes_before_utf_8_is_no_part_of_it(self, toml: WriteToml) -> None:
        assert load_config(toml("\ufeffseed = 5")).seed == 5

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml: No such file"):
            load_config(tmp_path / "absent.toml")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot read"):
            load_config(tmp_path)

    def test_recorded_versions_are_not_settings(self, toml: WriteToml) -> None:
        assert load_config(toml(f'[{PROVENANCE}]\npython = "3.12"')) == RunConfig()

    def test_a_recorded_setting_that_is_gone_is_dropped_if_it_changed_nothing(self, toml: WriteToml) -> None:
        recorded = f'[{PROVENANCE}]\npython = "3.12"\n'
        assert not load_config(toml(f"[joint]\nmemory = 0\n{recorded}")).joint.options
        for kept in (f"[joint]\nmemory = 5\n{recorded}", "[joint]\nmemory = 0\n"):
            assert "memory" in load_config(toml(kept)).joint.options


FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.one_of(st.booleans(), st.integers(), FINITE, st.text())


class TestTypes:
    @given(SCALARS)
    def test_any_scalar_arrives_as_it_was_typed(self, value: Any) -> None:
        literal = tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip("\n")
        got = load_config(settings=[f"objective.option={literal}"]).objective.options["option"]
        assert (type(got), got) == (type(value), value)

    @given(st.from_regex(r"[A-Za-z_/~][\w./~-]*", fullmatch=True))
    def test_a_bare_word_arrives_as_text(self, word: str) -> None:
        expected = {"true": True, "false": False}.get(word, word)
        if word not in ("inf", "nan"):
            config = load_config(settings=[f"objective.option={word}"])
            assert config.objective.options["option"] == expected

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("1e-4", 1e-4),
            ("3", 3),
            ("inf", float("inf")),
            ("true", True),
            ("[1, 2]", [1, 2]),
            ("a = b", "a = b"),
            ("", ""),
        ],
    )
    def test_literals(self, setting: str, value: object) -> None:
        assert load_config(settings=[f"objective.option={setting}"]).objective.options["option"] == value


class TestParsing:
    def test_settings_become_tables(self) -> None:
        assert parse_settings(["train.epochs=3", "seed=1", "train.lr=0.5", "a.b.c=x"]) == {
            "train": {"epochs": 3, "lr": 0.5},
            "seed": 1,
            "a": {"b": {"c": "x"}},
        }

    def test_none_are_no_tables(self) -> None:
        assert parse_settings([]) == {}

    @pytest.mark.parametrize("settings", [["seed=1", "seed.x=1"], ["a.b=1", "a.b.c=1"]])
    def test_a_value_is_no_table(self, settings: list[str]) -> None:
        with pytest.raises(ConfigError, match="is given as a single value, not as a section"):
            parse_settings(settings)


TREES = st.recursive(
    SCALARS, lambda below: st.dictionaries(st.sampled_from(["a", "b", "train", "x"]), below, max_size=3)
).filter(lambda tree: isinstance(tree, dict))


class TestOverlay:
    @given(TREES)
    def test_of_nothing_or_over_nothing_is_the_same(self, tree: dict[str, Any]) -> None:
        assert repr(overlay(tree, {})) == repr(tree)
        assert repr(overlay({}, tree)) == repr(tree)

    @given(TREES, TREES)
    def test_leaves_both_as_they_were_and_shares_no_table(
        self, tree: dict[str, Any], over: dict[str, Any]
    ) -> None:
        before = repr((tree, over))
        with contextlib.suppress(ConfigError):
            merged = overlay(tree, over)
            for key in merged:
                if isinstance(merged[key], dict):
                    merged[key]["new"] = 1
        assert repr((tree, over)) == before

    def test_goes_table_by_table(self) -> None:
        tree, over = {"train": {"lr": 1, "epochs": 2}, "seed": 1}, {"train": {"lr": 3}, "n_clusters": 4}
        assert overlay(tree, over) == {"train": {"lr": 3, "epochs": 2}, "seed": 1, "n_clusters": 4}

    def test_three_layers_one_after_another(self) -> None:
        layers: list[dict[str, Any]] = [
            {"coefficients": {"name": "energy", "hidden": 64}},
            {"coefficients": {"name": "knn", "weighted": True}},
            {"coefficients": {"name": "energy"}},
        ]
        tree: dict[str, Any] = {}
        for layer in layers:
            tree = overlay(tree, layer)
        assert tree == {"coefficients": {"name": "energy"}}  # the options of each went with it

    def test_options_without_a_name_stay_for_whichever_part_is_named(self) -> None:
        tree = {"objective": {"temperature": 0.2}}
        assert overlay(tree, {"objective": {"name": "simclr"}})["objective"] == {
            "temperature": 0.2,
            "name": "simclr",
        }

    def test_a_list_is_replaced_whole(self) -> None:
        assert overlay({"a": [1, 2]}, {"a": [3]}) == {"a": [3]}

    def test_a_value_may_take_the_place_of_a_table_to_be_refused_later(self) -> None:
        assert overlay({"train": {"lr": 1}}, {"train": 3}) == {"train": 3}

    def test_a_table_in_place_of_a_value_is_named(self) -> None:
        with pytest.raises(ConfigError, match=r"cannot set 'seed\.x': 'seed' is given as a single value"):
            overlay({"seed": 1}, {"seed": {"x": 1}})


def round_trip(config: RunConfig) -> RunConfig:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        with RunDirectory(out) as directory:
            directory.write_config(config.model_dump(mode="json"))
        return load_config(out / "run.toml")


class TestRoundTrip:
    @given(
        name=st.none()
        | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
        option=SCALARS,
        limit=st.none() | st.integers(1),
        lr=st.floats(0, exclude_min=True, allow_infinity=False),
    )
    def test_a_written_configuration_reads_back_equal(
        self, name: str | None, option: Any, limit: int | None, lr: float
    ) -> None:
        tables = {"data": {"name": name, "limit": limit, "option": option}, "train": {"lr": lr}}
        config = RunConfig.model_validate(tables)
        assert round_trip(config) == config

    def test_a_path_that_is_not_utf_8_keeps_its_bytes(self) -> None:
        config = load_config(flags={"data.name": b"/photos/\xff\xe9.zip".decode(errors="surrogateescape")})
        assert round_trip(config) == config


def options_of(model: type[BaseModel], prefix: str = "") -> list[tuple[str, str | None]]:
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += options_of(field.annotation, f"{prefix}{name}.")
        else:
            found.append((prefix + name, field.description))
    return found


@pytest.mark.parametrize(("option", "description"), options_of(RunConfig), ids=lambda value: str(value)[:30])
def test_every_option_is_described(option: str, description: str | None) -> None:
    assert description, f"{option} has no docstring"
