"""One training run in one folder: started, resumed after whatever stopped it, and finished.

options.json         what the run is; written first
history.csv          a row an epoch: losses, learning rate, figures of held-out cases
curves.png           the same as a picture
last.ckpt            the trained parameters, their moving average, and the optimiser
result.json          the figures of the last validation
weights.safetensors  written last: the average after the last epoch, of all of the network but its
                     frozen base; with it the run is finished

No epoch is chosen: on the held-out cases, the best of several would be flattered.
"""

import importlib.util
import json
import logging
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from safetensors.torch import load_file, save_file
from tqdm.contrib.logging import logging_redirect_tqdm

from acouslic import files
from acouslic.bundle import load_plain_state, plain_state
from acouslic.errors import InputError
from acouslic.stopping import TERMINATED, Stopped
from training.epochs import EpochBar, EpochReport
from training.history import last_validation, read_history
from training.module import AVERAGE, FrameTraining
from training.options import Machine
from training.precision import fastest

OPTIONS = "options.json"
LAST = "last.ckpt"
RESULT, WEIGHTS = "result.json", "weights.safetensors"
TENSORBOARD = "tensorboard"
PRECISIONS = {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}
log = logging.getLogger(__name__)


def run(
    folder: Path,
    module: FrameTraining,
    machine: Machine,
    *,
    identity: dict[str, Any],
    validate_every: int = 1,
) -> dict[str, Any]:
    """Train a module's network, or go on after the last whole epoch of the folder's run.

    Args:
        folder: where the run lies, or will.
        module: the network and how it is trained; the network ends with the run's weights.
        machine: what computes.
        identity: what the run is, besides the module's recipe and cases; plain JSON.
        validate_every: epochs from one validation to the next.

    Returns:
        The figures of the last validation.

    Raises:
        InputError: the folder's run has other options or other cases.
        OutputError: the folder holds something that is no run.
    """
    files.refuse_foreign_folder(folder, OPTIONS, "a training run")
    _claim(folder, module, identity)
    if (folder / WEIGHTS).is_file():
        log.info("%s is finished", folder)
    else:
        _train(folder, module, machine, validate_every)
    load_weights(module.network, folder)
    return read_result(folder)


def load_weights(network: torch.nn.Module, folder: Path) -> None:
    """Give the network the weights of a finished run in `folder`; its frozen base stays."""
    load_plain_state(network, {**plain_state(network), **load_file(folder / WEIGHTS)})


def read_result(folder: Path) -> dict[str, Any]:
    """The figures of a finished run's last validation."""
    result: dict[str, Any] = json.loads((folder / RESULT).read_text())
    return result


def _claim(folder: Path, module: FrameTraining, identity: dict[str, Any]) -> None:
    """Write down what the run is; whoever resumes it must ask for the same."""
    facts = {
        **identity,
        "recipe": asdict(module.recipe),
        "size": module.training_frames.cache.size,
        "training": [case.facts.uuid for case in module.training_frames.cache.cases],
        "validation": [case.facts.uuid for case in module.validation_cache.cases],
    }
    files.begin_or_resume(folder / OPTIONS, facts, f"the run in {folder}")


def _train(folder: Path, module: FrameTraining, machine: Machine, validate_every: int) -> None:
    if machine.checkpointing:
        module.trunk.set_grad_checkpointing(True)
    last = folder / LAST
    if last.is_file():
        _read_checkpoint(last)
    with _quiet_lightning(), logging_redirect_tqdm():
        trainer = _trainer(folder, module.recipe.epochs, module, machine, validate_every)
        if trainer.is_global_zero:
            cases, held_out = module.training_frames.cache.cases, module.validation_cache.cases
            name = folder.name
            log.info("%s: %d cases to train on, %d held out", name, len(cases), len(held_out))
        try:
            trainer.fit(module, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
        except Stopped as stop:
            if not trainer.is_global_zero:
                os._exit(TERMINATED)  # The first process speaks for all.
            stop.add_note(_what_is_kept(folder, module.recipe.epochs))
            raise
    if trainer.is_global_zero:
        _finish(folder)
    trainer.strategy.barrier()


def _what_is_kept(folder: Path, epochs: int) -> str:
    if not (folder / LAST).is_file():
        return f"no epoch of {folder.name} is finished; the same command starts it again"
    done = _read_checkpoint(folder / LAST)["epoch"] + 1
    return f"{folder / LAST} holds epoch {done} of {epochs}; the same command goes on after it"


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; a run's folder may have come from somebody else.

    Raises:
        InputError: it would run code, or is damaged.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(
            expected=f"a checkpoint of this project in {path}",
            found="a file that is damaged or would run code when loaded",
            advice="train again in a new --output; load no checkpoint that you were sent",
        ) from error
    return content


def _trainer(
    folder: Path, epochs: int, module: FrameTraining, machine: Machine, validate_every: int
) -> lightning.Trainer:
    logger: Logger | bool = False
    if machine.tensorboard:
        if importlib.util.find_spec("tensorboard") is None:
            raise ModuleNotFoundError(name="tensorboard")
        logger = TensorBoardLogger(folder, name=None, version=TENSORBOARD)
    precision = machine.precision
    if precision == "auto":
        precision = fastest(machine.accelerator)
    return lightning.Trainer(
        accelerator=machine.accelerator,
        devices=machine.devices,
        num_nodes=machine.num_nodes,
        strategy="ddp" if machine.devices * machine.num_nodes > 1 else "auto",
        precision=PRECISIONS[precision],  # type: ignore[arg-type]
        max_epochs=epochs,
        accumulate_grad_batches=module.recipe.accumulate,
        gradient_clip_val=module.recipe.clip_norm,
        check_val_every_n_epoch=validate_every,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=_callbacks(folder),
        plugins=[WholeCheckpoints()],
        logger=logger,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _callbacks(folder: Path) -> list[Callback]:
    last = ModelCheckpoint(
        folder,
        filename=Path(LAST).stem,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    return [StopAtOnce(), EpochBar(folder.name), EpochReport(folder), last]


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints whole or not at all.

    Lightning's own way writes into /tmp and moves the file, which is a copy that can be cut short
    where /tmp is another file system.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint to a file; there are no storage options."""
        with files.new_file(Path(path)) as partial:
            torch.save(checkpoint, partial)


class StopAtOnce(Callback):
    """Lets SIGTERM do what it did before the run, where Lightning would end the batch first."""

    def __init__(self) -> None:
        """Remember what SIGTERM does now."""
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Put the handler back that Lightning has just replaced."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Stop the processes that train with this one."""
        launcher = trainer.strategy.launcher
        if isinstance(exception, Stopped) and launcher is not None:
            launcher.kill(signal.SIGTERM)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """While the block runs, Lightning gives no tips and no advice.

    What it advises, on loader workers and on resuming, are choices made here on purpose.
    """
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
            # Of DDP, about the layout of the decoder's small filters: "this is not an error".
            warnings.filterwarnings("ignore", message="Grad strides do not match")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _finish(folder: Path) -> None:
    last = _read_checkpoint(folder / LAST)
    trained = {
        name.removeprefix("network."): tensor
        for name, tensor in last["state_dict"].items()
        if name.startswith("network.")
    }
    state = {
        name.replace(".base_layer", ""): tensor.contiguous()
        for name, tensor in {**trained, **last[AVERAGE]["values"]}.items()
    }
    files.write_json(folder / RESULT, last_validation(read_history(folder)))
    with files.new_file(folder / WEIGHTS) as partial:
        save_file(state, partial)
