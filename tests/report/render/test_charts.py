"""The rules of charts, on what is drawn: who speaks, labels and legend, axes and their edges, units."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.lines import Line2D
from matplotlib.text import Text
from narrow import as_a
from pictures import assert_nothing_crosses, drawn, edges, joined, lines, points, texts

from xpo_bench.report.figures import Figure as Shown
from xpo_bench.report.figures import SweepFigure, sweep_figures, task_figures, throughput_figures
from xpo_bench.report.render.axes import bulk
from xpo_bench.report.render.curves import draw_curves, draw_losses
from xpo_bench.report.render.frontier import draw_frontier
from xpo_bench.report.render.labels import spread
from xpo_bench.report.render.style import COLOURS, GREY, MARKERS, SPEAKING, LineStyles
from xpo_bench.report.render.sweeps import draw_sweep
from xpo_bench.report.runs import SeedGroup, group
from xpo_bench.report.task_figures import CurvesFigure, FrontierFigure, LossFigure

Make = Callable[..., dict[str, Any]]
Point = dict[str, float]
NAMES = ("bon", "cdpo", "cpo", "dpo", "dpop", "ipo", "kto", "npo", "orpo", "rlhf")
STEPS = (0, 1, 10, 100, 1000)


def curve(height: float, steps: Sequence[int] = STEPS, **more: float) -> list[Point]:
    """Evaluations whose KL rises to `height`, on a path below √KL; `more` is multiplied by it."""
    out = []
    for i, step in enumerate(steps):
        kl = height * i / (len(steps) - 1)
        reward = 0.8 * math.sqrt(kl)
        rest = {name: scale * kl for name, scale in more.items()}
        gap = math.sqrt(kl) - reward
        out.append(
            {"step": step, "kl": kl, "gold_reward": reward, "frontier_gap": gap, "loss": 1 + kl} | rest
        )
    return out


@pytest.fixture
def figures(record: Make) -> Callable[..., tuple[Mapping[type, Any], LineStyles]]:
    """The figures of a task whose rows are given as curves, by their type, and how they are drawn."""

    def make(
        rows: Mapping[str, list[Point]], speaking: Sequence[str] | None = None, closed: Sequence[str] = ()
    ) -> tuple[Mapping[type, Any], LineStyles]:
        cells = [
            record(name.split()[0], config={"beta": name.split("=")[-1]}, notes={"solved": name in closed})
            | {"key": name}
            for name in rows
        ]
        groups = group(cells)
        shown: list[Shown] = task_figures("bandit", groups, lambda key: rows[key], speaking)
        return {type(f): f for f in shown}, LineStyles.of([f.algorithms for f in shown], (), groups)

    return make


# --------------------------------------------------------------------------- who speaks


def test_at_most_eight_rows_speak_and_the_others_are_grey(figures: Callable[..., Any]) -> None:
    rows = {name: curve(0.5 + i / 10) for i, name in enumerate(NAMES)}
    shown, styles = figures(rows)
    for kind, draw in ((CurvesFigure, draw_curves), (FrontierFigure, draw_frontier)):
        drawing = draw(shown[kind], styles)
        assert shown[kind].algorithms == list(NAMES[:SPEAKING])
        assert "grey: 2 other rows" in shown[kind].caption
        names = [e.label for e in drawing.legend if e.label != "exact frontier"]
        assert names == [*NAMES[:SPEAKING], "2 other rows"]
        for ax in drawn(drawing).axes:
            assert set(texts(ax)) >= set(NAMES[:SPEAKING])
            assert not set(texts(ax)) & set(NAMES[SPEAKING:])
            grey = lines(ax, "others")
            assert len(grey) == 2
            assert {line.get_color() for line in grey} == {GREY}
    losses = drawn(draw_losses(shown[LossFigure], styles))
    assert [ax.get_title(loc="left") for ax in losses.axes] == list(NAMES[:SPEAKING])


def test_the_reader_says_who_speaks(figures: Callable[..., Any]) -> None:
    rows = {name: curve(0.5 + i / 10) for i, name in enumerate(NAMES)}
    shown, styles = figures(rows, speaking=["rlhf", "dpo"])
    assert shown[CurvesFigure].algorithms == ["rlhf", "dpo"]
    assert [e.label for e in draw_curves(shown[CurvesFigure], styles).legend] == [
        "rlhf",
        "dpo",
        "8 other rows",
    ]
    shown, _ = figures(rows, speaking=[*NAMES])
    assert len(shown[CurvesFigure].algorithms) == SPEAKING
    shown, _ = figures(rows, speaking=["gone"])  # asked for elsewhere: the first rows speak
    assert shown[CurvesFigure].algorithms == list(NAMES[:SPEAKING])


def test_rows_of_one_algorithm_are_asked_for_by_its_name(figures: Callable[..., Any]) -> None:
    shown, styles = figures({"dpo beta=0.1": curve(1), "dpo beta=0.5": curve(2), "ipo": curve(3)}, ["dpo"])
    speaking = shown[CurvesFigure].speaking
    assert [g.algorithm for g in speaking] == ["dpo", "dpo"]
    a, b = (styles.row(g.label) for g in speaking)
    assert (a.colour, a.marker) == (b.colour, b.marker)
    assert a.dashes != b.dashes


# --------------------------------------------------------------------------- colours, markers, legend


@given(
    st.lists(st.lists(st.sampled_from("abcdefghijklmnopqrst"), unique=True, max_size=SPEAKING), max_size=5)
)
def test_an_algorithm_has_one_colour_and_marker_and_those_of_a_chart_can_be_told_apart(
    charts: list[list[str]],
) -> None:
    styles = LineStyles.of(charts, "abcdefghijklmnopqrst")
    for names in charts[:1]:  # the first chart has all colours to itself
        assert len({styles.algorithm(n).colour for n in names}) == len(names)
    for names in charts:
        assert len({(styles.algorithm(n).colour, styles.algorithm(n).marker) for n in names}) == len(names)
    for name in styles.algorithms:
        every = [styles.algorithm(name, turn) for turn in range(4)]
        assert len({(s.colour, s.marker) for s in every}) == 1
        assert len({s.dashes for s in every}) == 4


def test_eight_in_one_chart_differ_in_colour_and_in_marker() -> None:
    styles = [LineStyles.of([NAMES[:8]]).algorithm(n) for n in NAMES[:8]]
    assert {s.colour for s in styles} == set(COLOURS)
    assert {s.marker for s in styles} == set(MARKERS)


def test_the_legend_has_the_marker_and_dashes_of_every_line(figures: Callable[..., Any]) -> None:
    shown, styles = figures({name: curve(0.5 + i / 10) for i, name in enumerate(NAMES)})
    for kind, draw in ((CurvesFigure, draw_curves), (FrontierFigure, draw_frontier)):
        drawing = draw(shown[kind], styles)
        figure = drawn(drawing)
        handles = {str(h.get_label()): h for h in (as_a(Line2D, x) for x in figure.legends[0].legend_handles)}
        for e in drawing.legend:
            if e.label in NAMES:
                for ax in figure.axes:
                    mine = lines(ax, e.series)
                    assert {line.get_color() for line in mine} == {handles[e.label].get_color()}
                    used = {line.get_marker() for line in mine} - {"None"}
                    assert used == {handles[e.label].get_marker()} == {e.style.marker}
                    assert e.style.shape  # and the page can draw it
                    dashed = [line.is_dashed() for line in mine if line.get_marker() == "None"]
                    assert dashed == [handles[e.label].is_dashed()] == [bool(e.style.dashes)]


def test_labels_at_the_ends_of_lines_do_not_overlap(figures: Callable[..., Any]) -> None:
    """Also where all lines end at the same place."""
    shown, styles = figures({name: curve(1.0) for name in NAMES[:8]})
    for kind, draw in ((CurvesFigure, draw_curves), (FrontierFigure, draw_frontier)):
        figure = drawn(draw(shown[kind], styles))
        figure.draw_without_rendering()
        for ax in figure.axes:
            boxes = [Text.get_window_extent(text) for text in ax.texts if text.get_text() in NAMES]
            assert len(boxes) == 8
            for a, b in combinations(boxes, 2):
                assert a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1 or a.x1 <= b.x0 + 1 or b.x1 <= a.x0 + 1
            for box in boxes:  # nothing is cut
                assert figure.bbox.x0 <= box.x0
                assert box.x1 <= figure.bbox.x1 + 1


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.01, 0.2))
def test_places_of_labels(wanted: list[float], gap: float) -> None:
    places = spread(wanted, gap)
    kept = min(gap, 1 / max(1, len(wanted) - 1))
    assert all(-1e-9 <= p <= 1 + 1e-9 for p in places)
    ordered = sorted(places)
    assert all(b - a >= kept - 1e-9 for a, b in pairwise(ordered))
    for i, j in combinations(range(len(wanted)), 2):
        if wanted[i] < wanted[j]:
            assert places[i] < places[j]


# --------------------------------------------------------------------------- closed forms and units


def test_a_closed_form_is_a_level_line_and_a_point(figures: Callable[..., Any]) -> None:
    jump = [curve(2.0)[0], *({**curve(2.0)[-1], "step": step} for step in STEPS[1:])]
    shown, styles = figures({"dpo": curve(1.0), "rlhf": jump}, closed=["rlhf"])
    drawing = draw_curves(shown[CurvesFigure], styles)
    assert "a closed form is a level line" in shown[CurvesFigure].caption
    (ax, *_) = drawn(drawing).axes
    trained, level = (points(line) for line in joined(ax))
    assert level == [(0, 2.0), (1000, 2.0)]
    assert len(trained) == len(STEPS)
    assert shown[FrontierFigure].paths[shown[FrontierFigure].rows[1]] == [(2.0, jump[-1]["gold_reward"])]
    assert "a closed form is its mark alone" in shown[FrontierFigure].caption


def test_losses_have_axes_of_their_own(figures: Callable[..., Any]) -> None:
    rows = {"dpo": curve(1.0), "ipo": [p | {"loss": 1e6 * p["loss"]} for p in curve(1.0)]}
    shown, styles = figures(rows)
    assert "loss" not in shown[CurvesFigure].panels
    dpo, ipo = drawn(draw_losses(shown[LossFigure], styles)).axes
    assert dpo.get_ylim()[1] < 3
    assert ipo.get_ylim()[0] > 1e5
    # rows of one algorithm share its unit
    shown, styles = figures({"dpo beta=0.1": curve(1.0), "dpo beta=0.5": curve(2.0)})
    (ax,) = drawn(draw_losses(shown[LossFigure], styles)).axes
    assert texts(ax) == ["beta=0.1", "beta=0.5"]


def test_bars_stand_only_where_they_compare_rows_with_clocks_of_their_own(record: Make) -> None:
    shared = [record(name, pairs_per_s=3e6, vectorised=2) for name in ("dpo", "ipo")]
    one = [record("dpo", "ukp", pairs_per_s=3.0)]
    two = [record(name, "tea", pairs_per_s=speed) for name, speed in (("dpo", 3.0), ("ipo", 4.0))]
    (figure,) = throughput_figures(group([*shared, *one, *two]))
    assert figure.caption == "tea: speed of training, evaluation excluded"


def test_sweeps_that_are_asked_for_come_first_and_eight_speak(record: Make) -> None:
    cells = [
        record(
            name, config={"beta": beta}, regulariser=["beta", 1], kl=0.1 / beta, rejected_prob=beta / 2,
            notes={"optimum_kl": 0.2 / beta},
        )
        for name in NAMES for beta in (0.1, 1.0)
    ]  # fmt: skip
    groups = group(cells)
    (figure,) = sweep_figures(groups, speaking=["rlhf"])
    assert figure.algorithms == ["rlhf", *NAMES[:7]]
    drawing = draw_sweep(as_a(SweepFigure, figure), LineStyles.of([figure.algorithms], (), groups))
    assert [e.label for e in drawing.legend][-2:] == ["2 other sweeps", "exact optimum"]
    kl, rejected = drawn(drawing).axes
    assert {text.split()[0] for text in texts(kl)} == {"rlhf", *NAMES[:7]}
    assert [points(line) for line in lines(kl, "optimum")] == [[(0.1, 2.0), (1.0, 0.2)]]  # one for them all
    assert kl.get_ylim()[1] > 2
    assert not lines(rejected, "optimum")


# --------------------------------------------------------------------------- axes


def test_axes_hold_the_bulk_and_what_leaves_them_is_marked(figures: Callable[..., Any]) -> None:
    rows = {name: curve(0.5 + i / 10) for i, name in enumerate(NAMES[:7])}
    rows["npo"] = [p | {"kl": 100 * p["kl"]} for p in curve(1.0)]
    shown, styles = figures(rows)
    (ax, *_) = drawn(draw_curves(shown[CurvesFigure], styles)).axes
    assert ax.get_ylim()[1] < 1.5
    ((series, x, y),) = edges(ax)
    assert (series, y) == ("7", 1)  # the upper edge
    assert 0 < x < 1
    assert "npo ↑ 100" in texts(ax)
    ax = drawn(draw_frontier(shown[FrontierFigure], styles)).axes[0]
    assert ax.get_xlim()[1] < 2
    assert "npo → 100" in texts(ax)
    ((series, x, y),) = edges(ax)
    assert (series, x) == ("7", 1)
    assert 0 < y < 1


def test_lines_within_their_axes_have_no_mark(figures: Callable[..., Any]) -> None:
    shown, styles = figures({name: curve(0.5 + i / 10) for i, name in enumerate(NAMES)})
    for kind, draw in ((CurvesFigure, draw_curves), (FrontierFigure, draw_frontier)):
        for ax in drawn(draw(shown[kind], styles)).axes:
            assert not edges(ax)


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([(0, 1), (0, 100)], (0, 100)),  # of two, none is the bulk
        ([(0, 1), (0, 1), (0, 100)], (0, 100)),
        ([(0, 1), (0, 1), (0, 2), (0, 100)], (0, 2)),
        ([(0, 1), (0, 1), (0, 2), (-50, 1)], (0, 2)),
        ([(0, 1), (0, 1), (0, 2), (0, 9)], (0, 9)),  # the others are not flattened by it
        ([(0, 0), (0, 0), (0, 0), (0, 1)], (0, 1)),  # alone it moves
        ([(0, 1)] * 6 + [(0, 100), (0, 90)], (0, 1)),
        ([(0, 1)] * 6 + [(-90, 0), (0, 90)], (0, 1)),
        ([(0, 1)] * 5 + [(0, 100)] * 3, (0, 100)),  # three of eight are no exception
    ],
)
def test_the_bulk_of_series(ranges: list[tuple[float, float]], expected: tuple[float, float]) -> None:
    assert bulk(ranges) == expected


# --------------------------------------------------------------------------- the frontier, and the data


def test_no_path_lies_above_the_drawn_frontier(figures: Callable[..., Any]) -> None:
    """Two rows on the frontier itself, evaluated at different places and rarely."""
    exact = [
        [{"step": s, "kl": k, "gold_reward": math.sqrt(k), "frontier_gap": 0.0} for s, k in enumerate(kls)]
        for kls in ((0.0, 0.01, 2.0), (0.0, 0.5, 3.0))
    ]
    shown, styles = figures({"dpo": exact[0], "ipo": exact[1]})
    (ax,) = drawn(draw_frontier(shown[FrontierFigure], styles)).axes
    assert_nothing_crosses(ax)


def test_kl_and_reward_are_joined_by_their_step(figures: Callable[..., Any]) -> None:
    evaluated = curve(1.0)
    for p in evaluated[1:3]:
        del p["gold_reward"]
    shown, _ = figures({"dpo": evaluated})
    (path,) = shown[FrontierFigure].paths.values()
    assert path == [(p["kl"], p["gold_reward"]) for p in (evaluated[0], *evaluated[3:])]


def test_every_chart_has_its_numbers(figures: Callable[..., Any]) -> None:
    rows = {name: curve(0.5 + i / 10) for i, name in enumerate(NAMES)}
    shown, _ = figures(rows)
    blocks = read(shown[CurvesFigure].data)
    kl = blocks["KL from the initial policy (nats)"]
    assert [int(row["step"]) for row in kl] == list(STEPS)
    for name, evaluated in rows.items():  # the grey ones too
        assert [float(row[name]) for row in kl] == pytest.approx([p["kl"] for p in evaluated], rel=1e-4)
    assert len(read(shown[LossFigure].data)) == SPEAKING
    plane = read(shown[FrontierFigure].data)
    assert len(plane["paths"]) == len(NAMES) * len(STEPS)
    assert {"kl", "reward"} == set(plane["exact frontier"][0])


def read(text: str) -> dict[str, list[dict[str, str]]]:
    """Blocks of CSV by their titles."""
    blocks = [block.split("\n", 1) for block in text.strip().split("\n\n")]
    return {title.removeprefix("# "): list(csv.DictReader(rows.splitlines())) for title, rows in blocks}


def test_intervals_stand_beside_the_means(record: Make) -> None:
    groups: list[SeedGroup] = group([record("dpo", seed=s) for s in range(2)])
    curves = {f"dpobandit{s}": curve(1.0 + s) for s in range(2)}
    (figure,) = [f for f in task_figures("t", groups, curves.__getitem__) if isinstance(f, CurvesFigure)]
    (*_, last) = read(figure.data)["KL from the initial policy (nats)"]
    assert last["dpo"] == "1.5"
    assert float(last["dpo ±"]) == pytest.approx(6.4)  # Student's t of two seeds: 12.7 · 0.5
