"""What a training step, a validation and a checkpoint are; Lightning does the rest.

Checkpoints hold what is trained and its optimiser; a frozen base is never in them.
"""

import math
from dataclasses import asdict, replace
from typing import Any, cast

import lightning
import torch
import torch.distributed
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from open_clip.transformer import VisionTransformer
from torch.nn import functional
from torch.utils.data import DataLoader

from acouslic.challenge import QUALITY_VALUES
from acouslic.heads import NumberHead
from acouslic.network import AbdomenNet, TrunkFeatures
from acouslic.preprocess import normalise
from acouslic.selection import SelectionConfig
from dataset.cache import Cache
from training.augment import augment, quality_in_view
from training.averaging import WeightAverage
from training.batches import (
    BalancedBatches,
    Batch,
    BatchPlan,
    Mixture,
    TrainingFrames,
    case_loader,
    training_loader,
)
from training.batchnorm import share_batch_norm
from training.losses import class_weights, joint_loss
from training.mixup import Clusters, Pool
from training.options import RatingConfig, Recipe
from training.rating import rating_loss
from training.whole_stack import Figures, figures, judge, mean_figures, predict_case

# Dropout's seed is made of the recipe's, the batch's number and the process's. No two batches of a
# run share one: no run has so many batches, nor so many processes.
SEED_STRIDE, MOST_PROCESSES = 1_000_003, 64
AVERAGE = "average"  # its place in a checkpoint


class FrameTraining(lightning.LightningModule):
    """Trains a network on balanced batches: all of its parameters that require a gradient.

    A subclass says what is learnt from a batch, and how the network is validated.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        recipe: Recipe,
        training: TrainingFrames,
        validation: Cache,
        *,
        workers: int = 0,
    ) -> None:
        """Prepare to train.

        Args:
            network: what is trained, in place.
            recipe: how.
            training: the frames to train on.
            validation: the cases to validate on.
            workers: processes that read batches ahead.
        """
        super().__init__()
        self.network, self.recipe = network, recipe
        self.training_frames, self.validation_cache = training, validation
        self.workers = workers
        self.average = WeightAverage(recipe.average)
        # Weights follow the drawn shares, so that a class counts alike however often it is drawn.
        self.class_weights: torch.Tensor
        self.register_buffer("class_weights", class_weights(recipe.shares), persistent=False)

    @property
    def trunk(self) -> VisionTransformer:
        """The network's trunk."""
        return cast(VisionTransformer, self.network.trunk)

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        """The losses of a batch, which its own numbers vary, by name; `total` is minimised."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Make batch norms look at all processes' frames."""
        if self.trainer.world_size > 1:
            share_batch_norm(self.network)

    def train_dataloader(self) -> DataLoader[Batch]:
        """The batches of the epoch that is to begin; Lightning asks before each."""
        count = self.recipe.steps_per_epoch * self.recipe.accumulate
        batches = BalancedBatches(
            self.training_frames.pools,
            BatchPlan(self.recipe.batch_size, self.recipe.seed, self.recipe.shares),
            first=self.trainer.current_epoch * count,
            count=count,
            rank=self.trainer.global_rank,
            ranks=self.trainer.world_size,
        )
        return training_loader(self.training_frames, batches, self.workers)

    def val_dataloader(self) -> DataLoader[int]:
        """The numbers of the cases that this process validates on."""
        count, trainer = len(self.validation_cache.cases), self.trainer
        return case_loader(count, rank=trainer.global_rank, ranks=trainer.world_size)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout by the batch's number, whatever a resumed run has drawn before."""
        count = self.recipe.steps_per_epoch * self.recipe.accumulate
        number = self.trainer.current_epoch * count + batch_idx
        torch.manual_seed(
            (self.recipe.seed * SEED_STRIDE + number) * MOST_PROCESSES + self.trainer.global_rank
        )

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The loss of a batch; its terms are logged as means over the epoch."""
        losses = self.losses(batch)
        for name, value in losses.items():
            self.log(f"loss/{name}", value.detach(), on_step=False, on_epoch=True, sync_dist=True)
        return losses["total"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, and the schedule of its rates: a warm-up, then a cosine down to 0."""
        optimiser = self.optimiser()
        total = self.recipe.epochs * self.recipe.steps_per_epoch
        warmup = max(1, round(self.recipe.warmup * total))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def optimiser(self) -> torch.optim.Optimizer:
        """AdamW; trunk and heads have their own rates."""
        return torch.optim.AdamW(self._parameter_groups())

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Trunk and heads at their own rates; only matrices decay."""
        groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                key = (name.startswith("trunk."), parameter.ndim > 1)
                groups.setdefault(key, []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": self.recipe.trunk_rate if in_trunk else self.recipe.head_rate,
                "weight_decay": self.recipe.weight_decay if decays else 0.0,
            }
            for (in_trunk, decays), parameters in groups.items()
        ]

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Take a step, and take it into the average."""
        super().optimizer_step(*arguments, **options)
        self.average.update(self.network)

    def on_validation_start(self) -> None:
        """Judge the average: it is what the run will leave."""
        self.average.swap(self.network)

    def on_validation_end(self) -> None:
        """Train on from the weights as they are."""
        self.average.swap(self.network)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen base out; add the average."""
        checkpoint[AVERAGE] = self.average.state()
        frozen = {
            f"network.{name}"
            for name, value in self.network.named_parameters()
            if not value.requires_grad
        }
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: state[key] for key in state if key not in frozen}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the frozen base, which this network has already, in again; take up the average."""
        self.average.restore(checkpoint[AVERAGE])
        checkpoint["state_dict"] = {**self.state_dict(), **checkpoint["state_dict"]}


class AbdomenTraining(FrameTraining):
    """Mask and quality of annotated frames, validated on whole stacks by the challenge's score."""

    network: AbdomenNet

    def __init__(
        self,
        network: AbdomenNet,
        recipe: Recipe,
        training: Cache,
        validation: Cache,
        *,
        teacher: AbdomenNet | None = None,
        rating: RatingConfig | None = None,
        mixture: Mixture | None = None,
        workers: int = 0,
    ) -> None:
        """Prepare to train.

        Args:
            network: what is trained, in place.
            recipe: how.
            training: the cases to train on.
            validation: the cases to validate on.
            teacher: gives the masks to learn on frames whose labels give none: what a network could
                before, it then keeps (Li and Hoiem 2016, arXiv 1606.09282). None: they teach none.
            rating: how a head learns that says quality as a number; None: by Huber's loss alone.
            mixture: phantoms whose frames are drawn among those of the training cases.
            workers: processes that read batches ahead.
        """
        frames = TrainingFrames(training, recipe.loss.empty_masks, mixture)
        super().__init__(network, recipe, frames, validation, workers=workers)
        # Not a module of this one: no checkpoint holds it, no optimiser sees it.
        self._teacher = (teacher,)
        self.rating = rating or RatingConfig(cmx=False, correlation=False)
        self.clusters = Clusters(network.config.trunk.embed_dim)
        self.judged: list[Figures] = []

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The joint loss of masks and quality, and its terms."""
        with torch.no_grad():
            config = self.recipe.augmentation
            frames, masks = augment(batch.frames, batch.masks, batch.uniform, config)
            quality = quality_in_view(batch.quality, batch.masks, masks, batch.uniform, config)
            images = normalise(frames, self.network.config.intensity)
            masks, known = self._known_masks(images, masks, batch.teaches_mask)
        head, loss = self.network.quality_head, self.recipe.loss
        features = self.network.trunk_features(images)
        decoded = self.network.decode(images, features)
        rates = isinstance(head, NumberHead)
        losses = joint_loss(
            decoded.mask_logits,
            head(features, decoded),
            masks,
            quality,
            teaches_mask=known,
            class_weights=self.class_weights,
            config=replace(loss, quality=0) if rates else loss,
        )._asdict()
        if isinstance(head, NumberHead):
            losses["quality"] = self._rating_loss(head, features, batch._replace(quality=quality))
            losses["total"] = losses["total"] + loss.quality * losses["quality"]
        return losses

    def _rating_loss(self, head: NumberHead, features: TrunkFeatures, batch: Batch) -> torch.Tensor:
        target = torch.tensor(QUALITY_VALUES, device=batch.quality.device)[batch.quality]
        pool = None
        if self.rating.cmx and self.network.training:
            cluster = self.clusters(features.pooled)
            pool = None if cluster is None else Pool(target, batch.subject, cluster)
        return rating_loss(
            head.rate,
            head.project(features),
            target,
            pool=pool,
            correlation=self.rating.correlation,
        )

    def on_train_epoch_end(self) -> None:
        """Cluster the epoch's last frames anew, for the next one's mix-up."""
        self.clusters.fit(self.recipe.seed)

    def _known_masks(
        self, images: torch.Tensor, masks: torch.Tensor, known: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Masks (B, S, S), the teacher's where the labels know none, and which are known, (B,)."""
        (teacher,) = self._teacher
        if teacher is None:
            return masks, known
        logits = teacher.to(images.device).eval()(images).mask_logits
        theirs = functional.interpolate(
            logits.sigmoid(), size=masks.shape[-2:], mode="bilinear", align_corners=False
        )[:, 0]
        return torch.where(known[:, None, None], masks, theirs), torch.ones_like(known)

    def validation_step(self, index: int, batch_idx: int) -> None:
        """Judge one held-out case as the challenge does."""
        case = self.validation_cache.cases[index]
        prediction = predict_case([self.network], case, self.recipe.batch_size)
        self.judged.append(figures(judge(case, prediction, SelectionConfig())))

    def on_validation_epoch_end(self) -> None:
        """Log the means over all held-out cases, of all processes."""
        mean = mean_figures(_gathered(self.judged))
        self.judged = []
        for name, value in asdict(mean).items():
            self.log(f"validation/{name}", value, rank_zero_only=False)


def _gathered(mine: list[Figures]) -> list[Figures]:
    if not torch.distributed.is_initialized():
        return mine
    by_process: list[list[Figures]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(by_process, mine)
    return [figures for one in by_process for figures in one]
