"""Why a frame was chosen: what the network and the calibration say of every frame of a stack.

The network runs once more, on the stages that `pipeline.measure` is made of, because an answer on
disk holds the chosen frame alone. Where the truth is known, every frame is scored with its own
outline, as if it had been the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from acouslic.bundle import Bundle
from acouslic.challenge import CHALLENGE_FAN, NEAREST_FRAMES, SPACING_MM
from acouslic.expected_score import Posteriors, ac_term, expected_score, frame_term, mask_term
from acouslic.mask import Outline
from acouslic.preprocess import to_grid
from acouslic.segment import full_size, predict
from acouslic.selection import Outlines, believe, choose, ranked
from acouslic.stack import Stack, sweep_slices
from dataset.labels import Labels
from evaluation.metrics import CaseMetrics, case_metrics, score

Terms = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Explanation:
    """What speaks for and against each of a stack's T frames."""

    belief: Posteriors
    """The probabilities behind the expected score."""
    terms: Terms
    """What AC, frame and mask are expected to bring: `ac`, `frame`, `mask`, (T,) each."""
    scores: np.ndarray
    """(T,), the expected scores: the terms' sum."""
    chosen: int
    """The frame that won."""
    outlines: Mapping[int, Outline]
    """The outline that each frame would have been answered with; none where no mask is seen."""
    alternatives: tuple[tuple[str, int], ...]
    """What to compare the chosen frame with: why it is of interest, and the frame; best first."""


@dataclass(frozen=True)
class TrueValue:
    """What a frame would have brought by the truth, had it been the answer."""

    metrics: CaseMetrics
    """The official values."""

    @property
    def score(self) -> float:
        """The case's score."""
        values = self.metrics.values
        return score(*(values[key] for key in ("nae_circumference", "wfss", "DiceCoefficientSoft")))


def explain(stack: Stack, bundle: Bundle) -> Explanation:
    """Choose a stack's frame as `measure` does, and keep all that it was chosen by.

    Raises:
        OddStackError: the stack is one that cannot be measured.
    """
    if stack.oddity is not None:
        raise stack.oddity
    config = bundle.config.selection
    tissue = stack.tissue
    size, device = bundle.config.network.trunk.image_size, bundle.engine.device
    grid = to_grid(stack.frames, size, np.flatnonzero(tissue), device)
    prediction = predict(bundle.engine, grid, tissue, cpu_too=bundle.cpu_too)
    belief = believe(prediction, tissue, config, bundle.sweep_head)
    scores = expected_score(belief, config.calibration)
    outlines = Outlines(partial(full_size, prediction), stack.geometry.spacing_mm[0], config)
    chosen, outline = choose(scores, tissue, outlines)
    with_mask = (prediction.mask_logits > 0).any(axis=(1, 2)) & tissue
    drawn = {frame: outlines[frame] for frame in np.flatnonzero(with_mask).tolist()}
    return Explanation(
        belief=belief,
        terms={
            "ac": ac_term(belief, config.calibration),
            "frame": frame_term(belief),
            "mask": mask_term(belief, config.calibration),
        },
        scores=scores,
        chosen=chosen,
        outlines={k: line for k, line in drawn.items() if line is not None} | {chosen: outline},
        alternatives=_alternatives(scores, tissue, chosen),
    )


def true_values(
    explanation: Explanation, truth: Labels, references_mm: Sequence[float | None]
) -> dict[int, TrueValue]:
    """What each frame would have scored by the truth.

    Args:
        explanation: of the same stack.
        truth: its labels.
        references_mm: AC of sweeps 1 to 6, None where a sweep has none.

    Returns:
        By frame; all others would have scored 0.
    """
    fan, empty = CHALLENGE_FAN.mask(truth.frame_shape), np.zeros(truth.frame_shape, bool)
    values = {}
    for frame in _frames_that_can_score(truth, references_mm):
        outline = explanation.outlines.get(frame)
        mask = empty if outline is None else outline.mask
        values[frame] = TrueValue(
            case_metrics(truth, references_mm, mask, frame, fan_mask=fan, spacing_mm=SPACING_MM)
        )
    return values


def _frames_that_can_score(truth: Labels, references_mm: Sequence[float | None]) -> list[int]:
    """Those in a sweep with a reference, and those near an annotated one of their sweep."""
    can = np.zeros(truth.n_frames, bool)
    for sweep, reference_mm in zip(sweep_slices(truth.n_frames), references_mm, strict=True):
        near = np.flatnonzero(truth.filled[sweep])[:, None] - np.arange(sweep.stop - sweep.start)
        can[sweep] = (np.abs(near) <= NEAREST_FRAMES).any(axis=0) | (reference_mm is not None)
    return [int(frame) for frame in np.flatnonzero(can)]


def _alternatives(
    scores: np.ndarray, tissue: np.ndarray, chosen: int
) -> tuple[tuple[str, int], ...]:
    """The runner-up, the best frame elsewhere in the chosen sweep, and that of each other."""
    ranking = ranked(scores, tissue)
    others = ranking[ranking != chosen]
    length = len(scores) // len(sweep_slices(len(scores)))
    named = {int(frame): "runner-up" for frame in others[:1]}
    far = np.abs(others - chosen) >= NEAREST_FRAMES
    for sweep in np.unique(others // length).tolist():
        inside = others // length == sweep
        is_own = sweep == chosen // length
        candidates = others[inside & far] if is_own else others[inside]
        where = f"elsewhere in sweep {sweep + 1}" if is_own else f"best of sweep {sweep + 1}"
        named |= {int(frame): named.get(int(frame), where) for frame in candidates[:1]}
    ordered = sorted(named.items(), key=lambda item: (-float(scores[item[0]]), item[0]))
    return tuple((why, frame) for frame, why in ordered)


def best_by_truth(values: Mapping[int, TrueValue]) -> int | None:
    """The frame that would have scored most, with its own outline; None where none scores."""
    frames = [frame for frame, value in values.items() if value.score > 0]
    return max(frames, key=lambda frame: (values[frame].score, -frame), default=None)
