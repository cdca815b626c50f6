"""The application without its page: hands requests to the engine, which runs the models. Knows no gradio.

Every request that needs a model is a run (`app.runs`): an iterator of events, the last of which is its result; closing
the iterator stops it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from app.engine.engine import Engine, EngineStatus
from app.engine.launching import Launch, in_a_process
from app.engine.messages import Task
from app.offer import Offer
from app.runs import start
from app.schemas import (
    RECONSTRUCTION_LEVELS,
    AblateRequest,
    ClipRequest,
    ContinueRequest,
    LadderRequest,
    VoicesRequest,
)
from app.settings import Settings
from app.study.library import Library
from app.study.recipe import Recipe
from audiolm.config import DOMAINS
from audiolm.device import require_device
from audiolm.events import Continuation

PROMPT_SUFFIXES = (".wav", ".flac")

Events = Iterator[Any]
"""`results.Course` on the way, a result at the end."""


class Service:
    """One a process, with one engine. Thread-safe.

    Every method that returns Events also raises BusyError where too many runs wait, DeviceMemoryError, and EngineError
    where the engine was lost with the run and a second attempt failed too. `visitor` names whoever asks: visitors take
    turns, however many runs each of them has asked for.
    """

    def __init__(self, settings: Settings, launch: Launch = in_a_process) -> None:
        """Raises RequestError for a device that this machine does not have."""
        require_device(settings.device)
        self.settings = settings
        self.offer = Offer(settings)
        self._engine = Engine(lambda: launch(settings), settings.runs_at_once, settings.line_size)

    def start(self) -> None:
        """Starts the engine now, which the first run would do otherwise; returns at once."""
        self._engine.start()

    def close(self) -> None:
        """Ends the engine, and with it every run."""
        self._engine.close()

    def status(self) -> EngineStatus:
        """How engine and line are, for health checks and metrics; never waits."""
        return self._engine.status()

    @cached_property
    def library(self) -> Library:
        """The listening studies that are kept here. Raises StoreError."""
        return Library(self.settings.studies_folder)

    def prompts(self) -> dict[str, list[Path]]:
        """Domain -> example prompts: files named speech_… or piano_… in the prompts folder."""
        found = {
            domain: sorted(
                path
                for path in self.settings.prompts_folder.glob(f"{domain}_*")
                if path.suffix.lower() in PROMPT_SUFFIXES
            )
            for domain in DOMAINS
        }
        return {domain: paths for domain, paths in found.items() if paths}

    # what it does

    def continue_prompt(self, request: ContinueRequest, visitor: str = "") -> Events:
        """Yields Loading, Started, Waiting, Progress, Chunk, at last one Finished. Closing the iterator stops the run.

        Raises AudioError, CheckpointError, WatermarkError.
        """
        return self._run("continue_prompt", visitor, request)

    def reconstruct(
        self, request: ClipRequest, levels: tuple[int, ...] = RECONSTRUCTION_LEVELS, visitor: str = ""
    ) -> Events:
        """Yields Loading, Waiting and Progress, at last one Reconstructed. Levels beyond the codec's are left out.

        Raises AudioError, CheckpointError.
        """
        return self._run("reconstruct", visitor, request, levels)

    def detect(self, request: ClipRequest, visitor: str = "") -> Events:
        """Yields Loading, Waiting and Progress, at last one Judged.

        Raises AudioError, CheckpointError (also where the checkpoint has no detector).
        """
        return self._run("detect", visitor, request)

    def inspect(self, request: ClipRequest, known: Sequence[Continuation] = (), visitor: str = "") -> Events:
        """Yields Loading, Waiting and Progress, at last one Inspected: the clip's tokens with their scores.

        A file that this checkpoint made, and whose run is among `known`, is shown with the tokens of that run; every
        other one as it is read from the sound.

        Raises AudioError, CheckpointError.
        """
        return self._run("inspect", visitor, request, tuple(known))

    def ladder(self, request: LadderRequest, visitor: str = "") -> Events:
        """Yields Loading, Waiting and Progress, at last one Compared: the resynthesis ladder.

        Raises AudioError, CheckpointError.
        """
        return self._run("ladder", visitor, request)

    def voices(self, request: VoicesRequest, visitor: str = "") -> Events:
        """Yields Loading, Waiting, Progress and Chunk, at last one Compared: the clip in other voices.

        Raises AudioError, CheckpointError.
        """
        return self._run("voices", visitor, request)

    def ablate(self, request: AblateRequest, visitor: str = "") -> Events:
        """Yields Loading, Waiting and Progress, at last one Compared: continuations by the model and by parts of it.

        Raises AudioError, CheckpointError.
        """
        return self._run("ablate", visitor, request)

    def make_study(self, recipe: Recipe, visitor: str = "") -> Events:
        """Yields Waiting and Progress, at last one Rendered: a listening study with its clips.

        Raises RequestError, AudioError, CheckpointError, PreflightError, WatermarkError.
        """
        return self._run("make_study", visitor, replace(recipe, watermark=recipe.watermark and self.settings.watermark))

    def _run(self, name: str, visitor: str, *arguments: Any) -> Events:
        return start(self._engine, Task(name, arguments), visitor)
