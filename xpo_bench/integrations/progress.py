"""Where a trainer's run stands: the totals of the step at hand, and the state that checkpoints keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.scoring import Scores, Step
from xpo_bench.errors import UsageError
from xpo_bench.runner.settings import dump
from xpo_bench.train.algorithm_state import begin, next_state
from xpo_bench.train.data_parallel import Processes
from xpo_bench.train.score_ops import detached

if TYPE_CHECKING:
    from accelerate import Accelerator

Value = TypeVar("Value")


class TrainerProcesses(Processes):
    """The processes that a trainer's launcher has started, which are met already."""

    def from_first(self, value: Value) -> Value:
        from accelerate.utils import broadcast_object_list

        box = [value]
        broadcast_object_list(box, from_process=0)
        return box[0]


class AlgorithmProgress(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Totals and state of an algorithm along a trainer's run.

    A callback, since `trainer_state.json` of a checkpoint keeps what callbacks export.
    """

    def __init__(self, algorithm: Algorithm, accelerator: Accelerator) -> None:
        self.algorithm, self.device = algorithm, accelerator.device
        self.processes = TrainerProcesses(accelerator.process_index, accelerator.num_processes)
        self.state_now = self._initial()
        self.seen: list[Step] = []
        self.micro_batches = 1
        self._totals: dict[str, float] = {}

    def _initial(self) -> dict[str, Tensor]:
        # float64: what a checkpoint holds as text comes back to the bit
        return begin(self.algorithm, 1, torch.float64, self.device)

    # ---------------------------------------------------------------- a step

    def begin_step(self, counts: Sequence[Mapping[str, float]], device: torch.device) -> None:
        """A step begins, of these micro-batches here and as many in every other process."""
        self.seen.clear()
        self.micro_batches = len(counts)
        names = list(counts[0]) if counts else []
        sums = torch.tensor(
            [sum(each[name] for each in counts) for name in names], dtype=torch.float64, device=device
        )
        self._totals = dict(zip(names, self.processes.total(sums).tolist(), strict=True))

    def totals(self, columns: Mapping[str, Tensor], scores: Scores, training: bool) -> dict[str, Tensor]:
        """`Step.totals` of the step at hand; of the batch alone in an evaluation."""
        if not training:
            sums = {name: values.sum(-1, keepdim=True) for name, values in columns.items()}
            return sums | {"examples": sums_of_rows(scores)}
        like = scores.token_logps
        return {name: like.new_full((1, 1), value) for name, value in self._totals.items()}

    def reduced(self, values: Tensor, training: bool) -> Tensor:
        """The part of a step's loss that a micro-batch adds, as the trainer expects it.

        L = Σ_i ℓ_i / n over the n examples of the whole step. The trainer divides what it gets by the number
        of micro-batches, and averages gradients over processes: both are undone here, so that gradients add
        up to ∇L also where micro-batches differ in size.
        """
        if not training:
            return values.mean()
        return values.sum() * (self.micro_batches * self.processes.count / self._totals["examples"])

    def state_for(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """`Step.state` in the dtype of scores."""
        return {name: values.to(dtype) for name, values in self.state_now.items()}

    def saw(self, step: Step) -> None:
        """A micro-batch has been trained on; after the last one of its step the state moves on."""
        if not self.state_now:
            return
        self.seen.append(detached(step))
        if len(self.seen) == self.micro_batches:
            moved = next_state(self.algorithm, self.seen, self.processes)
            self.state_now = {name: values.double() for name, values in moved.items()}
            self.seen.clear()

    # ---------------------------------------------------------------- checkpoints

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "args": {},
            "attributes": {
                "algorithm": self.algorithm.name,
                "config": dump(self.algorithm),
                "state": {name: values.item() for name, values in self.state_now.items()},
            },
        }

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin with the initial state, or with that of the checkpoint which is resumed."""
        self.seen.clear()
        self.state_now = self._initial()
        if not state.global_step:
            return
        found = state.stateful_callbacks.get(type(self).__name__)
        told = found["attributes"] if isinstance(found, Mapping) else None
        mine = self.state()["attributes"]
        if told is None or any(told[name] != mine[name] for name in ("algorithm", "config")):
            was = "another trainer" if told is None else f"{told['algorithm']} with {told['config']}"
            raise UsageError(
                f"the checkpoint at step {state.global_step} was made by {was}, this trainer "
                f"has {mine['algorithm']} with {mine['config']}: to change the loss, start anew from its "
                "weights by model="
            )
        for name, value in told["state"].items():
            self.state_now[name] = torch.full_like(self.state_now[name], value)


def sums_of_rows(scores: Scores) -> Tensor:
    """The number of rows, shape (1, 1)."""
    return scores.token_logps.new_full((1, 1), scores.mask.shape[-2])
