"""`PreferenceDiagnostics` beside trainers that know nothing of it: what it logs, and that nothing changes."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl_words import hub_rows, quiet_options, random_pairs, saved_model

from xpo_bench import Single, UsageError
from xpo_bench.integrations.diagnostics import Diagnostics
from xpo_bench.integrations.transformers import PreferenceDiagnostics
from xpo_bench.integrations.trl import PreferenceTrainer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # between TRL and transformers

ROWS = random_pairs(24)
LABELLED = tuple(
    Single(pair.prompt, text, good)
    for pair in ROWS
    for text, good in ((pair.chosen, True), (pair.rejected, False))
)
ALWAYS = {"displacement", "collapsed", "kl", "kl_se", "token_entropy"}
KINDS: Mapping[str, tuple[type[Any], type[Any]]] = {
    "DPO": (DPOTrainer, DPOConfig),
    "KTO": (KTOTrainer, KTOConfig),
    "CPO": (CPOTrainer, CPOConfig),
    "ORPO": (ORPOTrainer, ORPOConfig),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def trainer(folder: Path, tmp_path: Path) -> Callable[..., Any]:
    def make(kind: str = "DPO", *, cls: type[Any] | None = None, rows: Any = None, **given: Any) -> Any:
        of_kind, config = KINDS[kind]
        more = given.pop("config", {})
        options = quiet_options(tmp_path / "out", **{"learning_rate": 3e-3, "max_length": 24, **more})
        model: Any = str(folder)
        if kind in ("CPO", "ORPO"):
            from transformers import AutoModelForCausalLM, AutoTokenizer

            model = AutoModelForCausalLM.from_pretrained(folder)
            given.setdefault("processing_class", AutoTokenizer.from_pretrained(folder))
        if rows is None:
            rows = LABELLED if kind == "KTO" else ROWS
        if "adapter" in given:
            from peft import LoraConfig

            given["peft_config"] = LoraConfig(**given.pop("adapter"))
        return (cls or of_kind)(model=model, args=config(**options), train_dataset=hub_rows(rows), **given)

    return make


def small(**changes: Any) -> PreferenceDiagnostics:
    return PreferenceDiagnostics(**{"every": 2, "pairs": 8, "kl_prompts": 4, "max_new_tokens": 6, **changes})


def own_entries(trainer: Any, name: str = "displacement") -> list[dict[str, Any]]:
    return [entry for entry in trainer.state.log_history if name in entry]


LORA = {"r": 4, "lora_alpha": 64, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.3}


# -------------------------------------------------------------------- training is left alone


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("DPO", {}),
        ("DPO", {"config": {"gradient_accumulation_steps": 3, "gradient_checkpointing": True}}),
        ("DPO", {"adapter": LORA, "config": {"disable_dropout": False}}),
        ("DPO", {"config": {"bf16": True}}),
        ("DPO", {"config": {"model_init_kwargs": {"dtype": "bfloat16"}, "learning_rate": 0.03}}),
        ("KTO", {}),
        ("KTO", {"adapter": LORA}),
        ("CPO", {}),
        ("CPO", {"adapter": LORA}),
        ("ORPO", {}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_training_is_the_same_to_the_bit(
    trainer: Callable[..., Any], kind: str, given: dict[str, Any]
) -> None:
    """Weights, log and generators of random numbers; dropout makes every draw count."""
    ends = []
    for callbacks in ([], [small()]):
        made = trainer(kind, callbacks=callbacks, **copy.deepcopy(given))
        modes = {
            name: (m.training, getattr(m, "gradient_checkpointing", None))
            for name, m in made.model.named_modules()
        }
        frozen = {name: p.requires_grad for name, p in made.model.named_parameters()}
        torch.manual_seed(7)
        made.train()
        ends.append(
            (
                {name: p.detach().clone() for name, p in made.model.named_parameters()},
                [e for e in made.state.log_history if "loss" in e],
                (
                    torch.get_rng_state().tolist(),
                    repr(np.random.get_state()),
                    made.model.config.use_cache,
                ),
                {name: p.requires_grad for name, p in made.model.named_parameters()} == frozen,
                len(modes),
            )
        )
    plain, watched = ends
    assert all(torch.equal(p, watched[0][name]) for name, p in plain[0].items())
    assert plain[1:] == watched[1:]
    found = own_entries(made)
    assert [entry["step"] for entry in found] == sorted(
        {0, *range(2, made.state.max_steps, 2), made.state.max_steps}
    )
    for entry in found[1:]:
        assert set(entry) | {"collapsed"} >= ALWAYS
        assert entry["kl"] > 0
        assert entry["token_entropy"] > 0
        assert ("accuracy_lc" in entry) == (kind != "KTO")
    assert found[0]["displacement"] == found[0]["kl"] == 0


def test_a_module_keeps_its_mode(trainer: Callable[..., Any]) -> None:
    made = trainer(callbacks=[small()], config={"gradient_checkpointing": True})
    layer = made.model.model.layers[0]
    seen = []
    callback = made.callback_handler.callbacks[-1]
    callback = next(c for c in made.callback_handler.callbacks if isinstance(c, PreferenceDiagnostics))
    before = callback.on_step_end

    def on_step_end(*args: Any, **kwargs: Any) -> None:
        layer.eval()
        modes = [m.training for m in made.model.modules()]
        flags = (made.model.config.use_cache, made.model.is_gradient_checkpointing)
        before(*args, **kwargs)
        seen.append(modes == [m.training for m in made.model.modules()])
        seen.append(flags == (made.model.config.use_cache, made.model.is_gradient_checkpointing))

    callback.on_step_end = on_step_end  # type: ignore[method-assign]
    made.train()
    assert len(seen) == 12
    assert all(seen)


# -------------------------------------------------------------------- what is logged is right


def plain_logps(model: Any, ids: tuple[int, ...], start: int) -> Tensor:
    """Log-probabilities of the tokens from `start` on, the plain way."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].double()
    taken = logits.log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    found: Tensor = taken[start - 1 :]
    return found


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the last evaluation has drawn."""
    from xpo_bench.integrations.live import LiveModel

    drawn: list[Any] = []
    real = LiveModel.sample

    def sample(self: Any, *args: Any) -> Any:
        drawn[:] = [real(self, *args)]
        return drawn[0]

    monkeypatch.setattr(LiveModel, "sample", sample)
    return drawn


@pytest.mark.parametrize(
    ("kind", "adapter"), [("DPO", False), ("DPO", True), ("CPO", False), ("ORPO", False)]
)
def test_numbers_are_those_of_a_plain_loop(
    trainer: Callable[..., Any], folder: Path, sampled: list[Any], kind: str, adapter: bool
) -> None:
    from transformers import AutoModelForCausalLM

    callback = small(pairs=24)
    made = trainer(kind, callbacks=[callback], **({"adapter": LORA} if adapter else {}))
    made.train()
    last, rows = own_entries(made)[-1], callback.diagnostics.rows  # type: ignore[union-attr]
    model, initial = made.model.eval(), AutoModelForCausalLM.from_pretrained(folder)
    ratios = [
        [
            float((plain_logps(model, r.ids, r.start) - plain_logps(initial, r.ids, r.start)).sum())
            for r in side
        ]
        for side in (rows.chosen, rows.rejected)
    ]
    assert last["displacement"] == pytest.approx(np.mean(ratios[0]), abs=1e-4)
    margin = np.array(ratios[0]) - np.array(ratios[1])
    longer = np.array([r.length > q.length for r, q in zip(rows.chosen, rows.rejected, strict=True)])
    shorter = np.array([r.length < q.length for r, q in zip(rows.chosen, rows.rejected, strict=True)])
    assert last["accuracy_lc"] == pytest.approx(
        (np.mean(margin[longer] > 0) + np.mean(margin[shorter] > 0)) / 2
    )
    kls, entropies = [], []
    for row in sampled[0].encoded.rows:
        with torch.no_grad():
            ids = torch.tensor([row.ids])
            p, q = (
                m(input_ids=ids).logits[0, row.start - 1 : -1].double().log_softmax(-1)
                for m in (model, initial)
            )
        kls.append(float((p.exp() * (p - q)).sum()))
        entropies.append(-(p.exp() * p).sum(-1))
    assert last["kl"] == pytest.approx(np.mean(kls), rel=1e-4)
    assert last["kl_se"] == pytest.approx(np.std(kls, ddof=1) / math.sqrt(len(kls)), rel=1e-4)
    assert last["token_entropy"] == pytest.approx(float(torch.cat(entropies).mean()), rel=1e-5)


def test_weights_in_half_precision(trainer: Callable[..., Any], folder: Path, sampled: list[Any]) -> None:
    """Up to their rounding, the numbers are those of the same weights in double precision."""
    from transformers import AutoModelForCausalLM

    callback = small(pairs=24)
    half = {"model_init_kwargs": {"dtype": "bfloat16"}, "learning_rate": 0.05}
    made = trainer(callbacks=[callback], config=half)
    made.train()
    last = own_entries(made)[-1]
    initial = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).double()
    model, kls = copy.deepcopy(made.model).eval().double(), []
    rows = callback.diagnostics.rows  # type: ignore[union-attr]
    moved = [
        float((plain_logps(model, r.ids, r.start) - plain_logps(initial, r.ids, r.start)).sum())
        for r in rows.chosen
    ]
    assert last["displacement"] == pytest.approx(np.mean(moved), rel=0.05, abs=0.1)
    for row in sampled[0].encoded.rows:
        with torch.no_grad():
            ids = torch.tensor([row.ids])
            p, q = (m(input_ids=ids).logits[0, row.start - 1 : -1].log_softmax(-1) for m in (model, initial))
        kls.append(float((p.exp() * (p - q)).sum()))
    assert last["kl"] == pytest.approx(np.mean(kls), rel=0.1)


@pytest.mark.parametrize("kind", list(KINDS))
def test_rows_are_those_that_are_trained_on(trainer: Callable[..., Any], kind: str) -> None:
    """Ids and scored places of every evaluated row are those of a row that the model is given in training."""
    callback = small(pairs=48)
    made = trainer(
        kind, callbacks=[callback], config={"truncation_mode": "keep_start"} if kind == "DPO" else {}
    )
    seen: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    name = "compute_loss"
    real = getattr(made, name)

    def compute_loss(model: Any, inputs: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        for prefix in ("chosen_", "rejected_") if kind in ("CPO", "ORPO") else ("",):
            ids, there = inputs[f"{prefix}input_ids"], inputs[f"{prefix}attention_mask"]
            own = inputs[f"{prefix}labels"] != -100 if prefix else inputs["completion_mask"]
            for row, mask, scored in zip(ids.tolist(), there.tolist(), own.tolist(), strict=True):
                kept = [i for i, m in enumerate(mask) if m]
                seen.add((tuple(row[i] for i in kept), tuple(i for i in kept if scored[i])))
        return real(model, inputs, *args, **kwargs)

    setattr(made, name, compute_loss)
    made.train()
    rows = callback.diagnostics.rows  # type: ignore[union-attr]
    assert len(rows.chosen) + len(rows.rejected) == 48
    for row in (*rows.chosen, *rows.rejected):
        assert (row.ids, tuple(row.scored)) in seen
    assert rows.paired == (kind != "KTO")


def test_log_ratios_are_trls(trainer: Callable[..., Any]) -> None:
    """On all rows, and a policy that stands still, TRL's mean log-ratios are ours."""
    callback = small(pairs=24)
    made = trainer(callbacks=[callback], config={"per_device_train_batch_size": 24, "num_train_epochs": 3})
    made.train()
    entries = {e["step"]: e for e in made.state.log_history if "loss" in e}
    ours = {e["step"]: e for e in own_entries(made)}
    # TRL logs the log-ratios before a step: those of step 3 are the ones after step 2
    assert ours[2]["displacement"] == pytest.approx(entries[3]["rewards/chosen"] / made.beta, abs=1e-4)


def test_the_suites_own_checkpoint_measure_agrees(trainer: Callable[..., Any], tmp_path: Path) -> None:
    """A saved policy, loaded by the suite and scored on the same rows, has the callback's displacement."""
    from xpo_bench import Completion, ModelSpec
    from xpo_bench.policy.language.causal_lm import CausalLM

    callback = small(pairs=24)
    made = trainer(callbacks=[callback])
    made.train()
    made.save_model(str(tmp_path / "end"))
    spec = ModelSpec(name=str(tmp_path / "end"), tokenizer="ids")
    policy = CausalLM.load(spec, init_seed=0)
    rows = callback.diagnostics.rows  # type: ignore[union-attr]
    items = [
        Completion(" ".join(map(str, r.ids[: r.start])), " ".join(map(str, r.ids[r.start :])))
        for r in rows.chosen
    ]
    logps = policy.score_all(policy.encode(items)).sum[0].double().numpy()
    initial = callback.diagnostics.initial[0][0]  # type: ignore[union-attr]
    assert own_entries(made)[-1]["displacement"] == pytest.approx(float((logps - initial).mean()), abs=1e-4)


def test_collapse_is_seen(trainer: Callable[..., Any]) -> None:
    """DPO on pairs that nothing contradicts drives the rejected completions down without an end."""
    callback = small(every=20, pairs=4, max_new_tokens=2)
    rows = ROWS[:4]
    config = {"beta": 0.05, "num_train_epochs": 60, "learning_rate": 0.02, "logging_steps": 1000}
    made = trainer(callbacks=[callback], rows=rows, config=config)
    made.train()
    found = own_entries(made)
    assert "rejected_drift" not in found[1]  # one evaluation is no trend
    assert "collapsed" not in found[1]  # below the threshold already, and it may come to rest there
    assert found[-1]["rejected_drift"] < -0.2
    assert found[-1]["collapsed"] == 1


# -------------------------------------------------------------------- the reference


def test_a_given_reference_takes_its_place(trainer: Callable[..., Any], folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    other = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    made = trainer(callbacks=[small(reference=other)])
    made.train()
    first = own_entries(made)[0]
    assert first["kl"] > 0
    assert first["displacement"] != 0


def test_the_trainers_reference_is_used_where_it_is_the_initial_policy(trainer: Callable[..., Any]) -> None:
    callback = small()
    made = trainer(callbacks=[callback])
    made.train()
    assert callback.diagnostics is not None
    assert not isinstance(callback.diagnostics.reference, dict)  # no copy of the weights
    callback = small()
    trainer("ORPO", callbacks=[callback]).train()
    assert callback.diagnostics is not None
    assert isinstance(callback.diagnostics.reference, dict)


@pytest.mark.parametrize("given", [{}, {"adapter": LORA}], ids=["full", "adapter"])
def test_a_resumed_run_has_the_reference_that_it_began_with(
    trainer: Callable[..., Any], given: dict[str, Any]
) -> None:
    config = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6}
    whole = trainer(callbacks=[small()], config=config, **copy.deepcopy(given))
    whole.train()
    resumed = trainer(callbacks=[small()], config=config, **copy.deepcopy(given))
    resumed.train(resume_from_checkpoint=f"{resumed.args.output_dir}/checkpoint-4")
    ours, theirs = ({e["step"]: e for e in own_entries(made) if e["step"] >= 4} for made in (resumed, whole))
    for step in (4, 6):
        for name in ("kl", "displacement", "token_entropy"):
            assert ours[step][name] == pytest.approx(theirs[step][name], rel=1e-4, abs=1e-5)


def test_a_resumed_run_without_a_reference_is_refused(trainer: Callable[..., Any]) -> None:
    config = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    trainer("ORPO", config=config).train()
    made = trainer("ORPO", config=config, callbacks=[small()])
    with pytest.raises(UsageError, match="give it as reference="):
        made.train(resume_from_checkpoint=f"{made.args.output_dir}/checkpoint-2")


# -------------------------------------------------------------------- stopping


def test_training_stops_at_a_budget_of_kl(
    trainer: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    config = {"num_train_epochs": 20, "learning_rate": 0.02}
    made = trainer(callbacks=[small(max_kl=0.5)], config=config)
    with caplog.at_level(logging.WARNING):
        made.train()
    last = own_entries(made)[-1]
    assert made.state.global_step < made.state.max_steps
    assert last["step"] == made.state.global_step
    assert last["kl"] - 2 * last["kl_se"] > 0.5
    assert all(e["kl"] - 2 * e["kl_se"] <= 0.5 for e in own_entries(made)[:-1])
    assert "above max_kl=0.5" in caplog.text


# -------------------------------------------------------------------- its place among callbacks and trackers


def test_trackers_get_it_and_trls_own_log_is_whole(
    trainer: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    config = {"report_to": "tensorboard", "logging_steps": 3}
    made = trainer(callbacks=[small()], config=config)
    made.train()
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert [e.step for e in events.Scalars("train/kl")] == [0, 2, 4, 6]
    assert [e.step for e in events.Scalars("train/rewards/chosen")] == [3, 6]
    # its own entries hold nothing of TRL's averages
    assert all(not any(n.startswith("rewards/") for n in e) for e in own_entries(made))


def test_it_can_be_added_to_a_trainer_that_exists(trainer: Callable[..., Any]) -> None:
    made = trainer()
    made.add_callback(small(prefix="policy/"))
    made.train()
    assert [e["step"] for e in own_entries(made, "policy/kl")] == [0, 2, 4, 6]
    assert not own_entries(made, "kl")


def test_of_a_kl_of_the_trainers_own_is_warned(
    trainer: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        trainer("KTO", callbacks=[small(prefix="policy/")], config={"max_steps": 1}).train()
        assert "of its own" not in caplog.text
        trainer("KTO", callbacks=[small()], config={"max_steps": 1}).train()
    assert "of its own" in caplog.text


def test_beside_preference_trainer(trainer: Callable[..., Any]) -> None:
    made = trainer(cls=PreferenceTrainer, algorithm="ipo", beta=0.2, callbacks=[small()])
    made.train()
    assert [e["step"] for e in own_entries(made)] == [0, 2, 4, 6]
    without = trainer(cls=PreferenceTrainer, algorithm="simpo", callbacks=[small()])
    without.train()
    assert own_entries(without)[-1]["kl"] > 0


def test_streams_are_read_from_their_beginning(trainer: Callable[..., Any]) -> None:
    made = trainer(config={"max_steps": 2})
    options = {"model": made.model.config._name_or_path, "args": made.args}
    stream = hub_rows(ROWS).to_iterable_dataset()
    other = DPOTrainer(train_dataset=stream, callbacks=[small()], **options)
    other.train()
    assert len(own_entries(other)) == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"every": 0}, "every is 0"),
        ({"pairs": 1.5}, r"pairs is 1\.5"),
        ({"kl_samples": True}, "kl_samples is True"),
        ({"max_kl": -1.0}, r"max_kl is -1\.0"),
        ({"reference": "path/to/model"}, "reference is 'path/to/model', want a model"),
    ],
)
def test_arguments_are_checked(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        PreferenceDiagnostics(**given)


def test_what_cannot_be_evaluated_is_refused(trainer: Callable[..., Any]) -> None:
    made = trainer(callbacks=[small(max_new_tokens=32)])
    with pytest.raises(UsageError, match="leaves room for 32 tokens in the context of 32"):
        made.train()
    callback = small()
    with pytest.raises(UsageError, match=r"called by no transformers\.Trainer"):
        callback.on_train_begin(made.args, made.state, made.control)


def test_a_policy_that_diverged_is_not_measured(
    trainer: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    made = trainer(callbacks=[small()], config={"learning_rate": 1e30})
    with caplog.at_level(logging.WARNING):
        made.train()
    assert "not finite" in caplog.text
    assert all(math.isfinite(v) for e in own_entries(made) for v in e.values())


def test_an_evaluation_costs_little(trainer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is the callback's own: what it says of its share is what evaluations took."""
    calls: list[int] = []
    real = Diagnostics.measure

    def measure(self: Diagnostics, step: int) -> dict[str, float]:
        calls.append(step)
        return real(self, step)

    monkeypatch.setattr(Diagnostics, "measure", measure)
    callback = small()
    trainer(callbacks=[callback]).train()
    assert calls == [0, 2, 4, 6]
    assert 0 < callback.share < 1
    assert callback.seconds > 0
