"""One trial of one system in a folder: trained, its best epoch taken, the test frames scored.

predictions.npz  score and quality of every frame of the test table, in its order
embeddings.npz   features of some test frames, of trial 0 alone
weights.safetensors  what was trained, of the best epoch
epoch.ckpt       the last whole epoch of a trial that is not finished
result.json      what was trained, how, how long; written last, so with it the trial is finished
failed.txt       what went wrong, instead of the result
"""

import copy
import logging
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.amp.grad_scaler import GradScaler

from acouslic import files
from acouslic.challenge import Quality as FrameQuality
from acouslic.preprocess import like_a_usual_frame
from benchmark.copies import COPIES
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
from benchmark.measures import best_threshold, confusion, rates
from benchmark.networks import BenchmarkNetwork, Classifier, parameter_counts
from benchmark.options import Compute, Protocol, Schedule
from benchmark.partners import plan_batches
from benchmark.protocol import Tables
from benchmark.quality import Quality
from benchmark.systems import Built, Plan, System
from training.augment import NUMBERS, augment
from training.epochs import duration
from training.mixup import fit_clusters
from training.options import Augmentation

RESULT, PREDICTIONS, EMBEDDINGS, FAILED = (
    "result.json",
    "predictions.npz",
    "embeddings.npz",
    "failed.txt",
)
WEIGHTS, CHECKPOINT = "weights.safetensors", "epoch.ckpt"
# Points in the plot of features: more hide each other.
EMBEDDED_OF_EACH_QUALITY = 150
log = logging.getLogger(__name__)


def autocast(compute: Compute) -> torch.autocast:
    """The context in which a pass is computed."""
    dtype = torch.float16 if compute.precision == "fp16" else torch.bfloat16
    return torch.autocast(compute.device, dtype, enabled=compute.precision != "fp32")


@dataclass(frozen=True)
class Evaluation:
    """What a network says of the n frames of a table."""

    score: np.ndarray
    """(n,) float32, what is compared with the threshold."""
    quality: np.ndarray
    """(n,) float32, what picks a stack's frame."""
    loss: float
    """Mean loss over the frames."""
    seconds: float
    """Wall time of the network, transfer to its device included, reading not."""
    computed: int
    """Number of frames that took this time: all black ones count as one."""
    embeddings: np.ndarray
    """(k, E) float32, features of the rows that were asked for."""


@dataclass(frozen=True)
class Setting:
    """All that determines a system's trials, but for their number."""

    system: System
    """What is trained."""
    plan: Plan
    """What it is built for."""
    tables: Tables
    """The frames of each part."""
    schedule: Schedule
    """How it is trained."""
    compute: Compute
    """What computes."""

    def seed(self, trial: int) -> int:
        """The seed of a trial's weights and batches."""
        return self.schedule.seed * 1000 + trial


def run_trial(folder: Path, setting: Setting, trial: int) -> None:
    """Train and score, unless the trial is finished.

    Args:
        folder: where the trial's files go.
        setting: what is trained on what.
        trial: the trial's number, from 0.
    """
    if (folder / RESULT).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(setting.seed(trial))
    built = setting.system.build(setting.plan)
    begun_from = _take_over(built, setting.plan.protocol, folder.parent, trial)
    network = built.network.to(setting.compute.device)
    history = train(network, setting, trial, folder / CHECKPOINT)
    network.load_state_dict(history.best, strict=False)
    if (carried := _carried(built, setting.plan.protocol, folder.parent, trial)) is not None:
        _hand_on(network, carried)
    with files.new_file(folder / WEIGHTS) as partial:
        save_file({name: x.cpu().contiguous() for name, x in history.best.items()}, partial)
    threshold = _threshold(network, setting)
    test = _score_test(folder, network, setting, embed=trial == 0)
    (folder / FAILED).unlink(missing_ok=True)
    result = {
        "system": setting.system.name,
        "trial": trial,
        "seed": setting.seed(trial),
        "network": built.network_name,
        "origin": built.origin,
        "stand_in": built.stand_in,
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
    """Rows of frames that show tissue, spread evenly over the table."""
    chosen = []
    for quality in FrameQuality:
        rows = np.flatnonzero((table.row >= 0) & (table.quality == quality))
        step = max(1, math.ceil(len(rows) / EMBEDDED_OF_EACH_QUALITY))
        chosen.append(rows[::step])
    return np.concatenate(chosen)


def _carried(built: Built, protocol: Protocol, folder: Path, trial: int) -> Path | None:
    """Where the best weights of a trial go, if the next trial begins with them."""
    if not (protocol.shared_weights and built.whole):
        return None
    return folder / f"carried-{trial}.safetensors"


def _take_over(built: Built, protocol: Protocol, folder: Path, trial: int) -> str:
    """Begin with the last trial's best weights where the protocol says so; return with what."""
    carried = _carried(built, protocol, folder, trial - 1)
    if carried is None or trial == 0 or not isinstance(built.network, Classifier):
        return built.origin
    built.network.encoder.load_state_dict(load_file(carried), strict=False)
    return f"the best weights of trial {trial - 1}"


def _hand_on(network: BenchmarkNetwork, carried: Path) -> None:
    """Write the encoder's weights for the next trial, and remove those of the last one."""
    assert isinstance(network, Classifier)
    state = {name: value.cpu().contiguous() for name, value in network.encoder_state().items()}
    for older in carried.parent.glob("carried-*.safetensors"):
        older.unlink()
    with files.new_file(carried) as partial:
        save_file(state, partial)


@dataclass(frozen=True)
class History:
    """How a training went."""

    epochs: list[dict[str, float]]
    """training_loss, validation_loss, validation_f1 and seconds of each epoch."""
    best: dict[str, torch.Tensor]
    """The trained weights of the epoch with the least validation loss."""


def train(
    network: BenchmarkNetwork, setting: Setting, trial: int, checkpoint: Path | None = None
) -> History:
    """Train a network in place, up to the last epoch, a logged line an epoch.

    Args:
        network: the system's network, on its device.
        setting: what it is trained on, and how.
        trial: the trial's number, from 0.
        checkpoint: file that every epoch is kept in, and after which this goes on if it is there;
            it is gone in the end.

    Returns:
        Losses, times and the best epoch's weights.

    Raises:
        FloatingPointError: the loss is no number any more.
    """
    schedule = setting.schedule
    steps = _Steps(network, setting)
    reader = SampleReader(setting.tables.training, copies_seed=schedule.seed)
    history = History([], {})
    if checkpoint is not None and checkpoint.is_file():
        history = steps.resume(checkpoint)
    for epoch in range(len(history.epochs), schedule.epochs):
        start = time.perf_counter()
        # An epoch's random numbers are its own, so that one that is begun again draws the same.
        generator = np.random.default_rng([setting.seed(trial), epoch])
        torch.manual_seed(int(generator.integers(2**62)))
        batches = _epoch_batches(network, setting, reader, generator)
        loss = steps.epoch(reader, batches)
        seconds = time.perf_counter() - start
        held_out = evaluate(network, setting.tables.validation, setting)
        history = _with_epoch(history, network, setting, loss, held_out, seconds)
        _tell(history, setting, trial, time.perf_counter() - start)
        if checkpoint is not None:
            steps.keep(checkpoint, history)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return history


def _with_epoch(
    history: History,
    network: BenchmarkNetwork,
    setting: Setting,
    loss: float,
    held_out: Evaluation,
    seconds: float,
) -> History:
    labels = setting.tables.validation.quality > 0
    threshold = setting.system.threshold
    if not setting.plan.protocol.fixed_threshold:
        threshold = best_threshold(held_out.score, labels)
    f1 = rates(confusion(held_out.score >= threshold, labels))["f1"]
    figures = {
        "training_loss": loss,
        "validation_loss": held_out.loss,
        "validation_f1": float(f1),
        "seconds": round(seconds, 3),
    }
    epochs = [*history.epochs, figures]
    is_best = held_out.loss <= min(past["validation_loss"] for past in epochs)
    return History(epochs, _trained_state(network) if is_best else history.best)


def _tell(history: History, setting: Setting, trial: int, last_s: float) -> None:
    done, last = len(history.epochs), history.epochs[-1]
    log.info(
        "%s, trial %d, epoch %d of %d: loss %.4f, validation loss %.4f, F1 %.4f; %s left",
        setting.system.name,
        trial + 1,
        done,
        setting.schedule.epochs,
        last["training_loss"],
        last["validation_loss"],
        last["validation_f1"],
        duration(last_s * (setting.schedule.epochs - done)),
    )


class _Steps:
    """The optimiser of a network, and what a checkpoint has to hold of it."""

    def __init__(self, network: BenchmarkNetwork, setting: Setting) -> None:
        self.network, self.setting = network, setting
        compute = setting.compute
        self.optimiser = _optimiser(network, setting.schedule)
        # Gradients of fp16 would vanish without a scale.
        is_fp16 = compute.precision == "fp16"
        self.scaler = GradScaler(compute.device, enabled=is_fp16)

    def epoch(self, reader: SampleReader, batches: list[list[Draw]]) -> float:
        """Train on batches; returns their mean loss."""
        self.network.train()
        total, compute = 0.0, self.setting.compute
        for read in load(reader, batches, compute.readers):
            samples = _on(read, compute.device)
            if not self.setting.plan.protocol.offline_copies:
                samples = _vary_within_fan(samples)
            samples = _as_shown(samples, self.setting.plan)
            with autocast(compute):
                loss = self.network.loss(self.network(samples.frames), samples)
            self.optimiser.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self.scaler.step(self.optimiser)
            self.scaler.update()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise FloatingPointError("the training loss is not finite")
        return total / len(batches)

    def keep(self, checkpoint: Path, history: History) -> None:
        """Write down all that the next epoch depends on."""
        content = {
            "trained": _trained_state(self.network),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epochs": history.epochs,
            "best": history.best,
        }
        with files.new_file(checkpoint) as partial:
            torch.save(content, partial)

    def resume(self, checkpoint: Path) -> History:
        """Go back to what `keep` wrote; nothing in it is unpickled as code."""
        device = self.setting.compute.device
        content = torch.load(checkpoint, map_location=device, weights_only=True)
        self.network.load_state_dict(content["trained"], strict=False)
        self.optimiser.load_state_dict(content["optimiser"])
        self.scaler.load_state_dict(content["scaler"])
        log.info("%s goes on after epoch %d", checkpoint.parent, len(content["epochs"]))
        return History(content["epochs"], content["best"])


def rehearse(setting: Setting) -> str:
    """Build a system, train it on one batch, and forget it.

    Returns:
        What it trains and what a step takes, in words.

    Raises:
        FloatingPointError: the loss is no number.
    """
    setting = replace(
        setting, schedule=replace(setting.schedule, frames_per_epoch=setting.schedule.batch_size)
    )
    network = setting.system.build(setting.plan).network.to(setting.compute.device)
    reader = SampleReader(setting.tables.training)
    batches = _epoch_batches(network, setting, reader, np.random.default_rng(setting.seed(0)))[:1]
    start = time.perf_counter()
    _Steps(network, setting).epoch(reader, batches)
    seconds = time.perf_counter() - start
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    total = sum(parameter.numel() for parameter in trained)
    idle = sum(parameter.numel() for parameter in trained if parameter.grad is None)
    words = f"{total:,} parameters trained, {idle:,} without gradient"
    words += f", {seconds:.1f} s for {len(batches[0])} frames"
    if setting.compute.device == "cuda":
        words += f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
        torch.cuda.reset_peak_memory_stats()
    return words


def _optimiser(network: BenchmarkNetwork, schedule: Schedule) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        [parameter for parameter in network.parameters() if parameter.requires_grad],
        lr=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
    )


def _trained_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of what training changes: parameters with a gradient, and all buffers."""
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
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
        whole_only = setting.plan.protocol.whole_batches
        return in_batches(draws, schedule.batch_size, whole_only=whole_only)
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
    """Features of the frames with these rows, (n, E)."""
    network.eval()
    batches = in_batches([Draw(int(k), 0) for k in index], setting.schedule.batch_size)
    embeddings = []
    for samples in load(reader, batches, setting.compute.readers):
        shown = _as_shown(_on(samples, setting.compute.device), setting.plan)
        with autocast(setting.compute):
            embeddings.append(network.embed(shown.frames).cpu())
    return torch.cat(embeddings).numpy()


def _on(samples: Samples, device: str) -> Samples:
    return Samples(*(values.to(device, non_blocking=True) for values in samples))


def _as_shown(samples: Samples, plan: Plan) -> Samples:
    """Samples with the brightness that networks are shown."""
    if plan.intensity == "as-is":
        return samples
    return samples._replace(frames=like_a_usual_frame(samples.frames.float()))


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

    Args:
        network: the system's network, on its device.
        table: the frames.
        setting: what computes, in batches of which size.
        embed: (k,) rows of frames that show tissue, whose features are wanted.

    Returns:
        Scores, loss, time, and the features in the order of `embed`.
    """
    network.eval()
    compute, black = setting.compute, np.flatnonzero(table.row < 0)
    wanted = np.zeros(0, np.int64) if embed is None else embed
    batches = _tissue_and_one_black(table, setting.schedule.batch_size)
    score, quality = np.zeros(len(table), np.float32), np.zeros(len(table), np.float32)
    embeddings: dict[int, np.ndarray] = {}
    loss, seconds = 0.0, 0.0
    for batch, read in zip(
        batches, load(SampleReader(table), batches, compute.readers), strict=True
    ):
        rows = np.array([draw.row for draw in batch])
        samples = _as_shown(_on(read, compute.device), setting.plan)
        start = time.perf_counter()
        with autocast(compute):
            answer = network(samples.frames)
            share = len(black) if table.row[rows[0]] < 0 else len(rows)
            loss += share * float(network.loss(answer, samples))
        score[rows], quality[rows] = answer.score.cpu(), answer.quality.cpu()
        seconds += time.perf_counter() - start
        for k in np.flatnonzero(np.isin(rows, wanted)):
            embeddings[int(rows[k])] = answer.embedding[k].float().cpu().numpy()
    score[black], quality[black] = score[black[:1]], quality[black[:1]]
    features = [embeddings[int(row)] for row in wanted]
    return Evaluation(
        score=score,
        quality=quality,
        loss=loss / len(table),
        seconds=seconds,
        computed=sum(len(batch) for batch in batches),
        embeddings=np.stack(features) if features else np.zeros((0, 1), np.float32),
    )


def _tissue_and_one_black(table: FrameTable, batch_size: int) -> list[list[Draw]]:
    """Batches of all frames that show tissue, and a batch of one black frame if there is any."""
    tissue = [Draw(int(row), 0) for row in np.flatnonzero(table.row >= 0)]
    black = [Draw(int(row), 0) for row in np.flatnonzero(table.row < 0)[:1]]
    return in_batches(tissue, batch_size) + ([black] if black else [])
