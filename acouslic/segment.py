"""The network over a stack's frames, in batches; black frames are not shown to it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from acouslic.network import QUALITY, AbdomenNet
from acouslic.preprocess import normalise


@dataclass(frozen=True)
class StackPrediction:
    """What the network says of T frames; zeros on black ones.

    quality: (T, 3) float32, probabilities in the order of `network.QUALITY`.
    mask_logits: (T, G, G) float16, the abdomen's logits on the network's grid.
    """

    quality: np.ndarray
    mask_logits: np.ndarray


@torch.inference_mode()
def predict(
    members: Sequence[AbdomenNet], grid: torch.Tensor, tissue: np.ndarray, batch_size: int = 16
) -> StackPrediction:
    """Run an ensemble of one or more members over a stack.

    `grid` holds the tissue frames only, (tissue.sum(), S, S) uint8 from `preprocess.to_grid`;
    `tissue` is (T,) bool. Mask logits and quality probabilities are averaged over the members. On a
    GPU the network runs in float16 (a T4 has no bfloat16), but for its last, decisive step; on a
    CPU in float32, unless the caller's autocast says otherwise.
    """
    size = members[0].decoder.size
    quality = np.zeros((len(tissue), len(QUALITY)), np.float32)
    mask_logits = np.zeros((len(tissue), size, size), np.float16)
    device = next(members[0].parameters()).device
    frames = np.flatnonzero(tissue)
    for start in range(0, len(frames), batch_size):
        images = normalise(grid[start : start + batch_size].to(device))
        with torch.autocast("cuda", torch.float16, enabled=device.type == "cuda"):
            outputs = [member(images) for member in members]
        batch = frames[start : start + batch_size]
        probabilities = torch.stack([output.quality_logits.softmax(dim=1) for output in outputs])
        logits = torch.stack([output.mask_logits[:, 0] for output in outputs])
        quality[batch] = probabilities.mean(dim=0).cpu().numpy()
        mask_logits[batch] = logits.mean(dim=0).half().cpu().numpy()
    return StackPrediction(quality, mask_logits)
