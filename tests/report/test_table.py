"""Tables as data: widths, marks, labels, and which drawing a terminal takes."""

from __future__ import annotations

from xpo_bench.report.table import Column, Table, broken_header, labels, row_label


def test_marks_keep_columns_aligned() -> None:
    column = Column("x", ["1", "0.25"], [False, True], "lower")
    assert column.marked == ["1 ", "0.25*"]
    assert column.width == 5
    assert Column("x", ["1", "0.25"]).marked == ["1", "0.25"]


def test_a_very_long_label_is_cut() -> None:
    assert row_label("x" * 40) == "x" * 40
    assert row_label("x" * 41) == "x" * 39 + "…"
    assert labels(["a\x1b[31mb"]).cells == ["ab"]


def test_headers_are_broken_behind_underscores() -> None:
    assert broken_header("heldout_reward_accuracy") == "heldout_\nreward_\naccuracy"
    assert broken_header("attained_1") == "attained_1"


def test_a_terminal_takes_the_first_drawing_that_fits() -> None:
    wide, slim = (Table("t", [Column("", ["x" * n])]) for n in (90, 20))
    table = Table("t", wide.columns, narrow=[wide, slim])
    assert table.fitting(100) is wide
    assert table.fitting(80) is slim
    assert table.fitting(10) is slim  # the last anyway: it is split where the width ends
