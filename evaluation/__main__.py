"""`python -m evaluation COMMAND`: run a bundle over a data set, score it, compare, report."""

import sys
from collections.abc import Mapping, Sequence

from acouslic.threads import use_threads
from dataset.command import Command, run
from evaluation.options import (
    CompareOptions,
    FramesOptions,
    MergeOptions,
    ReportOptions,
    RetryOptions,
    RunOptions,
    ScoreOptions,
    SimulateOptions,
    SpeedOptions,
    ViewOptions,
)

# Each command imports its own modules: help needs neither torch nor plots, nor does scoring.


def run_cases(options: RunOptions) -> int:
    """Run the shipped pipeline over a data set; the exit code is 1 where a case failed."""
    use_threads(None)
    from evaluation.run import run

    return 0 if run(options).status == "finished" else 1


def retry_cases(options: RetryOptions) -> int:
    """Run what failed in a run or was not finished; the exit code is 1 where a case fails again."""
    use_threads(None)
    from evaluation.run import retry

    return 0 if retry(options).status == "finished" else 1


def merge_shards(options: MergeOptions) -> None:
    """Put the shards of a run together; holes, doubles and mixed bundles are refused."""
    from evaluation.merge import merge

    log = merge(options.shards, options.output)
    print(f"{len(log.cases)} cases of {len(options.shards)} shards: {options.output}")


def score_cases(options: ScoreOptions) -> None:
    """Score answers as the challenge does, with 95 % intervals."""
    from evaluation.score import refuse_strangers, score, table, write_score

    refuse_strangers(options.output)
    result = score(options)
    write_score(result, options.output)
    print(table(result))
    print(f"{len(result['cases'])} cases, {len(result['warnings'])} warnings: {options.output}")


def compare_scores(options: CompareOptions) -> None:
    """Compare two or more scored runs of the same cases, paired over cases, and rank them."""
    from evaluation import compare, leaderboard

    runs = (options.a, options.b, *options.more)
    board = leaderboard.leaderboard(runs, options.names, seed=options.seed)
    pair = None if options.more else compare.compare(options.a, options.b, seed=options.seed)
    print(leaderboard.table(board) if pair is None else compare.table(pair))
    if options.output is not None:
        leaderboard.refuse_strangers(options.output)
        if pair is not None:
            compare.write_comparison(pair, options.output)
        leaderboard.write_leaderboard(board, options.output)


def simulate_choice(options: SimulateOptions) -> None:
    """Compare rules for choosing the frame on real label sequences, with simulated networks."""
    from evaluation.simulate import compare_rules

    print(compare_rules(options))


def judge_single_frames(options: FramesOptions) -> None:
    """Try a bundle on single frames with labels: Dice by case, empty masks, a sheet of pictures."""
    from evaluation.frames import judge_frames

    print(judge_frames(options))


def report_score(options: ReportOptions) -> None:
    """Write one HTML page about a scored run: figures, plots, and every case with its pictures."""
    from evaluation.report import write_report

    print(write_report(options))


def view_cases(options: ViewOptions) -> None:
    """Write a page a case that shows all its frames, and why one of them was chosen."""
    from evaluation.view import write_views

    for path in write_views(options):
        print(path)


def time_stack(options: SpeedOptions) -> None:
    """Time every stage of a stack's answer with each engine, and a peer's network beside it."""
    from evaluation.speed import measure_speed, table, write_speed

    speed = measure_speed(options)
    write_speed(speed, options.output)
    print(table(speed))


COMMANDS: Mapping[str, Command] = {
    "run": run_cases,
    "retry": retry_cases,
    "merge": merge_shards,
    "score": score_cases,
    "compare": compare_scores,
    "report": report_score,
    "frames": judge_single_frames,
    "view": view_cases,
    "speed": time_stack,
    "simulate-choice": simulate_choice,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    return run(
        COMMANDS,
        prog="python -m evaluation",
        description="How good the answers are: run, score, compare, report, view.",
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
