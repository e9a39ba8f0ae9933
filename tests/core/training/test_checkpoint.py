"""Training that is interrupted and goes on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from ebsc_core.config.schema import JointChoice, TrainOptions
from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.data.views.options import GRAY_VIEWS
from ebsc_core.plugins.interfaces import Backbone, Objective
from ebsc_core.training import checkpoint
from ebsc_core.training.checkpoint import CheckpointStore
from ebsc_core.training.step import JointStep
from ebsc_core.training.trainer import Trainer
from ebsc_core.utils.device import restore_random_states
from ebsc_core.utils.errors import DataError, Interrupted, TrainingError
from ebsc_core.utils.progress import Progress
from ebsc_core.utils.signals import interruption
from ebsc_plugins.coefficients.energy import EnergyNetwork, EnergyOptions
from ebsc_plugins.objectives.byol import BYOL
from ebsc_plugins.objectives.simclr import SimCLR

N, BATCH, EPOCHS = 70, 16, 4  # four steps an epoch, of which two epochs are joint


class Tiny(Backbone):
    def __init__(self) -> None:
        super().__init__()
        self.width = 16
        self.layers = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.Dropout(0.2), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean((2, 3))


def trainer(
    path: Path | None = None,
    kind: type[Objective] = SimCLR,
    batch: int = BATCH,
    epochs: int = EPOCHS,
    form: Literal["reconstruction", "neighbors"] = "reconstruction",
    optimizer: Literal["adamw", "sgd"] = "adamw",
) -> Trainer:
    torch.manual_seed(0)
    objective = kind(kind.Options(hidden=16, width=8), Tiny()).to(memory_format=torch.channels_last)
    pixels = torch.randint(
        0, 256, (N, 1, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8
    )
    step = JointStep(
        objective=objective,
        model=None if form == "neighbors" else EnergyNetwork(EnergyOptions(hidden=8), 8),
        device=torch.device("cpu"),
        views=GRAY_VIEWS,
        joint=JointChoice(form=form, start=0.25 if form == "neighbors" else 0.5, renew=2),
        whiten=True,
        express="embeddings",
        n_clusters=2,
    )

    def halves() -> tuple[Tensor, Tensor, float]:
        """Divide the images by what the network makes of them now; pair those of near values."""
        values = objective.eval().embed(objective.backbone(pixels.float() / 255))[:, 0]
        near = (values[:, None] - values).abs().topk(3, largest=False).indices[:, 1:]
        return (values > values.median()).long(), near, 0.37

    return Trainer(
        step=step,
        images=ImageSet("tiny", pixels, [str(i) for i in range(N)]),
        options=TrainOptions(epochs=epochs, lr=3e-3, optimizer=optimizer),
        batch_size=batch,
        n_clusters=2,
        seed=0,
        progress=Progress(),
        checkpoints=CheckpointStore(path) if path else None,
        partition=halves if form == "neighbors" else None,
    )


def weights(made: Trainer) -> dict[str, Tensor]:
    modules = {"objective": made.step.objective, "model": made.step.model}
    both = nn.ModuleDict({name: module for name, module in modules.items() if module is not None})
    return {name: value.clone() for name, value in both.state_dict().items()}


def after(made: Trainer, steps: int, act: Callable[[], object]) -> None:
    """Do something before the step that follows so many."""
    real, taken = type(made.step).__call__, 0

    class Acting(JointStep):
        def __call__(self, *arguments: Any, **named: Any) -> Any:
            nonlocal taken
            if taken == steps:
                act()
            taken += 1
            return real(self, *arguments, **named)

    made.step.__class__ = Acting


def fail() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "key.training.safetensors"


@pytest.mark.parametrize(("kind", "optimizer"), [(SimCLR, "adamw"), (BYOL, "adamw"), (SimCLR, "sgd")])
@pytest.mark.parametrize("steps", [1, 4, 6, 8, 11, 15])
def test_an_interrupted_training_ends_where_one_that_was_not_would(
    path: Path, kind: type[Objective], optimizer: Literal["adamw", "sgd"], steps: int
) -> None:
    whole = trainer(kind=kind, optimizer=optimizer)
    whole.fit()
    first = trainer(path, kind, optimizer=optimizer)
    after(first, steps, fail)
    with pytest.raises(torch.OutOfMemoryError):
        first.fit()
    assert f"goes on from epoch {steps // 4 + 1} of 4" in first.save_checkpoint()
    second = trainer(path, kind, optimizer=optimizer)
    second.fit(second.checkpoints.load())
    for name, value in weights(whole).items():
        assert torch.equal(weights(second)[name], value), name
    assert second.history == whole.history
    assert second.schedule.get_last_lr() == whole.schedule.get_last_lr()
    assert second.seconds > second.earlier > 0


@pytest.mark.parametrize("steps", [3, 4, 6, 9, 12, 14])
def test_a_partition_is_kept_with_the_training(path: Path, steps: int) -> None:
    whole = trainer(form="neighbors")
    whole.fit()
    first = trainer(path, form="neighbors")
    after(first, steps, fail)
    with pytest.raises(torch.OutOfMemoryError):
        first.fit()
    first.save_checkpoint()
    second = trainer(path, form="neighbors")
    second.fit(second.checkpoints.load())
    assert all(torch.equal(value, weights(second)[name]) for name, value in weights(whole).items())


def test_a_partition_without_its_share_is_of_an_earlier_version(path: Path) -> None:
    first = trainer(path, form="neighbors")
    first.fit()
    first.save_checkpoint()
    assert first.checkpoints
    kept = first.checkpoints.load()
    assert kept
    tensors, record = kept
    del tensors["share"]
    second = trainer(form="neighbors")
    second.fit((tensors, record))
    assert second.history == first.history
    assert second.earlier == 0


@pytest.mark.parametrize("kept", [True, False])
def test_the_generator_of_a_device_is_kept_too(
    path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """Dropout on a GPU draws from it. Checkpoints of before did not hold it, and can be resumed."""
    cuda = torch.device("cuda", 0)
    states = {cuda: torch.tensor([1, 2], dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device].clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device: state}))
    first = trainer(path)
    after(first, 5, fail)
    with pytest.raises(torch.OutOfMemoryError):
        first.fit()
    first.step.device = cuda if kept else first.step.device
    first.save_checkpoint()
    second = trainer(path)
    saved = second.checkpoints.load()
    assert saved is not None
    assert ("random.cuda" in saved[0]) == kept
    states[cuda] = torch.tensor([8, 9], dtype=torch.uint8)
    restore_random_states(cuda, saved[0])
    assert states[cuda].tolist() == ([1, 2] if kept else [8, 9])
    assert torch.equal(torch.get_rng_state(), saved[0]["random"])
    second.fit(saved)  # on the CPU, whichever device it began on
    assert len(second.history) == EPOCHS


def test_it_can_be_interrupted_again(path: Path) -> None:
    whole = trainer()
    whole.fit()
    for steps in (3, 2, 7):
        part = trainer(path)
        after(part, steps, fail)
        with pytest.raises(torch.OutOfMemoryError):
            part.fit(part.checkpoints.load())
        part.save_checkpoint()
    last = trainer(path)
    last.fit(last.checkpoints.load())
    assert all(torch.equal(value, weights(last)[name]) for name, value in weights(whole).items())


@pytest.mark.parametrize("steps", [2, 5, 10, 11])
@pytest.mark.parametrize("batch", [8, 10, 35, 64])
def test_another_batch_size_goes_on_and_ends_the_schedule(path: Path, steps: int, batch: int) -> None:
    first = trainer(path)
    after(first, steps, fail)
    with pytest.raises(torch.OutOfMemoryError):
        first.fit()
    first.save_checkpoint()
    second = trainer(path, batch=batch)
    saved = second.checkpoints.load()
    second.fit(saved)
    assert len(second.history) == EPOCHS
    assert second.history[: steps // 4] == first.history
    assert second.schedule.get_last_lr()[0] == pytest.approx(0, abs=1e-9)
    assert [w for w in second.progress.warnings if f"batches of 16 in fp32, from epoch {steps // 4 + 1}" in w]
    assert saved is not None
    assert not torch.equal(next(iter(saved[0].values())), next(iter(weights(second).values())))


def test_a_training_that_is_done_goes_on_to_nothing(path: Path) -> None:
    first = trainer(path)
    first.fit()
    assert first.save_checkpoint() == "; training is done and kept"
    second = trainer(path)
    after(second, 0, fail)
    second.fit(second.checkpoints.load())
    assert second.history == first.history
    assert all(torch.equal(value, weights(second)[name]) for name, value in weights(first).items())


def test_nothing_is_kept_of_nothing(path: Path) -> None:
    made = trainer(path)
    after(made, 0, fail)
    with pytest.raises(torch.OutOfMemoryError):
        made.fit()
    assert made.save_checkpoint() == ""
    assert trainer().save_checkpoint() == ""
    assert not path.exists()


def test_training_is_kept_now_and_then(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[int] = []
    monkeypatch.setattr(CheckpointStore, "save", lambda self, saved: times.append(saved[1]["images"]))
    trainer(path, epochs=1).fit()
    assert not times  # within ten minutes
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    trainer(path, epochs=1).fit()
    assert times == [16, 32, 48, 0]


@pytest.mark.parametrize("how", ["when it is due", "when interrupted"])
def test_weights_that_are_not_finite_are_not_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Training that resumed from them could only fail again."""
    made = trainer(path)

    def spoil() -> None:
        next(made.step.objective.parameters()).data.fill_(float("nan"))
        if how == "when interrupted":
            interrupt()

    if how == "when it is due":
        monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    after(made, 6, spoil)
    with pytest.raises(TrainingError, match=r"a weight is no longer finite; lower train\.lr"):
        made.fit()
    kept = trainer(path)
    saved = kept.checkpoints.load() if kept.checkpoints else None
    assert (saved is not None) == (how == "when it is due")
    if saved:
        kept.fit(saved)
        assert all(value.isfinite().all() for value in weights(kept).values())


def test_a_full_disk_does_not_end_training(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(self: CheckpointStore, saved: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    monkeypatch.setattr(CheckpointStore, "save", save)
    made = trainer(path, epochs=1)
    made.fit()
    assert "training is not kept: No space left on device" in made.progress.warnings


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_waits_for_the_end_of_the_step(path: Path) -> None:
    whole = trainer()
    whole.fit()
    first = trainer(path)
    after(first, 6, interrupt)
    with pytest.raises(Interrupted, match="training is kept and goes on from epoch 2 of 4"):
        first.fit()
    second = trainer(path)
    saved = second.checkpoints.load()
    assert saved is not None
    assert (saved[1]["epoch"], saved[1]["images"]) == (1, 3 * BATCH)
    second.fit(saved)
    assert all(torch.equal(value, weights(second)[name]) for name, value in weights(whole).items())


def test_without_a_keeper_ctrl_c_is_what_it_was() -> None:
    made = trainer()
    after(made, 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        made.fit()


def test_the_second_ctrl_c_ends_at_once_and_afterwards_it_is_what_it_was() -> None:
    with interruption() as asked:
        assert not asked()
        interrupt()
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_other_threads_are_not_told_of_signals() -> None:
    told: list[bool] = []

    def within() -> None:
        with interruption() as asked:
            told.append(asked())

    thread = threading.Thread(target=within)
    thread.start()
    thread.join()
    assert told == [False]


@pytest.mark.parametrize("damage", ["cut", "other", "version"])
def test_what_cannot_be_used_is_said(path: Path, damage: str) -> None:
    first = trainer(path, epochs=1)
    first.fit()
    first.save_checkpoint()
    content = path.read_bytes()
    if damage == "other":
        path.write_bytes(b"hello")
    path.write_bytes(content[:-10] if damage == "cut" else content.replace(b"training-3", b"training-0"))
    with pytest.raises(DataError) as error:
        CheckpointStore(path).load()
    assert len(str(error.value).splitlines()) == 1
    assert str(path) in str(error.value)


def test_weights_of_another_network_are_not_taken(path: Path) -> None:
    first = trainer(path, BYOL, epochs=1)
    first.fit()
    first.save_checkpoint()
    whole = trainer(epochs=1)
    whole.fit()
    second = trainer(path, epochs=1)
    second.fit(second.checkpoints.load())
    assert [w for w in second.progress.warnings if "starts afresh: what was kept cannot be used" in w]
    assert second.history == whole.history


def test_what_is_removed_is_gone(path: Path) -> None:
    checkpoints = CheckpointStore(path)
    checkpoints.remove()
    checkpoints.save(({"a": torch.ones(2, 3).T}, {"b": 1}))
    assert checkpoints.load() is not None
    checkpoints.remove()
    assert checkpoints.load() is None
