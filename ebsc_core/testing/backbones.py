"""Check the contract of every backbone."""

from __future__ import annotations

from copy import deepcopy
from functools import cached_property

import torch
from torch import Tensor

from ebsc_core.plugins.interfaces import Backbone, ImageInfo
from ebsc_core.plugins.registry import Kind
from ebsc_core.testing import common
from ebsc_core.testing.checks import Contract, NotApplicable, require
from ebsc_core.testing.subject import Subject

BATCH, CHANNELS, SIDE = 4, 3, 32
# A backbone that fits something may need as many images as it has features.
TO_FIT = 640
INFO = ImageInfo(CHANNELS, SIDE, SIDE, (0.5,) * CHANNELS, (0.25,) * CHANNELS)


class BackboneSubject(Subject):
    """Hold a backbone under test, for colour images of 32x32."""

    def build(self, seed: int = 0) -> Backbone:
        """Build a new backbone, fit it to images, and leave it in training mode."""
        built = self.made(INFO, seed=seed)
        if isinstance(built, Backbone):
            built.fit(to_fit())
        return built

    @cached_property
    def shared(self) -> Backbone:
        """A backbone in evaluation mode that no check may change."""
        return self.build().eval()


contract = Contract(Kind.BACKBONE, BackboneSubject)


def images(n: int = BATCH, seed: int = 0) -> Tensor:
    """Make smooth random images ``(n, 3, 32, 32)``, floats in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, CHANNELS, SIDE // 4, SIDE // 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")
    return (smooth + 0.2 * torch.rand(n, CHANNELS, SIDE, SIDE, generator=generator)) / 1.2


def to_fit() -> Tensor:
    """Make images for :meth:`Backbone.fit`, ``(640, 3, 32, 32)`` uint8."""
    return (255 * images(TO_FIT, seed=1)).to(torch.uint8)


@contract.basic
def can_be_built(part: BackboneSubject) -> None:
    """Return an `ebsc_core.Backbone` from `factory(options, info)`; accept uint8 images in `fit`.

    A run builds the backbone with these calls. Here the images are 3x32x32.
    """
    built = part.build()
    require(isinstance(built, Backbone), f"it returned a {type(built).__name__}")


@contract.basic
def feature_width(part: BackboneSubject) -> None:
    """Return features of shape (B, `width`), and set `width` when the backbone is built.

    The objective and the coefficient model are built for this width before the first image is read.
    """
    width = part.made(INFO).width
    require(isinstance(width, int) and width > 0, f"width is {width!r}")
    common.require_shape(part.shared(images()), (BATCH, width), "the features")


@contract.basic
def feature_dtype(part: BackboneSubject) -> None:
    """Return float32 features of float32 images.

    The clustering compares float32. Float64 takes twice the memory, and float16 overflows.
    """
    actual = part.shared(images()).dtype
    require(actual == torch.float32, f"they are {actual}")


@contract.basic
def devices(part: BackboneSubject) -> None:
    """Compute on the device that the backbone was moved to.

    A constant that is not a buffer (`register_buffer`) stays on the CPU, and a run on a GPU stops at it.
    """
    for device in common.devices():
        actual = deepcopy(part.shared).to(device)(images().to(device))
        require(actual.device == device, f"images are on {device}, features on {actual.device}")


@contract.basic
def finite_features(part: BackboneSubject) -> None:
    """Return finite features, also of black and white images.

    One image with nan features is enough to make every cluster of a run meaningless.
    """
    common.require_finite(part.shared(images()), "the features")
    extremes = torch.stack([torch.zeros(CHANNELS, SIDE, SIDE), torch.ones(CHANNELS, SIDE, SIDE)])
    common.require_finite(part.shared(extremes), "the features of a black and a white image")


@contract.basic
def eval_is_deterministic(part: BackboneSubject) -> None:
    """Return the same features of the same images every time in evaluation mode.

    Features are extracted once and stored. Dropout or noise must stop with `eval()`.
    """
    first, second = part.shared(images()), part.shared(images())
    common.require_close(second, first, "two passes over the same images differ")


@contract.check
def weights_learn(part: BackboneSubject) -> None:
    """Let a finite gradient reach the trainable parameters, if there are any.

    Otherwise nothing is learned, even if the loss falls.
    """
    backbone = part.build().train()
    parameters = common.trainable(backbone)
    backbone(images()).square().sum().backward()
    common.require_finite_gradients(backbone, "of the features")
    reached = [name for name, value in parameters if value.grad is not None and bool((value.grad != 0).any())]
    require(bool(reached), "the gradient is missing or zero in every parameter")


@contract.check
def images_take_no_gradient(part: BackboneSubject) -> None:
    """Do not require a gradient of the images.

    The gradient would be computed and stored for every pixel of every batch, but nobody reads it.
    """
    batch = images()
    features = part.build().train()(batch)
    if features.requires_grad:
        features.sum().backward()
    common.require_no_gradient(images=batch)


@contract.check
def inputs_not_mutated(part: BackboneSubject) -> None:
    """Leave the images unchanged in `forward` and in `fit`.

    The images of a data set in memory are the data set itself. A change in place affects the next epoch.
    """
    batch, fitted = images(), to_fit()
    with common.untouched(images=batch, images_to_fit=fitted):
        part.made(INFO).fit(fitted)
        part.build().train()(batch)


@contract.check
def batch_of_one(part: BackboneSubject) -> None:
    """Return the same features of an image alone as in a batch, in evaluation mode.

    The last batch may contain one image, and new images come alone. Batch statistics are for training only.
    """
    alone = torch.cat([part.shared(images()[i : i + 1]) for i in range(BATCH)])
    common.require_close(
        alone, part.shared(images()), "features of single images differ from those in a batch"
    )


@contract.check
def channels_last(part: BackboneSubject) -> None:
    """Return the same features of images in channels-last layout.

    Runs use this layout because convolutions are faster. `view` fails on it, `flatten` does not.
    """
    actual = part.shared(images().contiguous(memory_format=torch.channels_last))
    common.require_close(actual, part.shared(images()), "the features differ between layouts")


@contract.check
def bfloat16(part: BackboneSubject) -> None:
    """Return finite features under autocast to bfloat16.

    Runs use bfloat16 wherever it is faster.
    """
    with torch.autocast("cpu", torch.bfloat16):
        actual = part.shared(images())
    common.require_finite(actual, "the features")


@contract.check
def same_seed_same_weights(part: BackboneSubject) -> None:
    """Make the same weights when built with the same seed and fitted to the same images.

    The same seed must give the same run. Only torch's generator is seeded, not NumPy's and not `random`.
    """
    common.require_same_weights(part.build(3), part.build(3))


@contract.check
def fit_keeps_shapes(part: BackboneSubject) -> None:
    """Store the results of `fit` in buffers whose shapes are fixed when the backbone is built.

    Before weights are loaded, their shapes are compared with those of a newly built backbone.
    """
    if not _fits(part):
        raise NotApplicable("it has nothing to fit")
    built = {name: value.shape for name, value in part.made(INFO).state_dict().items()}
    for name, value in part.shared.state_dict().items():
        require(built.get(name) == value.shape, f"{name} was {built.get(name)} and is {value.shape} now")


@contract.check
def weights_survive_a_file(part: BackboneSubject) -> None:
    """Return the same features after weights are saved and loaded into another backbone.

    State that is neither parameter nor buffer is lost, and new images get other features than those of the
    run.
    """
    other = part.made(INFO, seed=5)
    common.through_a_file(part.shared, other)
    expected = part.shared(images())
    common.require_close(other.eval()(images()), expected, "the features differ after loading")


@contract.check
def can_be_copied(part: BackboneSubject) -> None:
    """Support deep copies: a copy has the same features and shares no weights.

    Objectives with a teacher keep a copy of the backbone that follows it slowly.
    """
    copy = deepcopy(part.shared)
    common.require_close(copy(images()), part.shared(images()), "the copy's features differ")
    shared = {p.data_ptr() for p in copy.parameters()} & {p.data_ptr() for p in part.shared.parameters()}
    require(not shared, f"{len(shared)} parameters of the copy are those of the original")


@contract.check
def inference_gives_the_same(part: BackboneSubject) -> None:
    """Return a module from `for_inference` with the same features, and leave the backbone unchanged.

    Its features are those that are stored and clustered, and training may go on with the backbone after it.
    """
    if type(part.shared).for_inference is Backbone.for_inference:
        raise NotApplicable("it extracts features itself")
    backbone = deepcopy(part.shared)
    with torch.no_grad():
        backbone.train()(images(seed=2))  # statistics of batch norm are no longer those it starts with
        before = {name: value.clone() for name, value in backbone.eval().state_dict().items()}
        expected, actual = backbone(images()), backbone.for_inference()(images())
    after = backbone.state_dict()
    changed = [name for name in before if name not in after or not torch.equal(after[name], before[name])]
    require(not changed, f"the backbone's own weights changed: {', '.join(changed[:3])}")
    common.require_close(actual, expected, "the features differ from the backbone's")


def _fits(part: BackboneSubject) -> bool:
    return type(part.shared).fit is not Backbone.fit


common.add_options_checks(contract)
