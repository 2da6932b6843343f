"""The tables of `list`, `status` and `doctor`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from xpo_bench.report.tables.listing import print_doctor, print_list, print_status

Printed = Callable[..., str]


def test_status(printed: Printed) -> None:
    text = printed(print_status, 48, {"ok": 30, "diverged": 1, "failed": 2, "missing": 15})
    assert "31 of 48 planned cells finished" in text
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["30", "ok"],
        ["1", "diverged"],
        ["2", "failed"],
        ["15", "missing"],
    ]


@pytest.mark.parametrize("width", [80, 200])
def test_lists(printed: Printed, width: int) -> None:
    from xpo_bench.metrics.registry import describe

    text = printed(print_list, "metrics", describe(), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert all(str(row["name"]) in text for row in describe())
    plugins = [
        {
            "name": "a",
            "distribution": "d[/]",
            "version": "1",
            "hooks": ["xpo_tasks"],
            "status": "ok",
            "error": None,
        },
        {
            "name": "b",
            "distribution": "e",
            "version": "2",
            "hooks": [],
            "status": "broken",
            "error": "ImportError: no",
        },
    ]
    text = printed(print_list, "plugins", plugins, width=width)
    assert "d[/]" in text
    assert "b (e 2): ImportError: no" in text
    algos = [
        {
            "name": "dpo",
            "data": "pairs",
            "fields": {"beta": 0.1, "loss": "x"},
            "about": "DPO",
            "distribution": "d",
        }
    ]
    assert "beta=0.1, loss=x" in printed(print_list, "algos", algos, width=width)
    assert "0 tasks" in printed(print_list, "tasks", [], width=width)


def test_doctor(printed: Printed) -> None:
    text = printed(print_doctor, [{"what": "plugin x[/]", "status": "wrong", "detail": "broken " * 30}])
    assert "plugin x[/]" in text
    assert max(map(len, text.splitlines())) <= 80
