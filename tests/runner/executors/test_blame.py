"""A plugin is blamed only where its own code was running or the suite says what is wrong in it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from xpo_bench import Step
from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.errors import CapacityError
from xpo_bench.runner.executors.blame import described
from xpo_bench.runner.executors.subprocesses import portable, rebuilt
from xpo_bench_plugins.algorithms.dpo import DPO


@dataclass(frozen=True)
class Odd(Algorithm):
    name: ClassVar[str] = "odd"

    def loss(self, step: Step) -> Tensor:
        return torch.zeros(2)[5]


def cell(algorithm: Algorithm) -> Any:
    info = SimpleNamespace(name="site", origin="site 1.0")
    return SimpleNamespace(
        algorithm=algorithm, info=info, setup=SimpleNamespace(model=SimpleNamespace(name="some-model"))
    )


def raised(work: Any, *args: Any) -> BaseException:
    try:
        work(*args)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def embedding() -> None:
    from xpo_bench.policy.language.layout import lay_out

    lay_out([], [], torch.device("cpu"))


def test_a_line_of_its_own_names_the_plugin() -> None:
    error = raised(Odd().loss, None)
    assert described(cell(Odd()), error).startswith("plugin site (site 1.0): index 5 is out of bounds")


def test_a_fault_of_the_suite_names_no_plugin() -> None:
    error = raised(embedding)
    assert described(cell(DPO()), error).startswith("xpo-bench (layout.py, line ")
    assert "with model some-model: ValueError: max() " in described(cell(DPO()), error)
    assert "plugin" not in described(cell(DPO()), error)


def test_so_it_is_in_another_process() -> None:
    import traceback

    for algorithm, work, words in (
        (Odd(), (Odd().loss, None), "plugin site"),
        (DPO(), (embedding,), "xpo-bench (layout.py"),
    ):
        error = raised(*work)
        sent = rebuilt(portable(error), "".join(traceback.format_exception(error)))
        assert described(cell(algorithm), sent).startswith(words)


def test_what_the_suite_says_of_a_plugin_names_it() -> None:
    assert described(cell(Odd()), ValueError("odd: loss() returned shape ()")).startswith(
        "plugin site (site 1.0): odd: loss()"
    )
    assert described(cell(Odd()), CapacityError("generate is not declared")).startswith("plugin site")
    assert described(cell(Odd()), ChildProcessError("ended by SIGKILL"), ended=True).startswith("plugin site")
    assert described(cell(DPO()), KeyError("a")) == "xpo-bench with model some-model: KeyError: 'a'"
