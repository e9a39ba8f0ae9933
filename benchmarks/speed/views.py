"""Compare SimCLR's views of a batch: ours, with both kinds of hue, kornia's and torchvision's.

    pip install kornia
    python benchmarks/speed/views.py [--size 32] [--threads 1] [--out FILE.json]

Every side gets a batch of uint8 images. It crops, flips, jitters colours and converts to grey as in
``COLOUR_VIEWS``, with separate parameters for each image. kornia transforms the batch (in its faster form,
which resamples crops). torchvision's v2 transforms image by image, as in a data loader, tensors or PIL
images. Its transforms blend colours in a random order and, like kornia's, clamp in between, while ours
combine them in one matrix. A test compares each of our operations with torchvision's
(``tests/core/data/views/test_apply.py``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sides import CLOCKS, Side, command, compare, keep

if TYPE_CHECKING:
    from torch import Tensor

SCALE, JITTER, GRAY = (0.2, 1.0), (0.4, 0.4, 0.4, 0.1), 0.2


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--size", type=int, default=32, help="side of the images, in pixels")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, default=8, help="batches of one piece of work")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    given = (options.size, options.batch, options.batches)
    sides = [
        Side("ours", ours, (*given, False)),
        Side("ours, exact hue", ours, (*given, True)),
        Side("kornia", kornias, given),
        Side("torchvision, tensors", torchvisions, (*given, False)),
        Side("torchvision, PIL images", torchvisions, (*given, True)),
    ]
    record = compare(sides, options.rounds, options.threads)
    record["versions"] |= versions()
    record |= {"size": options.size, "batch": options.batch, "batches": options.batches}
    record["views_per_second"], record["times_faster"] = figures(record["sides"], given[1] * given[2])
    print(json.dumps({name: record[name] for name in ("views_per_second", "times_faster")}, indent=2))
    keep(record, options.out)


def figures(records: dict[str, Any], views: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compute the views per second of each side (or its failure) and our speed-up, by clock."""
    medians = {name: record["median_s"] for name, record in records.items() if "median_s" in record}
    rates: dict[str, Any] = {name: record.get("failure") for name, record in records.items()}
    rates |= {name: {clock: round(views / each[clock]) for clock in CLOCKS} for name, each in medians.items()}
    faster = {
        name: {
            other: {clock: round(theirs[clock] / own[clock], 1) for clock in CLOCKS}
            for other, theirs in medians.items()
            if not other.startswith("ours")
        }
        for name, own in medians.items()
        if name.startswith("ours")
    }
    return rates, faster


def random_images(size: int, batch: int) -> Tensor:
    import torch

    return torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)


def repeated(view: Callable[[], Any], batches: int) -> Callable[[], None]:
    """Make a piece of work that discards its results."""

    def work() -> None:
        for _ in range(batches):
            view()

    return work


def ours(size: int, batch: int, batches: int, exact_hue: bool) -> Callable[[], None]:
    import torch

    from ebsc_core.data.views.apply import draw_view
    from ebsc_core.data.views.options import COLOR_VIEWS

    images, generator = random_images(size, batch), torch.Generator().manual_seed(0)
    options = COLOR_VIEWS.model_copy(update={"exact_hue": exact_hue})
    return repeated(lambda: draw_view(images, options, generator), batches)


def kornias(size: int, batch: int, batches: int) -> Callable[[], None]:
    from kornia import augmentation

    images = random_images(size, batch)
    view = augmentation.AugmentationSequential(
        augmentation.RandomResizedCrop((size, size), SCALE, cropping_mode="resample"),
        augmentation.RandomHorizontalFlip(),
        augmentation.ColorJitter(*JITTER, p=0.8),
        augmentation.RandomGrayscale(p=GRAY),
        same_on_batch=False,
    )
    return repeated(lambda: view(images.float().div(255)), batches)


def torchvisions(size: int, batch: int, batches: int, pil: bool) -> Callable[[], None]:
    import torch
    from torchvision.transforms import v2
    from torchvision.transforms.v2.functional import to_pil_image

    view = v2.Compose(
        [
            v2.RandomResizedCrop(size, SCALE, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(*JITTER)], 0.8),
            v2.RandomGrayscale(GRAY),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    images = [to_pil_image(image) if pil else image for image in random_images(size, batch)]
    return repeated(lambda: torch.stack([view(image) for image in images]), batches)


def versions() -> dict[str, str]:
    """Return the versions of the compared libraries."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("kornia", "torchvision"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
