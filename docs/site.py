"""What the site is built from beside the pages of docs/: the README, the results, and a page per algorithm
from its class.

MkDocs calls the functions named `on_*`; `python -m pip install .[docs] && mkdocs build --strict` builds the
site.
"""

from __future__ import annotations

import inspect
import io
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xpo_bench import Algorithm, plugins
from xpo_bench.runner.settings import docs as field_docs
from xpo_bench.runner.settings import dump

ROOT = Path(__file__).parents[1]
ABILITIES = {
    "enumerable": "a policy whose distribution is exact (tables)",
    "generate": "a policy that generates",
    "reward": "a policy on which a reward can be fitted",
}


WORLD, SEEDS = "deterministic", 3
PANELS = {"rejected_prob": "π(rejected), mean over pairs", "kl": "KL from the reference, nats"}


def on_config(config: Any) -> Any:
    """Put the page of every algorithm into the navigation."""
    pages = ["algorithms/index.md", *({cls.name: f"algorithms/{cls.name}.md"} for cls in algorithms())]
    config.nav = [{"Algorithms": pages} if "Algorithms" in entry else entry for entry in config.nav]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add what is not in docs/."""
    from mkdocs.structure.files import File

    def add(name: str, content: str | bytes) -> None:
        files.append(File.generated(config, name, content=content))

    add(
        "index.md",
        (ROOT / "README.md")
        .read_text("utf-8")
        .replace("](docs/", "](")
        .replace("](LICENSE)", "](LICENSE.md)"),
    )
    add("CHANGELOG.md", (ROOT / "CHANGELOG.md").read_text("utf-8"))
    add("LICENSE.md", (ROOT / "LICENSE").read_text("utf-8"))
    for path in sorted((ROOT / "examples").glob("*/README.md")):
        add(path.relative_to(ROOT).as_posix(), path.read_text("utf-8").replace("](../../docs/", "](../../"))
    for path in sorted((ROOT / "results").rglob("*.*")):
        if "runs" not in path.parts and path.is_file():
            text = path.suffix == ".md"
            add(
                path.relative_to(ROOT).as_posix(),
                path.read_text("utf-8").replace("](../docs/", "](../") if text else path.read_bytes(),
            )
    known = algorithms()
    add("algorithms/index.md", overview(known))
    drawn = portraits([cls.name for cls in known])
    for cls in known:
        add(f"algorithms/{cls.name}.md", page(cls))
        add(f"algorithms/{cls.name}.svg", drawn[cls.name])
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Pages of docs/ link to what lies beside docs/, which on the site lies among them."""
    return markdown.replace("](../", "](") if "/" not in page.file.src_uri else markdown


def algorithms() -> list[type[Algorithm]]:
    """The built-in algorithms, by name."""
    found = plugins.load().algorithms
    return [cls for _, (cls, info) in sorted(found.items()) if info.distribution == "xpo-bench"]


def overview(known: Sequence[type[Algorithm]]) -> str:
    """The table of all algorithms."""
    rows = [f"| [{cls.name}]({cls.name}.md) | {plugins.summary_line(cls)} | {cls.source} |" for cls in known]
    return "\n".join(["# Algorithms", "", "| name | what | source |", "|---|---|---|", *rows, ""])


def page(cls: type[Algorithm]) -> str:
    """One algorithm: what its module says, its fields, what it declares, and the mistakes that are made with
    it.
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
        parts += [
            "## Fields",
            "\n".join(
                [
                    "| field | default | what, unit | searched by the tuned protocol |",
                    "|---|---|---|---|",
                    *rows,
                ]
            ),
        ]
    command = f"xpo-bench run --algos all --tasks {WORLD} --seeds {SEEDS}"
    parts += [
        "## On certain preferences",
        f"![π(rejected) and the KL from the reference, step by step: {cls.name}, with dpo and ipo in grey]({cls.name}.svg)",
        f"World `{WORLD}`, the article's D1: three completions in a total order that nothing contradicts. Means over {SEEDS} "
        f"seeds, with every algorithm as it is by default, of `{command}`, run when this page was built. "
        "[The article's experiments](../article.md) say what to make of it.",
    ]
    parts += ["## What it declares", "\n".join(f"- {line}" for line in _declared(algorithm))]
    if mistakes := [line for line in _mistakes() if f"`{cls.name}`" in line.split("|")[1]]:
        head = ["| algorithms | mistake | what comes of it | what catches it |", "|---|---|---|---|"]
        parts += ["## Mistakes found elsewhere", "\n".join([*head, *mistakes])]
    parts += [
        "## Try it",
        f"```\nxpo-bench run --algos {cls.name} --suite quick\nxpo-bench check {cls.name}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def portraits(names: Sequence[str]) -> dict[str, bytes]:
    """Algorithm -> figure (SVG) of its curves on certain preferences, of a run that is made for it."""
    import xpo_bench
    from xpo_bench.report.curves import curve_reader, series
    from xpo_bench.report.runs import group

    with tempfile.TemporaryDirectory() as folder:
        result = xpo_bench.run(list(names), [WORLD], seeds=SEEDS, out=folder)
        curves = {
            g.records[0].algorithm.name: series(g, curve_reader(result.out))
            for g in group(result.cells)
        }
    return {name: _portrait(name, curves) for name in names}


def _portrait(name: str, curves: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    lines = [(other, "0.6", ls) for other, ls in (("dpo", "--"), ("ipo", ":")) if other != name] + [
        (name, "#3b6fd4", "-")
    ]
    for ax, (metric, label) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        for who, colour, style in lines:
            points = [(step, band[0]) for step, band in curves[who].get(metric, {}).items() if step > 0]
            ax.plot(*zip(*points, strict=True), style, color=colour, label=who)
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
    """A docstring as Markdown: equations, which are indented, as blocks; arguments are left out, for the
    table has them.
    """
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
    out = [
        f"trains on {'singles' if algorithm.accepts.__name__ == 'Single' else 'pairs'}; scores {groups or 'nothing'}"
    ]
    if algorithm.regulariser:
        field, direction = algorithm.regulariser
        out.append(
            f"`{field}` is meant to hold the policy near the reference: {'more' if direction > 0 else 'less'} of it, nearer"
        )
    if algorithm.kl_strength:
        out.append(f"`{algorithm.kl_strength}` is the β of max E r − β·KL, so that `regret` is reported")
    out += [f"needs {ABILITIES[name]}" for name in sorted(algorithm.requires)]
    if algorithm.batch_coupled:
        out.append("the loss of an example depends on the others of its batch")
    stages = algorithm.stages()
    out.append(f"{len(stages)} stage{'s' if len(stages) > 1 else ''} of training")
    implied = type(algorithm).implied_preference is not Algorithm.implied_preference
    out.append(
        "claims a probability that chosen is preferred, which `calibration_error` judges"
        if implied
        else "claims no probability that chosen is preferred, so that no `calibration_error` is reported"
    )
    return [*out, f"source: {algorithm.source}"]


def _about(group: Any) -> str:
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
