"""Say what the features of a run depend on; the digest of this is their key in the cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ebsc_core.data.images.source import ImageSource
from ebsc_core.plugins.interfaces import Backbone
from ebsc_core.plugins.selection import SOURCE
from ebsc_core.runs.plan import ImagePlan
from ebsc_core.runs.resolve import ResolvedSettings
from ebsc_core.training.extract import varies_with_seed
from ebsc_core.utils.weights import weights_digest


def made_from(
    plan: ImagePlan, resolved: ResolvedSettings, images: ImageSource, backbone: Backbone, bf16: bool
) -> dict[str, Any]:
    """Return everything that the features depend on: no coefficient model, no clusterer, no labels.

    This takes a pass over all pixels.

    Parameters
    ----------
    bf16 : bool
        Whether they are extracted in bf16.
    """
    config = plan.config
    made_from: dict[str, Any] = {"images": images.digest(), "backbone": plan.backbone.record()}
    if backbone.pretrained:
        made_from["weights"] = weights_digest(backbone)
    if bf16:
        made_from["precision"] = "bf16"
    if varies_with_seed(backbone, resolved.trains, plan.backbone.is_ours):
        made_from["seed"] = config.seed
    if not resolved.trains:
        return made_from
    train = config.train.resolved().model_dump(mode="json") | {"batch_size": resolved.batch_size}
    if config.train.optimizer == "adamw":  # keys of the time before there was a choice have none
        del train["optimizer"]
    made_from |= {
        "objective": plan.objective.record(),
        "views": resolved.views.model_dump(mode="json", by_alias=True),
        "train": train,
    }
    if plan.joint:
        made_from["joint"] = {
            "model": plan.joint.record(),
            "express": resolved.express,
            "whiten": resolved.joint_whiten,
            "start": config.joint.warm_up,
            **config.joint.model_dump(mode="json", include={"form", "weight"}),
        }
        if config.joint.uses_graph:
            made_from["joint"] |= {
                **config.joint.model_dump(mode="json", include={"renew", "share", "pixels"}),
                "n_clusters": resolved.n_clusters,
            }
    return made_from


def resumable_from(made_from: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a resumed training depends on: all but the batch size and the state of components.

    Whoever goes on after another batch size or version is warned. Only a run that is resumed takes up its
    training with another batch size.
    """
    train = {name: value for name, value in made_from["train"].items() if name != "batch_size"}
    return _without_versions({**made_from, "train": train})


def _without_versions(record: Any) -> Any:
    """Remove the versions from the records of components, and the digests of their source."""
    if not isinstance(record, dict):
        return record
    return {
        name: value.rpartition(" ")[0] if name == "from" else _without_versions(value)
        for name, value in record.items()
        if name != SOURCE
    }
