"""PyTorch and OpenVINO give the same answer; who computes is chosen as the options say."""

import importlib.metadata
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY

from acouslic import bundle as bundles
from acouslic import openvino_engine
from acouslic.bundle import load_bundle, with_engine
from acouslic.challenge import SPACING_MM
from acouslic.command import DEMO_BUNDLE
from acouslic.engine import Outputs, TorchEngine, choose_device, with_half_weights
from acouslic.engine_names import Precision
from acouslic.errors import InputError
from acouslic.metaimage import Geometry
from acouslic.network import AbdomenNet, NetworkConfig, TrunkConfig
from acouslic.openvino_engine import OpenVinoEngine
from acouslic.pipeline import measure
from acouslic.preprocess import normalise, to_grid
from acouslic.segment import predict
from acouslic.stack import Stack
from acouslic.stopping import Stopped, signals_raise

# Both compute in float32, and add in another order.
QUALITY, LOGIT = 1e-5, 2e-3
# In half precision, on logits up to 2; measured: 1.1e-3 and 0.36 in bf16, 1.4e-4 and 0.05 in fp16.
HALF: dict[Precision, tuple[float, float]] = {"bf16": (5e-3, 0.7), "fp16": (1e-3, 0.1)}


def test_both_engines_predict_the_same_of_an_ensemble_in_batches_of_any_size(
    tiny_bundle: Path, frames: np.ndarray
) -> None:
    (network,) = load_bundle(tiny_bundle).members
    other = load_bundle(tiny_bundle).members[0]
    other.get_parameter("quality_head.logits.bias").add_(torch.tensor([0.0, 0.5, 1.0]))
    grid, tissue = to_grid(frames[::2], 32), np.array([True, False] * 6)
    expected = predict(TorchEngine([network, other]), grid, tissue)
    engine = OpenVinoEngine([network, other], "fp32")
    for batch_size in (1, 4, 6):
        found = predict(engine, grid, tissue, batch_size)
        assert np.allclose(found.quality, expected.quality, atol=QUALITY)
        assert np.allclose(found.mask_logits, expected.mask_logits, atol=1e-2)


def test_both_engines_give_the_same_answer(tiny_bundle: Path, frames: np.ndarray) -> None:
    stack = Stack("case", frames, Geometry.plain(SPACING_MM))
    torch_bundle = load_bundle(tiny_bundle)
    expected = measure(stack, torch_bundle)
    found = measure(stack, with_engine(torch_bundle, "openvino", "fp32"))
    assert found.frame == expected.frame
    assert np.array_equal(found.mask, expected.mask)
    assert found.ac_mm == pytest.approx(expected.ac_mm, rel=1e-4)
    assert np.allclose(found.frame_scores, expected.frame_scores, atol=QUALITY)


VIT_L = NetworkConfig(
    TrunkConfig(224, 14, 1024, 24, 768), decoder_width=8, patches="registers", norms="by-source"
)
CONFIGS = {
    "fan": TINY,
    "all": replace(TINY, patches="all"),
    "registers": replace(TINY, patches="registers", norms="by-source"),
    "ViT-L": VIT_L,
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_both_engines_agree_whatever_goes_through_the_trunk(
    config: NetworkConfig, frames: np.ndarray
) -> None:
    torch.manual_seed(0)
    network = AbdomenNet(config).eval().requires_grad_(False)
    grid = to_grid(frames[:1], config.trunk.image_size)
    with torch.inference_mode():
        expected = TorchEngine([network]).compute(grid)
    found = OpenVinoEngine([network], "fp32").compute(grid)
    assert torch.allclose(found.quality, expected.quality, atol=QUALITY)
    assert torch.allclose(found.mask_logits, expected.mask_logits, atol=LOGIT)


@pytest.mark.parametrize("is_trained", [True, False], ids=["cast in each layer", "half weights"])
@pytest.mark.parametrize("precision", HALF)
def test_half_precision_is_near_float32(
    tiny_bundle: Path, frames: np.ndarray, precision: Precision, *, is_trained: bool
) -> None:
    """On a CPU, which computes half precision as a GPU does, but slowly."""
    members, grid = load_bundle(tiny_bundle).members, to_grid(frames[::2], 32)
    members[0].requires_grad_(is_trained)
    with torch.inference_mode():
        expected = TorchEngine(members).compute(grid)
        engine = TorchEngine(members, precision)
        found = engine.compute(grid)
    assert bool(engine._half) != is_trained
    assert not torch.equal(found.mask_logits, expected.mask_logits)
    quality, logit = HALF[precision]
    assert torch.allclose(found.quality, expected.quality, atol=quality)
    assert torch.allclose(found.mask_logits, expected.mask_logits, atol=logit)


def test_half_weights_leave_statistics_and_head_in_float32(tiny_bundle: Path) -> None:
    (network,) = load_bundle(tiny_bundle).members
    half = with_half_weights(network, torch.float16)
    kept = {name for name, tensor in half.state_dict().items() if tensor.dtype == torch.float32}
    assert {name.partition(".")[0] for name in kept} == {"decoder", "quality_head"}
    assert {name for name in half.state_dict() if name.endswith("running_var")} <= kept
    assert "decoder.logit.1.weight" not in kept
    assert all(tensor.dtype != torch.float16 for tensor in network.state_dict().values())


# ---- a recorded batch: a GPU's, whose part a CPU plays


@contextmanager
def played_gpu(monkeypatch: pytest.MonkeyPatch, engine: TorchEngine) -> Iterator[list[Any]]:
    """CUDA's graphs, which compute anew what they recorded; gives the batches that were played."""
    plain, computed, played = engine._compute, [], []

    def compute(images: torch.Tensor) -> Outputs:
        computed.append((images, plain(images)))
        return computed[-1][1]

    class Graph:
        images: torch.Tensor
        outputs: Outputs

        def replay(self) -> None:
            played.append(self.images.clone())
            for kept, new in zip(self.outputs, plain(self.images), strict=True):
                kept.copy_(new)

    @contextmanager
    def record(graph: Graph, capture_error_mode: str) -> Iterator[None]:
        yield
        graph.images, graph.outputs = computed[-1]

    stream = SimpleNamespace(wait_stream=lambda _other: None)
    monkeypatch.setattr(engine, "_compute", compute)
    for name, fake in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": nullcontext,
        "CUDAGraph": Graph,
        "graph": record,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    with torch.inference_mode():
        yield played


def test_a_batch_is_recorded_once_and_the_last_one_is_filled_up(
    tiny_bundle: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchEngine(load_bundle(tiny_bundle).members, "fp16")
    images = normalise(to_grid(frames[::2], 32), engine.members[0].config.intensity)
    with torch.inference_mode():
        expected = engine._compute(images)
    engine.batch_size = 4
    with played_gpu(monkeypatch, engine) as played:
        first, last = engine._compute_recorded(images[:4]), engine._compute_recorded(images[4:])
    assert [len(batch) for batch in played] == [4, 4, 4]
    for output, parts in zip(expected, zip(first, last, strict=True), strict=True):
        assert torch.allclose(torch.cat(parts), output, atol=HALF["fp16"][1])


def test_what_cannot_be_recorded_is_computed_step_by_step(
    tiny_bundle: Path,
    frames: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    engine = TorchEngine(load_bundle(tiny_bundle).members)
    images = normalise(to_grid(frames[::2], 32), engine.members[0].config.intensity)
    expected = engine._compute(images)
    with played_gpu(monkeypatch, engine) as played:

        def refuse(_graph: object, capture_error_mode: str) -> Any:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

        monkeypatch.setattr(torch.cuda, "graph", refuse)
        found = [engine._compute_recorded(images) for _ in range(2)]
    assert not played
    assert all(torch.equal(output.mask_logits, expected.mask_logits) for output in found)
    (record,) = caplog.records
    assert record.message.endswith("(operation not permitted when stream is capturing)")


def test_a_recorded_batch_that_answers_otherwise_is_not_used(
    tiny_bundle: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one would that keeps answering for the images it was recorded with."""
    engine = TorchEngine(load_bundle(tiny_bundle).members)
    images = normalise(to_grid(frames[::2], 32), engine.members[0].config.intensity)
    expected = engine._compute(images)
    with played_gpu(monkeypatch, engine) as played:
        monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda _graph: played.append("deaf"))
        found = [engine._compute_recorded(images) for _ in range(2)]
    assert played == ["deaf"]
    assert all(torch.equal(output.mask_logits, expected.mask_logits) for output in found)


def test_openvino_without_memory_gets_half_the_frames(
    tiny_bundle: Path, frames: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    engine = OpenVinoEngine(load_bundle(tiny_bundle).members)
    grid, tissue = to_grid(frames[::2], 32), np.array([True, False] * 6)
    expected = predict(engine, grid, tissue)
    request, sizes = engine._request, []

    class Small:
        def infer(self, images: list[np.ndarray], **options: object) -> Any:
            sizes.append(len(images[0]))
            if len(images[0]) > 3:
                raise RuntimeError("Exception from src/plugins/intel_cpu: std::bad_alloc")
            return request.infer(images, **options)

    engine._request = Small()
    found = predict(engine, grid, tissue)
    assert sizes == [4, 2, 2, 2]
    assert np.allclose(found.quality, expected.quality, atol=QUALITY)
    assert "too little memory for 4 frames; trying 2" in caplog.text


def test_openvino_leaves_the_choice_of_a_core_to_the_machine(
    tiny_bundle: Path, frames: np.ndarray
) -> None:
    """Else one worker of two would wait for the other, as both would take the first core."""
    engine = OpenVinoEngine(load_bundle(tiny_bundle).members)
    grid, found = to_grid(frames, 32), set()
    computing = threading.Thread(target=lambda: [engine.compute(grid) for _ in range(50)])
    computing.start()
    while computing.is_alive():
        with suppress(ProcessLookupError):  # a thread that ended after it was listed
            for thread in Path("/proc/self/task").iterdir():
                found.add(frozenset(os.sched_getaffinity(int(thread.name))))
    assert found == {frozenset(os.sched_getaffinity(0))}


# ---- which engine


def hide_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "find_spec", lambda _name: None)


def test_a_cpu_takes_openvino_where_it_is_installed(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(tiny_bundle)
    assert bundle.engine.name == "torch"
    converted = with_engine(bundle)
    assert (converted.engine.name, converted.members) == ("openvino", ())
    assert with_engine(bundle, "torch").engine.name == "torch"
    hide_openvino(monkeypatch)
    assert with_engine(bundle).engine.name == "torch"
    with pytest.raises(InputError, match="OpenVINO not installed; use --engine auto or torch"):
        with_engine(bundle, "openvino")


def test_openvino_computes_on_no_gpu(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("auto", "openvino").type == "cpu"
    bundle = load_bundle(tiny_bundle)
    monkeypatch.setattr(TorchEngine, "device", torch.device("cuda"))
    assert with_engine(bundle).engine.precision == "fp16"
    with pytest.raises(InputError, match="a CPU"):
        with_engine(bundle, "openvino")


def test_a_precision_that_the_processor_lacks_is_refused() -> None:
    assert openvino_engine._chosen("auto", ["FP32", "BF16"]) == "fp32"
    assert openvino_engine._chosen("bf16", ["FP32", "BF16"]) == "bf16"
    with pytest.raises(InputError, match="computes in fp16; found one with BF16, FP32"):
        openvino_engine._chosen("fp16", ["FP32", "BF16"])


def test_a_signal_while_openvino_converts_is_not_lost(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino_engine._openvino()  # else this import would be the first, and load what tells its use
    from openvino.frontend.pytorch import ts_decoder

    get_value = ts_decoder.get_value_from_getattr
    calls: list[int] = []

    def get_value_and_stop(*arguments: Any) -> object:
        if not calls:
            os.kill(os.getpid(), signal.SIGINT)
        calls.append(1)
        return get_value(*arguments)

    # One of the functions in which OpenVINO loses what is raised.
    monkeypatch.setattr(ts_decoder, "get_value_from_getattr", get_value_and_stop)
    with pytest.raises(Stopped) as stopped, signals_raise(60, "too late"):
        OpenVinoEngine(load_bundle(tiny_bundle).members)
    assert calls
    assert stopped.value.code == 128 + signal.SIGINT


def test_openvino_tells_nobody_that_it_is_used(tiny_bundle: Path) -> None:
    """Its maker's package for that is installed here, as it depends on it, and is not loaded."""
    with_engine(load_bundle(tiny_bundle), "openvino")
    assert importlib.metadata.version("openvino-telemetry")
    assert sys.modules["openvino_telemetry"] is None


def test_a_start_imports_only_what_it_needs() -> None:
    code = f"""
import sys
from acouslic.bundle import load_bundle, with_engine
import acouslic.case
with_engine(load_bundle({str(DEMO_BUNDLE)!r}))
heavy = ("transformers", "torchvision", "timm", "peft", "open_clip", "torch._dynamo", "sympy")
print([name for name in heavy if name in sys.modules])
import open_clip, torchvision  # the whole packages can be imported afterwards, and share classes
from acouslic.network import VisionTransformer
from open_clip.transformer import VisionTransformer as theirs
print(VisionTransformer is theirs)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines() == ["[]", "True"], result.stderr
