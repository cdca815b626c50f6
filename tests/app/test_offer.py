from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from app.offer import Offer
from app.schemas import CheckpointChoice, ClipRequest
from audiolm.config import STAGES, USUAL_SAMPLING
from audiolm.errors import CheckpointError, RequestError
from tests.app.conftest import Service
from tests.app.test_service import asked, last


def test_a_checkpoint_that_changed_is_loaded_anew(settings, checkpoints, recording, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(checkpoints / "tiny-speech", folder)
    service = Service(replace(settings, checkpoints=(str(folder),)))
    choice = CheckpointChoice(service.offer.names()[0])
    before = last(service.detect(ClipRequest(recording, choice))).checkpoint.sha256
    assert last(service.detect(ClipRequest(recording, choice))).checkpoint.sha256 == before
    shutil.rmtree(folder)
    shutil.copytree(checkpoints / "tiny-piano", folder)
    again = last(service.detect(ClipRequest(recording, choice))).checkpoint
    assert again.sha256 == service.offer.describe(choice).sha256 != before


def test_a_truncated_checkpoint_is_refused_and_the_others_go_on(settings, checkpoints, recording, tmp_path):
    shutil.copytree(checkpoints, tmp_path / "set")
    weights = tmp_path / "set/tiny-speech/codec.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    service = Service(replace(settings, checkpoints=(str(tmp_path / "set"),)))
    with pytest.raises(CheckpointError, match=r"tiny-speech/codec\.safetensors") as caught:
        last(service.continue_prompt(asked(recording)))
    assert str(tmp_path) not in str(caught.value)
    assert last(service.continue_prompt(asked(recording, CheckpointChoice("tiny-piano")))).saved


def test_a_checkpoint_that_broke_since_the_start_is_told_of_without_its_place(settings, checkpoints, tmp_path):
    shutil.copytree(checkpoints / "tiny-speech", tmp_path / "my server" / "mine")
    offer = Offer(replace(settings, checkpoints=(str(tmp_path / "my server" / "mine"),)))
    (tmp_path / "my server" / "mine" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"^mine/config\.json: not valid JSON"):
        offer.describe(CheckpointChoice(offer.names()[0]))


def test_a_checkpoint_without_config_is_left_out_of_the_offer(settings, checkpoints, tmp_path):
    shutil.copytree(checkpoints, tmp_path / "set")
    (tmp_path / "set/tiny-speech/config.json").write_text("{}")
    service = Service(replace(settings, checkpoints=(str(tmp_path / "set"), "no-such-checkpoint")))
    assert service.offer.names() == ["tiny-piano"]


def test_checkpoints_of_one_name_stay_apart(settings, checkpoints):
    folder = str(checkpoints / "tiny-speech")
    service = Service(replace(settings, checkpoints=(folder, str(checkpoints))))
    assert service.offer.names()[:1] == ["tiny-speech"]
    assert len(service.offer.names()) == 3


def test_a_folder_can_be_named_where_that_is_allowed(settings, checkpoints, recording):
    choice = CheckpointChoice(str(checkpoints / "tiny-piano"))
    service = Service(replace(settings, checkpoints=(str(checkpoints / "tiny-speech"),)))
    assert service.offer.describe(choice).name == "tiny-piano"
    assert last(service.continue_prompt(asked(recording, choice))).checkpoint.name == "tiny-piano"


def test_a_folder_cannot_be_named_where_that_is_not_allowed(settings, checkpoints, recording):
    service = Service(replace(settings, other_checkpoints=False))
    choice = CheckpointChoice(str(checkpoints / "tiny-piano"))
    with pytest.raises(RequestError, match=r"offered here \(tiny-speech, tiny-piano\), found"):
        service.offer.describe(choice)
    with pytest.raises(RequestError, match="offered here"):
        last(service.continue_prompt(asked(recording, choice)))
    with pytest.raises(RequestError, match="offered here"):
        last(service.continue_prompt(asked(recording, CheckpointChoice("tiny-speech", "main"))))


def test_a_checkpoint_brings_its_own_sampling_and_others_have_the_usual_one(settings, checkpoints, tmp_path):
    shutil.copytree(checkpoints / "tiny-speech", tmp_path / "mine")
    config = tmp_path / "mine/config.json"
    own = {stage: {"temperature": 0.5, "top_k": 9, "top_p": 0.9} for stage in STAGES}
    config.write_text(json.dumps({**json.loads(config.read_text()), "sampling": own}))
    offer = Service(replace(settings, checkpoints=(str(tmp_path / "mine"),))).offer
    assert offer.sampling("tiny-speech")["coarse_top_k"] == 9
    for other in (str(checkpoints / "tiny-piano"), "no-such-checkpoint", None):
        assert offer.sampling(other)["coarse_temperature"] == USUAL_SAMPLING["coarse"].temperature


def test_only_so_many_checkpoints_stay_loaded(settings, monkeypatch):
    monkeypatch.setattr("app.offer.MAX_LOADED", 1)
    offer = Offer(settings, torch.device("cpu"))
    for name in ("tiny-speech", "tiny-piano", "tiny-speech"):
        assert offer.load(CheckpointChoice(name))[0].name == name
        assert len(offer._pipelines) == 1


def test_an_example_picks_a_checkpoint_of_its_domain(service):
    assert service.offer.fitting("piano", "tiny-speech") == "tiny-piano"
    assert service.offer.fitting("piano", "tiny-piano") == "tiny-piano"
    assert service.offer.fitting("piano", "org/unknown") == "org/unknown"
