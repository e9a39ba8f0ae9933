"""Which random views an image gets: the options, and the policy for images of a kind.

Drawn for every image of a batch by :mod:`ebsc_core.data.views.parameters`, made of its pixels by
:mod:`ebsc_core.data.views.apply`.
"""

from __future__ import annotations

from pydantic import Field

from ebsc_core.config.options import Options
from ebsc_core.plugins.interfaces import ImageInfo


class ViewOptions(Options):
    """How views are drawn. Amplitudes are half-widths around the unchanged image; 0 turns one off.

    Serialization aliases are the first names of the options. Digests of trained features are made of those,
    so that features which are cached already are found.
    """

    crop: float = Field(gt=0, le=1)
    """Smallest share of the image's area a crop keeps."""
    aspect: float = Field(4 / 3, ge=1)
    """Largest ratio of a crop's sides."""
    flip: float = Field(ge=0, le=1)
    """Chance of a left-right flip."""
    rotate: float = Field(ge=0, le=180)
    """Largest rotation, in degrees."""
    brightness: float = Field(ge=0, le=1)
    """Largest relative change of brightness."""
    contrast: float = Field(ge=0, le=1)
    """Largest relative change of contrast, around the image's own mean."""
    saturation: float = Field(0.0, ge=0, le=1)
    """Largest relative change of saturation (colour images)."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Largest rotation of the hue, in turns (colour images)."""
    exact_hue: bool = False
    """Rotate the hue of HSV, as torchvision does, instead of that of YIQ, a close relative that keeps luma
    and costs nothing beside the other changes of colour. Images to be greyed are greyed before either."""
    jitter_prob: float = Field(0.8, ge=0, le=1, serialization_alias="jitter")
    """Chance that an image's colours (or grey levels) are changed at all."""
    gray_prob: float = Field(0.0, ge=0, le=1, serialization_alias="grey")
    """Chance that a colour image is turned grey."""
    blur_prob: float = Field(0.0, ge=0, le=1, serialization_alias="blur")
    """Chance of a Gaussian blur (sigma 0.1 to 2 pixels, kernel a tenth of the image)."""
    noise: float = Field(0.0, ge=0, le=1)
    """Standard deviation of Gaussian noise added to values in [0, 1]."""


COLOR_VIEWS = ViewOptions(
    crop=0.2, flip=0.5, rotate=0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, gray_prob=0.2
)
"""SimCLR's views (arXiv:2002.05709, appendix A) with the milder jitter usual at 32 pixels."""

GRAY_VIEWS = ViewOptions(crop=0.7, flip=0.0, rotate=15, brightness=0.4, contrast=0.4)
"""For digits and faces, which fill their frame: a mirrored 2 is no 2, and light changes more than pose."""


def default_views(info: ImageInfo) -> ViewOptions:
    """The policy for these images: by colour, with blur from 64 pixels on as in SimCLR."""
    if info.channels == 1:
        return GRAY_VIEWS
    large = min(info.height, info.width) >= 64
    return COLOR_VIEWS.model_copy(update={"blur_prob": 0.5}) if large else COLOR_VIEWS
