"""The figures of the article's experiments, as SVG and PNG, each beside the data that it shows as CSV.

The same data give the same bytes of SVG: no date, fixed identifiers, and text as outlines.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpo_bench.report.experiments.base import (
    EXPERIMENTS,
    PREFERRED,
    Data,
    Row,
    curve_reader,
    ipo_optimum,
    measure,
    of_experiments,
)
from xpo_bench.report.runs import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Distinguishable under the common kinds of colour blindness (Okabe and Ito 2008), without its yellow."""
MARKERS = "osD^vPX"
LINES = ("-", "--", ":")
GREY = "#9a9a9a"
STYLE: Any = {
    "svg.hashsalt": "xpo-bench",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "figure.dpi": 100,
    "savefig.dpi": 150,
}


def write_figures(root: Path, records: Sequence[Record]) -> list[Path]:
    """Draw every experiment among the records into `root/figures`; returns the files, in order.

    Args:
        root: a run directory, whose curves are read.
    """
    import matplotlib

    folder, curves, out = root / "figures", curve_reader(root), []
    for name, cells in of_experiments(records).items():
        data = measure(EXPERIMENTS[name], cells, curves)
        folder.mkdir(parents=True, exist_ok=True)
        out += [_write_csv(folder / f"{rows}.csv", data[rows]) for rows in data if data[rows]]
        with matplotlib.rc_context(STYLE):
            for stem, draw in FIGURES[name].items():
                figure = draw(data)
                if figure is not None:
                    out += _save(figure, folder, stem)
    return out


def _write_csv(path: Path, rows: Sequence[Row]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _save(figure: Figure, folder: Path, stem: str) -> list[Path]:
    """Both formats, without the date and version that would make equal figures differ."""
    svg, png = folder / f"{stem}.svg", folder / f"{stem}.png"
    figure.savefig(svg, metadata={"Date": None})
    figure.set_layout_engine("none")  # laid out once: what was placed for the one stands in the other
    figure.savefig(png, metadata={"Software": None})
    return [svg, png]


def _axes(columns: int, width: float, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _by(rows: Sequence[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows gathered by the values of some columns, in order of appearance."""
    out: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        out.setdefault(tuple(row[name] for name in names), []).append(row)
    return out


def _column(rows: Sequence[Row], name: str) -> list[Any]:
    return [row[name] for row in rows]


def _style(i: int) -> dict[str, Any]:
    """The i-th of 18 ways to draw a line: six colours, then hollow markers and other dashes."""
    colour, turn = COLOURS[i % 6], i // 6
    return {
        "color": colour,
        "ls": LINES[turn % 3],
        "marker": MARKERS[(i + 3 * turn) % 7],
        "mfc": "white" if turn % 2 else colour,
    }


# --------------------------------------------------------------------------- one function a figure


def overfit(data: Data) -> Figure | None:
    """Loss, π(rejected) and σ(β·margin) of DPO on one pair against steps."""
    rows = [r for r in data["overfit"] if r["step"] > 0]
    if not rows:
        return None
    figure, (loss, rejected, sigma) = _axes(3, 10)
    for i, ((over, _), run) in enumerate(_by(rows, "loss over", "seed").items()):
        style: dict[str, Any] = {
            "color": COLOURS[i % len(COLOURS)],
            "ls": LINES[i % len(LINES)],
            "label": f"loss over {over}s",
        }
        known = [r for r in run if r["loss"]]
        loss.loglog(_column(known, "step"), _column(known, "loss"), **style)
        rejected.loglog(_column(run, "step"), _column(run, "rejected_prob"), **style)
        sigma.semilogx(_column(run, "step"), _column(run, "sigma"), **style)
    late = next((r for r in data["overfit_late"] if r["loss over"] == "token"), None)
    if late:
        run = [r for r in rows if r["loss over"] == "token"]
        end = max(run, key=lambda r: r["step"])
        start = max(1, late["from step"])
        guide = [
            end["rejected_prob"] * 3e3 * (step / end["step"]) ** late["-1/beta"]
            for step in (start, end["step"])
        ]
        rejected.loglog(
            [start, end["step"]], guide, color=GREY, ls="-.", label=f"slope −1/β = −{1 / late['beta']:g}"
        )
    sigma.axhline(0.99, color=GREY, lw=1, ls="-.", label=".99")
    loss.set(title="Loss", ylabel="loss (nats)")
    rejected.set(title="Rejected token", ylabel="π(rejected), geometric mean over tokens")
    sigma.set(title="Confidence", ylabel="σ(β·margin)")
    for axes in (loss, rejected, sigma):
        axes.set_xlabel("SGD steps")
        axes.legend()
    return figure


def dpo_vs_ipo(data: Data) -> Figure | None:
    """π(rejected) and the margin under DPO and IPO at three strengths."""
    if not data["dpo_vs_ipo"]:
        return None
    figure, (rejected, margin) = _axes(2, 9)
    values = sorted({r["value"] for r in data["dpo_vs_ipo"]})
    for (name, knob, value), run in _by(data["dpo_vs_ipo"], "algorithm", "knob", "value").items():
        greek = {"beta": "β", "tau": "τ"}.get(knob, knob)
        style: dict[str, Any] = {
            "color": COLOURS[values.index(value) % len(COLOURS)],
            "ls": "-" if name == "dpo" else "--",
        }
        for axes, what in ((rejected, "rejected_prob"), (margin, "margin")):
            axes.plot(_column(run, "step"), _column(run, what), label=f"{name} {greek} = {value:g}", **style)
        if knob == "tau":
            margin.axhline(1 / (2 * value), color=style["color"], lw=0.8, ls=":")
    rejected.set(title="Rejected token", ylabel="π(rejected), geometric mean over tokens", yscale="log")
    margin.set(title="Margin (dotted: IPO's target 1/(2τ))", ylabel="margin per token (nats)")
    for axes in (rejected, margin):
        axes.set_xlabel("SGD steps")
    rejected.legend(ncols=2, loc="lower left")
    return figure


def learning_rates(data: Data) -> Figure | None:
    """Loss against steps at several rates on the language model; IPO's distance from its target on the table."""
    rows = sorted(data["learning_rates"], key=lambda r: (r["algorithm"], r["optimizer"], r["lr"], r["step"]))
    if not rows:
        return None
    figure, (language, table) = _axes(2, 10.5, 4)
    lm = _by([r for r in rows if r["policy"] != "table" and r["loss"] > 1e-8], "algorithm", "optimizer", "lr")
    for i, ((name, optimizer, rate), run) in enumerate(lm.items()):
        language.plot(
            _column(run, "step"),
            _column(run, "loss"),
            label=f"{name} {optimizer} {rate:g}",
            ms=3,
            **_style(i),
        )
    # the run that goes on until nothing is finite would flatten the others
    exact = _by([r for r in rows if r["policy"] == "table"], "lr", "steps")
    shortest = min((steps for _, steps in exact), default=0)
    for i, ((rate, _), run) in enumerate((key, run) for key, run in exact.items() if key[1] == shortest):
        course = "monotone" if rate < 1 / 4 else "oscillating" if rate < 1 / 2 else "divergent"
        table.plot(
            _column(run, "step"), _column(run, "distance"), label=f"{rate:g} {course}", ms=3, **_style(i)
        )
    language.set(
        title="Language model, one pair", xlabel="steps", ylabel="loss (IPO: nats², DPO: nats)", yscale="log"
    )
    language.set_ylim(1e-8, 1e13)
    language.legend(title="algorithm, optimizer, rate", loc="upper right", ncols=2)
    table.set_yscale("symlog", linthresh=0.1)
    table.set(
        title="IPO by gradient descent on a table",
        xlabel="steps",
        ylabel="1/(2τ) − margin (nats; linear within ±0.1)",
    )
    table.set_ylim(-3e7, 3e4)
    table.legend(title="rate η", loc="lower right", ncols=3)
    return figure


def bandit(data: Data) -> Figure | None:
    """Final π(action) against τ or β on the three worlds, beside IPO's closed form."""
    if not data["bandit"]:
        return None
    figure, panels = _axes(3, 10.5, 3.6)
    taus = [0.08 * (1.2 / 0.08) ** (i / 80) for i in range(81)]
    titles = {
        "deterministic": "Total order: a ≻ b ≻ c",
        "cycle": "Cycle: a ≻ b ≻ c ≻ a",
        "dominated": "c never wins, a and b tie",
    }
    for axes, world in zip(panels, PREFERRED, strict=True):
        for i, action in enumerate(PREFERRED[world]):
            colour = COLOURS[i]
            axes.plot(taus, [ipo_optimum(world, t)[action] for t in taus], color=colour, lw=1.2, ls=LINES[i])
            rows = [r for r in data["bandit"] if (r["world"], r["action"]) == (world, action)]
            for ipo in (True, False):
                here = [r for r in rows if r["algorithm"].startswith("ipo") == ipo]
                # side by side, so that what coincides can still be told apart
                x = [r["knob value"] * (1 + 0.04 * (i - 1)) for r in here]
                axes.errorbar(
                    x,
                    _column(here, "probability"),
                    yerr=[r["half interval"] or 0.0 for r in here],
                    fmt=MARKERS[i],
                    ms=5,
                    color=colour,
                    mfc=colour if ipo else "white",
                    capsize=2,
                    label=f"{'IPO' if ipo else 'DPO'}: π({action})",
                )
        axes.set(title=titles[world], xlabel="τ of IPO, β of DPO (1/nats)", xscale="log", ylim=(-0.04, 1.04))
        axes.set_xticks([0.1, 0.5, 1.0], ["0.1", "0.5", "1"])
        axes.minorticks_off()
    panels[0].set_ylabel("final probability, mean over seeds ± 95 %")
    panels[-1].legend(title="lines: IPO's closed form", ncols=2, loc="upper left")
    return figure


def robustness(data: Data) -> Figure | None:
    """π(rejected) on one certain pair against the weight decay of the reward."""
    rows = data["robustness"]
    if not rows:
        return None
    figure, (axes,) = _axes(1, 6)
    decays = sorted({r["reward_weight_decay"] for r in rows if r["reward_weight_decay"] is not None})
    for i, ((name,), run) in enumerate(_by(rows, "algorithm").items()):
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "ls": LINES[i % len(LINES)]}
        run = sorted(run, key=lambda r: r["reward_weight_decay"] or 0)
        if run[0]["reward_weight_decay"] is None:
            axes.axhline(
                run[0]["rejected probability"], label=f"{name} ({run[0]['knob']}), has no reward", **style
            )
        else:
            x = [decays.index(r["reward_weight_decay"]) for r in run]
            axes.plot(
                x,
                _column(run, "rejected probability"),
                marker=MARKERS[i],
                label=f"{name} ({run[0]['knob']})",
                **style,
            )
    axes.set_xticks(range(len(decays)), [f"{d:g}" for d in decays])
    axes.set(
        title="One certain pair",
        xlabel="weight decay of the fitted reward",
        ylabel="π(rejected) at the end",
        yscale="log",
    )
    axes.legend()
    return figure


def votes(data: Data) -> Figure | None:
    """frontier_gap of every algorithm against the number of votes per pair."""
    rows = data["votes"]
    if not rows:
        return None
    figure, (axes,) = _axes(1, 8, 4.6)
    for i, ((name,), run) in enumerate(_by(rows, "algorithm").items()):
        axes.plot(_column(run, "votes"), _column(run, "frontier_gap"), label=name, ms=4, lw=1, **_style(i))
    shares = {r["votes"]: r["unanimous"] for r in rows}
    axes.plot(list(shares), list(shares.values()), color="#000000", lw=2.2, label="share of unanimous\npairs")
    axes.set(
        xlabel="votes per pair (true preference .8)",
        ylabel="frontier_gap (reward)",
        xscale="log",
        yscale="log",
    )
    axes.set_xticks(list(shares), [str(n) for n in shares])
    axes.minorticks_off()
    axes.set_title("Finite data: reward left behind at the policy's own KL")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return figure


def frontier(data: Data) -> Figure | None:
    """Reward against KL along every algorithm's sweep, with the exact frontier."""
    rows = data["choosing_tau"]
    if not rows:
        return None
    labels = list(dict.fromkeys(r["labels"] for r in rows))
    figure, panels = _axes(len(labels), 5.2 * len(labels), 4.6)
    names = sorted({r["algorithm"] for r in rows})
    for axes, kind in zip(panels, labels, strict=True):
        exact = data["choosing_tau_frontier"]
        axes.plot(
            _column(exact, "kl"),
            _column(exact, "gold_reward"),
            color="#000000",
            lw=2.2,
            label="exact frontier",
            zorder=1,
        )
        for i, name in enumerate(names):
            run = sorted(
                (r for r in rows if (r["algorithm"], r["labels"]) == (name, kind)), key=lambda r: r["value"]
            )
            x, y, style = _column(run, "kl"), _column(run, "gold_reward"), _style(i)
            # lines join a sweep only for the eye: a chord of the frontier lies above it on this scale
            axes.plot(x, y, color=style["color"], ls=style["ls"], lw=0.8, alpha=0.35)
            axes.plot(x, y, **(style | {"ls": ""}), ms=5, label=name)
        axes.set(
            title=f"{kind} labels",
            xlabel="KL(π‖π_ref), regulariser swept (nats)",
            xscale="log",
            xlim=(1e-3, None),
        )
    panels[0].set_ylabel("E[reward]")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def control(data: Data) -> Figure | None:
    """How far every algorithm's regulariser moves KL: −d ln KL / d ln knob."""
    rows = data["choosing_tau_control"]
    if not rows:
        return None
    labels = list(dict.fromkeys(r["labels"] for r in rows))
    names = sorted({r["algorithm"] for r in rows}, reverse=True)
    figure, (axes,) = _axes(1, 7, 5)
    for i, kind in enumerate(labels):
        here = [r for r in rows if r["labels"] == kind]
        y = [names.index(r["algorithm"]) + 0.16 * (1 - 2 * i) for r in here]
        known = [(r, at) for r, at in zip(here, y, strict=True) if r["control"] is not None]
        spread = [
            [abs(r["control"] - (r[end] if r[end] is not None else r["control"])) for r, _ in known]
            for end in ("ci low", "ci high")
        ]
        axes.errorbar(
            [r["control"] for r, _ in known],
            [at for _, at in known],
            xerr=spread,
            fmt=MARKERS[i],
            color=COLOURS[i],
            ms=5,
            capsize=2,
            label=f"{kind} labels",
        )
        for r, at in zip(here, y, strict=True):
            if r["control"] is None:
                text = f"unsettled ({r['settled runs']} runs settled)"
                axes.annotate(
                    text, (0, at), xytext=(4, -2), textcoords="offset points", color=COLOURS[i], fontsize=7
                )
    axes.axvline(0, color="#000000", lw=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set(
        title="How far the regulariser moves KL (95 % interval of the slope)",
        xlabel="control: −d ln KL / d ln regulariser",
    )
    axes.legend(loc="upper right")
    return figure


FIGURES: Mapping[str, Mapping[str, Callable[[Data], Figure | None]]] = {
    "overfit": {"overfit": overfit},
    "dpo_vs_ipo": {"dpo_vs_ipo": dpo_vs_ipo},
    "learning_rates": {"learning_rates": learning_rates},
    "bandit": {"bandit": bandit},
    "robustness": {"robustness": robustness, "votes": votes},
    "choosing_tau": {"choosing_tau": frontier, "choosing_tau_control": control},
}
"""Experiment -> file name -> what draws it."""
