"""The results as tables, in the paper's order and beside its figures: Markdown and HTML of the same
rows.

A figure over several trials is mean +- standard deviation; an interval is 95 %, over test subjects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from acouslic import files

MISSING = "-"
MARKDOWN, HTML = "table.md", "table.html"
INTERPRETATION = (
    "Every formula of the Quality system is our interpretation: of its paper only the abstract is"
    " public, and none of its figures is claimed to be reproduced."
)
Cell = Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class Table:
    """A title, column names, rows of text, and a remark below."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    remark: str = ""


@dataclass(frozen=True)
class Page:
    """All that is shown. `warnings` come first and large."""

    title: str
    warnings: list[str]
    facts: list[str]
    tables: list[Table]
    lines: list[str]
    failures: list[str]
    plots: list[str]


def build_page(results: dict[str, Any], plots: Sequence[str]) -> Page:
    """The page of results.json's content."""
    systems = results["systems"]
    rated = {name: each for name, each in systems.items() if "plcc" in each["mean"]}
    tables = [
        _table("Annotated or not, frame by frame, beside the paper", MAIN_COLUMNS, systems,
               "paper: the means that arXiv 2507.22802 gives for the real data; SEG's parameters"
               " are those of its decoder."),
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
    return Page(
        title=f"Benchmark, protocol {results['protocol']['name']}",
        warnings=results["warnings"],
        facts=_facts(results),
        tables=tables,
        lines=[training_line(each, results["counts"]) for each in systems.values()],
        failures=[f"{name}: {why}" for name, why in results["failed"].items()],
        plots=list(plots),
    )


def _table(
    title: str, columns: dict[str, Cell], systems: dict[str, Any], remark: str = ""
) -> Table:
    rows = [tuple(cell(each) for cell in columns.values()) for each in systems.values()]
    return Table(title, tuple(columns), rows, remark)


def spread(measure: str) -> Cell:
    """Mean and deviation over trials."""

    def cell(summary: dict[str, Any]) -> str:
        mean = summary["mean"].get(measure)
        if mean is None:
            return MISSING
        if len(summary["trials"]) < 2:
            return f"{mean:.4f}"
        return f"{mean:.4f} ± {summary['sd'][measure]:.3f}"

    return cell


def published(figure: str) -> Cell:
    def cell(summary: dict[str, Any]) -> str:
        value = (summary["published"] or {}).get(figure)
        if value is None:
            return MISSING
        deviation = summary["published"]["f1_sd"] if figure == "f1" else None
        text = value if isinstance(value, str) else f"{value:.4f}"
        return text if deviation is None else f"{text} ± {deviation:.3f}"

    return cell


def ends(measure: str) -> Cell:
    def cell(summary: dict[str, Any]) -> str:
        return _interval(summary["interval"][measure], "{:.3f}")

    return cell


def difference(measure: str) -> Cell:
    def cell(summary: dict[str, Any]) -> str:
        found = summary["difference_to_best"][measure]
        if found["difference"] is None:
            return MISSING
        if summary["title"] == summary["best_title"]:
            return "best"
        return f"{found['difference']:+.3f} ({_interval(found['interval'], '{:+.3f}')})"

    return cell


def _interval(found: Sequence[float] | None, form: str) -> str:
    return MISSING if found is None else " .. ".join(form.format(end) for end in found)


def parameters(key: str) -> Cell:
    def cell(summary: dict[str, Any]) -> str:
        count = summary["parameters"].get(key)
        return MISSING if count is None else in_millions(count)

    return cell


def real(protocol: str) -> Cell:
    """Trainable parameters of the real architecture under a protocol, to the last one."""

    def cell(summary: dict[str, Any]) -> str:
        return f"{summary['real_parameters'][protocol]:,}"

    return cell


def in_millions(count: int) -> str:
    """As the paper prints it, with a digit more below a million."""
    millions = count / 1e6
    return f"{millions:.0f} M" if millions >= 100 else f"{millions:.{1 if millions >= 1 else 2}f} M"


def title(summary: dict[str, Any]) -> str:
    return str(summary["title"])


MAIN_COLUMNS: dict[str, Cell] = {
    "system": title,
    "network": lambda summary: str(summary["network"]),
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
    "trained": parameters("trainable"),
    "all": parameters("total"),
    "real network, paper": real("paper"),
    "real network, strict": real("strict"),
    "training, s": lambda summary: f"{summary['train_seconds']:.1f}",
    "test frames a second": lambda summary: f"{summary['frames_per_second']:.0f}",
    "trials": lambda summary: str(len(summary["trials"])),
    "thresholds": lambda summary: ", ".join(f"{each:.3g}" for each in summary["thresholds"]),
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
    names = ("cases", "subjects", "frames", "black_frames", "positives", "positive_percent")
    rows = [(part, *(str(found[name]) for name in names)) for part, found in counts.items()]
    remark = f"{counts['test']['subjects_also_in_training']} subjects are in training and test."
    return Table("What the parts hold", ("part", *names), rows, remark)


def _facts(results: dict[str, Any]) -> list[str]:
    protocol = {k: v for k, v in results["protocol"].items() if k != "name"}
    return [
        "protocol: " + _listed(protocol),
        "schedule: " + _listed(results["schedule"]),
        f"frames of {results['size_px']} px, device {results['compute']['device']},"
        f" {results['compute']['precision']}; code {results['code']}",
    ]  # fmt: skip


def _listed(options: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_word(each)}" for name, each in options.items())


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "all" if value is None else str(value)


def training_line(summary: dict[str, Any], counts: dict[str, dict[str, Any]]) -> str:
    """What was trained on what, in a sentence."""
    part = counts["training"]
    sources = list(dict.fromkeys(summary["begun_from"]))
    return (
        f"{summary['title']}: {summary['network']}, from {', then from '.join(sources)};"
        f" trained: {summary['trained']} ({in_millions(summary['parameters']['trainable'])} of"
        f" {in_millions(summary['parameters']['total'])}); on {part['frames']:,} frames of"
        f" {part['cases']} cases, {part['positive_percent']} % positive;"
        f" {len(summary['trials'])} trials"
    )


def markdown(page: Page) -> str:
    parts = [f"# {page.title}", *(f"**{each}**" for each in page.warnings)]
    parts.append("\n".join(f"- {each}" for each in page.facts))
    for table in page.tables:
        parts += [f"## {table.title}", _markdown_table(table)]
        parts += [table.remark] if table.remark else []
    parts += ["## What was trained on what", "\n".join(f"- {each}" for each in page.lines)]
    if page.failures:
        parts += ["## Failed", "\n".join(f"- {each}" for each in page.failures)]
    parts += [f"![{Path(plot).stem}]({plot})" for plot in page.plots]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    lines = [table.columns, ("---",) * len(table.columns), *table.rows]
    safe = [[cell.replace("|", "/") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in safe)


TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ page.title }}</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 82rem;
       padding: 0 1rem; color: #1b2430; }
h2 { margin-top: 2rem; font-size: 1.15rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #d8dee6; text-align: right;
         white-space: nowrap; }
th { background: #eef2f6; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
th:first-child { background: #eef2f6; }
.warning { background: #fff3cd; border-left: 4px solid #d39e00; padding: .5rem .8rem; }
.failed { background: #fde2e1; border-left: 4px solid #b3261e; padding: .5rem .8rem; }
.remark, .facts { color: #54606e; font-size: 13px; }
img { max-width: 100%; display: block; margin: 1rem 0; }
</style></head><body>
<h1>{{ page.title }}</h1>
{% for each in page.warnings %}<p class="warning">{{ each }}</p>{% endfor %}
{% if page.failures %}<div class="failed"><b>Failed</b><ul>
{% for each in page.failures %}<li>{{ each }}</li>{% endfor %}</ul></div>{% endif %}
<ul class="facts">{% for each in page.facts %}<li>{{ each }}</li>{% endfor %}</ul>
{% for table in page.tables %}
<h2>{{ table.title }}</h2>
<div class="scroll"><table><thead><tr>
{% for name in table.columns %}<th>{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% if table.remark %}<p class="remark">{{ table.remark }}</p>{% endif %}
{% endfor %}
<h2>What was trained on what</h2>
<ul>{% for each in page.lines %}<li>{{ each }}</li>{% endfor %}</ul>
{% for plot in page.plots %}<img src="{{ plot }}" alt="{{ plot }}">{% endfor %}
</body></html>
"""


def html(page: Page) -> str:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(TEMPLATE).render(page=page)


def write_tables(output: Path, page: Page) -> None:
    """Write table.md and table.html."""
    files.write_text(output / MARKDOWN, markdown(page))
    files.write_text(output / HTML, html(page))
