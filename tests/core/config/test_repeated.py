"""The configuration of a run, repeated with other components: these decide for themselves again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ebsc_core.config.loading import load_config
from ebsc_core.config.schema import PROVENANCE, RunConfig, has_joint_phase

WriteToml = Callable[[str], Path]


class TestRecordedComponents:
    """A run has resolved settings for its components, which other components do not want."""

    RUN = f"""
top_k = 6
whiten = "neighbors"
express = "features"
backbone.name = "test_resnet"
train.epochs = 0
train.lr = 0.5
affinity.form = "unweighted"
refine.steps = 0
coefficients = {{name = "energy", hidden = 3}}
objective.name = "simclr"
[{PROVENANCE}]
python = "3.12"
"""

    def test_another_coefficient_model_has_its_own_settings(self, toml: WriteToml) -> None:
        config = load_config(toml(self.RUN), flags={"coefficients.name": "senet"})
        new = RunConfig()
        assert (config.top_k, config.whiten) == (new.top_k, new.whiten)
        assert (config.refine, config.affinity) == (new.refine, new.affinity)
        assert not config.refine.model_fields_set
        assert config.express == "features"

    def test_what_is_given_counts(self, toml: WriteToml) -> None:
        config = load_config(toml(self.RUN), ["top_k=4"], flags={"coefficients.name": "senet"})
        assert config.top_k == 4

    @pytest.mark.parametrize("flags", [{}, {"coefficients.name": "energy"}, {"seed": 3}])
    def test_the_same_model_keeps_them(self, toml: WriteToml, flags: dict[str, Any]) -> None:
        config = load_config(toml(self.RUN), flags=flags)
        assert (config.top_k, config.whiten, config.affinity.form) == (6, "neighbors", "unweighted")

    def test_another_objective_expresses_what_it_prefers(self, toml: WriteToml) -> None:
        assert load_config(toml(self.RUN), flags={"objective.name": "byol"}).express == RunConfig().express

    def test_another_backbone_trains(self, toml: WriteToml) -> None:
        config = load_config(toml(self.RUN), flags={"backbone.name": "resnet18"})
        assert "epochs" not in config.train.model_fields_set
        assert config.train.lr == 0.5
        trained = toml(self.RUN.replace("epochs = 0", "epochs = 7"))
        assert load_config(trained, flags={"backbone.name": "resnet18"}).train.epochs == 7

    @pytest.mark.parametrize("start", ["backbone.pretrained = true", 'backbone.weights = "w.pth"'])
    def test_a_start_from_scratch_trains(self, toml: WriteToml, start: str) -> None:
        option = start.partition(" ")[0]
        given = {option: False if option.endswith("pretrained") else ""}
        frozen = self.RUN.replace("train.epochs", f"{start}\ntrain.epochs")
        assert "epochs" not in load_config(toml(frozen), flags=given).train.model_fields_set
        assert load_config(toml(frozen), flags={"seed": 3}).train.epochs == 0
        trained_on = frozen.replace("epochs = 0", "epochs = 7")
        assert load_config(toml(trained_on), flags=given).train.epochs == 7

    @pytest.mark.parametrize("given", [{"backbone.pretrained": True}, {"backbone.weights": "w.pth"}])
    def test_trained_weights_stay_as_they_are(self, toml: WriteToml, given: dict[str, Any]) -> None:
        run = self.RUN.replace("epochs = 0", "epochs = 40")
        for also in ({}, {"backbone.name": "resnet18"}):
            assert "epochs" not in load_config(toml(run), flags=given | also).train.model_fields_set
        assert load_config(toml(run), flags=given | {"train.epochs": 5}).train.epochs == 5
        assert load_config(toml(run), flags={"backbone.stem": "plain"}).train.epochs == 40

    def test_another_optimizer_has_its_own_rates(self, toml: WriteToml) -> None:
        run = toml(self.RUN.replace("train.lr = 0.5", "train.lr = 0.001\ntrain.weight_decay = 0.0001"))
        config = load_config(run, ["train.optimizer=sgd"])
        assert (config.train.lr, config.train.weight_decay) == (None, None)
        assert config.train.resolved().lr == 0.12
        assert load_config(run, ["train.optimizer=sgd", "train.lr=0.3"]).train.lr == 0.3
        for same in ([], ["train.optimizer=adamw"], ["train.batch_size=64"]):
            assert load_config(run, same).train.weight_decay == 0.0001

    def test_a_file_that_a_person_has_written_keeps_all(self, toml: WriteToml) -> None:
        written = toml(self.RUN.partition(f"[{PROVENANCE}]")[0])
        assert load_config(written, flags={"coefficients.name": "senet"}).top_k == 6
        assert load_config(written, ["train.optimizer=sgd"]).train.lr == 0.5


@pytest.mark.parametrize(("start", "epochs", "joint"), [(0.8, 2, False), (0.75, 2, False), (0.7, 2, True)])
def test_a_joint_phase_that_would_begin_after_the_last_epoch_is_none(
    start: float, epochs: int, joint: bool
) -> None:
    config = load_config(
        settings=["joint.form=reconstruction", f"joint.start={start}", f"train.epochs={epochs}"]
    )
    assert has_joint_phase(config) is joint
