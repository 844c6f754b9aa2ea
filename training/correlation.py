"""The correlation loss: 1 minus Pearson's correlation, and 1 minus a soft Spearman's.

Of the loss of Chen et al. (2025) only the name is public: this is our interpretation, in the form
of GMC-IQA (arXiv 2401.10511). All is computed in float32; scores are (n,).
"""

import torch

# In standard deviations of the scores. The soft correlation of 40 scores is then within 0.05 of the
# exact one (held by a test).
SOFTNESS = 0.1
# Below these a batch hardly varies, and its correlation is noise: one frame of quality 0.6 among 32
# gives targets an SD of 0.1.
LEAST_TARGET_SD = 0.05
LEAST_SCORE_SD = 1e-3


def correlation_loss(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(1 - PLCC) / 2 + (1 - soft SROCC) / 2.

    Args:
        scores: (n,), predicted quality.
        targets: (n,), true quality.

    Returns:
        0 to 2; 0 without a gradient where targets or scores hardly vary, for a correlation means
        nothing there.
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
    """Ranks with a gradient: mean over j of Phi((s_i - s_j) / softness) of standardised scores.

    Args:
        scores: (n,).
        softness: the smaller it is, the nearer to the exact rank, and the sparser the gradient.

    Returns:
        (n,), from 0 to 1.
    """
    standard = (scores - scores.mean()) / scores.std()
    below: torch.Tensor = torch.special.ndtr((standard[:, None] - standard[None]) / softness)
    return below.mean(dim=1)


def exact_ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks from 0 to 1, (n,): the share of smaller values and half the share of equal ones."""
    above = (values[:, None] > values[None]).float()
    equal = (values[:, None] == values[None]).float()
    return (above + equal / 2).mean(dim=1)
