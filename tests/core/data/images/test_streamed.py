"""Images read batch by batch. What crosses processes is tested with real files, beside their readers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ebsc_core.data.images import streamed as stream
from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.data.images.streamed import StreamedImages
from ebsc_core.data.images.workers import BadImage, ImageReader, Workers
from ebsc_core.plugins.interfaces import Backbone
from ebsc_core.training.extract import fit_backbone
from ebsc_core.utils.errors import DataError

CPU = torch.device("cpu")
SHAPE = (3, 5, 4)


class Drawn(ImageReader):
    """Images drawn from their numbers, none of which is kept."""

    def __init__(self, bad: tuple[int, ...] = (), seconds: float = 0.0, state: int = 0) -> None:
        self.shape, self.bad, self.seconds, self.state = SHAPE, bad, seconds, state
        self.read_: list[int] = []

    def name(self, position: int) -> str:
        return f"{position}.png"

    def where(self, position: int) -> str:
        return f"here/{position}.png"

    def read(self, position: int) -> np.ndarray:
        self.read_.append(position)
        time.sleep(self.seconds)
        if position in self.bad:
            raise BadImage("it is torn")
        return np.random.default_rng(position).integers(0, 256, SHAPE, dtype=np.uint8)

    def mark(self, positions: np.ndarray) -> bytes:
        return positions.tobytes() + bytes([self.state])


def streamed(n: int = 40, reader: Drawn | None = None, labels: bool = True) -> StreamedImages:
    """Images ``1, 3, 5, …`` of a reader, read in this process."""
    reader = reader or Drawn()
    classes = np.arange(n) % 3 if labels else None
    return StreamedImages("drawn", reader, Workers(reader, 0), 2 * np.arange(n) + 1, classes, None)


def in_memory(images: StreamedImages) -> ImageSet:
    pixels = np.stack([Drawn().read(int(position)) for position in images.positions])
    return ImageSet("drawn", torch.from_numpy(pixels), list(images.ids), images.labels)


def test_they_are_what_a_set_in_memory_is() -> None:
    images = streamed()
    held = in_memory(images)
    assert len(images) == len(held) == 40
    assert list(images.ids) == held.ids
    assert images.label_names() == held.label_names()
    assert images.n_classes == held.n_classes
    assert images.info() == held.info()
    assert torch.equal(images.to_fit(), held.to_fit())
    plan = torch.randperm(40).split(7)
    for ours, theirs in zip(images.batches(plan, CPU), held.batches(plan, CPU), strict=True):
        assert torch.equal(ours, theirs)
    part, held_part = images.sample(9, seed=2), held.sample(9, seed=2)
    assert list(part.ids) == held_part.ids
    assert part.info() == held_part.info()
    assert part.labels is not None
    np.testing.assert_array_equal(part.labels, held_part.labels)


def test_nothing_is_read_before_it_is_asked_for() -> None:
    reader = Drawn()
    images = streamed(reader=reader)
    images.take(np.arange(10))
    batches = images.batches(torch.arange(40).split(8), CPU)
    assert not reader.read_
    next(batches)
    assert len(reader.read_) == 8


def test_of_many_images_a_sample_is_looked_at() -> None:
    reader = Drawn()
    images = streamed(5000, reader)
    info, digest = images.info(), images.digest()
    assert len(reader.read_) == len(set(reader.read_)) == stream.LOOKED_AT
    np.testing.assert_allclose(info.mean, 0.5, atol=0.01)
    again = streamed(5000)
    assert (again.info(), again.digest()) == (info, digest)


def test_of_many_images_some_are_fitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "FITTED", 10)
    images = streamed(100)
    chosen = torch.linspace(0, 99, 10, dtype=torch.float64).round().long()
    assert torch.equal(images.to_fit(), in_memory(images).images[chosen])


def test_a_backbone_that_is_fitted_to_some_of_the_images_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fitted(Backbone):
        given: Tensor

        def fit(self, images: Tensor) -> None:
            self.given = images

        def forward(self, images: Tensor) -> Tensor:
            return images

    monkeypatch.setattr(stream, "FITTED", 10)
    for n, said in ((10, []), (100, ["fitted to at most 10 of the 100 images, streamed from disk"])):
        backbone, notes = Fitted(), list[str]()
        fit_backbone(backbone, streamed(n), notes.append)
        assert torch.equal(backbone.given, streamed(n).to_fit())
        assert len(notes) == len(said)
        assert all(part in note for part, note in zip(said, notes, strict=True))


def test_the_digest_is_of_files_order_and_shape_and_never_that_of_pixels() -> None:
    images = streamed()
    digests = [
        images.digest(),
        images.take(np.arange(39)).digest(),
        images.take(np.arange(40)[::-1].copy()).digest(),
        streamed(reader=Drawn(state=1)).digest(),
        in_memory(images).digest(),
    ]
    assert len(set(digests)) == 5
    assert digests[0].startswith("listing-1-")
    assert streamed(labels=False).digest() == digests[0]


def test_an_image_that_looks_otherwise_changes_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of a decoder, say: the listing is the same."""
    before = streamed().digest()
    monkeypatch.setattr(Drawn, "read", lambda self, position: np.full(SHAPE, 7, dtype=np.uint8))
    assert streamed().digest() != before


@pytest.mark.parametrize("read", [lambda i: i.info(), lambda i: i.to_fit(), lambda i: list(batches(i))])
def test_an_image_that_cannot_be_read_is_named(read: Callable[[StreamedImages], Any]) -> None:
    with pytest.raises(DataError) as error:
        read(streamed(reader=Drawn(bad=(7, 9))))
    assert str(error.value) == (
        "cannot read image here/7.png and 1 more (it is torn); repair or remove it, "
        "or pass `data.skip_bad_images`"
    )


def batches(images: StreamedImages) -> Iterator[Tensor]:
    return images.batches(torch.arange(len(images)).split(20), CPU)


def test_images_that_cannot_be_read_are_left_out() -> None:
    said: list[str] = []
    images = streamed(reader=Drawn(bad=(7, 21))).readable(said.append)
    assert said == [f"left out unreadable image here/{i}.png (it is torn)" for i in (7, 21)]
    assert len(images) == 38
    assert not {"7.png", "21.png"} & set(images.ids)
    assert images.labels is not None
    assert images.labels.tolist() == [i % 3 for i in range(40) if 2 * i + 1 not in (7, 21)]
    assert sum(map(len, batches(images))) == 38


def test_nothing_but_bad_images_is_an_error() -> None:
    with pytest.raises(DataError, match="drawn holds no readable image"):
        streamed(3, Drawn(bad=(1, 3, 5))).readable(print)


def test_the_time_waited_is_that_of_reading() -> None:
    images = streamed(reader=Drawn(seconds=0.002))
    for _ in batches(images):
        time.sleep(0.01)
    assert images.waited >= 0.002 * 20  # the start of the processes, and what they read then, is not counted
    assert images.waited < 1
    assert in_memory(images).waited == 0


def test_the_random_numbers_of_others_are_left_alone() -> None:
    """Dropout would otherwise differ from that of a run in memory."""
    before = torch.get_rng_state()
    images = streamed()
    images.info()
    for _ in range(2):
        list(batches(images))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pass_given_up_halfway_does_not_show_in_the_next() -> None:
    images = streamed()
    next(batches(images))
    assert torch.equal(torch.cat(list(batches(images))), in_memory(images).images)


def test_threads_that_read_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "ThreadPoolExecutor", lambda: ThreadPoolExecutor(8))
    assert torch.equal(streamed().to_fit(), in_memory(streamed()).images)


def test_a_copy_to_metal_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would go on reading a batch whose memory the next one has (pytorch/pytorch#189690)."""
    copies: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def to(self: Tensor, *arguments: Any, **named: Any) -> Tensor:
        copies.append((arguments, named))
        return self

    monkeypatch.setattr(Tensor, "to", to)
    metal = torch.device("mps")
    list(streamed(3).batches([torch.arange(3)], metal))
    assert copies == [((metal,), {})]
