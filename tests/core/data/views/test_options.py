"""The views an image gets when the user asks for none, and options under their first names."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from ebsc_core.config.loading import load_config
from ebsc_core.config.schema import RENAMED_VIEWS, RunConfig
from ebsc_core.data.views.options import ViewOptions, default_views
from ebsc_core.plugins.interfaces import ImageInfo
from ebsc_core.utils.hashing import digest


def info(channels: int, side: int) -> ImageInfo:
    return ImageInfo(channels, side, side, (0.5,) * channels, (0.2,) * channels)


def test_defaults_never_mirror_or_color_gray_images() -> None:
    gray = default_views(info(1, 28))
    assert gray.flip == 0
    assert gray.rotate > 0


def test_defaults_blur_large_photographs_only() -> None:
    assert default_views(info(3, 32)).blur_prob == 0
    assert default_views(info(3, 96)).blur_prob > 0
    assert default_views(info(3, 32)).flip == 0.5


@pytest.mark.parametrize(("old", "new"), RENAMED_VIEWS.items())
def test_first_names_of_options_still_work(tmp_path: Path, old: str, new: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f"[views]\n{old} = 0.25\n")
    assert load_config(file).views == {new: 0.25}
    assert load_config(settings=[f"views.{old}=0.25"]).views == {new: 0.25}


def test_of_two_names_of_an_option_the_later_counts(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    for first, second in (("grey", "gray_prob"), ("gray_prob", "grey")):
        file.write_text(f"[views]\n{first} = 0.25\n")
        assert load_config(file, [f"views.{second}=0.5"]).views == {"gray_prob": 0.5}
    with pytest.raises(ValidationError):
        RunConfig.model_validate({"views": "none"})


def test_digests_of_views_are_those_of_the_first_names() -> None:
    record = default_views(info(1, 28)).model_dump(mode="json", by_alias=True)
    assert record.keys() >= RENAMED_VIEWS.keys()
    assert digest(record) == "d359a7edc97127223d15cc0f"
    assert len(record) == len(ViewOptions.model_fields)
