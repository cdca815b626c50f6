import pytest

from audiolm.config import QuantizerConfig, SemanticConfig, TransformerConfig
from audiolm.errors import ConfigError


@pytest.mark.parametrize("field", ["width", "num_layers", "num_heads", "feed_forward"])
def test_a_transformer_without_width_layers_or_heads_is_refused(field):
    with pytest.raises(ConfigError, match="must be positive"):
        TransformerConfig(**{field: 0})


def test_an_encoder_without_heads_is_refused():
    with pytest.raises(ConfigError, match="num_heads must be positive"):
        SemanticConfig(num_heads=0)


@pytest.mark.parametrize(("full_depth", "bypass"), [(0.7, 0.4), (-0.1, 0.2), (0.4, -0.2), (float("nan"), 0.2)])
def test_shares_of_quantizer_dropout_must_leave_room_for_each_other(full_depth, bypass):
    with pytest.raises(ConfigError, match="shares of at most 1 together"):
        QuantizerConfig(full_depth_probability=full_depth, bypass_probability=bypass)


def test_quantizer_dropout_may_be_whole_or_none():
    assert QuantizerConfig(full_depth_probability=1.0, bypass_probability=0.0)
    assert QuantizerConfig(full_depth_probability=0.8, bypass_probability=0.2)
