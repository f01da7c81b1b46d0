"""The golden set as one HTML page that needs nothing beside it. Names come from a plant's disk and are escaped."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

from PIL import Image

from fedclient.worker.golden.pictures import GoldenPicture, GoldenSet
from fedspect.data.decode import read_picture
from fedspect.errors import PictureError
from fedspect.files import write_text

SIDE = 96  # pixels
MOST = 600  # thumbnails

STYLE = (
    "body{font:15px sans-serif;margin:2em;max-width:70em}figure{display:inline-block;margin:4px;width:110px;"
    "font-size:11px;overflow-wrap:anywhere;vertical-align:top}img{max-width:96px;max-height:96px}"
)


def write_page(golden: GoldenSet, path: Path) -> None:
    """Write the page; raises ``StorageError`` where it cannot be written."""
    pictures = golden.pictures()
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Golden set</title>',
        f"<style>{STYLE}</style><h1>Golden set</h1>",
        f"<p>{len(pictures)} pictures that never train; every new engine must answer them well.</p>",
    ]
    if len(pictures) > MOST:
        parts.append(f"<p>The first {MOST} are shown.</p>")
    shown = pictures[:MOST]
    for label in sorted({each.label for each in shown}):
        members = [each for each in shown if each.label == label]
        parts.append(f"<h2>{html.escape(label)} <small>{len(members)}</small></h2>")
        parts += [_figure(golden, each) for each in members]
    write_text(path, "\n".join(parts) + "</html>\n")


def _figure(golden: GoldenSet, picture: GoldenPicture) -> str:
    caption = html.escape(picture.name) + (" (added by hand)" if picture.source == "added" else "")
    try:
        image = Image.fromarray(read_picture(golden.path(picture)))
    except PictureError:
        return f"<figure>cannot be read<figcaption>{caption}</figcaption></figure>"
    image.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    address = base64.b64encode(content.getvalue()).decode("ascii")
    return f'<figure><img src="data:image/jpeg;base64,{address}" alt=""><figcaption>{caption}</figcaption></figure>'
