"""The base class of a task: data source, model, budget, ground truth, version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from xpo_bench.contract.examples import Dataset
from xpo_bench.contract.settings import Budget, ModelSpec

ONE_TOKEN = "lengths: every completion is one token, so that a mean per token is the sum"
"""What a tabular policy cannot see whose world says nothing of lengths."""


@dataclass(frozen=True)
class Task:
    """A benchmark task. Subclasses are frozen dataclasses whose fields are the task's own options.

    Options, and the fields of the budget, are set by `--set task.FIELD=VALUE`.
    """

    name: ClassVar[str]
    """Unique name, `[a-z0-9][a-z0-9._-]{0,63}`."""
    version: ClassVar[str] = "1"
    """Changes whenever the data, the world or the budget of the task changes."""
    model: ClassVar[ModelSpec] = ModelSpec()
    """The policy that is trained unless `--model` says otherwise."""
    budget: ClassVar[Budget] = Budget()
    """The training granted to every algorithm."""
    lm_budget: ClassVar[Budget | None] = None
    """The budget when `--model` turns a tabular task into one on a language model; None: the ad-hoc one."""
    learning_rates: ClassVar[Mapping[str, float]] = {}
    """Learning rate per algorithm, chosen on the validation split from one equal-size grid."""
    expects_divergence: ClassVar[frozenset[str]] = frozenset()
    """Names of algorithms whose divergence is a finding here, not a fault."""
    cannot_see: ClassVar[str] = ""
    """What all algorithms look alike in here, as a phrase ("lengths: ..."); of a task on a tabular policy it
    holds for such policies alone. Empty: on a tabular policy `ONE_TOKEN`, on language models nothing.
    """

    __pydantic_config__: ClassVar[object] = {"extra": "forbid", "allow_inf_nan": False}

    @classmethod
    def blind_to(cls, model: ModelSpec) -> str:
        """What the task cannot see on a policy; empty where nothing is known to be so."""
        if model.tabular:
            return cls.cannot_see or ONE_TOKEN
        return "" if cls.model.tabular else cls.cannot_see

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The examples at this seed. Worlds depend on the version alone; only draws depend on the seed.

        Raises:
            xpo_bench.errors.DataError: the data cannot be had or is not usable, in one line.
        """
        raise TypeError(f"{type(self).__name__} does not define data()")
