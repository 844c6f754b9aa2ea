"""Looks: the ways in which a case's picture can be made from the same geometry."""

from enum import Enum

from phantom.chance import Stream, stream

RANDOM_SHARE = 0.5  # of mixed cases; half and half was best in a small study (docs/simulation.md)


class Look(Enum):
    """How phantoms look; truth and geometry are the same in all."""

    PLAIN = "plain"
    """Smooth organs in dark fluid."""
    REALISTIC = "realistic"
    """As near to real frames as we can."""
    RANDOM = "random"
    """Echoes, textures, rims, shadows and gray map drawn far beyond what is plausible."""
    MIXED = "mixed"
    """Each case realistic or random, by its own numbers."""

    def of_case(self, seed: int, case: int) -> "Look":
        """The look of one case: never MIXED."""
        if self is not Look.MIXED:
            return self
        is_random = stream(seed, case, Stream.LOOK).random() < RANDOM_SHARE
        return Look.RANDOM if is_random else Look.REALISTIC
