"""SoundStream-style neural codec: waveform <-> residual codes at 50 frames a second."""

from audiolm.codec.model import Codec, CodecOutput

__all__ = ["Codec", "CodecOutput"]
