"""Settings of the joint phase: its forms, their beginnings, and settings that a form has no use for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ebsc_core.config.loading import checked, load_config, write_toml
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.plan import ImagePlan, make_plan
from ebsc_core.utils.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "first"),
    [
        ([], 8),
        (["joint.form=reconstruction"], 2),
        (["joint.form=reconstruction", "joint.pixels=true"], 2),
        (["joint.form=neighbors"], 0),
        (["joint.form=neighbors", "joint.pixels=false"], 2),
        (["joint.form=neighbors", "joint.start=0.5"], 4),
        (["joint.form=none", "joint.start=0.5"], 8),
    ],
)
def test_each_form_of_the_joint_phase_has_its_own_beginning(given: list[str], first: int) -> None:
    assert load_config(settings=given).joint.first_epoch(8) == first


def test_a_recorded_run_takes_another_form_with_its_own_beginning(tmp_path: Path) -> None:
    """What a run without a joint phase has recorded says nothing of when one begins."""
    write_toml(tmp_path / "run.toml", load_config().model_dump(mode="json"))
    joint = load_config(tmp_path / "run.toml", ["joint.form=neighbors"]).joint
    assert joint.first_epoch(8) == 0


class TestSettingsOfTheJointPhase:
    @pytest.mark.parametrize("setting", ["start=0.5", "weight=0.1", "name=energy", "hidden=64"])
    def test_need_a_form(self, setting: str) -> None:
        said = rf"'joint\.{setting.partition('=')[0]}' says nothing without a .* `joint\.form=reconstruction`"
        with pytest.raises(ConfigError, match=said):
            make_plan(load_config(settings=[f"joint.{setting}"]), Registry())

    @pytest.mark.parametrize("setting", ["pixels=false", "share=0.5", "renew=3"])
    def test_of_neighbors_need_this_form(self, setting: str) -> None:
        with pytest.raises(ConfigError, match=r"or add `joint\.form=neighbors`$"):
            make_plan(load_config(settings=[f"joint.{setting}"]), Registry())

    def test_a_start_that_leaves_no_epoch_asks_for_the_default(self) -> None:
        plan = make_plan(load_config(settings=["joint.start=1"]), Registry())
        assert isinstance(plan, ImagePlan)
        assert plan.joint is None

    @pytest.mark.parametrize("form", ["none", "reconstruction"])
    def test_are_checked_even_where_no_such_phase_comes(self, form: str) -> None:
        given = [f"joint.form={form}", "joint.start=1", "joint.wieght=3"]
        with pytest.raises(ConfigError, match=r"did you mean 'joint\.weight'"):
            make_plan(load_config(settings=given), Registry())

    @pytest.mark.parametrize(
        ("given", "idle"),
        [
            ({"form": "none", "weight": 0.2, "hidden": 64}, ["weight", "hidden"]),
            ({"form": "none", "weight": 0.1}, []),
            ({"form": "reconstruction", "share": 0.5, "weight": 0.2, "hidden": 64}, ["share"]),
            ({"form": "neighbors", "share": 0.5, "renew": 3}, []),
        ],
    )
    def test_are_named_if_the_form_has_no_use_for_them(self, given: dict[str, Any], idle: list[str]) -> None:
        config = checked({"joint": given})
        assert config.joint.without_effect() == idle
        make_plan(config, Registry())  # a form that is given is taken, whatever else is there
