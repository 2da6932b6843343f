"""Draw the completions of the task gold_text once, from a small pretrained story model.

    python benchmarks/gold_text_samples.py MODEL_DIR plugins/xpo_bench_plugins/data/gold_text.jsonl

One line per prompt: {"prompt", "completions"}. A completion is cut behind its second sentence, so that it has
an end; samples without one within the length limit are left out, and so are repeats of a text. The file is
part of the task's version: the task never samples, so that its data are the same on every machine.
"""

from __future__ import annotations

import json
import re
import sys
from itertools import product
from pathlib import Path

import torch

from xpo_bench.contract.settings import ModelSpec
from xpo_bench.policy.language.causal_lm import CausalLM

GIRLS = ("Lily", "Mia", "Anna", "Sue", "Lucy", "Sara", "Amy", "Jane", "Emma", "Kate")
BOYS = ("Tom", "Ben", "Max", "Tim", "Sam", "Jack", "Bob", "Leo", "Dan", "Joe")
OPENINGS = (
    "{name} went to the park with {his} mom.",
    "{name} had a little dog.",
    "One day, {name} found a red ball.",
    "{name} was playing in the garden.",
    "It was raining, and {name} was at home.",
    "{name} and {his} friend saw a big tree.",
    "{name} wanted to bake a cake.",
    "{name} heard a loud noise.",
    "{name} lost {his} favorite toy.",
    "{name} met a bird who could not fly.",
    "It was time for bed, but {name} was not tired.",
    "{name} climbed up a tall hill.",
    "{name} gave {his} sister a gift.",
    "{name} fell off the swing.",
    "{name} opened the big box.",
    "{name} saw a cat in the road.",
)
CANDIDATES, KEPT, MAX_NEW_TOKENS = 24, 8, 72
SENTENCES = re.compile(r'^(?:[^.!?]+[.!?]+"?){2}')


def two_sentences(text: str) -> str | None:
    """The text up to the end of its second sentence, on one line, or None where there is no second end."""
    found = SENTENCES.match(" ".join(text.split()))
    return f" {found.group()}" if found else None


def main(model: str, target: Path) -> None:
    torch.set_num_threads(1)
    prompts = [
        opening.format(name=name, his="her" if name in GIRLS else "his")
        for opening, name in product(OPENINGS, (*GIRLS, *BOYS))
    ]
    policy = CausalLM.load(ModelSpec(name=model), init_seed=0)
    sampled = policy.sample(
        prompts, CANDIDATES, max_new_tokens=MAX_NEW_TOKENS, generator=torch.Generator().manual_seed(0)
    )
    lines = []
    for i, prompt in enumerate(prompts):
        texts = dict.fromkeys(
            filter(None, map(two_sentences, sampled.texts[i * CANDIDATES : (i + 1) * CANDIDATES]))
        )
        if len(texts) >= KEPT:
            lines.append(json.dumps({"prompt": prompt, "completions": list(texts)[:KEPT]}))
    target.write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} of {len(prompts)} prompts, {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
