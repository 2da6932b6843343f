"""Adapters of several runs on one frozen model: each run is the one that trains alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from copies import (
    ALGORITHMS,
    OTHER_BUDGETS,
    SEEDS,
    SPEC,
    assert_close,
    assert_company_changes_no_bit,
    assert_divergence_is_its_own,
    assert_each_is_itself,
    job,
)
from runs import FEW_SAMPLES

from xpo_bench import Completion, plugins
from xpo_bench.api import run
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.policy.language.adapters import Adapters
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.passes import passes
from xpo_bench.policy.language.probes import joining
from xpo_bench.policy.language.probes.joining import joins_adapters
from xpo_bench.policy.language.requests import Flat
from xpo_bench.policy.language.weights import State
from xpo_bench.runner.executors.groups import apart, groups
from xpo_bench.runner.plan import make_plan
from xpo_bench.runner.request import requests
from xpo_bench.train.job import Job, Outcome
from xpo_bench.train.reference_scores import ReferenceScorer, SameForAll
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.dpo import DPO

LORA = replace(SPEC, lora_rank=3, lora_alpha=6)
ITEMS = [Completion("p", "a"), Completion("q", "bcd"), Completion("p", "efghi"), Completion("p", "ef")]


def single(spec: ModelSpec = LORA, **words: Any) -> CausalLM:
    return CausalLM.load(spec, init_seed=0, **{"dtype": "float64"} | words)


def moved(model: CausalLM, count: int) -> list[dict[str, torch.Tensor]]:
    """Adapters that differ from one another, and from none."""
    rng = torch.Generator().manual_seed(0)
    start = model.snapshot()
    return [
        {name: p + 0.1 * torch.randn(p.shape, generator=rng).to(p) for name, p in start.items()}
        for _ in range(count)
    ]


@cache
def loaded(_: str) -> tuple[CausalLM, State]:
    """A model for one use, of many tests, and its adapters as they begin."""
    model = single()
    return model, model.snapshot()


def together(jobs: Sequence[Job], shared: bool = True) -> list[Outcome]:
    model, start = loaded("together")
    scorer = SameForAll(ReferenceScorer(model, start, {})) if shared else None
    return GroupTrainer(Adapters(model, [start] * len(jobs)), jobs, scorer).run()


def by_itself(j: Job) -> Outcome:
    model, start = loaded("by itself")
    model.restore(start)
    (outcome,) = GroupTrainer(model, [j], ReferenceScorer(model, start, {})).run()
    return outcome


STAGES = sorted({repr(job(name, 0).algorithm.stages()) for name in ALGORITHMS})


@pytest.mark.parametrize("stages", STAGES)
def test_every_algorithm_beside_the_others_is_the_one_that_trains_alone(stages: str) -> None:
    named = [name for name in ALGORITHMS if repr(job(name, 0).algorithm.stages()) == stages]
    jobs = [job(name, SEEDS[i % 3]) for i, name in enumerate([*named, named[0]])]
    jobs.sort(key=lambda j: (j.algorithm.name, repr(j.group()[1])))
    found = together(jobs)
    assert {outcome.timing["vectorised_runs"] for outcome in found} == {len(jobs)}
    for j, outcome in zip(jobs, found, strict=True):
        assert outcome.status == "ok"
        assert_close(outcome, by_itself(j))


def test_algorithms_and_settings_share_a_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job("dpo", 0), job("dpo", 1), job("ipo", 0), replace(job("orpo", 2), lr=1e-2), job("sft", 0)]
    jobs += [Job(DPO(beta=0.7), "test", 3, 1e-2, "adamw", jobs[0].dataset, jobs[0].budget)]
    jobs.sort(key=lambda j: (j.algorithm.name, repr(j.group()[1])))
    passed = []
    scored = Adapters._token_logps

    def counted(self: Adapters, rows: Any, *rest: Any) -> Flat:
        if torch.is_grad_enabled():
            passed.append(len(rows))
        return scored(self, rows, *rest)

    monkeypatch.setattr(Adapters, "_token_logps", counted)
    found = together(jobs)
    monkeypatch.undo()
    # eight steps; whether gradients have vanished is asked of a last step again, which may add one
    assert passed[:8] == [len(jobs)] * 8
    assert set(passed) == {len(jobs)}
    for j, outcome in zip(jobs, found, strict=True):
        assert_close(outcome, by_itself(j))


@pytest.mark.parametrize("words", OTHER_BUDGETS)
def test_other_budgets(words: dict[str, Any]) -> None:
    jobs = [job("dpo", seed, **words) for seed in SEEDS[:2]]
    assert_each_is_itself(jobs, partial(together, shared=False), by_itself)


def test_who_else_trains_changes_no_bit_where_rows_are_the_same() -> None:
    assert_company_changes_no_bit("dpo", together)


def test_a_run_that_diverges_stands_still_and_costs_no_other() -> None:
    assert_divergence_is_its_own(together, by_itself)


@pytest.mark.parametrize("way", ["masks", "packed", "a row at a time", "no sharing", "padded models"])
def test_scores_and_gradients_are_those_of_each_run(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = single(packing=way != "padded models")
    if way == "packed":
        monkeypatch.setattr("xpo_bench.policy.language.passes.LONG", 1)
    if way == "a row at a time":
        model.scorer.tokens_per_forward = 4
    if way == "no sharing":
        model.scorer.reach = 0
    states = moved(model, 3)
    copies = Adapters(model, states)
    encoded = copies.stack([copies.encode(ITEMS), copies.encode(ITEMS[:1]), copies.encode(ITEMS[1:])])
    index = torch.tensor([[2, 0, 3], [0, -1, -1], [1, 2, -1]])
    wanted = {"chosen": (encoded, index), "again": (encoded, index[:, :1])}
    scores = copies.score(wanted, grad=True)["chosen"]
    (grad,) = torch.autograd.grad(scores.sum.square().sum(), copies.parameters())
    for r, (state, own) in enumerate(zip(states, index.tolist(), strict=True)):
        model.restore(state)
        alone = model.score({"a": (encoded[r], torch.tensor([own]))}, grad=True)["a"]
        width = alone.mask.shape[-1]
        assert torch.equal(scores.mask[r, :, :width], alone.mask[0])
        torch.testing.assert_close(
            scores.token_logps[r, :, :width], alone.token_logps[0], rtol=1e-6, atol=1e-6
        )
        whole = torch.cat([g.flatten() for g in model.gradients(alone.sum.square().sum())])
        # norms compute in float32, whatever the model does: another batch rounds them otherwise
        torch.testing.assert_close(grad[r], whole, rtol=0, atol=1e-6 * float(whole.abs().max()))


def test_the_divergence_from_a_snapshot_is_that_of_each_run() -> None:
    model = single()
    states = moved(model, 2)
    copies = Adapters(model, states)
    before = copies.snapshot()
    copies.restore({name: p * 2 for name, p in before.items()})
    encoded = copies.encode(ITEMS)
    found = copies.score({"a": ([encoded, encoded], None)}, grad=False, against=before)["a"].token_kl
    assert found is not None
    assert float(found.abs().max()) > 1e-3
    for r, state in enumerate(states):
        model.restore({name: p * 2 for name, p in state.items()})
        alone = model.score({"a": (encoded, None)}, grad=False, against=state)["a"].token_kl
        torch.testing.assert_close(found[r], alone[0] if alone is not None else None)


def test_absent_rows_have_a_gradient_of_zero() -> None:
    copies = Adapters(single(), moved(single(), 2))
    encoded = copies.encode(ITEMS)
    scores = copies.score({"a": ([encoded, encoded], torch.tensor([[-1], [-1]]))}, grad=True)["a"]
    (grad,) = torch.autograd.grad(scores.sum.sum(), copies.parameters())
    assert not grad.any()


def test_snapshots_members_and_the_model_by_itself() -> None:
    model = single()
    states = moved(model, 2)
    copies = Adapters(model, states)
    encoded = model.encode(ITEMS)
    before = model.score_all(encoded).sum
    for r, state in enumerate(states):
        with copies.member(r) as member:
            inside = member.score_all(encoded).sum
        with model.using(copies.state_of(copies.snapshot(), r)):
            assert torch.equal(model.score_all(encoded).sum, inside)
        assert all(torch.equal(copies.snapshot()[name][r], p) for name, p in state.items())
    assert torch.equal(model.score_all(encoded).sum, before)
    Adapters(model, states)  # a second time on one model
    assert torch.equal(model.score_all(encoded).sum, before)


def test_every_run_has_as_many_tokens_in_a_pass() -> None:
    model = single()
    rows = [list(model.encode(ITEMS[:n]).rows) for n in (4, 1, 3)]
    found = list(passes(rows, model.scorer))
    for each in found:
        heights = len(each.parts) / len(each.runs)
        assert heights == int(heights)
    places = sorted(place for each in found for place in each.places if place is not None)
    assert places == [(r, i) for r, run in enumerate(rows) for i in range(len(run))]


def test_what_cannot_be_joined_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert joins_adapters(single()) is None
    assert joins_adapters(single(checkpointing=True)) == "checkpointing"
    reversing = single()
    body = reversing.model.base_model
    mlp = body.layers[0].mlp
    own = mlp.forward
    # each token by itself, as experts compute them, in another order than they came
    mlp.forward = lambda x: own(x.flip(1)).flip(1) if x.shape[0] == 1 else own(x.flip(0, 1)).flip(0, 1)
    torch.testing.assert_close(
        reversing.score_all(reversing.encode(ITEMS)).sum, single().score_all(single().encode(ITEMS)).sum
    )
    assert joins_adapters(reversing) == "differs"
    counting = single()
    first = counting.model.base_model.layers[1].mlp
    plain = first.forward
    # an odd number of tokens, as an expert has that others share a batch with
    first.forward = lambda x: (
        torch.cat([plain(x[:, :1]), plain(x[:, 1:])], 1) if x.shape[0] == 1 else plain(x)
    )
    assert joins_adapters(counting) is not None


def cells(**words: Any) -> Any:
    asked = {"tasks": ["overfit_pair"], "seeds": [0, 1], "steps": 4, "lora": "r=2"} | words
    return make_plan(requests(asked), plugins.load()).cells


def test_which_cells_go_together() -> None:
    asked = {"algos": ["dpo", "ipo", "rso"], "set": {"task.ensemble": 8, "dpo.beta": [0.1, 0.5]}}
    # a random model is another one for each seed, and adapters stand on one; what samples goes alone
    sizes = sorted(len(g.cells) for g in groups(cells(**asked)))
    assert sizes == [1, 1, 3, 3]
    assert not list(apart(cells(**asked)))
    (said,) = {*apart(cells(algos=["dpo"], seeds=[0], set={"dpo.beta": [0.1, 0.5]}))}
    assert said == (
        "overfit_pair: 2 runs train adapters on one model, one after the other; "
        "--set task.ensemble=2 trains so many in one forward pass"
    )
    assert not list(apart(cells(algos=["dpo", "rso"])))  # one run for each model, and what samples
    assert not list(apart(cells(algos=["dpo"], lora=None, set={"dpo.beta": [0.1, 0.5]})))


def test_from_the_command(tmp_path: Path) -> None:
    words: dict[str, Any] = {"algos": ["dpo", "ipo"], "tasks": ["overfit_pair"], "seeds": 2, "steps": 3}
    words["lora"] = "r=2"
    found = run(**words, set={"task.ensemble": 4} | FEW_SAMPLES, out=tmp_path / "a")
    alone = run(**words, set=FEW_SAMPLES, out=tmp_path / "b")
    assert found.ok
    assert [c["timing"]["vectorised_runs"] for c in found.cells] == [2] * 4
    for mine, theirs in zip(found.cells, alone.cells, strict=True):
        assert mine["task"]["model"]["adapters"] == "one forward pass"
        assert mine["metrics"]["chosen_logp"] == pytest.approx(theirs["metrics"]["chosen_logp"], rel=1e-4)


def test_a_model_that_cannot_is_mapped_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_agrees", lambda *_: False)
    words: dict[str, Any] = {"algos": ["dpo", "ipo"], "tasks": ["overfit_pair"], "seeds": [0], "steps": 2}
    found = run(**words, lora="r=2", set={"task.ensemble": 4} | FEW_SAMPLES, out=tmp_path / "a")
    assert {c["task"]["model"]["adapters"] for c in found.cells} == {"apart (differs)"}
    assert found.ok


def test_adapters_stand_on_the_model_of_their_seed(tmp_path: Path) -> None:
    """Cells of an algorithm that comes second find the random model of another seed loaded."""
    words: dict[str, Any] = {"tasks": ["overfit_pair"], "seeds": 2, "steps": 3, "lora": "r=2"}
    words["set"] = FEW_SAMPLES
    both = run(algos=["dpo", "ipo"], **words, out=tmp_path / "both")
    one = run(algos=["ipo"], **words, out=tmp_path / "one")
    mine = {c["key"]: c["metrics"]["chosen_logp"] for c in both.cells}
    for cell in one.cells:
        assert mine[cell["key"]] == cell["metrics"]["chosen_logp"]
