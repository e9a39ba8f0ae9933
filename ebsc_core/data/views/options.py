"""Define the options of random views, and the default policy for grey and colour images.

:mod:`ebsc_core.data.views.parameters` draws the parameters of every image, and
:mod:`ebsc_core.data.views.apply` computes the view from the pixels.
"""

from __future__ import annotations

from pydantic import Field

from ebsc_core.config.options import Options
from ebsc_core.plugins.interfaces import ImageInfo


class ViewOptions(Options):
    """Hold how views are drawn.

    Amplitudes are half-widths around the unchanged image. An amplitude of 0 turns a change off.

    Serialization aliases are the old names of the options. The digests of trained features use the old
    names, so that cached features are still found.
    """

    crop: float = Field(gt=0, le=1)
    """The smallest share of the image's area that a crop keeps."""
    aspect: float = Field(4 / 3, ge=1)
    """The largest ratio of a crop's sides."""
    flip: float = Field(ge=0, le=1)
    """The probability of a left-right flip."""
    rotate: float = Field(ge=0, le=180)
    """The largest rotation, in degrees."""
    brightness: float = Field(ge=0, le=1)
    """The largest relative change of brightness."""
    contrast: float = Field(ge=0, le=1)
    """The largest relative change of contrast, around the image's own mean."""
    saturation: float = Field(0.0, ge=0, le=1)
    """The largest relative change of saturation (colour images only)."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """The largest rotation of the hue, in turns (colour images only)."""
    exact_hue: bool = False
    """If true, the hue is rotated in HSV, as torchvision does. If false, it is rotated in YIQ, which is
    similar, keeps luma and adds no time to the other changes of colour. Greying comes before either."""
    jitter_prob: float = Field(0.8, ge=0, le=1, serialization_alias="jitter")
    """The probability that the colours (or grey levels) of an image are changed at all."""
    gray_prob: float = Field(0.0, ge=0, le=1, serialization_alias="grey")
    """The probability that a colour image is turned grey."""
    blur_prob: float = Field(0.0, ge=0, le=1, serialization_alias="blur")
    """The probability of a Gaussian blur (sigma 0.1 to 2 pixels, kernel a tenth of the image)."""
    noise: float = Field(0.0, ge=0, le=1)
    """The standard deviation of Gaussian noise added to values in [0, 1]."""


COLOR_VIEWS = ViewOptions(
    crop=0.2, flip=0.5, rotate=0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, gray_prob=0.2
)
"""The views of SimCLR (arXiv:2002.05709, appendix A), with the weaker jitter that is usual at 32 pixels."""

GRAY_VIEWS = ViewOptions(crop=0.7, flip=0.0, rotate=15, brightness=0.4, contrast=0.4)
"""The views of digits and faces, which fill their frame. A mirrored 2 is not a 2, and light changes more
than pose."""


def default_views(info: ImageInfo) -> ViewOptions:
    """Return the policy for grey or colour images.

    Colour images of 64 pixels or more are blurred, as in SimCLR.
    """
    if info.channels == 1:
        return GRAY_VIEWS
    large = min(info.height, info.width) >= 64
    return COLOR_VIEWS.model_copy(update={"blur_prob": 0.5}) if large else COLOR_VIEWS
