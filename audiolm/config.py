"""Frozen configuration dataclasses of every component: validated at birth, stored as JSON.

One file, so that a reader sees all sizes of the system at once. Defaults are the embedded ("small") checkpoints;
the paper's sizes (AudioLM, arXiv 2209.03143) are reached by changing numbers, not code.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Self

from audiolm.errors import ConfigError

SAMPLE_RATE_HZ = 16_000
FRAME_RATE_HZ = 50
SEMANTIC_RATE_HZ = 25
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAME_RATE_HZ
SAMPLES_PER_SEMANTIC = SAMPLE_RATE_HZ // SEMANTIC_RATE_HZ
FRAMES_PER_SEMANTIC = FRAME_RATE_HZ // SEMANTIC_RATE_HZ
DOMAINS = ("speech", "piano")
STAGES = ("semantic", "coarse", "fine")


class Config:
    """Mixin of frozen dataclasses: `to_dict` / `from_dict`, with unknown and mistyped fields refused."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Raises ConfigError naming the class and field that is unknown or of the wrong type."""
        if not isinstance(values, dict):
            raise ConfigError(f"{cls.__name__}: expected an object, found {type(values).__name__}")
        hints = typing.get_type_hints(cls)
        names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        if unknown := sorted(set(values) - names):
            raise ConfigError(f"{cls.__name__}: unknown field(s) {', '.join(unknown)}")
        try:
            return cls(**{name: _coerce(cls, name, hints[name], value) for name, value in values.items()})
        except TypeError as error:
            raise ConfigError(f"{cls.__name__}: {error}") from error

    def _require(self, condition: bool, message: str) -> None:
        if not condition:
            raise ConfigError(f"{type(self).__name__}: {message}")


def _coerce(owner: type, name: str, hint: Any, value: Any) -> Any:
    """JSON value -> field value (tuples from lists, nested configs from objects)."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
        return _coerce(owner, name, hint, value)
    if isinstance(hint, type) and issubclass(hint, Config):
        return value if isinstance(value, hint) else hint.from_dict(value)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{owner.__name__}.{name}: expected a list, found {value!r}")
        inner = typing.get_args(hint)[0]
        return tuple(_coerce(owner, name, inner, item) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise ConfigError(f"{owner.__name__}.{name}: expected {hint.__name__}, found {value!r}")
    return value


@dataclass(frozen=True)
class QuantizerConfig(Config):
    """Residual vector quantizer (SoundStream, arXiv 2107.03312): Q levels of K codes over D-dimensional vectors."""

    num_levels: int = 12
    codebook_size: int = 1024
    dimension: int = 64
    ema_decay: float = 0.99
    dead_code_ratio: float = 0.1  # codes used less than this share of the mean use are revived
    full_depth_probability: float = 0.4  # quantizer dropout: all levels this often,
    bypass_probability: float = 0.2  # no quantisation this often, else uniformly 1..Q

    def __post_init__(self) -> None:
        self._require(1 <= self.num_levels <= 32, f"num_levels must be 1..32, found {self.num_levels}")
        self._require(2 <= self.codebook_size <= 2**15, f"codebook_size must be 2..32768, found {self.codebook_size}")
        self._require(self.dimension >= 1, f"dimension must be positive, found {self.dimension}")
        self._require(0.0 < self.ema_decay < 1.0, f"ema_decay must be in (0, 1), found {self.ema_decay}")
        self._require(
            self.dead_code_ratio >= 0.0, f"dead_code_ratio must not be negative, found {self.dead_code_ratio}"
        )
        shares = (self.full_depth_probability, self.bypass_probability)
        self._require(
            min(shares) >= 0.0 and sum(shares) <= 1.0,
            f"full_depth_probability and bypass_probability must be shares of at most 1 together, found {shares}",
        )


@dataclass(frozen=True)
class FrameBackboneConfig(Config):
    """Frame-by-frame codec: STFT -> ConvNeXt (100 Hz, then 50 Hz); ConvNeXt (50 Hz, then 100 Hz) -> inverse STFT.

    `phase`: "predicted" codes phases with everything else; "reconstructed" codes magnitudes alone, to which the decoder
    finds phases that fit (`audiolm.nn.phase`). Tokens without phases are far more predictable.
    """

    width: int = 256
    expansion: int = 3
    kernel_size: int = 7
    n_fft: int = 640
    hop_length: int = 160
    encoder_blocks: tuple[int, ...] = (2, 4)
    decoder_blocks: tuple[int, ...] = (4, 4)
    look_ahead_frames: int = 4  # of the otherwise causal decoder, in 50 Hz frames
    phase: str = "predicted"

    def __post_init__(self) -> None:
        self._require(
            self.phase in ("predicted", "reconstructed"),
            f"phase must be predicted or reconstructed, found {self.phase!r}",
        )
        self._require(self.hop_length * 2 == SAMPLES_PER_FRAME, f"hop_length must be 160, found {self.hop_length}")
        self._require(self.n_fft % self.hop_length == 0, "n_fft must be a multiple of hop_length")
        self._require(len(self.encoder_blocks) == len(self.decoder_blocks) == 2, "two rates: two block counts each")
        self._require(self.kernel_size % 2 == 1, f"kernel_size must be odd, found {self.kernel_size}")


@dataclass(frozen=True)
class SeanetConfig(Config):
    """SoundStream's causal SEANet: channels double at every stride; 320 samples a frame."""

    base_channels: int = 32
    strides: tuple[int, ...] = (2, 4, 5, 8)
    kernel_size: int = 7
    residual_kernel_size: int = 3
    dilations: tuple[int, ...] = (1, 3, 9)

    def __post_init__(self) -> None:
        product = 1
        for stride in self.strides:
            product *= stride
        self._require(product == SAMPLES_PER_FRAME, f"strides must multiply to 320, found {product}")


@dataclass(frozen=True)
class CodecConfig(Config):
    """Neural codec: one of two backbones around one residual vector quantizer; 16 kHz, 50 Hz frames."""

    backbone: str = "frame"
    frame: FrameBackboneConfig = field(default_factory=FrameBackboneConfig)
    seanet: SeanetConfig = field(default_factory=SeanetConfig)
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    num_coarse_levels: int = 4

    def __post_init__(self) -> None:
        self._require(
            self.backbone in ("frame", "seanet"), f"backbone must be frame or seanet, found {self.backbone!r}"
        )
        self._require(
            1 <= self.num_coarse_levels <= self.quantizer.num_levels,
            f"num_coarse_levels must be 1..{self.quantizer.num_levels}, found {self.num_coarse_levels}",
        )

    @property
    def num_fine_levels(self) -> int:
        return self.quantizer.num_levels - self.num_coarse_levels


@dataclass(frozen=True)
class SemanticConfig(Config):
    """w2v-BERT (arXiv 2108.06209) at small scale plus k-means; or a torchaudio bundle as feature extractor."""

    extractor: str = "w2vbert"  # or the name of a torchaudio bundle: "HUBERT_BASE", "WAVLM_BASE", ...
    num_mels: int = 80
    n_fft: int = 512  # of the log-mel frames at 100 Hz; longer windows resolve pitch, shorter ones consonants
    width: int = 192
    num_heads: int = 4
    feed_forward: int = 576
    conv_kernel_size: int = 15
    num_contrastive_layers: int = 2
    num_masked_layers: int = 4
    tap_layer: int = 4  # features are taken after this many conformer layers, counted over both modules
    codebook_groups: int = 2
    codebook_entries: int = 160
    centre_targets: bool = True  # take each crop's mean spectrum out of the pre-training targets (not for piano)
    dropout: float = 0.1
    num_clusters: int = 500

    def __post_init__(self) -> None:
        self._require(self.num_heads >= 1, f"num_heads must be positive, found {self.num_heads}")
        # A torchaudio bundle brings its own layers, of which the extractor checks the number.
        layers = self.num_contrastive_layers + self.num_masked_layers if self.extractor == "w2vbert" else 48
        self._require(1 <= self.tap_layer <= layers, f"tap_layer must be 1..{layers}, found {self.tap_layer}")
        self._require(self.width % (2 * self.num_heads) == 0, "width / num_heads must be even (rotary positions)")
        self._require(self.conv_kernel_size % 2 == 1, f"conv_kernel_size must be odd, found {self.conv_kernel_size}")
        self._require(400 <= self.n_fft <= 8192, f"n_fft must be 400..8192, found {self.n_fft}")
        self._require(1 <= self.num_mels <= 512, f"num_mels must be 1..512, found {self.num_mels}")
        self._require(self.num_clusters >= 2, f"num_clusters must be at least 2, found {self.num_clusters}")


@dataclass(frozen=True)
class TransformerConfig(Config):
    """Decoder-only Transformer body: pre-norm, rotary positions."""

    width: int = 256
    num_layers: int = 6
    num_heads: int = 4
    feed_forward: int = 1024
    dropout: float = 0.1

    def __post_init__(self) -> None:
        sizes = (self.width, self.num_layers, self.num_heads, self.feed_forward)
        self._require(min(sizes) >= 1, f"width, num_layers, num_heads, feed_forward must be positive, found {sizes}")
        self._require(self.width % (2 * self.num_heads) == 0, "width / num_heads must be even (rotary positions)")
        self._require(0.0 <= self.dropout < 1.0, f"dropout must be in [0, 1), found {self.dropout}")


@dataclass(frozen=True)
class StageConfig(Config):
    """One of the three stages: which token levels it predicts, given which condition levels.

    `levels` are the vocabulary sizes predicted at each step, `condition_levels` those of the known stream, which has
    one step for every `condition_stride` predicted ones. The semantic stage in the depth layout predicts
    (token, run length - 1): the run length keeps the duration that merging repeats would lose.
    """

    stage: str = "semantic"
    layout: str = "depth"
    levels: tuple[int, ...] = (500, 32)
    condition_levels: tuple[int, ...] = ()
    condition_stride: int = 1
    max_steps: int = 1500  # longest crop, in steps of the layout "depth"
    feature_dimension: int = 0  # of the codec's codebook vectors, 0 where the stage uses none
    depth_width: int = 256
    transformer: TransformerConfig = field(default_factory=TransformerConfig)

    def __post_init__(self) -> None:
        self._require(self.stage in STAGES, f"stage must be one of {STAGES}, found {self.stage!r}")
        self._require(
            self.layout in ("depth", "flattened"), f"layout must be depth or flattened, found {self.layout!r}"
        )
        self._require(len(self.levels) >= 1 and min(self.levels) >= 2, f"levels must each be >= 2, found {self.levels}")
        self._require(self.condition_stride >= 1, f"condition_stride must be positive, found {self.condition_stride}")
        self._require(self.depth_width >= 1, f"depth_width must be positive, found {self.depth_width}")
        self._require(self.max_steps >= 1, f"max_steps must be positive, found {self.max_steps}")


@dataclass(frozen=True)
class MaskedConfig(Config):
    """A fine stage that fills whole windows in `num_passes` parallel passes, given the coarse levels of all frames.

    It shares tables and head with the autoregressive fine stage of its checkpoint, and may stand where that does: hence
    `stage`, `layout` and `condition_stride`.
    """

    levels: tuple[int, ...] = (1024,) * 8
    condition_levels: tuple[int, ...] = (1024,) * 4
    max_steps: int = 150  # frames of a window
    num_passes: int = 4
    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(width=192, num_layers=3, num_heads=3, feed_forward=768, dropout=0.05)
    )

    @property
    def stage(self) -> str:
        return "fine"

    @property
    def layout(self) -> str:
        return "masked"

    @property
    def condition_stride(self) -> int:
        return 1

    def __post_init__(self) -> None:
        self._require(len(self.levels) >= 1 and min(self.levels) >= 2, f"levels must each be >= 2, found {self.levels}")
        self._require(len(self.condition_levels) >= 1, "a masked fine stage needs condition levels")
        sizes = (self.max_steps, self.num_passes)
        self._require(min(sizes) >= 1, f"max_steps and num_passes must be positive, found {sizes}")


@dataclass(frozen=True)
class SamplingConfig(Config):
    """Sampling of one stage. top_k 0 and top_p 1.0 switch truncation off; temperature 0 is greedy."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        self._require(0.0 <= self.temperature <= 5.0, f"temperature must be 0..5, found {self.temperature}")
        self._require(0 <= self.top_k <= 2**15, f"top_k must be 0..32768, found {self.top_k}")
        self._require(0.0 < self.top_p <= 1.0, f"top_p must be in (0, 1], found {self.top_p}")


USUAL_SAMPLING = {
    "semantic": SamplingConfig(temperature=0.6),
    "coarse": SamplingConfig(temperature=0.8),
    "fine": SamplingConfig(temperature=0.6),
}
"""The paper's temperatures by stage: the defaults of a checkpoint that brings none of its own."""


@dataclass(frozen=True)
class LengthRates(Config):
    """How a detector did on held-out clips of `seconds`: how often its threshold erred, and how often its answers did.

    It answered `num_decided` of the clips with "generated" or "original", and `wrong_rate` of those wrongly, both kinds
    counted the same.
    """

    seconds: float
    false_positive_rate: float
    false_negative_rate: float
    num_originals: int
    num_generated: int
    wrong_rate: float
    num_decided: int

    def __post_init__(self) -> None:
        rates = (self.false_positive_rate, self.false_negative_rate, self.wrong_rate)
        self._require(all(0.0 <= rate <= 1.0 for rate in rates), f"rates must be 0..1, found {rates}")
        counts = (self.num_originals, self.num_generated)
        self._require(min(counts) >= 1, f"both kinds must have been measured, found {counts}")
        self._require(0 <= self.num_decided <= sum(counts), f"{self.num_decided} decided of {sum(counts)}")
        self._require(self.seconds > 0.0, f"seconds must be positive, found {self.seconds}")


@dataclass(frozen=True)
class DetectorCalibration(Config):
    """Maps detector logits to probabilities, sigmoid(scale * logit + bias), and says how often the threshold errs.

    Segments have a scale and bias of their own: each knows far less than the clip.

    `by_length` are held-out clips from short to long: what was not measured (shorter ones) is not judged.
    """

    scale: float = 1.0
    bias: float = 0.0
    threshold: float = 0.5
    uncertain_low: float = 0.35
    uncertain_high: float = 0.65
    segment_scale: float = 1.0
    segment_bias: float = 0.0
    by_length: tuple[LengthRates, ...] = ()

    def __post_init__(self) -> None:
        band = (self.uncertain_low, self.threshold, self.uncertain_high)
        self._require(0.0 <= band[0] <= band[1] <= band[2] <= 1.0, f"0 <= low <= threshold <= high <= 1, found {band}")
        self._require(0.0 < self.scale < float("inf"), f"scale must be positive and finite, found {self.scale}")
        self._require(abs(self.bias) < float("inf"), f"bias must be finite, found {self.bias}")
        lengths = [rates.seconds for rates in self.by_length]
        self._require(lengths == sorted(set(lengths)), f"by_length must rise, found {lengths} s")

    def rates_of(self, duration_s: float) -> LengthRates | None:
        """What was measured on the longest clips that are no longer than this."""
        return next((rates for rates in reversed(self.by_length) if rates.seconds <= duration_s), None)


@dataclass(frozen=True)
class DetectorConfig(Config):
    """Two networks on one clip: a CNN on log-mel frames and, where `num_heard` is not 0, one on what the checkpoint's
    own models make of it (`num_heard` figures a frame by `listener_version` of `audiolm.checkpoints.listener`).

    `scope_limit` is the distance from the calibration clips beyond which a verdict is withheld (None: not measured);
    `withheld` is why every verdict is, "" where none need be.
    """

    num_mels: int = 64
    channels: tuple[int, ...] = (24, 48, 96, 128)
    dropout: float = 0.2
    num_heard: int = 0
    listener_version: int = 1
    heard_width: int = 64
    scope_limit: float | None = None
    withheld: str = ""
    calibration: DetectorCalibration = field(default_factory=DetectorCalibration)

    def __post_init__(self) -> None:
        self._require(8 <= self.num_mels <= 128, f"num_mels must be 8..128, found {self.num_mels}")
        count = len(self.channels)
        self._require(1 <= count <= 4, f"channels must list 1..4 blocks (each halves the rate), found {count}")
        self._require(min(self.channels) >= 1, f"channels must be positive, found {self.channels}")
        self._require(0.0 <= self.dropout < 1.0, f"dropout must be in [0, 1), found {self.dropout}")
        heard = (self.num_heard, self.heard_width)
        self._require(min(heard) >= 0 and heard[1] > 0, f"num_heard >= 0 and heard_width > 0, found {heard}")
        self._require(self.listener_version >= 1, f"listener_version must be at least 1, found {self.listener_version}")
        limit = self.scope_limit
        self._require(limit is None or limit > 0.0, f"scope_limit must be positive, found {limit}")
