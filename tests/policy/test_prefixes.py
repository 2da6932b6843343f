"""Token probabilities of a table of whole completions, against sums written out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from xpo_bench import Completion, World
from xpo_bench.errors import DataError
from xpo_bench.policy.linear import LinearPolicy
from xpo_bench.policy.tabular import TabularPolicy

TEXTS = {"x": ("yes", "no", "go yes", "go no", "go go stop"), "z": ("a b", "a c")}
REFERENCE = {
    "x": {"yes": 0.3, "no": 0.1, "go yes": 0.2, "go no": 0.15, "go go stop": 0.25},
    "z": {"a b": 0.9, "a c": 0.1},
}
WORLD = World(actions=TEXTS, reference=REFERENCE, tokens=True)
ALL = [Completion(x, y) for x, texts in TEXTS.items() for y in texts]


def prefix_mass(p: dict[str, float], prefix: list[str]) -> float:
    return math.fsum(v for text, v in p.items() if text.split()[: len(prefix)] == prefix)


def conditionals(p: dict[str, float], text: str) -> list[float]:
    tokens = text.split()
    masses = [prefix_mass(p, tokens[:k]) for k in range(len(tokens) + 1)]
    return [math.log(b / a) for a, b in itertools.pairwise(masses)]


def probabilities(policy: TabularPolicy, run: int) -> list[float]:
    """Of the first prompt's completions."""
    values: list[float] = policy.log_probs()[run, 0].exp().tolist()
    return values


def moved(runs: int = 2) -> TabularPolicy:
    policy = TabularPolicy(WORLD, runs)
    with torch.no_grad():
        policy.parameter += torch.randn(policy.parameter.shape, generator=torch.Generator().manual_seed(0))
    return policy


def test_every_token_has_its_probability_after_those_before_it() -> None:
    policy = moved()
    at = policy.stack([policy.encode(ALL)] * 2)
    policy.begin()
    scored = policy.score({"g": (at, None)}, grad=True)["g"]
    for scores in (scored, policy.score_all(at)):
        for run in range(2):
            final = policy.final_policy(run)
            assert final is not None
            for i, c in enumerate(ALL):
                expected = conditionals(final[c.prompt], c.text)
                mask = scores.mask[run, i]
                assert mask.tolist() == [k < len(expected) for k in range(3)]
                found = scores.token_logps[run, i][mask].tolist()
                assert found == pytest.approx(expected, abs=1e-12)
                assert float(scores.sum[run, i].detach()) == pytest.approx(
                    math.log(final[c.prompt][c.text]), abs=1e-12
                )
    assert policy.lengths(at)[0].tolist() == [1, 1, 2, 2, 3, 2, 2]


def test_picked_rows_are_those_of_the_index() -> None:
    policy = moved(1)
    at = policy.stack([policy.encode(ALL)])
    policy.begin()
    index = torch.tensor([[4, 0, -1]])
    scores = policy.score({"g": (at, index)}, grad=False)["g"]
    whole = policy.score_all(at)
    assert torch.equal(scores.token_logps[0, :2], whole.token_logps[0, [4, 0]])


def test_a_token_s_gradient_moves_the_logits_at_its_own_place_alone() -> None:
    policy = moved(1)
    at = policy.stack([policy.encode(ALL)])
    trees = policy.layout.prefixes
    assert trees is not None
    policy.begin()
    scores = policy.score({"g": (at, None)}, grad=True)["g"]
    for i, c in enumerate(ALL):
        for k in range(len(c.text.split())):
            (gradient,) = torch.autograd.grad(
                scores.token_logps[0, i, k], policy.parameter, retain_graph=True
            )
            siblings = trees.parent == trees.parent[trees.path[at[0, i], k]]
            siblings &= trees.parent != torch.arange(len(siblings))
            # that of a softmax among the tokens that can stand there: δ − π
            node = int(trees.path[at[0, i], k])
            p = trees.normalised(policy.parameter.detach())[0].exp()
            expected = -torch.where(siblings, p, 0.0)
            expected[node] += 1
            torch.testing.assert_close(gradient[0], expected, atol=1e-12, rtol=0)


def test_gradients_are_those_of_finite_differences() -> None:
    policy = moved(1)
    trees = policy.layout.prefixes
    assert trees is not None
    at = policy.stack([policy.encode(ALL)])

    def weighted(values: torch.Tensor) -> torch.Tensor:
        flat = trees.leaves(trees.normalised(values))
        scores = trees.scores(trees.conditionals(trees.masses(flat)), at)
        weight = torch.linspace(0.3, 2.0, scores.token_logps.numel(), dtype=values.dtype)
        return (scores.token_logps.flatten() * weight).sum()

    assert torch.autograd.gradcheck(weighted, (policy.parameter.detach().clone().requires_grad_(True),))


def test_a_policy_starts_at_the_reference_and_is_set_in_closed_form() -> None:
    policy = TabularPolicy(WORLD, 2)
    assert probabilities(policy, 1) == pytest.approx(list(REFERENCE["x"].values()))
    policy.tilt(1, {Completion("x", "go no"): 2.0})
    weight = {y: p * (math.e**2 if y == "go no" else 1.0) for y, p in REFERENCE["x"].items()}
    assert probabilities(policy, 0) == pytest.approx(list(REFERENCE["x"].values()))
    assert probabilities(policy, 1) == pytest.approx([w / sum(weight.values()) for w in weight.values()])


def test_token_kl_is_that_of_the_next_token_and_adds_up_to_the_whole() -> None:
    policy = moved(1)
    snapshot = policy.snapshot()
    with torch.no_grad():
        policy.parameter.mul_(1.3)
    at = policy.stack([policy.encode(ALL)])
    policy.begin()
    scores = policy.score({"g": (at, None)}, grad=False, against=snapshot)["g"]
    assert scores.token_kl is not None
    after = policy.log_probs().exp()[0]
    policy.restore(snapshot)
    before = policy.log_probs().exp()[0]
    for row, (x, texts) in enumerate(TEXTS.items()):
        p, q = (dict(zip(texts, v[row].tolist(), strict=False)) for v in (before, after))
        expected_whole = math.fsum(p[y] * math.log(p[y] / q[y]) for y in texts)
        total = 0.0
        for i, c in enumerate(ALL):
            if c.prompt != x:
                continue
            tokens = c.text.split()
            for k in range(len(tokens)):
                children = sorted({t.split()[k] for t in texts if t.split()[:k] == tokens[:k]})
                a = np.array([prefix_mass(p, [*tokens[:k], t]) for t in children])
                b = np.array([prefix_mass(q, [*tokens[:k], t]) for t in children])
                a, b = a / a.sum(), b / b.sum()
                assert float(scores.token_kl[0, i, k]) == pytest.approx(a @ np.log(a / b), abs=1e-12)
            # the chain rule: Σ_y p(y) Σ_t KL_t is the KL of the whole completions
            total += p[c.text] * float(scores.sequence_kl[0, i])
        assert total == pytest.approx(expected_whole, abs=1e-12)


def test_a_probability_that_underflows_stays_finite() -> None:
    policy = TabularPolicy(WORLD, 1)
    with torch.no_grad():
        policy.parameter[0] *= 5000.0
    at = policy.stack([policy.encode(ALL)])
    policy.begin()
    scores = policy.score({"g": (at, None)}, grad=True)["g"]
    tokens = scores.token_logps[scores.mask]
    assert tokens.isfinite().all()
    assert scores.token_logps[0, 1, 0] < -2000  # of a probability that float64 does not have
    (gradient,) = torch.autograd.grad(tokens.sum(), policy.parameter)
    assert gradient.isfinite().all()


def test_a_linear_policy_has_them_too() -> None:
    features = {x: {y: (float(i), 1.0) for i, y in enumerate(texts)} for x, texts in TEXTS.items()}
    policy = LinearPolicy(World(actions=TEXTS, features=features, tokens=True), 1)
    at = policy.stack([policy.encode(ALL)])
    expected = conditionals(dict.fromkeys(TEXTS["x"], 0.2), "go go stop")
    assert policy.score_all(at).token_logps[0, 4].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("texts", [("go", "go on"), ("a b", "a  b c"), ("", "a")])
def test_a_completion_that_begins_another_is_refused(texts: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"prompt 'x': the completion '.*' is the beginning of another one"):
        TabularPolicy(World(actions={"x": texts}, tokens=True), 1)
