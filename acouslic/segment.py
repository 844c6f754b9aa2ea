"""The network over a stack's frames, in batches; black frames are left out.

What does not fit into memory is tried again with half the frames, down to one, and then on the CPU
where the caller allows it. What is not finite is computed again in float32, and refused if it stays
so.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch

from acouslic.challenge import FRAME_SHAPE, Quality
from acouslic.engine import Engine, Outputs, is_out_of_memory
from acouslic.errors import BundleError, OddStackError
from acouslic.preprocess import from_grid

# The largest number that float16 holds.
LARGEST_LOGIT = float(np.finfo(np.float16).max)
log = logging.getLogger(__name__)


class NoMemoryError(OddStackError):
    """The memory is too small for a single frame."""


@dataclass(frozen=True)
class StackPrediction:
    """What a network predicts for T frames; zeros on black ones."""

    quality: np.ndarray
    """(T, 3) float32, probabilities in the order of `Quality`."""
    mask_logits: np.ndarray
    """(T, G, G) float16, the abdomen's logits on the network's grid."""


def predict(
    engine: Engine,
    grid: torch.Tensor,
    tissue: np.ndarray,
    batch_size: int | None = None,
    *,
    cpu_too: bool = False,
) -> StackPrediction:
    """Run an ensemble of one or more members over a stack.

    Mask logits and quality probabilities are averaged over the members.

    Args:
        engine: what computes them.
        grid: the tissue frames only, (tissue.sum(), S, S) uint8 from `preprocess.to_grid`.
        tissue: which of the stack's frames those are, (T,) bool.
        batch_size: frames at a time, at most; None takes what suits the engine.
        cpu_too: whether the CPU takes over where a GPU has no memory for a single frame.

    Returns:
        The prediction for all frames of the stack.

    Raises:
        BundleError: the networks say what is no number.
        NoMemoryError: the memory is too small for a single frame.
    """
    batch_size = batch_size or engine.batch_size
    try:
        return _predict(engine, grid, tissue, batch_size)
    except NoMemoryError as error:
        if not cpu_too or engine.device.type == "cpu":
            raise
        log.warning("%s; the CPU computes, which is slower", error)
    with engine.on_cpu():
        return _predict(engine, grid, tissue, batch_size)


@torch.inference_mode()
def _predict(
    engine: Engine, grid: torch.Tensor, tissue: np.ndarray, batch_size: int
) -> StackPrediction:
    size = engine.mask_size
    quality = np.zeros((len(tissue), len(Quality)), np.float32)
    mask_logits = np.zeros((len(tissue), size, size), np.float16)
    frames = np.flatnonzero(tissue)
    start = 0
    while start < len(frames):
        batch = frames[start : start + batch_size]
        outputs = _try_batch(engine, grid[start : start + batch_size])
        if outputs is None:
            batch_size = _smaller(len(batch), engine.device)
            continue
        quality[batch], mask_logits[batch] = outputs
        start += len(batch)
    return StackPrediction(quality, mask_logits)


def _try_batch(engine: Engine, grid: torch.Tensor) -> tuple[np.ndarray, np.ndarray] | None:
    """Qualities and mask logits of some frames; None where memory is too small for them."""
    try:
        outputs = engine.compute(grid)
        if not _is_finite(outputs):
            outputs = engine.compute(grid, exact=True)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    if not _is_finite(outputs):
        raise BundleError(
            expected="numbers from the network",
            found="some that are not finite, in float32 too",
            advice="train again: these weights cannot be used",
        )
    quality, logits = outputs
    logits = logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
    return quality.cpu().numpy(), logits.half().cpu().numpy()


def _is_finite(outputs: Outputs) -> bool:
    return all(bool(output.isfinite().all()) for output in outputs)


def _smaller(frames: int, device: torch.device) -> int:
    """Half of the frames for which memory was too small.

    Raises:
        NoMemoryError: it was one.
    """
    if frames == 1:
        raise NoMemoryError(
            expected=f"memory for one frame at a time on {device.type}",
            found="too little",
            advice="end what else uses it, or take a larger machine",
        )
    log.warning(
        "%s has too little memory for %d frames; trying %d", device.type, frames, frames // 2
    )
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return frames // 2


def full_size(prediction: StackPrediction, frame: int) -> np.ndarray:
    """One frame's mask logits at the frame's own size, (H, W) float32."""
    logits = torch.from_numpy(prediction.mask_logits[frame][None]).float()
    return from_grid(logits, FRAME_SHAPE)[0].numpy()
