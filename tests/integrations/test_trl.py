"""Training with the loss of a plugin: against TRL's own losses, against the suite's own trainer, and what is
refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from trl import DPOConfig, DPOTrainer
from trl_words import PAIRS, SPEC, hub_rows, quiet_options, random_pairs, saved_model

from xpo_bench import (
    Algorithm,
    Budget,
    Completion,
    Dataset,
    Example,
    Group,
    Pair,
    Single,
    Stage,
    Step,
    Tools,
    UsageError,
    logsigmoid,
)
from xpo_bench.integrations.trl import PreferenceTrainer
from xpo_bench.plugins import load
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.train.job import Job
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench.train.update import Update
from xpo_bench_plugins.algorithms.bco import BCO
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.ipo import IPO
from xpo_bench_plugins.algorithms.kto import KTO
from xpo_bench_plugins.algorithms.robust import RobustDPO
from xpo_bench_plugins.algorithms.sdpo import SDPO
from xpo_bench_plugins.algorithms.simpo import SimPO
from xpo_bench_plugins.algorithms.tpo import TPO

TOLERANCE = 1e-5
LR = 3e-3
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # between TRL and transformers


ROWS = random_pairs(24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def trainer(folder: Path, tmp_path: Path) -> Callable[..., Any]:
    """A trainer on the tiny model; `moved` starts the policy away from its reference."""

    def make(
        cls: type[Any] = PreferenceTrainer,
        rows: Sequence[Pair] = ROWS,
        config: Mapping[str, Any] | None = None,
        moved: bool = False,
        **given: Any,
    ) -> Any:
        options = quiet_options(tmp_path / "out", learning_rate=LR, **(config or {}))
        model: Any = str(folder)
        if moved:
            policy = CausalLM.load(SPEC, init_seed=0)
            generator = torch.Generator().manual_seed(1)
            with torch.no_grad():
                for parameter in policy.parameters():
                    parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
            model = policy.model
            model.config._name_or_path = str(folder)  # where TRL finds the reference
        given.setdefault("model", model)
        return cls(args=DPOConfig(**options), train_dataset=hub_rows(rows), **given)

    return make


def losses(trainer: Any) -> list[float]:
    """The loss of every step of a run."""
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def first_step(trainer: Any) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradient of the first batch."""
    batches, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, torch.device("cpu"))
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batches[0])
    loss.backward()
    gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    return float(loss.detach()), gradients


# -------------------------------------------------------------------- against TRL

SAME = [
    (DPO(beta=0.5), {"loss_type": ["sigmoid"], "beta": 0.5}),
    (IPO(tau=0.3), {"loss_type": ["ipo"], "beta": 0.3}),
    (
        RobustDPO(beta=0.5, label_smoothing=0.2),
        {"loss_type": ["robust"], "beta": 0.5, "label_smoothing": 0.2},
    ),
]


@pytest.mark.parametrize(("algorithm", "config"), SAME, ids=lambda value: getattr(value, "name", ""))
def test_loss_and_gradient_are_trls(
    trainer: Callable[..., Any], algorithm: Algorithm, config: dict[str, Any]
) -> None:
    loss, gradient = first_step(trainer(DPOTrainer, PAIRS, config, moved=True))
    own, own_gradient = first_step(trainer(rows=PAIRS, moved=True, algorithm=algorithm))
    assert own == pytest.approx(loss, abs=TOLERANCE, rel=TOLERANCE)
    assert set(own_gradient) == set(gradient)
    assert max(float(g.abs().max()) for g in gradient.values()) > 1e-3
    for name, values in gradient.items():
        torch.testing.assert_close(own_gradient[name], values, rtol=TOLERANCE, atol=TOLERANCE, msg=name)


def test_ipo_of_summed_log_ratios_is_the_papers(trainer: Callable[..., Any]) -> None:
    """TRL divides by lengths; without, the loss is that of the difference which TRL's own passes give."""
    made = trainer(rows=PAIRS, moved=True, algorithm=IPO(tau=0.3, normalize="none"))
    loss, _ = first_step(made)
    chosen, rejected = (made._metrics["train"][f"rewards/{side}"][0] / 0.3 for side in ("chosen", "rejected"))
    made = [
        first_step(trainer(rows=[pair], moved=True, algorithm=IPO(tau=0.3, normalize="none")))[0]
        for pair in PAIRS
    ]
    assert loss == pytest.approx(sum(made) / len(made), rel=TOLERANCE)
    # the mean difference is known from TRL's log; a mean of squares is no less than the square of the mean
    assert loss > (chosen - rejected - 1 / 0.6) ** 2


@pytest.mark.parametrize(("algorithm", "config"), SAME, ids=lambda value: getattr(value, "name", ""))
@pytest.mark.parametrize("accumulate", [1, 2])
def test_runs_are_trls(
    trainer: Callable[..., Any], algorithm: Algorithm, config: dict[str, Any], accumulate: int
) -> None:
    more = {"gradient_accumulation_steps": accumulate, "num_train_epochs": 2}
    theirs, ours = trainer(DPOTrainer, config={**config, **more}), trainer(algorithm=algorithm, config=more)
    assert losses(ours) == pytest.approx(losses(theirs), rel=TOLERANCE, abs=TOLERANCE)
    shared = {"rewards/chosen", "rewards/margins", "entropy", "logps/rejected", "num_tokens", "grad_norm"}
    for mine, other in zip(ours.state.log_history[:-1], theirs.state.log_history[:-1], strict=True):
        assert set(mine) == set(other)
        for name in shared:
            assert mine[name] == pytest.approx(other[name], rel=1e-4, abs=1e-4), name


def test_beta_is_the_word_for_ipos_tau(trainer: Callable[..., Any]) -> None:
    made = trainer(algorithm="ipo", beta=0.25)
    assert made.algorithm == IPO(tau=0.25)
    assert made.beta == 0.25
    with pytest.raises(UsageError, match="both are given"):
        trainer(algorithm="ipo", beta=0.25, tau=0.25)


# -------------------------------------------------------------------- against the suite's own trainer


def own_run(
    algorithm: Algorithm, rows: Sequence[Pair], steps: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[float], list[Pair]]:
    """The suite's losses by step, and the rows of its batches in their order."""
    seen: list[float] = []
    real = Update.step

    def step(self: Update, *args: Any) -> Any:
        out = real(self, *args)
        seen.append(float(out[0][0]))
        return out

    monkeypatch.setattr(Update, "step", step)
    few: dict[str, Any] = {"eval_pairs": 1, "kl_prompts": 1, "kl_samples": 1, "max_new_tokens": 1}
    budget = Budget(steps=steps, batch_size=4, dtype="float32", **few)
    policy = CausalLM.load(SPEC, init_seed=0)
    job = Job(algorithm, "test", 0, LR, "adamw", Dataset(train=tuple(rows)), budget)
    made = GroupTrainer(policy, [job], ReferenceScorer(policy, policy.snapshot(), {}))
    made.plain_loop = None
    made.run()
    block = made.preparation.blocks[0]
    schedule, shaped = block.bound.schedule, block.shaped[0]
    assert schedule is not None
    taken: list[Any] = [shaped[i] for t in range(steps) for i in schedule.at(t)[0].tolist()]
    if algorithm.accepts is Single:  # a pair stands there as two examples
        halves = zip(taken[::2], taken[1::2], strict=True)
        return seen, [Pair(good.prompt, good.completion, bad.completion) for good, bad in halves]
    return seen, taken


@pytest.mark.parametrize(
    "algorithm",
    [
        DPO(beta=0.5),
        IPO(tau=0.3),
        IPO(tau=0.3, normalize="none"),
        RobustDPO(beta=0.5, label_smoothing=0.2),
        SimPO(),
        KTO(beta=0.5),
        BCO(beta=0.5),
        TPO(beta=0.5, gold="chosen"),
    ],
    ids=lambda value: f"{value.name}-{getattr(value, 'normalize', '')}",
)
def test_twenty_steps_are_the_suites(
    trainer: Callable[..., Any], algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, order = own_run(algorithm, ROWS, 20, monkeypatch)
    assert len(expected) == 20
    assert expected[-1] != pytest.approx(expected[0], rel=1e-2)
    assert losses(trainer(rows=order, algorithm=algorithm)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


# -------------------------------------------------------------------- what a step is


@dataclass(frozen=True)
class Divided(Algorithm):
    """A loss that reads the totals of the whole step: each label's mean, as BCO and NPO have it."""

    name: ClassVar[str] = "divided"
    accepts: ClassVar[type] = Single
    groups: ClassVar[Mapping[str, Group]] = {"completion": Group(reference=True)}

    def loss(self, step: Step) -> Tensor:
        label = step.columns["desirable"] > 0.5
        logit = step.log_ratio("completion")
        share = step.totals["examples"] / step.totals["desirable"]
        assert float(step.totals["examples"]) == 2 * float(step.totals["desirable"])
        return torch.where(label, -logsigmoid(logit), -logsigmoid(-logit)) * share


@pytest.mark.parametrize("algorithm", [DPO(beta=0.5), BCO(beta=0.5), Divided()], ids=lambda value: value.name)
def test_a_step_is_one_step_however_it_is_cut(trainer: Callable[..., Any], algorithm: Algorithm) -> None:
    """Also where the last micro-batch is smaller: 10 rows are 4 + 4 + 2, and one batch of 10."""
    whole = trainer(
        rows=ROWS[:10], algorithm=algorithm, config={"per_device_train_batch_size": 10, "num_train_epochs": 4}
    )
    cut = trainer(
        rows=ROWS[:10], algorithm=algorithm, config={"gradient_accumulation_steps": 3, "num_train_epochs": 4}
    )
    assert losses(cut) == pytest.approx(losses(whole), rel=1e-5)
    for mine, other in zip(cut.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    if algorithm.name == "bco":
        ours, theirs = cut.progress.state_now, whole.progress.state_now
        assert float(ours["desirable"]) == pytest.approx(float(theirs["desirable"]), rel=1e-4)
        assert float(ours["desirable"]) != 0


def test_evaluation_has_the_loss_of_its_own_batches(trainer: Callable[..., Any]) -> None:
    made = trainer(algorithm=BCO(beta=0.5), eval_dataset=hub_rows(PAIRS))
    made.train()
    state = dict(made.progress.state_now)
    first = made.evaluate()
    assert made.evaluate()["eval_loss"] == first["eval_loss"]
    assert {name: float(v) for name, v in made.progress.state_now.items()} == {
        name: float(v) for name, v in state.items()
    }
    assert math.isfinite(first["eval_loss"])


def test_without_a_reference_none_is_loaded_or_logged(trainer: Callable[..., Any]) -> None:
    made = trainer(algorithm="simpo", eval_dataset=hub_rows(PAIRS))
    assert made.ref_model is None
    made.train()
    assert not any(name.startswith("rewards/") for entry in made.state.log_history for name in entry)
    assert "eval_loss" in made.evaluate(hub_rows(ROWS[:3]))
    with pytest.raises(UsageError, match="has no reference"):
        trainer(algorithm="simpo", ref_model=CausalLM.load(SPEC, init_seed=0).model)


def test_the_reference_is_the_initial_policy_or_the_one_given(trainer: Callable[..., Any]) -> None:
    assert first_step(trainer(algorithm="dpo"))[0] == pytest.approx(math.log(2))
    made = trainer(algorithm="dpo", moved=True, ref_model=CausalLM.load(SPEC, init_seed=0).model)
    assert first_step(made)[0] == pytest.approx(first_step(trainer(algorithm="dpo", moved=True))[0])


def test_third_completions_are_scored(trainer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """TPO's gold completion, the best of a prompt by wins, which another row holds."""
    rows = (
        Pair("3 4", "5 6 23", "9 10 11 23"),
        Pair("3 4", "12 13 14 15 23", "5 6 23"),
        Pair("3 4", "12 13 14 15 23", "9 10 11 23"),
        Pair("7", "8 23", "9 9 23"),
    )
    expected, order = own_run(TPO(beta=0.5), rows, 3, monkeypatch)
    assert order == 3 * list(rows)
    repeated = trainer(rows=rows, algorithm=TPO(beta=0.5), config={"num_train_epochs": 3})
    assert losses(repeated) == pytest.approx(expected, rel=1e-4)
    alone = trainer(rows=rows, algorithm=TPO(beta=0.5, gold="chosen"), config={"num_train_epochs": 3})
    assert losses(alone) != pytest.approx(expected, rel=1e-3)


def test_shaped_numbers_go_with_their_rows(trainer: Callable[..., Any]) -> None:
    """SamPO's draws start from a number per row, and its state counts steps."""
    made = trainer(algorithm="sampo", config={"train_sampling_strategy": "random"})
    keys = {tuple(row["chosen_ids"]): row["xpo_column_key"][0] for row in made.train_dataset}
    assert len(set(keys.values())) == len(ROWS)
    seen: list[Step] = []
    saw = made.progress.saw

    def noted(step: Step) -> None:
        seen.append(step)
        saw(step)

    made.progress.saw = noted
    made.train()
    assert float(made.progress.state_now["step"]) == 6
    for step in seen:
        ids = [int(n) for n in step.policy["chosen"].length[0]]
        for key, length in zip(step.columns["key"][0].tolist(), ids, strict=True):
            assert length in {len(chosen) for chosen, number in keys.items() if number == key}


# -------------------------------------------------------------------- algorithms that are given


@dataclass(frozen=True)
class Sharp(Algorithm):
    """A loss that no plugin packages."""

    name: ClassVar[str] = "sharp"
    beta: float = 0.1
    power: float = 2.0

    def loss(self, step: Step) -> Tensor:
        margin = step.log_ratio("chosen") - step.log_ratio("rejected")
        return (1 - self.beta * margin).abs() ** self.power


def test_a_class_or_an_instance_need_not_be_packaged(trainer: Callable[..., Any]) -> None:
    by_class = losses(trainer(algorithm=Sharp, beta=0.5, power=1.5))
    assert by_class == losses(trainer(algorithm=Sharp(beta=0.5, power=1.5)))
    assert by_class[0] == pytest.approx(1.0)
    assert len(set(by_class)) == len(by_class)


def test_hyperparameters_are_checked(trainer: Callable[..., Any]) -> None:
    with pytest.raises(
        UsageError, match=r"unknown setting of dpo 'betta'; did you mean 'beta'\? \(known: beta\)"
    ):
        trainer(algorithm="dpo", betta=0.1)
    with pytest.raises(UsageError, match=r"dpo\.beta = -1"):
        trainer(algorithm="dpo", beta=-1)
    with pytest.raises(UsageError, match="unknown algorithm 'dqo'; did you mean 'dpo'"):
        trainer(algorithm="dqo")
    with pytest.raises(UsageError, match="is an instance and has its hyperparameters: beta"):
        trainer(algorithm=DPO(), beta=0.2)
    with pytest.raises(UsageError, match=r"must return subclasses of xpo_bench\.Algorithm"):
        trainer(algorithm=Pair)
    with pytest.raises(UsageError, match="model= is missing"):
        trainer(algorithm="dpo", model=None)
    assert trainer(algorithm="sdpo", stages=1, data="all").algorithm == SDPO(n_stages=1, data="all")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"beta": 0.3}, r"DPOConfig\.beta=0\.3"),
        ({"loss_type": ["ipo"]}, r"DPOConfig\.loss_type=\['ipo'\]"),
        ({"label_smoothing": 0.1}, r"DPOConfig\.label_smoothing"),
        ({"ld_alpha": 0.5}, r"DPOConfig\.ld_alpha"),
        ({"f_divergence_type": "js_divergence"}, r"DPOConfig\.f_divergence_type"),
        ({"use_weighting": True}, r"DPOConfig\.use_weighting"),
        ({"precompute_ref_log_probs": True}, "precompute_ref_log_probs keeps sums"),
        ({"sync_ref_model": True}, "sync_ref_model moves the reference"),
    ],
)
def test_options_that_choose_another_loss_are_refused(
    trainer: Callable[..., Any], config: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        trainer(algorithm="dpo", config=config)


def test_trls_beta_may_repeat_ours(trainer: Callable[..., Any]) -> None:
    assert trainer(algorithm="dpo", beta=0.3, config={"beta": 0.3}).algorithm == DPO(beta=0.3)


# -------------------------------------------------------------------- what a trainer cannot do

CANNOT = {
    "aux_dpo": "reward",
    "bon": "samples of the policy",
    "grpo": "samples of the policy",
    "ipo_md": "samples of the policy",
    "nash_md": "samples of the policy",
    "online_dpo": "samples of the policy",
    "ppo": "samples of the policy",
    "rlhf": "an enumerable policy",
    "rloo": "samples of the policy",
    "rso": "samples of the policy",
    "sdpo": "one stage",
    "sppo": "samples of the policy",
}


def test_every_builtin_trains_or_is_refused_by_name(trainer: Callable[..., Any]) -> None:
    one = {"max_steps": 1}
    for name in sorted(load().algorithms):
        if name in CANNOT:
            with pytest.raises(UsageError, match=CANNOT[name]) as refused:
                trainer(algorithm=name, config=one)
            assert str(refused.value).startswith(f"{name}: ")
            assert "\n" not in str(refused.value)
        else:
            assert math.isfinite(losses(trainer(rows=PAIRS, algorithm=name, config=one))[0]), name


class _Base(Algorithm):
    name: ClassVar[str] = "base"

    def loss(self, step: Step) -> Tensor:
        return -step.policy[next(iter(step.policy))].sum


@dataclass(frozen=True)
class Solved(_Base):
    name: ClassVar[str] = "solved"

    def stages(self) -> Sequence[Stage]:
        return (Stage(solve=True),)


@dataclass(frozen=True)
class Refreshed(_Base):
    name: ClassVar[str] = "refreshed"

    def stages(self) -> Sequence[Stage]:
        return (Stage(refresh=5),)


@dataclass(frozen=True)
class Distributions(_Base):
    name: ClassVar[str] = "distributions"
    groups: ClassVar[Mapping[str, Group]] = {"chosen": Group(token_kl=True)}


@dataclass(frozen=True)
class Trained(_Base):
    name: ClassVar[str] = "trained"
    groups: ClassVar[Mapping[str, Group]] = {"chosen": Group(), "other": Group(mismatched=True)}


@dataclass(frozen=True)
class Ranked(_Base):
    name: ClassVar[str] = "ranked"

    def shape_data(self, examples: Sequence[Example], tools: Tools) -> Sequence[Example]:
        return examples if tools.logps([Completion("a", "b")])[0] < 0 else ()


@dataclass(frozen=True)
class Halved(_Base):
    name: ClassVar[str] = "halved"

    def shape_data(self, examples: Sequence[Example], tools: Tools) -> Sequence[Example]:
        return examples[: len(examples) // 2]


@dataclass(frozen=True)
class Invented(_Base):
    name: ClassVar[str] = "invented"
    groups: ClassVar[Mapping[str, Group]] = {"chosen": Group(), "third": Group()}

    def completions(self, examples: Sequence[Any]) -> Mapping[str, Sequence[Completion]]:
        return {
            "chosen": [Completion(e.prompt, e.chosen) for e in examples],
            "third": [Completion(e.prompt, "t01 t01") for e in examples],
        }


@pytest.mark.parametrize(
    ("algorithm", "said"),
    [
        (Solved, r"sets the policy by solve\(\)"),
        (Refreshed, "makes its data anew"),
        (Distributions, "declares token_kl"),
        (Trained, "is trained"),
        (Ranked, r"needs tools\.logps"),
        (Halved, "other rows than the 24 examples"),
        (Invented, "that no row of the data set holds"),
    ],
)
def test_what_a_trainer_cannot_do_is_refused_by_name(
    trainer: Callable[..., Any], algorithm: type[Algorithm], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        trainer(algorithm=algorithm)
    assert str(refused.value).startswith(f"{algorithm.name}: ")
    assert "\n" not in str(refused.value)


def test_streams_are_for_losses_that_leave_their_data_alone(trainer: Callable[..., Any]) -> None:
    stream = hub_rows(ROWS).to_iterable_dataset()
    made = trainer(algorithm="dpo", config={"max_steps": 2})
    options = {"args": made.args, "train_dataset": stream, "model": made.model.config._name_or_path}
    assert len(losses(PreferenceTrainer(algorithm="dpo", **options))) == 2
    with pytest.raises(UsageError, match="looks at all rows"):
        PreferenceTrainer(algorithm="sampo", **options)


# -------------------------------------------------------------------- checkpoints and adapters


@pytest.fixture
def resumed(trainer: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    def run(algorithm: Algorithm, other: Algorithm | None = None, **more: Any) -> tuple[Any, Any]:
        config = {"save_strategy": "steps", "save_steps": 4, "max_steps": 8, **more}
        whole = trainer(algorithm=algorithm, config=config)
        whole.train()
        second = trainer(algorithm=other or algorithm, config=config)
        second.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-4")
        return whole, second

    return run


@pytest.mark.parametrize("restore", [False, True])
def test_a_resumed_run_is_the_run(resumed: Callable[..., tuple[Any, Any]], restore: bool) -> None:
    whole, second = resumed(BCO(beta=0.5), restore_callback_states_from_checkpoint=restore)
    ends = [float(made.progress.state_now["desirable"]) for made in (whole, second)]
    assert ends[0] == ends[1] != 0
    for mine, other in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, other)
    logs = [[e["loss"] for e in made.state.log_history if "loss" in e] for made in (whole, second)]
    assert logs[0] == logs[1]


def test_a_checkpoint_of_another_loss_is_refused(resumed: Callable[..., tuple[Any, Any]]) -> None:
    with pytest.raises(UsageError, match=r"was made by bco with .*this trainer has dpo"):
        resumed(BCO(beta=0.5), DPO())


def test_state_begins_anew_with_every_training(trainer: Callable[..., Any]) -> None:
    made = trainer(algorithm="sampo")
    for _ in range(2):
        made.train()
        assert float(made.progress.state_now["step"]) == 6


def test_adapters_have_the_base_as_reference(trainer: Callable[..., Any]) -> None:
    from peft import LoraConfig

    made = trainer(
        algorithm=KTO(beta=0.5),
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_alpha=64),
    )
    assert made.ref_model is None
    base = {n: p.clone() for n, p in made.model.named_parameters() if not p.requires_grad}
    found = losses(made)
    assert found[0] == pytest.approx(0.5)
    assert found[-1] != found[0]
    assert all(torch.equal(p, base[n]) for n, p in made.model.named_parameters() if n in base)
    theirs = trainer(
        DPOTrainer, peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_alpha=64)
    )
    ours = trainer(
        algorithm="dpo", peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_alpha=64)
    )
    assert losses(ours) == pytest.approx(losses(theirs), rel=TOLERANCE)


def test_the_card_names_the_algorithm(trainer: Callable[..., Any]) -> None:
    made = trainer(algorithm="ipo", config={"max_steps": 1, "save_strategy": "steps", "save_steps": 1})
    made.train()
    card = Path(made.args.output_dir, "README.md").read_text()
    assert "ipo" in card
    assert "Direct Preference Optimization" not in card
