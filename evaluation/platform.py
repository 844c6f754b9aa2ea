"""The organisers' side of the platform: its evaluation input goes in, metrics.json comes out.

By default the platform shows all of that file to whoever submitted (`display_all_metrics` of a
phase). So it has totals alone, where `score` also lists each case with its truth. What is odd about
single cases goes to the log, which the organisers see.
"""

import logging
from pathlib import Path
from typing import Any

from acouslic import files
from evaluation.options import ScoreOptions
from evaluation.score import METRICS_FILE, SCORED_KEYS, score

# What may lie beside the cases in the truth: the official field of view, and whose each case is.
FOV_MASK, SUBJECTS = "fov_mask.mha", "subjects.csv"
log = logging.getLogger(__name__)


def evaluate(
    predictions: Path, truth: Path, output: Path, *, allow_missing: bool = False
) -> dict[str, Any]:
    """Score a submission, and write the totals. An older metrics.json is gone however this ends.

    Args:
        predictions: the folder of predictions.json and of the jobs' outputs.
        truth: the evaluator's ground truth, and FOV_MASK and SUBJECTS where they are given.
        output: the folder that metrics.json goes to.
        allow_missing: whether a missing or broken answer gets the worst value of every metric.

    Returns:
        The content of metrics.json: mean, std and ci95 by the official keys, and the numbers of
        cases and of warnings.

    Raises:
        InputError: truth or predictions cannot be found or read, or a prediction has no truth.
        PredictionError: answers are missing or broken, and they are not allowed to be.
        OSError: the output cannot be written.
    """
    files.write_text(output / METRICS_FILE, "")  # what cannot be written is told before the work
    (output / METRICS_FILE).unlink()
    fov_mask, subjects = truth / FOV_MASK, truth / SUBJECTS
    result = score(
        ScoreOptions(
            predictions,
            truth,
            output,
            fov_mask=fov_mask if fov_mask.is_file() else None,
            subjects=subjects if subjects.is_file() else None,
            allow_missing=allow_missing,
        )
    )
    for entry in result["warnings"]:
        log.warning("case %s: %s", entry["case"], entry["warning"])
    totals = {key: result[key] for key in SCORED_KEYS}
    totals |= {"cases": len(result["cases"]), "warnings": len(result["warnings"])}
    files.write_json(output / METRICS_FILE, totals)
    return totals
