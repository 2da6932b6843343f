"""The contenders: our trainer, TRL's, and a bare supervised step. Each returns the seconds of its steps."""

from __future__ import annotations

import copy
import importlib
import math
import tempfile
import time
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback

from benchmarks.peers.cases import Batches, Case, require
from xpo_bench import Budget, Dataset
from xpo_bench.contract.examples import Pair
from xpo_bench.policy.language.tokenize import Row
from xpo_bench.train.job import Job
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.row_selection import Rows
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.dpo import DPO

Dtype: TypeAlias = Literal["float32", "bfloat16", "float64"]
BATCH = 4
BETA, LR, CLIP = 0.1, 1e-6, 1.0

# --------------------------------------------------------------------------- ours


def job_of(
    pairs: Sequence[Pair],
    steps: int,
    seed: int,
    lr: float = LR,
    dtype: Dtype = "float32",
    batch: int = BATCH,
) -> Job:
    """One cell of DPO that is evaluated as little as a budget allows."""
    budget = Budget(
        steps=steps,
        batch_size=batch,
        clip=CLIP,
        dtype=dtype,
        eval_pairs=1,
        heldout_pairs=1,
        kl_prompts=1,
        kl_samples=1,
        max_new_tokens=1,
    )
    return Job(DPO(beta=BETA), "peers", seed, lr, "adamw", Dataset(train=tuple(pairs)), budget)


def batches_of(case: Case, job: Job) -> Batches:
    """The batches that our trainer takes, in its order."""
    rows = Rows(case.policy, "prompt")
    _, pool = rows.pool(job)
    pairs = [pair for pair in pool if isinstance(pair, Pair)]
    order = rows.schedule(job, pairs, 0, job.budget.steps)
    if order is None:
        return [pairs] * job.budget.steps
    return [[pairs[i] for i in batch] for batch in order.tolist()]


def ours(case: Case, job: Job, losses: list[float] | None = None) -> list[float]:
    """Seconds of each step of our trainer; `losses` takes the loss of each step before its update."""
    case.policy.restore(case.initial)

    def note(step: int, steps: int, loss: float | None) -> None:
        if losses is not None:
            losses.append(math.nan if loss is None else loss)

    trainer = GroupTrainer(case.policy, [job], ReferenceScorer(case.policy, case.initial, {}), progress=note)
    trainer.plain_loop = None  # its comparisons are off the clock, and take as long as the steps
    (outcome,) = trainer.run()
    require(
        outcome.status == "ok" and not outcome.notes.get("truncated"),
        f"{case.name}: our run is {outcome.status}",
    )
    return trainer.clock.step_s


# --------------------------------------------------------------------------- TRL


class StepTimer(TrainerCallback):  # type: ignore[misc]
    """Seconds of each step of a Hugging Face trainer."""

    def __init__(self) -> None:
        self.started = 0.0
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.seconds.append(time.perf_counter() - self.started)


def library() -> Any:
    """TRL, or one line that says how to get it."""
    try:
        return importlib.import_module("trl")
    except ImportError:
        raise SystemExit("peers: TRL is missing: pip install trl==1.16") from None


def word(token: int) -> str:
    """A token id as a word of a text; words are of one width, so that none ends in another."""
    return f"t{token:06d}"


def words_tokenizer(case: Case) -> Any:
    """A tokenizer that reads ids written as words, so that TRL trains on exactly our token ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    eos = case.policy.tokenizer.eos
    require(eos is not None, f"{case.name}: DPOTrainer ends completions with EOS, and this model has none")
    assert eos is not None
    vocabulary = {word(i): i for i in range(int(case.fresh.get_output_embeddings().weight.shape[0]))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=word(0)))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=word(eos), pad_token=word(eos))


def data_set(rows: Sequence[tuple[Row, Row]]) -> Any:
    """Chosen and rejected rows as the data set of a trainer."""
    from datasets import Dataset as HubDataset

    def text(ids: Sequence[int]) -> str:
        return " ".join(map(word, ids))

    return HubDataset.from_list(
        [
            {
                "prompt": text(chosen.ids[: chosen.start]) + " ",
                "chosen": text(chosen.ids[chosen.start :]),
                "rejected": text(rejected.ids[rejected.start :]),
            }
            for chosen, rejected in rows
        ]
    )


def peer_trainer(
    case: Case, batches: Batches, folder: str, *, precomputed: bool, lr: float = LR, own: bool = False
) -> Any:
    """A DPOTrainer that takes the batches in order, ready to train; its token ids are compared with ours.

    Args:
        own: train the case's model itself, not a copy.
    """
    trl = library()
    rows = [case.rows(pair) for batch in batches for pair in batch]
    data = data_set(rows)
    config = trl.DPOConfig(
        output_dir=folder,
        beta=BETA,
        learning_rate=lr,
        lr_scheduler_type="constant",
        max_grad_norm=CLIP,
        max_steps=len(batches),
        per_device_train_batch_size=BATCH,
        train_sampling_strategy="sequential",
        max_length=None,
        precompute_ref_log_probs=precomputed,
        gradient_checkpointing=False,
        bf16=case.policy.dtype == "bfloat16",
        fp16=False,
        disable_dropout=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = trl.DPOTrainer(
        model=case.fresh if own else copy.deepcopy(case.fresh),
        ref_model=None if precomputed else copy.deepcopy(case.fresh),
        args=config,
        train_dataset=data,
        processing_class=words_tokenizer(case),
    )
    trainer.remove_callback(PrinterCallback)
    require(len(trainer.train_dataset) == len(rows), f"{case.name}: TRL drops rows")
    for item, (chosen, rejected) in zip(trainer.train_dataset, rows, strict=True):
        same = (*item["prompt_ids"], *item["chosen_ids"]) == chosen.ids and len(
            item["prompt_ids"]
        ) == chosen.start
        same &= (*item["prompt_ids"], *item["rejected_ids"]) == rejected.ids and len(
            item["prompt_ids"]
        ) == rejected.start
        require(same, f"{case.name}: TRL reads other token ids")
    return trainer


def peer(case: Case, batches: Batches, *, precomputed: bool, own: bool = False) -> list[float]:
    """Seconds of each step of a DPOTrainer; see `peer_trainer`."""
    timer = StepTimer()
    with tempfile.TemporaryDirectory() as folder:
        trainer = peer_trainer(case, batches, folder, precomputed=precomputed, own=own)
        trainer.add_callback(timer)
        trainer.train()
    return timer.seconds


# --------------------------------------------------------------------------- the tokens alone


def bare(case: Case, batches: Batches) -> list[float]:
    """Seconds of each supervised step on the distinct tokens of the batches; tensors are made beforehand."""
    model = copy.deepcopy(case.fresh)
    head = model.get_output_embeddings()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    seconds = []
    for ids, at, targets in [joined(case, batch) for batch in batches]:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=case.policy.dtype == "bfloat16"):
            features = model.base_model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
        F.cross_entropy(head(features.index_select(0, at).float()), targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - started)
    return seconds


def joined(case: Case, batch: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of prompt, chosen and rejected, padded right: ids, flat positions that predict, and what."""
    texts, starts = [], []
    for pair in batch:
        chosen, rejected = case.rows(pair)
        texts.append([*chosen.ids, *rejected.ids[rejected.start :]])
        starts.append(chosen.start)
    width = max(map(len, texts)) - 1
    ids = [text[:-1] + [0] * (width + 1 - len(text)) for text in texts]
    at = [b * width + i for b, text in enumerate(texts) for i in range(starts[b] - 1, len(text) - 1)]
    targets = [token for text, start in zip(texts, starts, strict=True) for token in text[start:]]
    return torch.tensor(ids), torch.tensor(at), torch.tensor(targets)
