"""Ten algorithms on one set, wall clock from raw data to a table, against TRL's five one after the other.

    XPO_BENCH_DATA=DIR python -m benchmarks.peers.ten DIR      # TRL's side alone

`ours` is one command, `xpo-bench run --algos ... --tasks ukp`, process start and imports included. It
evaluates training and held-out pairs at several points, samples for a Monte Carlo KL, compares steps with
bare ones, and writes records; `ours, least` is the same command with the sampling turned as low as its
options go. TRL's side is one process too: it reads the same rows, and for each algorithm loads the model,
tokenises, trains as many steps of as many pairs, and evaluates 64 held-out pairs once. TRL samples nothing
and writes nothing. The figure is seconds per algorithm.
"""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.peers.contenders import library
from benchmarks.peers.speed import spread
from xpo_bench import ModelSpec
from xpo_bench.contract.examples import Pair
from xpo_bench.data.labels import decided
from xpo_bench.policy.language.pretrained import quiet
from xpo_bench_plugins.tasks.ukp import Ukp

TEN = ("dpo", "ipo", "kto", "cpo", "orpo", "cdpo", "npo", "dpop", "simpo", "slic")
FIVE = TEN[:5]
STEPS, BATCH, HELDOUT = 30, 8, 64
LEAST = ("kl_prompts=1", "kl_samples=1", "max_new_tokens=1")


def ours(model: str, *, least: bool) -> float:
    """Seconds of our command."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "run",
            "--algos",
            ",".join(TEN),
            "--tasks",
            "ukp",
            "--model",
            model,
            "--steps",
            str(STEPS),
            "--seeds",
            "1",
        ]
        words += [
            "--out",
            folder,
            "--quiet",
            *(word for setting in LEAST if least for word in ("--set", f"task.{setting}")),
        ]
        return _seconds(["-c", "from xpo_bench.cli import main; main()", *words])


def theirs(model: str) -> float:
    """Seconds of TRL's side."""
    return _seconds(["-m", "benchmarks.peers.ten", model])


def _seconds(words: list[str]) -> float:
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"peers: {' '.join(words[:3])}: {(done.stderr.strip() or 'failed').splitlines()[-1]}"
        )
    return time.perf_counter() - started


def run_theirs(model: str) -> None:
    """Train and evaluate with each of TRL's trainers, and print what they say of the held-out pairs."""
    trl = library()
    cpo, orpo = (importlib.import_module(f"trl.experimental.{name}") for name in ("cpo", "orpo"))
    import torch
    from datasets import Dataset as HubDataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    data = Ukp().data(0, ModelSpec(name=model))
    pairs = [data.train[i] for i in decided(data.train)]
    parts = {
        "train": random.Random(0).sample(pairs, STEPS * BATCH),
        "heldout": random.Random(0).sample(data.heldout, HELDOUT),
    }
    paired: dict[str, Any] = {
        name: HubDataset.from_list(
            [
                {"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected}
                for p in rows
                if isinstance(p, Pair)
            ]
        )
        for name, rows in parts.items()
    }
    common: dict[str, Any] = {
        "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": BATCH,
        "max_steps": STEPS,
        "learning_rate": 1e-5,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "max_length": 512,
    }
    trainers: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "dpo": (trl.DPOTrainer, trl.DPOConfig, {"loss_type": ["sigmoid"]}),
        "ipo": (trl.DPOTrainer, trl.DPOConfig, {"loss_type": ["ipo"]}),
        "kto": (
            trl.KTOTrainer,
            trl.KTOConfig,
            {"per_device_train_batch_size": 2 * BATCH, "train_sampling_strategy": "sequential"},
        ),
        "cpo": (cpo.CPOTrainer, cpo.CPOConfig, {}),
        "orpo": (orpo.ORPOTrainer, orpo.ORPOConfig, {}),
    }
    for name in FIVE:
        trainer_of, config_of, more = trainers[name]
        tokenizer = AutoTokenizer.from_pretrained(model)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        with tempfile.TemporaryDirectory() as folder, quiet():
            trainer = trainer_of(
                model=policy,
                args=config_of(**(common | more), output_dir=folder),
                train_dataset=paired["train"],
                eval_dataset=paired["heldout"],
                processing_class=tokenizer,
            )
            trainer.train()
            found = trainer.evaluate()
        print(
            name,
            {
                key: round(value, 4)
                for key, value in found.items()
                if key in ("eval_loss", "eval_rewards/accuracies")
            },
        )


def measure(model: str, rounds: int) -> dict[str, Any]:
    """Seconds per algorithm of each side, interleaved, and TRL's over ours."""
    contenders = {
        "ours": lambda: ours(model, least=False) / len(TEN),
        "ours, least": lambda: ours(model, least=True) / len(TEN),
        "trl": lambda: theirs(model) / len(FIVE),
    }
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in random.Random(number).sample(list(contenders), len(contenders)):
            print(f"ten, round {number + 1} of {rounds}: {name}", file=sys.stderr)
            found[name].append(contenders[name]())
    ratios = {
        name: [b / a for a, b in zip(found[name], found["trl"], strict=True)]
        for name in ("ours", "ours, least")
    }
    facts = {
        "case": "ten",
        "steps": STEPS,
        "pairs_per_step": BATCH,
        "algorithms": list(TEN),
        "theirs": list(FIVE),
    }
    return facts | {
        "seconds_per_algorithm": {name: spread(values) for name, values in found.items()},
        "ours_over": {name: spread(values) for name, values in ratios.items()},
    }


if __name__ == "__main__":
    run_theirs(sys.argv[1])
