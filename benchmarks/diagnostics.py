"""What `PreferenceDiagnostics` costs: CPU seconds of an evaluation against those of a training step.

    python -m benchmarks.diagnostics [--steps N] [--write FILE]

TRL's DPOTrainer with its own defaults (gradient checkpointing, batches of 8 pairs) on stories260K and the
first rows of tulu_human_eval_pairs under XPO_BENCH_DATA, one thread; the callback with its defaults, but at
every fourth step. Process time is counted, which other processes of the machine do not lengthen. The share at
n = 100 is that of one evaluation among 100 steps, by medians; what the callback does once, when training
begins, is stated apart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

EVERY, FAR = 4, 100


class Stopwatch:
    """Process time of every step and of every evaluation."""

    def __init__(self) -> None:
        self.step_s: list[float] = []
        self.evaluation_s: list[float] = []
        self.begin_s = 0.0


def measure(steps: int, model: Path, data: Path) -> dict[str, Any]:
    import torch
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer

    from xpo_bench.integrations.transformers import PreferenceDiagnostics

    torch.set_num_threads(1)
    watch = Stopwatch()

    class Timed(PreferenceDiagnostics):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            begin = time.process_time()
            super().on_train_begin(*args, **kwargs)
            watch.begin_s = time.process_time() - begin

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.begun = time.process_time()

        def on_step_end(self, args: Any, state: Any, *more: Any, **kwargs: Any) -> None:
            ended = time.process_time()
            watch.step_s.append(ended - self.begun)
            super().on_step_end(args, state, *more, **kwargs)
            if state.global_step % self.every == 0:
                watch.evaluation_s.append(time.process_time() - ended)

    rows = load_dataset("parquet", data_files=str(data), split="train").select(range(8 * steps))
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "save_strategy": "no",
            "max_length": 512,
        }
        args = DPOConfig(folder, max_steps=steps, disable_tqdm=True, logging_steps=steps, **options)
        DPOTrainer(str(model), args=args, train_dataset=rows, callbacks=[Timed(EVERY)]).train()
    step, evaluation = (statistics.median(values[1:]) for values in (watch.step_s, watch.evaluation_s))
    return {
        "model": model.name,
        "data": data.name,
        "batch": args.per_device_train_batch_size,
        "steps": len(watch.step_s),
        "evaluations": len(watch.evaluation_s),
        "step_s": spread(watch.step_s[1:]),
        "evaluation_s": spread(watch.evaluation_s[1:]),
        "begin_s": round(watch.begin_s, 2),
        "steps_per_evaluation": round(evaluation / step, 3),
        "share_at_100": round(evaluation / (FAR * step + evaluation), 4),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles, CPU seconds."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)]}  # type: ignore[dict-item]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=24, help="training steps that are timed")
    parser.add_argument(
        "--model", type=Path, help="model directory; stories260K beside XPO_BENCH_DATA by default"
    )
    parser.add_argument("--write", type=Path, help="JSON file of the result")
    asked = parser.parse_args()
    shared = Path(os.environ.get("XPO_BENCH_DATA", "../shared/data"))
    found = measure(
        asked.steps,
        asked.model or shared.parent / "models" / "stories260K",
        shared / "tulu_human_eval_pairs.parquet",
    )
    text = json.dumps(found, indent=2) + "\n"
    print(text, end="")
    if asked.write:
        asked.write.write_text(text)


if __name__ == "__main__":
    main()
