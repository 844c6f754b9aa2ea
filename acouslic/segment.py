"""The network over a stack's frames, in batches; black frames are left out.

What does not fit into memory is tried again with half the frames, down to one, and then on the CPU
where the caller allows it. What is not finite is computed again in float32, and refused if it stays
so.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from acouslic.challenge import FRAME_SHAPE, Quality
from acouslic.errors import BundleError, InputError, OddStackError
from acouslic.network import AbdomenNet
from acouslic.preprocess import from_grid, normalise

# Frames that go through the network at a time; set by hand. On a CPU 32 or more take a third more
# time a frame.
BATCH_SIZE = 16
# The largest number that float16 holds.
LARGEST_LOGIT = float(np.finfo(np.float16).max)
NO_GPU = "none"
# What PyTorch and its libraries say, besides MemoryError and OutOfMemoryError.
NO_MEMORY = ("out of memory", "not enough memory", "allocate memory", "_ALLOC_FAILED")
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


def choose_device(name: str) -> torch.device:
    """The device of a name.

    Args:
        name: "cpu", "cuda", or "auto": a GPU where there is one that computes, else the CPU.

    Raises:
        InputError: a GPU is asked for where there is none, or none that computes.
    """
    if name == "cpu":
        return torch.device("cpu")
    problem = _gpu_problem()
    if problem is None:
        return torch.device("cuda")
    if name == "cuda":
        raise InputError(
            expected="a GPU for --device cuda", found=problem, advice="use --device auto or cpu"
        )
    if problem != NO_GPU:
        log.warning("the GPU cannot be used (%s); the CPU computes, which is slower", problem)
    return torch.device("cpu")


def _gpu_problem() -> str | None:
    """Why no GPU computes here, in one line: a driver that is too old, for example."""
    with warnings.catch_warnings(record=True) as told:
        # PyTorch warns of an old driver, and then says that there is no GPU.
        warnings.simplefilter("always")
        try:
            if torch.cuda.is_available():
                # A GPU that this PyTorch has no code for fails at the first sum.
                (torch.ones(1, device="cuda") + 1).item()
                return None
        except RuntimeError as error:
            return _first_line(str(error))
    return _first_line(str(told[0].message)) if told else NO_GPU


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:200]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, the machine's or a GPU's, is too small."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)


def predict(
    members: Sequence[AbdomenNet],
    grid: torch.Tensor,
    tissue: np.ndarray,
    batch_size: int = BATCH_SIZE,
    *,
    cpu_too: bool = False,
) -> StackPrediction:
    """Run an ensemble of one or more members over a stack.

    Mask logits and quality probabilities are averaged over the members. On a GPU the network runs
    in float16 (a T4 has no bfloat16), but for its last, decisive step; on a CPU in float32, unless
    the caller's autocast says otherwise.

    Args:
        members: networks in evaluation mode, on one device.
        grid: the tissue frames only, (tissue.sum(), S, S) uint8 from `preprocess.to_grid`.
        tissue: which of the stack's frames those are, (T,) bool.
        batch_size: frames at a time, at most.
        cpu_too: whether the CPU takes over where a GPU has no memory for a single frame.

    Returns:
        The prediction for all frames of the stack.

    Raises:
        BundleError: the networks say what is no number.
        NoMemoryError: the memory is too small for a single frame.
    """
    try:
        return _predict(members, grid, tissue, batch_size)
    except NoMemoryError as error:
        if not cpu_too or _device_of(members).type == "cpu":
            raise
        log.warning("%s; the CPU computes, which is slower", error)
    with _on_cpu(members):
        return _predict(members, grid, tissue, batch_size)


@torch.inference_mode()
def _predict(
    members: Sequence[AbdomenNet], grid: torch.Tensor, tissue: np.ndarray, batch_size: int
) -> StackPrediction:
    size = members[0].decoder.size
    quality = np.zeros((len(tissue), len(Quality)), np.float32)
    mask_logits = np.zeros((len(tissue), size, size), np.float16)
    frames = np.flatnonzero(tissue)
    start = 0
    while start < len(frames):
        batch = frames[start : start + batch_size]
        outputs = _try_batch(members, grid[start : start + batch_size])
        if outputs is None:
            batch_size = _smaller(len(batch), _device_of(members))
            continue
        quality[batch], mask_logits[batch] = outputs
        start += len(batch)
    return StackPrediction(quality, mask_logits)


def _try_batch(
    members: Sequence[AbdomenNet], grid: torch.Tensor
) -> tuple[np.ndarray, np.ndarray] | None:
    """Qualities and mask logits of some frames; None where memory is too small for them."""
    try:
        device = _device_of(members)
        outputs = _mean_output(members, grid, half=device.type == "cuda")
        if not _is_finite(outputs):
            with torch.autocast(device.type, enabled=False):
                outputs = _mean_output(members, grid, half=False)
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


def _mean_output(
    members: Sequence[AbdomenNet], grid: torch.Tensor, *, half: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The members' mean probabilities (N, 3) and mask logits (N, G, G), float32."""
    images = normalise(grid.to(_device_of(members)), members[0].config.intensity)
    with torch.autocast("cuda", torch.float16, enabled=half):
        outputs = [member(images) for member in members]
    probabilities = torch.stack([output.quality_logits.softmax(dim=1) for output in outputs])
    logits = torch.stack([output.mask_logits[:, 0] for output in outputs])
    return probabilities.mean(dim=0), logits.mean(dim=0)


def _is_finite(outputs: tuple[torch.Tensor, torch.Tensor]) -> bool:
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


def _device_of(members: Sequence[AbdomenNet]) -> torch.device:
    return next(members[0].parameters()).device


@contextmanager
def _on_cpu(members: Sequence[AbdomenNet]) -> Iterator[None]:
    """Have the networks on the CPU while the block runs; the next stack may find a free GPU."""
    device = _device_of(members)
    try:
        for member in members:
            member.cpu()
        torch.cuda.empty_cache()
        yield
    finally:
        for member in members:
            member.to(device)


def full_size(prediction: StackPrediction, frame: int) -> np.ndarray:
    """One frame's mask logits at the frame's own size, (H, W) float32."""
    logits = torch.from_numpy(prediction.mask_logits[frame][None]).float()
    return from_grid(logits, FRAME_SHAPE)[0].numpy()
