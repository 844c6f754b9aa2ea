"""Sites: three hospitals, each with its own machine and hands, and its own annotators.

All of them look and label inside the range of the realistic phantoms, but each in a corner of it:
what is learnt at one is put to the test at another. No site stands for a real one.
"""

from dataclasses import dataclass
from enum import Enum

from phantom.annotator import Habits
from phantom.appearance import REALISTIC
from phantom.chance import Range, Spread


@dataclass(frozen=True, kw_only=True)
class _Traits:
    habits: Habits
    look_alike: float
    corner: dict[str, tuple[float, float]]


# Each corner holds shares of the ranges in `appearance.REALISTIC`, 0 its lower and 1 its upper end;
# what it does not name keeps the whole range, as patients differ everywhere. Chosen by eye, so that
# sheets of the three can be told apart. Strictness makes up for what is missed and undervalued:
# fitted to the real training set's label statistics (docs/sites.md).
_BRIGHT = _Traits(
    habits=Habits(
        strictness=Spread(-0.04, 0.05),
        optimal_off_factor=Range(0.85, 1.1),
        misses_sweep=0.1,
        undervalues_sweep=0.05,
    ),
    look_alike=0.2,
    corner={
        "gray": (0.65, 0.9),
        "gray_per_db": (0.65, 0.95),
        "convexity": (0.5, 0.9),
        "fluid_from": (0.0, 0.35),
        "fluid_db": (0.0, 0.3),
        "contrast": (0.6, 1.0),
        "rim": (0.5, 1.0),
        "speckle_db": (0.0, 0.3),
        "speckle_size": (0.0, 0.3),
        "blur_lines": (0.0, 0.3),
        "loss_db_mm": (0.0, 0.35),
        "edge_db": (0.0, 0.4),
        "streaks_db": (0.0, 0.4),
        "clutter_db": (0.0, 0.4),
        "haze_gray": (0.0, 0.4),
        "layers_db": (0.5, 1.0),
    },
)
_FILLED = _Traits(
    habits=Habits(
        strictness=Spread(-0.09, 0.05),
        optimal_off_factor=Range(0.9, 1.2),
        misses_sweep=0.2,
        undervalues_sweep=0.12,
    ),
    look_alike=0.3,
    corner={
        "gray": (0.35, 0.6),
        "gray_per_db": (0.3, 0.6),
        "convexity": (0.2, 0.6),
        "fluid_from": (0.6, 1.0),
        "around_db": (0.4, 1.0),
        "contrast": (0.2, 0.6),
        "grain_db": (0.5, 1.0),
        "strokes_db": (0.5, 1.0),
        "speckle_db": (0.4, 0.7),
        "speckle_size": (0.4, 0.7),
        "blur_lines": (0.4, 0.7),
        "near_db": (0.6, 1.0),
        "waves_db": (0.4, 0.8),
        "layers_mm": (0.6, 1.0),
        "clutter_db": (0.3, 0.7),
    },
)
_DARK = _Traits(
    habits=Habits(
        strictness=Spread(-0.13, 0.05),
        optimal_off_factor=Range(1.0, 1.35),
        misses_sweep=0.3,
        undervalues_sweep=0.2,
    ),
    look_alike=0.45,
    corner={
        "gray": (0.1, 0.4),
        "gray_per_db": (0.0, 0.3),
        "convexity": (0.0, 0.5),
        "fluid_from": (0.4, 1.0),
        "fluid_db": (0.6, 1.0),
        "contrast": (0.0, 0.4),
        "rim": (0.0, 0.4),
        "shadow": (0.6, 1.0),
        "speckle_db": (0.7, 1.0),
        "speckle_size": (0.7, 1.0),
        "blur_lines": (0.7, 1.0),
        "loss_db_mm": (0.4, 0.8),
        "edge_db": (0.6, 1.0),
        "streaks_db": (0.6, 1.0),
        "clutter_db": (0.7, 1.0),
        "haze_gray": (0.6, 1.0),
        "waves_db": (0.6, 1.0),
    },
)


class Site(Enum):
    """Where a phantom was scanned and annotated."""

    A = "A"
    """A new machine: bright, sharp, much contrast, dark fluid; annotators who miss little."""
    B = "B"
    """Tissue fills the uterus, and the gain near the probe is high."""
    C = "C"
    """An old machine: dark, hazy, coarse, little contrast; one sweep in three is missed."""

    @property
    def number(self) -> int:
        """Its number in random streams."""
        return list(Site).index(self)

    @property
    def habits(self) -> Habits:
        """How its annotators decide."""
        return _TRAITS[self].habits

    @property
    def look_alike(self) -> float:
        """Chance of a look-alike in a sweep that nobody annotated."""
        return _TRAITS[self].look_alike

    def table(self) -> dict[str, Range]:
        """The ranges that its cases' appearance is drawn from, as `appearance.REALISTIC`."""
        corner = _TRAITS[self].corner
        return {
            name: _part_of(whole, *corner.get(name, (0.0, 1.0)))
            for name, whole in REALISTIC.items()
        }


_TRAITS = {Site.A: _BRIGHT, Site.B: _FILLED, Site.C: _DARK}


def _part_of(whole: Range, start: float, end: float) -> Range:
    low, high = ((1 - share) * whole.low + share * whole.high for share in (start, end))
    return Range(low, high)
