from __future__ import annotations

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from audiolm.errors import WatermarkError
from audiolm.watermark import network
from tests.watermark.material import voice


def test_the_network_is_loaded_once_however_many_ask_at_the_same_time(monkeypatch):
    read, weights = [], network._weights
    monkeypatch.setattr(network, "_weights", lambda path: read.append(path) or weights(path))
    network._load.cache_clear()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: network.network(), range(4)))
    assert len(read) == 1
    assert all(one is found[0] for one in found)


def test_the_network_does_not_learn():
    model = network.network()
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_slow_and_the_fast_branch_hardly_move_as_the_search_assumes():
    model = network.network()
    magnitudes = model.ap.signal_to_magphase(voice(3.0, rate_hz=32_000).samples)[0][None, : model.subband]
    for branch in (model.decoder.slow_layers, model.decoder.fast_layers):
        assert branch(magnitudes)[..., 20:-20].std(dim=2).max() < 0.01
    assert model.decoder.normal_layers(magnitudes)[..., 20:-20].std(dim=2).max() > 0.1


def test_weights_that_are_not_the_known_ones_are_never_read(tmp_path, monkeypatch):
    changed = tmp_path / "perth_net_250000.pth.tar"
    changed.write_bytes(b"other")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("was read"))
    with pytest.raises(WatermarkError, match=r"SHA-256 .*known are a15bce457ebc.*pip install resemble-perth==1\.0\.1"):
        network._weights(changed)


def test_a_missing_package_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WatermarkError, match=r"pip install resemble-perth==1\.0\.1"):
        network.require()


def test_importing_loads_nothing_and_marking_needs_neither_setuptools_nor_librosa():
    code = (
        "import sys, torch\n"
        "from audiolm.watermark import mark, network\n"
        "from audiolm.streams import Waveform\n"
        "print(any(name.startswith('perth') for name in sys.modules), network._load.cache_info().currsize)\n"
        "sys.modules.update(pkg_resources=None, librosa=None)\n"
        "noise = Waveform(torch.rand(48000) - 0.5)\n"
        "print(mark(noise) is noise)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "0", "False"]
