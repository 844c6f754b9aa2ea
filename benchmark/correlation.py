"""Losses that are the field's global measures: 1 minus Pearson's and a soft Spearman's correlation.

Our interpretation of Chen et al. (2025), of whose loss only the name is public; the form is that
of GMC-IQA (arXiv 2401.10511). All in float32, scores are (n,).
"""

import torch

SOFTNESS = 0.1
LEAST_TARGET_SD = 0.05
LEAST_SCORE_SD = 1e-3


def correlation_loss(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(1 - PLCC) / 2 + (1 - soft SROCC) / 2, 0..2.

    0 without gradient where targets or scores hardly vary: a correlation means nothing there.
    """
    scores, targets = scores.float(), targets.float()
    if len(scores) < 3:
        return scores.sum() * 0
    if targets.std() < LEAST_TARGET_SD or scores.detach().std() < LEAST_SCORE_SD:
        return scores.sum() * 0
    return (1 - pearson(scores, targets)) / 2 + (1 - soft_spearman(scores, targets)) / 2


def pearson(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Pearson's correlation of two vectors that vary."""
    a, b = a - a.mean(), b - b.mean()
    correlation: torch.Tensor = (a * b).sum() / (a.norm() * b.norm())
    return correlation


def soft_spearman(
    scores: torch.Tensor, targets: torch.Tensor, softness: float = SOFTNESS
) -> torch.Tensor:
    """Pearson's correlation of the scores' soft ranks and the targets' exact, tie-aware ranks."""
    return pearson(soft_ranks(scores, softness), exact_ranks(targets))


def soft_ranks(scores: torch.Tensor, softness: float) -> torch.Tensor:
    """(n,): mean over j of Phi((s_i - s_j) / softness), of standardised scores; in 0..1.

    The smaller the softness, the nearer to the exact rank, and the sparser the gradient.
    """
    standard = (scores - scores.mean()) / scores.std()
    below: torch.Tensor = torch.special.ndtr((standard[:, None] - standard[None]) / softness)
    return below.mean(dim=1)


def exact_ranks(values: torch.Tensor) -> torch.Tensor:
    """(n,): the share of values below plus half the share of equal ones: ties share their rank."""
    above = (values[:, None] > values[None]).float()
    equal = (values[:, None] == values[None]).float()
    return (above + equal / 2).mean(dim=1)
