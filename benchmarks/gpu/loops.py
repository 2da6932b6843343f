"""What our step is compared with: the plain loop that papers' code has, and TRL's trainer."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from benchmarks.peers.cases import Batches, Case
from benchmarks.peers.contenders import BETA, CLIP, LR, StepTimer, data_set, library, words_tokenizer
from xpo_bench import Pair
from xpo_bench.policy.language.flops import BACKWARD, ModelShape
from xpo_bench.policy.language.tokenize import Row

WARM_UP = 3
"""First steps of a measurement, which compile kernels and are not timed."""
DTYPE: Literal["bfloat16"] = "bfloat16"


@dataclass(frozen=True)
class Steps:
    """What the steps of one contender took.

    Args:
        seconds: of each, the warm-up included. operations: floating-point, of a step on average.
        loss: at the last step. peak_mb: memory, where it was measured.
    """

    seconds: Sequence[float]
    operations: float
    loss: float | None = None
    peak_mb: float | None = None

    @property
    def median_s(self) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds[WARM_UP:] or self.seconds)

    def pairs_per_s(self, batch: int) -> float:
        """Pairs per second at the median step."""
        return batch / self.median_s


def two_forward_loop(case: Case, batches: Batches) -> Steps:
    """Policy and reference each score chosen and rejected as rows of one padded batch, at every step."""
    model = copy.deepcopy(case.fresh).train()
    reference = case.fresh.eval().requires_grad_(False)
    device = next(reference.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0, fused=True)
    seconds: list[float] = []
    loss = torch.zeros(())
    for batch in batches:
        synchronise(device.type)
        begun = time.perf_counter()
        ids, scored = padded(case, batch, device)
        with torch.no_grad():
            theirs = summed_logps(reference, ids, scored)
        ratios = (summed_logps(model, ids, scored) - theirs).view(-1, 2)
        loss = -logsigmoid(BETA * (ratios[:, 0] - ratios[:, 1])).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronise(device.type)
        seconds.append(time.perf_counter() - begun)
    return Steps(seconds, operations(case, batches), float(loss))


def padded(case: Case, batch: Sequence[Pair], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids of chosen and rejected, padded on the right, and which of them are completion tokens."""
    rows = [row for pair in batch for row in case.rows(pair)]
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[0] * (width - len(row.ids))] for row in rows])
    at = torch.arange(width)
    bounds = torch.tensor([[row.start, len(row.ids)] for row in rows])
    return ids.to(device), ((at >= bounds[:, :1]) & (at < bounds[:, 1:])).to(device)


def summed_logps(model: Any, ids: Tensor, scored: Tensor) -> Tensor:
    """Log-probability of each row's completion, nats, shape (rows,)."""
    with torch.autocast(ids.device.type, getattr(torch, DTYPE)):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    logps: Tensor = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return (logps * scored[:, 1:]).sum(-1)


def operations(case: Case, batches: Batches) -> float:
    """Operations of a step: forward and backward of the policy and forward of the reference, no padding."""
    shape = ModelShape.of(case.fresh)

    def forward(row: Row) -> float:
        return shape.forward([(0, len(row.ids) - 1)], row.length)

    rows = [row for batch in batches for pair in batch for row in case.rows(pair)]
    return (2 + BACKWARD) * sum(map(forward, rows)) / len(batches)


def trl_loop(case: Case, batches: Batches) -> Steps:
    """The steps of TRL's DPOTrainer as it comes: the reference model is scored at every step."""
    trl = library()
    data = data_set([case.rows(pair) for batch in batches for pair in batch])
    timer = StepTimer()
    device = next(case.fresh.parameters()).device
    with tempfile.TemporaryDirectory() as folder:
        config = trl.DPOConfig(
            output_dir=folder,
            beta=BETA,
            learning_rate=LR,
            lr_scheduler_type="constant",
            max_grad_norm=CLIP,
            max_steps=len(batches),
            per_device_train_batch_size=len(batches[0]),
            train_sampling_strategy="sequential",
            max_length=None,
            gradient_checkpointing=False,
            bf16=True,
            disable_dropout=True,
            use_cpu=device.type == "cpu",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = trl.DPOTrainer(
            model=copy.deepcopy(case.fresh).requires_grad_(True),
            ref_model=copy.deepcopy(case.fresh),
            args=config,
            train_dataset=data,
            processing_class=words_tokenizer(case),
        )
        trainer.add_callback(Waiting(device.type))
        trainer.add_callback(timer)
        trainer.train()
    return Steps(timer.seconds, operations(case, batches))


class Waiting(StepTimer):
    """Waits for the device at both ends of a step, before the clock of the next callback is read."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        synchronise(self.kind)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        synchronise(self.kind)


def synchronise(kind: str) -> None:
    """Wait for what a device has been given."""
    if kind == "cuda":
        torch.cuda.synchronize()
