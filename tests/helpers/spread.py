"""Which tests go to one process of pytest-xdist: those that share what is costly, or must not overlap.

The groups of pytest-xdist 3.8 (`--dist loadgroup`) come to nothing under pytest 9.2, whose ids of tests take
no suffix.
"""

from __future__ import annotations

from typing import Any

import pytest

TOGETHER = {
    "tests/cli/test_ci.py": "one repository after its first push",
    "tests/cli/test_report.py": "one run",
    "tests/cli/test_new_plugin.py": "fresh",
    "tests/policy/language/test_families.py": "every family is built once",
    "tests/policy/language/test_adapters.py": "two models, loaded once",
    "tests/policy/language/test_ensemble.py": "two models, loaded once",
    "tests/policy/language/test_layout.py": "every family is built once",
    "tests/policy/language/test_pretrained.py": "one model of 135 million weights",
    "tests/policy/language/test_sharding.py": "one fork server",
    "tests/report/experiments/test_article.py": "every experiment is run once",
    "tests/report/experiments/test_figures.py": "article",
    "tests/report/render/test_html.py": "article",
    "tests/report/test_content.py": "one run of many kinds",
    "tests/runner/executors/test_data_parallel.py": "one fork server",
    "tests/runner/executors/test_kills.py": "one fork server",
    "tests/runner/executors/test_process_pool.py": "processes are killed within seconds that are counted",
    "tests/runner/executors/test_ray_pool.py": "one cluster",
    "tests/runner/search/test_target_kl.py": "one search",
    "tests/test_examples.py": "fresh",
    "tests/test_imports.py": "one graph of imports",
}
"""File -> what its tests share, also with other files; the tests of any other file are spread one by one."""


def group_of(nodeid: str) -> str:
    """The tests that go to one process with a test: those of equal groups."""
    return TOGETHER.get(nodeid.split("::")[0], nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Groups first, the larger ones before the smaller, then what goes anywhere."""
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = group_of
    return scheduler
