"""The documentation: its Python runs, and it names every option, hook, metric and built-in plugin."""

from __future__ import annotations

import inspect
import re
import shlex
import textwrap
import tomllib
from pathlib import Path

import click
import pytest
from modules import imported

from xpo_bench import cli, plugins
from xpo_bench.contract import hooks
from xpo_bench.runner import listing

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/notebooks.md", "docs/plugins.md", "docs/records.md", "docs/tutorial.md"]
HOOKS = sorted(name for name in vars(hooks) if name.startswith("xpo_"))


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The fenced code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text(page), re.DOTALL | re.MULTILINE)


def rows(page: str) -> set[str]:
    """The names in backticks that start a row of a table."""
    return set(re.findall(r"^\| `([^`]+)` \|", text(page), re.MULTILINE))


def parameters(command: str) -> list[click.Option]:
    return [p for p in cli.main.commands[command].params if isinstance(p, click.Option)]


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run_in_order(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # a file, not exec: records name the source of the classes that they ran
    path = tmp_path / "blocks.py"
    path.write_text("\n\n".join(blocks(page, "python")), encoding="utf-8")
    assert path.stat().st_size > 0
    module = imported(path, f"blocks_of_{Path(page).stem}", monkeypatch)
    assert module.result.ok
    assert (tmp_path / "results" / "runs").is_dir()


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_plugin_is_that_of_the_hook_specification(page: str) -> None:
    documented = textwrap.indent(blocks(page, "python")[0], "    ", lambda line: bool(line.strip()))
    assert documented in (hooks.__doc__ or "")


def test_the_entry_point_is_that_of_the_hook_specification() -> None:
    assert textwrap.indent(blocks("README.md", "toml")[0], "    ") in (hooks.__doc__ or "") + "\n"


@pytest.mark.parametrize("page", ["README.md", "docs/cli.md", "docs/plugins.md", "docs/tutorial.md"])
def test_toml_blocks_parse(page: str) -> None:
    for block in blocks(page, "toml"):
        assert tomllib.loads(block)


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_are_documented_with_their_arguments(name: str) -> None:
    arguments = ", ".join(inspect.signature(getattr(hooks, name)).parameters)
    assert f"| `{name}({arguments})` |" in text("docs/plugins.md")
    used = "\n".join(blocks("docs/plugins.md", "python"))
    assert f"def {name}({arguments}):" in used


@pytest.mark.parametrize("command", ["run", "compare"])
def test_every_option_is_documented(command: str) -> None:
    section = re.split(r"^## ", text("docs/cli.md"), flags=re.MULTILINE)
    documented = re.findall(
        r"^\| `(--[a-z-]+)", next(part for part in section if part.startswith(command)), re.MULTILINE
    )
    missing = [p.opts[0] for p in parameters(command) if p.opts[0] not in documented]
    assert not missing


def test_choices_of_options_are_documented() -> None:
    page = text("docs/cli.md")
    for option in parameters("run"):
        if isinstance(option.type, click.Choice):
            assert f"`{option.opts[0]} " + r"\|".join(option.type.choices) + "`" in page


def command_lines() -> list[tuple[str, str]]:
    """(page, line) of every command of the suite on a page; synopses with brackets or alternatives aside."""
    out = []
    for page in sorted([Path("README.md"), *(p.relative_to(ROOT) for p in (ROOT / "docs").glob("*.md"))]):
        for language, block in re.findall(
            r"^```(\w*)\n(.*?)^```$", text(str(page)), re.MULTILINE | re.DOTALL
        ):
            for line in (
                re.sub(r"\\\n\s*", " ", block).splitlines()
                if language not in ("python", "toml", "json")
                else ()
            ):
                found = re.search(r"(?:^|[\s'])(xpo-bench [a-z][^#|\[&;>']*)(.?)", line)
                if found and found[2] not in ("[", "|") and "pip install" not in line:
                    out.append((str(page), found[1].strip()))
    return out


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_every_command_that_a_page_shows_is_one(page: str, line: str) -> None:
    words = shlex.split(re.sub(r"\$\(\(.*?\)\)", "1", line))[1:]
    # refuses unknown options and choices, and missing or too many arguments
    given = cli.main.commands[words[0]].make_context(words[0], words[1:]).params
    registry = plugins.load()
    for option, known in (
        ("algos", [*registry.algorithms, "all"]),
        ("tasks", registry.tasks),
        ("track", registry.trackers),
    ):
        names = given.get(option) or ()
        for name in names.split(",") if isinstance(names, str) else names:
            own = ("my-dpo", "my-algorithm", "offset")  # the reader's
            assert name in known or name in own or name.startswith("my_loss.py:")


def test_no_option_is_documented_that_is_not_there() -> None:
    known = {opt for command in cli.main.commands for p in parameters(command) for opt in p.opts} | {
        "--help",
        "--debug",
    }
    for page in (*PAGES, "docs/cli.md", "docs/metrics.md"):
        used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text(page)))
        assert not used - known, page


def test_every_check_of_the_kit_is_documented_with_its_statement() -> None:
    from xpo_bench.testing import CHECKS

    table = re.search(r"\| check \| what holds \|\n\|[-|]+\|\n(.*?)\n\n", text("docs/plugins.md"), re.DOTALL)
    assert table is not None
    assert table[1].splitlines() == [f"| `{check.name}` | {check.statement} |" for check in CHECKS]
    assert f"{len(CHECKS)} checks" in text("CHANGELOG.md")


def test_every_option_of_check_and_new_plugin_is_documented() -> None:
    for command in ("check", "new-plugin"):
        section = text("docs/cli.md").split(f"\n## {command}\n")[1].split("\n## ")[0]
        assert all(option.opts[0] in section for option in parameters(command))


def test_every_command_is_documented() -> None:
    for page in ("README.md", "docs/cli.md"):
        for command in cli.main.commands:
            assert f"xpo-bench {command} " in text(page) or f"xpo-bench {command}\n" in text(page), (
                page,
                command,
            )


def test_every_metric_is_documented_with_unit_and_direction() -> None:
    page = text("docs/metrics.md")
    sections = dict(re.findall(r"^### (\S+)\n\n(.*)$", page, re.MULTILINE))
    known = {row["name"]: row for row in listing.rows("metrics")}
    assert sections.keys() == known.keys()
    for name, row in known.items():
        unit, better, _ = sections[name].split(" · ")
        in_words = {"–": "no unit", "share": "a share", "step": "a step", "ratio": "a ratio"}
        assert unit == in_words.get(row["unit"], f"in {row['unit']}")
        assert better == (f"{row['better']} is better" if row["better"] else "neither direction is better")


@pytest.mark.parametrize("what", ["algos", "tasks"])
def test_every_built_in_has_a_row_in_the_readme(what: str) -> None:
    names = {row["name"] for row in listing.rows(what) if row["distribution"] == "xpo-bench"}
    assert names
    assert names <= rows("README.md")


def test_suites_of_the_readme_are_the_built_in_ones() -> None:
    from xpo_bench.runner.request import read_file, suites

    table = dict(re.findall(r"^\| `(\w+)` \|.* \| ([a-z, ]+) \|$", text("README.md"), re.MULTILINE))
    for name, path in suites().items():
        if "-" in name:  # a frozen suite has the worlds that its own test names
            continue
        named = {task for task, listed in table.items() if name in listed.split(", ")}
        assert named == {task for block in read_file(path) for task in block["tasks"]}


def test_task_settings_of_the_command_line_page_exist() -> None:
    options = {row["name"]: set(row["options"]) for row in listing.rows("tasks")}
    row = r"^\| ((?:`\w+`,? ?)+)\| (`\w+` \d.*|none of their own) \|$"
    for names, listed in re.findall(row, text("docs/cli.md"), re.MULTILINE):
        for task in re.findall(r"`(\w+)`", names):
            assert options.pop(task) == set(re.findall(r"`(\w+)`", listed))
    assert not {task for task in options if plugins.load().tasks[task][1].distribution == "xpo-bench"}


def test_names_of_class_variables_exist() -> None:
    from xpo_bench import Algorithm

    table = re.search(r"\| class variable \| meaning \|\n(.*?)\n\n", text("docs/plugins.md"), re.DOTALL)
    assert table is not None
    named = set(re.findall(r"^\| `(\w+)` \|", table[1], re.MULTILINE))
    declared = {
        name for name, kind in Algorithm.__annotations__.items() if "ClassVar" in str(kind) and name[0] != "_"
    }
    assert named == declared - {"name"}


def test_links_between_pages_resolve() -> None:
    for page in (*PAGES, "docs/ab.md", "docs/cli.md", "docs/metrics.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", text(page)):
            if not target.startswith("http"):
                assert (ROOT / page).parent.joinpath(target).exists(), (page, target)


def test_constraints_name_every_dependency_and_every_tool_once() -> None:
    lines = text("constraints.txt").split()
    pinned = [re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines]
    assert len(set(pinned)) == len(pinned)
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), (
        "one exact version a line, no local label"
    )
    project = tomllib.loads(text("pyproject.toml"))["project"]
    wanted = [
        *project["dependencies"],
        *(need for extra in project["optional-dependencies"].values() for need in extra),
        "tox",
    ]
    for need in wanted:
        assert re.split(r"[<>=\[;! ]", need)[0] in pinned, need


def test_every_fault_of_the_reliability_page_has_its_test() -> None:
    rows = [
        line
        for line in text("docs/reliability.md").splitlines()
        if line.startswith("| ") and "what happens" not in line
    ]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`(tests/[a-z_/]+\.py)`", row)
        assert named, row
        assert all((ROOT / path).exists() for path in named), row


def test_every_mistake_has_what_catches_it() -> None:
    from xpo_bench.testing import CHECKS

    lines = [line for line in text("docs/mistakes.md").splitlines() if line.startswith("| `")]
    assert len(lines) > 12
    known, checks = set(plugins.load().algorithms), {check.name for check in CHECKS}
    for line in lines:
        algorithms, *_, caught = line.strip("|").split("|")
        assert set(re.findall(r"`(\w+)`", algorithms)) <= known, line
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", caught)
        for path, name in tests:
            assert f"def {name}(" in text(path), (path, name)
        kit = re.findall(r"kit: `([\w-]+)`", caught)
        assert set(kit) <= checks, line
        assert tests or kit, line


def test_every_package_directory_is_on_the_layout_page() -> None:
    page = text("docs/layout.md")
    packages = [path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("xpo_bench/**/__init__.py")]
    assert len(packages) > 15
    missing = [name for name in packages if name != "xpo_bench" and f"`{name}/`" not in page]
    assert not missing
