from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from app.engine import wire
from app.engine.messages import Happened
from app.results import Finished
from app.schemas import CheckpointChoice, ContinueRequest
from audiolm.errors import AudioSilentError, EngineError


def there_and_back(value):
    return wire.unpack(wire.pack(value))


def test_plain_values_come_back_as_they_were():
    value = {"a": (1, 2.5, None, True), 3: [b"\x00\xff", "ü", Path("/x/y")], (1, 2): {}}
    assert there_and_back(value) == value
    assert math.isnan(there_and_back(float("nan")))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.int16])
def test_tensors_come_back_bit_by_bit(dtype):
    tensor = (torch.randn(2, 3, 5) * 10).to(dtype).mT
    back = there_and_back(tensor)
    assert back.dtype == dtype
    assert torch.equal(back, tensor)
    assert there_and_back(torch.zeros(0, 4)).shape == (0, 4)
    assert np.array_equal(there_and_back(np.arange(6).reshape(2, 3)), np.arange(6).reshape(2, 3))


def test_a_request_and_a_finished_run_come_back_equal(finished, recording):
    request = ContinueRequest.from_fields(recording, CheckpointChoice("tiny-speech"), {"seed": 5})
    assert there_and_back(request) == request
    back = there_and_back(Happened(7, finished)).event
    assert isinstance(back, Finished)
    for one, other in zip(back.saved, finished.saved, strict=True):
        assert one.continuation.receipt == other.continuation.receipt
        assert torch.equal(one.continuation.waveform.samples, other.continuation.waveform.samples)
        assert torch.equal(one.timeline.lanes[0].ids, other.timeline.lanes[0].ids)
        assert one.paths == other.paths


def test_errors_come_back_as_their_own_kind_and_unforeseen_ones_without_their_words():
    error = there_and_back(AudioSilentError("no sound"))
    assert (type(error), str(error)) == (AudioSilentError, "no sound")
    error = there_and_back(KeyError("/secret/place"))
    assert type(error) is EngineError
    assert "KeyError" in str(error)
    assert "secret" not in str(error)


def test_only_values_of_this_project_are_sent_or_made():
    with pytest.raises(TypeError, match="cannot be sent"):
        wire.pack(threading_lock())
    for kind in ('{"value": ["os", "system", {}]}', '{"named": ["subprocess", "Popen", ["true"]]}'):
        head = kind.encode()
        with pytest.raises(TypeError, match="none of this project's"):
            wire.unpack(len(head).to_bytes(8, "little") + head)


def threading_lock():
    import threading

    return threading.Lock()
