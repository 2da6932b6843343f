"""What this machine can do, as a list of findings."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from xpo_bench import plugins
from xpo_bench.data.packages.catalogue import SETS
from xpo_bench.data.packages.fetch import brought
from xpo_bench.errors import UsageError
from xpo_bench.runner import environment
from xpo_bench.runner.model_choice import language_model


def examine(model: str | None = None) -> list[dict[str, str]]:
    """Findings of `{"what", "status": "fine"|"note"|"wrong", "detail"}`, of a language model too.

    Raises:
        UsageError: the model cannot be loaded.
    """
    import torch

    found: list[dict[str, str]] = []

    def add(what: str, status: str, detail: str) -> None:
        found.append({"what": what, "status": status, "detail": detail})

    facts = environment.describe("cpu")
    add("python", "fine", f"{facts['python']} on {facts['platform']}")
    add("packages", "fine", ", ".join(f"{k} {v}" for k, v in facts["packages"].items()))
    add(
        "processor",
        "fine",
        f"{facts['processor']}, {facts['cores']} cores, torch uses {facts['threads']} threads",
    )
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(i).total_memory / 2**30
            add(f"cuda:{i}", "fine", f"{torch.cuda.get_device_name(i)}, {memory:.0f} GiB")
    else:
        add("accelerator", "note", "none; everything runs on the CPU")
    data = os.environ.get("XPO_BENCH_DATA")
    if not data:
        add(
            "XPO_BENCH_DATA",
            "note",
            "not set; tasks on real text sets (ukp) need a directory with NAME.parquet or NAME.jsonl",
        )
    elif not Path(data).is_dir():
        add("XPO_BENCH_DATA", "wrong", f"{data} is not a directory")
    else:
        names = sorted({p.stem for p in Path(data).iterdir() if p.suffix in (".parquet", ".jsonl")})
        add("XPO_BENCH_DATA", "fine", ", ".join(names) or "an empty directory")
    fetched = [name for name, one in SETS.items() if brought(one)]
    add(
        "fetched sets",
        "fine" if fetched else "note",
        ", ".join(fetched) or "none; `xpo-bench data --fetch list` shows which there are",
    )
    free = shutil.disk_usage(".").free / 2**30
    writable = os.access(".", os.W_OK)
    add(
        "results/runs",
        "fine" if writable else "wrong",
        f"{free:.0f} GiB free" if writable else "this directory is not writable; use --out",
    )
    registry = plugins.load()
    usable = sum(p.status == "ok" for p in registry.plugins)
    add(
        "plugins",
        "fine",
        f"{usable} usable, {len(registry.algorithms)} algorithms, {len(registry.tasks)} tasks",
    )
    for p in registry.plugins:
        if p.status in ("broken", "refused"):
            add(f"plugin {p.name}", "wrong", f"{p.origin}: {p.status}: {p.error}")
    if model is not None:
        found += _model(model)
    return found


def _model(name: str) -> list[dict[str, str]]:
    """What a language model is, and how much of it `--lora` reaches."""
    from xpo_bench.policy.language.loading import load_model
    from xpo_bench.policy.language.lora_targets import EXPERTS, known_targets, shares
    from xpo_bench.policy.language.model_facts import context_length
    from xpo_bench.policy.language.pretrained import quiet

    if name.partition(":")[0] in ("tabular", "linear"):
        raise UsageError(f"--model {name}: want a language model: tiny, a hub id or a path")
    with quiet():
        model, _ = load_model(language_model(name, trust_remote_code=False), init_seed=0)
    size = sum(p.numel() for p in model.parameters())
    targets, parts = known_targets(model), shares(model)
    fused = [target for target in targets if target.startswith(f"{EXPERTS}.")]
    left = [f"{kind} {part:.1%}" for kind, part in parts.items() if kind != "adapted" and part]
    reached = ", ".join(target for target in targets if target not in fused) or "no layer"
    more = f"; --lora r=R,targets={'+'.join(fused)} adapts the experts" if fused else ""
    about = f"{type(model).__name__}, {size:,} parameters, context {context_length(model.config, None)}"
    return [
        {"what": f"model {name}", "status": "fine", "detail": about},
        {
            "what": "--lora",
            "status": "note" if parts[EXPERTS] else "fine",
            "detail": f"{reached}: {parts['adapted']:.1%} of the weights; without: {', '.join(left)}{more}",
        },
    ]
