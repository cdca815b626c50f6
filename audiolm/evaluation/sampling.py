"""`python -m audiolm.evaluation.sampling {speech,piano}`: sampling chosen by measurement on held-out recordings.

Stage after stage, every setting of the grid continues the same prompts with the same seeds, the other stages at the
base, or at the best found for them. The setting whose continuations are most like what the recordings really went on
with (`resemblance`), both through the codec, is best; it takes the base's place if it comes first in at least half of
the bootstrap's draws of prompts.

What is chosen here was fitted to these recordings: hence the split "valid", which leaves figures on "test" clean.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiolm.audio.files import write_wav
from audiolm.checkpoints.format import ModelSet
from audiolm.config import DOMAINS, FRAMES_PER_SEMANTIC, SAMPLES_PER_FRAME, SEMANTIC_RATE_HZ, STAGES, SamplingConfig
from audiolm.data.corpus import SPLITS, Corpus
from audiolm.data.tokens import TokenCorpus
from audiolm.device import pick_device
from audiolm.errors import AudioLMError, EvaluationError
from audiolm.evaluation.continuations import PROMPT_S, file_name
from audiolm.evaluation.holdout import HoldOut, cached
from audiolm.evaluation.prompts import Prompt, continue_coarse, continue_fine, continue_semantic, decode, read_prompts
from audiolm.evaluation.resemblance import Clip, Described, describe, distances, ngrams, score
from audiolm.evaluation.subject import from_checkpoint
from audiolm.intervals import Interval
from audiolm.receipt import LABEL
from audiolm.streams import Waveform

CONTINUATION_S = 6.0
NUM_ITEMS = 12
NUM_DRAWS = 200
CLEAR_SHARE = 0.5  # of the draws
GRID = ("semantic=0.5,0.6,0.7,0.8,0.9,1.0", "coarse=0.6,0.7,0.8,0.9,1.0", "fine=0.3,0.6,0.8,1.0")

Sampling = dict[str, SamplingConfig]  # by stage


@dataclass(frozen=True)
class Setting:
    """One setting of a stage: its distances to the originals, and in which share of the draws it came first."""

    sampling: SamplingConfig
    score: Interval
    best_share: float
    features: dict[str, Interval]

    @property
    def label(self) -> str:
        return label(self.sampling)


def parse_grid(text: str) -> tuple[str, tuple[SamplingConfig, ...]]:
    """`semantic=0.8,0.9:50,1.0:0:0.95`: a stage and its settings, temperature[:top-k[:top-p]].

    Raises EvaluationError for anything else, and for numbers out of bounds.
    """
    stage, _, settings = text.partition("=")
    if stage not in STAGES:
        raise EvaluationError(
            f"a grid is STAGE=T[:TOP_K[:TOP_P]],…, the stages are {', '.join(STAGES)}; found {text!r}"
        )
    kinds = (float, int, float)
    try:
        parts = [setting.split(":") for setting in settings.split(",")]
        if any(len(part) > len(kinds) for part in parts):
            raise ValueError(f"at most {len(kinds)} numbers")
        return stage, tuple(SamplingConfig(*(kind(n) for kind, n in zip(kinds, p, strict=False))) for p in parts)
    except ValueError as error:
        raise EvaluationError(f"a setting is TEMPERATURE[:TOP_K[:TOP_P]], found {settings!r} ({error})") from error


def parse_grids(texts: Sequence[str]) -> dict[str, tuple[SamplingConfig, ...]]:
    """Settings by stage. Raises EvaluationError like `parse_grid`, and for a stage that comes twice."""
    grids = [parse_grid(text) for text in texts]
    stages = [stage for stage, _ in grids]
    if repeated := sorted({stage for stage in stages if stages.count(stage) > 1}):
        raise EvaluationError(f"a stage has one grid, found several of {', '.join(repeated)}")
    return dict(grids)


def require_writable(path: Path | None) -> None:
    """Raises EvaluationError where a file asked for could not be written: better before the work than after it."""
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise EvaluationError(f"{path}: cannot be written")


def label(sampling: SamplingConfig) -> str:
    """`0.8`, `0.8 top-k 50 top-p 0.95`."""
    top_k = f" top-k {sampling.top_k}" if sampling.top_k else ""
    return f"{sampling.temperature:g}{top_k}" + (f" top-p {sampling.top_p:g}" if sampling.top_p < 1.0 else "")


class Trials:
    """Continues the same prompts with whatever sampling; the streams of the stages before the one tried are kept."""

    def __init__(self, models: ModelSet, prompts: Sequence[Prompt], continuation_s: float, domain: str,
                 known: np.ndarray | None = None, work: Path | None = None) -> None:  # fmt: skip
        self.models, self.prompts, self.domain, self.known, self.work = models, prompts, domain, known, work
        self.num_known = len(prompts[0].semantic)
        self.num_positions = self.num_known + _num_new(continuation_s)
        self._kept: dict[str, tuple[Any, Tensor]] = {}

    def generated(self, sampling: Sampling) -> list[Described]:
        semantic = self._stream("semantic", sampling, lambda: continue_semantic(
            self.models, self.prompts, self.num_positions, sampling["semantic"]))  # fmt: skip
        coarse = self._stream("coarse", sampling, lambda: continue_coarse(
            self.models, self.prompts, semantic, sampling["coarse"]))  # fmt: skip
        codes = continue_fine(self.models, self.prompts, coarse, sampling["fine"])
        folder = "_".join(label(sampling[stage]).replace(" ", "-") for stage in STAGES)
        return [self._described(*row, folder) for row in zip(self.prompts, semantic, codes, strict=True)]

    def originals(self) -> list[Described]:
        return self._recorded(self.num_known, "original")

    def later(self) -> list[Described]:
        """The recordings' next stretch in the continuation's place: what the originals themselves come to."""
        longest = min(len(prompt.whole_semantic) for prompt in self.prompts)
        if longest < 2 * self.num_positions - self.num_known:
            return []
        return self._recorded(self.num_positions, "")

    def _recorded(self, start: int, folder: str) -> list[Described]:
        """The prompts, followed by what their recordings have from semantic position `start` on."""
        stop, described = start + self.num_positions - self.num_known, []
        for prompt in self.prompts:
            codes = prompt.whole_codes[start * FRAMES_PER_SEMANTIC : stop * FRAMES_PER_SEMANTIC]
            semantic = torch.cat([prompt.semantic, prompt.whole_semantic[start:stop]])
            described.append(self._described(prompt, semantic, torch.cat([prompt.codes, codes]), folder))
        return described

    def _stream(self, stage: str, sampling: Sampling, make: Any) -> Tensor:
        upstream = [sampling[name] for name in STAGES[: STAGES.index(stage) + 1]]
        if stage not in self._kept or self._kept[stage][0] != upstream:
            self._kept[stage] = (upstream, make())
        return self._kept[stage][1]

    def _described(self, prompt: Prompt, semantic: Tensor, codes: Tensor, folder: str) -> Described:
        """Both decoded with the prompt, whose end the codec's decoder remembers."""
        sound, num_frames = decode(self.models, codes), self.num_known * FRAMES_PER_SEMANTIC
        if self.work is not None and folder:
            (self.work / folder).mkdir(parents=True, exist_ok=True)
            note = LABEL if folder != "original" else "through the codec"
            write_wav(self.work / folder / f"{file_name(prompt.id)}.wav", Waveform(sound.clamp(-1.0, 1.0)), note)
        start = num_frames * SAMPLES_PER_FRAME
        levels = len(self.models.stages["coarse"].config.levels)
        clip = Clip(sound[:start], sound[start:], semantic, self.num_known, codes[num_frames:, :levels])
        return describe(clip, self.domain, self.models.codec.codebook_size, self.known)


def _num_new(continuation_s: float) -> int:
    """Semantic positions that are made: the prompt's last one is one of them."""
    return 1 + round(continuation_s * SEMANTIC_RATE_HZ)


def compare(made: Sequence[list[Described]], originals: list[Described], seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Distances by feature [1 + draws], with the "score", of each set in `made`; the first is over all prompts.

    The draws, of prompts with replacement, are the same for all sets.
    """
    n = len(originals)
    drawn = np.random.default_rng(seed).integers(n, size=(NUM_DRAWS, n))
    draws = np.concatenate([np.arange(n)[None], drawn])
    found = [distances(one, originals, draws) for one in made]
    return [{"score": score(one), **one} for one in found]


def settings_of(grid: Sequence[SamplingConfig], found: list[dict[str, np.ndarray]], n: int) -> list[Setting]:
    """The settings with their figures, of `n` prompts, in the grid's order."""
    scores = np.stack([one["score"] for one in found])  # [settings, 1 + draws]
    firsts = np.bincount(scores[:, 1:].argmin(axis=0), minlength=len(found)) / NUM_DRAWS
    return [
        Setting(sampling, _interval(one["score"], n), float(share), {name: _interval(v, n) for name, v in one.items()})
        for sampling, one, share in zip(grid, found, firsts, strict=True)
    ]


def _interval(values: np.ndarray, n: int) -> Interval:
    """values [1 + draws]: the estimate, then the draws, around whose mean the interval is moved to the estimate.

    Draws with repetitions lie further from the originals than the prompts themselves; only their spread is of use.
    """
    low, high = np.quantile(values[1:] - values[1:].mean(), (0.025, 0.975))
    return Interval(float(values[0]), float(values[0] + low), float(values[0] + high), n)


def table(settings: Sequence[Setting], chosen: Setting | None = None) -> str:
    """Score with its interval, share of draws in which the setting was best, then each feature's distance."""
    names = list(settings[0].features)[1:]
    lines = [["setting", "score", "95 % interval", "comes first", *names]]
    for one in settings:
        mark = "*" if one is chosen else ""
        interval = f"{one.score.low:.3f} .. {one.score.high:.3f}"
        features = [f"{one.features[name].value:.2f}" for name in names]
        lines.append([one.label + mark, f"{one.score.value:.3f}", interval, f"{one.best_share:.0%}", *features])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  " + "  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines)


def choose(settings: Sequence[Setting], base: SamplingConfig) -> Setting:
    """The setting of the least score, if it comes first in at least half of the draws; else `base`, one of them."""
    best = min(settings, key=lambda one: one.score.value)
    return best if best.best_share >= CLEAR_SHARE else next(one for one in settings if one.sampling == base)


def verdict(settings: Sequence[Setting], chosen: Setting) -> str:
    """What was chosen; where the least score is no clear one, what it is not told apart from."""
    best = min(settings, key=lambda one: one.score.value)
    if best.best_share >= CLEAR_SHARE:
        return f"best: {best.label}"
    rivals = sorted((one for one in settings if one is not best and one.best_share), key=lambda one: -one.best_share)
    names = ", ".join(one.label for one in rivals)
    return f"best: {best.label}, not told apart from {names}; kept: {chosen.label}"


def climb(trials: Trials, base: Sampling, grids: dict[str, tuple[SamplingConfig, ...]], seed: int) -> dict[str, Any]:
    """Every stage of `grids` in turn, prints as it goes -> what the JSON file holds. The base is always tried too."""
    originals, best, stages = trials.originals(), dict(base), {}
    later = trials.later()
    reference = compare([later], originals, seed)[0] if later else {}
    if reference:
        print("the recordings' next stretch, for comparison:", f"score {reference['score'][0]:.3f}", flush=True)
    for stage in (stage for stage in STAGES if stage in grids):
        grid = grids[stage] if best[stage] in grids[stage] else (best[stage], *grids[stage])
        made = [trials.generated({**best, stage: setting}) for setting in grid]
        settings = settings_of(grid, compare(made, originals, seed), len(originals))
        chosen = choose(settings, best[stage])
        others = {name: label(value) for name, value in best.items() if name != stage}
        best[stage] = chosen.sampling
        beside = ", ".join(f"{name} {text}" for name, text in others.items())
        print(f"\n{stage} (with {beside})\n{table(settings, chosen)}\n  {verdict(settings, chosen)}", flush=True)
        stages[stage] = {"others": others, "settings": [dataclasses.asdict(one) for one in settings]}
    return {
        "sampling": {stage: value.to_dict() for stage, value in best.items()},
        "base": {stage: value.to_dict() for stage, value in base.items()},
        "reference": {name: float(values[0]) for name, values in reference.items()},
        "stages": stages,
        "items": [prompt.id for prompt in trials.prompts],
    }


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 2 where nothing could be measured."""
    arguments = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(arguments)
    torch.set_num_threads(args.threads)
    try:
        result = _run(args)
    except AudioLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result["command"] = "python -m audiolm.evaluation.sampling " + shlex.join(arguments)
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if args.out is not None:
        args.out.write_text(json.dumps(result["sampling"], indent=1) + "\n", encoding="utf-8")
    return 0


def _run(args: argparse.Namespace) -> dict[str, Any]:
    grids, starts = parse_grids(args.grid), parse_grids(args.base)
    for path in (args.json, args.out):
        require_writable(path)
    subject = from_checkpoint(args.checkpoint, pick_device(args.device))
    caches = [TokenCorpus(folder) for folder in args.tokens]
    holdout = HoldOut(subject, Corpus(args.data), caches)
    prompt_s = PROMPT_S[args.domain] if args.prompt_s is None else args.prompt_s
    total_s, more_s = prompt_s + args.continuation_s, _num_new(args.continuation_s) / SEMANTIC_RATE_HZ
    prompts = read_prompts(holdout, subject.models, args.items, prompt_s, total_s, more_s, args.seed, args.split)
    if len(prompts) < 2:
        raise EvaluationError(f"sets of clips need at least 2 prompts, found {len(prompts)}")
    base = dict(subject.models.info.sampling)
    base |= {stage: settings[0] for stage, settings in starts.items()}
    lengths = f"{prompt_s:g} s, {args.continuation_s:g} s continued"
    print(f"{subject.name}: {len(prompts)} prompts of {lengths}; split {args.split}", flush=True)
    known = training_ngrams(caches) if caches else None
    trials = Trials(subject.models, prompts, args.continuation_s, args.domain, known, args.work)
    about = {"checkpoint": subject.name, "sha256": subject.sha256, "components": subject.components}
    setup = {"split": args.split, "prompt_s": prompt_s, "continuation_s": args.continuation_s}
    return {"domain": args.domain, **about, **setup, **climb(trials, base, grids, args.seed)}


def training_ngrams(caches: Sequence[TokenCorpus]) -> np.ndarray:
    """All n-grams of the split "train", sorted."""
    return np.unique(np.concatenate([ngrams(one.semantic.numpy()) for one in cached(caches, "train")]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m audiolm.evaluation.sampling", description=__doc__)
    parser.add_argument("domain", choices=DOMAINS)
    parser.add_argument("--checkpoint", required=True, help="embedded name, folder or Hub id")
    parser.add_argument("--data", type=Path, required=True, help="corpus folder")
    parser.add_argument("--split", choices=SPLITS, default="valid", help="(valid: test is for the figures)")
    parser.add_argument(
        "--tokens", type=Path, nargs="+", default=[], help="token caches with the split train: measures novelty too"
    )
    parser.add_argument("--items", type=int, default=NUM_ITEMS, help=f"prompts ({NUM_ITEMS})")
    parser.add_argument("--prompt-s", type=float, help="default: 3 for speech, 4 for piano")
    parser.add_argument("--continuation-s", type=float, default=CONTINUATION_S)
    setting = "STAGE=TEMPERATURE[:TOP_K[:TOP_P]]"
    parser.add_argument("--grid", nargs="+", default=list(GRID), metavar=f"{setting},…", help="(%(default)s)")
    parser.add_argument(
        "--base", nargs="+", default=[], metavar=setting, help="where stages start (the checkpoint's own sampling)"
    )
    parser.add_argument("--work", type=Path, help="folder that keeps what was heard, one folder a setting")
    parser.add_argument("--json", type=Path, help="file to write: all figures")
    parser.add_argument("--out", type=Path, help="file to write: the best, for `checkpoints assemble --sampling`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser


if __name__ == "__main__":
    sys.exit(main())
