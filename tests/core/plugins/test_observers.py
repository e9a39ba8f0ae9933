"""Who is told of a run, where several processes train."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebsc_core.config.schema import RunConfig
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.image_pipeline import ImagePipeline
from ebsc_core.runs.plan import make_plan
from ebsc_core.utils.distributed import DistributedContext
from ebsc_core.utils.progress import Progress


@pytest.mark.parametrize(("index", "told"), [(0, 1), (1, 0)])
def test_only_the_first_process_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, index: int, told: int
) -> None:
    pytest.importorskip("tensorboard", reason="the extra ebsc[tensorboard] is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DistributedContext, "join", lambda device: DistributedContext(index, 1))
    config = RunConfig(observers={"tensorboard": {}}, device="cpu")
    pipeline = ImagePipeline(make_plan(config, Registry()), Progress())  # type: ignore[arg-type]
    assert len(pipeline.observers.listening) == told
