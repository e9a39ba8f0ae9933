"""Folders, zips and arrays that are read by other processes, batch by batch."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.data.images.streamed import StreamedImages
from ebsc_core.data.images.workers import Workers
from ebsc_core.plugins.interfaces import DataContext
from ebsc_core.testing.memory import peak_bytes
from ebsc_core.utils.errors import DataError
from ebsc_plugins.datasets.arrays import ArrayReader, StoredArray
from ebsc_plugins.datasets.folder import FolderOptions
from ebsc_plugins.datasets.npz import NpzOptions, resolve_npz

Read = Callable[..., Any]
OneLine = Callable[[pytest.ExceptionInfo[DataError]], str]
CPU = torch.device("cpu")
STREAM = FolderOptions(stream=True)
HELD = FolderOptions(stream=False)


def pictures(n: int = 40) -> dict[str, bytes]:
    """PNG and JPEG, grey and colour, of many sizes, in two folders."""
    random, files = np.random.default_rng(0), {}
    for i in range(n):
        shape = (20 + i % 7, 24 + i % 5) + ((3,) if i % 3 else ())
        image = Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8))
        buffer, kind = io.BytesIO(), "JPEG" if i % 2 else "PNG"
        image.save(buffer, kind)
        files[f"{'ab'[i % 4 // 2]}/{i:02}.{kind.lower()}"] = buffer.getvalue()
    return files


@pytest.fixture
def closing() -> Iterator[list[StreamedImages]]:
    """Sets whose processes end with the test."""
    made: list[StreamedImages] = []
    yield made
    for images in made:
        images.close()


def test_streamed_images_are_those_held_in_memory(
    tree: Path, read: Read, closing: list[StreamedImages]
) -> None:
    held: ImageSet = read(tree, pictures(), HELD)
    images: StreamedImages = read(tree, None, STREAM, workers=2)
    closing.append(images)
    assert isinstance(images, StreamedImages)
    assert (images.name, images.class_names) == (held.name, held.class_names)
    assert list(images.ids) == held.ids
    np.testing.assert_array_equal(images.labels, held.labels)
    assert images.info() == held.info()
    order = torch.randperm(40)
    for batch in (7, 16):  # two passes by the same processes
        plan = order.split(batch)
        for ours, theirs in zip(images.batches(plan, CPU), held.batches(plan, CPU), strict=True):
            assert torch.equal(ours, theirs)
    part = images.take(np.array([3, 30]))  # and a part of the set by them, too
    (batch_of_part,) = part.batches([torch.tensor([1, 0])], CPU)
    assert torch.equal(batch_of_part, held.images[[30, 3]])


def test_what_does_not_fit_is_streamed_unless_forbidden(tree: Path, read: Read, one_line: OneLine) -> None:
    little = 40 * 3 * 23 * 23 * 5 // 4 - 1
    assert isinstance(read(tree, pictures()), ImageSet)
    assert isinstance(read(tree, memory=little + 1), ImageSet)
    assert isinstance(read(tree, memory=little), StreamedImages)
    assert isinstance(read(tree, memory=little, limit=30), ImageSet)
    with pytest.raises(DataError, match=r"`data\.limit`.*data\.stream=true") as error:
        read(tree, None, HELD, memory=little)
    assert str(tree) in one_line(error)


def test_a_sample_is_streamed_with_the_classes_of_the_whole(tree: Path, read: Read) -> None:
    held = read(tree, pictures(), HELD, limit=9, seed=3)
    images = read(tree, None, STREAM, limit=9, seed=3)
    assert list(images.ids) == held.ids
    assert images.labels.tolist() == held.labels.tolist()
    assert read(tree, None, FolderOptions(stream=True, labels="none")).labels is None


def test_a_bad_image_is_named_when_it_is_met(
    tree: Path, monkeypatch: pytest.MonkeyPatch, read: Read, closing: list[StreamedImages], one_line: OneLine
) -> None:
    monkeypatch.setattr("ebsc_plugins.datasets.folder.LOOKED_AT", 4)
    monkeypatch.setattr("ebsc_core.data.images.streamed.LOOKED_AT", 4)
    files = pictures(20)
    files["b/18.png"] = files["b/18.png"][:-60]
    images = read(tree, files, STREAM, workers=1)
    closing.append(images)
    images.info()  # looks at four others
    with pytest.raises(DataError) as error:
        list(images.batches(torch.arange(20).split(5), CPU))
    assert one_line(error).startswith(f"cannot read image {tree / 'b' / '18.png'} (")
    assert "`data.skip_bad_images`" in one_line(error)


def test_a_bad_header_is_found_at_once(tree: Path, read: Read, one_line: OneLine) -> None:
    with pytest.raises(DataError, match=r"bad\.png and 1 more \(not an image\)") as error:
        read(tree, {**pictures(6), "a/bad.png": b"hello", "b/worse.png": b""}, STREAM)
    one_line(error)


def test_bad_images_are_skipped_as_in_memory(tree: Path, read: Read, warned: list[str]) -> None:
    files = pictures(20)
    files["b/18.png"] = files["b/18.png"][:-60]
    files["a/bad.png"] = b"hello"
    held = read(tree, files, HELD, skip_bad_images=True)
    said_of_held = sorted(warned)
    warned.clear()
    images = read(tree, None, STREAM, skip_bad_images=True, workers=0)
    assert list(images.ids) == held.ids
    assert images.labels.tolist() == held.labels.tolist()
    assert sorted(warned) == said_of_held


def test_a_last_block_of_a_single_image_is_read(tree: Path, read: Read) -> None:
    images = read(tree, pictures(1), STREAM, skip_bad_images=True, workers=0)
    assert list(images.ids) == ["a/00.png"]


def test_nothing_but_bad_images_is_an_error(tree: Path, read: Read) -> None:
    with pytest.raises(DataError, match="no readable image"):
        read(tree, {"a.png": b"x"}, STREAM, skip_bad_images=True)


def test_a_file_that_changes_changes_the_digest(folder: Path, read: Read) -> None:
    digests = {read(folder, pictures(8), STREAM).digest()}
    digests.add(read(folder, None, STREAM).digest())
    assert len(digests) == 1
    name = folder / "a" / "00.png"
    os.utime(name, ns=(0, name.stat().st_mtime_ns + 1000))
    digests.add(read(folder, None, STREAM).digest())
    name.rename(name.with_name("new.png"))
    digests.add(read(folder, None, STREAM).digest())
    digests.add(read(folder, None, FolderOptions(stream=True, size=8)).digest())
    digests.add(read(folder, None, HELD).digest())
    assert len(digests) == 5


def test_a_zip_is_known_by_its_checksums(tmp_path: Path, read: Read) -> None:
    one = read(tmp_path / "one.zip", pictures(8), STREAM).digest()
    assert read(tmp_path / "same.zip", pictures(8), STREAM).digest() == one
    other = dict(zip(pictures(8), reversed(pictures(8).values()), strict=True))
    assert read(tmp_path / "other.zip", other, STREAM).digest() != one


def test_a_process_that_ends_is_one_line(
    folder: Path, read: Read, closing: list[StreamedImages], one_line: OneLine
) -> None:
    images = read(folder, pictures(), STREAM, workers=1)
    closing.append(images)
    batches = images.batches(torch.arange(40).repeat(50).split(5), CPU)
    next(batches)
    iterator: Any = images.workers.loader._iterator
    iterator._workers[0].kill()
    with pytest.raises(DataError, match=r"data\.workers") as error:
        list(batches)
    one_line(error)
    assert len(next(images.batches([torch.arange(3)], CPU))) == 3  # by new ones


PIXELS = np.random.default_rng(0).integers(0, 256, (12, 3, 8, 6), dtype=np.uint8)


def npz(path: Path, stream: Any = "auto", **context: Any) -> Any:
    spec = resolve_npz(str(path))
    assert spec is not None
    assert callable(spec.factory)
    size = context.pop("size", None)
    return spec.factory(NpzOptions(stream=stream, size=size), DataContext(Path("nowhere"), **context))


@pytest.mark.parametrize(
    "images",
    [
        PIXELS,
        np.moveaxis(PIXELS, 1, -1),
        PIXELS[:, 0],
        np.asfortranarray(PIXELS),
        (PIXELS / 255).astype(">f4"),
    ],
    ids=["first", "last", "grey", "fortran", "float"],
)
@pytest.mark.parametrize("size", [None, 5])
def test_arrays_are_streamed_as_they_are_held(tmp_path: Path, images: np.ndarray, size: int | None) -> None:
    np.savez(tmp_path / "some.npz", other=np.arange(999), images=images, labels=np.arange(12) % 4)
    held = npz(tmp_path / "some.npz", size=size, limit=10)
    streamed = npz(tmp_path / "some.npz", True, size=size, limit=10, workers=0)
    assert isinstance(streamed, StreamedImages)
    assert list(streamed.ids) == held.ids
    assert streamed.labels.tolist() == held.labels.tolist()
    assert streamed.info() == held.info()
    (batch,) = streamed.batches([torch.tensor([9, 0, 4])], CPU)
    assert torch.equal(batch, held.images[[9, 0, 4]])
    assert streamed.digest() != held.digest()


def test_an_array_too_large_for_memory_is_streamed_if_it_can_be(tmp_path: Path, one_line: OneLine) -> None:
    np.savez(tmp_path / "plain.npz", images=PIXELS)
    np.savez_compressed(tmp_path / "packed.npz", images=PIXELS)
    assert isinstance(npz(tmp_path / "plain.npz", memory=3 * PIXELS.nbytes), ImageSet)
    assert isinstance(npz(tmp_path / "plain.npz", memory=1000), StreamedImages)
    few = 3 * PIXELS[:4].nbytes
    assert isinstance(npz(tmp_path / "plain.npz", memory=few, limit=4), ImageSet)
    assert isinstance(npz(tmp_path / "plain.npz", memory=few, limit=5), StreamedImages)
    for path, stream, says in (("plain.npz", False, "stream=true"), ("packed.npz", "auto", "numpy.savez")):
        with pytest.raises(DataError) as error:
            npz(tmp_path / path, stream, memory=1000)
        assert says in one_line(error)
        assert path in one_line(error)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_of_an_array_are_read_without_the_others(tmp_path: Path, dtype: type) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4000, 1, 32, 32)).astype(np.uint8)
    np.savez(tmp_path / "some.npz", images=pixels if dtype == np.uint8 else (pixels / 255).astype(dtype))
    few = 40 * 1024 * (np.dtype(dtype).itemsize + 2)
    found: list[Any] = []

    def read(**context: Any) -> int:
        found.clear()
        return peak_bytes(lambda: found.append(npz(tmp_path / "some.npz", False, **context)))

    read()  # what is loaded at the first time does not count below
    assert read(limit=40, memory=few) < few + 2**20
    np.testing.assert_array_equal(found[0].images, pixels[[int(name) for name in found[0].ids]])
    read()
    np.testing.assert_array_equal(found[0].images, pixels)
    (tmp_path / "some.npz").write_bytes(b"")  # what was read does not depend on the file any longer
    np.testing.assert_array_equal(found[0].images, pixels)


def test_images_of_files_are_held_once(folder: Path, read: Read) -> None:
    """Also where some are left out."""
    large = FolderOptions(size=256, stream=False)
    images = 40 * 3 * 256 * 256
    whole = read(folder, pictures(), large)  # what is loaded at the first time does not count below
    assert peak_bytes(lambda: read(folder, None, large)) < 1.7 * images
    (folder / "a/04.png").write_bytes(b"no image")
    kept: list[Any] = []
    assert peak_bytes(lambda: kept.append(read(folder, None, large, skip_bad_images=True))) < 1.7 * images
    assert kept[0].ids == [name for name in whole.ids if name != "a/04.png"]
    good = [place for place, name in enumerate(whole.ids) if name != "a/04.png"]
    assert torch.equal(kept[0].images, whole.images[good])


@pytest.mark.parametrize(
    ("images", "says"), [(PIXELS.astype(int), "int64"), (PIXELS[0, 0], "(8, 6)"), (PIXELS[:0], "no images")]
)
def test_an_array_of_no_images_is_not_streamed(tmp_path: Path, images: np.ndarray, says: str) -> None:
    np.savez(tmp_path / "some.npz", images=images)
    with pytest.raises(DataError) as error:
        npz(tmp_path / "some.npz", True)
    assert says in str(error.value)


def test_floats_out_of_bounds_are_named_when_met(tmp_path: Path) -> None:
    values = PIXELS / 255
    values[7] *= 2
    np.savez(tmp_path / "some.npz", images=values)
    with pytest.raises(DataError, match=r"7 of .*some\.npz.*\[0, 1\]"):
        npz(tmp_path / "some.npz", True).info()


def resident() -> int:
    """Bytes this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_a_large_set_starts_at_once_and_only_a_window_is_held(
    tmp_path: Path, closing: list[StreamedImages]
) -> None:
    """1.2 GB that take no room on the disk."""
    shape = (100_000, 3, 64, 64)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(int(np.prod(shape)))
    start = time.process_time()
    reader = ArrayReader(StoredArray(tmp_path / "sparse", shape, np.dtype(np.uint8), False, 0, 0), None)
    images = StreamedImages("sparse", reader, Workers(reader, 1), np.arange(shape[0]))
    closing.append(images)
    images.info()
    images.digest()
    assert time.process_time() - start < 5
    before = resident()
    plan = torch.randperm(shape[0])[: 100 * 256].split(256)  # 315 MB
    for batch in images.batches(plan, CPU):
        assert batch.shape == (256, *shape[1:])
    assert resident() - before < 100 * 2**20
