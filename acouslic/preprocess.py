"""To the network's grid and back: one matched pair, and the same for masks.

A frame (H, W) is padded with zeros on both sides to a square and resized to (S, S), as FetalCLIP's
own preprocessing does.
"""

import logging
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from acouslic.challenge import CHALLENGE_FAN

# What a network is given of a frame's brightness: it itself, or its course inside the fan.
Intensity = Literal["as-is", "fan"]
# Of red, green and blue in CLIP's training images, as OpenAI published them with its weights.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# So many frames are resized at a time: their padded copies take 18 MB, those of a stack 465 MB.
CHUNK = 32
# Mean and standard deviation of the grey levels inside the fan of a usual frame: medians over six
# frames of the training set that public notebooks show at full size (17 to 46, and 20 to 33).
USUAL_MEAN, USUAL_STD = 30.0, 29.0
# Added to a frame's own standard deviation, in grey levels, so that an all but empty frame does not
# become one of noise.
STD_FLOOR = 2.0
CPU = torch.device("cpu")
log = logging.getLogger(__name__)


def padding(shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Columns to add left and right, and rows above and below, that make (H, W) a square."""
    rows, columns = shape
    side = max(rows, columns)
    left, top = (side - columns) // 2, (side - rows) // 2
    return left, side - columns - left, top, side - rows - top


def to_grid(
    frames: np.ndarray, size: int, chosen: np.ndarray | None = None, device: torch.device = CPU
) -> torch.Tensor:
    """Bring frames to the network's grid: bicubic, antialiased.

    Args:
        frames: (T, H, W) uint8.
        size: side of the grid.
        chosen: the indices of those that are wanted, (N,); None: all.
        device: where they are resized, and stay; what fails there is done on the CPU.

    Returns:
        (N, size, size) uint8.
    """
    chosen = np.arange(len(frames)) if chosen is None else chosen
    if device.type != "cpu":
        try:
            return _to_grid(frames, size, chosen, device)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            log.warning("%s does not resize frames (%s); the CPU does", device.type, reason)
    return _to_grid(frames, size, chosen, CPU)


def _to_grid(
    frames: np.ndarray, size: int, chosen: np.ndarray, device: torch.device
) -> torch.Tensor:
    """See `to_grid`. A GPU resizes some frames while the next ones are made ready for it."""
    pad = padding(frames.shape[1:3])
    grid = torch.empty((len(chosen), size, size), dtype=torch.uint8, device=device)
    for start in range(0, len(chosen), CHUNK):
        part = torch.from_numpy(frames[chosen[start : start + CHUNK]])
        if device.type != "cpu":
            part = part.pin_memory().to(device, non_blocking=True)
        square = functional.pad(part, pad)[:, None]
        grid[start : start + CHUNK] = resized(square, size, by_integers=device.type == "cpu")[:, 0]
    return grid


def resized(square: torch.Tensor, size: int, *, by_integers: bool) -> torch.Tensor:
    """Resize square images: bicubic, antialiased.

    Args:
        square: (N, 1, L, L) uint8.
        size: the new side.
        by_integers: whether by PyTorch's kernel for integers, which a GPU has not; by float32 a
            tenth of noise comes out one grey level higher or lower, and up to three at edges from
            black to white.

    Returns:
        (N, 1, size, size) uint8.
    """
    source = square if by_integers else square.float()
    result = functional.interpolate(
        source, size=(size, size), mode="bicubic", antialias=True, align_corners=False
    )
    return result if by_integers else result.round().clamp(0, 255).to(torch.uint8)


def normalise(grid: torch.Tensor, intensity: Intensity) -> torch.Tensor:
    """Grey levels to CLIP's input.

    With "fan", gain and contrast of the machine no longer count: each frame has the mean and the
    standard deviation of a usual one inside the fan, and stays black outside.

    Args:
        grid: (N, S, S), uint8 or float in 0..255.
        intensity: what becomes of the brightness first.

    Returns:
        (N, 3, S, S) float32.
    """
    grey = grid.float()
    if intensity == "fan":
        grey = like_a_usual_frame(grey)
    mean = torch.tensor(CLIP_MEAN, device=grid.device)[:, None, None]
    std = torch.tensor(CLIP_STD, device=grid.device)[:, None, None]
    return (grey[:, None] / 255 - mean) / std


def like_a_usual_frame(grey: torch.Tensor) -> torch.Tensor:
    """Frames (N, S, S) float, each with a usual one's mean and spread in the fan, 0 outside."""
    fan = _grid_fan(grey.shape[-1]).to(grey.device)
    inside = grey[:, fan]
    mean, std = inside.mean(dim=1)[:, None, None], inside.std(dim=1)[:, None, None]
    return ((grey - mean) / (std + STD_FLOOR) * USUAL_STD + USUAL_MEAN) * fan


@lru_cache(maxsize=8)
def _grid_fan(size: int) -> torch.Tensor:
    """The challenge's fan on the network's grid, (size, size) bool."""
    return torch.from_numpy(masks_to_grid(CHALLENGE_FAN.mask()[None], size)[0])


def masks_to_grid(masks: np.ndarray, size: int) -> np.ndarray:
    """Bring labels to the network's grid: each cell takes that of the nearest pixel's centre.

    Args:
        masks: (N, H, W) uint8 or bool.
        size: side of the grid.

    Returns:
        (N, size, size) of the same type; 0 in the padding.
    """
    left, _, top, _ = padding(masks.shape[1:3])
    rows, columns = masks.shape[1:3]
    side = max(rows, columns)
    centre = np.floor((np.arange(size) + 0.5) * side / size).astype(int)
    row, column = centre - top, centre - left
    inside = ((row >= 0) & (row < rows))[:, None] & ((column >= 0) & (column < columns))[None]
    picked = masks[:, row.clip(0, rows - 1)][:, :, column.clip(0, columns - 1)]
    return np.where(inside, picked, np.zeros((), masks.dtype))


def from_grid(maps: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Bring maps from the grid back to frames: bilinear, the padding cut off.

    Args:
        maps: (N, G, G) float.
        shape: (H, W) of a frame.

    Returns:
        (N, H, W) float.
    """
    left, right, top, bottom = padding(shape)
    side = (shape[0] + top + bottom, shape[1] + left + right)
    full = functional.interpolate(maps[:, None], size=side, mode="bilinear", align_corners=False)
    return full[:, 0, top : top + shape[0], left : left + shape[1]]
