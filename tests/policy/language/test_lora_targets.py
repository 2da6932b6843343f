"""One rule for all architectures: adapters are on the linear layers that every token of a text passes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from checkout import benchmark

from xpo_bench import register_task
from xpo_bench.api import run
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.errors import UsageError
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.lora import add_adapters
from xpo_bench.policy.language.lora_targets import adapted, known_targets, passed_by_all, reach, shares
from xpo_bench.policy.language.probes.joining import ON_EXPERTS, joins_adapters
from xpo_bench.policy.language.tokenizers import IdTokenizer
from xpo_bench.runner.doctor import examine
from xpo_bench.runner.executors import model_cache

MOE = ("qwen2_moe", "gpt_oss", "granitemoe", "llama4_text", "mixtral", "olmoe", "qwen3_moe", "deepseek_v3")
OTHERS = ("deepseek_v2", "dbrx", "jetmoe", "phimoe", "hunyuan_v1_moe", "qwen3_next", "gemma3")
DENSE = ("llama", "gpt2", "falcon", "gemma3_text", "phi3")
EXPERTS = 4
"""Of the small models."""
IDS = torch.arange(4, 28).reshape(2, 12)


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(level)


@cache
def built(family: str) -> Any:
    return benchmark("tiny_architectures").build(family)


def model(family: str) -> Any:
    """A small random model for one use."""
    return copy.deepcopy(built(family))


def layers_of(found: Any) -> set[str]:
    from peft.tuners.lora import LoraLayer

    return {name for name, module in found.named_modules() if isinstance(module, LoraLayer)}


def seen_by_every_token(found: Any) -> set[str]:
    """Linear layers that a forward pass of a text sends all tokens through, without what weighs experts."""
    from transformers.pytorch_utils import Conv1D

    tokens: dict[str, int] = {}

    def count(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            tokens[name] = tokens.get(name, 0) + inputs[0].numel() // inputs[0].shape[-1]

        return hook

    head = found.get_output_embeddings()
    linear = {
        name: module
        for name, module in found.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }
    hooks = [module.register_forward_hook(count(name)) for name, module in linear.items()]
    with torch.no_grad():
        found(IDS)
    for hook in hooks:
        hook.remove()
    wide = {
        n for n, m in linear.items() if m.weight.shape[0 if isinstance(m, torch.nn.Linear) else 1] > EXPERTS
    }
    return {name for name, count in tokens.items() if count == IDS.numel() and name in wide}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", [*MOE, *OTHERS, *DENSE])
def test_the_rule_is_the_same_for_all_families(family: str) -> None:
    found = model(family)
    expected = seen_by_every_token(found)
    add_adapters(found, 2, 4, seed=0)
    assert layers_of(found) == expected
    assert all(".lora_" in name for name, p in found.named_parameters() if p.requires_grad)
    with torch.no_grad():
        assert torch.equal(found(IDS).logits, model(family)(IDS).logits)
    found(IDS).logits.logsumexp(-1).sum().backward()
    up = {name: p.grad for name, p in found.named_parameters() if ".lora_B." in name}
    assert len(up) == len(expected)
    assert all(grad is not None and bool(grad.abs().sum() > 0) for grad in up.values())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", DENSE)
def test_dense_models_have_the_numbers_of_all_linear(family: str) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    ours, theirs = model(family), model(family)
    add_adapters(ours, 3, 6, seed=5)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        config = LoraConfig(r=3, lora_alpha=6, target_modules="all-linear", lora_dropout=0.0)
        inject_adapter_in_model(config, theirs)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert a.requires_grad == b.requires_grad, name


def test_the_record_names_the_modules_and_their_share() -> None:
    found = model("mixtral")
    size = sum(p.numel() for p in found.parameters())
    attention = sum(p.numel() for name, p in found.named_parameters() if ".self_attn." in name)
    parts = shares(found)
    add_adapters(found, 2, 4, seed=0)
    assert reach(found) == {
        "lora_modules": ["k_proj", "o_proj", "q_proj", "v_proj"],
        "lora_share": round(attention / size, 4),
    }
    assert parts["adapted"] == pytest.approx(attention / size)
    assert parts["experts"] > 0.6
    assert sum(parts.values()) == pytest.approx(1.0)


def test_tied_weights_are_counted_once_and_the_head_is_frozen() -> None:
    found = model("gpt2")
    assert found.lm_head.weight is found.transformer.wte.weight
    parts = shares(found)
    add_adapters(found, 2, 4, seed=0)
    size = sum(p.numel() for name, p in found.named_parameters() if ".lora_" not in name)
    wanted = sum(m.get_base_layer().weight.numel() for n, m in found.named_modules() if n in layers_of(found))
    assert reach(found) == {
        "lora_modules": ["c_attn", "c_fc", "c_proj"],
        "lora_share": round(wanted / size, 4),
    }
    assert parts["adapted"] == pytest.approx(wanted / size)
    assert not found.lm_head.weight.requires_grad


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", MOE)
def test_experts_have_adapters_where_they_are_named(family: str) -> None:
    found = model(family)
    fused = [name for name in known_targets(found) if name.startswith("experts.")]
    assert fused == ["experts.down_proj", "experts.gate_up_proj"]
    add_adapters(found, 2, 4, seed=0, targets=("o_proj", *fused))
    assert reach(found)["lora_modules"] == [*fused, "o_proj"]
    with torch.no_grad():
        assert torch.equal(found(IDS).logits, model(family)(IDS).logits)
    found(IDS).logits.logsumexp(-1).sum().backward()
    trained = {name: p for name, p in found.named_parameters() if p.requires_grad}
    assert all(".lora_" in name for name in trained)
    assert all(bool(p.grad.abs().sum() > 0) for name, p in trained.items() if ".lora_B." in name)


@pytest.mark.parametrize(
    ("family", "targets", "wanted"),
    [
        ("llama", ("q_proj",), {"q_proj"}),
        ("llama", ("self_attn.q_proj", "mlp.down_proj"), {"q_proj", "down_proj"}),
        ("qwen2_moe", ("down_proj",), {"down_proj"}),  # of the shared expert, not of the routed ones
        ("qwen2_moe", ("experts.down_proj",), {"experts.down_proj"}),
        ("gpt2", ("c_attn",), {"c_attn"}),
    ],
)
def test_targets_are_ends_of_names(family: str, targets: tuple[str, ...], wanted: set[str]) -> None:
    found = model(family)
    add_adapters(found, 2, 4, seed=0, targets=targets)
    assert set(adapted(found)) == wanted


def test_one_layer_by_its_whole_name() -> None:
    found = model("llama")
    add_adapters(found, 2, 4, seed=0, targets=("layers.1.self_attn.q_proj",))
    assert layers_of(found) == {"model.layers.1.self_attn.q_proj"}


@pytest.mark.parametrize(
    ("family", "target", "said"),
    [
        (
            "llama",
            "q_prj",
            "unknown layer 'q_prj'; did you mean 'q_proj'? (known: down_proj, gate_proj",
        ),
        ("llama", "lm_head", "unknown layer 'lm_head'"),
        ("llama", "embed_tokens", "unknown layer 'embed_tokens'"),
        ("llama", "proj", "unknown layer 'proj'"),
        (
            "mixtral",
            "down_proj",
            "known: experts.down_proj, experts.gate_up_proj, k_proj, o_proj, q_proj",
        ),
        ("mixtral", "gate", "unknown layer 'gate'"),
        ("llama4_text", "router", "unknown layer 'router'"),
    ],
)
def test_unknown_targets_are_refused_with_the_names_that_exist(family: str, target: str, said: str) -> None:
    found = model(family)
    before = [name for name, _ in found.named_modules()]
    with pytest.raises(UsageError) as raised:
        add_adapters(found, 2, 4, seed=0, targets=("o_proj", target))
    assert str(raised.value).startswith("--lora targets: ")
    assert said in str(raised.value)
    assert [name for name, _ in found.named_modules()] == before


def test_what_peft_refuses_is_one_line_with_a_way_out() -> None:
    with pytest.raises(UsageError) as raised:
        add_adapters(model("mamba"), 2, 4, seed=0)
    assert "incompatible with Mamba-based models" in str(raised.value)
    assert str(raised.value).endswith("; --lora r=R,targets=dt_proj+in_proj+x_proj names layers")
    found = model("mamba")
    add_adapters(found, 2, 4, seed=0, targets=("in_proj", "x_proj"))
    assert set(adapted(found)) == {"in_proj", "x_proj"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe"])
def test_mixtures_of_experts_train_many_adapters_in_one_pass(family: str) -> None:
    """The engine takes the rule's layers; adapters on experts it refuses by name."""
    for targets, reason in (((), None), (("experts.down_proj", "q_proj"), ON_EXPERTS)):
        spec = ModelSpec(name=family, tokenizer="ids", lora_rank=2, lora_alpha=4, lora_targets=targets)
        found = model(family)
        add_adapters(found, 2, 4, seed=0, targets=targets)
        policy = CausalLM(found, IdTokenizer(benchmark("tiny_architectures").VOCABULARY), spec)
        assert joins_adapters(policy) == reason
        told = policy.describe()
        rule = ("k_proj", "o_proj", "q_proj", "v_proj", *SHARED[family])
        assert told["lora_modules"] == sorted(targets or rule)
        assert told.get("lora_targets") == (list(targets) or None)


SHARED = {"mixtral": (), "qwen2_moe": ("down_proj", "gate_proj", "up_proj")}


def test_towers_have_none() -> None:
    assert all("vision" not in name for name in passed_by_all(model("gemma3")))


def test_the_doctor_says_what_is_reached() -> None:
    *_, about, adapters = examine("tiny")
    assert about["detail"].startswith("LlamaForCausalLM, ")
    assert adapters["what"] == "--lora"
    every = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    assert adapters["detail"].startswith(f"{every}: 71.0% of the weights; without: embeddings and head 28.7%")
    with pytest.raises(UsageError, match="want a language model"):
        examine("tabular")


def test_an_ensemble_of_adapters_on_experts_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(model_cache, "joins_adapters", lambda policy: ON_EXPERTS)
    register_task("two", [{"prompt": "p", "chosen": "a", "rejected": "b"}] * 2)
    words: dict[str, Any] = {"steps": 2, "seeds": 1, "lora": "r=2", "set": {"task.ensemble": 2}}
    with pytest.raises(UsageError, match="adapters on experts train one run at a time; leave out"):
        run(["dpo", "ipo"], "two", model="tiny", out=tmp_path, device="cpu", **words)
