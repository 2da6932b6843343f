"""What each of two processes does that a launcher has started: `torchrun --nproc-per-node 2 THIS FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from trl import DPOConfig, DPOTrainer
from trl_words import hub_rows, quiet_options, random_pairs

from xpo_bench.integrations.transformers import PreferenceDiagnostics
from xpo_bench.integrations.trl import PreferenceTrainer

ROWS = random_pairs(24)


def run(folder: Path, cls: type[Any], config: dict[str, Any], watched: bool = True, **given: Any) -> Any:
    """Train, with the callback or without, and say what came of it."""
    options = quiet_options(
        folder / "out",
        **{"learning_rate": 3e-3, "per_device_train_batch_size": 2, "ddp_backend": "gloo", **config},
    )
    max_kl = given.pop("max_kl", None)
    callback = PreferenceDiagnostics(every=2, pairs=8, kl_prompts=4, max_new_tokens=6, max_kl=max_kl)
    trainer = cls(
        model=str(folder / "model"),
        args=DPOConfig(**options),
        train_dataset=hub_rows(ROWS),
        callbacks=[callback] if watched else [],
        **given,
    )
    trainer.train()
    weights = torch.cat([p.detach().reshape(-1) for p in trainer.model.parameters()])
    state = getattr(getattr(trainer, "progress", None), "state_now", {})
    return {
        "log": trainer.state.log_history,
        "weights": weights.double().sum().item(),
        "first": weights[:8].tolist(),
        "steps": trainer.state.global_step,
        "state": {name: float(value) for name, value in state.items()},
        "measured": callback._measured,
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    twice = {"gradient_accumulation_steps": 2}
    out = {
        "bco": run(folder, PreferenceTrainer, {}, algorithm="bco", beta=0.5),
        "bco accumulated": run(folder, PreferenceTrainer, twice, algorithm="bco", beta=0.5),
        "kto": run(folder, PreferenceTrainer, {}, algorithm="kto", beta=0.5),
        "dpo": run(folder, DPOTrainer, {}),
        "dpo unwatched": run(folder, DPOTrainer, {}, watched=False),
        "stopped": run(folder, DPOTrainer, {"learning_rate": 0.02, "num_train_epochs": 20}, max_kl=0.5),
    }
    rank = torch.distributed.get_rank()
    (folder / f"{rank}.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
