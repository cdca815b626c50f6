from __future__ import annotations

import pytest
import torch

from audiolm.device import pick_device
from audiolm.errors import RequestError


def test_auto_is_cuda_where_there_is_one():
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_named_device_is_that_device():
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["warp", "", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_by_name(name):
    with pytest.raises(RequestError, match=f"device '{name}' cannot be used"):
        pick_device(name)
