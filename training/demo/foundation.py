"""The demo's foundation stage: trunk and decoder learn, from scratch, to see anatomy in phantoms.

The trunk's own heads are linear and thrown away afterwards: so a patch's token has to tell what the
patch shows, and the pooled feature how well the frame suits. The decoder, which the adaptation goes
on with, learns to outline the abdomen wherever it is well in view, whether annotated or not. It
trains on one device: its losses are not means over frames, and its validation is not gathered.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from acouslic.challenge import Quality
from acouslic.network import (
    Decoder,
    NetworkConfig,
    TrunkPass,
    build_trunk,
    lay_channels_last,
)
from acouslic.preprocess import normalise
from dataset.cache import Cache
from phantom.truth import Sight
from training.augment import NONE, NUMBERS, augment_frames, grid_fan, sampling_grid
from training.batches import Draw, TrainingFrames
from training.demo.anatomy import LANDMARKS, Anatomy, anatomy_of, draw, draw_abdomen
from training.demo.muon import Float32Muon
from training.losses import balanced_cross_entropy, dice_loss, mask_cross_entropy
from training.module import FrameTraining
from training.options import Augmentation, Recipe

# A token's patch is drawn in FINENESS x FINENESS points.
FINENESS = 4
# Most of a frame is no landmark, so its mean is small beside the other terms.
BCE_WEIGHT = 5.0
# The first filters are made so many times larger: without their mean they answer weakly.
CONTRAST = 4.0
# Frames of a held-out case from one that is judged to the next: its neighbours look alike.
VALIDATED_EVERY = 16
# Abdominal radii below which an error of the height counts by its square.
HEIGHT_BETA = 0.2


class AnatomyOutput(NamedTuple):
    """What an AnatomyNet says of N frames."""

    landmarks: torch.Tensor
    """(N, K, G, G) float32, logits of the landmarks' maps."""
    height: torch.Tensor
    """(N, G, G) float32, abdominal radii from the standard plane."""
    quality_logits: torch.Tensor
    """(N, 3) float32, in the order of Quality."""
    mask_logits: torch.Tensor
    """(N, 1, D, D) float32, the abdomen's, from the decoder."""


class AnatomyNet(nn.Module):
    """A trunk with linear heads on its last tokens and on its pooled feature, and the decoder."""

    def __init__(self, network: NetworkConfig) -> None:
        """Make trunk and decoder of this architecture, and the heads, with random weights."""
        super().__init__()
        self.intensity = network.intensity
        config = self.config = network.trunk
        self.trunk = build_trunk(config)
        self.decoder = Decoder(config, network.decoder_width, network.image_levels)
        # A tenth of a step's time. It rounds otherwise, but this trains on one device alone.
        lay_channels_last(self.decoder)
        with torch.no_grad():
            # Most of an ultrasound frame is dark. Filters without a mean do not see how dark, which
            # would drown what a patch shows.
            filters = self.trunk.conv1.weight
            filters -= filters.mean(dim=(1, 2, 3), keepdim=True)
            filters *= CONTRAST
        self.norm = nn.LayerNorm(config.width)
        self.maps = nn.Linear(config.width, (len(LANDMARKS) + 1) * FINENESS**2)
        self.quality = nn.Linear(config.embed_dim, len(Quality))
        self.trunk_pass = TrunkPass(network)

    @property
    def size(self) -> int:
        """G, the side of the maps."""
        return self.config.grid * FINENESS

    def forward(self, frames: torch.Tensor) -> AnatomyOutput:
        """Answer for frames (N, S, S) of grey levels, 0 to 255."""
        images = normalise(frames, self.intensity)
        features = self.trunk_pass(self.trunk, images)
        tokens = features.taps[-1].permute(0, 2, 3, 1)
        maps = self.maps(self.norm(tokens)).permute(0, 3, 1, 2)
        maps = functional.pixel_shuffle(maps, FINENESS).float()
        quality = self.quality(features.pooled).float()
        mask_logits = self.decoder(images, features.taps).mask_logits
        return AnatomyOutput(maps[:, :-1], maps[:, -1], quality, mask_logits)


class AnatomyBatch(NamedTuple):
    """One pass's frames and their anatomy."""

    frames: torch.Tensor
    """(B, S, S) uint8."""
    quality: torch.Tensor
    """(B,) int64, values of Quality."""
    uniform: torch.Tensor
    """(B, NUMBERS) float32 in [0, 1), the numbers that vary the frames."""
    anatomy: Anatomy
    """Of the B frames."""


class AnatomyFrames(TrainingFrames):
    """Looks up whole batches of phantoms' frames, with their anatomy."""

    def __init__(self, cache: Cache, seed: int, numbers: dict[str, int]) -> None:
        """Compute the anatomy of a cache of phantoms.

        Args:
            cache: the phantoms.
            seed: their data set's seed.
            numbers: their numbers there, by uuid.
        """
        super().__init__(cache)
        self._anatomy = [anatomy_of(case, seed, numbers[case.facts.uuid]) for case in cache.cases]

    def __getitems__(self, draws: list[Draw]) -> Any:
        """A batch."""
        tensors = [
            torch.stack([self._anatomy[draw.case][field][draw.row] for draw in draws])
            for field in range(len(Anatomy._fields))
        ]
        return AnatomyBatch(*self.without_masks(draws), Anatomy(*tensors))


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for the matrices of the trunk's blocks, AdamW for the rest, as one optimiser."""

    def __init__(
        self, network: AnatomyNet, *, matrix_rate: float, rate: float, weight_decay: float
    ) -> None:
        """Optimise a network.

        Args:
            network: its parameters are stepped in place.
            matrix_rate: learning rate of the blocks' matrices.
            rate: learning rate of all else.
            weight_decay: of both.
        """
        blocks = network.trunk.transformer.parameters()
        matrices = [parameter for parameter in blocks if parameter.ndim == 2]
        of_muon = set(map(id, matrices))
        rest = [parameter for parameter in network.parameters() if id(parameter) not in of_muon]
        super().__init__([*matrices, *rest], {})
        self.optimisers: tuple[torch.optim.Optimizer, ...] = (
            Float32Muon(matrices, lr=matrix_rate, weight_decay=weight_decay),
            torch.optim.AdamW(rest, lr=rate, weight_decay=weight_decay),
        )
        self._share_groups()

    def _share_groups(self) -> None:
        """Let the schedule change the rates of the very groups that the optimisers use."""
        self.param_groups = [
            group for optimiser in self.optimisers for group in optimiser.param_groups
        ]

    def step(self, closure: Any = None) -> Any:
        """Step both optimisers; the closure, if there is one, computes the loss."""
        loss = closure() if closure else None
        for optimiser in self.optimisers:
            optimiser.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both optimisers."""
        return {"parts": [optimiser.state_dict() for optimiser in self.optimisers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for optimiser, state in zip(self.optimisers, state_dict["parts"], strict=True):
            optimiser.load_state_dict(state)
        self._share_groups()


class FoundationTraining(FrameTraining):
    """Landmarks, height along the fetus, quality and masks, validated by the masks' Dice."""

    network: AnatomyNet

    def __init__(
        self,
        network: AnatomyNet,
        recipe: Recipe,
        training: AnatomyFrames,
        validation: AnatomyFrames,
        *,
        workers: int = 0,
    ) -> None:
        """Prepare to train.

        Args:
            network: what is trained, in place.
            recipe: how; `trunk_rate` is that of the blocks' matrices, `head_rate` of all else.
            training: the phantoms to train on.
            validation: the phantoms to validate on.
            workers: processes that read batches ahead.
        """
        super().__init__(network, recipe, training, validation.cache, workers=workers)
        self._held_out = validation
        self.counted: list[torch.Tensor] = []
        self.mask_dice: list[torch.Tensor] = []

    def optimiser(self) -> torch.optim.Optimizer:
        """Muon and AdamW."""
        recipe = self.recipe
        return MuonAndAdamW(
            self.network,
            matrix_rate=recipe.trunk_rate,
            rate=recipe.head_rate,
            weight_decay=recipe.weight_decay,
        )

    def losses(self, batch: AnatomyBatch) -> dict[str, torch.Tensor]:
        """Landmarks and masks by cross-entropy and Dice, the height in the body, the quality."""
        config, size = self.recipe.augmentation, self.network.size
        with torch.no_grad():
            where = sampling_grid(batch.uniform, batch.frames.shape[-1], config)
            frames = augment_frames(batch.frames, where, batch.uniform, config)
            landmarks, height = draw(batch.anatomy, sampling_grid(batch.uniform, size, config))
            inside = grid_fan(size).mask.to(frames.device)
            masks = self._masks(batch.anatomy, batch.uniform, config)
        output = self.network(frames)
        sight = batch.anatomy.sight
        losses = {
            "bce": BCE_WEIGHT * _cross_entropy(output.landmarks, landmarks, inside),
            "dice": _dice_loss(output.landmarks.sigmoid() * inside, landmarks),
            "height": _height_loss(output.height, height, body=landmarks[:, 0]),
            "quality": balanced_cross_entropy(
                output.quality_logits, batch.quality, self.class_weights
            ),
            "mask_bce": mask_cross_entropy(output.mask_logits, masks, sight != Sight.PARTLY),
            "mask_dice": dice_loss(output.mask_logits, masks, sight == Sight.WELL),
        }
        return {"total": torch.stack(list(losses.values())).sum(), **losses}

    def _masks(self, anatomy: Anatomy, uniform: torch.Tensor, config: Augmentation) -> torch.Tensor:
        """The masks of B frames on the decoder's grid, (B, 1, D, D), varied as the frames are."""
        where = sampling_grid(uniform, self.network.decoder.size, config)
        return draw_abdomen(anatomy, where)[:, None]

    def validation_step(self, index: int, batch_idx: int) -> None:
        """Count, for every sixteenth frame of a case as it is, where maps and landmarks agree."""
        case = self.validation_cache.cases[index]
        uniform = np.full(NUMBERS, 1, np.float32)
        rows = range(0, len(case.frame_index), VALIDATED_EVERY)
        batch = self._held_out.__getitems__([Draw(index, row, uniform) for row in rows])
        where = sampling_grid(batch.uniform, self.network.size, NONE).to(self.device)
        anatomy = Anatomy(*(tensor.to(self.device) for tensor in batch.anatomy))
        landmarks, _ = draw(anatomy, where)
        output = self.network(batch.frames.to(self.device))
        inside = grid_fan(self.network.size).mask.to(self.device) > 0.5
        predicted = ((output.landmarks > 0) & inside).float()
        counts = torch.stack([2 * predicted * landmarks, predicted + landmarks])
        self.counted.append(counts.sum(dim=(1, 3, 4)).cpu())
        masks = self._masks(anatomy, batch.uniform.to(self.device), NONE)
        dice = mask_dice(output.mask_logits, masks)
        self.mask_dice.append(dice[anatomy.sight == Sight.WELL].cpu())

    def on_validation_epoch_end(self) -> None:
        """Log each landmark's Dice over all held-out frames, and as the score the masks' mean."""
        both, either = torch.stack(self.counted).sum(dim=0)
        self.counted = []
        dice = both / either.clamp_min(1)
        for name, value in zip(LANDMARKS, dice, strict=True):
            self.log(f"validation/{name}", value)
        self.log("validation/score", torch.cat(self.mask_dice).mean())
        self.mask_dice = []


def mask_dice(mask_logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Dice of each of B frames, (B,), of logits and masks of 0 and 1, both (B, 1, D, D)."""
    both, either = (mask_logits > 0) * masks, (mask_logits > 0) + masks
    return 2 * both.sum(dim=(1, 2, 3)) / either.sum(dim=(1, 2, 3)).clamp_min(1)


def _cross_entropy(
    logits: torch.Tensor, landmarks: torch.Tensor, inside: torch.Tensor
) -> torch.Tensor:
    """Mean over the points inside the fan."""
    by_point = functional.binary_cross_entropy_with_logits(logits, landmarks, reduction="none")
    return (by_point * inside).mean() / inside.mean()


def _dice_loss(probability: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
    """1 - soft Dice of each landmark over the whole batch, as a mean over landmarks."""
    overlap = 2 * (probability * landmarks).sum(dim=(0, 2, 3)) + 1
    area = (probability + landmarks).sum(dim=(0, 2, 3)) + 1
    return (1 - overlap / area).mean()


def _height_loss(
    predicted: torch.Tensor, height: torch.Tensor, *, body: torch.Tensor
) -> torch.Tensor:
    """Mean over the points of the body; elsewhere the fetus has no height."""
    by_point = functional.smooth_l1_loss(predicted, height, reduction="none", beta=HEIGHT_BETA)
    return (by_point * body).sum() / body.sum().clamp_min(1)
