"""A page of the site per built-in algorithm, from its class, with the curves of a run that is made for it."""

from __future__ import annotations

import inspect
import io
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from claimed import claims_section

import xpo_bench
from xpo_bench import Algorithm, Group, Single, plugins
from xpo_bench.claims.document import Ledger
from xpo_bench.runner.settings import docs as field_docs
from xpo_bench.runner.settings import dump

ROOT = Path(__file__).parents[1]
ABILITIES = {
    "enumerable": "a policy whose distribution is exact (tabular)",
    "generate": "a policy that generates",
    "reward": "a policy on which a reward can be fitted",
    "tangent": "a policy whose gradient is known for all completions (tabular, linear)",
}
WORLD, SEEDS, STEPS = "deterministic", 3, 500
"""Of the runs that the figures show; what samples takes most of the time."""
PANELS = {"rejected_prob": "π(rejected), mean over pairs", "kl": "KL from the reference, nats"}


def write(folder: Path, seeds: int = SEEDS, ledger: Ledger | None = None) -> list[str]:
    """Write the overview, and a page and a figure per built-in algorithm; returns their names.

    Args:
        ledger: of claims, which the pages list.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = algorithms()
    drawn = portraits([cls.name for cls in known], seeds)
    (folder / "index.md").write_text(overview(known), "utf-8")
    for cls in known:
        (folder / f"{cls.name}.md").write_text(page(cls, seeds, ledger), "utf-8")
        (folder / f"{cls.name}.svg").write_bytes(drawn[cls.name])
    return [cls.name for cls in known]


def algorithms() -> list[type[Algorithm]]:
    """The built-in algorithms, by name."""
    found = plugins.load().algorithms
    return [cls for _, (cls, info) in sorted(found.items()) if info.distribution == "xpo-bench"]


def overview(known: Sequence[type[Algorithm]]) -> str:
    """The table of all algorithms."""
    rows = [
        f"| [{cls.name}]({cls.name}.md) | {plugins.summary_line(cls)} | {cls.source} | {_link(cls.paper)} |"
        for cls in known
    ]
    head = ["| name | what | source | paper |", "|---|---|---|---|"]
    return "\n".join(["# Algorithms", "", *head, *rows, ""])


def page(cls: type[Algorithm], seeds: int = SEEDS, ledger: Ledger | None = None) -> str:
    """One algorithm: its module's docstring, its fields and declarations, what is claimed of it, and mistakes
    made with it.
    """
    module = inspect.getdoc(sys.modules[cls.__module__]) or ""
    about, _, rest = module.partition("\n\n")
    algorithm = cls()
    sentences = field_docs(cls)
    parts = [f"# {cls.name}", " ".join(about.split()), _prose(rest)]
    rows = [
        f"| `{n}` | {v!r} | {sentences.get(n, '')} | {_range(cls, n)} |" for n, v in dump(algorithm).items()
    ]
    if rows:
        head = ["| field | default | what, unit | searched by the tuned protocol |", "|---|---|---|---|"]
        parts += ["## Fields", "\n".join([*head, *rows])]
    command = f"xpo-bench run --algos all --tasks {WORLD} --seeds {seeds} --steps {STEPS}"
    described = (
        f"π(rejected) and the KL from the reference, step by step: {cls.name}, with dpo and ipo in grey"
    )
    parts += [
        "## On certain preferences",
        f"![{described}]({cls.name}.svg)",
        f"World `{WORLD}`, the article's D1: three completions in a total order that no pair contradicts. "
        f"Means over {seeds} seeds of `{command}`, run when this page was built, with the default "
        "hyperparameters of every algorithm. [The article's experiments](../article.md) discuss the curves.",
    ]
    parts += ["## What it declares", "\n".join(f"- {line}" for line in _declared(algorithm))]
    parts += claims_section(ledger, cls.name)
    if mistakes := [line for line in _mistakes() if f"`{cls.name}`" in line.split("|")[1]]:
        head = ["| algorithms | mistake | consequence | caught by |", "|---|---|---|---|"]
        parts += ["## Mistakes found elsewhere", "\n".join([*head, *mistakes])]
    parts += [
        "## Try it",
        f"```\nxpo-bench run --algos {cls.name} --suite quick\nxpo-bench check {cls.name}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def portraits(names: Sequence[str], seeds: int = SEEDS) -> dict[str, bytes]:
    """Algorithm -> figure (SVG) of its curves on certain preferences, of a run that is made for it."""
    with tempfile.TemporaryDirectory() as folder:
        result = xpo_bench.run(list(names), [WORLD], seeds=seeds, steps=STEPS, out=folder)
        rows = [
            pd.read_parquet(result.out / "curves" / f"{key}.parquet", columns=["step", *PANELS]).assign(
                who=who
            )
            for who, key in ((cell["algorithm"]["name"], cell["key"]) for cell in result.cells)
        ]
    means = pd.concat(rows).groupby(["who", "step"]).mean().reset_index("step")
    # both panels have a logarithmic axis of steps, on which step 0 has no place
    curves = {name: means.loc[name].query("step > 0") for name in names}
    return {name: _portrait(name, curves) for name in names}


def _portrait(name: str, curves: Mapping[str, pd.DataFrame]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    lines = [(other, "0.6", ls) for other, ls in (("dpo", "--"), ("ipo", ":")) if other != name] + [
        (name, "#3b6fd4", "-")
    ]
    for ax, (metric, label) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        for who, colour, style in lines:
            ax.plot(curves[who]["step"], curves[who][metric], style, color=colour, label=who)
        ax.set(
            xscale="log",
            xlabel="step",
            title=label,
            **({"yscale": "log"} if metric == "rejected_prob" else {"ylim": (0, None)}),
        )
        ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    sink = io.BytesIO()
    figure.savefig(sink, format="svg", metadata={"Date": None})
    return sink.getvalue()


def _prose(text: str) -> str:
    """A docstring as Markdown: indented equations become blocks; the table of fields stands for `Args:`."""
    text = re.sub(r"^Args:\n(?:[ \t]+.*\n|\n)*", "", inspect.cleandoc(text), flags=re.MULTILINE)
    return re.sub(
        r"(?:^    .*\n?)+",
        lambda found: f"```text\n{inspect.cleandoc(found[0])}\n```\n",
        text,
        flags=re.MULTILINE,
    )


def _range(cls: type[Algorithm], name: str) -> str:
    low_high = cls.search_space.get(name)
    return f"{low_high[0]:g} to {low_high[1]:g}" if low_high else ""


def _declared(algorithm: Algorithm) -> list[str]:
    groups = ", ".join(f"`{name}`{_about(group)}" for name, group in algorithm.groups.items())
    examples = "unpaired examples" if algorithm.accepts is Single else "pairs"
    out = [f"trains on {examples}; scores {groups or 'nothing'}"]
    if algorithm.regulariser:
        field, direction = algorithm.regulariser
        more = "larger" if direction > 0 else "smaller"
        out.append(f"`{field}` regularises: the {more} it is, the nearer the policy stays to the reference")
    if algorithm.kl_strength:
        out.append(f"`{algorithm.kl_strength}` is the β of max E r − β·KL, for which `regret` is reported")
    out += [f"needs {ABILITIES[name]}" for name in sorted(algorithm.requires)]
    if algorithm.batch_coupled:
        out.append("the loss of an example depends on the others of its batch")
    stages = algorithm.stages()
    out.append(f"{len(stages)} stage{'s' if len(stages) > 1 else ''} of training")
    implied = type(algorithm).implied_preference is not Algorithm.implied_preference
    out.append(
        "implies a probability that chosen is preferred, which `calibration_error` judges"
        if implied
        else "implies no probability that chosen is preferred, so that no `calibration_error` is reported"
    )
    out.append(f"source: {algorithm.source}")
    return [*out, f"paper: {_link(algorithm.paper)}"] if algorithm.paper else out


def _link(paper: str) -> str:
    """The identifier of a paper as a link to it."""
    kind, _, number = paper.partition(":")
    return f"[{paper}](https://arxiv.org/abs/{number})" if kind == "arXiv" else f"<{paper}>"


def _about(group: Group) -> str:
    said = [
        word
        for word, holds in {
            "with the reference": group.reference,
            "without gradient": not group.grad,
            "with prompts of other examples": group.mismatched,
            "with the KL at every token": group.token_kl,
        }.items()
        if holds
    ]
    return f" ({', '.join(said)})" if said else ""


def _mistakes() -> list[str]:
    lines = (ROOT / "docs" / "mistakes.md").read_text("utf-8").splitlines()
    return [line for line in lines if line.startswith("| `")]
