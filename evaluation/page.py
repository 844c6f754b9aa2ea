"""The HTML pages: templates that extend page.html.j2, filled in.

A room keeps its templates (`*.html.j2`) beside its modules. page.html.j2 has what all pages share:
the head, the colours of `evaluation.style`, the look of text, tables, cards and warnings.
"""

from typing import Any

import jinja2
from markupsafe import Markup

from evaluation.style import CSS_COLOURS

BASE_ROOM = "evaluation"
# Below a scored run: a page a case.
CASES_FOLDER = "cases"


def mark(room: str) -> str:
    """The line of a page's head by which a page of this room is known as ours."""
    return f'<meta name="generator" content="acouslic {room}">'


def render(room: str, template: str, **values: Any) -> str:
    """A page's HTML; it loads nothing from the network.

    Args:
        room: the package that keeps the template, such as "evaluation".
        template: the file's name in that package, such as "report.html.j2".
        values: what the template shows. Text is escaped; SVG has to be marked `safe` there.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(name, ".") for name in dict.fromkeys((room, BASE_ROOM))]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    return environment.get_template(template).render(
        mark=Markup(mark(room)), colours=CSS_COLOURS, **values
    )


def _figure(value: float) -> str:
    """Four decimals, or one from 100 on."""
    return f"{value:.{4 if abs(value) < 100 else 1}f}"
