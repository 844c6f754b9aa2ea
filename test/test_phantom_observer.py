"""The ideal observer counts as the challenge does, and loses only what annotators differ in."""

import numpy as np
import pytest

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, FRAMES, FRAMES_PER_SWEEP, SPACING_MM
from dataset.labels import Labels
from evaluation.metrics import case_metrics
from phantom.__main__ import main
from phantom.annotator import view_of
from phantom.observer import figures, worth
from phantom.render import mask_frame
from phantom.site import Site
from phantom.truth import truth

SEED = 61


@pytest.mark.parametrize("case", [0, 1, 2])
def test_a_frame_is_worth_what_the_challenge_gives_for_its_outline(case: int) -> None:
    known = truth(SEED, case, Site.C)
    views = [view_of(sweep) for sweep in known.sweeps]
    labels = known.labels
    parts = worth(views, [one.quality for one in labels], [one.merit for one in labels])
    masks = {frame: mask_frame(known, frame) for frame in np.flatnonzero(known.quality()).tolist()}
    stack, fan = Labels(FRAMES, FRAME_SHAPE, masks), CHALLENGE_FAN.mask()
    references_mm = [label.ac_mm for label in labels]
    first, last = min(masks), max(masks)
    for frame in (first, last, first + 1, first - 3, last + 4, last + 20, FRAMES - 1):
        expected = case_metrics(
            stack,
            references_mm,
            known.outline(frame) if known.tissue()[frame] else np.zeros(FRAME_SHAPE, bool),
            frame,
            fan_mask=fan,
            spacing_mm=SPACING_MM,
        ).values
        error, selection, dice = parts[:, *divmod(frame, FRAMES_PER_SWEEP)]
        assert error == pytest.approx(1 - expected["nae_circumference"], abs=0.02)
        assert selection == expected["wfss"]
        assert dice == pytest.approx(expected["DiceCoefficientSoft"], abs=0.1)


def test_it_loses_only_what_nobody_can_see() -> None:
    # An annotator called the best sweep's optimal frames suboptimal, and another sweep's optimal.
    assert figures(truth(8203, 3, Site.C)) == pytest.approx([0.9, 1, 0.6, 1, 1], abs=1e-3)
    scores = [figures(truth(SEED, case))[0] for case in range(5)]
    assert 0.99 < np.mean(scores) <= 1


def test_the_command_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--ideal-observer", "--cases", "2", "--seed", "1", "--site", "A"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| ideal observer, 2 cases | mean ± standard error |"
    assert len(lines) == 2 + 5
