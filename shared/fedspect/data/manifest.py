"""Reading a list of pictures: CSV (comma, semicolon or tab) or Parquet.

Columns: ``path`` (or ``file``) and ``class`` (or ``label``), optionally ``group`` and ``split``; every
further column is kept as text. A CSV is UTF-8. Parquet needs pyarrow, which only this module asks for, and
only then.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from fedspect.errors import ManifestError

SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")
MAX_BYTES = 256 * 1024 * 1024
MAX_ROWS = 10_000_000
NAMES: Mapping[str, Tuple[str, ...]] = {
    "path": ("path", "file", "filename"),
    "label": ("class", "label"),
    "group": ("group",),
    "split": ("split",),
}


@dataclass(frozen=True)
class Row:
    """One line of a manifest as it stands there; empty values are None. ``columns`` are the further ones."""

    path: str
    label: Optional[str]
    group: Optional[str]
    split: Optional[str]
    columns: Mapping[str, str]


def read_manifest(path: Path) -> List[Row]:
    """All rows of a manifest, in its order.

    Raises:
        ManifestError: missing, too large, of another format, without a column for the path or the class, or
        damaged.

    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ManifestError("a list of pictures cannot be read", seen=f"{path}: {error.strerror}") from error
    if size > MAX_BYTES:
        raise ManifestError(
            "a list of pictures is too large", seen=path, accepted=f"up to {MAX_BYTES // 2**20} MiB"
        )
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ManifestError(
            "a list of pictures has an unknown format", seen=path, accepted=", ".join(SUFFIXES)
        )
    names, rows = _parquet(path) if suffix in (".parquet", ".pq") else _csv(path)
    chosen = _chosen_columns(names, path)
    return [_row(row, chosen) for row in rows]


def _chosen_columns(names: List[str], path: Path) -> Dict[str, str]:
    by_word = {name.strip().lower(): name for name in names}
    if len(by_word) < len(names):
        raise ManifestError(
            "a list of pictures has two columns of one name", seen=f"{path}: {', '.join(names)}"
        )
    chosen = {}
    for meaning, words in NAMES.items():
        present = [by_word[word] for word in words if word in by_word]
        if present:
            chosen[meaning] = present[0]
    for meaning in ("path", "label"):
        if meaning not in chosen:
            raise ManifestError(
                "a list of pictures lacks a column",
                seen=f"{path}: {', '.join(names) or 'no columns'}",
                accepted=" or ".join(NAMES[meaning]),
                remedy="name the column in the first line",
            )
    return chosen


def _row(row: Mapping[str, Any], chosen: Mapping[str, str]) -> Row:
    def text(column: Optional[str]) -> Optional[str]:
        value = None if column is None else row.get(column)
        return None if value is None else str(value).strip() or None

    used = set(chosen.values())
    further = {name.strip(): text(name) for name in row if name not in used}
    return Row(
        path=text(chosen["path"]) or "",
        label=text(chosen["label"]),
        group=text(chosen.get("group")),
        split=text(chosen.get("split")),
        columns={name: value for name, value in further.items() if value is not None},
    )


def _csv(path: Path) -> Tuple[List[str], List[Dict[str, Any]]]:
    try:
        raw = path.read_bytes()
        content = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(
            "a list of pictures is not UTF-8 text", seen=path, remedy="save it as CSV UTF-8 (comma delimited)"
        ) from error
    except OSError as error:
        raise ManifestError("a list of pictures cannot be read", seen=f"{path}: {error.strerror}") from error
    first_line, _, rest = content.partition("\n")
    delimiter = max((",", ";", "\t"), key=first_line.count)
    if re.fullmatch(r'"?sep=.\s*"?', first_line.strip("\r"), re.IGNORECASE):  # Excel's own first line
        delimiter, content = first_line.strip('"')[4], rest
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    rows: List[Dict[str, Any]] = []
    names: List[str] = []
    try:
        names = next(reader, [])
        while names and not names[-1].strip():  # empty columns, as Excel adds them
            names.pop()
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            while len(values) > len(names) and not values[-1].strip():
                values.pop()
            values += [""] * (len(names) - len(values))  # Excel leaves out what is empty at the end
            if len(values) != len(names):
                raise ManifestError(
                    f"line {reader.line_num} of a list of pictures has {len(values)} values",
                    seen=path,
                    accepted=f"{len(names)}",
                )
            rows.append(dict(zip(names, values)))
    except csv.Error as error:
        raise ManifestError(
            f"line {reader.line_num} of a list of pictures is damaged", seen=f"{path}: {error}"
        ) from error
    return names, rows


def _parquet(path: Path) -> Tuple[List[str], List[Dict[str, Any]]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ManifestError(
            "reading Parquet needs pyarrow, which is not installed",
            seen=path,
            remedy="install pyarrow, or save the list as CSV",
        ) from error
    try:
        with path.open("rb") as file:
            opened = parquet.ParquetFile(file)
            if opened.metadata.num_rows > MAX_ROWS:
                raise ManifestError(
                    "a list of pictures has too many rows", seen=path, accepted=f"up to {MAX_ROWS}"
                )
            table = opened.read()
    except (ArrowException, OSError, ValueError) as error:
        raise ManifestError("a Parquet list of pictures is damaged", seen=f"{path}: {error}") from error
    return list(table.column_names), table.to_pylist()
