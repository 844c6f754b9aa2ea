"""One training run in one folder: started, resumed after whatever stopped it, and finished with
its best weights.

history.csv          a row an epoch: losses, learning rate, figures of held-out cases
last.ckpt, best.ckpt Lightning's, of the trained parameters only; best is by the validation score
weights.safetensors  written last, from best.ckpt: all of the network but its frozen base; with it
                     the run is done
result.json          the best epoch's figures
"""

import csv
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from safetensors.torch import load_file, save_file

from acouslic import files
from acouslic.bundle import load_plain_state, plain_state
from acouslic.errors import InputError
from training.module import FrameTraining, Recipe

WEIGHTS = "weights.safetensors"
LAST, BEST, HISTORY, RESULT, OPTIONS = (
    "last.ckpt",
    "best.ckpt",
    "history.csv",
    "result.json",
    "options.json",
)
PRECISIONS = {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machine:
    """What a run uses; none of it changes the result but for rounding (and `devices` x `nodes`
    multiplies the batch).
    """

    precision: str = "bf16"
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int = 0
    checkpointing: bool = False


def run(
    folder: Path,
    module: FrameTraining,
    machine: Machine,
    *,
    identity: dict[str, Any],
    validate_every: int = 1,
) -> dict[str, Any]:
    """Train a module's network, or go on where the folder's last checkpoint stands.

    The network ends with the best weights. Returns the result's figures. Raises InputError where
    the folder belongs to a run with another recipe or other cases.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files.refuse_foreign_folder(folder, OPTIONS, "a training run")
    _claim(folder, module, identity)
    network = module.network
    if (folder / WEIGHTS).is_file():
        log.info("%s is finished", folder)
        load_weights(network, folder)
        return read_result(folder)
    if machine.checkpointing:
        module.trunk.set_grad_checkpointing(True)
    trainer = _trainer(folder, module.recipe, machine, validate_every)
    last = folder / LAST
    with _quiet_lightning():
        trainer.fit(module, ckpt_path=str(last) if last.is_file() else None, weights_only=False)
    if trainer.is_global_zero:
        _finish(folder)
    trainer.strategy.barrier()
    load_weights(network, folder)
    return read_result(folder)


def load_weights(network: torch.nn.Module, folder: Path) -> None:
    """Give the network the best weights of a finished run in `folder`; its frozen base stays."""
    load_plain_state(network, {**plain_state(network), **load_file(folder / WEIGHTS)})


def read_result(folder: Path) -> dict[str, Any]:
    """The best epoch's figures of a finished run."""
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
    text = json.dumps(facts, indent=1)
    path = folder / OPTIONS
    if not path.is_file():
        files.write_text(path, text)
    elif path.read_text() != text:
        raise InputError(
            expected=f"the options with which the run in {folder} began ({OPTIONS})",
            found="others",
            advice="give the same options to resume it, or another --output",
        )


def _trainer(
    folder: Path, recipe: Recipe, machine: Machine, validate_every: int
) -> lightning.Trainer:
    on_terminal = sys.stderr.isatty()
    callbacks: list[Callback] = [
        History(folder),
        ModelCheckpoint(
            folder,
            filename="best",
            monitor="validation/score",
            mode="max",
            enable_version_counter=False,
            save_weights_only=True,
        ),
        # After the best one: its state must know what the validation has just found.
        ModelCheckpoint(
            folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
        ),
    ]
    if on_terminal:
        callbacks.append(TQDMProgressBar())
    return lightning.Trainer(
        accelerator=machine.accelerator,
        devices=machine.devices,
        num_nodes=machine.nodes,
        strategy="ddp" if machine.devices * machine.nodes > 1 else "auto",
        precision=PRECISIONS[machine.precision],  # type: ignore[arg-type]
        max_epochs=recipe.epochs,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.clip_norm,
        check_val_every_n_epoch=validate_every,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=TensorBoardLogger(folder, name=None, version="tensorboard"),
        log_every_n_steps=1,
        enable_progress_bar=on_terminal,
        enable_model_summary=False,
    )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Its advice on loader workers and on resuming are choices made here on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
        yield


class History(Callback):
    """Appends a row to history.csv at the end of every epoch; a resumed run drops the rows it will
    write again.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / HISTORY

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if trainer.is_global_zero:
            rows = read_history(self.path.parent) if self.path.is_file() else []
            self._write([row for row in rows if int(row["epoch"]) < trainer.current_epoch])

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if not trainer.is_global_zero:
            return
        known: dict[str, Any] = {
            name: f"{float(value):.6g}" for name, value in trainer.callback_metrics.items()
        }
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1):
            known = {name: text for name, text in known.items() if "validation" not in name}
        rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "rate": f"{rate:.4g}"}
        row |= dict(sorted(known.items()))
        self._write([*read_history(self.path.parent), row])
        log.info(" ".join(f"{name} {value}" for name, value in row.items()))

    def _write(self, rows: list[dict[str, Any]]) -> None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        lines = [",".join(columns)]
        lines += [",".join(str(row.get(name, "")) for name in columns) for row in rows]
        files.write_text(self.path, "\n".join(lines) + "\n")


def read_history(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's history, by column; an epoch without validation has empty fields."""
    with (folder / HISTORY).open(newline="") as file:
        return list(csv.DictReader(file))


def _finish(folder: Path) -> None:
    best = torch.load(folder / BEST, map_location="cpu", weights_only=True)
    state = {
        name.removeprefix("network."): tensor.contiguous()
        for name, tensor in best["state_dict"].items()
    }
    rows = [row for row in read_history(folder) if row["validation/score"]]
    chosen = max(rows, key=lambda row: float(row["validation/score"]))
    figures = {name: float(value) for name, value in chosen.items() if value}
    files.write_json(folder / RESULT, figures)
    plain = {name.replace(".base_layer", ""): tensor for name, tensor in state.items()}
    with files.new_file(folder / WEIGHTS) as partial:
        save_file(plain, partial)
