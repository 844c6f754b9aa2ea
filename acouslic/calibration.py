"""The numbers between what the network says and probabilities at the real prevalence.

The network is trained on batches in which the three qualities weigh alike, so it speaks as if
every third frame were optimal. In the training set one frame in 38 is annotated. `expected_score`
corrects for that; the numbers that it needs are fitted by `python -m training cross-validate` and
travel in the bundle. docs/decision.md derives the formulas.
"""

from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval
from scipy.special import expit, logit

from acouslic import schema
from acouslic.challenge import FRAMES_PER_SWEEP

VERSION = 1
# Nothing is ever said with more certainty.
LEAST = 1e-3
# Part of a whole that has no empty part.
Share = Annotated[float, Interval(gt=0, lt=1)]
# By how much three shares may miss 1 as written; the rounding of four decimals is far below.
_SUM_TOLERANCE = 1e-3
# Half of an interval, relative to what it is around.
Spread = Annotated[float, Interval(ge=0, le=1)]
# Constants and weights in log odds, which 1,000 would leave without any doubt.
Weight = Annotated[float, Interval(ge=-1000, le=1000)]
Sweeps = tuple[Weight, Weight, Weight, Weight, Weight, Weight]


@dataclass(frozen=True)
class Calibration:
    """The numbers behind the choice of the frame, and behind what is said of it.

    The defaults serve a bundle without a fit of its own. Counts are of the public training set
    (300 cases; Zenodo 12697994). The weights were fitted to its real label sequences with a
    simulated detector of middling quality (docs/decision.md).
    """

    trained_prior: tuple[Share, Share, Share] = (1 / 3, 1 / 3, 1 / 3)
    """Shares of none, suboptimal and optimal frames that the network was trained to expect."""
    prior: tuple[Share, Share, Share] = (0.9737, 0.0178, 0.0085)
    """The real shares: of 252,000 frames 4,479 are suboptimal and 2,141 optimal."""
    smoothing_frames: Annotated[float, Interval(ge=0, le=FRAMES_PER_SWEEP)] = 3.0
    """Standard deviation of the Gaussian along a sweep by which neighbours lend evidence."""
    annotated: tuple[Weight, Weight, Weight] = (1.38, 1.23, 0.0)
    """Log odds that a frame is annotated: constant, weights of smoothed and of own evidence."""
    optimal: tuple[Weight, Weight, Weight] = (-0.07, -0.37, 1.28)
    """Log odds that an annotated frame is optimal: likewise."""
    reference: tuple[Weight, Weight] = (0.6, 0.97)
    """Weights of a sweep's strongest evidence, and of the log of its expected annotated frames, in
    the log odds that it has a reference AC."""
    sweeps: Sweeps = (1.61, 0.48, -0.05, -1.04, -0.78, -1.67)
    """What each sweep's number adds to those log odds: 79, 45, 30, 10, 16 and 4 % of sweeps 1 to 6
    have a reference."""
    has_optimal: tuple[Weight, Weight] = (1.99, 1.17)
    """Log odds that a stack has an optimal frame: constant, and weight of the log of the mean
    probability of its five likeliest ones."""
    readable: Annotated[float, Interval(ge=0, le=1000)] = 1.0
    """Exponent of a mask's goodness that makes it the chance that its AC is near the reference."""
    nae: Annotated[float, Interval(ge=0, le=1)] = 0.05
    """Relative error of an AC that is near the reference: as doctors' among themselves."""
    dice: Annotated[float, Interval(ge=0, le=1)] = 0.90
    """Dice of a mask on an annotated frame, as third parties report it."""
    claim_annotated: tuple[Weight, Weight] = (0.0, 1.0)
    """What is said of a chosen frame, from its probability to be annotated: constant and weight of
    the log odds. The frame was chosen for its whole sweep, which its own probability knows little
    of."""
    claim_score: tuple[Weight, Weight] = (0.0, 1.0)
    """What is said of an answer's score, from its expectation: likewise."""
    ac_scale: Annotated[float, Interval(gt=0.5, lt=2)] = 1.0
    """Factor on every AC that is read from one of the network's masks."""
    ac_spread: tuple[Spread, Spread] = (0.08, 0.3)
    """Half of the AC's 90 % interval, relative to the AC, on a frame that is certainly annotated,
    and on one that is certainly not."""

    def __post_init__(self) -> None:
        """Refuse shares that are not those of one whole."""
        for shares in (self.trained_prior, self.prior):
            if abs(sum(shares) - 1) > _SUM_TOLERANCE:
                raise ValueError(f"shares {shares} whose sum is {sum(shares):g}")

    def p_annotated(self, probability: float) -> float:
        """What to say of a chosen frame whose probability to be annotated is this."""
        return _claim(self.claim_annotated, probability)

    def confidence(self, expected: float) -> float:
        """What to say of an answer whose expected score is this."""
        return _claim(self.claim_score, expected)

    def ac_interval_mm(self, ac_mm: float, p_annotated: float) -> tuple[float, float]:
        """Where the reference lies in 90 % of cases, for an AC that is read from a frame."""
        certain, never = self.ac_spread
        half_mm = ac_mm * (certain * p_annotated + never * (1 - p_annotated))
        return ac_mm - half_mm, ac_mm + half_mm

    def to_dict(self) -> dict[str, Any]:
        """What a bundle's config.json holds."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Calibration":
        """The inverse of `to_dict`.

        Raises:
            ValueError: it is of another version or form.
        """
        names = {field.name for field in fields(cls)}
        version = values.get("version")
        # True is 1 to Python.
        if (type(version), version) != (int, VERSION) or values.keys() != {"version", *names}:
            raise ValueError("a calibration of another version")
        return schema.validated(cls, {name: values[name] for name in names})


def _claim(weights: tuple[float, float], probability: float) -> float:
    constant, weight = weights
    return float(expit(constant + weight * logit(np.clip(probability, LEAST, 1 - LEAST))))
