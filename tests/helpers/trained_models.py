"""Models as trainers write them: small changes of the pretrained model of the tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pretrained import stories_folder

from xpo_bench import Result

ROWS = [
    ("Once upon a time", " there was a little girl.", " was big the of."),
    ("The dog", " ran to the park.", " ran to to to the."),
    ("Tim had a ball.", " He was happy.", " He was."),
    ("One day, Lily", " went outside to play with her friends.", " sad."),
    ("The sun was", " bright.", " a very loud and a cold thing."),
    ("Mom said,", ' "Come here, please."', ' "No no no no"'),
]
FEW: dict[str, Any] = {"kl_prompts": 2, "kl_samples": 2, "max_new_tokens": 6, "device": "cpu"}
"""Settings of evaluations whose samples no test looks at."""


def write_rows(path: Path, rows: list[tuple[str, str, str]] = ROWS) -> Path:
    names = ("prompt", "chosen", "rejected")
    path.write_text("".join(json.dumps(dict(zip(names, r, strict=True))) + "\n" for r in rows))
    return path


def changed(place: Path, seed: int, by: float, **words: Any) -> None:
    """The model with noise on its weights, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(stories_folder())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator))
    model.save_pretrained(place, **words)
    AutoTokenizer.from_pretrained(stories_folder()).save_pretrained(place)


Evaluate = Callable[..., Result]
"""`xpo_bench.evaluate` on the rows of the tests, with little sampling."""
