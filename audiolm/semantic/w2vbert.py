"""w2v-BERT (Chung et al., arXiv 2108.06209) at small scale: contrastive module, then masked-prediction module.

Departures from the paper, all for training in minutes instead of weeks:

- The front end gives 25 Hz positions from 100 Hz log-mel frames by two strided 1-d convolutions.
- The quantizer reads the twelve clean log-mel frames around a position through one linear map, not the front end's
  output, and starts from k-means of smoothed spectra: targets cannot collapse together with the front end, and are
  useful from the first step on, as in HuBERT (arXiv 2106.07447). The contrastive loss may refine them afterwards.
- The context side sees a noisy version of the recording, the targets come from the clean one (WavLM, arXiv 2110.13900).
- Negatives are all other masked positions of the same crop with another code, not a sample of 100 of them.
- Masked spans are 5 positions (0.2 s, as in HuBERT) instead of 10, at about the same share of hidden positions.
- Masked prediction is a cross-entropy a group; the joint code is the tuple of the groups' entries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks

from audiolm.config import SAMPLE_RATE_HZ, SAMPLES_PER_SEMANTIC, SemanticConfig
from audiolm.nn.conformer import ConformerLayer
from audiolm.semantic.kmeans import fit_kmeans

HOP_LENGTH = 160
FRAMES_PER_POSITION = SAMPLES_PER_SEMANTIC // HOP_LENGTH
CONTEXT_FRAMES = 3 * FRAMES_PER_POSITION  # what the quantizer sees: the position and one neighbour on each side
REFERENCE_RMS = 0.05
RMS_FLOOR = 1e-3
MEL_FLOOR = 1e-3
NUM_ENVELOPE_CEPSTRA = 12  # cosines over mel that describe the envelope; those above follow the harmonics


def normalise_level(waveforms: Tensor) -> Tensor:
    """[B, T] -> [B, T] at a fixed RMS, so that tokens do not follow the recording level.

    Exact zeros (padding) do not count, and inputs below the RMS floor of 1e-3 are not amplified to full level.
    """
    num_sounding = (waveforms != 0).sum(dim=-1, keepdim=True).clamp_min(1)
    rms = (waveforms.square().sum(dim=-1, keepdim=True) / num_sounding).sqrt()
    return waveforms * (REFERENCE_RMS / rms.clamp_min(RMS_FLOOR))


class LogMel(nn.Module):
    """Log-mel spectrogram at 100 Hz, standardised per mel band by the statistics of the training data.

    [B, T] -> [B, num_mels, 4 * (T // 640)]. Buffers: mean, std [num_mels], set before training by `fit`.
    """

    def __init__(self, num_mels: int, n_fft: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        with torch.device("cpu"):  # also where the model is only sketched, on the device "meta": it looks at the values
            filters = melscale_fbanks(n_fft // 2 + 1, 20.0, SAMPLE_RATE_HZ / 2, num_mels, SAMPLE_RATE_HZ, norm="slaney")
        # Slaney filters have unit area over Hz; times 100 gives log-mels of order one at the reference level.
        self.register_buffer("filters", 100.0 * filters.T, persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("mean", torch.zeros(num_mels))
        self.register_buffer("std", torch.ones(num_mels))

    def forward(self, waveforms: Tensor) -> Tensor:
        return (self._log_mel(waveforms) - self.mean[:, None]) / self.std[:, None]

    @torch.no_grad()
    def fit(self, waveforms: Tensor) -> None:
        """Takes mean and std per band from level-normalised crops [B, T]; exactly silent frames do not count."""
        frames = self._log_mel(waveforms).transpose(1, 2).flatten(0, 1)
        frames = frames[frames.amax(dim=-1) > math.log(MEL_FLOOR) + 1e-3]
        self.mean.copy_(frames.mean(dim=0))
        self.std.copy_(frames.std(dim=0).clamp_min(1e-2))

    def _log_mel(self, waveforms: Tensor) -> Tensor:
        with torch.autocast(waveforms.device.type, enabled=False):
            num_frames = FRAMES_PER_POSITION * (waveforms.shape[-1] // SAMPLES_PER_SEMANTIC)
            half = self.n_fft // 2
            # Frame f is centred on the middle of its hop; zeros beyond the ends.
            start, stop = half - HOP_LENGTH // 2, half
            padded = F.pad(waveforms.float(), (start, stop))
            spectrum = torch.stft(
                padded, self.n_fft, HOP_LENGTH, window=self.window, center=False, return_complex=True
            )[..., :num_frames]
            power = spectrum.real.square() + spectrum.imag.square()
            magnitude = power.clamp_min(1e-12).sqrt() / math.sqrt(self.n_fft)
            return torch.log(self.filters @ magnitude + MEL_FLOOR)


class W2vBertEncoder(nn.Module):
    """Log-mel, convolutional front end to 25 Hz, and the first `num_layers` conformer layers."""

    def __init__(self, config: SemanticConfig, num_layers: int) -> None:
        super().__init__()
        self.dimension = width = config.width
        self.log_mel = LogMel(config.num_mels, config.n_fft)
        self.conv1 = nn.Conv1d(config.num_mels, width, 5, stride=2, padding=2)
        self.conv2 = nn.Conv1d(width, width, 5, stride=2, padding=2)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            ConformerLayer(width, config.num_heads, config.feed_forward, config.conv_kernel_size, config.dropout)
            for _ in range(num_layers)
        )

    def front_end(self, log_mels: Tensor) -> Tensor:
        """[B, num_mels, 4 S] -> [B, S, D]."""
        return self.norm(F.gelu(self.conv2(F.gelu(self.conv1(log_mels)))).transpose(1, 2))

    def forward(self, waveforms: Tensor) -> Tensor:
        """[B, T] -> [B, S, D], S = T // 640. The level is the caller's business (`normalise_level`)."""
        x = self.front_end(self.log_mel(waveforms))
        for layer in self.layers:
            x = layer(x)
        return x


class ProductQuantizer(nn.Module):
    """Gumbel-softmax product quantizer (wav2vec 2.0, arXiv 2006.11477): groups x entries, hard codes forward."""

    def __init__(self, channels: int, num_groups: int, num_entries: int, dimension: int) -> None:
        super().__init__()
        self.num_groups, self.num_entries = num_groups, num_entries
        self.scores = nn.Linear(channels, num_groups * num_entries)
        self.entries = nn.Parameter(torch.randn(num_groups, num_entries, dimension // num_groups) * 0.3)

    def forward(self, x: Tensor, temperature: float | None) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, S, C] -> (vectors [B, S, dimension], noiseless codes [B, S, G], probabilities [B, S, G, entries]).

        Without a temperature the codes are noiseless in training too, and only `entries` get a gradient.
        """
        with torch.autocast(x.device.type, enabled=False):
            scores = self.scores(x.float()).unflatten(-1, (self.num_groups, self.num_entries))
            if self.training and temperature is not None:
                choice = F.gumbel_softmax(scores, tau=temperature, hard=True)
            else:
                choice = F.one_hot(scores.argmax(dim=-1), self.num_entries).to(scores.dtype)
            vectors = torch.einsum("bsge,ged->bsgd", choice, self.entries).flatten(2)
            return vectors, scores.detach().argmax(dim=-1), scores.softmax(dim=-1)

    @torch.no_grad()
    def fit(self, x: Tensor, bases: list[Tensor], generator: torch.Generator) -> None:
        """Starts each group from k-means of x [N, C] seen through its basis [n, C].

        |Bx - c|^2 ranks centroids c like the linear score 2 c.Bx - |c|^2, which is scaled so that the best and second
        best entry are typically 3 apart: Gumbel noise then changes few codes.
        """
        weights, biases = [], []
        for basis in bases:
            seen = x @ basis.T
            centroids = fit_kmeans(seen, self.num_entries, generator)
            scores = 2.0 * seen @ centroids.T - centroids.square().sum(dim=-1)
            best = scores.topk(2, dim=-1).values
            scale = 3.0 / (best[:, 0] - best[:, 1]).median().clamp_min(1e-3)
            weights.append(scale * 2.0 * centroids @ basis)
            biases.append(-scale * centroids.square().sum(dim=-1))
        self.scores.weight.copy_(torch.cat(weights))
        self.scores.bias.copy_(torch.cat(biases))


@dataclass(frozen=True)
class PretrainingOutput:
    """Losses (scalars, nats) and the figures that show whether pre-training is healthy."""

    contrastive_loss: Tensor
    diversity_loss: Tensor
    masked_loss: Tensor
    contrastive_accuracy: Tensor
    masked_accuracy: Tensor
    code_perplexity: Tensor  # mean over groups, at most `codebook_entries`
    codes: Tensor  # [B, S, G]
    tapped: Tensor  # [B, S, D]: the context side after `tap_layer` layers


@dataclass(frozen=True)
class Views:
    """Two versions [B, T] of the same crops near the reference level: targets come from `clean`, context from `noisy`.

    `warps` [B] scales the frequency axis of the context side: factors near 1 imitate other vocal tract lengths.
    `masked_bands` [B, num_mels] bool are set to the training data's mean there (SpecAugment, arXiv 1904.08779).
    """

    clean: Tensor
    noisy: Tensor
    warps: Tensor | None = None
    masked_bands: Tensor | None = None


class W2vBert(nn.Module):
    """The pre-training model: encoder (both modules), quantizer, contrastive projection and masked-prediction heads."""

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.config = config
        dimension = 128
        self.encoder = W2vBertEncoder(config, config.num_contrastive_layers + config.num_masked_layers)
        self.mask_vector = nn.Parameter(torch.randn(config.width) * 0.1)
        self.quantizer = ProductQuantizer(
            CONTEXT_FRAMES * config.num_mels, config.codebook_groups, config.codebook_entries, dimension
        )
        self.project_context = nn.Linear(config.width, dimension)
        self.project_target = nn.Linear(dimension, dimension)
        self.heads = nn.Linear(config.width, config.codebook_groups * config.codebook_entries)

    def forward(self, views: Views, mask: Tensor, valid: Tensor, temperature: float | None = None) -> PretrainingOutput:
        """mask, valid [B, S] bool: positions hidden from the context, positions that hold sound.

        `temperature` is that of the Gumbel noise in training; without one the choice of codes is not trained.
        """
        stacked = self._stacked(self.encoder.log_mel(views.clean), valid)
        vectors, codes, probabilities = self.quantizer(stacked, temperature)
        log_mels = self.encoder.log_mel(views.noisy)
        if views.warps is not None:
            log_mels = warp_bands(log_mels, views.warps)
        if views.masked_bands is not None:
            log_mels = log_mels.masked_fill(views.masked_bands[..., None], 0.0)
        x = self.encoder.front_end(log_mels)
        x = torch.where(mask[..., None], self.mask_vector.to(x.dtype), x)
        outputs = []
        for layer in self.encoder.layers:
            x = layer(x)
            outputs.append(x)
        counted = mask & valid
        between = outputs[self.config.num_contrastive_layers - 1]
        contrastive, contrastive_accuracy = self._contrast(between, vectors, codes, counted)
        masked, masked_accuracy = self._predict(x[counted], codes[counted])
        if temperature is None:
            probabilities = probabilities.detach()
        diversity, perplexity = _diversity(probabilities[valid], codes[valid])
        tapped = outputs[self.config.tap_layer - 1]
        return PretrainingOutput(
            contrastive, diversity, masked, contrastive_accuracy, masked_accuracy, perplexity, codes, tapped
        )

    @torch.no_grad()
    def fit(self, clean: Tensor, valid: Tensor, num_cepstra: int, generator: torch.Generator) -> None:
        """Data-driven start from level-normalised crops [B, T]: log-mel statistics, then the quantizer.

        Group 0 clusters the mean spectrum of a position, group 1 its slope over 120 ms, both through the first
        `num_cepstra` cosines of the mel axis (the envelope without the harmonics); group 2 the mean spectrum without
        its envelope (the harmonics: which notes sound). Further groups repeat with other seeds.
        """
        self.encoder.log_mel.fit(clean)
        stacked = self._stacked(self.encoder.log_mel(clean), valid)[valid]
        bases = _target_bases(self.config.num_mels, num_cepstra)
        chosen = [bases[group % len(bases)].to(clean.device) for group in range(self.config.codebook_groups)]
        self.quantizer.fit(stacked, chosen, generator)

    def _stacked(self, log_mels: Tensor, valid: Tensor) -> Tensor:
        """[B, num_mels, 4 S] -> [B, S, 12 * num_mels]: frames of the position and of both neighbours.

        With `centre_targets` the mean spectrum of each crop's valid positions is taken out: it says who speaks through
        which microphone, not what is said.
        """
        if self.config.centre_targets:
            counted = valid.repeat_interleave(FRAMES_PER_POSITION, dim=1)[:, None].to(log_mels.dtype)
            log_mels = log_mels - (log_mels * counted).sum(2, True) / counted.sum(2, True).clamp_min(1.0)
        padded = F.pad(log_mels, (FRAMES_PER_POSITION, FRAMES_PER_POSITION), mode="replicate")
        return padded.unfold(2, CONTEXT_FRAMES, FRAMES_PER_POSITION).permute(0, 2, 3, 1).flatten(2)

    def _contrast(self, x: Tensor, vectors: Tensor, codes: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        context = F.normalize(self.project_context(x).float(), dim=-1)
        targets = F.normalize(self.project_target(vectors).float(), dim=-1)
        similarity = context @ targets.transpose(1, 2) / 0.1
        own = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        same = (codes[:, :, None] == codes[:, None]).all(dim=-1)
        excluded = (~counted[:, None] | same) & ~own
        similarity = similarity.masked_fill(excluded, -math.inf)[counted]
        answers = own.nonzero()[:, 1].expand(x.shape[0], -1)[counted]
        return F.cross_entropy(similarity, answers), (similarity.argmax(dim=-1) == answers).float().mean()

    def _predict(self, x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.heads(x).float().unflatten(-1, (self.config.codebook_groups, -1))
        loss = F.cross_entropy(logits.flatten(0, 1), codes.flatten())
        return loss, (logits.argmax(dim=-1) == codes).float().mean()


def _target_bases(num_mels: int, num_cepstra: int) -> list[Tensor]:
    """[n, 12 * num_mels] each: cosines over mel of the frames, Hann-weighted: mean, slope, mean of the harmonics."""
    bands, orders = torch.arange(num_mels) + 0.5, torch.arange(num_mels)
    cosines = torch.cos(math.pi / num_mels * orders[:, None] * bands) * math.sqrt(2.0 / num_mels)
    mean = torch.hann_window(CONTEXT_FRAMES + 1, periodic=True)[1:]
    mean = mean / mean.sum()
    slope = torch.linspace(-1.0, 1.0, CONTEXT_FRAMES) * mean
    slope = slope / slope.norm()
    seen = ((mean, cosines[:num_cepstra]), (slope, cosines[:num_cepstra]), (mean, cosines[NUM_ENVELOPE_CEPSTRA:]))
    return [torch.einsum("f,cm->cfm", weights, own).flatten(1) for weights, own in seen]


def warp_bands(log_mels: Tensor, factors: Tensor) -> Tensor:
    """[B, num_mels, frames] with frequency f moved to factors[b] * f, linearly interpolated between mel bands."""
    num_mels = log_mels.shape[1]
    top = 2595.0 * math.log10(1.0 + SAMPLE_RATE_HZ / 2 / 700.0)
    mels = torch.arange(num_mels, device=log_mels.device) * (top / (num_mels - 1))
    hertz = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    source = 2595.0 * torch.log10(1.0 + hertz / factors[:, None] / 700.0) * ((num_mels - 1) / top)
    below = source.clamp(0, num_mels - 1).floor()
    weight = (source.clamp(0, num_mels - 1) - below)[..., None]
    index = below.long()[..., None].expand_as(log_mels)
    upper = (index + 1).clamp_max(num_mels - 1)
    return torch.lerp(log_mels.gather(1, index), log_mels.gather(1, upper), weight)


def _diversity(probabilities: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """(share of the codebook that goes unused, mean perplexity of the hard codes) over N positions.

    probabilities [N, G, E], codes [N, G].
    """
    num_entries = probabilities.shape[-1]
    mean = probabilities.mean(dim=0)
    entropy = -(mean * (mean + 1e-7).log()).sum(dim=-1)
    hard = F.one_hot(codes, num_entries).float().mean(dim=0)
    hard_entropy = -(hard * (hard + 1e-7).log()).sum(dim=-1)
    return 1.0 - entropy.exp().mean() / num_entries, hard_entropy.exp().mean()


def span_mask(batch: int, length: int, generator: torch.Generator, share: float = 0.12, span: int = 5) -> Tensor:
    """[B, S] bool: each position starts a masked span with probability `share`; spans may overlap.

    A row without any span gets one, so that every row has something to predict.
    """
    starts = torch.rand(batch, length, generator=generator) < share
    fallback = torch.randint(0, max(1, length - span), (batch,), generator=generator)
    empty = ~starts.any(dim=1)
    starts[empty, fallback[empty]] = True
    widened = F.max_pool1d(F.pad(starts.float()[:, None], (span - 1, 0)), span, stride=1)
    return widened[:, 0] > 0
