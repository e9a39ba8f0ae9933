"""The data sets and file types images are read from."""

from __future__ import annotations

import io
import os
import struct
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from ebsc_core import ComponentSpec
from ebsc_core.data.images import ImageSet
from ebsc_core.errors import DataError
from ebsc_core.interfaces import DataContext
from ebsc_core.options import Options
from ebsc_plugins.datasets import torchvision_sets
from ebsc_plugins.datasets.digits import read_digits
from ebsc_plugins.datasets.folder import FolderOptions, resolve_folder, resolve_zip
from ebsc_plugins.datasets.npz import NpzOptions, resolve_npz
from ebsc_plugins.datasets.torchvision_sets import SplitOptions, Stl10Options


def context(root: Path = Path("nowhere"), **choices: Any) -> DataContext:
    return DataContext(root, **choices)


def one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


def build(spec: ComponentSpec | None, options: Options, context: DataContext) -> ImageSet:
    assert spec is not None
    assert callable(spec.factory)
    return spec.factory(options, context)


def test_digits_are_scikit_learns_with_grey_levels_spread_out() -> None:
    digits = read_digits(Options(), context())
    assert digits.images.shape == (1797, 1, 8, 8)
    assert (int(digits.images.min()), int(digits.images.max())) == (0, 255)
    assert len(digits.images.unique()) == 17
    assert digits.n_classes == 10
    assert digits.ids[:2] == ["0", "1"]


# -- npz -----------------------------------------------------------------------------------------

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 5, 7), dtype=np.uint8)
CLASSES = np.array([3, 1, 3, 0, 0, 1], dtype=np.int32)


def read_npz(path: Path, limit: int | None = None, seed: int = 0, **options: str) -> ImageSet:
    return build(resolve_npz(str(path)), NpzOptions(**options), context(limit=limit, seed=seed))


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return tmp_path / "data.npz"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (PIXELS, PIXELS),
        (np.moveaxis(PIXELS, 1, -1), PIXELS),
        (PIXELS[:, 0], PIXELS[:, :1]),
        (PIXELS[:, :1], PIXELS[:, :1]),
        (PIXELS[:, 0, ..., None], PIXELS[:, :1]),
        (np.asfortranarray(PIXELS), PIXELS),
        (PIXELS / 255, PIXELS),
        ((PIXELS - 0.4).clip(0) / 255, PIXELS),
        ((PIXELS / 255).astype(np.float32), PIXELS),
        ((PIXELS[:, 0] / 255).astype(">f4"), PIXELS[:, :1]),
    ],
    ids=[
        "first",
        "last",
        "grey",
        "grey first",
        "grey last",
        "fortran",
        "float64",
        "rounded",
        "float32",
        "big-endian",
    ],
)
def test_npz_takes_grey_and_colour_bytes_and_floats(
    npz: Path, given: np.ndarray, expected: np.ndarray
) -> None:
    data = read_npz(save(npz, images=given, labels=CLASSES))
    np.testing.assert_array_equal(data.images.numpy(), expected)
    assert data.labels is not None
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == CLASSES.tolist()
    assert data.ids == ["0", "1", "2", "3", "4", "5"]
    assert data.name == "data.npz"


def test_npz_labels_are_optional_and_keys_can_be_named(npz: Path) -> None:
    assert read_npz(save(npz, images=PIXELS)).labels is None
    save(npz, x=PIXELS, y=CLASSES)
    data = read_npz(npz, images="x", labels="y")
    assert data.labels is not None
    assert data.labels.tolist() == CLASSES.tolist()


def test_npz_labels_named_but_missing_are_an_error(npz: Path) -> None:
    save(npz, images=PIXELS, labels=CLASSES)
    with pytest.raises(DataError, match=r"no array 'classes'.*data\.labels=KEY"):
        read_npz(npz, labels="classes")


def test_npz_compressed_and_upper_case_and_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with (tmp_path / "A.NPZ").open("wb") as file:
        np.savez_compressed(file, images=PIXELS)
    assert len(read_npz(Path("~/A.NPZ"))) == 6


def test_npz_limit_takes_a_seeded_sample(npz: Path) -> None:
    save(npz, images=PIXELS, labels=CLASSES)
    part = read_npz(npz, limit=3, seed=1)
    chosen = [int(i) for i in part.ids]
    assert chosen == sorted(chosen)
    assert len(chosen) == 3
    np.testing.assert_array_equal(part.images.numpy(), PIXELS[chosen])
    assert part.labels is not None
    assert part.labels.tolist() == CLASSES[chosen].tolist()
    assert read_npz(npz, limit=3, seed=1).ids == part.ids


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"pictures": PIXELS}, "pictures"),
        ({"images": PIXELS.astype(object)}, "pickled"),
        ({"images": PIXELS, "labels": CLASSES.astype(object)}, "pickled"),
        ({"images": PIXELS[0, 0]}, "(5, 7)"),
        ({"images": np.zeros((6, 5, 7, 4), dtype=np.uint8)}, "(6, 5, 7, 4)"),
        ({"images": PIXELS[None]}, "(1, 6, 3, 5, 7)"),
        ({"images": PIXELS.astype(np.int64)}, "int64"),
        ({"images": PIXELS.astype(np.float32)}, "[0, 1]"),
        ({"images": PIXELS / 255 - 0.1}, "[0, 1]"),
        ({"images": np.where(PIXELS > 250, np.nan, 0.5)}, "NaN"),
        ({"images": PIXELS[:0]}, "no images"),
        ({"images": PIXELS, "labels": CLASSES[:5]}, "(5,)"),
        ({"images": PIXELS, "labels": CLASSES[:, None]}, "(6, 1)"),
        ({"images": PIXELS, "labels": CLASSES / 2}, "float64"),
        ({"images": PIXELS, "labels": CLASSES.astype(str)}, "integers"),
    ],
)
def test_npz_with_unusable_arrays_is_refused(npz: Path, arrays: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(DataError) as error:
        read_npz(save(npz, **arrays))
    assert says in one_line(error)
    assert "data.npz" in one_line(error)


def single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, PIXELS)


def truncated(path: Path) -> None:
    save(path, images=PIXELS)
    path.write_bytes(path.read_bytes()[:-300])


def flipped_bytes(path: Path) -> None:
    save(path, images=PIXELS)
    content = bytearray(path.read_bytes())
    content[300:310] = bytes(255 - byte for byte in content[300:310])
    path.write_bytes(content)


def pretend_encrypted(path: Path) -> None:
    """Set the flag that says members are encrypted, in local and central headers."""
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(signature, at + 4)
    path.write_bytes(content)


def encrypted(path: Path) -> None:
    save(path, images=PIXELS)
    pretend_encrypted(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("hello"),
        single_array,
        truncated,
        flipped_bytes,
        encrypted,
    ],
    ids=["missing", "folder", "empty", "text", "npy", "truncated", "flipped", "encrypted"],
)
def test_npz_that_cannot_be_read_is_refused(npz: Path, make: Callable[[Path], object]) -> None:
    make(npz)
    with pytest.raises(DataError) as error:
        read_npz(npz)
    assert "data.npz" in one_line(error)


# -- folder and zip ------------------------------------------------------------------------------


def picture(mode: str = "RGB", width: int = 12, height: int = 10, seed: int = 0) -> Image.Image:
    """A smooth picture, so that JPEG keeps it."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (4 + c) + seed) * np.cos(y / (5 - c) + seed) for c in range(3)]
    rgb = Image.fromarray(np.stack([wave * 90 + 128 for wave in waves], axis=-1).astype(np.uint8))
    return rgb.convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@dataclass
class Tree:
    """Named files, laid out as a folder or as a zip."""

    path: Path
    zipped: bool
    warnings: list[str] = field(default_factory=list)

    def read(
        self,
        files: dict[str, bytes],
        options: FolderOptions | None = None,
        **choices: Any,
    ) -> ImageSet:
        if self.zipped:
            with zipfile.ZipFile(self.path, "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
        else:
            self.path.mkdir(exist_ok=True)
            for name, content in files.items():
                file = self.path / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
        resolve = resolve_zip if self.zipped else resolve_folder
        return build(
            resolve(str(self.path)),
            options or FolderOptions(),
            context(warn=self.warnings.append, **choices),
        )


@pytest.fixture(params=["folder", "zip"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    zipped = request.param == "zip"
    return Tree(tmp_path / ("pictures.zip" if zipped else "pictures"), zipped)


@pytest.fixture
def folder(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "pictures", zipped=False)


def pixels(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)


def test_colour_png_and_jpeg_are_read_as_they_are(tree: Tree) -> None:
    image = picture()
    data = tree.read({"a.png": encoded(image), "b.JPG": encoded(image, "JPEG", quality=95)})
    assert data.ids == ["a.png", "b.JPG"]
    assert data.images.shape == (2, 3, 10, 12)
    np.testing.assert_array_equal(data.images[0].numpy(), pixels(image))
    assert np.abs(data.images[1].numpy().astype(int) - pixels(image)).mean() < 5
    assert data.labels is None
    assert data.name == tree.path.name


def test_all_grey_images_make_one_channel(tree: Tree) -> None:
    image = picture("L")
    data = tree.read({"a.png": encoded(image), "b.jpeg": encoded(image, "JPEG", quality=95)})
    assert data.images.shape == (2, 1, 10, 12)
    np.testing.assert_array_equal(data.images[0].numpy(), pixels(image))


def test_grey_among_colour_images_becomes_colour(tree: Tree) -> None:
    grey = picture("L")
    data = tree.read({"a.png": encoded(grey), "b.png": encoded(picture())})
    assert data.images.shape == (2, 3, 10, 12)
    np.testing.assert_array_equal(data.images[0].numpy(), np.repeat(pixels(grey), 3, axis=0))


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("LA", 1), ("P", 3), ("RGBA", 3), ("PA", 3)])
def test_palettes_alpha_and_bilevel(folder: Tree, mode: str, channels: int) -> None:
    image = picture("RGB").convert(mode)
    data = folder.read(
        {"a.png" if mode != "PA" else "a.tif": encoded(image, "PNG" if mode != "PA" else "TIFF")}
    )
    np.testing.assert_array_equal(
        data.images[0].numpy(), pixels(image.convert("L" if channels == 1 else "RGB"))
    )


def test_cmyk_jpeg_becomes_rgb(folder: Tree) -> None:
    data = folder.read({"a.jpg": encoded(picture("CMYK"), "JPEG", quality=95)})
    assert np.abs(data.images[0].numpy().astype(int) - pixels(picture())).mean() < 8


@pytest.mark.parametrize(("kind", "name"), [("PNG", "a.png"), ("TIFF", "a.tiff"), ("PPM", "a.pgm")])
def test_sixteen_bit_grey_keeps_its_range(folder: Tree, kind: str, name: str) -> None:
    levels = np.linspace(0, 65535, 120).reshape(10, 12).astype(np.uint16)
    data = folder.read({name: encoded(Image.fromarray(levels), kind)})
    assert data.images.shape == (1, 1, 10, 12)
    assert np.abs(data.images[0, 0].numpy() - levels / 257).max() <= 1


def test_exif_orientation_is_applied(tree: Tree) -> None:
    image = picture(width=16, height=8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    turned = image.transpose(Image.Transpose.ROTATE_270)
    data = tree.read({"a.png": encoded(image, exif=exif), "b.png": encoded(turned)})
    assert data.images.shape == (2, 3, 16, 8)
    assert torch.equal(data.images[0], data.images[1])


def test_nonsense_orientation_is_ignored(folder: Tree) -> None:
    # A TIFF header with one entry: orientation, of type "undefined" instead of a number.
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHI4sI", 1, 0x0112, 7, 4, b"\6\0\0\0", 0)
    image = picture(width=16, height=8)
    assert folder.read({"a.jpg": encoded(image, "JPEG", exif=exif)}).images.shape == (1, 3, 8, 16)


def sizes(*shapes: tuple[int, int]) -> dict[str, bytes]:
    return {f"{i}.png": encoded(picture("L", w, h)) for i, (w, h) in enumerate(shapes)}


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(12, 10)] * 3, (10, 12)),
        ([(224, 30)] * 2, (30, 224)),
        ([(12, 10), (10, 12), (40, 30)], (10, 10)),
        ([(12, 11), (20, 20), (40, 30)], (20, 20)),
        ([(300, 260)] * 2, (224, 224)),
        ([(300, 50)] * 2, (50, 50)),
        ([(3, 2), (2, 3)], (4, 4)),
        ([(3, 2)], (2, 3)),
    ],
)
def test_common_size(folder: Tree, shapes: list[tuple[int, int]], expected: tuple[int, int]) -> None:
    assert folder.read(sizes(*shapes)).images.shape[2:] == expected


def test_size_option_scales_the_shorter_side_and_cuts_out_the_centre(tree: Tree) -> None:
    thirds = np.zeros((30, 90), dtype=np.uint8)
    thirds[:, 30:60], thirds[:, 60:] = 100, 200
    data = tree.read({"a.png": encoded(Image.fromarray(thirds))}, FolderOptions(size=10))
    assert data.images.shape == (1, 1, 10, 10)
    assert (data.images[..., 1:-1] == 100).all()
    assert tree.read(sizes((12, 10)), FolderOptions(size=20)).images.shape[2:] == (20, 20)


def test_large_jpegs_are_scaled_like_other_images(folder: Tree) -> None:
    image = picture(width=400, height=320)
    data = folder.read(
        {"a.jpg": encoded(image, "JPEG", quality=95), "b.png": encoded(image)}, FolderOptions(size=32)
    )
    assert (data.images[0].int() - data.images[1].int()).abs().float().mean() < 4


def tiny(*names: str) -> dict[str, bytes]:
    return {name: encoded(picture("L", 4, 4, seed=i)) for i, name in enumerate(names)}


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["b/1.png", "a/2.png", "a/1.png", "c/1.png"], [0, 0, 1, 2]),
        (["top/b/1.png", "top/a/1.png"], [0, 1]),
        (["a/deep/1.png", "a/2.png", "b/deep/3.png"], [0, 0, 1]),
        (["1.png", "2.png"], None),
        (["only/1.png", "only/2.png"], None),
        (["a/1.png", "b/1.png", "stray.png"], None),
        (["top/a/1.png", "top/b/1.png", "top/stray.png"], None),
    ],
)
def test_the_first_branching_folders_are_classes(
    tree: Tree, names: list[str], labels: list[int] | None
) -> None:
    data = tree.read(tiny(*names))
    assert data.ids == sorted(names)
    assert (None if data.labels is None else data.labels.tolist()) == labels


def test_folders_can_be_no_classes(tree: Tree) -> None:
    assert tree.read(tiny("a/1.png", "b/1.png"), FolderOptions(labels="none")).labels is None


def test_hidden_files_and_other_types_are_ignored(tree: Tree) -> None:
    files = tiny("a/1.png", "b/1.png", ".hidden.png", ".git/2.png", "__MACOSX/a/1.png", "a/._1.png")
    data = tree.read({**files, "readme.txt": b"hello", "a/Thumbs.db": b"x", "labels.csv": b"1"})
    assert data.ids == ["a/1.png", "b/1.png"]
    assert data.labels is not None


def test_hidden_folders_above_do_not_hide_the_images(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    assert len(Tree(tmp_path / ".cache" / "pictures", zipped=False).read(tiny("a.png"))) == 1


ODD_NAMES = ["a b.png", "it's.png", 'say "x".png', "new\nline.png", "[red].png", "Ж漢é.png", "-x,;=.png"]


def test_odd_names_are_kept(tree: Tree) -> None:
    assert tree.read(tiny(*ODD_NAMES)).ids == sorted(ODD_NAMES)


def test_names_that_are_not_utf8_are_kept(folder: Tree) -> None:
    folder.path.mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    (folder.path / name).write_bytes(encoded(picture()))
    assert folder.read({}).ids == [name]


@pytest.mark.parametrize("name", ["new\nline.png", os.fsdecode(b"caf\xe9.png")])
def test_an_oddly_named_corrupt_image_is_named_on_one_printable_line(folder: Tree, name: str) -> None:
    with pytest.raises(DataError) as error:
        folder.read({name: b"nonsense"})
    one_line(error).encode()
    folder.read({"good.png": encoded(picture())}, skip_bad_images=True)
    assert folder.warnings[0].isprintable()


def test_folders_can_be_reached_by_links(folder: Tree, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.png").write_bytes(encoded(picture()))
    folder.path.mkdir()
    (folder.path / "a").symlink_to(tmp_path / "elsewhere")
    assert folder.read(tiny("b/1.png")).ids == ["a/1.png", "b/1.png"]


def test_a_link_back_to_the_folder_repeats_nothing(folder: Tree) -> None:
    folder.path.mkdir()
    (folder.path / "loop").symlink_to(folder.path)
    assert folder.read(tiny("a/1.png", "b/1.png")).ids == ["a/1.png", "b/1.png"]


@pytest.mark.parametrize("files", [{}, {"readme.txt": b"hello"}, {".hidden.png": b"x"}])
def test_without_images_there_is_an_error(tree: Tree, files: dict[str, bytes]) -> None:
    with pytest.raises(DataError, match="holds no images") as error:
        tree.read(files)
    assert str(tree.path) in one_line(error)


def cut_short(kind: str) -> bytes:
    whole = encoded(picture(width=40, height=40), kind)
    return whole[: len(whole) * 2 // 3]


BAD = {
    "text": b"hello",
    "empty": b"",
    "jpeg": cut_short("JPEG"),
    "png": cut_short("PNG"),
    "header": encoded(picture())[:20],
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_a_corrupt_image_is_named(tree: Tree, content: bytes) -> None:
    files = {"a/good.png": encoded(picture(width=40, height=40)), "b/bad.jpg": content}
    with pytest.raises(DataError, match="cannot read image") as error:
        tree.read(files)
    assert str(tree.path / "b" / "bad.jpg") in one_line(error)
    assert "--skip-bad-images" in one_line(error)
    assert not tree.warnings


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_a_corrupt_image_can_be_skipped_with_a_warning(tree: Tree, content: bytes) -> None:
    good = encoded(picture(width=40, height=40))
    data = tree.read({"a/1.png": good, "a/bad.jpg": content, "b/1.png": good}, skip_bad_images=True)
    assert data.ids == ["a/1.png", "b/1.png"]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1]
    assert len(tree.warnings) == 1
    assert str(tree.path / "a" / "bad.jpg") in tree.warnings[0]


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_nothing_but_corrupt_images_is_an_error(tree: Tree, content: bytes) -> None:
    with pytest.raises(DataError, match="no readable image") as error:
        tree.read({"a.png": content, "b.png": content}, skip_bad_images=True)
    assert str(tree.path) in one_line(error)


def test_how_many_images_are_corrupt_is_said(folder: Tree) -> None:
    with pytest.raises(DataError, match=r"a\.png and 2 more"):
        folder.read({"a.png": b"x", "b.png": b"x", "c.png": b"x"})


def test_a_link_to_nothing_is_an_unreadable_image(folder: Tree) -> None:
    folder.path.mkdir()
    (folder.path / "gone.png").symlink_to(folder.path / "nowhere")
    with pytest.raises(DataError, match=r"gone\.png"):
        folder.read(tiny("a.png"))


def test_limit_takes_a_seeded_sample(tree: Tree) -> None:
    files = tiny(*(f"{folder}/{i:02}.png" for folder in "ab" for i in range(20)))
    whole = tree.read(files)
    part = tree.read(files, limit=7, seed=3)
    assert len(part) == 7
    assert part.ids == sorted(part.ids)
    assert part.labels is not None
    assert part.labels.tolist() == ["ab".index(name[0]) for name in part.ids]
    for name, image in zip(part.ids, part.images, strict=True):
        assert torch.equal(image, whole.images[whole.ids.index(name)])
    assert tree.read(files, limit=7, seed=3).ids == part.ids
    assert tree.read(files, limit=7, seed=4).ids != part.ids
    assert len(tree.read(files, limit=400)) == 40


def test_a_sample_keeps_the_classes_of_the_whole(tree: Tree) -> None:
    files = tiny("a/1.png", "b/1.png")
    ones = [tree.read(files, limit=1, seed=seed) for seed in range(8)]
    found = {(one.ids[0], None if one.labels is None else int(one.labels[0])) for one in ones}
    assert found == {("a/1.png", 0), ("b/1.png", 1)}


def test_limit_opens_only_the_sample(folder: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, lock, real = set(), threading.Lock(), Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        with lock:
            opened.add(path.name)
        return real(path)

    files = tiny(*(f"{i:02}.png" for i in range(40)))
    folder.read(files)
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert set(folder.read({}, limit=5).ids) == opened


def test_more_images_than_memory_are_refused(folder: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ebsc_plugins.datasets.folder._available_memory", lambda: 1000)
    with pytest.raises(DataError, match="--limit") as error:
        folder.read(sizes((40, 40)))
    assert str(folder.path) in one_line(error)


def test_directory_entries_and_repeated_members_of_a_zip_are_no_images(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("strange.png/", b"")
        archive.writestr("strange.png/1.png", encoded(picture()))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("strange.png/1.png", encoded(picture(seed=1)))
    assert build(resolve_zip(str(path)), FolderOptions(), context()).ids == ["strange.png/1.png"]


def test_a_zip_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    missing, text, cut = (tmp_path / name for name in ("missing.zip", "text.zip", "cut.zip"))
    text.write_text("hello")
    Tree(cut, zipped=True).read(tiny("a.png"))
    cut.write_bytes(cut.read_bytes()[:-10])
    for path in (missing, text, cut):
        with pytest.raises(DataError) as error:
            build(resolve_zip(str(path)), FolderOptions(), context())
        assert str(path) in one_line(error)


def test_damaged_and_encrypted_members_of_a_zip_are_named(tmp_path: Path) -> None:
    for damage in ("flip", "encrypt"):
        tree = Tree(tmp_path / f"{damage}.zip", zipped=True)
        tree.read(tiny("a.png"))
        if damage == "encrypt":
            pretend_encrypted(tree.path)
        else:
            content = bytearray(tree.path.read_bytes())
            content[60] ^= 255
            tree.path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.png") as error:
            build(resolve_zip(str(tree.path)), FolderOptions(), context())
        one_line(error)


def test_paths_are_told_apart_by_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "some").mkdir()
    assert resolve_folder("~/some") is not None
    assert resolve_folder(str(tmp_path / "missing")) is None
    assert resolve_zip("missing.ZIP") is not None
    for name in ("digits", "resnet18", "a.tar"):
        assert resolve_folder(str(tmp_path / name)) is None
        assert resolve_zip(name) is None
        assert resolve_npz(name) is None


# -- torchvision's data sets ---------------------------------------------------------------------


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


TRAIN = np.arange(5 * 28 * 28).reshape(5, 28, 28) % 256
TEST = TRAIN[:3] // 2


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    for module in ("mnist", "cifar", "stl10"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", fail)


@pytest.fixture(params=["MNIST", "FashionMNIST"])
def raw(request: pytest.FixtureRequest, tmp_path: Path, offline: None) -> Path:
    raw = tmp_path / request.param / "raw"
    write_idx(raw / "train-images-idx3-ubyte", TRAIN)
    write_idx(raw / "train-labels-idx1-ubyte", np.array([4, 3, 2, 1, 0]))
    write_idx(raw / "t10k-images-idx3-ubyte", TEST)
    write_idx(raw / "t10k-labels-idx1-ubyte", np.array([9, 8, 7]))
    return raw


def read_raw(raw: Path, **options: Any) -> ImageSet:
    name = {"MNIST": "mnist", "FashionMNIST": "fashion_mnist"}[raw.parent.name]
    read = getattr(torchvision_sets, f"read_{name}")
    return read(SplitOptions(**options), context(raw.parent.parent))


def test_mnist_files_in_place_are_read_training_first(raw: Path) -> None:
    data = read_raw(raw)
    np.testing.assert_array_equal(data.images[:, 0].numpy(), np.concatenate([TRAIN, TEST]))
    assert data.labels is not None
    assert data.labels.tolist() == [4, 3, 2, 1, 0, 9, 8, 7]
    assert data.ids == [*(f"train/{i}" for i in range(5)), *(f"test/{i}" for i in range(3))]


@pytest.mark.parametrize(("split", "labels"), [("train", [4, 3, 2, 1, 0]), ("test", [9, 8, 7])])
def test_one_split_alone(raw: Path, split: str, labels: list[int]) -> None:
    data = read_raw(raw, split=split)
    assert data.labels is not None
    assert data.labels.tolist() == labels


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08", b"hello there", None], ids=["empty", "header", "text", "cut"]
)
def test_damaged_mnist_files_are_refused(raw: Path, content: bytes | None) -> None:
    file = raw / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000] if content is None else content)
    with pytest.raises(DataError, match="damaged") as error:
        read_raw(raw)
    assert str(raw.parent.parent) in one_line(error)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "stl10"])
def test_without_files_and_network_one_line_says_so(name: str, tmp_path: Path, offline: None) -> None:
    warnings: list[str] = []
    options = Stl10Options() if name == "stl10" else SplitOptions()
    with pytest.raises(DataError, match="could not be downloaded") as error:
        getattr(torchvision_sets, f"read_{name}")(options, context(tmp_path, warn=warnings.append))
    text = one_line(error)
    assert str(tmp_path) in text
    assert "no route to host" in text
    assert "--data-root" in text
    assert name.replace("_", "-") in text
    assert len(warnings) == 1


def small_set(
    monkeypatch: pytest.MonkeyPatch, dataset_class: type, parts: dict[Any, tuple[np.ndarray, Any]]
) -> None:
    """Let torchvision's class find these arrays instead of reading files."""

    def init(self: Any, root: str, train: Any = None, split: Any = None, download: bool = False) -> None:
        self.data, labels = parts[train if split is None else split]
        setattr(self, "labels" if split else "targets", labels)

    monkeypatch.setattr(dataset_class, "__init__", init)


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_cifar_becomes_colour_first(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    parts = {True: (images[:3], [0, 1, 2]), False: (images[3:], [3, 4])}
    small_set(monkeypatch, getattr(datasets, name), parts)
    data = getattr(torchvision_sets, f"read_{name.lower()}")(SplitOptions(), context())
    np.testing.assert_array_equal(data.images.numpy(), np.moveaxis(images, -1, 1))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2, 3, 4]


def test_stl10_is_read_by_split_and_unlabeled_has_no_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 96, 96), dtype=np.uint8)
    parts: dict[Any, tuple[np.ndarray, Any]] = {
        "train": (images[:2], np.array([1, 0], dtype=np.uint8)),
        "test": (images[2:4], np.array([5, 9], dtype=np.uint8)),
        "unlabeled": (images[4:], np.array([-1, -1])),
    }
    small_set(monkeypatch, datasets.STL10, parts)
    read = torchvision_sets.read_stl10
    labelled = read(Stl10Options(), context())
    np.testing.assert_array_equal(labelled.images.numpy(), images[:4])
    assert labelled.labels is not None
    assert labelled.labels.tolist() == [1, 0, 5, 9]
    unlabeled = read(Stl10Options(split="unlabeled"), context())
    np.testing.assert_array_equal(unlabeled.images.numpy(), images[4:])
    assert unlabeled.labels is None


# -- real files ----------------------------------------------------------------------------------


def test_coil20(data_dir: Path) -> None:
    data = read_npz(data_dir / "coil20.npz")
    assert data.images.shape == (1440, 1, 32, 32)
    assert data.n_classes == 20


def test_a_sample_of_the_cifar10_zip(data_dir: Path) -> None:
    data = build(resolve_zip(str(data_dir / "cifar10-test.zip")), FolderOptions(), context(limit=50))
    assert data.images.shape == (50, 3, 32, 32)
    assert data.labels is not None
    assert 5 <= len(np.unique(data.labels)) <= 10
    assert set(data.labels.tolist()) <= set(range(10))
    assert len({name.split("/")[0] for name in data.ids}) == data.n_classes
