"""What two processes do that share the layers of a model; in a module that both can import."""

from __future__ import annotations

from pathlib import Path

import torch
from narrow import present
from small_models import SPEC, VOCAB, build

from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.sharding import Sharding
from xpo_bench.policy.language.tokenize import Encoded, Row
from xpo_bench.policy.language.tokenizers import IdTokenizer
from xpo_bench.train.data_parallel import Processes

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gpt2", "gpt_neox", "gemma2", "granite", "bloom")
ROWS = [
    Row((1, 2, 3, 4, 5), 3),
    Row((1, 2, 3, 6, 7, 8), 3),
    Row((4, 5, 5), 1),
    Row((4, 9), 1),
    Row((7, 7, 7, 7, 9, 9, 2), 4),
]
WEIGHTS = [1.0, -2.0, 3.0, 1.0, -1.5]
OWN = ([0, 1, 2, 4], [3])
"""What each process scores, in several passes here and in one there."""


def lm(family: str, sharding: Sharding | None = None) -> CausalLM:
    policy = CausalLM(build(family), IdTokenizer(VOCAB), SPEC, dtype="float64", sharding=sharding)
    policy.scorer.tokens_per_forward = 6
    return policy


def loss_of(policy: CausalLM, which: list[int]) -> torch.Tensor:
    rows = Encoded.of([ROWS[i] for i in which])
    weights = torch.tensor([WEIGHTS[i] for i in which], dtype=torch.float64)
    return (policy.score({"all": (rows, None)}, grad=True)["all"].sum * weights).sum()


def compare(rank: int, folder: Path, families: tuple[str, ...]) -> None:
    """What one of the two processes does."""
    torch.set_num_threads(1)
    processes = Processes.join(rank, 2, "cpu", folder / "meeting")
    for family in families:
        whole, shared = lm(family), lm(family, Sharding())
        assert (shared.notes, shared.flops) == (whole.notes, whole.flops)
        initial = shared.snapshot()
        everything = loss_of(whole, [0, 1, 2, 3, 4])
        own = loss_of(shared, OWN[rank])
        torch.testing.assert_close(processes.total(own), everything.detach(), msg=family)
        passed = shared.tokens_processed
        assert passed <= sum(len(ROWS[i].ids) - 1 for i in OWN[rank]), "idle passes are counted"

        def part(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
            return values if values.shape == like.shape else values.chunk(2)[rank]

        theirs = whole.gradients(everything)
        ours = shared.gradients(own)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(
                a, part(b, a), rtol=1e-5, atol=1e-5, msg=family
            )  # some norms compute in float32
        norm = torch.stack([gradient.norm() for gradient in theirs]).norm()
        torch.testing.assert_close(present(shared.sharding).norm(ours), norm, rtol=1e-5, atol=0.0, msg=family)
        with torch.no_grad():
            for p, gradient in zip(shared.parameters(), ours, strict=True):
                p.sub_(gradient, alpha=0.01)
            for p, gradient in zip(whole.parameters(), theirs, strict=True):
                p.sub_(gradient, alpha=0.01)
        # all processes sample and evaluate alike; a snapshot is of shares
        generator = torch.Generator().manual_seed(3)
        drawn = shared.sample(["1 2"], 3, max_new_tokens=4, generator=generator)
        expected = whole.sample(["1 2"], 3, max_new_tokens=4, generator=generator.manual_seed(3))
        assert drawn.texts == expected.texts, family
        kl = shared.sequence_kl(drawn, initial).per_sample_kl
        reference = {name: p.detach() for name, p in lm(family).model.named_parameters()}
        torch.testing.assert_close(
            kl, whole.sequence_kl(expected, reference).per_sample_kl, rtol=1e-4, atol=1e-8, msg=family
        )
        assert float(kl.sum()) > 0
        shared.restore(initial)
        torch.testing.assert_close(loss_of(shared, [0, 4]), loss_of(lm(family), [0, 4]), msg=family)
    processes.part()
