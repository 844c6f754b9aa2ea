"""Augmentation as the probe sees: about the fan's apex, along its rays, never outside of it.

Everything is a function of uniform numbers that the caller gives, so that a sample looks the same
whatever the number of processes. Frames are (B, S, S) grey levels on the network's grid, masks
(B, S, S) coverage; geometry is (x, y) in pixels.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, Fan, Quality
from acouslic.preprocess import padding, to_grid
from training.artefacts import (
    Polar,
    banded,
    blurred,
    grained,
    mapped,
    ringed,
    seen,
    shadowed,
)
from training.options import Augmentation

# The numbers that vary a frame, in the order in which they are drawn.
NAMES = (
    "gain", "gamma", "depth", "angle", "scale", "flip", "blur", "grain", "grain_place", "bands",
    "bands_place", "shadow", "shadow_angle", "shadow_width", "shadow_depth", "contact",
    "contact_side", "rings", "rings_count", "floor", "curve",
)  # fmt: skip
NUMBERS = len(NAMES)
# An abdomen of which less than this is still in view is no optimal one any more; with less than the
# second, it is none that would be annotated. As the annotators of phantoms decide.
OPTIMAL_IN_VIEW, SUBOPTIMAL_IN_VIEW = 0.9, 0.66
# Grey levels are 0 to 1. Far below a step of 1/255, it keeps powers away from 0.
_LEAST_GREY = 1e-6


NONE = Augmentation(
    gain_ratio=1.0,
    gamma_ratio=1.0,
    depth=0.0,
    angle_deg=0.0,
    scale_ratio=1.0,
    flip=False,
    blur=0.0,
    grain=0.0,
    bands=0.0,
    shadow=0.0,
    contact=0.0,
    rings=0.0,
    floor=0.0,
    curve=0.0,
)


@dataclass(frozen=True)
class GridFan:
    """The fan on a grid of side S; lengths are in the grid's pixels."""

    apex_x_px: float
    """Column of the apex."""
    apex_y_px: float
    """Row of the apex; negative, as it lies above the frame."""
    near_px: float
    """Radius at which the image begins."""
    far_px: float
    """Radius at which the image ends."""
    mask: torch.Tensor
    """(S, S) float32, the fan's coverage of each pixel in 0..1."""


@lru_cache(maxsize=8)
def grid_fan(size: int, fan: Fan = CHALLENGE_FAN) -> GridFan:
    """The place of a fan, the challenge's, on a grid of side `size`."""
    left, _, top, _ = padding(FRAME_SHAPE)
    ratio = size / max(FRAME_SHAPE)
    mask = to_grid(fan.mask()[None].astype("uint8") * 255, size)[0].float() / 255
    return GridFan(
        apex_x_px=(fan.apex_x_px + left + 0.5) * ratio - 0.5,
        apex_y_px=(fan.apex_y_px + top + 0.5) * ratio - 0.5,
        near_px=fan.near_px * ratio,
        far_px=fan.far_px * ratio,
        mask=mask,
    )


def augment(
    frames: torch.Tensor, masks: torch.Tensor, uniform: torch.Tensor, config: Augmentation
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vary a batch; a mask goes wherever its frame goes.

    Args:
        frames: (B, S, S) uint8.
        masks: (B, S, S) uint8 coverage.
        uniform: (B, NUMBERS) in [0, 1).
        config: how far each change goes.

    Returns:
        Frames as float32 in 0..255 and masks as float32 in 0..1, both (B, S, S).
    """
    where = sampling_grid(uniform, frames.shape[-1], config)
    inside = grid_fan(frames.shape[-1]).mask.to(frames.device)
    return augment_frames(frames, where, uniform, config), _moved(masks, where) * inside


def augment_frames(
    frames: torch.Tensor, where: torch.Tensor, uniform: torch.Tensor, config: Augmentation
) -> torch.Tensor:
    """Vary frames alone.

    Args:
        frames: (B, S, S) uint8.
        where: their `sampling_grid`, (B, S, S, 2).
        uniform: (B, NUMBERS) in [0, 1).
        config: how far each change goes.

    Returns:
        (B, S, S) float32 in 0..255.
    """
    size, numbers = frames.shape[-1], _named(uniform)
    polar = _polar(size, uniform.device)
    # The grey levels of half precision are too coarse, and not all of these operations have it.
    with torch.autocast(frames.device.type, enabled=False):
        x = blurred(_moved(frames, where), numbers["blur"], config).clamp_min(_LEAST_GREY)
        x = x ** _ratio(numbers["gamma"], config.gamma_ratio)[:, None, None]
        slope = config.depth * (2 * numbers["depth"] - 1)[:, None, None]
        x = x * _ratio(numbers["gain"], config.gain_ratio)[:, None, None]
        x = x * torch.exp(slope * (polar.depth - 0.5))
        x = banded(x, numbers["bands"], numbers["bands_place"], polar, config)
        x = grained(x, numbers["grain"], numbers["grain_place"], config)
        x = shadowed(x, numbers, polar, config)
        x = ringed(x, numbers["rings"], numbers["rings_count"], polar, config)
        x = mapped(x, numbers["floor"], numbers["curve"], config)
        return x * grid_fan(size).mask.to(x.device) * 255


def quality_in_view(
    quality: torch.Tensor,
    masks: torch.Tensor,
    moved: torch.Tensor,
    uniform: torch.Tensor,
    config: Augmentation,
) -> torch.Tensor:
    """The quality that is left after `augment`: less where the abdomen went out of view.

    Args:
        quality: (B,) int64, values of Quality.
        masks: (B, S, S) uint8 coverage, as `augment` took them.
        moved: (B, S, S) float32 in 0..1, as it gave them.
        uniform: (B, NUMBERS) in [0, 1), as it took them.
        config: how far each change went.
    """
    numbers = _named(uniform)
    scale = _ratio(numbers["scale"], config.scale_ratio)
    whole = masks.float().sum(dim=(1, 2)) / 255 * scale.square()
    in_view = seen(numbers, _polar(masks.shape[-1], uniform.device), config)
    share = (moved * in_view).sum(dim=(1, 2)) / whole.clamp_min(1)
    limit = torch.full_like(quality, Quality.OPTIMAL)
    limit[share < OPTIMAL_IN_VIEW] = Quality.SUBOPTIMAL
    limit[share < SUBOPTIMAL_IN_VIEW] = Quality.NONE
    return torch.minimum(quality, limit)


def _named(uniform: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(zip(NAMES, uniform.unbind(dim=1), strict=True))


def _moved(images: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    images = images[:, None].float() / 255
    return functional.grid_sample(images, where, mode="bilinear", align_corners=False)[:, 0]


def sampling_grid(uniform: torch.Tensor, size: int, config: Augmentation) -> torch.Tensor:
    """The places that `augment` takes each pixel of its output from.

    Args:
        uniform: (B, NUMBERS) in [0, 1).
        size: side of the grid.
        config: how far each change goes.

    Returns:
        (B, size, size, 2), (x, y) as grid_sample counts: -1 to 1 from edge to edge.
    """
    numbers = _named(uniform)
    return _looking_back(
        grid_fan(size),
        size,
        angle_rad=math.radians(config.angle_deg) * (2 * numbers["angle"] - 1),
        scale=_ratio(numbers["scale"], config.scale_ratio),
        mirror=torch.where((numbers["flip"] < 0.5) & config.flip, -1.0, 1.0),
    )


def _ratio(uniform: torch.Tensor, ratio: float) -> torch.Tensor:
    return torch.exp(math.log(ratio) * (2 * uniform - 1))


@lru_cache(maxsize=8)
def _polar(size: int, device: torch.device) -> Polar:
    """Where the pixels of a grid lie in the challenge's fan."""
    fan = grid_fan(size)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    radius = torch.hypot(x - fan.apex_x_px, y - fan.apex_y_px)
    depth = (radius - fan.near_px) / (fan.far_px - fan.near_px)
    angle = torch.atan2(x - fan.apex_x_px, y - fan.apex_y_px)
    half_rad = math.radians(CHALLENGE_FAN.half_angle_deg)
    return Polar(depth=depth.to(device), angle=(angle / half_rad).to(device))


def _looking_back(
    fan: GridFan, size: int, *, angle_rad: torch.Tensor, scale: torch.Tensor, mirror: torch.Tensor
) -> torch.Tensor:
    """The place to sample for each pixel of the output, (B, S, S, 2) in grid_sample's -1..1.

    The output is the input turned by `angle_rad`, scaled and mirrored about the apex, each (B,). So
    the place of a pixel is found by the inverse of that.
    """
    device = angle_rad.device
    y, x = torch.meshgrid(
        torch.arange(size, device=device) - fan.apex_y_px,
        torch.arange(size, device=device) - fan.apex_x_px,
        indexing="ij",
    )
    cosine, sine = (
        f(angle_rad)[:, None, None] / scale[:, None, None] for f in (torch.cos, torch.sin)
    )
    source_x = (cosine * x + sine * y) * mirror[:, None, None] + fan.apex_x_px
    source_y = cosine * y - sine * x + fan.apex_y_px
    return torch.stack([source_x, source_y], dim=-1).add_(0.5).mul_(2 / size).sub_(1)
