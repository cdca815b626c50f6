"""A codec run and a token cache that the stages' tests train on."""

import pytest
import torch

from audiolm.checkpoints.tensors import token_hash
from audiolm.codec import Codec
from audiolm.data import tokens
from audiolm.data.tokens import TokenItem
from audiolm.training import runs
from tests.tiny import CODEC, SEMANTIC

FRAMES = (60, 80, 40, 100, 90, 120)
GROUPS = ("a", "a", "b", "b", "v", "v")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A codec run and a token cache whose codes follow from the semantic tokens; group v is the split valid."""
    folder = tmp_path_factory.mktemp("material")
    torch.manual_seed(0)
    codec = Codec(CODEC)
    runs.write_run(folder / "codec", "codec", codec, CODEC, {})
    semantic = torch.randint(6, (sum(FRAMES) // 2 // 5 + 1,)).repeat_interleave(5)[: sum(FRAMES) // 2]
    codes = (semantic.repeat_interleave(2)[:, None] * torch.tensor([3, 4, 5, 1])) % 32
    starts = [sum(FRAMES[:index]) for index in range(len(FRAMES))]
    items = [
        TokenItem(str(index), start, FRAMES[index], GROUPS[index], "valid" if GROUPS[index] == "v" else "train", True)
        for index, start in enumerate(starts)
    ]
    meta = {"codec": token_hash(codec.state_dict()), "semantic": "5" * 64}
    sizes = {"num_levels": 4, "codebook_size": 32, "num_clusters": SEMANTIC.num_clusters}
    tokens._write(folder / "tokens", codes.to(torch.int16), semantic.to(torch.int16), items, meta | sizes)
    return folder


def arguments(material, name, *extra):
    small = ["--width", "16", "--layers", "1", "--heads", "2", "--dropout", "0", "--batch-size", "3", "--crop-s", "1"]
    inputs = ["--tokens", str(material / "tokens"), "--codec", str(material / "codec"), "--stage", name]
    return [*inputs, *small, *extra]
