"""Download and read named data sets with torchvision."""

from __future__ import annotations

import contextlib
import io
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torchvision import datasets

from ebsc_core import DataContext, DataError, ImageSet, Options


class SplitOptions(Options):
    """Configure which images of the data set are read."""

    split: Literal["all", "train", "test"] = "all"
    """The run uses the training images, the test images, or both (training images first)."""


class Stl10Options(Options):
    """Configure which images of STL-10 are read."""

    split: Literal["all", "train", "test", "unlabeled"] = "all"
    """``all`` means the 13,000 labelled images, as clustering papers use them; ``unlabeled`` means the
    100,000 unlabelled ones."""


def _read(dataset_class: Any, name: str, options: Any, context: DataContext) -> ImageSet:
    splits = ["train", "test"] if options.split == "all" else [options.split]
    parts = [_load(dataset_class, name, split, context) for split in splits]
    images = [_images(part) for part in parts]
    ids = [f"{split}/{i}" for split, part in zip(splits, images, strict=True) for i in range(len(part))]
    if options.split == "unlabeled":
        return ImageSet(name, torch.cat(images), ids)
    labels = np.concatenate([_labels(part) for part in parts])
    names = getattr(parts[0], "classes", None)  # STL-10 has them in a file that may be missing
    return ImageSet(name, torch.cat(images), ids, labels, tuple(names) if names else None)


def _load(dataset_class: Any, name: str, split: str, context: DataContext) -> Any:
    which = {"split": split} if dataset_class is datasets.STL10 else {"train": split == "train"}
    open_set = partial(dataset_class, str(context.root), **which)
    try:
        return open_set(download=False)
    except RuntimeError:  # files are missing, or their checksums do not match
        if not context.download:
            raise DataError(f"{name} is missing or damaged in {context.root}") from None
        context.warn(f"{name} is missing or damaged in {context.root}; downloading it")
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                return open_set(download=True)
        except Exception as error:
            raise DataError(
                f"{name} is missing or damaged in {context.root} and could not be downloaded "
                f"({_reason(error)}); put torchvision's files there or point `data.root` to them"
            ) from None
    except Exception as error:  # torchvision's readers check little
        raise DataError(
            f"{name} is damaged in {context.root} ({_reason(error)}); "
            "remove its files there, and ebsc downloads them again"
        ) from None


def _labels(dataset: Any) -> np.ndarray:
    labels = dataset.labels if isinstance(dataset, datasets.STL10) else dataset.targets
    return np.asarray(labels, dtype=np.int64)


def _reason(error: Exception) -> str:
    """Return the last line of an error: there torchvision reports on the last mirror that it tried."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _images(dataset: Any) -> torch.Tensor:
    data = torch.as_tensor(dataset.data)
    if data.ndim == 3:  # MNIST: (N, H, W)
        return data[:, None]
    if isinstance(dataset, datasets.STL10):  # already (N, C, H, W)
        return data
    return data.permute(0, 3, 1, 2).contiguous()


read_mnist = partial(_read, datasets.MNIST, "mnist")
read_fashion_mnist = partial(_read, datasets.FashionMNIST, "fashion-mnist")
read_cifar10 = partial(_read, datasets.CIFAR10, "cifar10")
read_cifar100 = partial(_read, datasets.CIFAR100, "cifar100")
read_stl10 = partial(_read, datasets.STL10, "stl10")
