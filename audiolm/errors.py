"""Every error a caller may want to tell apart. Messages name the limit and the value found."""


class AudioLMError(Exception):
    """Root of all errors raised on purpose by this package."""


class ConfigError(AudioLMError, ValueError):
    """A configuration value is unknown, missing or out of range."""


class RequestError(AudioLMError, ValueError):
    """A request asks for something outside the stated bounds."""


class AudioError(AudioLMError, ValueError):
    """An input recording cannot be used."""


class AudioFormatError(AudioError):
    """Not audio, truncated, or in a format libsndfile does not read."""


class AudioLimitError(AudioError):
    """Too long, too many channels, or a sample rate outside the accepted range."""


class AudioTooShortError(AudioError):
    """Fewer samples than the operation needs."""


class AudioSilentError(AudioError):
    """No sound above the silence floor."""


class AudioNotFiniteError(AudioError):
    """NaN or infinite samples."""


class CheckpointError(AudioLMError):
    """A checkpoint file is missing, truncated, foreign or does not match its hash."""


class ReceiptError(AudioLMError, ValueError):
    """A receipt is unreadable, or cannot be replayed with the checkpoint at hand."""


class DataError(AudioLMError):
    """A corpus or token cache is missing, empty or inconsistent."""


class TrainingError(AudioLMError):
    """Training cannot start or continue."""


class EvaluationError(AudioLMError):
    """A figure cannot be computed: what it needs is not there, or there is too little of it."""


class DeviceMemoryError(AudioLMError):
    """The device ran out of memory; the request may succeed when smaller."""


class WatermarkError(AudioLMError):
    """The watermark cannot be made or looked for: its package is missing, or is not the known one."""


class EngineError(AudioLMError):
    """The engine that works on runs failed: it could not be started, or was lost together with this run."""


class BusyError(AudioLMError):
    """Too many runs are waiting already; this one was not taken."""
