"""Losses of EXO, NCA, BCO, SPPO, AlphaPO and SimPO against TRL's, and what its KTO trainer mismatches.

Both start from the same weights, away from the reference, and see the same token ids.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from xpo_bench import Algorithm, Completion, Pair, Single, Stage
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.train.batching import mismatch
from xpo_bench_plugins.algorithms.alphapo import AlphaPO
from xpo_bench_plugins.algorithms.bco import BCO
from xpo_bench_plugins.algorithms.exo import EXO
from xpo_bench_plugins.algorithms.nca import NCA
from xpo_bench_plugins.algorithms.simpo import SimPO
from xpo_bench_plugins.algorithms.sppo import SPPO


def sibling(name: str) -> ModuleType:
    """A test module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


peer: Any = sibling("test_trl")
PAIRS: tuple[Pair, ...] = peer.PAIRS
policy = peer.policy

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # between TRL and transformers
HALVES = tuple(
    Single(pair.prompt, text, desirable=good, values={"win": float(good)})
    for pair in PAIRS
    for text, good in ((pair.chosen, True), (pair.rejected, False))
)


class Hard(SPPO):
    """SPPO on labels that are certain, on the rows that it is given."""

    def stages(self) -> Sequence[Stage]:
        return (Stage(),)

    def shape_data(self, examples: Sequence[Any], tools: Any) -> Sequence[Any]:
        return examples


def doubled(found: tuple[float, Mapping[str, Tensor]]) -> tuple[float, dict[str, Tensor]]:
    """Of a mean over halves of pairs, that over pairs."""
    return 2 * found[0], {name: 2 * gradient for name, gradient in found[1].items()}


@pytest.mark.parametrize(
    ("algorithm", "config"),
    [
        (
            EXO(beta=0.5, label_smoothing=0.05),
            {"loss_type": ["exo_pair"], "beta": 0.5, "label_smoothing": 0.05},
        ),
        (NCA(beta=0.5), {"loss_type": ["nca_pair"], "beta": 0.5}),
    ],
    ids=["exo", "nca"],
)
def test_equal_on_pairs(
    policy: CausalLM,
    algorithm: Algorithm,
    config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss, gradient, _ = peer.theirs(policy, "DPO", PAIRS, tmp_path, **config)
    peer.assert_equal(peer.ours(policy, algorithm, PAIRS, monkeypatch), (loss, gradient))


def test_bco_before_its_first_shift_is_bco_pair(
    policy: CausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's loss of pairs has no shift: it is BCO at δ = 0, where training begins, at every step."""
    loss, gradient, _ = peer.theirs(policy, "DPO", PAIRS, tmp_path, loss_type=["bco_pair"], beta=0.5)
    peer.assert_equal(peer.ours(policy, BCO(beta=0.5), HALVES, monkeypatch), (loss, gradient))

    class Shifted(BCO):
        def state(self) -> Mapping[str, float | Tensor]:
            return {"desirable": 1.0, "undesirable": 0.6}

    assert abs(peer.ours(policy, Shifted(beta=0.5), HALVES, monkeypatch)[0] - loss) > 0.01


def test_sppo_on_certain_labels_is_sppo_hard(
    policy: CausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's β is 1/η, and a winner's probability 1; the loss adds up the halves of a pair."""
    loss, gradient, _ = peer.theirs(policy, "DPO", PAIRS, tmp_path, loss_type=["sppo_hard"], beta=0.25)
    peer.assert_equal(doubled(peer.ours(policy, Hard(eta=4.0), HALVES, monkeypatch)), (loss, gradient))


# --------------------------------------------------------------------------- TRL's CPO trainer


def cpo_loss(policy: CausalLM, **config: Any) -> float:
    """Mean of `CPOTrainer.cpo_loss` on per-token averages of the policy, without its likelihood."""
    from types import SimpleNamespace

    from trl.experimental.cpo import CPOTrainer

    logps = []
    for side in ("chosen", "rejected"):
        rows = [Completion(pair.prompt, getattr(pair, side)) for pair in PAIRS]
        logps.append(policy.score_all(policy.stack([policy.encode(rows)])).mean[0])
    settings = {"loss_type": "simpo", "alpha": 0.0, "label_smoothing": 0.0, **config}
    accelerator = SimpleNamespace(device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(accelerator=accelerator, **settings)
    return float(CPOTrainer.cpo_loss(trainer, *logps)[0].mean())


def test_alphapo_is_equal_and_the_margin_is_that_of_simpo(
    policy: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    for alpha in (0.25, -0.5, 0.0):
        mine, _ = peer.ours(policy, AlphaPO(beta=2.0, gamma=0.8, alpha=alpha), PAIRS, monkeypatch)
        assert mine == pytest.approx(cpo_loss(policy, beta=2.0, simpo_gamma=0.8, alpha=alpha), abs=1e-5)


def test_simpo_of_the_cpo_trainer_takes_label_smoothing(
    policy: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SimPO has none: at 0 they agree, and the flipped half is pushed below −γ, not away from it."""
    mine, _ = peer.ours(policy, SimPO(beta=2.0, gamma=0.8), PAIRS, monkeypatch)
    assert cpo_loss(policy, beta=2.0, simpo_gamma=0.8) == pytest.approx(mine, abs=1e-5)
    smoothed = cpo_loss(policy, beta=2.0, simpo_gamma=0.8, label_smoothing=0.2)
    assert abs(smoothed - mine) > 1e-2
    swapped = tuple(Pair(pair.prompt, pair.rejected, pair.chosen) for pair in PAIRS)
    flipped, _ = peer.ours(policy, SimPO(beta=2.0, gamma=0.8), swapped, monkeypatch)
    # a flipped label would move the margin to the other side; TRL's term keeps it where it was
    assert abs(smoothed - (0.8 * mine + 0.2 * flipped)) > 1e-2
    against = replace(SimPO(beta=2.0), gamma=-0.8)
    other, _ = peer.ours(policy, against, swapped, monkeypatch)
    assert smoothed == pytest.approx(0.8 * mine + 0.2 * other, abs=1e-5)


# --------------------------------------------------------------------------- TRL's KTO trainer


def test_kto_of_trl_mixes_no_batches_and_a_lone_last_row_is_its_own_mismatch(
    policy: CausalLM, tmp_path: Path
) -> None:
    """Completions rotate once within chunks of the rows as they stand, and batches are these chunks."""
    import trl
    from datasets import Dataset as HubDataset

    rows = [Single(f"{p}", f"5 {p + 1} 23", desirable=bool(p % 2)) for p in (3, 5, 8, 12, 15)]
    settings = {"per_device_train_batch_size": 2, "report_to": "none", "use_cpu": True, "bf16": False}

    def trainer_of(**more: Any) -> Any:
        return trl.KTOTrainer(
            model=copy.deepcopy(policy.model),
            ref_model=CausalLM.load(peer.SPEC, init_seed=0).model,
            args=trl.KTOConfig(output_dir=str(tmp_path), disable_tqdm=True, **settings, **more),
            train_dataset=HubDataset.from_list([peer.columns(row) for row in rows]),
            processing_class=peer.words_tokenizer(),
        )

    with pytest.raises(ValueError, match="sequential"):
        trainer_of(train_sampling_strategy="random")
    trainer = trainer_of()
    own = [row["completion_ids"] for row in trainer.train_dataset]
    mismatched = [row["KL_completion_ids"] for row in trainer.train_dataset]
    assert mismatched[:4] == [own[1], own[0], own[3], own[2]]
    assert mismatched[4] == own[4]  # z0 then holds the row's own log-ratio
    # ours: every row meets another one, the odd one out, too
    given = [Completion(row.prompt, row.completion) for row in rows]
    found, index = mismatch(np.arange(len(given))[None], given)
    assert all(found[i].prompt != given[k].prompt for k, i in enumerate(index[0]))
