"""The ideal observer: what a phantom's labels let anybody score who sees the anatomy without error.

It knows what each frame shows, its outline, whether the mother images poorly, and how the place's
annotators decide; who of them had this case, and what he overlooked, it does not know. It draws
annotators and takes the frame whose score is best on average. What it loses, no network can win.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from acouslic.challenge import (
    AC_SHARE,
    FRAME_SHARE,
    FRAMES_PER_SWEEP,
    MASK_SHARE,
    NEAREST_FRAMES,
    Quality,
)
from dataset.processes import in_processes
from phantom.annotator import (
    ANYWHERE,
    View,
    best_frame,
    judge,
    sample_annotator,
    view_of,
    with_oversights,
)
from phantom.chance import Stream, stream
from phantom.site import Site
from phantom.truth import Truth, truth

ANNOTATORS = 200
# Of 1 - NAE, WFSS and DSC_soft in the score.
SHARES = np.array([AC_SHARE, FRAME_SHARE, MASK_SHARE])
FIGURES = ("score", "1 - NAE", "WFSS", "DSC_soft", "the sweep has a reference")


def table(seed: int, cases: range, site: Site | None = None, workers: int = 1) -> str:
    """The observer's mean figures over cases as Markdown, each with its standard error."""
    rows = list(in_processes(partial(_figures_of, seed, site=site), cases, workers, "phantoms"))
    means, errors = np.mean(rows, axis=0), np.std(rows, axis=0) / np.sqrt(len(rows))
    lines = [f"| ideal observer, {len(rows)} cases | mean ± standard error |", "|---|---|"]
    lines += [
        f"| {name} | {mean:.3f} ± {error:.3f} |"
        for name, mean, error in zip(FIGURES, means, errors, strict=True)
    ]
    return "\n".join(lines)


def figures(known: Truth) -> np.ndarray:
    """What the observer gets of a case, (5,), in the order of FIGURES."""
    views = [view_of(sweep) for sweep in known.sweeps]
    habits = ANYWHERE if known.site is None else known.site.habits
    rng = stream(known.seed, known.case, Stream.OBSERVER)
    expected = np.zeros((len(views), FRAMES_PER_SWEEP))
    for _ in range(ANNOTATORS):
        # One who annotates nothing is none of this case's; he adds nothing to any frame.
        annotator = sample_annotator(rng, hazy=known.haze > 0, habits=habits)
        by_sweep = [judge(view, annotator) for view in views]
        merits = [view.merit(annotator.suboptimal) for view in views]
        by_sweep = with_oversights(rng, by_sweep, merits, habits)
        expected += np.tensordot(SHARES, worth(views, by_sweep, merits), axes=1)
    sweep, frame = np.unravel_index(np.argmax(expected), expected.shape)
    labels = known.labels
    parts = worth(views, [one.quality for one in labels], [one.merit for one in labels])
    chosen = parts[:, sweep, frame]
    return np.array([SHARES @ chosen, *chosen, labels[sweep].ac_mm is not None])


def worth(
    views: Sequence[View], by_sweep: Sequence[np.ndarray], merits: Sequence[np.ndarray]
) -> np.ndarray:
    """What each frame is worth, outlined without error, to whoever has its sweep's labels.

    Args:
        views: what the sweeps' frames show.
        by_sweep: their qualities, (N,) each.
        merits: their merits, (N,) each; the best optimal frame, or else suboptimal one, is the
            sweep's reference.

    Returns:
        1 - NAE, WFSS and DSC_soft, (3, sweeps, FRAMES_PER_SWEEP). Outlines of neighbours in a sweep
        count as alike, and a circumference is the section's own. Frames without any of the
        abdomen, and black ones, are worth nothing.
    """
    has_optimal = any((quality == Quality.OPTIMAL).any() for quality in by_sweep)
    suboptimal = Quality.SUBOPTIMAL if has_optimal else Quality.OPTIMAL
    values = np.array([0.0, suboptimal.value_in_score, Quality.OPTIMAL.value_in_score])
    parts = np.zeros((3, len(views), FRAMES_PER_SWEEP))
    for sweep, (view, quality, merit) in enumerate(zip(views, by_sweep, merits, strict=True)):
        annotated = np.flatnonzero(quality)
        if not annotated.size:
            continue
        length_mm = view.sections.circumference_mm()
        reference_mm = length_mm[best_frame(quality, merit)]
        steps = np.abs(np.arange(len(quality))[:, None] - annotated).min(axis=1)
        nae = np.abs(length_mm - reference_mm) / np.maximum(length_mm, reference_mm)
        parts[:, sweep, : len(quality)] = np.where(
            view.is_abdomen,
            [1 - nae, values[quality], np.clip(1 - steps / NEAREST_FRAMES, 0, 1)],
            0,
        )
    return parts


def _figures_of(seed: int, case: int, *, site: Site | None) -> np.ndarray:
    return figures(truth(seed, case, site))
