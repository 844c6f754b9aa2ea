"""What a run says: a bar on a terminal; after every epoch history.csv, curves.png and one line."""

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from training.curves import draw_curves
from training.history import (
    EPOCH,
    HISTORY,
    LOSS,
    RATE,
    SCORE,
    STEP,
    read_history,
    write_history,
)

log = logging.getLogger(__name__)


class EpochBar(Callback):
    """On a terminal, a bar for the batches of an epoch and the cases of its validation."""

    def __init__(self, name: str) -> None:
        """Call the run `name`."""
        self.name = name
        self.bar = tqdm(disable=True)

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Show an empty bar."""
        # Processes side by side would write over one another's bars.
        is_shown = sys.stderr.isatty() and "TQDM_DISABLE" not in os.environ
        number = trainer.current_epoch + 1
        total = trainer.num_training_batches
        if number % (trainer.check_val_every_n_epoch or 1) == 0:
            total += sum(trainer.num_val_batches)
        label = f"{self.name}, epoch {number}"
        rank = trainer.global_rank
        self.bar = tqdm(total=total, desc=label, leave=False, disable=rank > 0 or not is_shown)

    def on_train_batch_end(self, *_arguments: Any) -> None:
        """Move on by a batch."""
        self.bar.update()

    def on_validation_batch_end(self, *_arguments: Any) -> None:
        """Move on by a case."""
        self.bar.update()

    def on_train_epoch_end(self, *_arguments: Any) -> None:
        """Take the bar away."""
        self.bar.close()

    def on_exception(self, *_arguments: Any) -> None:
        """Take the bar away."""
        self.bar.close()


class EpochReport(Callback):
    """Reports every epoch of a run; a resumed run drops the rows that it will write again."""

    def __init__(self, folder: Path) -> None:
        """Report into `folder`, the run's."""
        self.folder = folder
        self.first_epoch = 0
        self.began_s = 0.0

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Keep the rows of finished epochs, and start the clock."""
        self.first_epoch, self.began_s = trainer.current_epoch, time.monotonic()
        if not trainer.is_global_zero:
            return
        rows = read_history(self.folder) if (self.folder / HISTORY).is_file() else []
        write_history(self.folder, [row for row in rows if int(row[EPOCH]) < self.first_epoch])
        if self.first_epoch:
            log.info("%s goes on after epoch %d", self.folder.name, self.first_epoch)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Report the epoch; its validation, if it has one, is done by now."""
        if not trainer.is_global_zero:
            return
        row = _row(trainer)
        write_history(self.folder, [*read_history(self.folder), row])
        draw_curves(self.folder)
        log.info("%s, %s", self.folder.name, self._line(row, trainer.max_epochs or 0))

    def _line(self, row: dict[str, str], epochs: int) -> str:
        """Such as "epoch 3 of 20: loss 1.872, held-out score 0.863, 12 min left"."""
        done = int(row[EPOCH]) + 1
        figures = [f"loss {float(row[LOSS]):.3f}"]
        if row.get(SCORE):
            figures.append(f"held-out score {float(row[SCORE]):.3f}")
        if done < epochs:
            epoch_s = (time.monotonic() - self.began_s) / (done - self.first_epoch)
            figures.append(f"{duration((epochs - done) * epoch_s)} left")
        return f"epoch {done} of {epochs}: {', '.join(figures)}"


def _row(trainer: lightning.Trainer) -> dict[str, str]:
    figures = {name: f"{float(value):.6g}" for name, value in trainer.callback_metrics.items()}
    if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1):
        # Lightning still holds those of the last validation.
        figures = {name: text for name, text in figures.items() if "validation" not in name}
    rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)
    counts = {EPOCH: str(trainer.current_epoch), STEP: str(trainer.global_step)}
    return {**counts, RATE: f"{rate:.4g}", **dict(sorted(figures.items()))}


def duration(seconds: float) -> str:
    """A time for people: "50 s", "12 min" or "3 h 05 min"."""
    # Below 90 of a unit its whole numbers are exact enough for a guess.
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"
