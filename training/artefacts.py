"""What another machine, another hand or another mother does to a frame's grey levels.

Each change is a few operations on the whole batch, on its device, and a function of numbers that
the caller gives. Frames are (B, S, S) grey levels in 0..1; numbers are (B,) in [0, 1). Half of the
frames keep clear of each change. How far they go was chosen by eye (docs/training.md).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional

from training.options import Augmentation

# Grain is cut out of one sheet of noise, the same one on every device; it is as wide as the largest
# frame, and so many places more. Its grains are those of a binomial filter.
SHEET_PLACES, SHEET_SEED = 256, 0
_BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)  # about a Gaussian of 1 px
# Waves of the gain from the fan's near end to its far end; none is a multiple of another.
BAND_WAVES = (1.3, 2.9, 5.3)
# Shadows: their middle and half width as shares of the fan's half angle; where they begin, and over
# how much they deepen, as shares of the depth.
SHADOW_MIDDLE, SHADOW_WIDTH, SHADOW_FROM, SHADOW_OVER = 0.9, (0.05, 0.2), (0.05, 0.6), 0.1
# Lines without contact: how softly they begin, as a share of the half angle; how bright the haze
# is that they show, and over how much of the depth it fades by a factor e.
CONTACT_SOFT, HAZE, HAZE_FADE = 0.05, 0.25, 0.15
# Rings below the probe: how many in the whole depth, and over how much of it they fade likewise.
RINGS, RINGS_FADE = (10.0, 25.0), 0.2
# A shadow that leaves less than this shows nothing.
LEAST_SEEN = 0.5


@dataclass(frozen=True)
class Polar:
    """Where a grid's pixels lie in the fan."""

    depth: torch.Tensor
    """(S, S), 0 at the fan's near end, 1 at its far end."""
    angle: torch.Tensor
    """(S, S), -1 at the fan's left edge, 1 at its right one."""


def blurred(x: torch.Tensor, blur: torch.Tensor, config: Augmentation) -> torch.Tensor:
    """Frames mixed with their blurred selves."""
    share = (config.blur * sometimes(blur))[:, None, None]
    return torch.lerp(x, _smooth(x), share)


def grained(
    x: torch.Tensor, grain: torch.Tensor, place: torch.Tensor, config: Augmentation
) -> torch.Tensor:
    """Frames with a coarser grain: noise on the logarithm of their grey levels."""
    sd = (config.grain * sometimes(grain))[:, None, None]
    return x * torch.exp(sd * _noise(place, x.shape[-1]))


def shadowed(
    x: torch.Tensor, numbers: dict[str, torch.Tensor], polar: Polar, config: Augmentation
) -> torch.Tensor:
    """Frames with a shadow along the rays, and with lines at one side that lost contact."""
    x = x * shadow(numbers, polar, config)
    lost = no_contact(numbers, polar, config)
    return torch.lerp(x, HAZE * torch.exp(-polar.depth / HAZE_FADE).expand_as(x), lost)


def shadow(numbers: dict[str, torch.Tensor], polar: Polar, config: Augmentation) -> torch.Tensor:
    """What a shadow leaves of each pixel, (B, S, S) in 0..1."""
    strength, middle, width, start = (
        numbers[name][:, None, None]
        for name in ("shadow", "shadow_angle", "shadow_width", "shadow_depth")
    )
    away = (polar.angle - SHADOW_MIDDLE * (2 * middle - 1)) / _between(width, SHADOW_WIDTH)
    below = ((polar.depth - _between(start, SHADOW_FROM)) / SHADOW_OVER).clamp(0, 1)
    return 1 - config.shadow * sometimes(strength) * torch.exp(-0.5 * away.square()) * below


def no_contact(
    numbers: dict[str, torch.Tensor], polar: Polar, config: Augmentation
) -> torch.Tensor:
    """Which pixels lie on lines without contact, (B, S, S) in 0..1, softly."""
    number, side = (numbers[name][:, None, None] for name in ("contact", "contact_side"))
    share = config.contact * sometimes(number)
    # The lost lines are those beyond an edge that comes in from one side; the fan is 2 wide.
    outward = torch.where(side < 0.5, polar.angle, -polar.angle)
    lost = ((outward - (1 - 2 * share)) / CONTACT_SOFT).clamp(0, 1)
    return lost * (share > 0)


def seen(numbers: dict[str, torch.Tensor], polar: Polar, config: Augmentation) -> torch.Tensor:
    """Which pixels still show what is there, (B, S, S) bool."""
    lit = shadow(numbers, polar, config) >= LEAST_SEEN
    return lit & (no_contact(numbers, polar, config) < LEAST_SEEN)


def banded(
    x: torch.Tensor, bands: torch.Tensor, place: torch.Tensor, polar: Polar, config: Augmentation
) -> torch.Tensor:
    """Frames whose sliders of the gain by depth stand unevenly."""
    waves = sum(
        torch.cos(2 * math.pi * (count * polar.depth + (k + 1) * place[:, None, None]))
        for k, count in enumerate(BAND_WAVES)
    )
    height = config.bands * sometimes(bands) / len(BAND_WAVES)
    return x * torch.exp(height[:, None, None] * waves)


def ringed(
    x: torch.Tensor, rings: torch.Tensor, count: torch.Tensor, polar: Polar, config: Augmentation
) -> torch.Tensor:
    """Frames with reverberation: rings below the probe."""
    waves = torch.cos(2 * math.pi * _between(count, RINGS)[:, None, None] * polar.depth)
    height = (config.rings * sometimes(rings))[:, None, None]
    return x + height * waves * torch.exp(-polar.depth / RINGS_FADE)


def mapped(
    x: torch.Tensor, floor: torch.Tensor, curve: torch.Tensor, config: Augmentation
) -> torch.Tensor:
    """Frames of another dynamic range and another grey map.

    A floor above 0 is cut to black, as by a narrow range; one below lets haze fill the dark. The
    curve bends grey levels between black, middle and white, which stay.
    """
    x = x.clamp(0, 1)
    level = config.floor * (2 * floor - 1)[:, None, None]
    cut = (x - level).clamp_min(0) / (1 - level)
    x = torch.where(level > 0, cut, torch.hypot(x, level).clamp_max(1))
    bend = config.curve * (2 * curve - 1)[:, None, None]
    return x + bend * x * (1 - x) * (2 * x - 1)


def sometimes(uniform: torch.Tensor) -> torch.Tensor:
    """0 in half of the cases, and evenly spread between 0 and 1 in the others."""
    return (2 * uniform - 1).clamp_min(0)


def _between(uniform: torch.Tensor, ends: tuple[float, float]) -> torch.Tensor:
    return ends[0] + (ends[1] - ends[0]) * uniform


def _smooth(x: torch.Tensor) -> torch.Tensor:
    """(B, S, S) under the binomial filter; the border repeats."""
    taps = torch.tensor(_BINOMIAL, device=x.device, dtype=x.dtype)
    taps = taps / taps.sum()
    padded = functional.pad(x[:, None], (2, 2, 2, 2), mode="replicate")
    across = functional.conv2d(padded, taps[None, None, None])
    return functional.conv2d(across, taps[None, None, :, None])[:, 0]


@lru_cache(maxsize=8)
def _sheet(side: int, device: torch.device) -> torch.Tensor:
    """A sheet of noise with mean 0 and standard deviation 1, (side, side)."""
    white = torch.randn(1, side, side, generator=torch.Generator().manual_seed(SHEET_SEED))
    sheet = _smooth(white)[0]
    return ((sheet - sheet.mean()) / sheet.std()).to(device)


def _noise(place: torch.Tensor, size: int) -> torch.Tensor:
    """A piece of the sheet for each number, (B, size, size)."""
    sheet = _sheet(size + SHEET_PLACES, place.device)
    number = (place * SHEET_PLACES**2).long()
    along = torch.arange(size, device=place.device)
    rows = (number // SHEET_PLACES)[:, None] + along
    columns = (number % SHEET_PLACES)[:, None] + along
    return sheet[rows[:, :, None], columns[:, None, :]]
