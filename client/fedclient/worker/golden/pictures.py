"""Golden set on disk: copies of the files, and a manifest with their hashes.

::

    golden/
        manifest.json            what each picture shows, where it came from, the hash of its bytes
        pictures/<hash>.<end>    the files, byte for byte

They are copies because the set must outlive the line's folder: what a new engine has to pass must not change
when somebody tidies up. The manifest is written last; a picture that it does not name is swept away. Changes wait
for each other: ``lock`` is held from reading the manifest until it is written.

Shapes: N pictures, C channels, S the input size.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Literal, Mapping, Optional, Sequence, Tuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedspect.data.decode import decode, read_bytes, read_header
from fedspect.data.pictures import DIGEST_LENGTH, CheckedPicture
from fedspect.data.preprocess import Preprocessing
from fedspect.errors import DamagedFileError, DataError, PictureError, storage_error
from fedspect.files import read_json, write_bytes, write_json
from fedspect.locking import exclusive

MOST_PICTURES = 5000
MOST_BYTES = 4 << 30  # of all copies together

Source = Literal["share", "added"]


class GoldenPicture(BaseModel):
    """A picture of the set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """What it was called where it came from."""
    label: str
    digest: str = Field(pattern=f"^[0-9a-f]{{{DIGEST_LENGTH}}}$")
    """The beginning of the SHA-256 of its bytes, in hex, as the split ledger has it."""
    file: str = Field(pattern=r"^[0-9a-f]+\.(png|jpeg|bmp|tiff|ppm)$")
    size: int = Field(ge=1)
    """Bytes."""
    source: Source
    """"share": of the plant's held-out share; "added": by somebody, by hand."""


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    pictures: List[GoldenPicture] = Field(default_factory=list, max_length=MOST_PICTURES)
    removed: List[str] = Field(default_factory=list)
    """Digests of pictures that somebody took out: they do not come back with the share."""


@dataclass(frozen=True)
class GoldenPixels:
    """The set as a network takes it."""

    pixels: np.ndarray
    """uint8 (N, C, S, S)"""
    labels: Tuple[str, ...]
    names: Tuple[str, ...]


class GoldenSet:
    """The golden set in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest_path = folder / "manifest.json"

    def exists(self) -> bool:
        """Whether a set was ever chosen here; it may be empty."""
        return self.manifest_path.is_file()

    def pictures(self) -> List[GoldenPicture]:
        """The pictures by class and name.

        Raises:
            DamagedFileError: the manifest is not what was written.

        """
        return sorted(self._manifest().pictures, key=lambda each: (each.label, each.name, each.digest))

    def counts(self) -> Dict[str, int]:
        """Pictures of each class."""
        return dict(Counter(each.label for each in self.pictures()))

    def path(self, picture: GoldenPicture) -> Path:
        """Where the copy is."""
        return self.folder / "pictures" / picture.file

    def take(self, pictures: Sequence[CheckedPicture], most: Optional[int] = None) -> int:
        """Take these of the held-out share in, as far as they lack; how many were new.

        At most ``most`` pictures of the share are in the set then: of all that ever were offered those that
        ``spread`` chooses, so that later pictures take the place of earlier ones in proportion. What was added
        by hand stays, and what was removed stays out. A picture that is in the set under another class gets
        the class that it has now. A file that cannot be read any more, or is another one by now, is passed over.

        Raises:
            StorageError: a copy cannot be written; the set is as it was.

        """
        with self._changing() as manifest:
            before = {each.digest: each for each in manifest.pictures}
            kept = {digest: each for digest, each in before.items() if each.source == "added"}
            offered = {each.digest: each for each in pictures if each.label is not None}
            labels = {each.digest: each.label for each in before.values()}
            labels.update({digest: each.label or "" for digest, each in offered.items()})
            drawn = {digest: label for digest, label in labels.items() if digest not in kept}
            for digest in spread({key: drawn[key] for key in drawn if key not in manifest.removed}, most):
                if digest in before:
                    kept[digest] = before[digest]
                    continue
                each = offered[digest]
                with contextlib.suppress(PictureError):
                    content = read_bytes(each.path)
                    if digest_of(content) == digest:
                        kept[digest] = self._copy(content, each.path, each.name, labels[digest], "share")
            kept = {key: each.model_copy(update={"label": labels[key]}) for key, each in kept.items()}
            if kept != before or not self.exists():
                self._write(kept.values(), manifest.removed)
            return len(set(kept) - set(before))

    def add(self, paths: Sequence[Path], label: str) -> List[GoldenPicture]:
        """Add files by hand, under one class; those that are in the set already get that class.

        Raises:
            PictureError: one of them cannot be read; none was added then.
            DataError: the set would become too large.
            StorageError: a copy cannot be written; the set is as it was.

        """
        contents = []
        for path in paths:
            content = read_bytes(path)
            decode(content, path)
            contents.append(content)
        added = []
        with self._changing() as manifest:
            for path, content in zip(paths, contents):
                added.append(self._copy(content, path, path.name, label, "added"))
            known = {each.digest: each for each in [*manifest.pictures, *added]}
            self._write(known.values(), [each for each in manifest.removed if each not in known])
        return added

    def remove(self, names: Sequence[str]) -> List[GoldenPicture]:
        """Take pictures out for good, by name or by the beginning of their hash; they still never train.

        Raises:
            DataError: one names no picture, or several; none was removed then.
            StorageError: the set is as it was.

        """
        with self._changing() as manifest:
            gone = {each.digest: each for each in (_named(manifest.pictures, name) for name in names)}
            kept = [each for each in manifest.pictures if each.digest not in gone]
            self._write(kept, [*manifest.removed, *gone])
        return list(gone.values())

    def load(self, preprocessing: Preprocessing) -> GoldenPixels:
        """Read, verify and resize all pictures.

        Raises:
            DamagedFileError: a copy is missing, changed or cannot be read.

        """
        pixels, labels, names = [], [], []
        for each in self.pictures():
            path = self.path(each)
            try:
                content = read_bytes(path)
                if digest_of(content) != each.digest:
                    raise _damaged(path, "it was changed after it was taken in")
                pixels.append(preprocessing.read(content, path))
            except PictureError as error:
                raise _damaged(path, str(error)) from error
            labels.append(each.label)
            names.append(each.name)
        shape = (0, preprocessing.channels, preprocessing.size, preprocessing.size)
        stacked = np.stack(pixels) if pixels else np.zeros(shape, dtype=np.uint8)
        return GoldenPixels(stacked, tuple(labels), tuple(names))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[_Manifest]:
        """The manifest as it is, and as nobody else changes it within the block."""
        with exclusive(self.folder / "lock"):
            yield self._manifest()

    def _manifest(self) -> _Manifest:
        try:
            return _Manifest.model_validate(read_json(self.manifest_path))
        except FileNotFoundError:
            return _Manifest()
        except ValidationError as error:
            raise DamagedFileError(
                "the list of golden pictures cannot be read",
                seen=f"{self.manifest_path}: {error.errors()[0]['msg']}",
                remedy="remove the file and run `fedclient golden init`",
            ) from error

    def _copy(self, content: bytes, path: Path, name: str, label: str, source: Source) -> GoldenPicture:
        digest = digest_of(content)
        picture = GoldenPicture(
            name=name.encode("utf-8", "backslashreplace").decode("utf-8"),  # it may have any bytes
            label=label,
            digest=digest,
            file=f"{digest}.{read_header(content, path).format.lower()}",
            size=len(content),
            source=source,
        )
        if not self.path(picture).is_file():
            write_bytes(self.path(picture), content)
        return picture

    def _write(self, pictures: Iterable[GoldenPicture], removed: Sequence[str]) -> None:
        kept = sorted(pictures, key=lambda each: each.digest)
        if len(kept) > MOST_PICTURES or sum(each.size for each in kept) > MOST_BYTES:
            raise DataError(
                "the golden set would become too large",
                seen=f"{len(kept)} pictures, {sum(each.size for each in kept) >> 20} MiB",
                accepted=f"{MOST_PICTURES} pictures, {MOST_BYTES >> 20} MiB",
            )
        write_json(self.manifest_path, _Manifest(pictures=kept, removed=sorted(removed)).model_dump())
        named = {each.file for each in kept}
        for path in (self.folder / "pictures").glob("*"):
            if path.name not in named:
                _remove(path)


def spread(labels: Mapping[str, str], most: Optional[int]) -> List[str]:
    """At most that many of the digests in ``labels``, the classes in turn; which ones follows from content alone.

    Those of a class are taken in the order of their digests. As a digest is as good as drawn by lot, that is an
    even sample of all that were ever there.
    """
    places: Dict[str, int] = Counter()
    rows = []
    for digest in sorted(labels):
        rows.append((places[labels[digest]], labels[digest], digest))
        places[labels[digest]] += 1
    return [digest for _, _, digest in sorted(rows)][:most]


def digest_of(content: bytes) -> str:
    """Content hash of a file, as in the split ledger."""
    return hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]


def without_pictures(classes: Sequence[str], labels: Iterable[str]) -> List[str]:
    """Those of the classes that no picture shows: a new engine is not tried on them."""
    shown = set(labels)
    return [name for name in classes if name not in shown]


def _named(pictures: Sequence[GoldenPicture], name: str) -> GoldenPicture:
    """The picture of that name, or whose hash begins so."""
    found = [each for each in pictures if each.name == name]
    found = found or [each for each in pictures if len(name) >= 6 and each.digest.startswith(name)]
    if len(found) != 1:
        raise DataError(
            "there is no such golden picture" if not found else "several golden pictures are called so",
            seen=name,
            accepted=", ".join(each.digest[:12] for each in found[:10]) or "a name, or six signs of a hash",
            remedy="`fedclient golden show --json` names them all",
        )
    return found[0]


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise storage_error(error, path, "removing a file") from error


def _damaged(path: Path, why: str) -> DamagedFileError:
    return DamagedFileError(
        "a golden picture is not what it was",
        seen=f"{path}: {why}",
        remedy="restore it from a backup, or remove the folder of the set and run `fedclient golden init`",
    )
