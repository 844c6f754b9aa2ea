"""Which numbers a machine computes in quickly."""

from typing import Literal

import torch


def fastest(accelerator: str) -> Literal["bf16", "fp16", "fp32"]:
    """What `auto` means here; bf16 that is emulated takes six times as long as float32.

    Args:
        accelerator: "cpu", "gpu" or "auto", a GPU where there is one.
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself (AVX512-BF16, which all with AMX have)."""
    # PyTorch has no public name for it; one that is gone means float32, which is right everywhere.
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
