"""One trial of one system: trained, its best epoch kept, the test frames scored, all in a folder.

predictions.npz  score and quality of every frame of the test table, in its order
embeddings.npz   features of some test frames, of trial 0 alone
result.json      what was trained, how, how long; written last: with it the trial is done
failed.txt       instead, what went wrong
"""

import copy
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from acouslic import files
from benchmark.frames import (
    NO_CLUSTER,
    Draw,
    FrameTable,
    SampleReader,
    Samples,
    draw_epoch,
    in_batches,
    load,
)
from benchmark.measures import best_threshold
from benchmark.mixup import fit_clusters, plan_batches
from benchmark.networks import BenchmarkNetwork, Classifier, parameter_counts
from benchmark.protocol import Protocol, Tables
from benchmark.quality import Quality
from benchmark.systems import Built, Plan, System
from training.augment import NUMBERS, Augmentation, augment

RESULT, PREDICTIONS, EMBEDDINGS, FAILED = (
    "result.json",
    "predictions.npz",
    "embeddings.npz",
    "failed.txt",
)
COPIES = 3
EMBEDDED_OF_EACH_QUALITY = 150


@dataclass(frozen=True)
class Schedule:
    """How every system is trained; the defaults are the paper's.

    frames_per_epoch: a random part of the epoch, None for all of it; soften_frames: see
    `frames.soft_targets`, for the training frames of systems that rate quality.
    """

    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    frames_per_epoch: int | None = None
    soften_frames: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Compute:
    """What a trial uses; `precision` is bf16 (autocast) or fp32."""

    device: str = "cpu"
    precision: str = "bf16"
    workers: int = 0

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")


@dataclass(frozen=True)
class Evaluation:
    """A network on a table: `score`, `quality` (n,) float32, the mean loss over its frames.

    seconds: wall time over `computed` frames (black ones are computed once); embeddings: of the
    rows asked for.
    """

    score: np.ndarray
    quality: np.ndarray
    loss: float
    seconds: float
    computed: int
    embeddings: np.ndarray


@dataclass(frozen=True)
class Setting:
    """All that determines a system's trials, but for their number."""

    system: System
    plan: Plan
    tables: Tables
    schedule: Schedule
    compute: Compute

    def seed(self, trial: int) -> int:
        return self.schedule.seed * 1000 + trial


def run_trial(folder: Path, setting: Setting, trial: int) -> None:
    """Train and score; a trial that is done is not done again."""
    if (folder / RESULT).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(setting.seed(trial))
    built = setting.system.build(setting.plan)
    begun_from = _take_over(built, setting.plan.protocol, folder.parent, trial)
    network = built.network.to(setting.compute.device)
    history = train(network, setting, trial)
    if (carried := _carried(built, setting.plan.protocol, folder.parent, trial)) is not None:
        _hand_on(network, carried)
    network.load_state_dict(history.best, strict=False)
    threshold = _threshold(network, setting)
    test = _score_test(folder, network, setting, embed=trial == 0)
    (folder / FAILED).unlink(missing_ok=True)
    result = {
        "system": setting.system.name,
        "trial": trial,
        "seed": setting.seed(trial),
        "network": built.network_name,
        "origin": built.origin,
        "trained": built.trained,
        "begun_from": begun_from,
        "parameters": dict(zip(("trainable", "total"), parameter_counts(network), strict=True)),
        "history": history.epochs,
        "threshold": threshold,
        "train_seconds": round(sum(epoch["seconds"] for epoch in history.epochs), 3),
        "frames_per_second": round(test.computed / max(test.seconds, 1e-9), 2),
    }
    files.write_json(folder / RESULT, result)


def _threshold(network: BenchmarkNetwork, setting: Setting) -> float:
    if setting.plan.protocol.fixed_threshold:
        return setting.system.threshold
    table = setting.tables.validation
    return best_threshold(evaluate(network, table, setting).score, table.quality > 0)


def _score_test(
    folder: Path, network: BenchmarkNetwork, setting: Setting, *, embed: bool
) -> Evaluation:
    table = setting.tables.test
    chosen = _some_of_each_quality(table) if embed else np.zeros(0, np.int64)
    test = evaluate(network, table, setting, embed=chosen)
    with files.new_file(folder / PREDICTIONS) as partial:
        np.savez_compressed(partial, score=test.score, quality=test.quality)
    if embed:
        with files.new_file(folder / EMBEDDINGS) as partial:
            quality = table.quality[chosen]
            np.savez_compressed(partial, embeddings=test.embeddings, quality=quality)
    return test


def _some_of_each_quality(table: FrameTable) -> np.ndarray:
    """Rows of tissue frames, spread evenly over the table."""
    parts = []
    for quality in range(3):
        rows = np.flatnonzero((table.row >= 0) & (table.quality == quality))
        step = max(1, math.ceil(len(rows) / EMBEDDED_OF_EACH_QUALITY))
        parts.append(rows[::step])
    return np.concatenate(parts)


def _carried(built: Built, protocol: Protocol, folder: Path, trial: int) -> Path | None:
    """Where the last weights of a trial go, if the next trial begins with them."""
    if not (protocol.shared_weights and built.whole):
        return None
    return folder / f"carried-{trial}.safetensors"


def _take_over(built: Built, protocol: Protocol, folder: Path, trial: int) -> str:
    """Begin with the last trial's weights where the protocol has that trap."""
    carried = _carried(built, protocol, folder, trial - 1)
    if carried is None or trial == 0 or not isinstance(built.network, Classifier):
        return built.origin
    built.network.encoder.load_state_dict(load_file(carried), strict=False)
    return f"the last weights of trial {trial - 1}"


def _hand_on(network: BenchmarkNetwork, carried: Path) -> None:
    """Write the encoder's weights as they are for the next trial, and drop the last trial's."""
    assert isinstance(network, Classifier)
    state = {name: each.cpu().contiguous() for name, each in network.encoder_state().items()}
    for older in carried.parent.glob("carried-*.safetensors"):
        older.unlink()
    with files.new_file(carried) as partial:
        save_file(state, partial)


@dataclass(frozen=True)
class History:
    """epochs: losses and seconds of each; best: what was trained, at the least validation loss."""

    epochs: list[dict[str, float]]
    best: dict[str, torch.Tensor]


def train(network: BenchmarkNetwork, setting: Setting, trial: int) -> History:
    """Train in place, up to the last epoch.

    Raises FloatingPointError where the loss is no number any more.
    """
    schedule = setting.schedule
    optimiser = _optimiser(network, schedule)
    reader = SampleReader(setting.tables.training, copies_seed=schedule.seed)
    epochs: list[dict[str, float]] = []
    best: dict[str, torch.Tensor] = {}
    for epoch in range(schedule.epochs):
        start = time.perf_counter()
        generator = np.random.default_rng([setting.seed(trial), epoch])
        batches = _epoch_batches(network, setting, reader, generator)
        loss = _train_epoch(network, optimiser, reader, batches, setting)
        seconds = round(time.perf_counter() - start, 3)
        held_out = evaluate(network, setting.tables.validation, setting).loss
        epochs.append({"training_loss": loss, "validation_loss": held_out, "seconds": seconds})
        if held_out <= min(each["validation_loss"] for each in epochs):
            best = _trained_state(network)
    return History(epochs, best)


def rehearse(setting: Setting) -> str:
    """One batch through a system that is built for it and then forgotten: what it trains and what
    a step takes, in words.

    Raises FloatingPointError where the loss is no number.
    """
    setting = replace(
        setting, schedule=replace(setting.schedule, frames_per_epoch=setting.schedule.batch_size)
    )
    network = setting.system.build(setting.plan).network.to(setting.compute.device)
    reader = SampleReader(setting.tables.training)
    batches = _epoch_batches(network, setting, reader, np.random.default_rng(setting.seed(0)))[:1]
    start = time.perf_counter()
    _train_epoch(network, _optimiser(network, setting.schedule), reader, batches, setting)
    seconds = time.perf_counter() - start
    trained = [each for each in network.parameters() if each.requires_grad]
    idle = sum(each.numel() for each in trained if each.grad is None)
    said = (
        f"{sum(each.numel() for each in trained):,} parameters trained, {idle:,} without gradient"
    )
    said += f", {seconds:.1f} s for {len(batches[0])} frames"
    if setting.compute.device == "cuda":
        said += f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
        torch.cuda.reset_peak_memory_stats()
    return said


def _optimiser(network: BenchmarkNetwork, schedule: Schedule) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        [each for each in network.parameters() if each.requires_grad],
        lr=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
    )


def _trained_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of what training changes: parameters with a gradient, and all buffers."""
    trained = {name for name, each in network.named_parameters() if each.requires_grad}
    trained |= {name for name, _ in network.named_buffers()}
    state = network.state_dict()
    return {name: copy.deepcopy(state[name]) for name in state if name in trained}


def _epoch_batches(
    network: BenchmarkNetwork,
    setting: Setting,
    reader: SampleReader,
    generator: np.random.Generator,
) -> list[list[Draw]]:
    schedule, mixup = setting.schedule, setting.system.mixup
    copies = COPIES if setting.plan.protocol.offline_copies else 1
    draws = draw_epoch(
        len(reader.table), copies=copies, limit=schedule.frames_per_epoch, generator=generator
    )
    if mixup is None or not isinstance(network, Quality):
        return in_batches(draws, schedule.batch_size)
    # Partners come from the frames drawn for this epoch, the only ones worth a pass of the trunk.
    pool = np.unique([draw.row for draw in draws])
    embeddings = _embed(network, reader, pool, setting)
    reader.clusters[:] = NO_CLUSTER
    reader.clusters[pool] = fit_clusters(embeddings, mixup, int(generator.integers(2**31)))
    return plan_batches(
        draws,
        reader.table,
        reader.clusters,
        batch_size=schedule.batch_size,
        config=mixup,
        generator=generator,
    )


@torch.no_grad()
def _embed(
    network: Quality, reader: SampleReader, index: np.ndarray, setting: Setting
) -> np.ndarray:
    network.eval()
    batches = in_batches([Draw(int(k), 0) for k in index], setting.schedule.batch_size)
    parts = []
    for samples in load(reader, batches, setting.compute.workers):
        with setting.compute.autocast():
            parts.append(network.embed(samples.frames.to(setting.compute.device)).cpu())
    return torch.cat(parts).numpy()


def _train_epoch(
    network: BenchmarkNetwork,
    optimiser: torch.optim.Optimizer,
    reader: SampleReader,
    batches: list[list[Draw]],
    setting: Setting,
) -> float:
    """The mean training loss over batches."""
    network.train()
    total = 0.0
    for read in load(reader, batches, setting.compute.workers):
        samples = _on(read, setting.compute.device)
        if not setting.plan.protocol.offline_copies:
            samples = _vary_within_fan(samples)
        with setting.compute.autocast():
            loss = network.loss(network(samples.frames), samples)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += float(loss.detach())
    if not math.isfinite(total):
        raise FloatingPointError("the training loss is not finite")
    return total / len(batches)


def _on(samples: Samples, device: str) -> Samples:
    return Samples(*(each.to(device, non_blocking=True) for each in samples))


def _vary_within_fan(samples: Samples) -> Samples:
    uniform = torch.rand(len(samples.frames), NUMBERS).to(samples.frames.device)
    frames, masks = augment(samples.frames, samples.masks, uniform, Augmentation())
    return samples._replace(frames=frames, masks=masks * 255)


@torch.no_grad()
def evaluate(
    network: BenchmarkNetwork,
    table: FrameTable,
    setting: Setting,
    *,
    embed: np.ndarray | None = None,
) -> Evaluation:
    """Score every frame of a table; all black frames have the score and loss of one of them.

    `embed` names rows of tissue frames, whose embeddings come back in that order.
    """
    network.eval()
    compute, black = setting.compute, np.flatnonzero(table.row < 0)
    tissue = [Draw(int(k), 0) for k in np.flatnonzero(table.row >= 0)]
    batches = in_batches(tissue, setting.schedule.batch_size)
    if len(black):
        batches.append([Draw(int(black[0]), 0)])
    score, quality = np.zeros(len(table), np.float32), np.zeros(len(table), np.float32)
    wanted = set() if embed is None else set(embed.tolist())
    embeddings: dict[int, np.ndarray] = {}
    loss, seconds = 0.0, 0.0
    loader = load(SampleReader(table), batches, compute.workers)
    for batch, read in zip(batches, loader, strict=True):
        index = np.array([draw.row for draw in batch])
        samples = _on(read, compute.device)
        start = time.perf_counter()
        with compute.autocast():
            answer = network(samples.frames)
            share = len(black) if table.row[index[0]] < 0 else len(index)
            loss += share * float(network.loss(answer, samples))
        score[index], quality[index] = answer.score.cpu(), answer.quality.cpu()
        seconds += time.perf_counter() - start
        for k, number in enumerate(index.tolist()):
            if number in wanted:
                embeddings[number] = answer.embedding[k].float().cpu().numpy()
    score[black], quality[black] = score[black[:1]], quality[black[:1]]
    rows = [embeddings[int(k)] for k in embed] if embed is not None else []
    return Evaluation(
        score,
        quality,
        loss / len(table),
        seconds,
        len(tissue) + bool(len(black)),
        np.stack(rows) if rows else np.zeros((0, 1), np.float32),
    )
