"""Images are scaled and cropped as timm's own transform does it, one by one, with Pillow."""

from __future__ import annotations

import numpy as np
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import Normalize

from ebsc_plugins.backbones.framing import Framing


def config(**changes: object) -> dict[str, object]:
    stated = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg("resnet18").to_dict())
    return stated | changes


@settings(max_examples=25)
@given(
    height=st.integers(20, 80),
    width=st.integers(20, 80),
    size=st.integers(16, 64),
    crop=st.sampled_from([0.875, 0.95, 1.0]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    mode=st.sampled_from(["center", "squash"]),
)
def test_it_does_what_timm_does(
    height: int, width: int, size: int, crop: float, interpolation: str, mode: str
) -> None:
    coarse = np.random.default_rng(height * width).integers(0, 256, (5, 6, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    stated = config(input_size=(3, size, size), crop_pct=crop, interpolation=interpolation, crop_mode=mode)
    transform = create_transform(**stated)
    transform.transforms = [step for step in transform.transforms if not isinstance(step, Normalize)]
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    framed = Framing.of(stated, None)(pixels)
    assert framed.shape == (1, 3, size, size)
    expected = transform(picture)[None]
    assert (framed - expected).abs().max() < 0.02  # Pillow rounds to whole levels after each pass
    assert 0 <= framed.min() <= framed.max() <= 1


def test_images_of_the_size_stay_as_they_are() -> None:
    pixels = torch.rand(2, 3, 32, 32)
    assert torch.equal(Framing(32, 32)(pixels), pixels)
    assert torch.equal(Framing(24, 32)(pixels), pixels[:, :, 4:28, 4:28])


def test_the_words_say_size_filter_and_crop() -> None:
    stated = config(crop_pct=0.875, interpolation="bilinear")
    assert Framing.of(stated, None).describe() == "images brought to 224x224 (bilinear, the centre of 256)"
    assert Framing.of(stated, 64).describe() == "images brought to 64x64 (bilinear, the centre of 73)"
    assert Framing(32, 32).describe() == "images brought to 32x32 (bicubic)"
