"""How a checkpoint's own models hear a recording: its semantic features, and what its tokens cost the stages.

A recording is encoded again, and the stages say, teacher forced, how far they expected each token. Sampling favours
what a model expects; what people say and play surprises it more, and in other places. A detector that reads this
hears generation itself, whatever the codec, the level or the band (for text: GLTR, arXiv 1906.04043). And codes that
were sampled level by level do not quite fit each other: encoded again, what they decode to lies between the codec's
vectors, where a recording that was coded lies nearer to one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from audiolm.audio.levelling import level_gain
from audiolm.codec import Codec
from audiolm.config import FRAMES_PER_SEMANTIC, SAMPLES_PER_SEMANTIC, SEMANTIC_RATE_HZ
from audiolm.errors import AudioSilentError
from audiolm.lm import StageModel
from audiolm.lm.sequences import merge_repeats, split_runs
from audiolm.lm.stage import Tables
from audiolm.semantic import SemanticTokenizer
from audiolm.semantic.kmeans import assign

LISTENER_VERSION = 1  # another one when the figures change: views and detectors name theirs, and no other will do
WINDOW_S = 6
MAX_WINDOWS = 16  # heard at once; bounds the memory for long recordings
FIGURES = 3  # of a token: surprisal and entropy in nats, log of its rank
FIT_FIGURES = 2  # of a code: logs of the distance to its vector, and of how much farther the next one lies
LEAST_POWER = 1e-6


class Listener:
    """Waveforms -> figures at 25 Hz, the rate of semantic tokens. Holds nothing of a recording.

    They are `FIGURES` of the semantic token (and of its run, all along it), `FIGURES` of every codec level in both of
    its frames, `FIT_FIGURES` of the same, and the semantic features with their distance from the token's centroid.

    Long recordings are heard in equal windows of at most 6 s, each from nothing, so that figures do not depend on how
    much went before.
    """

    def __init__(self, codec: Codec, semantic: SemanticTokenizer, stages: Mapping[str, StageModel]) -> None:
        self.codec, self.semantic, self.stages = codec, semantic, stages
        self._tables: dict[str, Tables] = {}

    @property
    def num_features(self) -> int:
        levels = {name: len(stage.config.levels) for name, stage in self.stages.items()}
        of_codes = FRAMES_PER_SEMANTIC * (levels["coarse"] + levels["fine"])
        of_features = self.semantic.centroids.shape[1] + 1
        return FIGURES * levels["semantic"] + (FIGURES + FIT_FIGURES) * of_codes + of_features

    @torch.no_grad()
    def __call__(self, waveforms: Tensor) -> Tensor:
        """waveforms [B, T] -> [B, num_features, S], S = T // 640. Rows are brought to the models' level first."""
        num_positions = waveforms.shape[1] // SAMPLES_PER_SEMANTIC
        if not num_positions:
            return waveforms.new_zeros(len(waveforms), self.num_features, 0)
        levelled = torch.stack([_levelled(row) for row in waveforms])
        steps = levelled[:, : num_positions * SAMPLES_PER_SEMANTIC].unflatten(1, (num_positions, SAMPLES_PER_SEMANTIC))
        windows = _Windows.over(num_positions, WINDOW_S * SEMANTIC_RATE_HZ)
        heard = [self._window(some.flatten(1)) for some in windows.cut(steps).split(MAX_WINDOWS)]
        return windows.join(torch.cat(heard)).mT

    def _window(self, waveforms: Tensor) -> Tensor:
        """[B, T] -> [B, S, D]."""
        features = self.semantic.features(waveforms)
        with _bfloat16(waveforms.device):
            residual = self.codec.encoder(waveforms).mT.float()
        codes, fit = self._coded(residual)
        semantic, distances = assign(features, self.semantic.centroids)
        num_coarse, num_fine = (len(self.stages[name].config.levels) for name in ("coarse", "fine"))
        coarse, fine = codes[:, :, :num_coarse], codes[:, :, num_coarse : num_coarse + num_fine]
        windows = _Windows.over(codes.shape[1], self.stages["fine"].config.max_steps)
        parts = [
            self._semantic(semantic),
            _by_position(self._figures("coarse", coarse, semantic[:, :, None])),
            _by_position(windows.join(self._figures("fine", windows.cut(fine), windows.cut(coarse)))),
            _by_position(fit),
            distances[:, :, None],
            features,
        ]
        return torch.cat(parts, dim=2)

    def _coded(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """What the codec's encoder says [B, F, D] -> (codes [B, F, Q], how well they fit [B, F, Q * FIT_FIGURES])."""
        codes, figures, left = [], [], residual.flatten(0, 1)
        for codebook in self.codec.codebooks().float():
            gains = torch.addmm(-0.5 * codebook.square().sum(dim=-1), left, codebook.T)
            nearest, ids = gains.max(dim=-1)
            next_one = gains.scatter_(-1, ids[:, None], -torch.inf).amax(dim=-1)
            power = left.square().sum(dim=-1)
            near, far = (0.5 * (power - 2.0 * gain).clamp_min(LEAST_POWER).log() for gain in (nearest, next_one))
            figures += [near, far - near]
            codes.append(ids)
            left = left - codebook[ids]
        shape = residual.shape[:2]
        return torch.stack(codes, dim=-1).unflatten(0, shape), torch.stack(figures, dim=-1).unflatten(0, shape)

    def _semantic(self, ids: Tensor) -> Tensor:
        """ids [B, S] -> [B, S, D]. Rows of fewer steps are filled up at the end, which no step before it sees."""
        stage = self.stages["semantic"]
        rows = [_steps(stage, row) for row in ids]
        steps = torch.nn.utils.rnn.pad_sequence([steps for steps, _ in rows], batch_first=True)
        figures = self._figures("semantic", steps, None)
        return torch.stack(
            [own[: len(runs)].repeat_interleave(runs, dim=0) for own, (_, runs) in zip(figures, rows, strict=True)]
        )

    def _figures(self, stage: str, targets: Tensor, condition: Tensor | None) -> Tensor:
        """targets [B, N, L] -> [B, N, L * FIGURES] float32. What a stage's tables come to is computed once."""
        with _bfloat16(targets.device):
            if stage not in self._tables:
                self._tables[stage] = self.stages[stage].tables()
            logits = self.stages[stage].logits(targets, condition, self._tables[stage])
        return _figures_of(logits, targets)


@dataclass(frozen=True)
class _Windows:
    """Equal windows over `total` steps; the last one reaches back where they do not divide evenly."""

    total: int
    size: int
    starts: tuple[int, ...]

    @classmethod
    def over(cls, total: int, longest: int) -> _Windows:
        count = -(-total // longest)
        size = -(-total // count)
        return cls(total, size, tuple(min(n * size, total - size) for n in range(count)))

    def cut(self, x: Tensor) -> Tensor:
        """[B, total, ...] -> [windows * B, size, ...]."""
        return torch.cat([x[:, start : start + self.size] for start in self.starts])

    def join(self, x: Tensor) -> Tensor:
        """[windows * B, size, ...] -> [B, total, ...]."""
        parts = zip(self.starts, x.chunk(len(self.starts)), strict=True)
        return torch.cat([part[:, n * self.size - start :] for n, (start, part) in enumerate(parts)], dim=1)


def _figures_of(logits: list[Tensor], targets: Tensor) -> Tensor:
    """Logits of every level [B, N, V_l], targets [B, N, L] -> [B, N, L * FIGURES] float32.

    All levels share two buffers: fresh memory for every level takes longer than the arithmetic.
    """
    buffers = logits[0].new_empty(2, max(level.numel() for level in logits), dtype=torch.float32)
    figures = []
    for level, of_level in enumerate(logits):
        x, p = (buffer[: of_level.numel()].view_as(of_level) for buffer in buffers)
        torch.softmax(x.copy_(of_level), dim=-1, out=p)
        own = x.gather(-1, targets[..., level, None])
        log_sum = x.amax(dim=-1) - p.amax(dim=-1).log()
        entropy = log_sum - p.mul_(x).sum(dim=-1)
        rank = x.gt_(own).sum(dim=-1) + 1.0  # in place: of 0 and 1
        figures += [log_sum - own[..., 0], entropy, rank.log()]
    return torch.stack(figures, dim=-1)


def _bfloat16(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bfloat16(device))


def multiplies_bfloat16(device: torch.device) -> bool:
    """Not a CPU without oneDNN's products: torch's own would take many times as long as those of float32."""
    mkldnn = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return device.type != "cpu" or mkldnn


def _by_position(figures: Tensor) -> Tensor:
    """[B, F, D] -> [B, F / 2, 2 D]: both frames of a semantic position side by side."""
    return figures.unflatten(1, (-1, FRAMES_PER_SEMANTIC)).flatten(2)


def _steps(stage: StageModel, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Semantic ids [S] -> (the stage's steps [R, L] for them, how many positions each stands for [R])."""
    merged, runs = merge_repeats(ids)
    if stage.config.layout == "flattened":
        return merged[:, None], runs
    merged, runs = split_runs(merged, runs, stage.config.levels[1])
    return torch.stack([merged, runs - 1], dim=1), runs


def _levelled(samples: Tensor) -> Tensor:
    """[T] without constant offset, at the models' level; silence stays silence."""
    centred = samples.float() - samples.float().mean()
    try:
        return centred * level_gain(centred)
    except AudioSilentError:
        return centred
