import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from acouslic import command, engine
from acouslic.command import Compute
from acouslic.engine import Outputs, TorchEngine, choose_device, mean_output
from acouslic.errors import BundleError, InputError
from acouslic.network import AbdomenNet
from acouslic.preprocess import normalise, to_grid
from acouslic.segment import NoMemoryError, predict


def test_batched_equals_single_and_black_frames_stay_zero(
    tiny_network: AbdomenNet, frames: np.ndarray
) -> None:
    tissue = np.array([True, False] * 6)
    grid = to_grid(frames[tissue], 32)
    network = tiny_network.eval()
    together = predict(TorchEngine([network]), grid, tissue, batch_size=4)
    alone = predict(TorchEngine([network]), grid, tissue, batch_size=1)
    assert together.quality.shape == (12, 3)
    assert together.mask_logits.shape == (12, 32, 32)
    assert np.allclose(together.quality, alone.quality, atol=1e-5)
    assert np.allclose(together.mask_logits, alone.mask_logits, atol=1e-2)
    assert np.allclose(together.quality[tissue].sum(axis=1), 1, atol=1e-5)
    assert not together.quality[~tissue].any()
    assert not together.mask_logits[~tissue].any()


def test_an_ensemble_is_the_mean_of_its_members(
    tiny_network: AbdomenNet, frames: np.ndarray
) -> None:
    tissue = np.array([True, False] * 6)
    grid = to_grid(frames[tissue], 32)
    network = tiny_network.eval()
    other = type(network)(network.config).eval()
    first, second = (
        predict(TorchEngine([member]), grid, tissue).quality for member in (network, other)
    )
    both = predict(TorchEngine([network, other]), grid, tissue).quality
    assert np.allclose(both, (first + second) / 2, atol=1e-6)
    assert not np.allclose(first, second, atol=1e-3)


def test_a_stack_is_predicted_the_same_every_time(
    tiny_network: AbdomenNet, frames: np.ndarray
) -> None:
    tissue = np.array([True, False] * 6)
    grid = to_grid(frames[tissue], 32)
    results = [predict(TorchEngine([tiny_network.eval()]), grid, tissue) for _ in range(2)]
    assert np.array_equal(results[0].mask_logits, results[1].mask_logits)
    assert torch.equal(grid, to_grid(frames[tissue], 32))


# ---- memory that is too small, and what is no number


def spoilt(network: AbdomenNet, spoil: Callable[[torch.Tensor], None]) -> AbdomenNet:
    """The network, which calls `spoil` with each batch of images before it computes."""
    network.eval().register_forward_pre_hook(lambda _module, images: spoil(images[0]))
    return network


OUT_OF_MEMORY = {
    "GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nmore"),
    "library": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    "CPU": RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory"),
    "Python": MemoryError(),
}


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
@pytest.mark.parametrize("fits", [3, 1])
def test_what_does_not_fit_into_memory_is_tried_with_half_the_frames(
    tiny_network: AbdomenNet,
    frames: np.ndarray,
    error: Exception,
    fits: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tissue = np.array([True, False] * 6)
    grid = to_grid(frames[tissue], 32)
    sizes = []

    def refuse(images: torch.Tensor) -> None:
        sizes.append(len(images))
        if len(images) > fits:
            raise error

    expected = predict(TorchEngine([tiny_network.eval()]), grid, tissue)
    found = predict(TorchEngine([spoilt(tiny_network, refuse)]), grid, tissue)
    assert sizes == ([6, 3, 3] if fits == 3 else [6, 3, *[1] * 6])
    assert np.allclose(found.quality, expected.quality, atol=1e-5)
    assert np.allclose(found.mask_logits, expected.mask_logits, atol=1e-2)
    assert "cpu has too little memory for 6 frames; trying 3" in caplog.text


def test_memory_that_is_too_small_for_one_frame_is_one_error(
    tiny_network: AbdomenNet, frames: np.ndarray
) -> None:
    def refuse(_images: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    tissue = np.array([True, False] * 6)
    grid = to_grid(frames[tissue], 32)
    with pytest.raises(NoMemoryError, match="memory for one frame at a time on cpu; found too"):
        predict(TorchEngine([spoilt(tiny_network, refuse)]), grid, tissue, cpu_too=True)


def test_the_cpu_takes_over_where_the_gpu_has_no_memory_for_one_frame(
    tiny_network: AbdomenNet,
    frames: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The GPU is one in name: its networks compute on the CPU, and fail until they are moved."""
    tissue = np.array([True, False] * 6)
    grid = to_grid(frames[tissue], 32)
    expected = predict(TorchEngine([tiny_network.eval()]), grid, tissue)
    moves: list[str] = ["cuda"]

    class Gpu(TorchEngine):
        @property
        def device(self) -> torch.device:
            return torch.device(moves[-1])

        def compute(self, grid: torch.Tensor, *, exact: bool = False) -> Outputs:
            if moves[-1] == "cuda":
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return mean_output(self.members, normalise(grid, self.members[0].config.intensity))

    def move(network: AbdomenNet, device: object = "cpu") -> AbdomenNet:
        moves.append(str(device))
        return network

    monkeypatch.setattr(AbdomenNet, "cpu", move)
    monkeypatch.setattr(AbdomenNet, "to", move)
    gpu = Gpu([tiny_network])
    with pytest.raises(NoMemoryError, match="on cuda"):
        predict(gpu, grid, tissue)
    found = predict(gpu, grid, tissue, cpu_too=True)
    assert moves == ["cuda", "cpu", "cuda"], "the next stack tries the GPU again"
    assert gpu.precision == "fp16"
    assert np.array_equal(found.mask_logits, expected.mask_logits)
    assert "the CPU computes, which is slower" in caplog.text


def test_another_error_of_the_network_stays_what_it_is(
    tiny_network: AbdomenNet, frames: np.ndarray
) -> None:
    def fail(_images: torch.Tensor) -> None:
        raise RuntimeError("a bug")

    tissue = np.array([True, False] * 6)
    with pytest.raises(RuntimeError, match="a bug"):
        predict(TorchEngine([spoilt(tiny_network, fail)]), to_grid(frames[tissue], 32), tissue)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name", ["decoder.logit.1.bias", "quality_head.logits.bias", "trunk.positional_embedding"]
)
def test_a_network_that_says_what_is_no_number_is_refused_in_one_line(
    tiny_network: AbdomenNet, frames: np.ndarray, name: str, number: float
) -> None:
    with torch.no_grad():
        tiny_network.get_parameter(name).view(-1)[0] = number
    tissue = np.array([True, False] * 6)
    with pytest.raises(BundleError, match="numbers from the network; found some") as refused:
        predict(TorchEngine([tiny_network.eval()]), to_grid(frames[tissue], 32), tissue)
    assert "\n" not in str(refused.value)


def test_what_half_precision_makes_infinite_is_computed_again_in_full(
    tiny_network: AbdomenNet, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    tissue = np.array([True, False] * 6)
    grid = to_grid(frames[tissue], 32)
    expected = predict(TorchEngine([tiny_network.eval()]), grid, tissue)
    exactly = []

    class Overflowing(TorchEngine):
        def compute(self, grid: torch.Tensor, *, exact: bool = False) -> Outputs:
            exactly.append(exact)
            quality, logits = super().compute(grid, exact=exact)
            return Outputs(quality, logits if exact else logits * float("nan"))

    found = predict(Overflowing([tiny_network], "fp16"), grid, tissue)
    assert exactly == [False, True]
    assert np.array_equal(found.mask_logits, expected.mask_logits)


@pytest.mark.parametrize("is_trained", [True, False], ids=["cast in each layer", "half weights"])
def test_float16_overflows_where_float32_does_not(
    tiny_network: AbdomenNet, frames: np.ndarray, *, is_trained: bool
) -> None:
    """A real overflow: a block adds more than 65,504, and the norm behind it makes it small."""
    tiny_network.requires_grad_(is_trained)
    tissue = np.array([True, False] * 6)
    grid = to_grid(frames[tissue], 32)
    with torch.no_grad():
        tiny_network.get_parameter("trunk.transformer.resblocks.0.mlp.c_proj.bias").fill_(6e4)
        tiny_network.get_parameter("trunk.transformer.resblocks.1.mlp.c_proj.bias").fill_(6e4)
    expected = predict(TorchEngine([tiny_network.eval()]), grid, tissue)
    half = TorchEngine([tiny_network], "fp16")
    assert not half.compute(grid).quality.isfinite().all()
    found = predict(half, grid, tissue)
    assert np.array_equal(found.quality, expected.quality)


def test_a_logit_that_float16_cannot_hold_is_its_largest(
    tiny_network: AbdomenNet, frames: np.ndarray
) -> None:
    with torch.no_grad():
        tiny_network.get_parameter("decoder.logit.1.bias").fill_(1e6)
    tissue = np.array([True, False] * 6)
    found = predict(TorchEngine([tiny_network.eval()]), to_grid(frames[tissue], 32), tissue)
    assert (found.mask_logits[tissue] == 65504).all()


# ---- the device


def fake_gpu(
    monkeypatch: pytest.MonkeyPatch, *, available: bool, warning: str = "", error: str = ""
) -> None:
    """A CUDA that says so, and that computes on the CPU unless there is an error."""

    def is_available() -> bool:
        if warning:
            warnings.warn(warning, UserWarning, stacklevel=2)
        return available

    def ones(*size: int, device: str, dtype: torch.dtype) -> torch.Tensor:
        if error:
            raise RuntimeError(error)
        return torch.zeros(size, dtype=dtype)

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(torch, "ones", ones)


OLD_DRIVER = "CUDA initialization: The NVIDIA driver on your system is too old (found 11040)"
BROKEN = {
    "old driver": {"available": False, "warning": OLD_DRIVER},
    "old driver, told by an error": {"available": True, "error": f"{OLD_DRIVER}.\nPlease update"},
    "no code for it": {"available": True, "error": "CUDA error: no kernel image is available"},
    "no memory at all": {"available": True, "error": "CUDA error: out of memory"},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_gpu_that_does_not_compute_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: dict[str, Any]
) -> None:
    fake_gpu(monkeypatch, **broken)
    assert choose_device("cpu").type == "cpu"
    assert caplog.text == ""
    assert choose_device("auto").type == "cpu"
    (record,) = caplog.records
    assert "the CPU computes, which is slower" in record.message and "\n" not in record.message
    assert (broken.get("warning") or broken["error"]).partition("\n")[0] in record.message
    with pytest.raises(InputError, match="--device auto or cpu"):
        choose_device("cuda")


def test_a_gpu_whose_libraries_do_not_fit_its_driver_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its sums work; the first convolution fails."""

    def fail(*_operands: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED\nmore")

    fake_gpu(monkeypatch, available=True)
    monkeypatch.setattr(functional, "conv2d", fail)
    assert choose_device("auto").type == "cpu"
    assert "(cuDNN error: CUDNN_STATUS_NOT_INITIALIZED); the CPU computes" in caplog.text


def test_a_gpu_that_computes_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch, available=True)
    assert choose_device("auto").type == choose_device("cuda").type == "cuda"


def test_without_a_gpu_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_gpu(monkeypatch, available=False)
    assert choose_device("auto").type == "cpu"
    assert caplog.text == ""


def test_weights_that_do_not_fit_into_the_gpu_go_to_the_cpu(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "choose_device", lambda *_names: torch.device("cuda"))
    move = AbdomenNet.to

    def full(network: AbdomenNet, device: torch.device) -> AbdomenNet:
        """As a GPU does that other processes fill."""
        if device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return move(network, device)

    monkeypatch.setattr(AbdomenNet, "to", full)
    bundle = command.load(tiny_bundle, Compute("auto"), sweep_prior="calibrated")
    assert bundle.engine.device.type == "cpu"
    assert "too little memory for the weights" in caplog.text
    with pytest.raises(InputError, match="memory for the weights on the GPU"):
        command.load(tiny_bundle, Compute("cuda"), sweep_prior="calibrated")
