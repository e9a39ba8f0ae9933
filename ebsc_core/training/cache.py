"""Cache trained features between runs, under a digest of everything that they depend on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from torch import nn

from ebsc_core.data.features.store import FEATURES, check_features
from ebsc_core.utils.cached_entries import (
    LARGE,
    LIMIT,
    TRAINING,
    cache_limit,
    entries_of,
    in_bytes,
    shrink,
)
from ebsc_core.utils.errors import DataError, fault_of
from ebsc_core.utils.files import lock
from ebsc_core.utils.hashing import digest
from ebsc_core.utils.manifest import GuardedFolder, write_manifest
from ebsc_core.utils.paths import mark_cache
from ebsc_core.utils.weights import read_weights, save_weights

# The fields of a Trained that training.json holds.
RECORDED = {"history": list, "precision": str, "warnings": list, "cost": dict}


@dataclass(frozen=True)
class Trained:
    """Hold the result of training."""

    features: Path
    """The file with the features (see ``ebsc_core.data.features.store``)."""
    history: list[dict[str, Any]]
    """One record for each epoch, as plain values."""
    precision: str
    """The precision, ``fp32`` or ``bf16``; ``none`` if nothing was trained."""
    warnings: list[str]
    cost: dict[str, Any]
    """What the training took: ``seconds`` by stage, ``peak_memory_mib``, and ``arithmetic`` with the
    reasons."""


class TrainedCache:
    """Store entries ``<folder>/<key>/`` with features, weights and the training record.

    Parameters
    ----------
    folder : Path or None
        The folder of the cache. None stores nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def mark(self) -> None:
        """Mark the folder as one of ebsc; if it cannot be written, that shows when an entry is stored.

        Raises
        ------
        ConfigError
            If the limit of the cache is no size. It is used after the training, but this is said before.
        """
        if self.folder is not None:
            cache_limit()
            with suppress(OSError):
                mark_cache(self.folder)

    @contextmanager
    def in_use(self, made_from: Mapping[str, Any]) -> Iterator[None]:
        """Keep the entry for ``made_from``, if there is one, from being removed while the block runs."""
        with ExitStack() as stack:
            if self.folder is not None:
                entry = self.folder / digest(made_from)
                with suppress(OSError):  # there is none, or another user's
                    lock(stack.enter_context((entry / TRAINING).open("rb")), shared=True)
                    os.utime(entry)
            yield

    def load(
        self,
        made_from: Mapping[str, Any],
        modules: Mapping[str, nn.Module],
        n_rows: int,
        precision: str,
    ) -> tuple[Trained | None, str]:
        """Load the entry for ``made_from``, and its weights into ``modules``; or return None and why.

        The reason is empty if there is no entry. ``modules`` change only if the whole entry can be used. With
        an entry that cannot be checked, since it has no manifest, the text says so.
        """
        if self.folder is None:
            return None, ""
        key = digest(made_from)
        entry = self.folder / key
        files = GuardedFolder(entry)
        try:
            if not entry.is_dir():
                return None, ""
            record = _read_record(files.file(TRAINING))
            trained_in = record["precision"]
            if precision not in ("auto", trained_in, "any"):
                return None, f"cached features were trained in {trained_in}, not {precision}"
            features = files.file(FEATURES)
            check_features(features, key, n_rows, proven=files.digests is not None)
            weights = {
                name: read_weights(module, files.file(f"{name}.safetensors"))
                for name, module in modules.items()
            }
        except (DataError, OSError) as error:  # the entry may be another user's, and closed to this one
            return None, f"cached features cannot be used: {fault_of(error)}"
        for name, module in modules.items():
            module.load_state_dict(weights[name])
        return Trained(entry / FEATURES, **record), files.unchecked

    def store(self, made_from: Mapping[str, Any], modules: Mapping[str, nn.Module], trained: Trained) -> None:
        """Write an entry under a temporary name, then rename it into place; replace a damaged one."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        key = digest(made_from)
        # Unlike tempfile's, with the user's own permissions: others may share the cache.
        temporary_folder = self.folder / f".{key}.{uuid4().hex}"
        temporary_folder.mkdir()
        try:
            shutil.copyfile(trained.features, temporary_folder / FEATURES)
            save_modules(temporary_folder, modules)
            record = {name: getattr(trained, name) for name in RECORDED}
            (temporary_folder / TRAINING).write_text(json.dumps(record, indent=1), encoding="utf-8")
            write_manifest(temporary_folder)
            if (self.folder / key).exists():
                # Move the old entry away in one step: another process may write the same entry.
                (self.folder / key).rename(temporary_folder.with_name(f"{temporary_folder.name}.old"))
            temporary_folder.rename(self.folder / key)
        except OSError:
            if not (self.folder / key).is_dir():  # otherwise another process was faster
                raise
        finally:
            shutil.rmtree(temporary_folder, ignore_errors=True)
            shutil.rmtree(temporary_folder.with_name(f"{temporary_folder.name}.old"), ignore_errors=True)

    def keep_within_limit(self, made_from: Mapping[str, Any]) -> str:
        """Remove what was used least recently if the cache is above its limit; return what to tell the user.

        The entry for ``made_from`` stays.
        """
        if self.folder is None:
            return ""
        limit = cache_limit()
        if limit is not None:
            gone = shrink(self.folder, limit, keep=digest(made_from))
            removed = in_bytes(sum(entry.size for entry in gone))
            told = f"the cache was above {LIMIT}: the features of {len(gone)} trainings ({removed}) are gone"
            return told if gone else ""
        size = sum(entry.size for entry in entries_of(self.folder))
        if size <= LARGE:
            return ""
        return (
            f"the cache of features, {self.folder}, has grown to {in_bytes(size)}; `ebsc cache` shows it, "
            f"and the environment variable {LIMIT}=20GB limits it"
        )


def _read_record(path: Path) -> dict[str, Any]:
    """Read the fields of a :class:`Trained`, except its features."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.keys() != RECORDED.keys():
            raise ValueError("it is of another version")
        if not all(isinstance(record[name], kind) for name, kind in RECORDED.items()):
            raise TypeError("entries of the wrong type")
        return record
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is damaged or missing ({error})") from None


def save_modules(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Save the weights of each module to a file in ``folder``."""
    for name, module in modules.items():
        save_weights(module, folder / f"{name}.safetensors")
