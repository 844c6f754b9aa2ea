"""The demo's foundation stage: a small trunk learns, from scratch, to see anatomy in phantoms.

For one device: its losses are sums over a batch, and its validation is not gathered.

Its heads are thrown away: a patch's token has to tell what the patch shows, and the pooled feature
how well the frame suits.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from acouslic.challenge import Quality
from acouslic.network import TrunkConfig, build_trunk, patches_in_fan, trunk_features
from acouslic.preprocess import normalise
from dataset.cache import Cache
from training.augment import NONE, NUMBERS, augment_frames, grid_fan, sampling_grid
from training.batches import Draw, TrainingFrames
from training.demo.anatomy import LANDMARKS, Anatomy, anatomy_of, draw
from training.losses import balanced_cross_entropy
from training.module import FrameTraining
from training.options import Recipe

FINENESS = 4
BCE = 5.0
CONTRAST = 4.0
VALIDATED_EVERY = 16


class AnatomyOutput(NamedTuple):
    """`landmarks` (N, K, G, G) logits, `height` (N, G, G), `quality_logits` (N, 3)."""

    landmarks: torch.Tensor
    height: torch.Tensor
    quality_logits: torch.Tensor


class AnatomyNet(nn.Module):
    """A trunk with linear heads on its last tokens and on its pooled feature; G is FINENESS times
    the token grid.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = build_trunk(config)
        with torch.no_grad():
            # Most of an ultrasound frame is dark: filters begin all but blind to how dark, so that
            # what a patch shows is not drowned.
            filters = self.trunk.conv1.weight
            filters -= filters.mean(dim=(1, 2, 3), keepdim=True)
            filters *= CONTRAST
        self.norm = nn.LayerNorm(config.width)
        self.maps = nn.Linear(config.width, (len(LANDMARKS) + 1) * FINENESS**2)
        self.quality = nn.Linear(config.embed_dim, len(Quality))
        self.seen: torch.Tensor
        self.register_buffer("seen", patches_in_fan(config), persistent=False)

    @property
    def size(self) -> int:
        """Side of the maps."""
        return self.config.grid * FINENESS

    def forward(self, images: torch.Tensor) -> AnatomyOutput:
        features = trunk_features(self.trunk, self.config, self.seen, images)
        tokens = features.taps[-1].permute(0, 2, 3, 1)
        maps = self.maps(self.norm(tokens)).permute(0, 3, 1, 2)
        maps = functional.pixel_shuffle(maps, FINENESS).float()
        return AnatomyOutput(maps[:, :-1], maps[:, -1], self.quality(features.pooled).float())


class AnatomyBatch(NamedTuple):
    """Frames (B, S, S) uint8, their quality (B,), the numbers that vary them, their anatomy."""

    frames: torch.Tensor
    quality: torch.Tensor
    uniform: torch.Tensor
    anatomy: Anatomy


class AnatomyFrames(TrainingFrames):
    """Frames of phantoms and their anatomy; `numbers` are the cases' in `seed`, by uuid."""

    def __init__(self, cache: Cache, seed: int, numbers: dict[str, int]) -> None:
        super().__init__(cache)
        self._anatomy = [anatomy_of(case, seed, numbers[case.facts.uuid]) for case in cache.cases]

    def __getitems__(self, draws: list[Draw]) -> Any:
        parts = [
            torch.stack([self._anatomy[draw.case][part][draw.row] for draw in draws])
            for part in range(len(Anatomy._fields))
        ]
        return AnatomyBatch(*self.without_masks(draws), Anatomy(*parts))


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for the matrices of the trunk's blocks, AdamW for the rest, as one optimiser."""

    def __init__(
        self, network: AnatomyNet, *, matrix_rate: float, rate: float, weight_decay: float
    ) -> None:
        blocks = network.trunk.transformer.parameters()
        matrices = [parameter for parameter in blocks if parameter.ndim == 2]
        held = set(map(id, matrices))
        rest = [parameter for parameter in network.parameters() if id(parameter) not in held]
        super().__init__([*matrices, *rest], {})
        self.parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(
                matrices,
                lr=matrix_rate,
                weight_decay=weight_decay,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(rest, lr=rate, weight_decay=weight_decay),
        )
        self._share_groups()

    def _share_groups(self) -> None:
        """The schedule changes the rates of the very groups that the parts use."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()


class FoundationTraining(FrameTraining):
    """Landmarks, height along the fetus and quality, validated by the landmarks' Dice."""

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
        super().__init__(network, recipe, training, validation.cache, workers=workers)
        self._held_out = validation
        self.counted: list[torch.Tensor] = []

    def optimiser(self) -> torch.optim.Optimizer:
        recipe = self.recipe
        return MuonAndAdamW(
            self.network,
            matrix_rate=recipe.trunk_rate,
            rate=recipe.head_rate,
            weight_decay=recipe.weight_decay,
        )

    def losses(self, batch: AnatomyBatch) -> dict[str, torch.Tensor]:
        config, size = self.recipe.augmentation, self.network.size
        with torch.no_grad():
            where = sampling_grid(batch.uniform, batch.frames.shape[-1], config)
            frames = augment_frames(batch.frames, where, batch.uniform, config)
            landmarks, height = draw(batch.anatomy, sampling_grid(batch.uniform, size, config))
            inside = grid_fan(size).mask.to(frames.device)
        output = self.network(normalise(frames))
        each = functional.binary_cross_entropy_with_logits(
            output.landmarks, landmarks, reduction="none"
        )
        probability = output.landmarks.sigmoid() * inside
        overlap = 2 * (probability * landmarks).sum(dim=(0, 2, 3)) + 1
        area = (probability + landmarks).sum(dim=(0, 2, 3)) + 1
        body = landmarks[:, 0]
        off = functional.smooth_l1_loss(output.height, height, reduction="none", beta=0.2)
        losses = {
            "bce": BCE * (each * inside).mean() / inside.mean(),
            "dice": (1 - overlap / area).mean(),
            "height": (off * body).sum() / body.sum().clamp_min(1),
            "quality": balanced_cross_entropy(
                output.quality_logits, batch.quality, self.class_weights
            ),
        }
        return {"total": torch.stack(list(losses.values())).sum(), **losses}

    def validation_step(self, index: int, batch_idx: int) -> None:
        """Every sixteenth frame of a case as it is."""
        case = self.validation_cache.cases[index]
        uniform = np.full(NUMBERS, 1, np.float32)
        rows = range(0, len(case.frame_index), VALIDATED_EVERY)
        batch = self._held_out.__getitems__([Draw(index, row, uniform) for row in rows])
        where = sampling_grid(batch.uniform, self.network.size, NONE).to(self.device)
        landmarks, _ = draw(Anatomy(*(part.to(self.device) for part in batch.anatomy)), where)
        output = self.network(normalise(batch.frames.to(self.device)))
        inside = grid_fan(self.network.size).mask.to(self.device) > 0.5
        found = ((output.landmarks > 0) & inside).float()
        self.counted.append(
            torch.stack([2 * found * landmarks, found + landmarks]).sum(dim=(1, 3, 4)).cpu()
        )

    def on_validation_epoch_end(self) -> None:
        both, either = torch.stack(self.counted).sum(dim=0)
        self.counted = []
        dice = both / either.clamp_min(1)
        for name, value in zip(LANDMARKS, dice, strict=True):
            self.log(f"validation/{name}", value)
        self.log("validation/score", dice.mean())
