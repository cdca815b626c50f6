"""The whole system as one value: a prompt in, continuations out, as events (AudioLM, arXiv 2209.03143).

`Pipeline` is immutable and holds no state of a run, so one of them serves many callers, one after another. A run is a
generator: closing it, or no longer iterating, stops it; there is no other switch.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from audiolm import watermark
from audiolm.audio.levelling import level_gain
from audiolm.audio.resample import resample
from audiolm.checkpoints import registry
from audiolm.checkpoints.components import MASKED
from audiolm.checkpoints.format import ModelSet
from audiolm.config import (
    FRAME_RATE_HZ,
    FRAMES_PER_SEMANTIC,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_FRAME,
    SAMPLES_PER_SEMANTIC,
    STAGES,
)
from audiolm.detector import Detector, Verdict
from audiolm.detector.network import SEGMENT_SAMPLES
from audiolm.detector.verdict import SEGMENT_S, segment_probabilities_of
from audiolm.device import is_out_of_memory, pick_device
from audiolm.errors import AudioTooShortError, CheckpointError, DeviceMemoryError, ReceiptError, RequestError
from audiolm.events import Chunk, Continuation, Event, Progress, Result, StageTiming
from audiolm.growing import Growing
from audiolm.lm.layouts import UNKNOWN
from audiolm.lm.masked import MaskedModel
from audiolm.receipt import (
    ABLATIONS,
    NO_FINE,
    NO_SEMANTIC,
    SHUFFLED,
    Receipt,
    derive_seed,
    describe_device,
    hash_tokens,
    hash_waveform,
    require_same,
)
from audiolm.request import MAX_CONTINUATION_S, MAX_PROMPT_S, MIN_PROMPT_S, ContinuationRequest
from audiolm.slots import Decoder
from audiolm.stages import Meter, StageRun, run_coarse, run_fine, run_semantic
from audiolm.streaming import Sounding, Start, sound, stream
from audiolm.streams import AcousticTokens, SemanticTokens, Waveform
from audiolm.watermark import MarkResult

__all__ = [
    "Chunk",
    "Continuation",
    "ContinuationRequest",
    "Event",
    "Pipeline",
    "Progress",
    "Result",
    "StageTiming",
    "replay",
]

MARK_CONTEXT_SAMPLES = 2 * SAMPLE_RATE_HZ  # that the mark of a streamed second is made with
CROSSFADE_SAMPLES = SAMPLE_RATE_HZ // 50  # 20 ms, from the recording into the decoded stream


@dataclass(frozen=True)
class Encoded:
    """A recording as the models read it: `pcm` is what was used of it, `gain` took it to the models' level."""

    pcm: Waveform
    gain: float
    semantic: Tensor  # [S]
    codes: Tensor  # [F, Q]

    def as_prompt(self) -> Encoded:
        """Without its last semantic position, which the encoders heard cut off.

        The stages have learnt from tokens with sound on either side: from such an end they go on with a jump. (Of 50
        speech prompts, continued for 2 s, 42 went on without a seam with it, 48 without; acceptance row C7.)
        """
        return Encoded(_without_end(self.pcm), self.gain, self.semantic[:-1], self.codes[:-FRAMES_PER_SEMANTIC])


@dataclass(frozen=True)
class _Job:
    """One run: what is asked for, the prompt (None: none) and, for acoustic generation, the source to follow."""

    kind: str
    request: ContinuationRequest
    prompt: Encoded | None
    source: Encoded | None
    num_frames: int  # of the whole output, prompt included
    ablation: str = ""  # one of ABLATIONS
    stream: bool = False

    @property
    def left_out(self) -> tuple[str, ...]:
        """The stages that do not run."""
        of_ablation = {NO_FINE: ("fine",), NO_SEMANTIC: ("semantic",)}.get(self.ablation, ())
        return of_ablation if self.source is None else ("semantic",)

    @property
    def prompt_frames(self) -> int:
        return 0 if self.prompt is None else self.prompt.codes.shape[0]


@dataclass(frozen=True)
class _Output:
    """One row's sound, the name of the watermark that is in it ("": none) and what the detector says of it."""

    waveform: Waveform
    watermark: str = ""
    verdict: Verdict | None = None


class Pipeline:
    """Continue, generate, acoustic, reconstruct and detect with one checkpoint's models.

    With `watermark`, which runs need the package resemble-perth for, what was generated carries a mark.
    """

    def __init__(self, models: ModelSet, watermark: bool = True, decoder: Decoder | None = None) -> None:
        """`decoder` is shared where another pipeline of the same models has one."""
        self.models = models
        self.watermark = watermark
        self.decoder = Decoder() if decoder is None else decoder
        self.num_coarse_levels = len(models.stages["coarse"].config.levels)
        self.num_levels = self.num_coarse_levels + len(models.stages["fine"].config.levels)

    @classmethod
    def load(cls, source: str, revision: str | None = None, device: str = "auto", watermark: bool = True) -> Self:
        """From an embedded name, a folder or a Hub id; device "auto" is cuda where there is one, else cpu.

        Raises CheckpointError, DeviceMemoryError; RequestError for a device this machine does not have.
        """
        chosen = pick_device(device)
        with _memory_errors():
            return cls(registry.load(source, revision, chosen), watermark)

    @property
    def device(self) -> torch.device:
        return torch.device(self.models.device)

    def continue_prompt(
        self, prompt: Waveform, request: ContinuationRequest, ablation: str = "", stream: bool = False
    ) -> Generator[Event]:
        """Continues the first `request.prompt_s` of the prompt, less where it is shorter.

        The prompt is cut to whole semantic positions (40 ms). The last of them is made anew (see `Encoded.as_prompt`),
        the tokens before it are kept as they are; the whole is as long as prompt and continuation together.

        With an `ablation`: "no fine stage" decodes the coarse levels alone; "shuffled semantics" has the coarse stage
        follow the new semantic tokens in random order; "no semantic stage" has it go on with no condition beyond the
        prompt's (those ids are -1), which no stage was trained for.

        With `stream` the stages overlap, and `Sound` events come before the result, which is the same; then events may
        also be None, where the run waits for others. An ablation is not streamed.

        Raises RequestError for another ablation; AudioTooShortError, AudioSilentError, DeviceMemoryError, on the first
        event that needs it; WatermarkError before the first token where the watermark's package is missing.
        """
        if ablation not in ("", *ABLATIONS):
            raise RequestError(f"ablation must be one of {', '.join(ABLATIONS)}, found {ablation!r}")
        return _guarded(self._continue(prompt, request, ablation, stream and not ablation))

    def generate(self, request: ContinuationRequest) -> Generator[Event]:
        """Unconditional generation of `request.continuation_s`: no prompt.

        Raises DeviceMemoryError; WatermarkError as `continue_prompt`.
        """
        num_frames = round(request.continuation_s * FRAME_RATE_HZ)
        return _guarded(self._run(_Job("generation", request, None, None, num_frames), Meter()))

    def acoustic(
        self, source: Waveform, request: ContinuationRequest, voice: Waveform | None = None
    ) -> Generator[Event]:
        """Acoustic generation: the source's semantic tokens, spoken or played anew.

        At most `request.continuation_s` of the source are followed. Without `voice` the model chooses voice and room;
        with it, the first `request.prompt_s` of `voice`, less their last semantic position, are the prompt (and so the
        start of the outputs).

        Raises as `continue_prompt`.
        """
        return _guarded(self._acoustic(source, request, voice))

    @torch.no_grad()
    def encode(self, waveform: Waveform, max_s: float = MAX_PROMPT_S + MAX_CONTINUATION_S) -> Encoded:
        """The first `max_s` of a recording, cut to whole semantic positions (40 ms), and its tokens.

        Raises AudioTooShortError, AudioSilentError, DeviceMemoryError.
        """
        pcm = _used(waveform, max_s)
        levelled, gain = _levelled(pcm.samples)
        batch = levelled[None].to(self.device)
        with _memory_errors():
            semantic = self.models.semantic.encode(batch)[0].cpu()
            codes = self.models.codec.encode(batch, self.num_levels)[0].cpu()
        return Encoded(pcm, gain, semantic, codes)

    @torch.no_grad()
    def reconstruct(self, waveform: Waveform, num_levels: int | None = None) -> Waveform:
        """The recording through the codec, from its first `num_levels` levels (None: all that it has); same length.

        Raises RequestError for a number of levels the codec does not have; AudioSilentError, DeviceMemoryError.
        """
        codec = self.models.codec
        num_levels = codec.num_levels if num_levels is None else num_levels
        if not 1 <= num_levels <= codec.num_levels:
            raise RequestError(f"the codec has 1..{codec.num_levels} levels, found {num_levels}")
        samples = _at_model_rate(waveform).samples
        with _memory_errors():
            levelled, gain = _levelled(samples)
            codes = codec.encode(levelled[None].to(self.device), num_levels)
            decoded = codec.decode(codes)[0, : samples.shape[0]].float().cpu()
        return Waveform((decoded / gain).clamp(-1.0, 1.0))

    def detect(self, waveform: Waveform) -> Verdict:
        """Generated or original? Raises CheckpointError where the checkpoint has no detector; DeviceMemoryError."""
        detector = self._detector()
        with _memory_errors():
            verdict = detector.judge(_at_model_rate(waveform))
        return replace(verdict, model_sha256=self._component_hashes()["detector"])

    def saliency(self, waveform: Waveform, from_s: float = 0.0) -> Tensor:
        """[mels, frames] over all of it: what speaks for "generated" (positive) and against, from `from_s` on.

        Raises as `detect`.
        """
        detector = self._detector()
        with _memory_errors():
            return detector.saliency(_at_model_rate(waveform), from_s)[0]

    def check_watermark(self, waveform: Waveform) -> MarkResult:
        """Is there one in it, whichever checkpoint made it? Raises WatermarkError where its package is missing."""
        return watermark.check(waveform)

    def replay(
        self, receipt: Receipt, prompt: Waveform | None = None, source: Waveform | None = None
    ) -> Generator[Event]:
        """Runs a receipt again. The result holds all rows of that run; `receipt.row` is the receipt's own.

        `prompt` is the recording that was continued (acoustic generation: the voice), `source` the one followed.

        Raises ReceiptError naming what differs: the models, the recordings or, in the end, the tokens.
        """
        request = receipt.request
        hashes = self._component_hashes()
        if request.fine_decoder != "masked":
            hashes.pop(MASKED, None)  # may have come to the checkpoint since
        pairs = {name: (receipt.components.get(name, ""), hashes[name]) for name in hashes if name != "detector"}
        kept = None if prompt is None else kept_prompt(prompt, request.prompt_s)
        pairs["prompt"] = (receipt.prompt_sha256, hash_waveform(kept))
        if kept is not None:  # older versions kept all of it
            pairs["number of frames kept of the prompt"] = (receipt.prompt_frames, _num_frames(kept))
        pairs["source"] = (receipt.source_sha256, hash_waveform(_used(source, request.continuation_s)))
        require_same(pairs)
        if receipt.kind == "generation" or prompt is source is None:
            events = self.generate(request)
        elif source is not None:
            events = self.acoustic(source, request, prompt)
        else:
            events = self.continue_prompt(prompt, request, receipt.ablation)
        return _checked(events, receipt)

    # ---- runs

    def _continue(
        self, prompt: Waveform, request: ContinuationRequest, ablation: str, stream: bool
    ) -> Generator[Event]:
        meter = Meter()
        prepared = yield from self._prepare(prompt, request.prompt_s, meter)
        num_frames = prepared.codes.shape[0] + round(request.continuation_s * FRAME_RATE_HZ)
        kind = f"ablation: {ablation}" if ablation else "continuation"
        yield from self._run(_Job(kind, request, prepared.as_prompt(), None, num_frames, ablation, stream), meter)

    def _acoustic(self, source: Waveform, request: ContinuationRequest, voice: Waveform | None) -> Generator[Event]:
        meter = Meter()
        followed = yield from self._prepare(source, request.continuation_s, meter)
        prompt = None if voice is None else (yield from self._prepare(voice, request.prompt_s, meter)).as_prompt()
        num_frames = followed.codes.shape[0] + (0 if prompt is None else prompt.codes.shape[0])
        yield from self._run(_Job("acoustic", request, prompt, followed, num_frames), meter)

    def _prepare(self, waveform: Waveform, max_s: float, meter: Meter) -> Generator[Event, None, Encoded]:
        yield Progress("encode", 0, 1, 0.0)
        with meter.measure():
            encoded = self.encode(waveform, max_s)
        yield Progress("encode", 1, 1, 0.0)
        return encoded

    def _run(self, job: _Job, encoding: Meter) -> Generator[Event]:
        if self.watermark:
            watermark.require()  # now, not after a minute of work
        stages = {name: self._stage(job, name) for name in STAGES}
        after = {name: Meter() for name in ("decode", "mark", "detect")}
        if job.stream:
            semantic, codes, decoded = yield from self._streamed(job, stages, after)
        else:
            semantic, codes = yield from self._tokens(job, stages)
            decoded = yield from self._decode(codes, after["decode"])
        outputs = [_Output(self._levelled_back(job, samples)) for samples in decoded]
        outputs = yield from self._mark(job, outputs, after["mark"])
        outputs = yield from self._judge(job, outputs, after["detect"])
        meters = {"encode": encoding, **{name: run.meter for name, run in stages.items()}, **after}
        continuations = tuple(
            self._continuation(job, row, outputs[row], semantic[row], codes[row])
            for row in range(job.request.num_continuations)
        )
        yield Result(continuations, {name: meter.timing for name, meter in meters.items()})

    def _stage(self, job: _Job, stage: str) -> StageRun:
        request = job.request
        seeds = [derive_seed(request.seed, stage, row) for row in range(request.num_continuations)]
        generate = partial(self.decoder.decode, job)
        model = self.models.stages[stage]
        if stage == "fine" and request.fine_decoder == "masked":
            model = self._masked()
        return StageRun(model, getattr(request, stage), seeds, generate=generate)

    def _masked(self) -> MaskedModel:
        if self.models.fine_masked is None:
            raise RequestError(f"checkpoint {self.models.info.name} has no masked fine decoder")
        return self.models.fine_masked

    def _tokens(self, job: _Job, stages: dict[str, StageRun]) -> Generator[Event, None, tuple[Tensor, Tensor]]:
        """One stage after the other -> semantic ids [N, S], codes [N, F, Q]."""
        prompt = torch.zeros(0, self.num_levels, dtype=torch.long) if job.prompt is None else job.prompt.codes
        semantic = yield from self._semantic(job, stages["semantic"])
        coarse_prompt, fine_prompt = prompt[:, : self.num_coarse_levels], prompt[:, self.num_coarse_levels :]
        codes = yield from run_coarse(stages["coarse"], semantic, coarse_prompt, job.num_frames)
        if job.ablation != NO_FINE:
            codes = torch.cat([codes, (yield from run_fine(stages["fine"], codes, fine_prompt))], dim=2)
        return semantic, codes

    def _streamed(
        self, job: _Job, stages: dict[str, StageRun], meters: dict[str, Meter]
    ) -> Generator[Event | None, None, tuple[Tensor, Tensor, list[Tensor]]]:
        seed = derive_seed(job.request.seed, "semantic", "join")
        start = Start(job.prompt.semantic, job.prompt.codes, job.num_frames, seed)

        def heard(samples: Tensor, first: int) -> Tensor:
            with meters["mark"].measure():
                whole = self._levelled_back(job, samples)
                return (_marked_end(whole, first) if self.watermark else whole.seconds(first / SAMPLE_RATE_HZ)).int16()

        return (yield from stream(stages, self.models.codec, start, heard, meters["decode"]))

    def _semantic(self, job: _Job, run: StageRun) -> Generator[Event, None, Tensor]:
        """Semantic ids [N, S] of the whole output, S = ceil(F / 2)."""
        ids = torch.zeros(0, dtype=torch.long) if job.prompt is None else job.prompt.semantic
        if job.source is not None:
            return torch.cat([ids, job.source.semantic]).expand(job.request.num_continuations, -1)
        num_positions = -(-job.num_frames // FRAMES_PER_SEMANTIC)
        if job.ablation == NO_SEMANTIC:
            unknown = torch.full((num_positions - len(ids),), UNKNOWN)
            return torch.cat([ids, unknown]).expand(job.request.num_continuations, -1)
        seed = derive_seed(job.request.seed, "semantic", "join")
        rows = yield from run_semantic(run, ids, num_positions, [seed])
        return _shuffled(rows, len(ids), job.request.seed) if job.ablation == SHUFFLED else rows

    def _decode(self, codes: Tensor, meter: Meter) -> Generator[Event, None, list[Tensor]]:
        """codes [N, F, q] -> samples [T] row by row, so that the caller can stop in between."""
        decoded: list[Tensor] = []
        for row in codes:
            yield Progress("decode", len(decoded), codes.shape[0], 0.0)
            sounding = Sounding(self.models.codec, meter)
            for _ in sound([sounding], (Growing(row[None], row.shape[0]),)):
                pass
            decoded.append(sounding.samples())
        yield Progress("decode", len(decoded), codes.shape[0], 0.0)
        return decoded

    def _levelled_back(self, job: _Job, samples: Tensor) -> Waveform:
        """Decoded samples at the prompt's own level, and with the prompt as it is asked for."""
        leader = job.prompt or job.source
        samples = samples / (1.0 if leader is None else leader.gain)
        if job.prompt is not None and job.request.prompt_part == "original":
            samples = join(job.prompt.pcm.samples, samples)
        return Waveform(samples.clamp(-1.0, 1.0))

    def _mark(self, job: _Job, outputs: list[_Output], meter: Meter) -> Generator[Event, None, list[_Output]]:
        """The watermark in what was generated, from the join on; a prompt stays as it is."""
        if not self.watermark:
            return outputs
        marked: list[_Output] = []
        for output in outputs:
            yield Progress("mark", len(marked), len(outputs), 0.0)
            with meter.measure():
                marked.append(_marked(output, job.prompt_frames * SAMPLES_PER_FRAME))
        yield Progress("mark", len(marked), len(outputs), 0.0)
        return marked

    def _judge(self, job: _Job, outputs: list[_Output], meter: Meter) -> Generator[Event, None, list[_Output]]:
        """Verdicts on what was generated, never on the prompt, whose scores over time stand before the others."""
        if self.models.detector is None:
            return outputs
        judged: list[_Output] = []
        for output in outputs:
            yield Progress("detect", len(judged), len(outputs), 0.0)
            with meter.measure():
                samples, join = output.waveform.samples, job.prompt_frames * SAMPLES_PER_FRAME
                verdict = self.detect(Waveform(samples[join:]))
                if join and verdict.segment_probabilities:
                    verdict = _after_prompt(verdict, self._detector(), samples, join)
                judged.append(replace(output, verdict=verdict))
        yield Progress("detect", len(judged), len(outputs), 0.0)
        return judged

    def _continuation(self, job: _Job, row: int, output: _Output, ids: Tensor, codes: Tensor) -> Continuation:
        semantic = SemanticTokens(ids, self.models.stages["semantic"].config.levels[0])
        acoustic = AcousticTokens(codes, self.models.codec.codebook_size)
        stages = [stage for stage in STAGES if stage not in job.left_out]
        receipt = Receipt(
            kind=job.kind,
            checkpoint=self.models.info.name,
            checkpoint_sha256=self.models.info.sha256,
            components=self._component_hashes(),
            request=job.request,
            row=row,
            stage_seeds={stage: derive_seed(job.request.seed, stage, row) for stage in stages},
            prompt_frames=job.prompt_frames,
            num_frames=job.num_frames,
            tokens_sha256=hash_tokens(semantic, acoustic),
            prompt_sha256=hash_waveform(job.prompt and job.prompt.pcm),
            source_sha256=hash_waveform(job.source and job.source.pcm),
            device=describe_device(self.device),
            watermark=output.watermark,
            verdict=None if output.verdict is None else _of_the_clip(output.verdict),
        )
        prompt_s = job.prompt_frames / FRAME_RATE_HZ
        return Continuation(output.waveform, prompt_s, semantic, acoustic, output.verdict, receipt)

    def _detector(self) -> Detector:
        if self.models.detector is None:
            raise CheckpointError(f"checkpoint {self.models.info.name} has no detector")
        return self.models.detector

    def _component_hashes(self) -> dict[str, str]:
        return {name: entry.hash for name, entry in self.models.info.components.items()}


def replay(pipeline: Pipeline, receipt: Receipt, prompt: Waveform | None, source: Waveform | None = None) -> Result:
    """`Pipeline.replay` to its end. Raises ReceiptError where models, recordings or tokens differ."""
    *_, result = pipeline.replay(receipt, prompt, source)
    return result


def kept_prompt(recording: Waveform, prompt_s: float) -> Waveform:
    """What a run keeps of a prompt: its first `prompt_s` in whole semantic positions, without the last of them.

    Raises AudioTooShortError.
    """
    return _without_end(_used(recording, prompt_s))


def planned_frames(prompt: Waveform, request: ContinuationRequest) -> tuple[int, int]:
    """Frames of the prompt that a continuation keeps, and frames of the whole output. Raises AudioTooShortError."""
    kept = _num_frames(kept_prompt(prompt, request.prompt_s))
    return kept, kept + FRAMES_PER_SEMANTIC + round(request.continuation_s * FRAME_RATE_HZ)


def join(prompt: Tensor, decoded: Tensor) -> Tensor:
    """The recording [T0], crossfaded over its last 20 ms into the decoded stream [T] that starts with it -> [T].

    The two are versions of one sound, so the fade is linear: the weights add up to one.
    """
    length = min(CROSSFADE_SAMPLES, prompt.shape[0])
    start, end = prompt.shape[0] - length, prompt.shape[0]
    rising = torch.linspace(0.0, 1.0, length + 2)[1:-1]
    faded = prompt[start:] * (1.0 - rising) + decoded[start:end] * rising
    return torch.cat([prompt[:start], faded, decoded[end:]])


def _marked(output: _Output, start: int) -> _Output:
    """With the mark from sample `start` on; as it is where that part is too short or too quiet to carry one."""
    samples = output.waveform.samples
    part = Waveform(samples[start:])
    marked = watermark.mark(part)
    if marked is part:
        return output
    return _Output(Waveform(torch.cat([samples[:start], marked.samples])), watermark.NAME)


def _marked_end(waveform: Waveform, first: int) -> Waveform:
    """From sample `first` to the end, marked together with what comes before, since a second alone carries no mark.

    The whole is marked once more and otherwise when it is finished: how strong a mark is depends on the loudest frame.
    """
    context = Waveform(waveform.samples[max(0, first - MARK_CONTEXT_SAMPLES) :])
    change = (watermark.mark(context).samples - context.samples)[
        context.samples.shape[0] - (waveform.samples.shape[0] - first) :
    ]
    length = min(CROSSFADE_SAMPLES, change.shape[0])
    change[:length] *= torch.linspace(0.0, 1.0, length)  # its end is faded already
    return Waveform((waveform.samples[first:] + change).clamp(-1.0, 1.0))


@torch.no_grad()
def _after_prompt(verdict: Verdict, detector: Detector, samples: Tensor, join: int) -> Verdict:
    """A verdict on what comes after sample `join` of samples [T], with the scores of what comes before."""
    count, left_out = divmod(join, SEGMENT_SAMPLES)  # so that all are equally far apart
    seen = samples[left_out : join + SAMPLE_RATE_HZ // 2]  # segments see half a second to either side
    logits = detector.segment_logits(seen[None].to(detector.output.weight.device))[0, :count].cpu()
    before = segment_probabilities_of(detector.config.calibration, logits).tolist()
    return replace(
        verdict,
        segment_times_s=(*(SEGMENT_S * (n - count) for n in range(count)), *verdict.segment_times_s),
        segment_probabilities=(*before, *verdict.segment_probabilities),
    )


def _of_the_clip(verdict: Verdict) -> dict[str, Any]:
    """What a receipt keeps of a verdict: all but the lists over its segments."""
    return {name: value for name, value in verdict.to_dict().items() if not isinstance(value, list)}


def _used(waveform: Waveform | None, max_s: float) -> Waveform | None:
    """The first `max_s` in whole semantic positions, as int16 values: models read exactly what receipts hash."""
    if waveform is None:
        return None
    if waveform.duration_s < MIN_PROMPT_S:
        raise AudioTooShortError(f"a recording must have at least {MIN_PROMPT_S} s, found {waveform.duration_s:.2f} s")
    samples = _at_model_rate(waveform).samples
    num_positions = min(samples.shape[0], round(max_s * SAMPLE_RATE_HZ)) // SAMPLES_PER_SEMANTIC
    pcm = Waveform(samples[: num_positions * SAMPLES_PER_SEMANTIC]).int16()
    return Waveform(pcm.float() / 32767.0)


def _without_end(pcm: Waveform) -> Waveform:
    return Waveform(pcm.samples[:-SAMPLES_PER_SEMANTIC])


def _num_frames(pcm: Waveform) -> int:
    return pcm.samples.shape[0] // SAMPLES_PER_FRAME


def _shuffled(ids: Tensor, num_known: int, seed: int) -> Tensor:
    """ids [N, S] with the positions from `num_known` on in random order, the same in all rows."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "semantic", "shuffle"))
    order = num_known + torch.randperm(ids.shape[1] - num_known, generator=generator)
    return torch.cat([ids[:, :num_known], ids[:, order]], dim=1)


def _levelled(samples: Tensor) -> tuple[Tensor, float]:
    """[T] without constant offset, at the models' level, and the gain that took it there."""
    centred = samples - samples.mean()
    gain = level_gain(centred)
    return centred * gain, gain


def _at_model_rate(waveform: Waveform) -> Waveform:
    samples = waveform.samples.detach().cpu().float()
    return Waveform(resample(samples, waveform.sample_rate_hz, SAMPLE_RATE_HZ))


@torch.no_grad()
def _guarded(events: Generator[Event]) -> Generator[Event]:
    with _memory_errors():
        yield from events


def _checked(events: Generator[Event], receipt: Receipt) -> Generator[Event]:
    for event in events:
        if isinstance(event, Result):
            again = event.continuations[receipt.row].receipt
            if again.tokens_sha256 != receipt.tokens_sha256:
                here, there = (
                    f"{r.device}, {r.versions}, checkpoint {r.checkpoint_sha256[:12]}" for r in (again, receipt)
                )
                raise ReceiptError(f"the tokens differ: made with {there}, replayed with {here}")
        yield event


@contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        message = str(error).split("\n")[0]
        raise DeviceMemoryError(f"not enough memory for this request; try fewer or shorter ones ({message})") from error
