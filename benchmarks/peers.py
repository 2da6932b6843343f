"""How many preference pairs a second train here, and in TRL's DPOTrainer: the same rows from the same weights.

    pip install trl==1.16
    XPO_BENCH_DATA=DIR python benchmarks/peers.py --model DIR --write results/peers.json

DPO in float32 on a CPU, one thread, 4 pairs a step, β 0.1, AdamW at 1e-6, gradients clipped at norm 1. A round trains every
contender on the same batches in the same order, one contender after the other in a random order of turns; the ratio of a round
is our pairs per second over theirs.

`ours` is `GroupTrainer` on `CausalLM`; reference scores, evaluation and sampling are off its clock. `trl` is the default
DPOTrainer, which scores the reference model at every step, and `trl-precomputed` has scored it beforehand, off its clock. TRL's
clock runs from `on_step_begin` to `on_step_end`, which leaves out fetching and collating the batch; ours has them in it. `bare`
is what the tokens alone cost: each pair as one row of prompt, chosen and rejected, cross entropy on the completions, one AdamW
step, no reference.

Before a case is timed, the token ids, the log-probabilities of the first batch and the losses of a few large steps are compared
with TRL's; a difference ends the program.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback

from xpo_bench import Budget, Dataset, ModelSpec
from xpo_bench.policy.causal_lm import CausalLM, State
from xpo_bench.policy.pretrained import quiet
from xpo_bench.policy.tokenize import Row
from xpo_bench.runner import environment
from xpo_bench.train.batches import usable
from xpo_bench.train.job import Job
from xpo_bench.train.language import ReferenceScorer
from xpo_bench.train.rows import Rows
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench.types import Completion, Pair
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.tasks.ukp import Ukp

LENGTHS = {"long-prompt": (128, 64), "long-completion": (32, 128)}
"""Tokens of the prompt and of each completion, BOS and EOS included, where the text is random."""

CASES = (*LENGTHS, "ukp")
PEERS = ("trl", "trl-precomputed")
BATCH = 4
BETA, LR, CLIP = 0.1, 1e-6, 1.0
WARM_UP = 2
"""First steps of a measurement, which are not timed."""

CHECK_STEPS, CHECK_LR, TOLERANCE = 4, 1e-4, 1e-3

Batches = Sequence[Sequence[Pair]]


@dataclass(frozen=True)
class Case:
    """A model at its first weights, and the pairs to draw from.

    Args:
        initial: its weights. fresh: a copy of the Hugging Face model that stays untrained. left_out: pairs that do not fit
            the context.
    """

    name: str
    policy: CausalLM
    initial: State
    fresh: Any
    pairs: tuple[Pair, ...]
    left_out: int = 0

    def rows(self, pair: Pair) -> tuple[Row, Row]:
        """The token ids of chosen and rejected, each behind the prompt."""
        encoded = self.policy.encode([Completion(pair.prompt, pair.chosen), Completion(pair.prompt, pair.rejected)])
        chosen, rejected = encoded.row(0), encoded.row(1)
        assert chosen is not None
        assert rejected is not None
        return chosen, rejected


def random_text(name: str, pairs: int) -> Case:
    """A small Llama with random weights, and pairs of random letters of exactly the lengths of the case."""
    prompt, completion = LENGTHS[name]
    spec = ModelSpec(name="tiny", hidden_size=256, intermediate_size=512, layers=4, heads=4, context=512)
    policy = CausalLM.load(spec, init_seed=0)
    rng = random.Random(name)

    def text(tokens: int) -> str:
        return "".join(rng.choices(ascii_lowercase, k=tokens - 1))  # a letter is a token; BOS or EOS is one more

    drawn = tuple(Pair(text(prompt), text(completion), text(completion)) for _ in range(pairs))
    case = Case(name, policy, policy.snapshot(), copy.deepcopy(policy.model), drawn)
    for row in (row for pair in drawn for row in case.rows(pair)):
        require((row.start, row.length) == (prompt, completion), f"{name}: {row.start} + {row.length} tokens")
    return case


def crowd_votes(model: str) -> Case:
    """A pretrained model and the pairs of `ukp` that its context holds, ties left out."""
    policy = CausalLM.load(ModelSpec(name=model), init_seed=0)
    train = Ukp().data(0, policy.spec).train
    pairs = [pair for pair in (train[i] for i in usable(train)) if isinstance(pair, Pair)]
    items = [Completion(pair.prompt, text) for pair in pairs for text in (pair.chosen, pair.rejected)]
    fits = (policy.encode(items, "drop").item.reshape(-1, 2) >= 0).all(1).tolist()
    kept = tuple(pair for pair, fit in zip(pairs, fits, strict=True) if fit)
    return Case("ukp", policy, policy.snapshot(), copy.deepcopy(policy.model), kept, len(pairs) - len(kept))


def require(holds: bool, what: str) -> None:
    """End the program where the contenders do not do the same work."""
    if not holds:
        raise SystemExit(f"peers: not the same work: {what}")


# --------------------------------------------------------------------------- ours


def job_of(pairs: Sequence[Pair], steps: int, seed: int, lr: float = LR) -> Job:
    """One cell of DPO that is evaluated as little as a budget allows."""
    budget = Budget(
        steps=steps,
        batch_size=BATCH,
        clip=CLIP,
        dtype="float32",
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
    trainer.bare = None  # its comparisons are off the clock, and take as long as the steps
    (outcome,) = trainer.run()
    require(outcome.status == "ok" and not outcome.notes.get("truncated"), f"{case.name}: our run is {outcome.status}")
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


def peer_trainer(case: Case, batches: Batches, folder: str, *, precomputed: bool, lr: float = LR) -> Any:
    """A DPOTrainer that takes the batches in their order, ready to train; its token ids are compared with ours."""
    from datasets import Dataset as HubDataset

    trl = library()
    rows = [case.rows(pair) for batch in batches for pair in batch]

    def text(ids: Sequence[int]) -> str:
        return " ".join(map(word, ids))

    data = HubDataset.from_list(
        [
            {
                "prompt": text(chosen.ids[: chosen.start]) + " ",
                "chosen": text(chosen.ids[chosen.start :]),
                "rejected": text(rejected.ids[rejected.start :]),
            }
            for chosen, rejected in rows
        ]
    )
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
        bf16=False,
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
        model=copy.deepcopy(case.fresh),
        ref_model=None if precomputed else copy.deepcopy(case.fresh),
        args=config,
        train_dataset=data,
        processing_class=words_tokenizer(case),
    )
    trainer.remove_callback(PrinterCallback)
    require(len(trainer.train_dataset) == len(rows), f"{case.name}: TRL drops rows")
    for item, (chosen, rejected) in zip(trainer.train_dataset, rows, strict=True):
        same = (*item["prompt_ids"], *item["chosen_ids"]) == chosen.ids and len(item["prompt_ids"]) == chosen.start
        same &= (*item["prompt_ids"], *item["rejected_ids"]) == rejected.ids and len(item["prompt_ids"]) == rejected.start
        require(same, f"{case.name}: TRL reads other token ids")
    return trainer


def peer(case: Case, batches: Batches, *, precomputed: bool) -> list[float]:
    """Seconds of each step of a DPOTrainer."""
    timer = StepTimer()
    with tempfile.TemporaryDirectory() as folder:
        trainer = peer_trainer(case, batches, folder, precomputed=precomputed)
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
        features = model.base_model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
        F.cross_entropy(head(features.index_select(0, at)), targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - started)
    return seconds


def joined(case: Case, batch: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs as rows of prompt, chosen and rejected, padded on the right: ids, flat positions that predict, and what."""
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


# --------------------------------------------------------------------------- measurement


def compare(case: Case, first: Sequence[Pair]) -> dict[str, float]:
    """Compare log-probabilities and losses with TRL's on one batch.

    Returns:
        The largest differences, in nats, and the loss after the last but one of the large steps.
    """
    items = [Completion(pair.prompt, text) for pair in first for text in (pair.chosen, pair.rejected)]
    case.policy.restore(case.initial)
    found = case.policy.score_all(case.policy.encode(items)).sum.reshape(-1, 2)
    mine: list[float] = []
    ours(case, job_of(first, CHECK_STEPS, 0, CHECK_LR), mine)
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = peer_trainer(case, [first] * CHECK_STEPS, folder, precomputed=True, lr=CHECK_LR)
        table = trainer.train_dataset[:BATCH]
        known = torch.tensor([table["ref_chosen_logps"], table["ref_rejected_logps"]]).T
        compute = trainer.compute_loss

        def noted(*args: Any, **more: Any) -> Any:
            loss = compute(*args, **more)
            theirs.append(float(loss))
            return loss

        trainer.compute_loss = noted
        trainer.train()
    logps = float((found - known).abs().max())
    require(torch.allclose(found, known, rtol=1e-5, atol=TOLERANCE), f"{case.name}: log-probabilities differ by {logps:g}")
    require(len(mine) == len(theirs) == CHECK_STEPS, f"{case.name}: {len(mine)} and {len(theirs)} losses")
    losses = max(abs(a - b) for a, b in zip(mine, theirs, strict=True))
    require(losses < TOLERANCE, f"{case.name}: losses differ by {losses:g}: {mine} and {theirs}")
    require(abs(mine[-1] - math.log(2)) > 10 * TOLERANCE, f"{case.name}: the loss stays at ln 2, which compares nothing")
    return {"logps_difference": logps, "loss_difference": losses, "loss": mine[-1]}


def measure(case: Case, rounds: int, steps: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Medians and extremes over the rounds, for every contender of a case."""
    taken = steps + WARM_UP
    rates: dict[str, list[float]] = {name: [] for name in ("ours", *PEERS, "bare")}
    lengths: list[tuple[int, int, int]] = []
    checked: dict[str, float] = {}
    for number in range(rounds):
        rng = random.Random(f"{case.name} {number}")
        job = job_of(rng.sample(case.pairs, taken * BATCH), taken, number)
        batches = batches_of(case, job)
        if not number:
            note(f"{case.name}: comparing with TRL")
            with quiet():
                checked = compare(case, batches[0])
        for pair in (pair for batch in batches for pair in batch):
            chosen, rejected = case.rows(pair)
            lengths.append((chosen.start, chosen.length, rejected.length))
        contenders: dict[str, Callable[[], list[float]]] = {
            "ours": partial(ours, case, job),
            "trl": partial(peer, case, batches, precomputed=False),
            "trl-precomputed": partial(peer, case, batches, precomputed=True),
            "bare": partial(bare, case, batches),
        }
        for name in rng.sample(list(contenders), len(contenders)):
            note(f"{case.name}, round {number + 1} of {rounds}: {name}")
            gc.collect()
            with quiet():
                seconds = contenders[name]()
            require(len(seconds) == taken, f"{case.name}: {name} takes {len(seconds)} steps")
            require(torch.get_num_threads() == 1, f"{case.name}: {name} computes on {torch.get_num_threads()} threads")
            rates[name].append(steps * BATCH / sum(seconds[WARM_UP:]))
    return {
        "case": case.name,
        "parameters": sum(p.numel() for p in case.fresh.parameters()),
        "pairs_per_step": BATCH,
        "steps": steps,
        "rounds": rounds,
        "prefix": case.policy.notes["prefix"],
        "tokens": dict(zip(("prompt", "chosen", "rejected"), map(statistics.mean, zip(*lengths, strict=True)), strict=True)),
        "left_out": case.left_out,
        "compared": checked,
        "pairs_per_s": {name: spread(values) for name, values in rates.items()},
        "ours_over": {name: spread(quotients(rates["ours"], rates[name])) for name in PEERS},
        "step_over_bare": spread(quotients(rates["bare"], rates["ours"])),
    }


def quotients(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """One quotient a round."""
    return [a / b for a, b in zip(over, under, strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def show(rows: Sequence[dict[str, Any]]) -> tuple[Table, Table]:
    """The peers, with our pairs per second over theirs; and the time of our step over that of a bare one."""
    pace = Table("case", "contender", "pairs/s", "from–to", "ours x", "from–to")
    cost = Table("case", "our step / bare step", "from–to")
    for row in rows:
        for name, rate in row["pairs_per_s"].items():
            pace.add_row(row["case"], name, *cells(rate, 1), *cells(row["ours_over"].get(name), 2))
        pace.add_section()
        cost.add_row(row["case"], *cells(row["step_over_bare"], 2))
    return pace, cost


def cells(found: dict[str, float] | None, digits: int) -> tuple[str, str]:
    """A median and its extremes."""
    if found is None:
        return "", ""
    return f"{found['median']:.{digits}f}", f"{found['lowest']:.{digits}f}–{found['highest']:.{digits}f}"


def main(argv: list[str] | None = None) -> None:
    """Measure, print the tables, and write the numbers where asked."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--case", default=",".join(CASES), help="cases, comma-separated")
    words.add_argument("--model", help="directory of the pretrained model of ukp")
    words.add_argument("--steps", type=int, default=8, help="timed steps of a measurement")
    words.add_argument("--rounds", type=int, default=8, help="repetitions, interleaved")
    words.add_argument("--write", type=Path, help="JSON file for the numbers")
    asked = words.parse_args(argv)
    names = asked.case.split(",")
    if unknown := set(names) - set(CASES):
        words.error(f"--case: {', '.join(sorted(unknown))} is none of {', '.join(CASES)}")
    if "ukp" in names and not asked.model:
        words.error("--case ukp wants --model, the directory of a pretrained model")
    library()
    from datasets import disable_progress_bars

    disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"  # TRL's own bar reads it
    torch.set_num_threads(1)
    console, progress = Console(), Console(stderr=True)
    rows: list[dict[str, Any]] = []
    for name in names:
        case = random_text(name, (asked.steps + WARM_UP) * BATCH) if name in LENGTHS else crowd_votes(asked.model)
        rows.append(measure(case, asked.rounds, asked.steps, lambda text: progress.print(text, highlight=False)))
    for table in show(rows):
        console.print(table)
    if asked.write:
        command = ["python", "benchmarks/peers.py", *(argv if argv is not None else sys.argv[1:])]
        document = {
            "command": " ".join(command),
            "environment": environment.describe("cpu"),
            "versions": {package: version(package) for package in ("trl", "transformers", "torch")},
            "rows": rows,
        }
        asked.write.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
