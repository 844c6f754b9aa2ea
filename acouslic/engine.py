"""Engines: what computes an ensemble's networks. Here PyTorch; OpenVINO has a file of its own.

All of them take frames on the network's grid and give the mean over the members. The weights of a
bundle are PyTorch's: another engine converts them when it is made.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple, Protocol

import torch

from acouslic.engine_names import EngineName, Precision, PrecisionName
from acouslic.errors import InputError
from acouslic.network import AbdomenNet
from acouslic.preprocess import normalise

NO_GPU = "none"
# What PyTorch and its libraries say, besides MemoryError and OutOfMemoryError.
NO_MEMORY = ("out of memory", "not enough memory", "allocate memory", "_ALLOC_FAILED", "bad_alloc")
# Frames that go through PyTorch's networks at a time; set by hand. On a CPU 32 or more take a third
# more time a frame.
TORCH_BATCH = 16
log = logging.getLogger(__name__)
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Outputs(NamedTuple):
    """The members' mean for N frames; G is the side of the network's masks."""

    quality: torch.Tensor
    """(N, 3) float32, probabilities in the order of `Quality`."""
    mask_logits: torch.Tensor
    """(N, G, G) float32."""


class Engine(Protocol):
    """Computes the networks of an ensemble."""

    @property
    def name(self) -> EngineName:
        """What --engine calls it."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def precision(self) -> Precision:
        """In which numbers it computes."""

    @property
    def mask_size(self) -> int:
        """G, the side of the masks."""

    @property
    def batch_size(self) -> int:
        """So many frames at a time suit it best."""

    def compute(self, grid: torch.Tensor, *, exact: bool = False) -> Outputs:
        """The members' mean for frames (N, S, S) uint8; `exact` asks for float32."""

    def on_cpu(self) -> AbstractContextManager[None]:
        """Have it compute on the CPU while the block runs."""


class TorchEngine:
    """PyTorch, on a CPU or a GPU."""

    name: EngineName = "torch"
    batch_size = TORCH_BATCH

    def __init__(self, members: Sequence[AbdomenNet], precision: PrecisionName = "auto") -> None:
        """Take an ensemble.

        Args:
            members: networks in evaluation mode, on one device.
            precision: what PyTorch casts to, but for the last, decisive step; auto: float16 on a
                GPU (a T4 has no bfloat16), float32 on a CPU. In float32 the caller's own autocast
                is left as it is.
        """
        self.members, self.mask_size = tuple(members), members[0].decoder.size
        self.precision: Precision = precision if precision != "auto" else self._usual_precision()

    def _usual_precision(self) -> Precision:
        return "fp16" if self.device.type == "cuda" else "fp32"

    @property
    def device(self) -> torch.device:
        """Where the members are."""
        return next(self.members[0].parameters()).device

    def compute(self, grid: torch.Tensor, *, exact: bool = False) -> Outputs:
        """See `Engine`."""
        images = normalise(grid.to(self.device), self.members[0].config.intensity)
        with self._casts(exact=exact):
            return mean_output(self.members, images)

    def _casts(self, *, exact: bool) -> AbstractContextManager[object]:
        if exact:
            return torch.autocast(self.device.type, enabled=False)
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, _AUTOCAST[self.precision])

    @contextmanager
    def on_cpu(self) -> Iterator[None]:
        """See `Engine`; afterwards the members are back, as the next stack may find a free GPU."""
        device, precision = self.device, self.precision
        try:
            self.precision = "fp32"
            for member in self.members:
                member.cpu()
            torch.cuda.empty_cache()
            yield
        finally:
            self.precision = precision
            for member in self.members:
                member.to(device)


def mean_output(members: Sequence[AbdomenNet], images: torch.Tensor) -> Outputs:
    """The members' mean probabilities and mask logits for images (N, 3, S, S)."""
    outputs = [member(images) for member in members]
    probabilities = torch.stack([output.quality_logits.softmax(dim=1) for output in outputs])
    logits = torch.stack([output.mask_logits[:, 0] for output in outputs])
    return Outputs(probabilities.mean(dim=0), logits.mean(dim=0))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, the machine's or a GPU's, is too small."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)


def choose_device(name: str, engine: EngineName = "auto") -> torch.device:
    """The device of a name.

    Args:
        name: "cpu", "cuda", or "auto": a GPU where there is one that computes, else the CPU.
        engine: what shall compute there; OpenVINO makes a CPU of "auto".

    Raises:
        InputError: a GPU is asked for where there is none, or none that computes.
    """
    if name == "cpu" or (name == "auto" and engine == "openvino"):
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
