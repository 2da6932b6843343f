"""Which rows each step sees, mismatched prompts, and tokens as rows."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from narrow import present

from xpo_bench import Completion, Pair, Scores, Single, Step
from xpo_bench.data.labels import decided
from xpo_bench.train.batching import mismatch, row_schedule, token_schedule
from xpo_bench.train.score_ops import by_token, take


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --------------------------------------------------------------------------- schedules

sizes = st.integers(2, 40)


@given(sizes, st.integers(1, 39), st.integers(1, 60), st.integers(0, 5))
def test_every_row_once_per_epoch(rows: int, batch: int, steps: int, seed: int) -> None:
    schedule = row_schedule(rows, batch, steps, "epochs", rng(seed))
    if batch >= rows:
        assert schedule is None  # every row once per step
        return
    assert schedule is not None
    assert schedule.shape == (steps, batch)
    flat = schedule.ravel()
    for start in range(0, len(flat) - rows + 1, rows):
        assert sorted(flat[start : start + rows]) == list(range(rows))
    rest = flat[len(flat) // rows * rows :]
    assert len(set(rest)) == len(rest)
    assert set(flat) <= set(range(rows))


@given(sizes, st.integers(1, 60), st.integers(1, 30))
def test_replacement_draws_independently_at_any_batch_size(rows: int, batch: int, steps: int) -> None:
    schedule = row_schedule(rows, batch, steps, "replacement", rng())
    assert schedule is not None
    assert schedule.shape == (steps, batch)
    assert schedule.min() >= 0
    assert schedule.max() < rows


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=60),
    st.integers(1, 200),
    st.integers(1, 40),
    st.integers(0, 5),
)
def test_batches_cut_by_tokens(lengths: list[int], tokens: int, steps: int, seed: int) -> None:
    schedule = token_schedule(lengths, tokens, steps, rng(seed))
    assert len(schedule) == steps
    batches = [[int(i) for i in batch if i >= 0] for batch in schedule]
    for batch in batches:
        assert batch
        assert len(batch) == 1 or sum(lengths[i] for i in batch) <= tokens
    assert np.array_equal(schedule, token_schedule(lengths, tokens, steps, rng(seed)))
    flat = [i for batch in batches for i in batch]
    seen = 0
    while seen + len(lengths) <= len(flat):  # an epoch ends with a batch
        assert sorted(flat[seen : seen + len(lengths)]) == list(range(len(lengths)))
        seen += len(lengths)
    assert len(set(flat[seen:])) == len(flat[seen:])


def test_batches_cut_by_tokens_hold_rows_of_like_length_in_random_order() -> None:
    lengths = [int(n) for n in rng().integers(10, 500, size=2000)]
    schedule = token_schedule(lengths, 2000, 400, rng())
    batches = [[lengths[i] for i in batch if i >= 0] for batch in schedule]
    assert np.mean([sum(batch) for batch in batches]) > 0.8 * 2000
    assert np.mean([max(batch) / (sum(batch) / len(batch)) for batch in batches]) < 1.1
    firsts = np.array([batch[0] for batch in batches])
    assert abs(np.corrcoef(firsts[:-1], firsts[1:])[0, 1]) < 0.2


def test_replacement_repeats_rows_and_epochs_do_not() -> None:
    drawn = row_schedule(10, 9, 200, "replacement", rng())
    assert drawn is not None
    assert max(len(row) - len(set(row)) for row in drawn) > 2


def test_schedules_depend_on_the_stream_alone() -> None:
    a, b, c = (present(row_schedule(12, 5, 9, "epochs", rng(seed))) for seed in (3, 3, 4))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_a_longer_run_starts_like_a_shorter_one() -> None:
    short, long = (row_schedule(12, 5, steps, "epochs", rng()) for steps in (4, 40))
    assert short is not None
    assert long is not None
    assert np.array_equal(short, long[:4])


def test_ties_are_left_out_of_training() -> None:
    likely = [Pair("x", "a", "b", p) for p in (1.0, 0.5, 0.7)]
    rows: list[Pair | Single] = [*likely, Single("x", "a", True)]
    assert decided(rows) == [0, 2, 3]


# --------------------------------------------------------------------------- mismatched prompts

prompts = st.lists(st.sampled_from("pqrs"), min_size=1, max_size=12)


@given(prompts, st.data())
def test_a_mismatched_completion_never_keeps_its_own_prompt(names: list[str], data: st.DataObject) -> None:
    completions = [Completion(prompt, f"y{i}") for i, prompt in enumerate(names)]
    row = st.integers(-1, len(names) - 1)
    batch = data.draw(st.integers(1, 6))
    schedule = np.array(
        data.draw(st.lists(st.lists(row, min_size=batch, max_size=batch), min_size=1, max_size=5))
    )
    found, index = mismatch(schedule, completions)
    assert index.shape == schedule.shape
    assert len(found) == len(set(found))
    for own, other in zip(schedule.ravel(), index.ravel(), strict=True):
        if own < 0 or len(set(names)) == 1:
            assert other == -1
        else:
            assert found[other].text == completions[own].text
            assert found[other].prompt != completions[own].prompt
            assert found[other].prompt in names


def test_partners_come_from_the_batch_where_it_has_any() -> None:
    completions = [Completion(p, p.upper()) for p in "aabbc"]
    found, index = mismatch(np.array([[0, 1, 4], [0, 1, -1], [2, 3, 0]]), completions)
    donors = [[found[i].prompt if i >= 0 else None for i in row] for row in index]
    # no other prompt in the second batch: the nearest following row of the data gives it
    assert donors == [["c", "c", "a"], ["b", "b", None], ["a", "a", "b"]]


def test_halves_of_a_pair_are_never_partners() -> None:
    completions = [Completion(f"p{i // 2}", f"y{i}") for i in range(8)]
    found, index = mismatch(np.arange(8)[None], completions)
    assert all(found[i].prompt != completions[row].prompt for row, i in enumerate(index[0]))


# --------------------------------------------------------------------------- tokens as rows


def scores(mask: torch.Tensor, seed: int) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    return Scores(torch.randn(mask.shape, dtype=torch.float64, generator=generator), mask)


def test_each_token_becomes_a_row() -> None:
    mask = torch.tensor([[[True, True, True], [True, False, False]]])
    chosen, rejected, reference = (scores(mask, seed) for seed in range(3))
    step = Step(
        {"chosen": chosen, "rejected": rejected},
        {"chosen": reference},
        {"c": torch.tensor([[2.0, 5.0]])},
        torch.tensor([[1.0, 1.0]]),
        {"examples": torch.tensor([[2.0]])},
        torch.tensor([[0.3, 0.7]]),
    )
    rows = by_token(step)
    assert rows.policy["chosen"].mask.shape == (1, 6, 1)
    assert torch.equal(rows.policy["chosen"].sum, chosen.token_logps.masked_fill(~mask, 0.0).reshape(1, 6))
    assert torch.equal(rows.policy["chosen"].mean, rows.policy["chosen"].sum)
    assert torch.equal(rows.log_ratio("chosen")[0, :3], (chosen.token_logps - reference.token_logps)[0, 0])
    assert rows.weight is not None
    assert rows.weight.tolist() == [[1, 1, 1, 1, 0, 0]]
    assert rows.columns["c"].tolist() == [[2, 2, 2, 5, 5, 5]]
    assert rows.totals is step.totals  # those of the full step, which a micro-batch knows nothing of
    assert rows.exact_kl is not None
    assert rows.exact_kl.tolist() == [[torch.tensor(v).item() for v in (0.3, 0.3, 0.3, 0.7, 0.7, 0.7)]]


def test_rows_that_are_padding_stay_padding_as_tokens() -> None:
    mask = torch.ones(1, 2, 2, dtype=torch.bool)
    step = Step(
        {"chosen": scores(mask, 0)},
        weight=torch.tensor([[1.0, 0.0]]),
        totals={"examples": torch.tensor([[1.0]])},
    )
    rows = by_token(step)
    assert rows.weight is not None
    assert rows.weight.tolist() == [[1, 1, 0, 0]]


def test_groups_of_fewer_tokens_are_padded_to_the_longest() -> None:
    long, short = torch.ones(1, 2, 3, dtype=torch.bool), torch.ones(1, 2, 1, dtype=torch.bool)
    rows = by_token(Step({"completion": scores(long, 0), "mismatched": scores(short, 1)}))
    assert rows.policy["mismatched"].length.tolist() == [[1, 0, 0, 1, 0, 0]]
    assert rows.policy["completion"].length.tolist() == [[1] * 6]


def test_taking_cached_scores_masks_absent_rows_and_fits_the_width() -> None:
    mask = torch.tensor([[[True, True, False], [True, False, False]]])
    cached = scores(mask, 0)
    picked = take(cached, torch.tensor([[1, -1, 0]]), 4)
    assert picked.mask.tolist() == [[[True, False, False, False], [False] * 4, [True, True, False, False]]]
    assert torch.equal(
        picked.sum[0], torch.stack([cached.sum[0, 1], torch.zeros((), dtype=torch.float64), cached.sum[0, 0]])
    )
    assert take(cached, torch.tensor([[1]]), 2).mask.shape == (1, 1, 2)
