"""Muon in float32 does what PyTorch's does, but for the rounding of bfloat16."""

from copy import deepcopy

import pytest
import torch

from training.demo.muon import Float32Muon, _orthogonal

LIKE_ADAMW = "match_rms_adamw"
RATE, DECAY = 1e-2, 0.1


def _steps(optimiser: torch.optim.Optimizer, matrix: torch.nn.Parameter, first: int) -> None:
    for number in range(first, first + 3):
        generator = torch.Generator().manual_seed(number)
        matrix.grad = torch.randn(matrix.shape, generator=generator)
        optimiser.step()


@pytest.mark.parametrize("shape", [(48, 16), (16, 16), (16, 64)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_it_steps_as_pytorchs(shape: tuple[int, int], nesterov: bool) -> None:
    start = torch.randn(shape, generator=torch.Generator().manual_seed(9))
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    _steps(Float32Muon([ours], lr=RATE, weight_decay=DECAY, nesterov=nesterov), ours, 0)
    torchs = torch.optim.Muon([theirs], RATE, DECAY, nesterov=nesterov, adjust_lr_fn=LIKE_ADAMW)
    _steps(torchs, theirs, 0)
    moved = (theirs - start).norm()
    assert moved > 0.05 and (ours - theirs).norm() < 0.02 * moved


def test_it_goes_on_from_pytorchs_state() -> None:
    start = torch.randn((16, 16), generator=torch.Generator().manual_seed(9))
    theirs = torch.nn.Parameter(start.clone())
    torchs = torch.optim.Muon([theirs], RATE, DECAY, adjust_lr_fn=LIKE_ADAMW)
    _steps(torchs, theirs, 0)
    ours = torch.nn.Parameter(theirs.detach().clone())
    optimiser = Float32Muon([ours], lr=RATE, weight_decay=DECAY)
    optimiser.load_state_dict(deepcopy(torchs.state_dict()))
    before = theirs.detach().clone()
    _steps(optimiser, ours, 3)
    _steps(torchs, theirs, 3)
    assert (ours - theirs).norm() < 0.02 * (theirs - before).norm()


def test_singular_values_become_about_one_in_the_matrixs_own_type() -> None:
    matrix = torch.randn((16, 48), generator=torch.Generator().manual_seed(9)) * 100
    group = torch.optim.Muon([torch.nn.Parameter(matrix)]).param_groups[0]
    update = _orthogonal(matrix, group["ns_coefficients"], group["ns_steps"], group["eps"])
    assert update.dtype == torch.float32
    values = torch.linalg.svdvals(update)
    assert values.min() > 0.6 and values.max() < 1.3
