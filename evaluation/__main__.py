"""The commands: python -m evaluation score | compare | run | report."""

import argparse
import logging
import sys
from pathlib import Path

from acouslic.errors import AcouslicError
from evaluation.intervals import SEED


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 1 where something is left undone."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s", level="INFO")
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except AcouslicError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; what is done stays, and `run` goes on from it", file=sys.stderr)
        return 130


# Each command imports its own modules: scoring needs no torch, and running no plots.


def _score(options: argparse.Namespace) -> int:
    from evaluation.score import Settings, score, table, write_score

    settings = Settings(
        predictions=options.predictions,
        truth=options.truth,
        fov_mask=options.fov_mask,
        subjects=options.subjects,
        cases=tuple(options.cases) if options.cases else None,
        allow_missing=options.allow_missing,
        workers=options.workers,
        seed=options.seed,
    )
    result = score(settings)
    write_score(result, options.output)
    print(table(result))
    print(f"{len(result['cases'])} cases, {len(result['warnings'])} warnings: {options.output}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from evaluation.compare import compare, table, write_comparison

    comparison = compare(options.a, options.b, seed=options.seed)
    print(table(comparison))
    if options.output is not None:
        write_comparison(comparison, options.output)
    return 0


def _run(options: argparse.Namespace) -> int:
    from evaluation.run import Settings, run

    settings = Settings(
        dataset=options.dataset,
        model=options.model,
        output=options.output,
        device=options.device,
        limit=options.limit,
        cases=tuple(options.cases) if options.cases else None,
        rule=options.rule,
    )
    return 1 if run(settings).failed else 0


def _report(options: argparse.Namespace) -> int:
    from evaluation.report import write_report

    path = write_report(
        options.scored, options.output, images=options.images, workers=options.workers
    )
    print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluation", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_score(commands.add_parser("score", help="score predictions as the challenge does"))
    _add_compare(commands.add_parser("compare", help="two scored runs, paired over cases"))
    _add_run(commands.add_parser("run", help="run the pipeline over a data set"))
    _add_report(commands.add_parser("report", help="one HTML page about a scored run"))
    return parser


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_score)
    parser.add_argument("predictions", type=Path, help="evaluation input, or <uuid>/ a case")
    parser.add_argument("truth", type=Path, help="ground truth, or a data set")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--fov-mask", type=Path, help="image file; else the project's own fan")
    parser.add_argument("--subjects", type=Path, help="csv with uuid, subject_id")
    parser.add_argument("--cases", nargs="+", metavar="UUID", help="only these")
    parser.add_argument("--allow-missing", action="store_true", help="score them as the worst")
    parser.add_argument("--workers", type=int, help="processes; else one a core")
    parser.add_argument("--seed", type=int, default=SEED, help="of the intervals' resampling")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_compare)
    parser.add_argument("a", type=Path, help="an --output of score")
    parser.add_argument("b", type=Path, help="another one of the same cases")
    parser.add_argument("--output", type=Path, help="write comparison.json into this folder")
    parser.add_argument("--seed", type=int, default=SEED)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_run)
    parser.add_argument("dataset", type=Path, help="data set in the training set's layout")
    parser.add_argument("--model", type=Path, required=True, help="bundle")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--limit", type=int, help="the first so many cases")
    parser.add_argument("--cases", nargs="+", metavar="UUID", help="only these")
    rules = ("shipped", "largest-area", "highest-probability", "peak-probability")
    parser.add_argument("--rule", choices=rules, default="shipped", help="how the frame is chosen")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_report)
    parser.add_argument("scored", type=Path, help="an --output of score")
    parser.add_argument("--output", type=Path, help="file; else report.html in that folder")
    parser.add_argument("--images", type=Path, help="folder of the stacks, where truth has none")
    parser.add_argument("--workers", type=int, help="processes; else one a core")


if __name__ == "__main__":
    sys.exit(main())
