"""The results as tables, in the paper's order and beside its figures: Markdown, HTML and LaTeX.

A figure over several trials is mean ± standard deviation; an interval is 95 %, over test subjects.
A `Cell` makes the text of one field from a system's summary (`systems` of results.json).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acouslic import files
from benchmark.marks import DIFFERS, NOT_PUBLISHED, STAND_IN
from evaluation.page import mark, render

MISSING = "-"
MARKDOWN, HTML, LATEX = "table.md", "table.html", "table.tex"
ROOM, TEMPLATE = "benchmark", "table.html.j2"
TITLE = "Benchmark, protocol"
# What stands in every table of ours.
TABLE_MARKS: Mapping[str, str] = {
    MARKDOWN: f"# {TITLE}",
    HTML: mark(ROOM),
    LATEX: f"% {TITLE}",
}
# Columns of words, not of figures.
WORD_COLUMNS = ("network",)
INTERPRETATION = (
    "Every formula of the Quality system is our interpretation: of its paper only the abstract is"
    " public, and none of its figures is claimed to be reproduced."
)
# Beside a system's name in every table.
MARKS = {
    STAND_IN: "a small stand-in for the real network, whose figures say nothing of that one.",
    NOT_PUBLISHED: "no paper's: this project's choice, or its interpretation of an abstract.",
    DIFFERS: "trained otherwise than in the paper; below stands how.",
}
Cell = Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class Table:
    """One table."""

    title: str
    """What stands above it."""
    columns: tuple[str, ...]
    """Names of the columns."""
    rows: list[tuple[str, ...]]
    """A text for each column, row by row."""
    remark: str = ""
    """What stands below it."""


@dataclass(frozen=True)
class Page:
    """All that is shown."""

    title: str
    """What stands on top."""
    warnings: list[str]
    """What comes first and large."""
    facts: list[str]
    """Protocol, schedule and machine."""
    tables: list[Table]
    """The tables, in their order."""
    lines: list[str]
    """What was trained on what, a line a system."""
    failures: list[str]
    """Systems that failed, with the reason."""
    plots: Mapping[str, str]
    """File names of the plots, with their titles."""


def build_page(results: dict[str, Any], plots: Mapping[str, str]) -> Page:
    """Put together what is shown.

    Args:
        results: the content of results.json.
        plots: file names of the plots, with their titles.

    Returns:
        The page, for `markdown` and `html`.
    """
    systems = results["systems"]
    rated = {name: system for name, system in systems.items() if "plcc" in system["mean"]}
    published_rows = {name: one for name, one in systems.items() if one["published"]}
    judged = {name: one for name, one in systems.items() if one["challenge"]}
    tables = [
        _table("Annotated or not, frame by frame, beside the paper", MAIN_COLUMNS, systems,
               "paper: the means that arXiv 2507.22802 gives for the real data; SEG's parameters"
               " are those of its decoder."),
        _table("Against the paper", AGAINST_COLUMNS, published_rows,
               "The mean minus the published one; in brackets the same in the paper's standard"
               " deviations over trials, which it gives for F1 alone. Nothing is compared for a"
               " stand-in."),
        _table("What the challenge would give", CHALLENGE_COLUMNS, judged, _submit(judged)),
        _table("Ranking, picked frame, intervals", RANKING_COLUMNS, systems,
               "WFSS: of the frame with the highest score. To best: paired, against the system"
               " with the highest mean F1."),
        _table("Size and speed", COST_COLUMNS, systems,
               "real network: what the real architecture trains under either protocol; they differ"
               " where LoRA that trains everywhere is not the paper's LoRA."),
    ]  # fmt: skip
    if rated:
        tables.append(_table("Quality as a number", QUALITY_COLUMNS, rated, INTERPRETATION))
    tables.append(_counts_table(results["counts"]))
    tables = [table for table in tables if table.rows]
    return Page(
        title=f"{TITLE} {results['protocol']['name']}",
        warnings=results["warnings"],
        facts=_facts(results),
        tables=tables,
        lines=[training_line(system, results["counts"]) for system in systems.values()],
        failures=[f"{name}: {why}" for name, why in results["failed"].items()],
        plots=plots,
    )


def _submit(judged: dict[str, Any]) -> str:
    """Which system the figures speak for, and what they are."""
    if not judged:
        return ""
    best = max(judged.values(), key=lambda one: float(one["challenge"]["mean"]["score"]))
    return (
        "Whole stacks of the test part through the shipped pipeline and its choice by expected"
        " score, calibrated on the validation part. A system that draws no mask has those of Joint"
        " (ours), of the same trial. Right sweep: the chosen frame's sweep has an AC."
        f" The highest mean score is that of {best['title']}:"
        f" {best['challenge']['mean']['score']:.3f}."
    )


def _table(
    title: str, columns: dict[str, Cell], systems: dict[str, Any], remark: str = ""
) -> Table:
    rows = [tuple(cell(system) for cell in columns.values()) for system in systems.values()]
    return Table(title, tuple(columns), rows, " ".join(filter(None, [legend(systems), remark])))


def spread(measure: str) -> Cell:
    """A measure's mean and standard deviation over trials."""

    def cell(summary: dict[str, Any]) -> str:
        mean = summary["mean"].get(measure)
        if mean is None:
            return MISSING
        if len(summary["trials"]) < 2:
            return f"{mean:.4f}"
        return f"{mean:.4f} ± {summary['sd'][measure]:.3f}"

    return cell


def published(figure: str) -> Cell:
    """A figure of the paper, with its deviation where it gives one."""

    def cell(summary: dict[str, Any]) -> str:
        value = (summary["published"] or {}).get(figure)
        if value is None:
            return MISSING
        deviation = summary["published"]["f1_sd"] if figure == "f1" else None
        text = value if isinstance(value, str) else f"{value:.4f}"
        return text if deviation is None else f"{text} ± {deviation:.3f}"

    return cell


def against(measure: str) -> Cell:
    """A measure's mean minus the published one, and that in the paper's standard deviations."""

    def cell(summary: dict[str, Any]) -> str:
        theirs = summary["published"][measure]
        mean = summary["mean"].get(measure)
        if theirs is None or mean is None or STAND_IN in summary["marks"]:
            return MISSING
        deviation = summary["published"]["f1_sd"] if measure == "f1" else None
        text = f"{mean - theirs:+.4f}"
        return text if deviation is None else f"{text} ({(mean - theirs) / deviation:+.1f} SD)"

    return cell


def challenge(measure: str) -> Cell:
    """A figure of the challenge, mean and standard deviation over trials."""

    def cell(summary: dict[str, Any]) -> str:
        judged = summary["challenge"]
        text = f"{judged['mean'][measure]:.3f}"
        return text if judged["trials"] < 2 else f"{text} ± {judged['sd'][measure]:.3f}"

    return cell


def ends(measure: str) -> Cell:
    """A measure's interval over test subjects."""

    def cell(summary: dict[str, Any]) -> str:
        return _interval(summary["interval"][measure], "{:.3f}")

    return cell


def difference(measure: str) -> Cell:
    """A measure's paired difference to the best system, with its interval."""

    def cell(summary: dict[str, Any]) -> str:
        to_best = summary["difference_to_best"][measure]
        if to_best["difference"] is None:
            return MISSING
        if summary["title"] == summary["best_title"]:
            return "best"
        return f"{to_best['difference']:+.3f} ({_interval(to_best['interval'], '{:+.3f}')})"

    return cell


def _interval(interval: Sequence[float] | None, form: str) -> str:
    return MISSING if interval is None else " .. ".join(form.format(end) for end in interval)


def parameters(key: str) -> Cell:
    """Trainable or total parameters of the network that was trained."""

    def cell(summary: dict[str, Any]) -> str:
        count = summary["parameters"].get(key)
        return MISSING if count is None else in_millions(count)

    return cell


def real(protocol: str) -> Cell:
    """Trainable parameters of the real architecture under a protocol."""

    def cell(summary: dict[str, Any]) -> str:
        return f"{summary['real_parameters'][protocol]:,}"

    return cell


def in_millions(count: int) -> str:
    """A count as the paper prints it, with a digit more below a million."""
    millions = count / 1e6
    return f"{millions:.0f} M" if millions >= 100 else f"{millions:.{1 if millions >= 1 else 2}f} M"


def title(summary: dict[str, Any]) -> str:
    """The system's name for people, with its marks; see `MARKS`."""
    return " ".join([str(summary["title"]), "".join(summary["marks"])]).strip()


def legend(systems: Mapping[str, dict[str, Any]]) -> str:
    """What the marks mean that some system has."""
    used = [mark for mark in MARKS if any(mark in one["marks"] for one in systems.values())]
    return " ".join(f"{mark} {MARKS[mark]}" for mark in used)


MAIN_COLUMNS: dict[str, Cell] = {
    "system": title,
    "trained": parameters("trainable"),
    "paper": published("parameters"),
    "accuracy": spread("accuracy"),
    "paper's": published("accuracy"),
    "F1": spread("f1"),
    "paper's F1": published("f1"),
    "precision": spread("precision"),
    "paper's P": published("precision"),
    "recall": spread("recall"),
    "paper's R": published("recall"),
}
AGAINST_COLUMNS: dict[str, Cell] = {
    "system": title,
    "F1": against("f1"),
    "accuracy": against("accuracy"),
    "precision": against("precision"),
    "recall": against("recall"),
}
CHALLENGE_COLUMNS: dict[str, Cell] = {
    "system": title,
    "challenge score": challenge("score"),
    "score, 95 %": lambda summary: _interval(summary["challenge"]["interval"]["score"], "{:.3f}"),
    "WFSS": challenge("wfss"),
    "DSC_soft": challenge("dice_soft"),
    "NAE": challenge("nae"),
    "right sweep": challenge("right_sweep"),
    "trials": lambda summary: str(summary["challenge"]["trials"]),
}
RANKING_COLUMNS: dict[str, Cell] = {
    "system": title,
    "F1, 95 %": ends("f1"),
    "F1 to best": difference("f1"),
    "specificity": spread("specificity"),
    "ROC-AUC": spread("roc_auc"),
    "average precision": spread("average_precision"),
    "AP to best": difference("average_precision"),
    "WFSS": spread("wfss"),
    "WFSS to best": difference("wfss"),
}
COST_COLUMNS: dict[str, Cell] = {
    "system": title,
    "network": lambda summary: str(summary["network"]),
    "trained": parameters("trainable"),
    "all": parameters("total"),
    "real network, paper": real("paper"),
    "real network, strict": real("strict"),
    "training, s": lambda summary: f"{summary['train_seconds']:.1f}",
    "test frames a second": lambda summary: f"{summary['frames_per_second']:.0f}",
    "trials": lambda summary: str(len(summary["trials"])),
    "thresholds": lambda summary: ", ".join(f"{x:.3g}" for x in summary["thresholds"]),
}
QUALITY_COLUMNS: dict[str, Cell] = {
    "system": title,
    **{
        name.upper(): spread(name)
        for name in ("plcc", "srocc", "krocc", "mae", "rmse")
    },
    **{
        f"{name.upper()}, per case": spread(f"case_{name}")
        for name in ("plcc", "srocc", "krocc", "mae", "rmse")
    },
}  # fmt: skip


def _counts_table(counts: dict[str, dict[str, Any]]) -> Table:
    keys = ("cases", "subjects", "frames", "black_frames", "positives", "positive_percent")
    rows = [(part, *(str(held[key]) for key in keys)) for part, held in counts.items()]
    remark = f"Subjects in both training and test: {counts['test']['subjects_also_in_training']}."
    columns = ("part", *(key.replace("_", " ") for key in keys))
    return Table("Frames in training, validation and test", columns, rows, remark)


def _facts(results: dict[str, Any]) -> list[str]:
    protocol = {k: v for k, v in results["protocol"].items() if k != "name"}
    return [
        "protocol: " + _listed(protocol),
        "schedule: " + _listed(results["schedule"]),
        f"frames of {results['size_px']} px, device {results['compute']['device']},"
        f" {results['compute']['precision']}; code {results['code']}",
    ]  # fmt: skip


def _listed(options: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_word(value)}" for name, value in options.items())


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "all" if value is None else str(value)


def training_line(summary: dict[str, Any], counts: dict[str, dict[str, Any]]) -> str:
    """What was trained on what, in a sentence."""
    held = counts["training"]
    sources = list(dict.fromkeys(summary["begun_from"]))
    otherwise = summary["differs"]
    return (
        f"{title(summary)}: {summary['network']}, from {', then from '.join(sources)};"
        f" trained: {summary['trained']} ({in_millions(summary['parameters']['trainable'])} of"
        f" {in_millions(summary['parameters']['total'])}); on {held['frames']:,} frames of"
        f" {held['cases']} cases, {held['positive_percent']} % positive;"
        f" {len(summary['trials'])} trials"
        + (f"; otherwise than the paper: {', '.join(otherwise)}" if otherwise else "")
    )


def markdown(page: Page) -> str:
    """The page as Markdown; its plots are files beside it."""
    blocks = [f"# {page.title}", *(f"**{warning}**" for warning in page.warnings)]
    blocks.append(_bullets(page.facts))
    for table in page.tables:
        blocks += [f"## {table.title}", _markdown_table(table)]
        blocks += [table.remark] if table.remark else []
    blocks += ["## What was trained on what", _bullets(page.lines)]
    if page.failures:
        blocks += ["## Failed", _bullets(page.failures)]
    blocks += [f"![{name}]({file})" for file, name in page.plots.items()]
    return "\n\n".join(blocks) + "\n"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _markdown_table(table: Table) -> str:
    lines = [table.columns, ("---",) * len(table.columns), *table.rows]
    safe = [[cell.replace("|", "/") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in safe)


def html(page: Page) -> str:
    """The page as HTML; its plots are files beside it."""
    return render(ROOM, TEMPLATE, page=page, word_columns=WORD_COLUMNS)


# What LaTeX would take for something else, and the marks.
LATEX_TEXT = str.maketrans(
    {
        "&": r"\&",
        "%": r"\%",
        "_": r"\_",
        "#": r"\#",
        "±": r"$\pm$",
        STAND_IN: r"$^\dagger$",
        NOT_PUBLISHED: r"$^\ddagger$",
        DIFFERS: r"$^\S$",
    }
)


def _tex(text: str) -> str:
    return text.translate(LATEX_TEXT)


def latex(page: Page) -> str:
    """The page's tables in LaTeX, each a `table` that needs the package booktabs."""
    blocks = [f"% {page.title}", *(f"% {warning}" for warning in page.warnings)]
    for table in page.tables:
        caption = " ".join([f"{table.title}.", *page.warnings, table.remark])
        head, *rows = (
            " & ".join(map(_tex, cells)) + r" \\" for cells in (table.columns, *table.rows)
        )
        blocks.append(
            "\n".join(
                [
                    r"\begin{table}",
                    rf"\caption{{{_tex(caption)}}}",
                    rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
                    r"\toprule",
                    head,
                    r"\midrule",
                    *rows,
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(blocks) + "\n"


def write_tables(output: Path, page: Page) -> None:
    """Write table.md, table.html and table.tex."""
    files.write_text(output / LATEX, latex(page))
    files.write_text(output / MARKDOWN, markdown(page))
    files.write_text(output / HTML, html(page))
