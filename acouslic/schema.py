"""JSON that others may have written, read strictly: exact types, limits, no key that is not known.

What a value may be stands with its field, in the annotations of the dataclass that holds it.
"""

import json
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from acouslic import files

T = TypeVar("T")
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
# As much of a wrong value is told as fits a line beside the rest.
_SHOWN = 60


def parse_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object, see `files.parse_json`.

    Raises:
        ValueError: it is no strict JSON, or no object.
    """
    values = files.parse_json(data)
    if not isinstance(values, dict):
        raise ValueError("no object")
    return values


def validated(kind: type[T], values: Any) -> T:
    """Make a dataclass of plain JSON values.

    Args:
        kind: the dataclass; annotations of its fields may set limits (`annotated_types`).
        values: what `parse_object` gives, or a part of it.

    Raises:
        ValueError: a value is missing, not known, of another type, or beyond its limits. One line
            names the first such value.
    """
    try:
        # Read as JSON, an array is a tuple, while nothing else is taken for what it is not.
        model = _model(kind)  # type: ignore[arg-type] # any class can be hashed
        checked = model.model_validate_json(json.dumps({"value": values}))
    except ValidationError as error:
        raise ValueError(_first_line(error)) from None
    value: T = checked.value  # type: ignore[attr-defined]
    return value


@cache
def _model(kind: type) -> type[BaseModel]:
    """What reads a dataclass and those inside it strictly: they take its settings from here."""
    return create_model("Strict", __config__=STRICT, value=(kind, ...))


def _first_line(error: ValidationError) -> str:
    first, *others = error.errors(include_url=False)
    place = ".".join(str(step) for step in first["loc"][1:])
    value = json.dumps(first["input"])
    shown = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
    more = f", and {len(others)} more" if others else ""
    return f"{place or 'the whole'}: {first['msg']}, not {shown}{more}"
