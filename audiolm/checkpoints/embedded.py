"""The checkpoints that come with the repository: one folder each under assets/checkpoints."""

from __future__ import annotations

from pathlib import Path

from audiolm.checkpoints.info import CONFIG_FILE

ASSETS = Path(__file__).resolve().parents[2] / "assets" / "checkpoints"


def names(assets: Path | None = None) -> list[str]:
    """Folder names, sorted; empty where the package was installed without the repository's assets."""
    folder = ASSETS if assets is None else assets
    return sorted(path.parent.name for path in folder.glob(f"*/{CONFIG_FILE}"))


def folder_of(name: str, assets: Path | None = None) -> Path:
    return (ASSETS if assets is None else assets) / name
