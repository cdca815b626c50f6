"""What is measured: the models of a checkpoint, or those of training runs on their way to one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from audiolm.checkpoints import registry
from audiolm.checkpoints.format import (
    ModelSet,
    attach_codebooks,
    build_component,
    component_hash,
    load_run,
    token_hash,
)
from audiolm.errors import EvaluationError


@dataclass(frozen=True)
class Subject:
    """Loaded models in eval mode; what is absent is None or not in `stages`.

    `components` are the hashes of the weights by component name, `token_hashes` those that token caches carry.
    `models` is the whole set, which continuations need.
    """

    name: str
    sha256: str = ""
    components: dict[str, str] = field(default_factory=dict)
    token_hashes: dict[str, str] = field(default_factory=dict)
    codec: Any = None
    semantic: Any = None
    stages: Mapping[str, Any] = field(default_factory=dict)
    models: ModelSet | None = None

    def require(self, *names: str) -> None:
        """Raises EvaluationError unless the named tokenizers ("codec", "semantic") are there."""
        if missing := [name for name in names if getattr(self, name) is None]:
            raise EvaluationError(f"needs the {' and the '.join(missing)}, which {self.name} lacks")

    def require_whole(self) -> ModelSet:
        """The whole set. Raises EvaluationError unless it is there."""
        if self.models is None:
            raise EvaluationError(
                "needs a whole checkpoint: give --checkpoint (`checkpoints assemble` makes one of runs)"
            )
        return self.models


def from_checkpoint(source: str, device: str | torch.device = "cpu") -> Subject:
    """An embedded name, a folder or a Hub id. Raises CheckpointError."""
    models = registry.load(source, device=device)
    entries = models.info.components
    return Subject(
        name=models.info.name,
        sha256=models.info.sha256,
        components={name: entry.hash for name, entry in entries.items()},
        token_hashes={name: entries[name].token_hash for name in ("codec", "semantic")},
        codec=models.codec,
        semantic=models.semantic,
        stages=models.stages,
        models=models,
    )


def from_runs(runs: Mapping[str, Path]) -> Subject:
    """Training runs by component name. Weights pass through the cast of shipping: what is measured is what is shipped.

    Raises CheckpointError for an unreadable run; EvaluationError for a run of another component than its name says, or
    made for other components than those beside it.
    """
    modules: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    token_hashes: dict[str, str] = {}
    for name, folder in runs.items():
        component, module, made_for = load_run(folder)
        if component != name:
            raise EvaluationError(f"{folder} holds a run of {component}, not of {name}")
        modules[name] = module
        hashes[name] = component_hash(module.state_dict())
        if name in ("codec", "semantic"):
            token_hashes[name] = token_hash(module.state_dict())
        for other, digest in made_for.items():
            found = token_hashes.get(other, hashes.get(other, ""))
            if other in hashes and digest not in (hashes[other], found):
                raise EvaluationError(f"{folder} was made for {other} {digest[:12]}, the one given is {found[:12]}")
    stages = {name.removeprefix("stage_"): module for name, module in modules.items() if name.startswith("stage_")}
    if stages and "codec" in modules:
        attach_codebooks(stages, modules["codec"])
    return Subject(
        name=", ".join(f"{name} {folder}" for name, folder in runs.items()),
        components=hashes,
        token_hashes=token_hashes,
        codec=modules.get("codec"),
        semantic=modules.get("semantic"),
        stages=stages,
    )


UNTRAINED_STAGES = ("semantic", "coarse")


def untrained(subject: Subject, seed: int = 0) -> Subject:
    """The same checkpoint with a semantic and a coarse stage that have learnt nothing: what a figure is beside theirs.

    Random weights of the same configs; codec, semantic tokenizer and fine stage stay, so that the sound is the codec's.
    The set has a name and a hash of its own, for its receipts. Raises EvaluationError without a whole checkpoint.
    """
    whole = subject.require_whole()
    entries = dict(whole.info.components)
    entries.pop("detector", None)
    stages = dict(whole.stages)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for stage in UNTRAINED_STAGES:
            name = f"stage_{stage}"
            stages[stage] = build_component(name, entries[name].config).eval().requires_grad_(False)
            entries[name] = replace(entries[name], files={}, hash=component_hash(stages[stage].state_dict()))
    attach_codebooks(stages, subject.codec)
    hashes = {name: entry.hash for name, entry in entries.items()}
    name, digest = f"{subject.name}-untrained", hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest()
    info = replace(whole.info, name=name, sha256=digest, components=entries)
    models = replace(whole, info=info, stages=stages, detector=None)
    return replace(subject, name=name, sha256=digest, components=hashes, stages=stages, models=models)
