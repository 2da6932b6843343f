"""CHES against plain transformers, on models whose head is found and on one that does something around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from small_models import SPEC, build

from xpo_bench.contract.examples import Completion, Pair
from xpo_bench.contract.settings import DataSpec, ModelSpec
from xpo_bench.data.dataset import load_dataset
from xpo_bench.errors import UsageError
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.ches import ches
from xpo_bench.policy.language.tokenizers import IdTokenizer

SHARED = Path(__file__).parents[4] / "shared"
STORIES, DATA = SHARED / "models" / "stories260K", SHARED / "data"


def plain_ches(model: Any, sides: list[tuple[list[int], int]], *, mean: bool) -> list[float]:
    """Definition 2, row by row: `sides` are (ids, where the completion begins), chosen first."""
    sums = []
    model.eval()
    for ids, start in sides:
        with torch.no_grad():
            hidden = (
                model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0].double()
            )
        taken = hidden[start - 1 : len(ids) - 1]
        sums.append(taken.mean(0) if mean else taken.sum(0))
    return [float(w @ l - w @ w) for w, l in zip(sums[::2], sums[1::2], strict=True)]  # noqa: E741


def id_pairs(count: int, vocabulary: int, seed: int = 0) -> list[Pair]:
    rng = np.random.default_rng(seed)

    def text(length: int) -> str:
        return " ".join(map(str, rng.integers(vocabulary, size=length)))

    return [Pair(text(1 + k % 5), text(2 + k % 7), text(1 + k % 6)) for k in range(count)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral", "gemma2", "granite"])
def test_values_are_those_of_plain_transformers(family: str) -> None:
    model = build(family)
    pairs = id_pairs(12, SPEC.vocab_size)
    sides = []
    for e in pairs:
        for text in (e.chosen, e.rejected):
            prompt = [int(i) for i in e.prompt.split()]
            sides.append(([*prompt, *map(int, text.split())], len(prompt)))
    right = [plain_ches(model, sides, mean=mean) for mean in (False, True)]
    policy = CausalLM(model, IdTokenizer(SPEC.vocab_size), SPEC)
    assert policy.notes["head"] == ("full" if family == "gemma2" else "selected")
    found = ches(policy, pairs)
    assert found.sums == pytest.approx(right[0], rel=1e-4, abs=1e-3)
    assert found.means == pytest.approx(right[1], rel=1e-4, abs=1e-4)


@pytest.mark.skipif(not STORIES.exists(), reason="needs ../shared/models/stories260K")
def test_values_on_text_are_those_of_plain_transformers() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    pairs = [
        Pair("The cat sat on the", " bed and was happy.", " car and was sad."),
        Pair("Once upon a time", " there was a girl who lived in a big house.", " there was a dog."),
    ]
    sides = []
    for e in pairs:
        for text in (e.chosen, e.rejected):
            prompt = tokenizer(e.prompt)["input_ids"]
            ids = [*tokenizer(e.prompt + text)["input_ids"], tokenizer.eos_token_id]
            assert ids[: len(prompt)] == prompt
            sides.append((ids, len(prompt)))
    model = AutoModelForCausalLM.from_pretrained(STORIES)
    right = [plain_ches(model, sides, mean=mean) for mean in (False, True)]
    found = ches(CausalLM.load(ModelSpec(name=str(STORIES)), init_seed=0), pairs)
    assert found.sums == pytest.approx(right[0], rel=1e-4)
    assert found.means == pytest.approx(right[1], rel=1e-4)


def test_equal_hidden_states_give_zero_and_the_sign_follows_the_definition() -> None:
    """One-token completions share a hidden state; a longer rejected side along it scores above zero."""
    policy = CausalLM(build("llama"), IdTokenizer(SPEC.vocab_size), SPEC)
    one = ches(policy, [Pair("1 2 3", "4", "5")])
    assert one.sums == pytest.approx([0.0], abs=1e-5)
    few, many = "7 7 7 7", "7 7 7 7 7 7 7 7 7 7 7 7"
    same = ches(policy, [Pair("1 2 3", few, many), Pair("1 2 3", many, few)])
    assert same.sums[0] > 0 > same.sums[1]
    assert abs(same.means).max() < abs(same.sums).max()


@pytest.mark.skipif(
    not (STORIES.exists() and (DATA / "ukpconvarg1.parquet").exists()), reason="needs ../shared"
)
def test_chosen_completions_of_high_pairs_gain_least() -> None:
    """The paper's use: CHES orders pairs by what a step does to log π(chosen), highest where it gains least.

    That change is ⟨∇ log π(chosen), ∇ log π(chosen) − ∇ log π(rejected)⟩; relative to a step on the chosen
    completion alone, what the rejected one takes away is ⟨∇ chosen, ∇ rejected⟩ / ‖∇ chosen‖².
    """
    spec = DataSpec(source=str(DATA / "ukpconvarg1.parquet"), on_bad_row="skip")
    rows = load_dataset(spec, 0.0, np.random.default_rng(0)).train
    pairs = [
        e for i in np.random.default_rng(1).permutation(len(rows))[:48] if isinstance(e := rows[i], Pair)
    ]
    policy = CausalLM.load(ModelSpec(name=str(STORIES)), init_seed=0)
    change, taken = [], []
    for e in pairs:
        encoded = policy.encode([Completion(e.prompt, e.chosen), Completion(e.prompt, e.rejected)])
        logps = policy.score({"both": (encoded, None)}, grad=True)["both"].sum[0]
        w = torch.autograd.grad(logps[0], policy.parameters(), retain_graph=True)
        l = torch.autograd.grad(logps[1], policy.parameters())  # noqa: E741
        own, cross = (sum(float((a * b).sum()) for a, b in zip(w, other, strict=True)) for other in (w, l))
        change.append(own - cross)
        taken.append(cross / own)
    scores = ches(policy, pairs).sums
    assert spearmanr(scores, change).statistic < -0.5
    assert spearmanr(scores, taken).statistic > 0.4


def test_ids_without_an_embedding_are_told_in_one_line() -> None:
    policy = CausalLM(build("llama"), IdTokenizer(SPEC.vocab_size + 8), SPEC)
    with pytest.raises(UsageError, match="gives the id 39, and the model has embeddings of 32 ids alone"):
        ches(policy, [Pair("1", "39 2", "3")])
