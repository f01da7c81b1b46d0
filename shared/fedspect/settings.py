"""Settings: a TOML file and the command line become one validated pydantic model, and back.

Every component owns its settings as a small pydantic model that documents each field under the field;
a command's settings nest them. This module reads a TOML file into such a model, lets the command line win,
and answers an unknown key with the nearest known one. A relative path in a file is relative to that file.
``fedspect.toml_writer`` writes a model back as a commented file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
    get_args,
    get_origin,
)

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from fedspect.account import expanded
from fedspect.errors import FedspectError, SettingsError, nearest, storage_error
from fedspect.toml_writer import accepted_values, without_optional

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

M = TypeVar("M", bound=BaseModel)
LARGEST_FILE = 1 << 20  # bytes; a settings file is a page or two


class Settings(BaseModel):
    """The parent of settings models: frozen, no unknown keys, each field documented under the field."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True
    )
    ELSEWHERE: ClassVar[Mapping[str, str]] = {}
    """Dotted keys that people look for and that are not here, with what to use instead."""


def load_settings(path: Optional[Path], model: Type[M], overrides: Optional[Mapping[str, Any]] = None) -> M:
    """The settings of ``model``: its defaults, then the file at ``path``, then ``overrides``.

    ``overrides`` maps dotted keys (``"federation.rounds"``) to values; ``None`` stands for "not given".

    Raises:
        SettingsError: the file cannot be read, a key is unknown or a value is not accepted.

    """
    data = {} if path is None else _anchored(read_toml(path), model, path.resolve().parent)
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    for key, value in given.items():
        _put(data, key, value)
    return settings_from(data, model, origin=None if path is None else path.name, overridden=tuple(given))


def read_toml(path: Path) -> Dict[str, Any]:
    """A TOML file as a dictionary.

    Raises:
        SettingsError: it is absent, too large or not TOML.
        StorageError: it cannot be read.

    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise SettingsError(
                "a settings file is too large", seen=path, accepted=f"up to {LARGEST_FILE} bytes"
            )
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError("there is no such settings file", seen=path, remedy="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError("a settings file is not valid TOML", seen=f"{path}: {error}") from error
    except OSError as error:
        raise storage_error(error, path, "reading a settings file") from error


def read_value(text: str) -> Any:
    """One value in TOML's notation (``0.1``, ``true``, ``[1, 2]``); whatever is not is a plain word."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def assigned(assignments: Sequence[str]) -> Dict[str, Any]:
    """What ``KEY=VALUE`` options set, by dotted key.

    Raises:
        SettingsError: one of them is not of that form.

    """
    found: Dict[str, Any] = {}
    for assignment in assignments:
        key, sign, text = assignment.partition("=")
        if not sign or not key.strip():
            raise SettingsError(
                "a setting is not understood", seen=f"--set {assignment}", accepted="KEY=VALUE"
            )
        found[key.strip()] = read_value(text.strip())
    return found


def settings_from(
    data: Mapping[str, Any], model: Type[M], *, origin: Optional[str] = None, overridden: Tuple[str, ...] = ()
) -> M:
    """Validate ``data`` as ``model``; ``origin`` names its file, ``overridden`` the keys that came otherwise.

    Raises:
        SettingsError: names key and value, says what is accepted and suggests the nearest known key.

    """
    for key in _unknown(model, data):
        raise SettingsError(
            f"unknown key{_place(key, origin, overridden)}",
            seen=key,
            accepted=", ".join(sorted(_siblings(model, key))) or None,
            remedy=_suggestion(model, key),
        )
    for key, text in _not_text(data):
        raise SettingsError(
            f"{key}{_place(key, origin, overridden)} is not text",
            seen=repr(text),
            accepted="text that the terminal sends as UTF-8",
            remedy="set terminal and shell to UTF-8, as in LC_ALL=C.UTF-8",
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _not_accepted(error, model, origin, overridden) from error


def dotted_keys(model: Type[BaseModel], prefix: str = "") -> Dict[str, FieldInfo]:
    """Every key of a model that holds a value, nested ones as ``table.key``, with its field."""
    found: Dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is not None and get_origin(field.annotation) not in (list, dict, List, Dict):
            found.update(dotted_keys(inner, f"{prefix}{name}."))
        else:
            found[prefix + name] = field
    return found


# -- checking ----------------------------------------------------------------------------------------------


def _model_in(annotation: Any) -> Optional[Type[BaseModel]]:
    """The settings model inside an annotation such as ``Optional[Inner]`` or ``List[Inner]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        inner = _model_in(argument)
        if inner is not None:
            return inner
    return None


def _unknown(model: Type[BaseModel], data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of ``data`` that ``model`` does not know."""
    for key, value in data.items():
        field = model.model_fields.get(key)
        if field is None:
            yield prefix + key
            continue
        inner = _model_in(field.annotation)
        if inner is None:
            continue
        many = get_origin(without_optional(field.annotation)) in (list, dict, tuple)
        if not many:
            nested = [(f"{prefix}{key}.", value)]
        elif isinstance(value, Mapping):
            nested = [(f"{prefix}{key}.{name}.", each) for name, each in value.items()]
        elif isinstance(value, (list, tuple)):
            nested = [(f"{prefix}{key}.{index}.", each) for index, each in enumerate(value)]
        else:
            nested = []
        for inner_prefix, each in nested:
            if isinstance(each, Mapping):
                yield from _unknown(inner, each, inner_prefix)


def _not_text(data: Any, key: str = "") -> Iterator[Tuple[str, str]]:
    """Strings that no file can hold, with their keys: bytes of another encoding on the command line."""
    if isinstance(data, str):
        if any("\ud800" <= sign <= "\udfff" for sign in data):
            yield key, data
    elif isinstance(data, Mapping):
        for name, value in data.items():
            yield from _not_text(name, key)
            yield from _not_text(value, f"{key}.{name}" if key else str(name))
    elif isinstance(data, (list, tuple)):
        for each in data:
            yield from _not_text(each, key)


def _not_a_section(key: str, place: str, section: Type[BaseModel], value: Any) -> SettingsError:
    """A value stands where a section of settings is: perhaps it was meant for one of them."""
    name = next((name for name in section.model_fields if _fits(section, name, value)), None)
    return SettingsError(
        f"{key}{place} is a section, not a value",
        seen=f"{key} = {value!r}",
        accepted=f"[{key}] with {', '.join(section.model_fields)}",
        remedy=None if name is None else f"did you mean {key}.{name}?",
    )


def _fits(section: Type[BaseModel], name: str, value: Any) -> bool:
    try:
        section.model_validate({name: value})
    except (ValidationError, FedspectError):
        return False
    return True


def _siblings(model: Type[BaseModel], key: str) -> List[str]:
    """The names that would be known where ``key`` stands."""
    section = _section(model, key.split(".")[:-1])
    return [] if section is None else list(section.model_fields)


def _section(model: Type[BaseModel], parts: Sequence[str]) -> Optional[Type[BaseModel]]:
    """The settings model that lies below some keys, None where there is a value."""
    current: Optional[Type[BaseModel]] = model
    for part in parts:
        field = None if current is None else current.model_fields.get(part)
        # A part that is no field is an index or a name inside a list or dictionary of models.
        current = _model_in(field.annotation) if field is not None else current
    return current


def _suggestion(model: Type[BaseModel], key: str) -> Optional[str]:
    """What to use instead: as the model says, else the nearest known key, beside it first, then anywhere."""
    elsewhere: Mapping[str, str] = getattr(model, "ELSEWHERE", {})
    if key in elsewhere:
        return elsewhere[key]
    name = key.rsplit(".", 1)[-1]
    prefix = key[: -len(name)]
    near = nearest(name, _siblings(model, key))
    if near:
        return f"did you mean {prefix}{near}?"
    everywhere = dotted_keys(model)
    near = nearest(name, [each.rsplit(".", 1)[-1] for each in everywhere])
    return near and f"did you mean {next(each for each in everywhere if each.rsplit('.', 1)[-1] == near)}?"


def _place(key: str, origin: Optional[str], overridden: Tuple[str, ...]) -> str:
    if key in overridden:
        return " on the command line"
    return "" if origin is None else f" in {origin}"


def _not_accepted(
    error: ValidationError, model: Type[BaseModel], origin: Optional[str], overridden: Tuple[str, ...]
) -> SettingsError:
    problems = error.errors(include_url=False)
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"])
    section = _section(model, key.split("."))
    if first["type"] == "model_type" and section is not None:
        return _not_a_section(key, _place(key, origin, overridden), section, first["input"])
    reason = first["msg"].replace("Value error, ", "")
    if first["type"] == "string_pattern_mismatch":
        reason = "this is none of its forms"  # patterns are for programmers; "accepted" says it in words
    what = f"{key or 'the settings'}{_place(key, origin, overridden)}: {reason}"
    if len(problems) > 1:
        others = sorted({".".join(str(part) for part in each["loc"]) for each in problems[1:]} - {key})
        what += f" (and also {', '.join(others)})" if others else ""
    field, accepted = dotted_keys(model).get(key), None
    if field is not None:
        accepted = accepted_values(field) or " ".join((field.description or "").split()) or None
    seen = first.get("input")
    return SettingsError(
        what, seen=None if isinstance(seen, (Mapping, BaseModel)) else repr(seen), accepted=accepted
    )


# -- putting together --------------------------------------------------------------------------------------


def _put(data: Dict[str, Any], key: str, value: Any) -> None:
    """Set ``data["a"]["b"] = value`` for the key ``a.b``."""
    *tables, name = key.split(".")
    for table in tables:
        inner = data.setdefault(table, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"{table} must be a table", seen=repr(inner))
        data = inner
    data[name] = value


def _anchored(data: Dict[str, Any], model: Type[BaseModel], folder: Path) -> Dict[str, Any]:
    """``data`` with the relative paths of a file made relative to the file's folder."""
    result: Dict[str, Any] = {}
    for key, value in data.items():
        field = model.model_fields.get(key)
        annotation = None if field is None else without_optional(field.annotation)
        if isinstance(value, dict) and isinstance(annotation, type) and issubclass(annotation, BaseModel):
            result[key] = _anchored(value, annotation, folder)
        elif isinstance(value, str) and annotation is Path:
            result[key] = str(folder / expanded(Path(value)))
        elif isinstance(value, list) and get_origin(annotation) is list and get_args(annotation) == (Path,):
            result[key] = [str(folder / expanded(Path(each))) for each in value]
        else:
            result[key] = value
    return result
