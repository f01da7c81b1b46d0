"""Commented TOML: a settings model as a file that explains itself.

Each value stands under its field's own documentation and what is accepted, so the file that ``fedsim config``
or ``fedserver init`` writes is also the reference of its settings.
"""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any, List, Literal, Mapping, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedspect.plugins import NameIn


def commented_toml(settings: BaseModel, *, heading: str = "") -> str:
    """The settings as TOML with a comment over each value; what is not set stands commented out."""
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    lines += _table(settings, "")
    return "\n".join(lines).strip("\n") + "\n"


def _table(settings: BaseModel, prefix: str) -> List[str]:
    values: List[str] = []
    tables: List[str] = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        text = _comment(field)
        if isinstance(value, BaseModel):
            tables += ["", *text, f"[{prefix}{name}]", *_table(value, f"{prefix}{name}.")]
        elif value is None:
            values += ["", *text, f"# {name} ="]
        else:
            values += ["", *text, f"{name} = {toml_value(value)}"]
    return values + tables


def _comment(field: FieldInfo) -> List[str]:
    text = " ".join((field.description or "").split())
    accepted = accepted_values(field)
    if accepted:
        text = f"{text} Accepted: {accepted}.".strip()
    lines: List[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + len(word) < 100:
            lines[-1] += f" {word}"
        else:
            lines.append(f"# {word}")
    return lines


def toml_value(value: Any) -> str:
    """One value in TOML's notation."""
    if isinstance(value, enum.Enum):
        return toml_value(value.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(str(value), repr(value))
    if isinstance(value, (str, Path)):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        pairs = (
            f"{toml_value(str(key))} = {toml_value(each)}" for key, each in value.items() if each is not None
        )
        return "{ " + ", ".join(pairs) + " }" if value else "{}"
    if isinstance(value, BaseModel):
        return toml_value(value.model_dump())
    if isinstance(value, (list, tuple, set, frozenset)):
        each_value = sorted(value) if isinstance(value, (set, frozenset)) else value
        return "[" + ", ".join(toml_value(each) for each in each_value) + "]"
    raise TypeError(f"no TOML notation for {type(value).__name__}")


def accepted_values(field: FieldInfo) -> str:
    """A field's choices or bounds in words, empty where any value of its type will do."""
    annotation = without_optional(field.annotation)
    if get_origin(annotation) is Literal:
        return " | ".join(str(choice) for choice in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " | ".join(str(each.value) for each in annotation)
    for limit in field.metadata:
        if isinstance(limit, NameIn):
            return " | ".join(limit.names())
    words = (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than"))
    bounds = [
        f"{word} {getattr(limit, name)}"
        for limit in field.metadata
        for name, word in words
        if getattr(limit, name, None) is not None
    ]
    return ", ".join(bounds)


def without_optional(annotation: Any) -> Any:
    """``X`` for ``Optional[X]``, anything else as it is."""
    if get_origin(annotation) is Union:
        rest = [each for each in get_args(annotation) if each is not type(None)]
        return rest[0] if len(rest) == 1 else annotation
    return annotation
