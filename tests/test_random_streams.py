"""Named random streams are stable and separate."""

from __future__ import annotations

import numpy as np
import pytest

from xpo_bench.random_streams import derive, stream, torch_stream

DERIVED = 6385013225969763060
DRAWN = [435, 49, 969]


def test_known_values() -> None:
    # frozen: a change here changes every result of the suite
    assert derive(0, "bandit", "data") == DERIVED
    assert stream(0, "bandit", "data").integers(1000, size=3).tolist() == DRAWN


@pytest.mark.parametrize(
    "other",
    [(1, "bandit", "data"), (0, "noisy", "data"), (0, "bandit", "order"), (0, "bandit", "data", "dpo")],
)
def test_every_word_makes_another_stream(other: tuple[int, str, str]) -> None:
    assert derive(*other) != derive(0, "bandit", "data")
    assert not np.array_equal(stream(*other).random(4), stream(0, "bandit", "data").random(4))


def test_63_bits() -> None:
    values = [derive(seed, "t") for seed in range(200)]
    assert all(0 <= v < 2**63 for v in values)
    assert max(values) > 2**61


def test_global_state_is_neither_read_nor_advanced() -> None:
    np.random.seed(0)
    before = np.random.get_state(legacy=False)["state"]["key"].tolist()
    first = stream(3, "t", "init").random()
    np.random.seed(1)
    assert stream(3, "t", "init").random() == first
    np.random.seed(0)
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before


def test_torch_streams_repeat() -> None:
    import torch

    a, b, c = (torch.rand(3, generator=torch_stream(0, "t", p)) for p in ("generate", "generate", "init"))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
