"""Sets of images: validation, sampling, statistics and digest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ebsc_core.data.images.in_memory import ImageSet, ahead
from ebsc_core.utils.errors import DataError


def pixels(n: int, channels: int = 3, height: int = 5, width: int = 7) -> Tensor:
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8)


def image_set(images: Tensor, labels: np.ndarray | None = None) -> ImageSet:
    return ImageSet("some", images, [f"{i}.png" for i in range(len(images))], labels)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(2, 3, 4, 4), "uint8"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), "(N, C, H, W)"),
        (torch.zeros(2, 4, 4, 4, dtype=torch.uint8), "1 or 3 channels"),
        (torch.zeros(0, 3, 4, 4, dtype=torch.uint8), "no images"),
        (torch.zeros(2, 3, 0, 4, dtype=torch.uint8), "no pixels"),
    ],
)
def test_images_of_another_form_are_refused(images: Tensor, says: str) -> None:
    with pytest.raises(DataError) as error:
        image_set(images)
    assert says in str(error.value)
    assert "some" in str(error.value)


def test_arrays_of_another_library_are_refused_by_their_type() -> None:
    pixels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(DataError, match=r"x: images must be a torch\.Tensor, not a ndarray"):
        ImageSet("x", pixels.numpy(), ["a", "b"])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="x: labels must be a NumPy array, not a list"):
        ImageSet("x", pixels, ["a", "b"], [0, 1])  # type: ignore[arg-type]


def test_ids_and_labels_must_be_one_per_image() -> None:
    images = pixels(3)
    with pytest.raises(DataError, match="2 ids for 3 images"):
        ImageSet("some", images, ["a", "b"])
    for labels in (np.zeros(2, dtype=np.int64), np.zeros((3, 1), dtype=np.int64)):
        with pytest.raises(DataError, match="labels have shape"):
            image_set(images, labels)


def test_n_classes_counts_distinct_labels() -> None:
    assert image_set(pixels(4), np.array([7, -1, 7, 3])).n_classes == 3
    assert image_set(pixels(4)).n_classes is None


def test_sample_keeps_images_ids_and_labels_together_and_in_order() -> None:
    images = torch.arange(50, dtype=torch.uint8).view(50, 1, 1, 1).expand(50, 1, 4, 4).contiguous()
    whole = image_set(images, np.arange(50))
    part = whole.sample(8, seed=3)
    values = part.images[:, 0, 0, 0].tolist()
    assert values == sorted(values)
    assert part.ids == [f"{i}.png" for i in values]
    assert part.labels is not None
    assert part.labels.tolist() == values
    assert whole.sample(8, seed=3).ids == part.ids
    assert whole.sample(8, seed=4).ids != part.ids
    assert whole.sample(None, seed=3) is whole
    assert whole.sample(50, seed=3) is whole


@pytest.mark.parametrize("channels", [1, 3])
def test_info_agrees_with_direct_mean_and_deviation(channels: int) -> None:
    images = pixels(5000, channels, 3, 2)
    images[:, 0] //= 4
    info = image_set(images).info()
    values = images.double() / 255
    np.testing.assert_allclose(info.mean, values.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(info.std, values.std((0, 2, 3), correction=0), rtol=1e-10)
    assert (info.channels, info.height, info.width) == (channels, 3, 2)


def test_constant_images_have_a_deviation_to_divide_by() -> None:
    info = image_set(torch.full((3, 1, 4, 4), 255, dtype=torch.uint8)).info()
    assert info.mean == (1.0,)
    assert info.std[0] > 0


def test_digest_depends_on_pixels_order_and_shape() -> None:
    images = pixels(6, 1, 4, 9)
    digest = image_set(images).digest()
    changed = images.clone()
    changed[5, 0, 3, 8] ^= 1
    others = [changed, images.flip(0), images.view(6, 1, 9, 4), images.view(6, 1, 6, 6), images[:5]]
    assert digest not in {image_set(other).digest() for other in others}


def test_digest_ignores_names_labels_and_memory_layout() -> None:
    one = image_set(pixels(6))
    other = ImageSet("other", one.images, ["x"] * 6, np.arange(6))
    strided = replace(one, images=one.images.contiguous(memory_format=torch.channels_last))
    assert one.digest() == other.digest() == strided.digest()


def test_batches_are_the_images_at_the_plans_positions() -> None:
    images = pixels(9)
    plan = [torch.tensor([4, 0, 4]), torch.tensor([8]), torch.tensor([], dtype=torch.int64)]
    batches = list(image_set(images).batches(plan, torch.device("cpu")))
    assert len(batches) == 3
    for batch, chosen in zip(batches, plan, strict=True):
        assert torch.equal(batch, images[chosen])


def test_ahead_keeps_the_order_makes_one_more_and_passes_errors_on() -> None:
    made = []

    def items() -> Iterator[int]:
        for i in range(5):
            made.append(i)
            yield i
        raise ValueError("at the end")

    coming = ahead(items())
    assert next(coming) == 0
    assert next(coming) == 1
    assert max(made) <= 2
    assert [next(coming) for _ in range(3)] == [2, 3, 4]
    with pytest.raises(ValueError, match="at the end"):
        next(coming)
