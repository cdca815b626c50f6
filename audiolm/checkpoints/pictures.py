"""The pictures of a model card: PNG or JPEG files beside it, each shown by its name as `![caption](name.png)`."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path

from audiolm.checkpoints.tensors import read_bytes
from audiolm.errors import CheckpointError

MAX_PICTURE_BYTES = 2**20
MAX_PICTURES = 8  # of a card
SUFFIXES = {".png": (b"\x89PNG\r\n\x1a\n", "image/png"), ".jpg": (b"\xff\xd8\xff", "image/jpeg")}
_NAME = r"[A-Za-z0-9][\w.-]{0,80}\.(?:png|jpg)"  # of this folder: no separators, no addresses
_SHOWN = re.compile(rf"!\[([^\]\n]*)\]\(({_NAME})\)", re.ASCII)


def picture_names(card: str) -> list[str]:
    """The pictures beside it that a card shows, each once."""
    return list(dict.fromkeys(name for _, name in _SHOWN.findall(card)))


def read_picture(path: Path) -> bytes:
    """Raises CheckpointError for a name that a card cannot show, a file that is missing, too large or no picture."""
    if not re.fullmatch(_NAME, path.name, re.ASCII):
        raise CheckpointError(f"{path}: a picture is named by letters, digits, . _ - and ends in .png or .jpg")
    content = read_bytes(path, MAX_PICTURE_BYTES)
    if not content.startswith(SUFFIXES[path.suffix][0]):
        raise CheckpointError(f"{path}: not a picture of the kind its name says")
    return content


def read_pictures(folder: Path, card: str) -> dict[str, bytes]:
    """The files in `folder` that the card shows. Raises CheckpointError like `read_picture`, and for too many."""
    _require_few(str(folder), card)
    return {name: read_picture(folder / name) for name in picture_names(card)}


def require_pictures(where: str, card: str, pictures: Mapping[str, bytes]) -> None:
    """Raises CheckpointError unless the pictures are those that the card shows, `MAX_PICTURES` at most."""
    _require_few(where, card)
    if missing := [name for name in picture_names(card) if name not in pictures]:
        raise CheckpointError(f"{where}: the card shows {', '.join(missing)}, which is not there")
    if unused := sorted(set(pictures) - set(picture_names(card))):
        raise CheckpointError(f"{where}: the card does not show {', '.join(unused)}")


def _require_few(where: str, card: str) -> None:
    if (found := len(picture_names(card))) > MAX_PICTURES:
        raise CheckpointError(f"{where}: a card shows at most {MAX_PICTURES} pictures, found {found}")


def with_pictures(card: str, folder: Path) -> str:
    """The card as one text, for a page: its first pictures as data URIs, or their captions where one is unusable."""
    usable = picture_names(card)[:MAX_PICTURES]

    def shown(match: re.Match[str]) -> str:
        caption, name = match.groups()
        if name not in usable:
            return f"({caption})"
        try:
            content = read_picture(folder / name)
        except CheckpointError:
            return f"({caption})"
        data = base64.b64encode(content).decode()
        return f"![{caption}](data:{SUFFIXES[Path(name).suffix][1]};base64,{data})"

    return _SHOWN.sub(shown, card)
