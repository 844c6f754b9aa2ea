"""Score a submission as the platform asks an organiser's container to: metrics.json of its jobs."""

import argparse
import sys
from pathlib import Path

from acouslic.command import GROUND_TRUTH, INPUT, OUTPUT, add_version_option, run_entry_point


def main() -> int:
    """Run the command and return its exit code: 0, 1 after an error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--input",
        type=Path,
        default=INPUT,
        metavar="DIR",
        help="folder with predictions.json and a folder a job (default: %(default)s)",
    )
    parser.add_argument(
        "--ground-truth",
        type=Path,
        default=GROUND_TRUTH,
        metavar="DIR",
        help="folder with the truth of every case, <uuid>/fetal_abdomen_stacked_masks/<uuid>.mha "
        "and <uuid>/fetal_abdominal_circumference.json; fov_mask.mha in it takes the place of the "
        "project's own fan, and subjects.csv (uuid, subject_id) tells whose each case is "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=OUTPUT,
        metavar="DIR",
        help="folder that metrics.json goes to (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="give a missing or broken answer the worst value of every metric (default: stop)",
    )
    add_version_option(parser)
    return run_entry_point(parser, run)


def run(options: argparse.Namespace) -> None:
    """Score all jobs."""
    # This takes seconds to import; a usage error need not wait for it.
    from evaluation.platform import evaluate

    totals = evaluate(
        options.input,
        options.ground_truth,
        options.output,
        allow_missing=options.allow_missing,
    )
    print(f"score {totals['score']['mean']:.4f} over {totals['cases']} cases")


if __name__ == "__main__":
    sys.exit(main())
