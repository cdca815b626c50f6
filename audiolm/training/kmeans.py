"""Fits the clusters of the semantic tokenizer on a pre-trained encoder, or anew on a tokenizer's, and writes a run.

They are those of k-means; for speech they can then be moved until tokens tell phones (`phone_clusters`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from audiolm.checkpoints.format import as_shipped, read_run
from audiolm.config import SAMPLE_RATE_HZ, SAMPLES_PER_SEMANTIC, SemanticConfig
from audiolm.data.corpus import Corpus, Crop, Item
from audiolm.data.phones import UNKNOWN, PhoneLabels
from audiolm.errors import ConfigError, DataError
from audiolm.semantic.bundles import pretrained_extractor
from audiolm.semantic.kmeans import assign, fit_kmeans, usage
from audiolm.semantic.tokenizer import SemanticTokenizer, tokenizer_from_encoder
from audiolm.training.loop import setup_device
from audiolm.training.phone_clusters import around, move_to_phones
from audiolm.training.runs import load_run, write_run
from audiolm.training.semantic import layers_of

BUNDLE_TAP_LAYER = 7
MIN_ITEM_S = 1.0
MAX_GROUP_SHARE = 0.05  # of the features: a corpus with one long-winded reader must not become her tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="corpus folders")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--encoder", type=Path, help="run of the semantic task, or a tokenizer's")
    source.add_argument("--bundle", help="torchaudio bundle instead of an own encoder, such as HUBERT_BASE")
    parser.add_argument("--out", type=Path, required=True, help="run folder to write")
    parser.add_argument("--num-clusters", type=int, default=SemanticConfig().num_clusters)
    parser.add_argument(
        "--tap-layer", type=int, default=None, help="of the features (default: the run's; a tokenizer has no later one)"
    )
    parser.add_argument("--hours", type=float, default=2.0, help="audio to take features from")
    parser.add_argument("--crop-s", type=float, default=8.0)
    parser.add_argument("--normalise-per-group", action="store_true", help="remove each speaker's mean while fitting")
    parser.add_argument(
        "--phones", action="store_true", help="then move clusters so that tokens tell more of the phones"
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")


def run(args: argparse.Namespace) -> dict[str, float]:
    """Returns and prints, as JSON, the figures of the validation split.

    Raises: TrainingError for a run of another component, DataError without usable items (with phones: or an alignment),
    CheckpointError without a readable run or the bundle, ConfigError for an impossible layer or number of clusters.
    """
    device = setup_device(args.device, args.threads)
    tokenizer = _untrained_tokenizer(args).to(device)
    tokenizer.load_state_dict(as_shipped(tokenizer.state_dict()))  # clusters of the features that ship
    corpora = [Corpus(folder) for folder in args.data]
    generator = torch.Generator().manual_seed(args.seed)
    data = _features(tokenizer, corpora, "train", args.hours, args.crop_s, generator, args.phones)
    tokenizer.mean.copy_(data.features.mean(dim=0))
    tokenizer.std.copy_(data.features.std(dim=0).clamp_min(1e-4))
    points = (data.features - tokenizer.mean) / tokenizer.std
    fitted = _without_group_means(points, data.groups) if args.normalise_per_group else points
    centroids = fit_kmeans(fitted, args.num_clusters, generator, num_epochs=args.epochs)
    if data.phones is not None:
        centroids = move_to_phones(fitted, data.phones, centroids, generator)
    tokenizer.centroids.copy_(centroids)
    write_run(args.out, "semantic", tokenizer, tokenizer.config, {})
    _, tokenizer, _ = load_run(args.out, device)
    figures = _figures(tokenizer, corpora, args, generator)
    figures["train_positions"] = len(points)
    (args.out / "state.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))
    return figures


def _untrained_tokenizer(args: argparse.Namespace) -> SemanticTokenizer:
    if args.bundle is not None:
        layer = BUNDLE_TAP_LAYER if args.tap_layer is None else args.tap_layer
        config = SemanticConfig(extractor=args.bundle, tap_layer=layer, num_clusters=args.num_clusters)
        return tokenizer_from_encoder(config, pretrained_extractor(args.bundle, config.tap_layer).state_dict())
    component, values, weights, _ = read_run(args.encoder)
    layers, config = layers_of(args.encoder, component, weights), SemanticConfig.from_dict(values)
    layer = config.tap_layer if args.tap_layer is None else args.tap_layer
    if component == "semantic" and layer > config.tap_layer:
        raise ConfigError(f"{args.encoder} has its layers up to {config.tap_layer}, found --tap-layer {layer}")
    return tokenizer_from_encoder(dataclasses.replace(config, tap_layer=layer, num_clusters=args.num_clusters), layers)


@dataclass(frozen=True)
class ClusterData:
    """Unnormalised features [N, D] of crops; on the CPU the group number [N] of each and, if asked, phones [N, 3]."""

    features: Tensor
    groups: Tensor
    phones: Tensor | None


def _features(
    tokenizer: SemanticTokenizer,
    corpora: list[Corpus],
    split: str,
    hours: float,
    crop_s: float,
    generator: torch.Generator,
    with_phones: bool = False,
) -> ClusterData:
    """Of random crops, one at a time. Raises DataError without items that are long enough, or aligned if they must."""
    candidates = [
        (corpus, item) for corpus in corpora for item in corpus.select(split=split) if item.duration_s >= MIN_ITEM_S
    ]
    if not candidates:
        raise DataError(f"no item of at least {MIN_ITEM_S} s in split {split!r}")
    labels = {corpus: PhoneLabels(corpus) for corpus in corpora} if with_phones else {}
    numbers = {group: number for number, group in enumerate(sorted({item.group for _, item in candidates}))}
    num_wanted = round(hours * 3600 * SAMPLE_RATE_HZ)
    limit = max(num_wanted * MAX_GROUP_SHARE, num_wanted / len(numbers))
    taken: dict[str, int] = defaultdict(int)
    features, groups, phones, total = [], [], [], 0
    for index in torch.randperm(len(candidates), generator=generator).tolist():
        corpus, item = candidates[index]
        if taken[item.group] >= limit:
            continue
        crop = _random_crop(item, round(crop_s * SAMPLE_RATE_HZ), generator)
        rows = tokenizer.features(corpus.read([crop], crop.length).to(tokenizer.mean.device))[0]
        features.append(rows)
        groups.append(torch.full((len(rows),), numbers[item.group]))
        if with_phones:
            phones.append(around(labels[corpus].at(crop, len(rows))))
        taken[item.group] += crop.length
        total += crop.length
        if total >= num_wanted:
            break
    return ClusterData(torch.cat(features), torch.cat(groups), torch.cat(phones) if with_phones else None)


def _random_crop(item: Item, length: int, generator: torch.Generator) -> Crop:
    kept = min(length, item.length) // SAMPLES_PER_SEMANTIC * SAMPLES_PER_SEMANTIC
    return Crop(item, int(torch.randint(item.length - kept + 1, (1,), generator=generator)), kept)


def _without_group_means(points: Tensor, groups: Tensor) -> Tensor:
    """Points [N, D] less the mean of their group [N]: clusters then separate sounds rather than speakers."""
    groups = groups.to(points.device)
    counts = torch.bincount(groups).to(points.dtype)
    sums = torch.zeros(len(counts), points.shape[1], dtype=points.dtype, device=points.device)
    means = sums.index_add_(0, groups, points) / counts.clamp_min(1.0)[:, None]
    return points - means[groups]


def _figures(
    tokenizer: SemanticTokenizer, corpora: list[Corpus], args: argparse.Namespace, generator: torch.Generator
) -> dict[str, float]:
    """Usage perplexity, repeat rate, unexplained variance, and what tokens tell of the group and, if asked, of phones.

    That is mutual information (nats) between token and speaker or piece, of which tokens of content have little, and
    between token and phone, silence included.
    """
    data = _features(tokenizer, corpora, "valid", 0.25 * args.hours, args.crop_s, generator, args.phones)
    ids, distances = assign(data.features, tokenizer.centroids)
    perplexity, repeat_rate = usage(ids, tokenizer.codebook_size)
    figures = {
        "usage_perplexity": round(perplexity, 2),
        "repeat_rate": round(repeat_rate, 4),
        "unexplained_variance": round(float(distances.mean() / data.features.shape[1]), 4),
        "group_information_nats": round(group_information(ids.cpu(), data.groups), 4),
        "valid_positions": len(ids),
    }
    if data.phones is not None:
        heard = data.phones[:, 1]
        known = heard != UNKNOWN
        figures["phone_information_nats"] = round(group_information(ids.cpu()[known], heard[known]), 4)
    return figures


def group_information(ids: Tensor, groups: Tensor) -> float:
    """Mutual information in nats between tokens [N] and the numbers [N] of their groups, both those that occur.

    That of the counts is too large by about (K - 1) (G - 1) / (2 N), K tokens and G groups, where the two have nothing
    to do with each other (G. A. Miller, 1955); this much is taken off, but never more than there is. Neighbouring
    positions hang together as if N were less, so that a part of the bias stays.
    """
    ids, groups = (torch.unique(values, return_inverse=True)[1] for values in (ids, groups))
    joint = torch.zeros(int(ids.max()) + 1, int(groups.max()) + 1, dtype=torch.float64)
    joint.index_put_((ids, groups), torch.ones(len(ids), dtype=torch.float64), accumulate=True)
    shares = joint / len(ids)
    independent = shares.sum(1, keepdim=True) * shares.sum(0, keepdim=True)
    information = torch.xlogy(shares, shares / independent).sum()
    bias = (joint.shape[0] - 1) * (joint.shape[1] - 1) / (2 * len(ids))
    return max(0.0, float(information) - bias)
