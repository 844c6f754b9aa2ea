"""OpenVINO on a CPU: the networks of a bundle, converted when they are loaded.

On AMD's processors PyTorch's own library (MKL) is slow: the same sums take OpenVINO about half the
time. docs/performance.md has what was measured.
"""

import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.jit._trace import TracerWarning

from acouslic.engine import Outputs, mean_output
from acouslic.engine_names import EngineName, Precision, PrecisionName
from acouslic.errors import InputError
from acouslic.network import AbdomenNet
from acouslic.preprocess import normalise

if TYPE_CHECKING:
    import openvino

# What OpenVINO calls them, and what a processor says that it has.
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}
# Frames at a time: of 2 to 16 none was faster, and fewer take less memory.
BATCH = 4


class OpenVinoEngine:
    """OpenVINO, on the CPU alone."""

    name: EngineName = "openvino"
    device = torch.device("cpu")
    batch_size = BATCH

    def __init__(self, members: Sequence[AbdomenNet], precision: PrecisionName = "auto") -> None:
        """Convert an ensemble; the networks are not needed any more afterwards.

        Args:
            members: networks in evaluation mode, on the CPU.
            precision: what they are computed in; auto: float32.

        Raises:
            InputError: the processor does not compute in that precision.
            ImportError: OpenVINO is not installed.
        """
        core = _openvino().Core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = _chosen(precision, capabilities)
        self.mask_size = members[0].decoder.size
        self._intensity = members[0].config.intensity
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # All threads work on one batch, where several streams would need memory for several.
            "NUM_STREAMS": 1,
            # Else every process takes the first cores, and two workers share one.
            "ENABLE_CPU_PINNING": False,
        }
        # C++ calls Python while it converts: what a signal's handler raises in there is lost, or
        # comes out as a RuntimeError. Python calls handlers in the main thread alone.
        with ThreadPoolExecutor(1) as aside:
            model = aside.submit(_converted, members).result()
        self._request = core.compile_model(model, "CPU", options).create_infer_request()

    def compute(self, grid: torch.Tensor, *, exact: bool = False) -> Outputs:
        """See `Engine`. What is not finite stays so: bfloat16 reaches as far as float32."""
        images = normalise(grid, self._intensity)
        outputs = self._request.infer([images.numpy()], share_inputs=True)
        return Outputs(*(torch.from_numpy(outputs[k].copy()) for k in range(2)))

    @contextmanager
    def on_cpu(self) -> Iterator[None]:
        """See `Engine`; it is there already."""
        yield


class _Ensemble(nn.Module):
    """The networks as one, for the conversion."""

    def __init__(self, members: Sequence[AbdomenNet]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        members: Any = self.members
        quality, mask_logits = mean_output(members, images)
        return quality, mask_logits


def _openvino() -> Any:
    """The library, kept from reporting its use.

    On import and on conversion it sends events to a server of its maker's, unless the package that
    does so is missing. A tool that works with patients' data tells nobody.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _converted(members: Sequence[AbdomenNet]) -> "openvino.Model":
    """One graph for any number of images; its constants are the networks' own memory.

    `openvino.convert_model` does the same in twice the time: it checks each trace by two more.
    """
    frontend = _openvino().frontend.FrontEndManager().load_by_framework("pytorch")
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    side = members[0].config.trunk.image_size
    example = torch.zeros(2, 3, side, side)
    with torch.no_grad(), warnings.catch_warnings():
        # Sizes that a tracer takes for constants are constants here: a test holds it.
        warnings.simplefilter("ignore", TracerWarning)
        traced = TorchScriptPythonDecoder(
            _Ensemble(members), example_input=example, trace_kwargs={"check_trace": False}
        )
    model = frontend.convert(frontend.load(traced))
    model.reshape([-1, 3, side, side])
    return model


def _chosen(precision: PrecisionName, capabilities: Sequence[str]) -> Precision:
    """The precision that is meant, which the processor has."""
    if precision == "auto":
        # bfloat16 would be faster where the processor has it, but moved one chosen frame of 30.
        return "fp32"
    if _CAPABILITIES[precision] not in capabilities:
        raise InputError(
            expected=f"a processor that computes in {precision}",
            found=f"one with {', '.join(sorted(capabilities))}",
            advice="use --precision auto",
        )
    return precision
