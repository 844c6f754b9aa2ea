"""The truth of a case from its scene alone: every frame's abdominal section, its quality, every
sweep's AC.

Nothing is rendered here, so the truth of hundreds of cases takes seconds.
"""

from dataclasses import dataclass

import numpy as np

from acouslic.challenge import (
    CHALLENGE_FAN,
    FRAME_SHAPE,
    FRAMES_PER_SWEEP,
    SPACING_MM,
    SWEEPS,
    Quality,
)
from phantom.scene import Scene, Stream, sample_scene, sample_subject, stream, subject_of
from phantom.shapes import Sections
from phantom.sweep import FAR_MM, NEAR_MM, Sweep, sample_sweeps

ATTEMPTS = 200


@dataclass(frozen=True)
class Rules:
    """From when on this case's annotator calls a frame suboptimal or optimal; lengths in units of
    the radius.

    stomach, vein: how much of them must be in the plane (1 = cut through the middle; the whole
    course), one of the two for suboptimal, both for optimal; tilt: between the plane and the
    trunk's cross-section; seen: share of the section in view and in contact; never_optimal: the
    mother images too poorly for a frame to be called optimal.
    """

    off: float
    off_optimal: float
    tilt_deg: float
    tilt_optimal_deg: float
    seen: float
    seen_optimal: float
    stomach: float
    stomach_optimal: float
    vein: float
    vein_optimal: float
    shortest_run: int
    never_optimal: bool


@dataclass(frozen=True)
class SweepTruth:
    """Per frame of one sweep: `quality` (N,), its section's `sections`, and the sweep's AC (None:
    not annotated).
    """

    quality: np.ndarray
    merit: np.ndarray
    sections: Sections
    ac_mm: float | None


@dataclass(frozen=True)
class Truth:
    """All that is known about a case before a pixel is made; `haze` 0..1 is how poorly the mother
    images.
    """

    seed: int
    case: int
    subject: int
    scene: Scene
    haze: float
    sweeps: tuple[Sweep, ...]
    labels: tuple[SweepTruth, ...]

    def quality(self) -> np.ndarray:
        """Quality of all frames of the stack, (T,) uint8, 0 on the black ones."""
        whole = np.zeros((SWEEPS, FRAMES_PER_SWEEP), np.uint8)
        for index, label in enumerate(self.labels):
            whole[index, : len(label.quality)] = label.quality
        return whole.reshape(-1)

    def tissue(self) -> np.ndarray:
        """The frames that are not black, (T,) bool."""
        lengths = np.array([len(sweep) for sweep in self.sweeps])
        return (np.arange(FRAMES_PER_SWEEP) < lengths[:, None]).reshape(-1)

    def outline(self, frame: int) -> np.ndarray:
        """The abdomen's section in a frame of the stack, filled and not clipped, (H, W) bool."""
        sweep, at = divmod(frame, FRAMES_PER_SWEEP)
        return section_mask(self.labels[sweep].sections, at)


def truth(seed: int, case: int) -> Truth:
    """The truth of a case; its scan is drawn again until at least one frame is annotated."""
    subject = subject_of(seed, case)
    known = sample_subject(seed, subject)
    for attempt in range(ATTEMPTS):
        rng = stream(seed, case, Stream.SCAN, attempt)
        scene = sample_scene(rng, known)
        sweeps = sample_sweeps(rng, scene)
        haze = _sample_haze(rng)
        rules = _sample_rules(rng, hazy=haze > 0)
        labels = tuple(_judge(sweep, rules) for sweep in sweeps)
        if any(label.ac_mm is not None for label in labels):
            return Truth(seed, case, subject, scene, haze, sweeps, labels)
    raise RuntimeError(f"case {case} of seed {seed}: no annotated frame in {ATTEMPTS} scans")


def section_mask(sections: Sections, frame: int) -> np.ndarray:
    """The pixels whose centres lie in the section, (H, W) bool."""
    rows, columns = np.indices(FRAME_SHAPE, dtype=np.float64)
    u = (columns - CHALLENGE_FAN.apex_x_px) * SPACING_MM - sections.centre_u[frame]
    v = (rows - CHALLENGE_FAN.apex_y_px) * SPACING_MM - sections.centre_v[frame]
    quu, quv, qvv = sections.quu[frame], sections.quv[frame], sections.qvv[frame]
    return np.asarray(quu * u * u + 2 * quv * u * v + qvv * v * v <= 1)


def _sample_haze(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.5, 1.0)) if rng.random() < 0.18 else 0.0


def _sample_rules(rng: np.random.Generator, *, hazy: bool) -> Rules:
    strict = float(rng.normal(0, 0.09))
    return Rules(
        off=0.38 * (1 - strict),
        off_optimal=0.34 * (1 - strict) * float(rng.uniform(0.75, 1.05)),
        tilt_deg=38 * (1 - strict),
        tilt_optimal_deg=27 * (1 - strict),
        seen=0.66 + 0.2 * strict,
        seen_optimal=0.90 + 0.2 * strict,
        stomach=0.2 + 0.5 * strict,
        stomach_optimal=0.25 + strict,
        vein=0.12,
        vein_optimal=0.13 + 0.4 * strict,
        shortest_run=int(rng.integers(2, 5)),
        never_optimal=hazy,
    )


def _judge(sweep: Sweep, rules: Rules) -> SweepTruth:
    """Judge every frame of a sweep as an annotator would, and take the AC of its best frame."""
    scene = sweep.scene
    r = scene.fetus.radius_mm
    planes = sweep.planes.seen_from(scene.rotation, scene.position)
    sections = scene.fetus.abdomen.sections(planes)
    normal = planes.normal
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where the trunk's axis passes the plane, from the standard plane's centre.
        off = np.abs((planes.origin * normal).sum(1) / normal[:, 2]) / r
    tilt = np.degrees(np.arccos(np.clip(np.abs(normal[:, 2]), 0, 1)))
    stomach = np.sqrt(np.clip(scene.fetus.stomach.sections(planes).level, 0, 1))
    vein = _vein_in_plane(scene, planes.origin, normal)
    seen = _seen(sweep, sections)
    real = sections.cut & (sections.semi_axes()[1] > 0.5 * r)
    landmark = (stomach > rules.stomach) | (vein > rules.vein)
    possible = real & landmark & (off < rules.off) & (tilt < rules.tilt_deg) & (seen > rules.seen)
    best = (
        possible
        & (off < rules.off_optimal)
        & (tilt < rules.tilt_optimal_deg)
        & (seen > rules.seen_optimal)
        & (stomach > rules.stomach_optimal)
        & (vein > rules.vein_optimal)
    )
    if rules.never_optimal:
        best = np.zeros_like(best)
    annotated = _keep_runs(possible, rules.shortest_run)
    optimal = _keep_runs(best & annotated, 2)
    quality = np.where(
        optimal, Quality.OPTIMAL, np.where(annotated, Quality.SUBOPTIMAL, Quality.NONE)
    ).astype(np.uint8)
    merit = stomach + vein + seen - off / rules.off - tilt / rules.tilt_deg
    return SweepTruth(quality, merit, sections, _sweep_ac_mm(quality, merit, sections))


def _sweep_ac_mm(quality: np.ndarray, merit: np.ndarray, sections: Sections) -> float | None:
    if not quality.any():
        return None
    candidates = np.flatnonzero(quality == quality.max())
    best = candidates[np.argmax(merit[candidates])]
    return float(sections.circumference_mm()[best])


def _vein_in_plane(scene: Scene, origin: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The share of the umbilical vein's intra-hepatic course that lies in the plane, (N,)."""
    vein = scene.fetus.vein
    steps = np.linspace(0, 1, 12)[:, None]
    course = np.concatenate(
        [vein[0] + (vein[1] - vein[0]) * steps, vein[1] + (vein[2] - vein[1]) * steps]
    )
    distance = np.abs((course[None] - origin[:, None]) @ normal[:, :, None])[..., 0]
    return np.asarray((distance < 0.12 * scene.fetus.radius_mm).mean(1))


def _seen(sweep: Sweep, sections: Sections) -> np.ndarray:
    """The share of the section inside the fan and on lines that touch the skin, (N,)."""
    rings = [
        (s, a) for s in (0.35, 0.7, 0.95) for a in np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ]
    circle = np.array([[s * np.cos(a), s * np.sin(a)] for s, a in rings])
    # Cholesky of the ellipse's matrix turns the unit circle into the ellipse.
    l11 = np.sqrt(np.maximum(sections.quu, 1e-12))
    l21 = sections.quv / l11
    l22 = np.sqrt(np.maximum(sections.qvv - l21**2, 1e-12))
    dv = circle[:, 1] / l22[:, None]
    du = (circle[:, 0] - l21[:, None] * dv) / l11[:, None]
    u, v = sections.centre_u[:, None] + du, sections.centre_v[:, None] + dv
    radius, angle = np.hypot(u, v), np.degrees(np.arctan2(u, v))
    inside = (radius > NEAR_MM) & (radius < FAR_MM) & (np.abs(angle) < CHALLENGE_FAN.half_angle_deg)
    return np.asarray((inside & (sweep.contact_db(np.arange(len(sweep)), angle) > -14)).mean(1))


def _keep_runs(flags: np.ndarray, shortest: int) -> np.ndarray:
    """Drop runs that are too short for an annotator to bother, (N,) bool."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    kept = np.zeros_like(flags)
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start >= shortest:
            kept[start:end] = True
    return kept
