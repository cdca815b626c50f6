"""A checkpoint out of training runs, with what they lack taken from an older checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from audiolm.checkpoints.components import COMPONENTS, load_component
from audiolm.checkpoints.format import Part, read_run, write_parts
from audiolm.checkpoints.info import CheckpointInfo, read_info
from audiolm.checkpoints.tensors import read_tensors
from audiolm.config import USUAL_SAMPLING, SamplingConfig
from audiolm.errors import CheckpointError


def assemble(
    folder: Path,
    *,
    name: str,
    domain: str,
    summary: str,
    card: str,
    runs: Mapping[str, Path],
    base: Path | None = None,
    without: tuple[str, ...] = (),
    sampling: Mapping[str, SamplingConfig] | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> CheckpointInfo:
    """Writes a checkpoint of the runs (by component name); components without a run come from the checkpoint `base`.

    `without` names components of `base` to leave out (a detector whose codec or stages changed); `sampling` are the
    stages' defaults (None: those of `base`, or the usual ones); `pictures` are those that the card shows, contents by
    name. Weights must fit their config, and stages and detector must have been made for the tokenizers beside them.
    Raises CheckpointError.
    """
    parts = {} if base is None else _parts_of(base, leave_out={*runs, *without})
    for component, run in runs.items():
        found, config, tensors, made_for = read_run(run)
        if found != component:
            raise CheckpointError(f"{run}: a run of {found!r}, not of {component!r}")
        parts[component] = Part(config, tensors, made_for)
    for component, part in parts.items():
        load_component(component, part.config, part.tensors, str(runs.get(component, base)))
    if sampling is None:
        sampling = USUAL_SAMPLING if base is None else read_info(base).sampling
    labels = {"name": name, "domain": domain, "summary": summary, "card": card}
    return write_parts(folder, parts=parts, sampling=sampling, pictures=pictures, **labels)


def _parts_of(base: Path, leave_out: set[str]) -> dict[str, Part]:
    parts = {}
    for component, entry in read_info(base).components.items():
        if component not in leave_out:
            tensors = read_tensors([base / name for name in entry.files], entry.files)
            parts[component] = Part(entry.config, tensors, entry.made_for)
    return {component: parts[component] for component in COMPONENTS if component in parts}
