"""The network over a stack's frames, in batches; black frames are left out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from acouslic.challenge import FRAME_SHAPE, Quality
from acouslic.errors import InputError
from acouslic.network import AbdomenNet
from acouslic.preprocess import from_grid, normalise

# Frames that go through the network at a time; set by hand. On a CPU 32 or more take a third more
# time a frame.
BATCH_SIZE = 16


@dataclass(frozen=True)
class StackPrediction:
    """What a network predicts for T frames; zeros on black ones."""

    quality: np.ndarray
    """(T, 3) float32, probabilities in the order of `Quality`."""
    mask_logits: np.ndarray
    """(T, G, G) float16, the abdomen's logits on the network's grid."""


def choose_device(name: str) -> torch.device:
    """The device of a name.

    Args:
        name: "cpu", "cuda", or "auto": a GPU where there is one, else the CPU.

    Raises:
        InputError: a GPU is asked for where there is none.
    """
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise InputError(
            expected="a GPU for --device cuda", found="none", advice="use --device auto or cpu"
        )
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


@torch.inference_mode()
def predict(
    members: Sequence[AbdomenNet],
    grid: torch.Tensor,
    tissue: np.ndarray,
    batch_size: int = BATCH_SIZE,
) -> StackPrediction:
    """Run an ensemble of one or more members over a stack.

    Mask logits and quality probabilities are averaged over the members. On a GPU the network runs
    in float16 (a T4 has no bfloat16), but for its last, decisive step; on a CPU in float32, unless
    the caller's autocast says otherwise.

    Args:
        members: networks in evaluation mode, on one device.
        grid: the tissue frames only, (tissue.sum(), S, S) uint8 from `preprocess.to_grid`.
        tissue: which of the stack's frames those are, (T,) bool.
        batch_size: frames at a time.

    Returns:
        The prediction for all frames of the stack.
    """
    size = members[0].decoder.size
    quality = np.zeros((len(tissue), len(Quality)), np.float32)
    mask_logits = np.zeros((len(tissue), size, size), np.float16)
    device = next(members[0].parameters()).device
    frames = np.flatnonzero(tissue)
    for start in range(0, len(frames), batch_size):
        images = normalise(grid[start : start + batch_size].to(device), members[0].config.intensity)
        with torch.autocast("cuda", torch.float16, enabled=device.type == "cuda"):
            outputs = [member(images) for member in members]
        batch = frames[start : start + batch_size]
        probabilities = torch.stack([output.quality_logits.softmax(dim=1) for output in outputs])
        logits = torch.stack([output.mask_logits[:, 0] for output in outputs])
        quality[batch] = probabilities.mean(dim=0).cpu().numpy()
        mask_logits[batch] = logits.mean(dim=0).half().cpu().numpy()
    return StackPrediction(quality, mask_logits)


def full_size(prediction: StackPrediction, frame: int) -> np.ndarray:
    """One frame's mask logits at the frame's own size, (H, W) float32."""
    logits = torch.from_numpy(prediction.mask_logits[frame][None]).float()
    return from_grid(logits, FRAME_SHAPE)[0].numpy()
