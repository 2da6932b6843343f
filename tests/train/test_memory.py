"""Memory that runs out: smaller micro-batches with the same numbers, or a status, never another run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from xpo_bench import Algorithm, Completion, ModelSpec, Pair
from xpo_bench.errors import UsageError
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.tokenizers import IdTokenizer
from xpo_bench.train.job import Job, Outcome
from xpo_bench.train.memory import is_out_of_memory
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.kto import KTO
from xpo_bench_plugins.algorithms.npo import NPO

SPEC = ModelSpec(name="tiny", hidden_size=16, intermediate_size=32, layers=2, heads=2, context=48)
ROWS = tuple(Pair("ask" + "?" * i, "yes" + "!" * (i % 3), "no" + "." * (i % 4)) for i in range(9))
SMALL = {
    "steps": 4,
    "batch_size": 8,
    "dtype": "float64",
    "kl_prompts": 1,
    "kl_samples": 1,
    "max_new_tokens": 1,
    "eval_pairs": 2,
}


class Scarce(CausalLM):
    """A model that has no room for more than so many rows with a graph."""

    room = 100
    asked: list[int]

    def score(self, requests: Any, *, grad: bool, runs: slice = slice(None), against: Any = None) -> Any:
        rows = max(len(encoded) if index is None else index.shape[-1] for encoded, index in requests.values())
        if grad and torch.is_grad_enabled():
            self.asked.append(rows)
            if rows > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return super().score(requests, grad=grad, runs=runs, against=against)


def fit(job: Job, room: int) -> tuple[Tensor, Outcome, list[int]]:
    policy = Scarce.load(SPEC, init_seed=0, dtype="float64")
    assert isinstance(policy, Scarce)
    policy.room, policy.asked = room, []
    trainer = GroupTrainer(policy, [job], ReferenceScorer(policy, policy.snapshot(), {}))
    trainer.plain_loop = None
    (outcome,) = trainer.run()
    return torch.cat([value.flatten() for value in policy.snapshot().values()]), outcome, policy.asked


@pytest.mark.parametrize("algorithm", [DPO(), NPO(retain_weight=1.0)], ids=lambda a: a.name)
@pytest.mark.parametrize("batch_size", [8, 100])
def test_the_same_numbers_in_smaller_pieces(
    job: Callable[..., Job], algorithm: Algorithm, batch_size: int
) -> None:
    cell = job(algorithm, ROWS, lr=0.5, optimizer="sgd", **(SMALL | {"batch_size": batch_size}))
    whole, plenty, _ = fit(cell, 100)
    cut, scarce, asked = fit(cell, 3)
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-9)
    assert plenty.notes.get("micro_batch") is None
    # 8, 4, 2 pairs, or 9, 5, 3; of singles there are twice as many
    expected = {("dpo", 8): (2, 2), ("dpo", 100): (3, 2), ("npo", 8): (1, 3), ("npo", 100): (1, 4)}
    attempts = sum(rows > 3 for rows in asked)
    assert (scarce.notes["micro_batch"], attempts) == expected[algorithm.name, batch_size], (
        "a size is tried once, and kept"
    )
    assert scarce.timing["steps"] == plenty.timing["steps"] == SMALL["steps"]
    assert scarce.metrics["pairs_per_s"] is not None
    assert (scarce.metrics["pairs_per_s"] or 0) > 0


def test_a_row_that_does_not_fit_alone_is_out_of_memory(job: Callable[..., Job]) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        fit(job(DPO(), ROWS, **SMALL), 0)


def test_a_loss_that_reads_its_whole_batch_is_not_cut(job: Callable[..., Job]) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        fit(job(KTO(), ROWS, **SMALL), 5)


def test_an_update_that_has_begun_is_not_made_twice(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    from xpo_bench.train.optim import ModuleOptimizer

    calls = []

    def step(self: Any, *args: Any) -> None:
        calls.append(args)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ModuleOptimizer, "step", step)
    with pytest.raises(torch.OutOfMemoryError):
        fit(job(DPO(), ROWS, **SMALL), 100)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ..."
            ),
            True,
        ),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("allocate memory"), False),
    ],
)
def test_which_errors_say_so(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_torch_says_it_in_these_words() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.int8)
    assert is_out_of_memory(caught.value)


# --------------------------------------------------------------------------- gradient checkpointing


def test_recomputed_layers_give_the_same_gradient_and_keep_less() -> None:
    found, kept = [], []
    for checkpointing in (False, True):
        policy = CausalLM.load(SPEC, init_seed=0, dtype="float64", checkpointing=checkpointing)
        saved: list[int] = []

        def pack(values: Tensor, saved: list[int] = saved) -> Tensor:
            saved.append(values.untyped_storage().nbytes())
            return values

        encoded = policy.encode([Completion(row.prompt, row.chosen) for row in ROWS])
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda values: values):
            loss = policy.score({"all": (encoded, None)}, grad=True)["all"].sum.sum()
        kept.append(sum(saved))
        found.append(torch.autograd.grad(loss, policy.parameters()))
        assert policy.notes.get("checkpointing", False) is checkpointing
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)
    assert kept[1] < 0.7 * kept[0]


def test_dropout_stays_off() -> None:
    import transformers as t

    common = {"vocab_size": 32, "bos_token_id": None, "eos_token_id": None}
    config = t.GPT2Config(
        **common,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=64,
        resid_pdrop=0.5,
        attn_pdrop=0.5,
        embd_pdrop=0.5,
    )
    policy = CausalLM(
        t.GPT2LMHeadModel(config), IdTokenizer(32), ModelSpec(name="tiny", tokenizer="ids", eos=False)
    )
    policy.recompute_layers()
    encoded = policy.encode([Completion("1 2", "3 4 5")])
    first, second = (policy.score({"all": (encoded, None)}, grad=True)["all"].sum for _ in range(2))
    assert torch.equal(first, second)


def test_a_model_without_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = CausalLM.load(SPEC, init_seed=0)
    monkeypatch.setattr(type(policy.model), "supports_gradient_checkpointing", False)
    with pytest.raises(UsageError, match=r"no gradient checkpointing; leave out task\.checkpointing"):
        policy.recompute_layers()
