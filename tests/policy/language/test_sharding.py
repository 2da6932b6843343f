"""A model whose layers two processes share scores, samples and learns like the model whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import sharded
import torch
import torch.multiprocessing
from small_models import build

from xpo_bench.errors import UsageError
from xpo_bench.policy.language.sharding import Sharding
from xpo_bench.runner.executors.subprocesses import beginning


def test_scores_gradients_and_samples_are_those_of_the_whole_model(tmp_path: Path) -> None:
    beginning(language=True)  # the fork server of the suite, which has torch and transformers imported
    torch.multiprocessing.start_processes(  # type: ignore[attr-defined,no-untyped-call]
        sharded.compare, (tmp_path, sharded.FAMILIES), nprocs=2, start_method="forkserver"
    )


def test_a_model_that_does_not_name_its_layers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    model = build("llama")
    model._no_split_modules = None
    with pytest.raises(UsageError, match=r"task\.fsdp: LlamaForCausalLM does not say what its layers are"):
        Sharding().shard(model, torch.device("cpu"))
