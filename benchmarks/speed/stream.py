"""Measure images streamed from a folder: time to the first batch, memory, and speed compared to memory.

    python benchmarks/speed/stream.py [--files 100000] [--workers 1] [--rounds 3] [--out stream.json]

The script makes a folder of JPEG files of 120x90: 1,000 different ones under many names (hard links). A
separate process opens it and takes a hundred batches of 256. The growth of its memory from the tenth batch
on is the memory that images add. Then the script reads some images, at 64x64, in turn from memory and from
the folder, and trains on some (an epoch of SimCLR, ResNet-18). The record shows the CPU seconds of the
decoding processes separately.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from sides import CLOCKS, command, described, keep, timed

if TYPE_CHECKING:
    from ebsc_core.data.images.source import ImageSource
    from ebsc_core.data.images.streamed import StreamedImages

BATCH, SIZE = 256, 64


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--read", type=int, default=2048, help="number of images to read")
    parser.add_argument("--trained", type=int, default=256, help="number of images to train on")
    parser.add_argument("--within", type=Path, help="make the folder of images inside this folder")
    parser.add_argument("--start", type=Path, help="only measure the start on this folder")
    options = parser.parse_args()
    if options.start:
        print(json.dumps(start(options.start, options.workers)))
        return
    with tempfile.TemporaryDirectory(dir=options.within) as made:
        folder = Path(made) / "pictures"
        make(folder, options.files)
        itself = [sys.executable, __file__, "--start", str(folder), "--workers", str(options.workers)]
        begun = time.perf_counter()
        done = subprocess.run(itself, stdout=subprocess.PIPE, text=True, check=True)
        figures = json.loads(done.stdout) | {"whole_process_s": round(time.perf_counter() - begun, 2)}
        record = described() | {"files": options.files, "workers": options.workers, "start": figures}
        record |= {"in_turn": rates(folder, options)}
    record["load_average"] = round(os.getloadavg()[0], 2)
    print(json.dumps({name: record[name] for name in ("start", "in_turn", "load_average")}, indent=2))
    keep(record, options.out)


def make(folder: Path, files: int) -> None:
    """Write smooth noise as JPEG files, in ten folders."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for i in range(files):
        file = folder / str(i % 10) / f"{i:07}.jpg"
        if i < 1000:
            file.parent.mkdir(parents=True, exist_ok=True)
            buffer = io.BytesIO()
            pixels = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((120, 90)).save(buffer, "JPEG")
            file.write_bytes(buffer.getvalue())
        else:
            os.link(folder / str(i % 10) / f"{i % 1000:07}.jpg", file)


def start(folder: Path, workers: int) -> dict[str, Any]:
    """Measure the seconds to the first batch, and memory before it, at it, and after a hundred batches."""
    import torch

    seconds: dict[str, dict[str, float]] = {}
    before, began = status("self", "VmRSS"), (time.perf_counter(), time.process_time())

    def reached(stage: str) -> None:
        now = time.perf_counter() - began[0], time.process_time() - began[1]
        seconds.setdefault(stage, {clock: round(value, 2) for clock, value in zip(CLOCKS, now, strict=True)})

    images = opened(folder, stream=True, workers=workers)
    reached("listed")
    images.info()
    reached("statistics")
    images.digest()
    reached("digest")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    held = []
    for batch in images.batches(order[: 100 * BATCH].split(BATCH), torch.device("cpu")):
        reached("first batch")
        held.append(status("self", "VmRSS"))
        shape = tuple(batch.shape)
    processes: list[Any] = images.workers.loader._iterator._workers  # type: ignore[union-attr]
    figures = {
        "seconds_from_opening": seconds,
        "images": len(images),
        "batch_mib": round(torch.Size(shape).numel() / 2**20, 1),
        "window_mib": round(2 * workers * torch.Size(shape).numel() / 2**20, 1),
        "grown_by_opening_mib": held[0] - before,
        "grown_over_90_batches_mib": held[-1] - held[min(9, len(held) - 1)],
        "most_held_mib": status("self", "VmHWM"),
        "most_held_by_a_worker_mib": max(status(process.pid, "VmHWM") for process in processes),
    }
    images.close()
    return figures


def status(process: int | str, entry: str) -> int:
    """Read the memory of a process from Linux, in MiB."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(text.split(f"{entry}:")[1].split()[0]) // 1024


def opened(folder: Path, stream: bool, workers: int, limit: int | None = None) -> StreamedImages:
    """Open the folder's images, or some of them."""
    from ebsc_core.plugins.interfaces import DataContext
    from ebsc_plugins.datasets.folder import FolderOptions, resolve_folder

    spec = resolve_folder(str(folder))
    context = DataContext(Path("nowhere"), workers=workers, limit=limit)
    return spec.factory(FolderOptions(stream=stream, size=SIZE if limit else None), context)  # type: ignore


def rates(folder: Path, options: Namespace) -> dict[str, Any]:
    """Measure reading and training, each in turn from memory and from the folder."""
    works = {"read": (options.read, read), "trained": (options.trained, trained)}
    return {name: in_turn(folder, options.workers, options.rounds, *how) for name, how in works.items()}


def in_turn(
    folder: Path, workers: int, rounds: int, n: int, work: Callable[[ImageSource], None]
) -> dict[str, Any]:
    """Measure the seconds for ``n`` images, in memory and streamed, after a round that does not count."""
    sources = {name: opened(folder, name == "streamed", workers, n) for name in ("memory", "streamed")}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in sources}
    for number in range(-1, rounds):
        for name, images in sources.items():
            before = readers_seconds(images)
            _, seconds = timed(lambda images=images: work(images))
            if number >= 0:
                taken[name].append(seconds | {"readers_cpu": readers_seconds(images) - before})
    sources["streamed"].close()
    return {
        name: {"images": n}
        | {clock: {"median_s": round(median(s[clock] for s in each), 3)} for clock in each[0]}
        | {"images_per_s": round(n / median(s["wall"] for s in each), 1)}
        for name, each in taken.items()
    }


def readers_seconds(images: Any) -> float:
    """Return the CPU seconds of the reading processes, or 0 if there are none."""
    running = getattr(getattr(images, "workers", None), "loader", None)
    ticks = 0
    for process in running._iterator._workers if running is not None else ():
        stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(stat[11]) + int(stat[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def read(images: ImageSource) -> None:
    """Read all images in a random order."""
    import torch

    for _ in images.batches(torch.randperm(len(images)).split(BATCH), torch.device("cpu")):
        pass


def trained(images: ImageSource) -> None:
    """Train a ResNet-18 with SimCLR for an epoch."""
    import torch

    from ebsc_core.config.schema import JointChoice, TrainOptions
    from ebsc_core.data.views.options import COLOR_VIEWS
    from ebsc_core.training.step import JointStep
    from ebsc_core.training.trainer import Trainer
    from ebsc_core.utils.progress import Progress
    from ebsc_plugins.backbones.timm_models import TimmBackbone, TimmOptions
    from ebsc_plugins.objectives.simclr import SimCLR

    backbone = TimmBackbone("resnet18", TimmOptions(), images.info())
    objective = SimCLR(SimCLR.Options(), backbone).to(memory_format=torch.channels_last)
    step = JointStep(objective, None, torch.device("cpu"), COLOR_VIEWS, JointChoice(), False, "embeddings")
    step.bf16 = True
    Trainer(step, images, TrainOptions(epochs=1), min(128, len(images)), 2, 0, Progress()).fit()


if __name__ == "__main__":
    main()
