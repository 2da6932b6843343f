"""What a language-model cell costs and the samples taken of it: neither may change what is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from narrow import present
from runs import TIMED
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from xpo_bench import Budget, Completion, Dataset, ModelSpec, Pair, Single
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.train import memory
from xpo_bench.train.evaluation.on_policy import GOLD_POINTS, OnPolicy, quarters
from xpo_bench.train.job import Job, Outcome
from xpo_bench.train.memory import PeakMemory
from xpo_bench.train.plain_loop import PlainLoop
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.ipo import IPO
from xpo_bench_plugins.algorithms.kto import KTO
from xpo_bench_plugins.algorithms.simpo import SimPO

SPEC = ModelSpec(name="tiny", hidden_size=16, intermediate_size=32, layers=1, heads=2, context=64)
ROWS = tuple(Pair(f"say {x}", f"{x}{x}", f"{x}no") for x in "abcdefgh")
STEPS = 20


def budget(**more: Any) -> Budget:
    settings: dict[str, Any] = {"steps": STEPS, "batch_size": 4, "optimizer": "adamw", "dtype": "float32"}
    return Budget(**(settings | {"kl_prompts": 4, "kl_samples": 2, "max_new_tokens": 8} | more))


@pytest.fixture
def policy() -> CausalLM:
    return CausalLM.load(SPEC, init_seed=0)


def trained(
    policy: CausalLM, algorithm: Any, cache: dict[Any, Any], dataset: Dataset | None = None
) -> Outcome:
    start = CausalLM.load(SPEC, init_seed=0).snapshot()
    policy.restore(start)
    job = Job(algorithm, "test", 0, 1e-3, "adamw", dataset or Dataset(train=ROWS), budget())
    (outcome,) = GroupTrainer(policy, [job], ReferenceScorer(policy, start, cache)).run()
    return outcome


def test_operations_are_those_that_torch_counts() -> None:
    policy = CausalLM.load(replace(SPEC, context=128), init_seed=0)
    # with BOS and EOS nothing is filled up, and the prompt is too long to be computed as a tile
    encoded = policy.encode([Completion("exactly sixteen!" * 3, "fifteen letters")])
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        loss = policy.score({"chosen": (encoded, None)}, grad=True)["chosen"].sum.sum()
        torch.autograd.grad(loss, policy.parameters())
    # torch counts the squares of attention, prompt and completion apart, of which a causal model needs the
    # lower triangle
    row = encoded.rows[0]
    fed = len(row.ids) - 1
    upper = row.start**2 + (fed - row.start) * fed - fed * (fed + 1) // 2
    # transformers 5.17 turns positions into angles by a matrix product of one column, 5.23 by a plain one
    angles = [ops for name, ops in counted.get_flop_counts().items() if name.endswith("rotary_emb")]
    turned = sum(sum(ops.values()) for ops in angles)
    assert policy.flops == counted.get_total_flops() - turned - 3 * policy.scorer.shape.per_context * upper


def test_a_sample_costs_what_scoring_it_costs(policy: CausalLM) -> None:
    sampled = policy.sample(
        ["a", "longer prompt"], 2, max_new_tokens=6, generator=torch.Generator().manual_seed(0)
    )
    sampling, policy.flops = policy.flops, 0.0
    # every sample feeds its prompt through all layers, and so does every row that shares none
    policy.scorer.reach, policy.scorer.trims = 0, False
    policy.score({"all": (sampled.encoded, None)}, grad=False)
    assert len(set(sampled.encoded.rows)) == 4  # equal rows would be scored once
    assert sampling == pytest.approx(policy.flops, rel=1e-9)


@pytest.mark.parametrize("desirable", [True, False])
def test_a_set_with_labels_of_one_kind(policy: CausalLM, desirable: bool) -> None:
    rows = tuple(Single(f"say {x}", f"{x}{x}", desirable=desirable) for x in "abcdefgh")
    outcome = trained(policy, KTO(), {}, Dataset(train=rows))
    assert outcome.status == "ok"
    assert (outcome.metrics.get("chosen_logp") is None) is not desirable


def test_shared_reference_scores_are_charged_to_everyone(policy: CausalLM) -> None:
    cache: dict[Any, Any] = {}
    first, second = (trained(policy, algorithm, cache).metrics["total_flops"] for algorithm in (DPO(), IPO()))
    alone = trained(policy, IPO(), {}).metrics["total_flops"]
    free = trained(policy, SimPO(), {}).metrics["total_flops"]
    assert first
    assert alone
    assert free
    assert first == pytest.approx(alone, rel=1e-9)
    assert second == pytest.approx(alone, rel=1e-9)
    assert free < alone  # reads no reference


def test_comparing_with_an_sft_step_leaves_the_run_as_it_is(
    policy: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it = trained(policy, DPO(), {})
    assert with_it.metrics["overhead"] is not None
    assert with_it.metrics["overhead"] > 0
    monkeypatch.setattr(PlainLoop, "measure", lambda *_: None)
    without = trained(policy, DPO(), {})
    assert "overhead" not in without.metrics
    assert with_it.curve == without.curve
    assert with_it.metrics["total_flops"] == without.metrics["total_flops"]  # evaluation is not charged


WIDE = ModelSpec(name="tiny", hidden_size=128, intermediate_size=256, layers=3, heads=4, context=128)
LONG_ROWS = Dataset(train=tuple(Pair("ask" * 10 + "?" * i, "yes" * 10, "no!" * 12) for i in range(16)))
NOISE_MB = 12.0
"""What fragments of the allocator's heap make of equal cells, measured at up to 8 MB."""


def peak(policy: CausalLM, algorithm: Any, batch_size: int) -> float:
    start = CausalLM.load(WIDE, init_seed=0).snapshot()
    policy.restore(start)
    settings = budget(steps=6, batch_size=batch_size, kl_prompts=1, kl_samples=1, max_new_tokens=1)
    job = Job(algorithm, "test", 0, 1e-4, "adamw", LONG_ROWS, settings)
    (outcome,) = GroupTrainer(policy, [job], ReferenceScorer(policy, start, {})).run()
    return present(outcome.metrics["peak_memory_mb"])


@pytest.mark.skipif(not PeakMemory("cpu").measurable, reason="the system keeps no peak that can be reset")
def test_the_peak_is_the_cell_s_own_whatever_ran_before() -> None:
    """A process that held 500 MB and gave them back, and cells with larger batches, leave no trace in it."""
    policy = CausalLM.load(WIDE, init_seed=0)
    first = peak(policy, DPO(), 4)
    large = peak(policy, DPO(), 16)
    filled = [torch.ones(10_000) for _ in range(12_500)]  # too small for pages of their own: the heap grows
    del filled
    again = peak(policy, DPO(), 4)
    assert again == pytest.approx(first, abs=NOISE_MB)
    assert large > first + 2 * NOISE_MB
    # weights, gradients and both moments of AdamW are there at every step, and no library is
    assert 4 * policy.held_bytes() / 1e6 < first < 100


def test_a_peak_that_cannot_be_reset_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "RESET", tmp_path / "no" / "such" / "file")
    policy = CausalLM.load(SPEC, init_seed=0)
    assert "peak_memory_mb" not in trained(policy, DPO(), {}).metrics


def test_without_a_gold_reward_a_policy_is_sampled_where_held_out_pairs_are_scored(policy: CausalLM) -> None:
    outcome = trained(policy, DPO(), {})
    rows = {present(row["step"]): row for row in outcome.curve if "kl" in row}
    assert sorted(rows) == quarters(STEPS)
    assert rows[0]["kl"] == 0.0
    assert "kl_se" not in rows[0]  # by construction, without a sample
    assert all(present(row["kl_se"]) >= 0 for step, row in rows.items() if step)
    assert outcome.metrics["kl"] == rows[STEPS]["kl"]
    assert "win_rate" not in outcome.metrics
    assert outcome.metrics["sample_length"] is not None
    assert 1 <= outcome.metrics["sample_length"] <= 8


def test_sampling_on_the_way_leaves_the_end_as_it_was(
    policy: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    along = trained(policy, DPO(), {})
    init = OnPolicy.__init__

    def at_the_end(self: OnPolicy, *words: Any) -> None:
        init(self, *words)
        self.points = {STEPS}

    monkeypatch.setattr(OnPolicy, "__init__", at_the_end)
    alone = trained(policy, DPO(), {})
    assert [row["step"] for row in alone.curve if "kl" in row] == [STEPS]
    assert {name: value for name, value in along.metrics.items() if name not in TIMED} == {
        name: value for name, value in alone.metrics.items() if name not in TIMED
    }


def test_a_gold_reward_is_followed_along_the_run(policy: CausalLM) -> None:
    dataset = Dataset(train=ROWS, gold=lambda completion: float(len(completion.text)))
    outcome = trained(policy, DPO(), {}, dataset)
    rows = [row for row in outcome.curve if "gold_reward" in row]
    sampled = {round(share * STEPS) for share in GOLD_POINTS} | set(quarters(STEPS))
    assert [row["step"] for row in rows] == sorted(sampled)
    start, end = rows[0], rows[-1]
    assert (start["kl"], start["gold_gain"], start["win_rate"]) == (0.0, 0.0, 0.5)
    assert end["gold_gain"] == pytest.approx(present(end["gold_reward"]) - present(start["gold_reward"]))
    assert outcome.metrics["gold_reward"] == end["gold_reward"]


def test_the_warm_start_trains_on_the_corpus(tmp_path: Path) -> None:
    from xpo_bench.train.warm_start import prepare_initial

    text = Completion("say q", "qqqq")
    likelier = {}
    for name, corpus in (("corpus", (text,)), ("chosen", ())):
        policy = CausalLM.load(SPEC, init_seed=0)
        job = Job(DPO(), "test", 0, 1e-3, "adamw", Dataset(train=ROWS, corpus=corpus), budget(warm_start=20))
        prepare_initial(policy, job, "prompt")
        likelier[name] = float(policy.score_all(policy.encode([text])).sum)
    assert likelier["corpus"] > likelier["chosen"] + 1
