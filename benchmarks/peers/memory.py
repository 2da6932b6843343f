"""Peak memory of a step over a vocabulary of 49,152: what training adds to a process after imports.

    python -m benchmarks.peers.memory ours

Each contender has a process of its own, holds one model and what it makes of it (TRL a reference model, ours
a snapshot), and takes the same three batches.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from string import ascii_lowercase

import torch

from benchmarks.peers.cases import Case
from benchmarks.peers.contenders import BATCH, batches_of, job_of, library, ours, peer
from xpo_bench import ModelSpec
from xpo_bench.contract.examples import Pair
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.pretrained import quiet
from xpo_bench.train.memory import PeakMemory

VOCABULARY, PROMPT, COMPLETION, STEPS = 49_152, 128, 128, 3
CONTENDERS = ("ours", "trl", "trl-precomputed")


def peak_mb(contender: str) -> float:
    """MB of a contender above what the process held before there was a model; called once in a process."""
    library()
    resident = _resident_mb()
    memory = PeakMemory("cpu")
    memory.start()
    rng = random.Random(0)

    def text(tokens: int) -> str:
        return "".join(rng.choices(ascii_lowercase, k=tokens - 1))

    spec = ModelSpec(
        name="tiny",
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        layers=4,
        heads=4,
        context=512,
    )
    policy = CausalLM.load(spec, init_seed=0)
    pairs = tuple(Pair(text(PROMPT), text(COMPLETION), text(COMPLETION)) for _ in range(STEPS * BATCH))
    job = job_of(pairs, STEPS, 0)
    with quiet():
        if contender == "ours":
            ours(Case("memory", policy, policy.snapshot(), None, pairs), job)
        else:
            case = Case("memory", policy, {}, policy.model, pairs)
            peer(case, batches_of(case, job), precomputed=contender == "trl-precomputed", own=True)
    memory.stop()
    if memory.peak_mb is None:
        raise SystemExit("peers: this system does not tell the peak memory of a process")
    return memory.peak_mb - resident


def _resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024 / 1e6


def measure() -> dict[str, object]:
    """Peak memory of all contenders, each in a process of its own."""
    found = {}
    for contender in CONTENDERS:
        command = [sys.executable, "-m", "benchmarks.peers.memory", contender]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"peers: memory of {contender}: {done.stderr.strip().splitlines()[-1]}")
        found[contender] = json.loads(done.stdout)["peak_mb"]
    return {
        "case": "memory",
        "vocabulary": VOCABULARY,
        "pairs_per_step": BATCH,
        "tokens": {"prompt": PROMPT, "completion": COMPLETION},
        "peak_mb": found,
        "ours_over": {name: found["ours"] / found[name] for name in CONTENDERS[1:]},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({"peak_mb": peak_mb(sys.argv[1])}))
