"""The numbers that `--precision auto` takes."""

import pytest
import torch

from training.precision import cpu_has_bf16, fastest


@pytest.mark.parametrize(
    ("accelerator", "gpu", "bf16", "expected"),
    [
        ("auto", True, True, "bf16"),
        ("auto", True, False, "fp16"),
        ("gpu", True, False, "fp16"),
        ("cpu", True, True, "bf16"),
        ("cpu", True, False, "fp32"),
        ("auto", False, True, "bf16"),
        ("auto", False, False, "fp32"),
    ],
)
def test_bf16_is_taken_only_where_the_hardware_has_it(
    accelerator: str, gpu: bool, bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    assert fastest(accelerator) == expected


def test_a_pytorch_that_cannot_tell_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hasattr(torch.cpu, "_is_avx512_bf16_supported")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not cpu_has_bf16()
