"""Annotators: what of the standard plane a frame shows, and how a case's annotator judges it.

The numbers were fitted to the training set's statistics, all of them together, unless a comment
says otherwise.
"""

from dataclasses import dataclass

import numpy as np

from acouslic.challenge import CHALLENGE_FAN, Quality
from phantom.chance import Range, Spread
from phantom.probe import FAR_MM, NEAR_MM
from phantom.shapes import Planes, Sections
from phantom.sweep import Sweep


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a frame has to show."""

    off: float
    """Greatest distance from the standard plane along the trunk's axis, in abdominal radii."""
    tilt_deg: float
    """Greatest angle between the frame's plane and the trunk's cross-section."""
    visible: float
    """Least share of the abdomen's section that can be seen, 0 to 1."""
    stomach: float
    """Least size of the stomach's section, 0 to 1."""
    vein: float
    """Least share of the umbilical vein, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Stricter:
    """What a strictness of 1 adds to the least values of a demand."""

    visible: float
    """To the share of the section."""
    stomach: float
    """To the size of the stomach's section."""
    vein: float
    """To the umbilical vein's share."""


SUBOPTIMAL = Demand(off=0.38, tilt_deg=38.0, visible=0.66, stomach=0.20, vein=0.12)
SUBOPTIMAL_STRICTER = Stricter(visible=0.2, stomach=0.5, vein=0.0)
OPTIMAL = Demand(off=0.34, tilt_deg=27.0, visible=0.90, stomach=0.25, vein=0.13)
OPTIMAL_STRICTER = Stricter(visible=0.2, stomach=1.0, vein=0.4)
# Runs of fewer frames are left out: the least and the greatest such number among annotators.
SHORTEST_RUN = (2, 4)
SHORTEST_OPTIMAL_RUN = 2
# A section whose minor semi-axis is less than so many radii is no abdomen any more; chosen by eye.
LEAST_MINOR_AXIS = 0.5

# How much of a section can be seen is counted on rings, in units of its semi-axes, at so many
# points each; a line with less gain shows nothing. Chosen by eye.
RINGS, POINTS_ON_RING = (0.35, 0.7, 0.95), 16
LEAST_GAIN_DB = -14.0
# How much of the vein lies in a plane is counted at so many points from navel to bend, and as many
# from bend to sinus: those that are this near to it, in abdominal radii. Chosen by eye.
VEIN_POINTS = 12
VEIN_NEAR = 0.12


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How the annotators of one place decide."""

    strictness: Spread
    """Between annotators; at 0.1 the greatest values of a demand are 10 % less."""
    optimal_off_factor: Range
    """They differ further in how near an optimal frame has to be: a factor on that distance."""
    misses_sweep: float = 0.0
    """Chance that a sweep is left out though it could be annotated; never a case's best one."""
    undervalues_sweep: float = 0.0
    """Chance that the optimal frames of a sweep are called suboptimal."""


# Of phantoms that belong to no site.
ANYWHERE = Habits(strictness=Spread(0.0, 0.09), optimal_off_factor=Range(0.75, 1.05))


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """How the annotator of one case decides."""

    suboptimal: Demand
    """To be annotated, a frame has to meet this, with stomach or vein."""
    optimal: Demand
    """To be optimal, an annotated frame has to meet this too, with stomach and vein."""
    shortest_run: int
    """Runs of fewer annotated frames are left out."""
    never_optimal: bool
    """Whether the mother images too poorly for an optimal frame."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What the N frames of a sweep show of the standard plane; arrays are (N,)."""

    sections: Sections
    """The abdomen's section in each frame."""
    is_abdomen: np.ndarray
    """Whether there is such a section and it is no mere tip, bool."""
    off: np.ndarray
    """From the standard plane's centre to where the trunk's axis passes the plane, in radii."""
    tilt_deg: np.ndarray
    """Angle between the frame's plane and the trunk's cross-section."""
    visible: np.ndarray
    """Share of the section that lies in the fan, on lines that touch the skin."""
    stomach: np.ndarray
    """Size of the stomach's section: 1 through its middle, 0 if the plane misses it."""
    vein: np.ndarray
    """Share of the umbilical vein's course in the plane."""

    def meets(self, demand: Demand) -> np.ndarray:
        """Whether frames are near, square and visible enough, (N,) bool."""
        is_near = (self.off < demand.off) & (self.tilt_deg < demand.tilt_deg)
        return np.asarray(is_near & (self.visible > demand.visible))

    def merit(self, demand: Demand) -> np.ndarray:
        """How good frames are beside each other, (N,)."""
        shown = self.stomach + self.vein + self.visible
        return np.asarray(shown - self.off / demand.off - self.tilt_deg / demand.tilt_deg)


def sample_annotator(
    rng: np.random.Generator, *, hazy: bool, habits: Habits = ANYWHERE
) -> Annotator:
    """Draw the annotator of one case.

    Args:
        rng: the scan's stream.
        hazy: whether the mother images poorly.
        habits: of the place.
    """
    strictness = rng.normal(*habits.strictness)
    off_factor = rng.uniform(*habits.optimal_off_factor)
    return Annotator(
        suboptimal=_demand(SUBOPTIMAL, SUBOPTIMAL_STRICTER, strictness),
        optimal=_demand(OPTIMAL, OPTIMAL_STRICTER, strictness, off_factor=off_factor),
        shortest_run=int(rng.integers(*SHORTEST_RUN, endpoint=True)),
        never_optimal=hazy,
    )


def view_of(sweep: Sweep) -> View:
    """What the frames of a sweep show."""
    fetus, scene = sweep.scene.fetus, sweep.scene
    planes = sweep.planes.seen_from(scene.rotation, scene.position)
    normal, sections = planes.normal, fetus.abdomen.sections(planes)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs((planes.origin * normal).sum(1) / normal[:, 2]) / fetus.radius_mm
    return View(
        sections=sections,
        is_abdomen=sections.cut & (sections.semi_axes()[1] > LEAST_MINOR_AXIS * fetus.radius_mm),
        off=off,
        tilt_deg=np.degrees(np.arccos(np.clip(np.abs(normal[:, 2]), 0, 1))),
        visible=_visible(sweep, sections),
        stomach=np.sqrt(np.clip(fetus.stomach.sections(planes).level, 0, 1)),
        vein=_vein_in_plane(fetus.vein, planes, VEIN_NEAR * fetus.radius_mm),
    )


def judge(view: View, annotator: Annotator) -> np.ndarray:
    """The quality that an annotator gives to the frames of a sweep, (N,) uint8."""
    least = annotator.suboptimal
    landmark = (view.stomach > least.stomach) | (view.vein > least.vein)
    annotated = _long_runs(view.is_abdomen & landmark & view.meets(least), annotator.shortest_run)
    most = annotator.optimal
    landmarks = (view.stomach > most.stomach) & (view.vein > most.vein)
    is_best = annotated & landmarks & view.meets(most) & (not annotator.never_optimal)
    optimal = _long_runs(is_best, SHORTEST_OPTIMAL_RUN)
    quality = np.where(annotated, Quality.SUBOPTIMAL, Quality.NONE)
    return np.where(optimal, Quality.OPTIMAL, quality).astype(np.uint8)


def with_oversights(
    rng: np.random.Generator, by_sweep: list[np.ndarray], merits: list[np.ndarray], habits: Habits
) -> list[np.ndarray]:
    """The qualities that stay when annotators undervalue sweeps, and miss some.

    Args:
        rng: the site's stream.
        by_sweep: the quality of each sweep's frames, (N,) uint8 each.
        merits: the merit of the same frames.
        habits: of the place.

    Returns:
        As `by_sweep`; a case that had an annotated frame still has one.
    """
    undervalued, missed = rng.random((2, len(by_sweep)))
    kept = [
        np.minimum(quality, np.uint8(Quality.SUBOPTIMAL))
        if chance < habits.undervalues_sweep
        else quality
        for quality, chance in zip(by_sweep, undervalued, strict=True)
    ]
    best = max(range(len(kept)), key=lambda k: _rank(kept[k], merits[k]))
    return [
        np.zeros_like(quality) if k != best and missed[k] < habits.misses_sweep else quality
        for k, quality in enumerate(kept)
    ]


def best_frame(quality: np.ndarray, merit: np.ndarray) -> int:
    """The frame of most merit among those of a sweep's best quality; (N,) both."""
    candidates = np.flatnonzero(quality == quality.max())
    return int(candidates[np.argmax(merit[candidates])])


def _rank(quality: np.ndarray, merit: np.ndarray) -> tuple[int, float]:
    """What a sweep is worth beside others: the quality and the merit of its best frame."""
    best = best_frame(quality, merit)
    return int(quality[best]), float(merit[best])


def _demand(
    mean: Demand, stricter: Stricter, strictness: float, *, off_factor: float = 1.0
) -> Demand:
    """One annotator's demand, from that of the mean annotator."""
    return Demand(
        off=mean.off * (1 - strictness) * off_factor,
        tilt_deg=mean.tilt_deg * (1 - strictness),
        visible=mean.visible + stricter.visible * strictness,
        stomach=mean.stomach + stricter.stomach * strictness,
        vein=mean.vein + stricter.vein * strictness,
    )


def _vein_in_plane(course: np.ndarray, planes: Planes, near_mm: float) -> np.ndarray:
    """The share of a vein's course, (3, 3) in mm, that is near a plane, (N,)."""
    steps = np.linspace(0, 1, VEIN_POINTS)[:, None]
    navel, bend, sinus = course
    points = np.concatenate([navel + (bend - navel) * steps, bend + (sinus - bend) * steps])
    offset = points[None] - planes.origin[:, None]
    distance = np.abs(offset @ planes.normal[:, :, None])[..., 0]
    return np.asarray((distance < near_mm).mean(1))


def _visible(sweep: Sweep, sections: Sections) -> np.ndarray:
    """The share of the section inside the fan and on lines that touch the skin, (N,)."""
    angles = np.linspace(0, 2 * np.pi, POINTS_ON_RING, endpoint=False)
    circle = np.array([[s * np.cos(a), s * np.sin(a)] for s in RINGS for a in angles])
    u, v = sections.stretched(circle)
    radius, angle = np.hypot(u, v), np.degrees(np.arctan2(u, v))
    inside = (radius > NEAR_MM) & (radius < FAR_MM) & (np.abs(angle) < CHALLENGE_FAN.half_angle_deg)
    gain_db = sweep.contact.gain_db(np.arange(len(sweep)), angle)
    return np.asarray((inside & (gain_db > LEAST_GAIN_DB)).mean(1))


def _long_runs(flags: np.ndarray, shortest: int) -> np.ndarray:
    """The same flags without runs of fewer than `shortest`, (N,) bool."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    kept = np.zeros_like(flags)
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start >= shortest:
            kept[start:end] = True
    return kept
