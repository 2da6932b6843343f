"""The whole report on a preference set."""

from __future__ import annotations

from typing import Any

from xpo_bench.contract.settings import DataSpec, ModelSpec
from xpo_bench.data import sources
from xpo_bench.data.dataset import Examined, examine
from xpo_bench.random_streams import stream
from xpo_bench.report.preference_set.content import DatasetReport, with_tokens
from xpo_bench.report.preference_set.rows import Tell, text_quantities
from xpo_bench.runner.label_choice import labels_of

PAIRS = 256
"""Pairs that CHES is computed on, at most, where nothing else is asked for."""


def dataset_report(
    spec: DataSpec,
    model: ModelSpec,
    *,
    pairs: int = PAIRS,
    device: str = "auto",
    tell: Tell = lambda what, done, total: None,
) -> DatasetReport:
    """What a set holds, and what that means.

    Args:
        model: whose chat template and tokenizer read the rows; a tabular one has none.
        pairs: how many pairs CHES is computed on, at most; 0 leaves the model's weights alone.
        tell: is called with what is being done, how much of it is, and out of how much (0 where that is not
            known).

    Raises:
        DataError: the set cannot be had, or has no usable row.
        UsageError: the model cannot be had.
    """
    tell(f"reading {spec.source}", 0, 0)
    found = examine(sources.load(spec), spec, 0.0, stream(0, "data", "data"), model)
    quantities = text_quantities(found, tell)
    facts = _facts(found)
    if not model.tabular:
        from xpo_bench.report.preference_set.tokens import model_quantities  # torch and transformers

        facts["model"], in_tokens, more = model_quantities(
            found, model, spec.truncate, pairs=pairs, device=device, tell=tell
        )
        quantities = [
            with_tokens(q, *in_tokens[q.name]) if q.name in in_tokens else q for q in quantities
        ] + more
    return DatasetReport(facts, tuple(quantities))


def _facts(found: Examined) -> dict[str, Any]:
    dataset = found.dataset
    columns = "prompt, chosen, rejected" if dataset.kind == "pairs" else "prompt, completion, label"
    everyone = {e.person for e in (*dataset.train, *dataset.heldout)} - {None}
    return {
        "source": dataset.source,
        "revision": dataset.revision,
        "kind": dataset.kind,
        "layout": getattr(dataset, "layout", "") or columns,
        "columns": dict(getattr(dataset, "columns", {})),
        "rows": dataset.rows,
        "used": len(dataset.train) + len(dataset.heldout),
        "train": len(dataset.train),
        "heldout": len(dataset.heldout),
        "prompts": len({e.prompt for e in (*dataset.train, *dataset.heldout)}),
        "persons": len(everyone) or None,
        "labels": {
            policy: labels_of(None, dataset, ModelSpec(name=name))
            for policy, name in (("tabular", "tabular"), ("linear", "linear"), ("language", "tiny"))
        },
        "model": None,
    }
