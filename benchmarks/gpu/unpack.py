"""Turn the images from ``pack.py`` into .npz files for runs.

    python benchmarks/gpu/unpack.py FOLDER DATA

For CIFAR-10 the script writes ``cifar10-train.npz`` (50,000), ``cifar10-test.npz`` (10,000) and
``cifar10.npz`` (all 60,000). It keeps existing files.
"""

from __future__ import annotations

import io
import lzma
import sys
import tarfile
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image


def main() -> None:
    folder, data = map(Path, sys.argv[1:])
    data.mkdir(parents=True, exist_ok=True)
    for packed in sorted(folder.glob("*.xz")):
        if (data / f"{packed.stem}.npz").exists():
            continue
        content = lzma.decompress(packed.read_bytes())
        if packed.stem == "cifar10":
            unpack_files(content, data)
        else:
            with np.load(io.BytesIO(content)) as stored:
                np.savez(data / f"{packed.stem}.npz", **{name: stored[name] for name in stored.files})


def unpack_files(content: bytes, data: Path) -> None:
    """Decode the images of a tar file, and write each split, and both together."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        files = [(entry.name, tar.extractfile(entry).read()) for entry in tar]
    names = sorted({name.split("/")[1] for name, _ in files})
    splits = np.array([name.split("/")[0] for name, _ in files])
    labels = np.array([names.index(name.split("/")[1]) for name, _ in files])
    with Pool() as pool:
        images = np.stack(pool.map(decoded, [content for _, content in files], chunksize=1000))
    for split in ("train", "test"):
        chosen = splits == split
        np.savez(data / f"cifar10-{split}.npz", images=images[chosen], labels=labels[chosen])
    np.savez(data / "cifar10.npz", images=images, labels=labels)


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


if __name__ == "__main__":
    main()
