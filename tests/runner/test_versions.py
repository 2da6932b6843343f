"""A plan may say which version of a world it is about."""

from __future__ import annotations

import pytest

from xpo_bench import plugins
from xpo_bench.errors import UsageError
from xpo_bench.runner.plan import make_plan
from xpo_bench.runner.request import requests


def test_another_version_of_a_world_is_refused() -> None:
    words = {"algos": "dpo", "tasks": "one_pair,cycle", "seeds": 1}
    registry = plugins.load(frozenset())
    plain = make_plan(requests(words), registry)
    same = make_plan(requests(words | {"versions": {"one_pair": "1"}}), registry)
    assert [cell.key for cell in same.cells] == [cell.key for cell in plain.cells]
    with pytest.raises(UsageError, match=r"task one_pair: wanted in version 0, installed is 1"):
        make_plan(requests(words | {"versions": {"one_pair": "0"}}), registry)
    with pytest.raises(UsageError, match="expected a table of texts"):
        requests(words | {"versions": {"one_pair": 1}})
