"""Engines: what computes an ensemble's networks. Here PyTorch; OpenVINO has a file of its own.

All of them take frames on the network's grid and give the mean over the members. The weights of a
bundle are PyTorch's: another engine converts them when it is made.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from typing import NamedTuple, Protocol

import torch
from torch import nn
from torch.nn import functional

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
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Calls before a batch is recorded, as PyTorch's notes on CUDA graphs have them: in the first ones
# its libraries choose their kernels.
_REHEARSALS = 3
# What a recorded batch may differ by from one that is computed step by step: far more than another
# order of additions makes in half precision, far less than a batch that was mixed up.
_RECORDED_ALIKE = 0.05


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
            precision: what they are computed in, but for the quality head's last, decisive steps;
                auto: float16 on a GPU (a T4 has no bfloat16), float32 on a CPU. In float32 the
                caller's own autocast is left as it is.
        """
        self.members, self.mask_size = tuple(members), members[0].decoder.size
        self.precision: Precision = precision if precision != "auto" else self._usual_precision()
        # Weights that are still trained are cast in every layer; those of other architectures too,
        # as tests compare half weights on this project's own.
        self._is_settled = all(
            member.config.is_own and not any(p.requires_grad for p in member.parameters())
            for member in members
        )
        self._half: tuple[AbdomenNet, ...] = ()
        self._recorded: RecordedBatch | None = None
        self._may_record = True

    def _usual_precision(self) -> Precision:
        return "fp16" if self.device.type == "cuda" else "fp32"

    @property
    def device(self) -> torch.device:
        """Where the members are."""
        return next(self.members[0].parameters()).device

    def compute(self, grid: torch.Tensor, *, exact: bool = False) -> Outputs:
        """See `Engine`."""
        images = normalise(grid.to(self.device), self.members[0].config.intensity)
        if exact:
            with torch.autocast(self.device.type, enabled=False):
                return mean_output(self.members, images)
        is_recordable = self.device.type == "cuda" and len(images) <= self.batch_size
        if is_recordable and self._is_settled:
            return self._compute_recorded(images)
        return self._compute(images)

    def _compute(self, images: torch.Tensor) -> Outputs:
        """What `compute` gives for images (N, 3, S, S), step by step."""
        if self.precision == "fp32":
            return mean_output(self.members, images)
        dtype = _HALF[self.precision]
        if not self._is_settled:
            with torch.autocast(self.device.type, dtype):
                return mean_output(self.members, images)
        # Made here, where a memory that is too small for them is one that is too small for frames.
        self._half = self._half or tuple(with_half_weights(x, dtype) for x in self.members)
        return mean_output(self._half, images.to(dtype))

    def _compute_recorded(self, images: torch.Tensor) -> Outputs:
        """The same, by a recorded batch where that can be made and gives the same."""
        if self._may_record:
            self._may_record = False
            batch = functional.pad(images, (0, 0) * 3 + (0, self.batch_size - len(images)))
            try:
                recorded = RecordedBatch(self._compute, batch)
                if recorded.is_right(self._compute, batch):
                    self._recorded = recorded
            except RuntimeError as error:
                log.info("no batch can be recorded (%s)", _first_line(str(error)))
        return self._recorded(images) if self._recorded else self._compute(images)

    @contextmanager
    def on_cpu(self) -> Iterator[None]:
        """See `Engine`; afterwards the members are back, as the next stack may find a free GPU."""
        device, precision = self.device, self.precision
        try:
            self.precision, self._half, self._recorded = "fp32", (), None
            for member in self.members:
                member.cpu()
            torch.cuda.empty_cache()
            yield
        finally:
            self.precision = precision
            for member in self.members:
                member.to(device)


class RecordedBatch:
    """A batch whose kernels a GPU has recorded, and starts all at once: a CUDA graph.

    Started one by one they may take longer to start than to compute. All it needs lies where it lay
    when it was recorded: images are copied there, and outputs from there.
    """

    def __init__(self, compute: Callable[[torch.Tensor], Outputs], images: torch.Tensor) -> None:
        """Record what `compute` does with images; see PyTorch's notes on CUDA graphs.

        Raises:
            RuntimeError: something in it cannot be recorded, or memory is too small.
        """
        self._images = torch.zeros_like(images)
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_REHEARSALS):
                compute(self._images)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # Of a server, another thread may use the GPU meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._outputs = compute(self._images)

    def __call__(self, images: torch.Tensor) -> Outputs:
        """The outputs for as many images as were recorded, or fewer."""
        self._images[: len(images)].copy_(images)
        self._graph.replay()
        quality, mask_logits = (output[: len(images)].clone() for output in self._outputs)
        return Outputs(quality, mask_logits)

    def is_right(self, compute: Callable[[torch.Tensor], Outputs], images: torch.Tensor) -> bool:
        """Whether it gives of images, not those it was recorded with, what `compute` gives."""
        pairs = zip(self(images), compute(images), strict=True)
        return all(
            torch.allclose(found, expected, rtol=_RECORDED_ALIKE, atol=_RECORDED_ALIKE)
            for found, expected in pairs
        )


def with_half_weights(network: AbdomenNet, dtype: torch.dtype) -> AbdomenNet:
    """A copy of a network whose trunk and decoder have half the bytes, and compute in them.

    Norms' statistics and the quality head stay float32: a variance may exceed what float16 holds,
    and the head's last steps decide.

    Args:
        network: this project's own, on any device; it takes images of `dtype` afterwards.
        dtype: float16 or bfloat16.
    """
    half = deepcopy(network).to(dtype)
    half.quality_head.float()
    for module in half.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.float()
    return half


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
                # A GPU that this PyTorch has no code for fails at the first sum, one whose driver
                # does not fit its libraries at the first convolution or product.
                square = torch.ones(1, 1, 8, 8, device="cuda", dtype=torch.float16)
                (functional.conv2d(square, square[..., :1, :1]) @ square).sum().item()
                return None
        except RuntimeError as error:
            return _first_line(str(error))
    return _first_line(str(told[0].message)) if told else NO_GPU


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:200]
