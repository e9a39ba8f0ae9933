"""What every backbone owes the framework."""

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
# Backbones that fit something may want as many images as they have features.
TO_FIT = 640
INFO = ImageInfo(CHANNELS, SIDE, SIDE, (0.5,) * CHANNELS, (0.25,) * CHANNELS)


class BackboneSubject(Subject):
    """A backbone under test, for colour images of 32x32."""

    def build(self, seed: int = 0) -> Backbone:
        """One of its own that has been told the images to fit to, in training mode."""
        built = self.made(INFO, seed=seed)
        if isinstance(built, Backbone):
            built.fit(to_fit())
        return built

    @cached_property
    def shared(self) -> Backbone:
        """One that no check may change, in evaluation mode."""
        return self.build().eval()


contract = Contract(Kind.BACKBONE, BackboneSubject)


def images(n: int = BATCH, seed: int = 0) -> Tensor:
    """Smooth random images ``(n, 3, 32, 32)``, floats in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, CHANNELS, SIDE // 4, SIDE // 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")
    return (smooth + 0.2 * torch.rand(n, CHANNELS, SIDE, SIDE, generator=generator)) / 1.2


def to_fit() -> Tensor:
    """Images for :meth:`Backbone.fit`, ``(640, 3, 32, 32)`` uint8."""
    return (255 * images(TO_FIT, seed=1)).to(torch.uint8)


@contract.basic
def can_be_built(part: BackboneSubject) -> None:
    """`factory(options, info)` returns an `ebsc_core.Backbone`, and `fit(images)` takes uint8 images.

    That is how a run builds it, for images of 3x32x32 here.
    """
    built = part.build()
    require(isinstance(built, Backbone), f"it returned a {type(built).__name__}")


@contract.basic
def feature_width(part: BackboneSubject) -> None:
    """Features of B images are (B, `width`), and `width` is known as soon as it is built.

    The objective and the coefficient model are built for that width before the first image is seen.
    """
    width = part.made(INFO).width
    require(isinstance(width, int) and width > 0, f"width is {width!r}")
    common.require_shape(part.shared(images()), (BATCH, width), "the features")


@contract.basic
def feature_dtype(part: BackboneSubject) -> None:
    """Features of float32 images are float32.

    What compares them is float32; float64 takes twice the memory, and float16 overflows.
    """
    actual = part.shared(images()).dtype
    require(actual == torch.float32, f"they are {actual}")


@contract.basic
def devices(part: BackboneSubject) -> None:
    """Moved to a device, it computes there.

    A constant that is no buffer (`register_buffer`) stays on the CPU, and a run on a GPU stops at it.
    """
    for device in common.devices():
        actual = deepcopy(part.shared).to(device)(images().to(device))
        require(actual.device == device, f"images are on {device}, features on {actual.device}")


@contract.basic
def finite_features(part: BackboneSubject) -> None:
    """Features are finite, also those of black and white images.

    One image whose features are nan is enough to make every cluster of a run meaningless.
    """
    common.require_finite(part.shared(images()), "the features")
    extremes = torch.stack([torch.zeros(CHANNELS, SIDE, SIDE), torch.ones(CHANNELS, SIDE, SIDE)])
    common.require_finite(part.shared(extremes), "the features of a black and a white image")


@contract.basic
def eval_is_deterministic(part: BackboneSubject) -> None:
    """In evaluation mode the same images have the same features every time.

    Features are extracted once and kept; dropout or noise must end with `eval()`.
    """
    first, second = part.shared(images()), part.shared(images())
    common.require_close(second, first, "two passes over the same images differ")


@contract.check
def weights_learn(part: BackboneSubject) -> None:
    """Where there are parameters to train, a gradient reaches them, and it is finite.

    Otherwise nothing is learned, however the loss behaves.
    """
    backbone = part.build().train()
    parameters = common.trainable(backbone)
    backbone(images()).square().sum().backward()
    common.require_finite_gradients(backbone, "of the features")
    reached = [name for name, value in parameters if value.grad is not None and bool((value.grad != 0).any())]
    require(bool(reached), "the gradient is missing or zero in every parameter")


@contract.check
def images_take_no_gradient(part: BackboneSubject) -> None:
    """The images are not asked for a gradient.

    It would be computed and held for every pixel of every batch, and nobody reads it.
    """
    batch = images()
    features = part.build().train()(batch)
    if features.requires_grad:
        features.sum().backward()
    common.require_no_gradient(images=batch)


@contract.check
def inputs_not_mutated(part: BackboneSubject) -> None:
    """The images are left as they are, by `forward` and by `fit`.

    Those of a data set in memory are the data set: normalised in place, they are others in the next epoch.
    """
    batch, fitted = images(), to_fit()
    with common.untouched(images=batch, images_to_fit=fitted):
        part.made(INFO).fit(fitted)
        part.build().train()(batch)


@contract.check
def batch_of_one(part: BackboneSubject) -> None:
    """In evaluation mode an image has the same features alone as in a batch.

    The last batch may hold one image, and a new one is shown alone; statistics of the batch are for training.
    """
    alone = torch.cat([part.shared(images()[i : i + 1]) for i in range(BATCH)])
    common.require_close(
        alone, part.shared(images()), "features of single images differ from those in a batch"
    )


@contract.check
def channels_last(part: BackboneSubject) -> None:
    """Images laid out channels-last have the same features.

    Runs use that layout, in which convolutions are faster; `view` stumbles over it, `flatten` does not.
    """
    actual = part.shared(images().contiguous(memory_format=torch.channels_last))
    common.require_close(actual, part.shared(images()), "the features differ between layouts")


@contract.check
def bfloat16(part: BackboneSubject) -> None:
    """Under autocast to bfloat16 the features stay finite.

    Runs compute so wherever it is faster.
    """
    with torch.autocast("cpu", torch.bfloat16):
        actual = part.shared(images())
    common.require_finite(actual, "the features")


@contract.check
def same_seed_same_weights(part: BackboneSubject) -> None:
    """Built under the same seed, and fitted to the same images, it has the same weights.

    The same seed is the same run. Only torch's generator is seeded: not NumPy's, not `random`.
    """
    common.require_same_weights(part.build(3), part.build(3))


@contract.check
def fit_keeps_shapes(part: BackboneSubject) -> None:
    """What `fit` learns goes into buffers whose shapes are known before.

    Weights are checked against a newly built backbone before they are loaded.
    """
    if not _fits(part):
        raise NotApplicable("it has nothing to fit")
    built = {name: value.shape for name, value in part.made(INFO).state_dict().items()}
    for name, value in part.shared.state_dict().items():
        require(built.get(name) == value.shape, f"{name} was {built.get(name)} and is {value.shape} now")


@contract.check
def weights_survive_a_file(part: BackboneSubject) -> None:
    """Its weights, saved and loaded into another, give the same features.

    What is neither parameter nor buffer is lost, and features of new images are not those of the run.
    """
    other = part.made(INFO, seed=5)
    common.through_a_file(part.shared, other)
    expected = part.shared(images())
    common.require_close(other.eval()(images()), expected, "the features are others after loading")


@contract.check
def can_be_copied(part: BackboneSubject) -> None:
    """A deep copy has the same features and shares no weights.

    Objectives with a teacher keep a slowly moving copy of the backbone.
    """
    copy = deepcopy(part.shared)
    common.require_close(copy(images()), part.shared(images()), "the copy's features differ")
    shared = {p.data_ptr() for p in copy.parameters()} & {p.data_ptr() for p in part.shared.parameters()}
    require(not shared, f"{len(shared)} parameters of the copy are those of the original")


def _fits(part: BackboneSubject) -> bool:
    return type(part.shared).fit is not Backbone.fit


common.add_options_checks(contract)
