"""Several scored runs of the same cases in one ranking, and how much that depends on the cases."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from acouslic import files
from acouslic.errors import InputError
from evaluation import page, plots
from evaluation.compare import SAME, refuse_other_cases
from evaluation.intervals import (
    LEVEL_PERCENT,
    RESAMPLES,
    SEED,
    few_subjects,
    interval,
    mean_draws,
    subject_draws,
)
from evaluation.score import SCORE_TERMS, read_score

LEADERBOARD_JSON, LEADERBOARD_PAGE = "leaderboard.json", "leaderboard.html"
LEADERBOARD_TEX = "leaderboard.tex"
ROOM, TEMPLATE = "evaluation", "leaderboard.html.j2"
TEX_MARK = "% acouslic leaderboard"
# Texts by which files of ours are known.
MARKS: Mapping[str, str] = {
    LEADERBOARD_JSON: '"standings"',
    LEADERBOARD_PAGE: page.mark(ROOM),
    LEADERBOARD_TEX: TEX_MARK,
}
_TEX = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Standing:
    """How one run stands."""

    name: str
    """What it is called."""
    folder: str
    """Where its score lies."""
    bundle_id: str | None
    """The bundle that gave the answers; None where that is not known."""
    score: float
    """The mean score."""
    ci95: Interval
    """Its 95 % interval over subjects; None where there are no two."""
    terms: dict[str, float]
    """Means of NAE, WFSS and soft Dice."""
    difference: float
    """Its mean score less the best run's, paired over cases."""
    difference_ci95: Interval
    """The difference's interval."""
    ranks: list[float] | None
    """The share of resamples in which it is first, second, and so on; equals share their places."""


@dataclass(frozen=True)
class Leaderboard:
    """A ranking, the best run first; in plain types, as leaderboard.json holds it."""

    n_cases: int
    """Number of cases, the same in all runs."""
    n_subjects: int
    """Of how many subjects they are."""
    simulated: bool
    """Whether any run's images or weights are simulated."""
    resamples: int
    """How often the subjects were drawn."""
    seed: int
    """Seed of the draws."""
    standings: list[Standing]
    """The runs."""
    pairs: list[list[tuple[float, Interval]]]
    """By row and column in the order of the runs: mean of row minus column, and its interval."""
    cases: list[dict[str, Any]]
    """case, subject_id, scores and frames by run, and spread, the largest first."""


def leaderboard(
    folders: Sequence[Path], names: Sequence[str] | None = None, *, seed: int = SEED
) -> Leaderboard:
    """Rank runs by their mean score.

    Args:
        folders: an --output of `score` each, all of the same cases.
        names: what the runs are called; None takes the folders' names.
        seed: of the bootstrap over subjects; the draws are the same for all runs.

    Raises:
        InputError: there are not two runs, names do not fit, or cases differ.
    """
    called = _names(folders, names)
    results = [read_score(folder) for folder in folders]
    by_run = [{case["case"]: case for case in result["cases"]} for result in results]
    for run, folder in zip(by_run[1:], folders[1:], strict=True):
        refuse_other_cases(by_run[0].keys(), run.keys(), folders[0], folder)
    cases = sorted(by_run[0])
    subjects = [str(by_run[0][case]["subject_id"]) for case in cases]
    scores = np.array([[run[case]["score"] for run in by_run] for case in cases], float)
    order = np.argsort(-scores.mean(axis=0), kind="stable")
    by_draw = _by_draw(scores[:, order], subjects, seed)
    ranked = [by_run[k] for k in order]
    return Leaderboard(
        n_cases=len(cases),
        n_subjects=len(set(subjects)),
        simulated=any(bool(result["settings"]["simulated"]) for result in results),
        resamples=RESAMPLES,
        seed=seed,
        standings=[
            _standing(place, called[k], folders[k], results[k], scores[:, order], by_draw)
            for place, k in enumerate(order)
        ],
        pairs=_pairs(scores[:, order], by_draw),
        cases=_cases(cases, subjects, ranked),
    )


def table(board: Leaderboard) -> str:
    """The ranking as text for people."""
    width = max(len(standing.name) for standing in board.standings) + 2
    lines = [
        f"{board.n_cases} cases of {board.n_subjects} subjects; first: share of resamples",
        f"{'':{width}}{'score':>8}{'NAE':>8}{'WFSS':>8}{'Dice':>8}{'to best':>9}{'first':>8}"
        f"   {LEVEL_PERCENT:g} % interval of score and of difference",
    ]
    for standing in board.standings:
        terms = "".join(f"{standing.terms[key]:8.4f}" for key in SCORE_TERMS)
        nae, wfss, dice = terms[:8], terms[8:16], terms[16:]
        first = "-" if standing.ranks is None else f"{100 * standing.ranks[0]:.1f} %"
        lines.append(
            f"{standing.name:{width}}{standing.score:8.4f}{nae}{wfss}{dice}"
            f"{standing.difference:+9.4f}{first:>8}"
            f"   {_ends(standing.ci95, '.4f')}   {_ends(standing.difference_ci95, '+.4f')}"
        )
    differing = [case for case in board.cases if case["spread"] > SAME]
    lines.append(f"the runs differ on {len(differing)} of {board.n_cases} cases")
    return "\n".join(lines)


def latex(board: Leaderboard) -> str:
    """The ranking as a LaTeX table, for a document with booktabs."""
    kind = ", simulated images: no figures of patients" if board.simulated else ""
    lines = [
        f"{TEX_MARK}: {board.n_cases} cases of {board.n_subjects} subjects{kind}",
        r"\begin{tabular}{lrrrrrr}",
        r"\toprule",
        r"Run & Score (95\,\%) & NAE & WFSS & Soft Dice & To the best (95\,\%) & First \\",
        r"\midrule",
    ]
    for standing in board.standings:
        nae, wfss, dice = (f"{standing.terms[key]:.3f}" for key in SCORE_TERMS)
        first = "--" if standing.ranks is None else rf"{100 * standing.ranks[0]:.0f}\,\%"
        to_best = _tex_figure(standing.difference, standing.difference_ci95, "+.3f")
        cells = (
            _tex_text(standing.name),
            _tex_figure(standing.score, standing.ci95, ".3f"),
            nae,
            wfss,
            dice,
            to_best if standing is not board.standings[0] else "--",
            first,
        )
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def html(board: Leaderboard) -> str:
    """The ranking as a page that needs nothing outside of itself."""
    return page.render(
        ROOM,
        TEMPLATE,
        board=board,
        few=few_subjects(board.n_subjects),
        level_percent=LEVEL_PERCENT,
        term_names=dict(zip(SCORE_TERMS, ("NAE", "WFSS", "soft Dice"), strict=True)),
        scores_plot=plots.scores_of_runs(board),
        ranks_plot=plots.ranks_of_runs(board) if board.standings[0].ranks else "",
        same=SAME,
    )


def refuse_strangers(output: Path) -> None:
    """Make sure that a leaderboard may be written into a folder.

    Raises:
        OutputError: a file of one of its names is there that is not ours.
    """
    for name, mark in MARKS.items():
        files.refuse_foreign_file(output / name, mark, "a leaderboard")


def write_leaderboard(board: Leaderboard, output: Path) -> None:
    """Write leaderboard.json, .html and .tex into a folder."""
    refuse_strangers(output)
    files.write_json(output / LEADERBOARD_JSON, asdict(board))
    files.write_text(output / LEADERBOARD_PAGE, html(board))
    files.write_text(output / LEADERBOARD_TEX, latex(board))


def _names(folders: Sequence[Path], names: Sequence[str] | None) -> list[str]:
    """A name a run: as given, else the folder's; with its parent's where two are alike."""
    if len(folders) < 2:
        raise InputError(
            expected="two scored runs or more",
            found=f"{len(folders)}",
            advice="give the --output of `score` of each",
        )
    if names is not None:
        called = list(names)
    else:
        paths = [folder.resolve() for folder in folders]
        often = Counter(path.name for path in paths)
        called = [
            path.name if often[path.name] == 1 else f"{path.parent.name}/{path.name}"
            for path in paths
        ]
        if len(set(called)) < len(called):
            called = [f"{name} ({place})" for place, name in enumerate(called, 1)]
    if len(called) != len(folders) or len(set(called)) < len(called):
        raise InputError(
            expected=f"{len(folders)} different names, one a run",
            found=", ".join(called) or "none",
            advice="give as many --names as runs",
        )
    return called


def _by_draw(scores: np.ndarray, subjects: Sequence[str], seed: int) -> np.ndarray | None:
    """Each run's mean score in every resample, (resamples, runs); None below two subjects."""
    names, subject = np.unique(subjects, return_inverse=True)
    if len(names) < 2:
        return None
    return mean_draws(scores, subject, subject_draws(len(names), seed=seed))


def _standing(
    place: int,
    name: str,
    folder: Path,
    result: Mapping[str, Any],
    scores: np.ndarray,
    by_draw: np.ndarray | None,
) -> Standing:
    """The standing of the run at a place of the ranking, from 0; scores are (cases, runs)."""
    means = scores.mean(axis=0)
    return Standing(
        name=name,
        folder=str(folder),
        bundle_id=result["settings"]["bundle_id"],
        score=float(means[place]),
        ci95=None if by_draw is None else interval(by_draw[:, place]),
        terms={key: float(result[key]["mean"]) for key in SCORE_TERMS},
        difference=float(means[place] - means[0]),
        difference_ci95=(None if by_draw is None else interval(by_draw[:, place] - by_draw[:, 0])),
        ranks=None if by_draw is None else _rank_shares(by_draw)[place].tolist(),
    )


def _rank_shares(by_draw: np.ndarray) -> np.ndarray:
    """The share of resamples in which each run has each rank, (runs, ranks).

    Runs that are equal in a resample share the ranks that they take up.
    """
    n_runs = by_draw.shape[1]
    # A difference below SAME is rounding: the resample's means are then equal.
    rounded = np.round(by_draw / SAME) * SAME
    first = rankdata(-rounded, method="min", axis=1)
    last = rankdata(-rounded, method="max", axis=1)
    ranks = np.arange(1, n_runs + 1)
    held = (first[:, :, None] <= ranks) & (ranks <= last[:, :, None])
    return np.asarray((held / held.sum(axis=2, keepdims=True)).mean(axis=0))


def _pairs(scores: np.ndarray, by_draw: np.ndarray | None) -> list[list[tuple[float, Interval]]]:
    means, n_runs = scores.mean(axis=0), scores.shape[1]
    return [
        [
            (
                float(means[row] - means[column]),
                None if by_draw is None else interval(by_draw[:, row] - by_draw[:, column]),
            )
            for column in range(n_runs)
        ]
        for row in range(n_runs)
    ]


def _cases(
    names: Sequence[str], subjects: Sequence[str], by_run: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    cases = []
    for name, subject in zip(names, subjects, strict=True):
        scores = [float(run[name]["score"]) for run in by_run]
        cases.append(
            {
                "case": name,
                "subject_id": subject,
                "scores": scores,
                "frames": [run[name]["frame"] for run in by_run],
                "spread": max(scores) - min(scores),
            }
        )
    return sorted(cases, key=lambda case: (-case["spread"], case["case"]))


def _ends(ends: Interval, form: str) -> str:
    return "-" if ends is None else f"{ends[0]:{form}} .. {ends[1]:{form}}"


def _tex_figure(value: float, ends: Interval, form: str) -> str:
    numbers = f"{value:{form}}"
    if ends is not None:
        numbers += f"\\ ({ends[0]:{form}}, {ends[1]:{form}})"
    return numbers.replace("-", "$-$").replace("+", "$+$")


def _tex_text(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in text)
