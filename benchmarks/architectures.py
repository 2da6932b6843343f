"""Every causal architecture that the installed transformers knows, against plain transformers.

A tiny random model of each (`tiny_architectures`) scores 14 completions of five prompts, most of them longer
than its windows, and samples. Log-probabilities, gradients and what the sampler recorded are compared with
the same model computed plainly: eager attention, one row at a time, no padding, no cache. One that fails,
takes too long or ends its process costs only itself. Results are kept as they come, and a second call goes on
where the first one ended.

Example:
    python -m benchmarks.architectures --only llama,gpt_neo,mamba
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.tiny_architectures import VOCABULARY, architectures, build
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.errors import UsageError
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.probes.trial import plain_ids
from xpo_bench.policy.language.tokenize import Encoded, Row
from xpo_bench.policy.language.tokenizers import IdTokenizer
from xpo_bench.policy.language.windows import UNBOUNDED

OUT = Path(__file__).parents[1] / "results"
EXACT = 5e-4
"""Nats that the sum of a completion may differ by."""
ALIKE = 1e-3
"""What a gradient may differ by, as a fraction of the largest number in it."""
MATTERS = 1e-2
"""Nats by which the last token of a prompt must move a completion in the median, or the comparison proves
nothing.
"""
LENGTHS = ((3, (5, 80, 13)), (1, (4, 30)), (12, (20, 75, 3, 40)), (45, (30, 70)), (70, (9, 60, 25)))
"""Tokens of each prompt, and of its completions."""
DRAWN = 12


def main() -> None:
    """Compare what is not compared yet, and write both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", type=lambda text: text.split(","), help="names, parted by commas")
    parser.add_argument("--fresh", action="store_true", help="compare again what was compared before")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds for each architecture")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    known = architectures()
    if unknown := sorted(set(asked.only or ()) - set(known)):
        raise SystemExit(f"transformers knows no causal architecture {unknown[0]!r}")
    path = asked.out / "architectures.json"
    found = _kept(path)
    todo = [
        name
        for name in known
        if (not asked.only or name in asked.only) and (asked.fresh or name not in found)
    ]
    for name, result in _compare_all(todo, asked.limit):
        found[name] = {"class": known[name], **result}
        print(
            f"{len(found)}/{len(known)} {name}: {result['verdict']} ({result['seconds']} s)",
            file=sys.stderr,
            flush=True,
        )
        _write(path, found)
    shown = {name: found[name] for name in (asked.only or found) if name in found}
    print(json.dumps(shown, indent=1) if asked.json else table(shown))


def _kept(path: Path) -> dict[str, Any]:
    """What is there already of this version of transformers."""
    if not path.is_file():
        return {}
    held = json.loads(path.read_text("utf-8"))
    return dict(held["architectures"]) if held["versions"] == versions() else {}


def versions() -> dict[str, str]:
    """Of what is compared."""
    import transformers

    return {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}


def _write(path: Path, found: dict[str, Any]) -> None:
    ordered = dict(sorted(found.items()))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"versions": versions(), "architectures": ordered}, indent=1, sort_keys=True) + "\n",
        "utf-8",
    )
    path.with_suffix(".md").write_text(page(ordered), "utf-8")


# --------------------------------------------------------------------------- one architecture


def compare(name: str) -> dict[str, Any]:
    """What the suite makes of a model, beside plain transformers."""
    begun = time.monotonic()
    try:
        plain, own = build(name, "eager"), build(name)
        plain.config.use_cache = False
    except Exception as error:  # a configuration that transformers cannot build a model from
        return _outcome(begun, f"not built: {_said(error)}")
    try:
        spec = ModelSpec(name=name, tokenizer="ids", eos=False)
        policy = CausalLM(own, IdTokenizer(VOCABULARY), spec)
    except UsageError as error:
        reason = (
            str(error).split(": ", 1)[-1] if "not supported" in str(error) else str(error).split(") ", 1)[-1]
        )
        return _outcome(begun, f"not supported: {reason}")
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in plain.parameters()),
        "notes": policy.capabilities.notes,
    }
    rows = completions(plain)
    expected = plainly(plain, rows)
    found["largest_sum"] = round(float(expected.abs().max()), 1)
    found["prompt_effect"] = float(
        (plainly(plain, [_changed(row, plain) for row in rows]) - expected).abs().median()
    )
    weights = torch.linspace(-1.0, 2.0, len(rows))
    scores = policy.score({"all": (Encoded.of(rows), None)}, grad=True)["all"].sum[0]
    found["error"] = float((scores.detach() - expected.detach()).abs().max())
    ours = policy.gradients((scores * weights).sum())
    trained = [p for p in plain.parameters() if p.requires_grad]
    theirs = torch.autograd.grad((expected * weights).sum(), trained, materialize_grads=True)
    largest = max(float(g.abs().max()) for g in theirs)
    found["gradient_error"] = (
        max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)) / largest
    )
    try:
        found["sampler_error"] = sampled(policy, plain)
    except UsageError:
        found["sampler_error"] = None
    return _outcome(begun, verdict(found), **found)


def completions(model: Any) -> list[Row]:
    """14 rows of ids that stand for nothing special."""
    rows = []
    for number, (start, lengths) in enumerate(LENGTHS):
        prompt = plain_ids(model, start, seed=number)
        rows += [
            Row((*prompt, *plain_ids(model, length, seed=100 * number + length)), start) for length in lengths
        ]
    return rows


def _changed(row: Row, model: Any) -> Row:
    """The same completion behind a prompt with another last token."""
    other = next(i for i in plain_ids(model, 50, seed=7) if i != row.ids[row.start - 1])
    return Row((*row.ids[: row.start - 1], other, *row.ids[row.start :]), row.start)


def plainly(model: Any, rows: Sequence[Row]) -> Tensor:
    """Sums of log-probabilities, nats, one forward pass for each row."""
    sums = []
    for row in rows:
        _reset(model)
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].float()
        logps = logits.log_softmax(-1)[row.start - 1 : -1].gather(
            1, torch.tensor(row.ids[row.start :])[:, None]
        )
        sums.append(logps.sum())
    return torch.stack(sums)


def _reset(model: Any) -> None:
    """What dynamic scaling remembers of longer rows: a plain call means one by a process of its own."""
    for module in model.modules():
        if hasattr(module, "original_inv_freq") and hasattr(module, "original_max_seq_len"):
            module.inv_freq, module.max_seq_len_cached = (
                module.original_inv_freq.clone(),
                module.original_max_seq_len,
            )


def sampled(policy: CausalLM, plain: Any) -> float:
    """The largest difference between a sample's record and what plain transformers says of it, nats.

    Samples that pass a length at which the model computes otherwise are left out; infinite where the record
    does not count them.
    """
    prompts = [" ".join(map(str, plain_ids(plain, length, seed=length))) for length in (2, 9, 21, 60)]
    drawn = policy.sample(prompts, 2, max_new_tokens=DRAWN, generator=torch.Generator().manual_seed(0))
    rows = [row for i in range(len(drawn.encoded)) if (row := drawn.encoded.row(i)) is not None]
    positions, beyond = policy.network.positions, policy.capabilities.alone_beyond or UNBOUNDED
    said = [positions.changes(row.start, len(row.ids)) or len(row.ids) > beyond for row in rows]
    if sum(said) != policy.notes.get("samples_scored_otherwise", 0):
        return float("inf")
    with torch.no_grad():
        expected = plainly(plain, rows)
    return float((drawn.scores.sum[0] - expected).abs().masked_fill(torch.tensor(said), 0.0).max())


def verdict(found: dict[str, Any]) -> str:
    """`exact`, or what is wrong."""
    if found["prompt_effect"] < MATTERS:
        return f"nothing proven: a prompt moves a completion by {found['prompt_effect']:.1g} nats"
    wrong = [
        name for name in ("error", "sampler_error") if found[name] is not None and not found[name] <= EXACT
    ]
    wrong += ["gradient_error"] if not found["gradient_error"] <= ALIKE else []
    return f"wrong: {', '.join(wrong)}" if wrong else "exact"


def _outcome(begun: float, said: str, **found: Any) -> dict[str, Any]:
    numbers = {
        name: float(f"{value:.2g}") if isinstance(value, float) else value for name, value in found.items()
    }
    return {**numbers, "verdict": said, "seconds": round(time.monotonic() - begun, 1)}


def _said(error: Exception) -> str:
    text = " ".join(str(error).split()).split(". ")[0][:160]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# --------------------------------------------------------------------------- processes


def _work(names: Sequence[str], answers: Connection) -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in names:
        begun = time.monotonic()
        try:
            answers.send(compare(name))
        except Exception as error:  # the suite's own mistake: it is a line of the table
            answers.send(_outcome(begun, f"crash: {_said(error)}"))


def _compare_all(names: Sequence[str], limit: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Results as they come, from a process that is replaced when one takes too long or ends it."""
    todo = list(names)
    while todo:
        ours, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=_work, args=(todo, theirs), daemon=True)
        process.start()
        theirs.close()
        while todo:
            begun = time.monotonic()
            try:
                found = (
                    ours.recv() if ours.poll(limit) else _outcome(begun, f"not built: more than {limit:g} s")
                )
            except EOFError:
                process.join()
                found = _outcome(begun, f"crash: the process ended with status {process.exitcode}")
            yield todo.pop(0), found
            if not process.is_alive() or found["verdict"].startswith("not built: more"):
                break
        process.kill()
        process.join()


# --------------------------------------------------------------------------- tables


def page(found: dict[str, Any]) -> str:
    """The Markdown page."""
    kinds: dict[str, int] = {}
    for result in found.values():
        kind = result["verdict"].split(":")[0]
        kinds[kind] = kinds.get(kind, 0) + 1
    of = versions()
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f"""# Architectures

Every causal architecture of transformers {of["transformers"]} (torch {of["torch"]}), a tiny random model
each, against plain eager transformers computed one row at a time: {counts}. Made by
`python -m benchmarks.architectures`; [architectures.md](../docs/architectures.md) says what the columns mean.

{table(found)}
"""


def table(found: dict[str, Any]) -> str:
    """One line for each architecture."""
    head = (
        "| architecture | error | gradient | sampler | rows | prefix | head | last layer | "
        "sampling | verdict |"
    )
    lines = [head, "|---|---|---|---|---|---|---|---|---|---|"]
    for name, result in found.items():
        notes = result.get("notes", {})
        numbers = [_number(result.get(key)) for key in ("error", "gradient_error", "sampler_error")]
        words = [str(notes.get(key, "–")) for key in ("rows", "prefix", "head", "last_layer", "sampling")]
        cells = [f"`{name}`", *numbers, *words, result["verdict"].replace("|", "/")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1g}"


if __name__ == "__main__":
    main()
