"""The truth of a case from its scene alone: sections of the abdomen, qualities, and ACs of sweeps.

Nothing is rendered here, so the truth of hundreds of cases takes seconds.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from acouslic.challenge import (
    CHALLENGE_FAN,
    FRAME_SHAPE,
    FRAMES_PER_SWEEP,
    SPACING_MM,
    SWEEPS,
)
from acouslic.ellipse import circumference_mm
from phantom.annotator import (
    ANYWHERE,
    View,
    best_frame,
    judge,
    sample_annotator,
    view_of,
    with_oversights,
)
from phantom.chance import Range, Stream, stream
from phantom.look_alike import with_look_alike
from phantom.scene import Scene, sample_scene, sample_subject, subject_of
from phantom.shapes import Sections
from phantom.site import Site
from phantom.sweep import Sweep, sample_sweeps

# Scans to draw until one has an annotated frame; so many that running out of them is a bug.
ATTEMPTS = 200
# Where the fan cuts an outline in two, the evaluator fits one of the arcs and may read anything,
# once 0.2 mm. Of 537 sweeps 4 were more than 20 % off, and all others less than 0.6 %.
MOST_READING_ERROR = 0.02
# Share of scans in which the mother images poorly; fitted to the training set's statistics.
HAZY_SHARE = 0.18
HAZE = Range(0.5, 1.0)  # how poorly; chosen by eye
# A section is well in view to these limits, in radii, degrees and as a share; below the last one
# nothing of it can be seen. A network taught by such masks outlines real abdomens (docs/log.md).
WELL_OFF, WELL_TILT_DEG, WELL_VISIBLE = 0.9, 50.0, 0.5
LEAST_VISIBLE = 0.03


class Sight(IntEnum):
    """How well the abdomen can be outlined in a frame, annotated or not."""

    NONE = 0
    """There is nothing of it."""
    PARTLY = 1
    """Its outline is a matter of opinion: an oblique section of the trunk, or a piece of one."""
    WELL = 2
    """Whoever knows abdomens could outline it."""


@dataclass(frozen=True, kw_only=True)
class SweepTruth:
    """What is known about the N frames of one sweep."""

    quality: np.ndarray
    """Quality of each frame, (N,) uint8."""
    merit: np.ndarray
    """How close each frame is to the standard plane and how much of it is visible, (N,)."""
    sight: np.ndarray
    """How well the abdomen can be outlined, (N,) uint8, values of `Sight`."""
    sections: Sections
    """The abdomen's section in each frame."""
    ac_mm: float | None
    """Circumference in the best frame; None if no frame is annotated."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """All that is known about a case before a pixel is made."""

    seed: int
    """The data set's seed."""
    case: int
    """The case's number."""
    subject: int
    """The case that first shows the same subject."""
    scene: Scene
    """Fetus and uterus, before the fetus stirs."""
    haze: float
    """How poorly the mother images: 0 is well, 1 is worst."""
    sweeps: tuple[Sweep, ...]
    """The six sweeps."""
    labels: tuple[SweepTruth, ...]
    """What is known about each sweep."""
    site: Site | None = None
    """Where the scan was made and annotated; None is nowhere in particular."""

    def quality(self) -> np.ndarray:
        """Quality of all frames of the stack, (T,) uint8, `Quality.NONE` on the black ones."""
        return _stacked([label.quality for label in self.labels])

    def sight(self) -> np.ndarray:
        """Sight of all frames of the stack, (T,) uint8, `Sight.NONE` on the black ones."""
        return _stacked([label.sight for label in self.labels])

    def tissue(self) -> np.ndarray:
        """The frames that are not black, (T,) bool."""
        lengths = np.array([len(sweep) for sweep in self.sweeps])
        return (np.arange(FRAMES_PER_SWEEP) < lengths[:, None]).reshape(-1)

    def outline(self, frame: int) -> np.ndarray:
        """The abdomen's section in a frame of the stack, filled and not clipped, (H, W) bool."""
        sweep, at = divmod(frame, FRAMES_PER_SWEEP)
        return section_mask(self.labels[sweep].sections, at)


def truth(seed: int, case: int, site: Site | None = None) -> Truth:
    """Draw the truth of a case: scan by scan, until one has an annotated frame.

    Args:
        seed: the data set's seed.
        case: the case's number.
        site: where it is scanned; a case of a seed shows the same subject at all sites.

    Raises:
        RuntimeError: no scan of ATTEMPTS has one.
    """
    number = subject_of(seed, case)
    subject = sample_subject(seed, number)
    habits = ANYWHERE if site is None else site.habits
    for attempt in range(ATTEMPTS):
        rng = stream(seed, case, Stream.SCAN, attempt)
        scene = sample_scene(rng, subject)
        sweeps = sample_sweeps(rng, scene)
        haze = rng.uniform(*HAZE) if rng.random() < HAZY_SHARE else 0.0
        annotator = sample_annotator(rng, hazy=haze > 0, habits=habits)
        views = [view_of(sweep) for sweep in sweeps]
        by_sweep = [judge(view, annotator) for view in views]
        merits = [view.merit(annotator.suboptimal) for view in views]
        if site is not None:
            chance = stream(seed, case, Stream.SITE, site.number, attempt)
            by_sweep = with_oversights(chance, by_sweep, merits, habits)
        labels = tuple(map(_label, views, by_sweep, merits))
        if any(label.ac_mm is not None for label in labels):
            if site is not None:
                sweeps = _with_look_alikes(chance, sweeps, labels, site)
            return Truth(
                seed=seed,
                case=case,
                subject=number,
                scene=scene,
                haze=haze,
                sweeps=sweeps,
                labels=labels,
                site=site,
            )
    raise RuntimeError(f"case {case} of seed {seed}: no annotated frame in {ATTEMPTS} scans")


def section_mask(sections: Sections, frame: int) -> np.ndarray:
    """The pixels whose centres lie in a frame's section, (H, W) bool."""
    rows, columns = np.indices(FRAME_SHAPE, dtype=np.float64)
    u = (columns - CHALLENGE_FAN.apex_x_px) * SPACING_MM - sections.centre_u[frame]
    v = (rows - CHALLENGE_FAN.apex_y_px) * SPACING_MM - sections.centre_v[frame]
    quu, quv, qvv = sections.quu[frame], sections.quv[frame], sections.qvv[frame]
    return np.asarray(quu * u * u + 2 * quv * u * v + qvv * v * v <= 1)


def _label(view: View, quality: np.ndarray, merit: np.ndarray) -> SweepTruth:
    return SweepTruth(
        quality=quality,
        merit=merit,
        sight=_sight(view, quality),
        sections=view.sections,
        ac_mm=_ac_mm(quality, merit, view.sections),
    )


def _with_look_alikes(
    rng: np.random.Generator,
    sweeps: tuple[Sweep, ...],
    labels: tuple[SweepTruth, ...],
    site: Site,
) -> tuple[Sweep, ...]:
    """The sweeps, with a look-alike in some of those without any annotation."""
    changed = []
    for sweep, label in zip(sweeps, labels, strict=True):
        is_chosen = rng.random() < site.look_alike and not label.quality.any()
        is_free = label.sight == Sight.NONE
        changed.append(with_look_alike(rng, sweep, is_free) if is_chosen else sweep)
    return tuple(changed)


def _stacked(by_sweep: list[np.ndarray]) -> np.ndarray:
    """What is known of each sweep's frames, for all of the stack, (T,) uint8; 0 on black ones."""
    whole = np.zeros((SWEEPS, FRAMES_PER_SWEEP), np.uint8)
    for index, values in enumerate(by_sweep):
        whole[index, : len(values)] = values
    return whole.reshape(-1)


def _sight(view: View, quality: np.ndarray) -> np.ndarray:
    is_near = (view.off < WELL_OFF) & (view.tilt_deg < WELL_TILT_DEG)
    is_well = (quality > 0) | (view.is_abdomen & is_near & (view.visible > WELL_VISIBLE))
    is_gone = ~view.is_abdomen | (view.visible < LEAST_VISIBLE)
    sight = np.where(is_gone, Sight.NONE, Sight.PARTLY)
    return np.where(is_well, Sight.WELL, sight).astype(np.uint8)


def _ac_mm(quality: np.ndarray, merit: np.ndarray, sections: Sections) -> float | None:
    """The circumference in the frame of most merit among those of the best quality.

    It is the evaluator's reading of that frame's mask, as the challenge's references are; but the
    section's own perimeter, which is 0.3 % larger, where the reading fails.
    """
    if not quality.any():
        return None
    best = best_frame(quality, merit)
    fan = CHALLENGE_FAN.mask()
    reading = circumference_mm(section_mask(sections, best) & fan, fan, SPACING_MM)
    perimeter = float(sections.circumference_mm()[best])
    has_failed = reading is None or abs(reading / perimeter - 1) > MOST_READING_ERROR
    return perimeter if has_failed else reading
