"""Base model as files to serve: names, sizes, hashes and chunks; needs no torch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fedserver.registry.served_files import ServedFiles
from fedspect.errors import BaseModelError, storage_error
from fedspect.protocol.limits import LARGEST_BASE_MODEL
from fedspect.shipped_bases import DEFAULT, SHIPPED

FILES = ("card.json", "model.safetensors")
LARGEST_CARD = 4 << 20
DEFAULT_FOLDER = SHIPPED[DEFAULT]


@dataclass(frozen=True)
class BaseFiles:
    """A base model's folder, hashed once: receivers compare what is streamed later with these hashes."""

    folder: Path
    content_hash: str
    served: ServedFiles
    architecture: str = ""
    default_freeze_levels: int = 0

    @classmethod
    def read(cls, folder: Path | None) -> BaseFiles:
        """Hash the base model in ``folder``; ``None`` is the one that ships with Fedspect.

        Raises:
            BaseModelError: there is none, or its card cannot be read.

        """
        folder = DEFAULT_FOLDER if folder is None else folder
        try:
            card_path = folder / "card.json"
            if card_path.stat().st_size > LARGEST_CARD:
                raise BaseModelError("a base model's card is too large", seen=card_path)
            card = json.loads(card_path.read_text(encoding="utf-8"))
            content_hash = card["content_hash"]
            served = ServedFiles.read(folder, FILES)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BaseModelError(
                "there is no base model",
                seen=error.filename,
                accepted=f"a folder with {' and '.join(FILES)}",
                remedy="set base under [model] in fedserver.toml",
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise BaseModelError("a base model's card cannot be read", seen=f"{folder}: {error}") from error
        except OSError as error:
            raise storage_error(error, folder, "reading a base model") from error
        if served.size > LARGEST_BASE_MODEL:
            raise BaseModelError(
                "a base model is too large", seen=folder, accepted=f"up to {LARGEST_BASE_MODEL} bytes"
            )
        return cls(
            folder,
            str(content_hash),
            served,
            architecture=str(card.get("architecture", "")),
            default_freeze_levels=int(card.get("default_freeze_levels", 0)),
        )


def find_base(content_hash: str, folders: Iterable[Path | None]) -> BaseFiles:
    """The base model with that hash among these folders; ``None`` is the one that ships with Fedspect.

    Raises:
        BaseModelError: none of them holds it.

    """
    seen = []
    for folder in folders:
        with contextlib.suppress(BaseModelError):
            base = BaseFiles.read(folder)
            if base.content_hash == content_hash:
                return base
            seen.append(f"{base.content_hash[:12]} in {base.folder.name}")
    raise BaseModelError(
        "the base model is not here",
        seen=", ".join(seen) or "none",
        accepted=content_hash[:12],
        remedy="put its folder back into bases/ of the workspace, or set base under [model] in fedserver.toml",
    )
