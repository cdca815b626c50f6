import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiolm.lm.layouts import START, DepthLayout, FlattenedLayout
from audiolm.lm.sequences import expand_runs, flatten, merge_repeats, split_runs, unflatten
from audiolm.lm.specs import MAX_RUN, semantic_steps

ids_with_repeats = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 90)), min_size=0, max_size=12).map(
    lambda runs: torch.tensor([token for token, count in runs for _ in range(count)], dtype=torch.long)
)
sizes = st.lists(st.integers(2, 9), min_size=1, max_size=4).map(tuple)


@given(ids_with_repeats)
def test_merging_repeats_is_undone_by_expanding_runs(ids):
    merged, runs = merge_repeats(ids)
    assert torch.equal(expand_runs(merged, runs), ids)
    assert bool((merged[1:] != merged[:-1]).all())


@given(ids_with_repeats, st.integers(1, 40))
def test_splitting_runs_caps_them_and_keeps_every_duration(ids, max_run):
    merged, runs = split_runs(*merge_repeats(ids), max_run)
    assert torch.equal(expand_runs(merged, runs), ids)
    assert bool(((runs >= 1) & (runs <= max_run)).all())


@given(ids_with_repeats)
def test_semantic_steps_hold_token_and_run_length_less_one(ids):
    steps = semantic_steps(ids)
    assert steps.shape[1] == 2
    assert bool(((steps[:, 1] >= 0) & (steps[:, 1] < MAX_RUN)).all())
    assert torch.equal(expand_runs(steps[:, 0], steps[:, 1] + 1), ids)


@given(st.integers(0, 9), st.integers(1, 5), st.integers(2, 50), st.integers(0, 2**31))
def test_flattening_is_row_major_with_offsets_and_is_undone(frames, levels, size, seed):
    codes = torch.randint(size, (frames, levels), generator=torch.Generator().manual_seed(seed))
    flat = flatten(codes, (size,) * levels)
    assert torch.equal(unflatten(flat, (size,) * levels), codes)
    if frames:
        assert flat[levels - 1] == codes[0, levels - 1] + (levels - 1) * size


def test_unflattening_refuses_ids_of_another_level_and_broken_frames():
    with pytest.raises(ValueError, match="level of its position"):
        unflatten(torch.tensor([0, 3]), (8, 8))
    with pytest.raises(ValueError, match="whole number"):
        unflatten(torch.tensor([0, 9, 1]), (8, 8))


@given(sizes, sizes, st.integers(0, 6), st.integers(0, 6), st.booleans(), st.integers(0, 2**31))
def test_the_flattened_layout_is_reversible(levels, condition_levels, steps, known, conditioned, seed):
    condition_levels = condition_levels if conditioned else ()
    layout = FlattenedLayout(levels, condition_levels)
    targets, condition = _ids(levels, steps, seed), _ids(condition_levels, known, seed) if conditioned else None
    ids = layout.arrange(targets, condition)
    assert ids.shape[1] == layout.num_positions(steps, known if conditioned else 0) + 1
    assert int(ids.max()) < layout.vocabulary_size
    back, back_condition = layout.restore(ids)
    assert torch.equal(back, targets)
    assert back_condition is None if not conditioned else torch.equal(back_condition, condition)


@given(sizes, st.integers(0, 6), st.integers(0, 2**31))
def test_the_depth_layout_is_reversible_and_begins_with_a_start_step(levels, steps, seed):
    targets = _ids(levels, steps, seed)
    ids = DepthLayout().arrange(targets)
    assert bool((ids[:, 0] == START).all())
    assert torch.equal(DepthLayout().restore(ids), targets)


def _ids(levels, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(size, (2, steps), generator=generator) for size in levels], dim=-1)
