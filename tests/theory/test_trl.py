"""Losses and gradients against TRL's: equal where definitions are, and where they differ, how.

Both start from the same weights, away from the reference, and see the same token ids.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trl_words import PAIRS, SPEC, columns, words_tokenizer

from xpo_bench import Algorithm, Budget, Completion, Dataset, Pair, Single
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.train.job import Job
from xpo_bench.train.optim import ModuleOptimizer
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.apo_down import APODown
from xpo_bench_plugins.algorithms.apo_zero import APOZero
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.dpo_norm import DPONorm
from xpo_bench_plugins.algorithms.ipo import IPO
from xpo_bench_plugins.algorithms.kto import KTO
from xpo_bench_plugins.algorithms.ld_dpo import LDDPO
from xpo_bench_plugins.algorithms.robust import RobustDPO
from xpo_bench_plugins.algorithms.rpo import RPO
from xpo_bench_plugins.algorithms.wpo import WPO

TOLERANCE = 1e-5
SINGLES = tuple(
    Single(pair.prompt, pair.chosen if i % 2 else pair.rejected, desirable=bool(i % 2))
    for i, pair in enumerate(PAIRS)
)

Gradient = dict[str, Tensor]

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # between TRL and transformers


@pytest.fixture
def policy() -> CausalLM:
    """A policy that has moved away from its reference, `initial`."""
    lm = CausalLM.load(SPEC, init_seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return lm


def ours(
    policy: CausalLM, algorithm: Algorithm, rows: Sequence[Any], monkeypatch: pytest.MonkeyPatch
) -> tuple[float, Gradient]:
    """The loss of one full batch, and its gradient as the optimizer gets it."""
    seen: list[list[Tensor]] = []
    losses: list[float | None] = []
    monkeypatch.setattr(
        ModuleOptimizer, "step", lambda self, grads, scale, alive: seen.append([g.clone() for g in grads])
    )
    sizes: dict[str, Any] = {
        "eval_pairs": 1,
        "heldout_pairs": 1,
        "kl_prompts": 1,
        "kl_samples": 1,
        "max_new_tokens": 1,
    }
    budget = Budget(steps=1, batch_size=len(rows), dtype="float32", **sizes)
    reference = CausalLM.load(SPEC, init_seed=0).snapshot()
    job = Job(algorithm, "test", 0, 1e-3, "adamw", Dataset(train=tuple(rows)), budget)
    trainer = GroupTrainer(
        policy,
        [job],
        ReferenceScorer(policy, reference, {}),
        progress=lambda step, steps, loss: losses.append(loss),
    )
    trainer.plain_loop = None
    trainer.run()
    assert losses[0] is not None
    return losses[0], dict(zip(policy.snapshot(), seen[0], strict=True))


def theirs(
    policy: CausalLM, kind: str, rows: Sequence[Any], folder: Path, **config: Any
) -> tuple[float, Gradient, dict[str, Tensor]]:
    """Loss and gradient of TRL's trainer on its own collated batch, and the batch."""
    import trl
    from datasets import Dataset as HubDataset

    trainer_of, config_of = getattr(trl, f"{kind}Trainer"), getattr(trl, f"{kind}Config")
    common = {
        "output_dir": str(folder),
        "per_device_train_batch_size": len(rows),
        "report_to": "none",
        "use_cpu": True,
    }
    off = {
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_dropout": True,
        "max_length": None,
        "disable_tqdm": True,
    }
    arguments = config_of(**common, **off, train_sampling_strategy="sequential", **config)
    model = copy.deepcopy(policy.model)
    trainer = trainer_of(
        model=model,
        ref_model=CausalLM.load(SPEC, init_seed=0).model,
        args=arguments,
        train_dataset=HubDataset.from_list([columns(row) for row in rows]),
        processing_class=words_tokenizer(),
    )
    (batch,) = trainer.get_train_dataloader()
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    gradient = {name: parameter.grad for name, parameter in model.named_parameters()}
    return (
        float(loss.detach()),
        {name: torch.zeros(()) if g is None else g for name, g in gradient.items()},
        batch,
    )


def assert_equal(one: tuple[float, Gradient], other: tuple[float, Gradient]) -> None:
    assert one[0] == pytest.approx(other[0], abs=TOLERANCE, rel=TOLERANCE)
    assert set(one[1]) == set(other[1])
    largest = max(float(g.abs().max()) for g in other[1].values())
    assert largest > 1e-3
    for name, gradient in other[1].items():
        torch.testing.assert_close(
            one[1][name], gradient, rtol=0, atol=TOLERANCE * max(1.0, largest), msg=name
        )


@pytest.mark.parametrize(
    ("algorithm", "config"),
    [
        (DPO(beta=0.5), {"loss_type": ["sigmoid"], "beta": 0.5}),
        (IPO(tau=0.3), {"loss_type": ["ipo"], "beta": 0.3}),
        (
            RobustDPO(beta=0.5, label_smoothing=0.2),
            {"loss_type": ["robust"], "beta": 0.5, "label_smoothing": 0.2},
        ),
        (DPONorm(beta=2.0), {"loss_type": ["sigmoid_norm"], "beta": 2.0}),
        (APOZero(beta=0.5), {"loss_type": ["apo_zero"], "beta": 0.5}),
        (APODown(beta=0.5), {"loss_type": ["apo_down"], "beta": 0.5}),
        (LDDPO(beta=0.5, tail_weight=0.3), {"loss_type": ["sigmoid"], "beta": 0.5, "ld_alpha": 0.3}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_equal_on_pairs(
    policy: CausalLM,
    algorithm: Algorithm,
    config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss, gradient, batch = theirs(policy, "DPO", PAIRS, tmp_path, **config)
    texts = [pair.chosen for pair in PAIRS] + [pair.rejected for pair in PAIRS]
    encoded = policy.encode(
        [Completion(pair.prompt, text) for pair, text in zip(2 * PAIRS, texts, strict=True)]
    )
    for i, (ids, mask) in enumerate(zip(batch["input_ids"], batch["attention_mask"], strict=True)):
        row = encoded.row(i)
        assert row is not None
        assert tuple(ids[mask.bool()].tolist()) == row.ids
    assert_equal(ours(policy, algorithm, PAIRS, monkeypatch), (loss, gradient))


def test_equal_on_singles_whose_prompts_differ(
    policy: CausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.7}
    loss, gradient, _ = theirs(policy, "KTO", SINGLES, tmp_path, beta=0.3, **weights)
    assert_equal(ours(policy, KTO(beta=0.3, **weights), SINGLES, monkeypatch), (loss, gradient))


def test_kto_of_trl_takes_halves_of_a_pair_for_mismatched(
    policy: CausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its z0 takes the completion of the row before: where pairs are split, that answers this very prompt.

    Ours takes completions of other prompts, as the paper's z0 wants them (Ethayarajh et al. 2024).
    """
    halves = [
        Single(pair.prompt, text, desirable=good)
        for pair in PAIRS
        for text, good in ((pair.chosen, True), (pair.rejected, False))
    ]
    loss, gradient, batch = theirs(policy, "KTO", halves, tmp_path, beta=0.3)
    known = {
        tuple(row.ids)
        for row in policy.encode([Completion(half.prompt, half.completion) for half in halves]).rows
    }
    related = [
        tuple(ids[mask.bool()].tolist()) in known
        for ids, mask in zip(batch["KL_input_ids"], batch["KL_attention_mask"], strict=True)
    ]
    assert related == [False, True] * len(PAIRS)
    mine = ours(policy, KTO(beta=0.3), halves, monkeypatch)
    assert abs(mine[0] - loss) > 10 * TOLERANCE
    # with the same z0 the two are the same
    monkeypatch.setattr(
        "xpo_bench_plugins.algorithms.kto.reference_point", lambda step: trl_reference_point(policy, batch)
    )
    assert_equal(ours(policy, KTO(beta=0.3), halves, monkeypatch), (loss, gradient))


def trl_reference_point(policy: CausalLM, batch: Any) -> Tensor:
    """z0 of the mismatched rows of a collated batch."""
    reference = CausalLM.load(SPEC, init_seed=0)
    logps: list[Tensor] = []
    for model in (policy.model, reference.model):
        with torch.no_grad():
            logits = model(input_ids=batch["KL_input_ids"], attention_mask=batch["KL_attention_mask"]).logits[
                :, :-1
            ]
        tokens = logits.log_softmax(-1).gather(-1, batch["KL_input_ids"][:, 1:, None])[..., 0]
        logps.append((tokens * batch["KL_completion_mask"][:, 1:]).sum(-1))
    return (logps[0] - logps[1]).mean().clamp(min=0).reshape(1, 1)


def test_ipo_of_summed_log_ratios_is_neither(
    policy: CausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, _, _ = theirs(policy, "DPO", PAIRS, tmp_path, loss_type=["ipo"], beta=0.3)
    summed, _ = ours(policy, IPO(tau=0.3, normalize="none"), PAIRS, monkeypatch)
    assert abs(summed - loss) > 0.1


def test_rpo_of_trl_pools_the_tokens_of_a_batch(
    policy: CausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its likelihood is a mean over all chosen tokens, so that long completions weigh more than short ones.

    The paper takes the mean per completion (Pang et al. 2024); the two agree where lengths do.
    """
    config = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7], "beta": 0.5}
    algorithm = RPO(beta=0.5, nll_weight=0.7)
    alike = tuple(Pair(p.prompt, f"{5 + i} 8 23", p.rejected) for i, p in enumerate(PAIRS))
    loss, gradient, _ = theirs(policy, "DPO", alike, tmp_path / "alike", **config)
    assert_equal(ours(policy, algorithm, alike, monkeypatch), (loss, gradient))
    pooled, _, _ = theirs(policy, "DPO", PAIRS, tmp_path / "mixed", **config)
    assert abs(ours(policy, algorithm, PAIRS, monkeypatch)[0] - pooled) > 10 * TOLERANCE
    each = [ours(policy, algorithm, [pair], monkeypatch)[0] for pair in PAIRS]
    dpo = [ours(policy, DPO(beta=0.5), [pair], monkeypatch)[0] for pair in PAIRS]
    lengths = [len(pair.chosen.split()) for pair in PAIRS]
    summed = sum(n * (whole - part) for n, whole, part in zip(lengths, each, dpo, strict=True))
    assert sum(dpo) / len(PAIRS) + summed / sum(lengths) == pytest.approx(pooled, abs=TOLERANCE)


def test_wpo_of_trl_divides_probabilities_by_those_of_a_sample(
    policy: CausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the paper's aligned weight, ours over Π_t (Σ_v π(v)²)^(1/|y|): of one pair, a factor."""
    for number, pair in enumerate(PAIRS):
        folder = tmp_path / str(number)
        loss, gradient, batch = theirs(policy, "DPO", [pair], folder, beta=0.5, use_weighting=True)
        own, slopes = ours(policy, WPO(beta=0.5), [pair], monkeypatch)
        with torch.no_grad():
            logits = policy.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
        repeats = (2 * logits.log_softmax(-1)).logsumexp(-1)  # ln Σ_v π(v)²
        mask = batch["completion_mask"][:, 1:]
        factor = float((-(repeats * mask).sum(-1) / mask.sum(-1)).sum().exp())
        assert factor > 1
        assert loss == pytest.approx(factor * own, rel=TOLERANCE)
        assert_equal((factor * own, {name: factor * g for name, g in slopes.items()}), (loss, gradient))
