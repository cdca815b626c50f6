"""The application without its page: owns the pipelines and the device, runs requests, writes results. Knows no gradio.

A run happens on a thread of its own, which holds the device's slot from its first step to its last. The caller gets an
iterator of events that yields at least every HEARTBEAT_S, also while a long step runs, so that closing it (which is how
a run is stopped) is never far away. The slot is free again as soon as the step in hand has ended.
"""

from __future__ import annotations

import logging
import queue
import shutil
import tempfile
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import torch

from app.schemas import MAX_CLIP_S, RECONSTRUCTION_LEVELS, CheckpointChoice, ContinueRequest
from app.settings import Settings
from audiolm.audio import files
from audiolm.checkpoints import CheckpointInfo, load_checkpoint, read_info, registry
from audiolm.config import DOMAINS
from audiolm.detector import Verdict
from audiolm.device import pick_device
from audiolm.errors import AudioLMError, CheckpointError, DeviceMemoryError, RequestError
from audiolm.events import Chunk, Continuation, Progress, Result
from audiolm.outputs import write_continuation
from audiolm.pipeline import Pipeline
from audiolm.streams import Waveform

HEARTBEAT_S = 0.25
PROMPT_SUFFIXES = (".wav", ".flac")
MAX_LOADED = 4  # checkpoints kept in memory; the least recently used one goes first

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waiting:
    """Nothing new: the run waits for the device (`for_device`), or a step is still being worked on."""

    for_device: bool
    elapsed_s: float


@dataclass(frozen=True)
class Loading:
    """The device is this run's; the recording and the checkpoint are being read."""

    checkpoint: str


@dataclass(frozen=True)
class Started:
    """The checkpoint is ready and the recording read; `prompt_s` of it is the prompt. Levels are counted a stage."""

    checkpoint: CheckpointInfo
    prompt_s: float
    num_levels: dict[str, int]


@dataclass(frozen=True)
class SavedContinuation:
    """One continuation and its files: the whole join, the continuation alone, the tokens and the receipt."""

    continuation: Continuation
    whole: Path
    generated: Path
    tokens: Path
    receipt: Path

    @property
    def paths(self) -> list[Path]:
        return [self.whole, self.generated, self.tokens, self.receipt]


@dataclass(frozen=True)
class Finished:
    """The end of a continuation run. The files live until the event iterator is advanced or closed."""

    checkpoint: CheckpointInfo
    result: Result
    saved: tuple[SavedContinuation, ...]
    folder: Path
    num_coarse_levels: int
    elapsed_s: float


@dataclass(frozen=True)
class Reconstructed:
    """The recording and its reconstructions from the first k quantizer levels, as files; most levels first."""

    checkpoint: CheckpointInfo
    original: Path
    by_levels: dict[int, Path]
    waveforms: dict[int | None, Waveform]  # None: the original
    folder: Path


@dataclass(frozen=True)
class Judged:
    """The detector's verdict on a recording."""

    checkpoint: CheckpointInfo
    verdict: Verdict
    waveform: Waveform
    folder: Path


ServiceEvent = Waiting | Loading | Started | Progress | Chunk | Finished | Reconstructed | Judged


@dataclass
class _Run:
    """The link between a run's thread and the iterator its caller holds."""

    folder: Path
    stop: threading.Event = field(default_factory=threading.Event)
    events: queue.Queue = field(default_factory=lambda: queue.Queue(maxsize=64))

    def send(self, item: object) -> bool:
        """False once the caller has gone."""
        while not self.stop.is_set():
            try:
                self.events.put(item, timeout=HEARTBEAT_S)
                return True
            except queue.Full:
                continue
        return False


class _End:
    """Last item of a run; carries what it raised."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Service:
    """One a process. Thread-safe; requests of one device take turns."""

    def __init__(self, settings: Settings) -> None:
        """Reads the offered checkpoints' configurations (no weights). A broken one is skipped and logged."""
        self.settings = settings
        self.device = pick_device(settings.device)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self._slot = threading.Lock()
        self._pipelines: OrderedDict[tuple[str, str | None], tuple[CheckpointInfo, Pipeline]] = OrderedDict()
        self._offered = _offered(settings.checkpoints)

    # what there is

    def checkpoints(self) -> list[CheckpointInfo]:
        """The checkpoints offered by this process, in the order of the picker."""
        return list(self._offered.values())

    def names(self) -> list[str]:
        """What `CheckpointChoice` calls them."""
        return list(self._offered)

    def describe(self, choice: CheckpointChoice) -> CheckpointInfo:
        """Configuration and card of a checkpoint, without its weights; a Hub one is downloaded and kept.

        Raises CheckpointError, or RequestError where visitors may not name checkpoints that are not offered.
        """
        return read_info(self._folder(choice))

    def fitting(self, domain: str, current: str | None) -> str | None:
        """`current` where it is of the domain or unknown here, else the first offered checkpoint of the domain."""
        if current not in self._offered or self._offered[current].domain == domain:
            return current
        return next((name for name, info in self._offered.items() if info.domain == domain), current)

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

    def continue_prompt(self, request: ContinueRequest) -> Iterator[ServiceEvent]:
        """Yields Loading, Started, Waiting, Progress, Chunk, at last one Finished. Closing the iterator stops the run.

        Raises AudioError, CheckpointError, DeviceMemoryError.
        """

        def steps(folder: Path) -> Iterator[ServiceEvent]:
            began = time.monotonic()
            yield Loading(request.checkpoint.source)
            prompt = files.read_waveform(request.audio, max_s=request.options.prompt_s)
            info, pipeline = self._load(request.checkpoint)
            coarse = pipeline.num_coarse_levels
            levels = {"semantic": 1, "coarse": coarse, "fine": pipeline.num_levels - coarse}
            yield Started(info, prompt.duration_s, levels)
            with closing(pipeline.continue_prompt(prompt, request.options)) as run:
                for event in run:
                    if isinstance(event, Result):
                        saved = tuple(_save(folder, number, c) for number, c in enumerate(event.continuations, 1))
                        elapsed_s = time.monotonic() - began
                        yield Finished(info, event, saved, folder, coarse, elapsed_s)
                    else:
                        yield event

        return self._run(steps)

    def reconstruct(
        self, audio: Path, choice: CheckpointChoice, levels: tuple[int, ...] = RECONSTRUCTION_LEVELS
    ) -> Iterator[ServiceEvent]:
        """Yields Loading, Waiting and Progress, at last one Reconstructed. Levels beyond the codec's are left out.

        Raises AudioError, CheckpointError, DeviceMemoryError.
        """

        def steps(folder: Path) -> Iterator[ServiceEvent]:
            yield Loading(choice.source)
            waveform = files.read_waveform(audio, max_s=MAX_CLIP_S)
            info, pipeline = self._load(choice)
            deepest = pipeline.models.codec.num_levels
            chosen = sorted({min(level, deepest) for level in levels}, reverse=True)
            original = folder / "original.wav"
            files.write_wav(original, waveform)
            paths: dict[int, Path] = {}
            heard: dict[int | None, Waveform] = {None: waveform}
            for done, level in enumerate(chosen):
                yield Progress("reconstruct", done, len(chosen), 0.0)
                heard[level] = pipeline.reconstruct(waveform, level)
                paths[level] = folder / f"levels-{level:02d}.wav"
                files.write_wav(paths[level], heard[level])
            yield Reconstructed(info, original, paths, heard, folder)

        return self._run(steps)

    def detect(self, audio: Path, choice: CheckpointChoice) -> Iterator[ServiceEvent]:
        """Yields Loading and Waiting, at last one Judged.

        Raises AudioError, CheckpointError (also where the checkpoint has no detector), DeviceMemoryError.
        """

        def steps(folder: Path) -> Iterator[ServiceEvent]:
            yield Loading(choice.source)
            waveform = files.read_waveform(audio, max_s=MAX_CLIP_S)
            info, pipeline = self._load(choice)
            yield Judged(info, pipeline.detect(waveform), waveform, folder)

        return self._run(steps)

    # how it does it

    def _run(self, steps: Callable[[Path], Iterator[ServiceEvent]]) -> Iterator[ServiceEvent]:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="audiolm-run-", ignore_cleanup_errors=True) as folder:
            run = _Run(Path(folder))
            threading.Thread(target=self._work, args=(run, steps), name="audiolm-run", daemon=True).start()
            holds_device = False
            try:
                while True:
                    try:
                        item = run.events.get(timeout=HEARTBEAT_S)
                    except queue.Empty:
                        yield Waiting(not holds_device, time.monotonic() - began)
                        continue
                    if isinstance(item, _End):
                        if item.error is not None:
                            raise item.error
                        return
                    holds_device = True
                    yield item
            finally:
                run.stop.set()

    def _work(self, run: _Run, steps: Callable[[Path], Iterator[ServiceEvent]]) -> None:
        """The run's thread. A run whose caller went away while it waited for the slot never starts."""
        while not self._slot.acquire(timeout=HEARTBEAT_S):
            if run.stop.is_set():
                return
        error: BaseException | None = None
        try:
            if not run.stop.is_set():
                with closing(steps(run.folder)) as events:
                    for event in events:
                        if not run.send(event):
                            break
        except torch.OutOfMemoryError as raised:
            error = DeviceMemoryError(f"{self.device} ran out of memory: ask for fewer or shorter continuations")
            error.__cause__ = raised
        except Exception as raised:
            error = raised
        finally:
            if isinstance(error, DeviceMemoryError):
                _let_go(error)
            self._slot.release()
        if run.stop.is_set():  # the caller cleared the folder, and the last step may have made it again
            shutil.rmtree(run.folder, ignore_errors=True)
            if error is not None:
                logger.info("a stopped run ended with %s", error)
        run.send(_End(error))

    def _load(self, choice: CheckpointChoice) -> tuple[CheckpointInfo, Pipeline]:
        """Called with the slot held, so that no checkpoint is loaded twice. One whose folder changed is loaded anew."""
        key = (choice.source, choice.revision)
        if key in self._pipelines:
            info, _ = self._pipelines[key]
            if read_info(info.folder).sha256 != info.sha256:
                del self._pipelines[key]
        if key not in self._pipelines:
            models = load_checkpoint(self._folder(choice), device=str(self.device))
            self._pipelines[key] = (models.info, Pipeline(models))
            while len(self._pipelines) > MAX_LOADED:
                self._pipelines.popitem(last=False)
        self._pipelines.move_to_end(key)
        return self._pipelines[key]

    def _folder(self, choice: CheckpointChoice) -> Path:
        if choice.text in self._offered:
            return self._offered[choice.text].folder
        if not self.settings.other_checkpoints:
            names = ", ".join(self._offered) or "none"
            raise RequestError(f"checkpoint must be one of those offered here ({names}), found {choice.source[:80]!r}")
        return registry.resolve(choice.source, choice.revision)


def _let_go(error: BaseException) -> None:
    """Frees what a run out of memory held: the error outlives it, and its frames would keep the tensors."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _offered(sources: tuple[str, ...]) -> dict[str, CheckpointInfo]:
    """Name -> checkpoint. Two checkpoints of one name: the later one is offered under its folder."""
    found: list[CheckpointInfo] = [] if sources else registry.available()
    for source in sources:
        for folder in _folders(source):
            try:
                found.append(read_info(folder))
            except AudioLMError as error:
                logger.warning("checkpoint %s is not offered: %s", folder, error)
    offered: dict[str, CheckpointInfo] = {}
    for info in sorted(found, key=lambda info: DOMAINS.index(info.domain)):
        offered[str(info.folder) if info.name in offered else info.name] = info
    return offered


def _folders(source: str) -> list[Path]:
    """One checkpoint, or every one in a folder of several."""
    path = Path(source)
    if path.is_dir() and not (path / "config.json").exists():
        inside = sorted(folder for folder in path.iterdir() if (folder / "config.json").exists())
        if inside:
            return inside
    name, _, revision = source.partition("@")
    try:
        return [path if path.is_dir() else registry.resolve(name, revision or None)]
    except CheckpointError as error:
        logger.warning("checkpoint %s is not offered: %s", source, error)
        return []


def _save(folder: Path, number: int, continuation: Continuation) -> SavedContinuation:
    """Writes the files of one continuation; audio as int16 WAV with the receipt inside."""
    name = f"continuation-{number}"
    written = write_continuation(continuation, folder, name)
    generated = folder / f"{name}.only.wav"
    files.write_wav(generated, continuation.generated_part, continuation.receipt.to_json())
    return SavedContinuation(continuation, written.whole, generated, written.tokens, written.receipt)
