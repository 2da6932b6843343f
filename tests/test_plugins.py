"""The loader: provenance, clashes, broken plugins, disabling; and a package built and installed for real."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

import xpo_bench
from xpo_bench import plugins
from xpo_bench.contract import hooks
from xpo_bench.contract.algorithm import SPEC, Algorithm
from xpo_bench.errors import UsageError

ROOT = Path(__file__).parents[1]
BUILTIN = ROOT / "plugins" / "xpo_bench_plugins"

PLAIN = '''
from dataclasses import dataclass
from typing import ClassVar
from xpo_bench import Algorithm, hookimpl

@dataclass(frozen=True)
class Plain(Algorithm):
    """Pushes the pair apart."""
    name: ClassVar[str] = "{name}"
    beta: float = 0.1

    def loss(self, step):
        return self.beta * (step.log_ratio("rejected") - step.log_ratio("chosen"))

@hookimpl
def xpo_algorithms():
    return [Plain]
'''

Distribution = Callable[..., Path]
Load = Callable[..., plugins.Registry]
Command = Callable[..., Any]


def plain(name: str) -> str:
    return PLAIN.replace("{name}", name)


def pasteable() -> str:
    """The first indented block of hooks' docstring."""
    block: list[str] = []
    for line in (hooks.__doc__ or "").splitlines():
        if line.startswith("    ") or (block and not line.strip()):
            block.append(line)
        elif block:
            break
    return textwrap.dedent("\n".join(block))


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Load]:
    """Loads the plugins with folders added to the path, as if for the first time."""
    for variable in ("XPO_BENCH_DISABLE", "XPO_BENCH_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)

    def fresh(*sites: Path, disable: tuple[str, ...] = ()) -> plugins.Registry:
        for site in dict.fromkeys(sites):
            monkeypatch.syspath_prepend(site)
        plugins.load.cache_clear()
        return plugins.load(frozenset(disable))

    yield fresh
    plugins.load.cache_clear()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def info(registry: plugins.Registry, name: str, distribution: str | None = None) -> plugins.PluginInfo:
    found = [p for p in registry.plugins if p.name == name and distribution in (None, p.distribution)]
    assert len(found) == 1
    return found[0]


# --------------------------------------------------------------------------- built-in plugins


@pytest.mark.parametrize("kind", ["algorithms", "tasks", "trackers"])
def test_entry_points_are_the_files(kind: str) -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"][
        "xpo_bench"
    ]
    declared = {name: module for name, module in table.items() if f".{kind}." in module}
    files = {
        path.stem: f"xpo_bench_plugins.{kind}.{path.stem}"
        for path in (BUILTIN / kind).glob("*.py")
        if path.stem != "__init__"
    }
    assert declared == files
    assert set(table.values()) <= {
        f"xpo_bench_plugins.{k}.{p.stem}"
        for k in ("algorithms", "tasks", "trackers")
        for p in (BUILTIN / k).glob("*.py")
    } | {"xpo_bench_plugins.claims"}


def test_every_builtin_plugin_is_usable_and_named_as_its_file(load: Load) -> None:
    registry = load()
    own = [p for p in registry.plugins if p.distribution == "xpo-bench"]
    assert {p.status for p in own} == {"ok"}
    claims = next(p for p in own if p.name == "claims")
    assert claims.hooks == ["xpo_claims"]
    assert claims.claims == sorted(path.stem for path in (BUILTIN / "claims").glob("*.toml"))
    own.remove(claims)
    for p in own:
        assert [*p.algorithms, *p.tasks, *p.trackers] == [p.name]
        assert not p.claims
        assert p.hooks == ["xpo_algorithms" if p.algorithms else "xpo_tasks" if p.tasks else "xpo_trackers"]


# --------------------------------------------------------------------------- a third party's plugin


def test_the_pasteable_plugin_parses_and_is_listed_and_runs(
    distribution: Distribution, warm: Command
) -> None:
    source = pasteable()
    ast.parse(source)
    site = distribution("their-dpo", {"my-dpo": source})
    listed = {p["name"]: p for p in warm("list", "plugins", "--json", PYTHONPATH=str(site)).json}
    assert listed["my-dpo"] == {
        "name": "my-dpo",
        "distribution": "their-dpo",
        "version": "1.0",
        "module": "their_dpo_0",
        "hooks": ["xpo_algorithms"],
        "algorithms": ["my-dpo"],
        "tasks": [],
        "metrics": [],
        "trackers": [],
        "claims": [],
        "status": "ok",
        "error": None,
    }
    assert listed["dpo"]["distribution"] == "xpo-bench"
    done = warm(
        "run",
        "--algos",
        "my-dpo,dpo",
        "--tasks",
        "deterministic",
        "--steps",
        "50",
        "--seeds",
        "1",
        "--json",
        PYTHONPATH=str(site),
    )
    assert done.code == 0, done.err
    mine, theirs = done.json["cells"]
    digest = mine["algorithm"].pop("source")
    assert len(digest) == 24
    assert digest != theirs["algorithm"]["source"]
    assert mine["algorithm"] | {"regulariser": None} == {
        "name": "my-dpo",
        "config": {"beta": 0.1},
        "plugin": "my-dpo",
        "distribution": "their-dpo",
        "version": "1.0",
        "regulariser": None,
    }
    assert mine["final_policy"] == theirs["final_policy"]  # the same equation as the built-in one
    table = warm("list", "plugins", PYTHONPATH=str(site)).out
    assert "my-dpo" in table
    assert "their-dpo" in table


def offers(body: str, arguments: str = "") -> str:
    return f"from xpo_bench import hookimpl\n@hookimpl\ndef xpo_algorithms({arguments}):\n    {body}"


BROKEN = {
    "raises": ("raise RuntimeError('no such luck\\nsecond line')", "RuntimeError: no such luck"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "imports": ("import not_there", "ModuleNotFoundError: No module named 'not_there'"),
    "syntax": ("def broken(:", "SyntaxError"),
    "hook raises": (offers("raise KeyError('x')"), "KeyError: 'x'"),
    "hook returns nothing": (offers("return None"), "TypeError"),
    "not a class": (offers("return [1]"), "must return subclasses of xpo_bench.Algorithm"),
    "another class": (offers("return [dict]"), "must return subclasses of xpo_bench.Algorithm"),
    "signature": (offers("return []", "surprise"), "surprise"),
    "not frozen": (plain("mine").replace("frozen=True", "frozen=False"), "TypeError"),
    "no dataclass": (
        plain("mine").replace("@dataclass(frozen=True)\n", ""),
        "Plain must be a frozen dataclass",
    ),
    "bad name": (plain("mine").replace('"mine"', '"Not A Name"'), "must match"),
    "reserved name": (plain("task"), "not be one of"),
    "no name": (plain("mine").replace('name: ClassVar[str] = "mine"', ""), "algorithm name None must match"),
}


@pytest.mark.parametrize(("source", "error"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_listed_with_its_error_and_others_work(
    load: Load, distribution: Distribution, source: str, error: str
) -> None:
    registry = load(distribution("bad-luck", {"unlucky": source, "lucky": plain("lucky")}, version="2.5"))
    broken = info(registry, "unlucky")
    assert broken.status == "broken"
    assert error in str(broken.error)
    assert len(str(broken.error).splitlines()) == 1
    assert info(registry, "lucky").status == "ok"
    assert "lucky" in registry.algorithms
    assert {p.status for p in registry.plugins if p.distribution == "xpo-bench"} == {"ok"}
    with pytest.raises(UsageError, match=r"plugin unlucky \(bad-luck 2\.5\) is broken: "):
        registry.algorithm("unlucky")


def test_a_broken_plugin_fails_only_a_run_that_asks_for_it(distribution: Distribution, warm: Command) -> None:
    site = str(distribution("bad-luck", {"unlucky": "raise RuntimeError('no such luck')"}, version="2.5"))
    words = ["--tasks", "deterministic", "--steps", "20", "--seeds", "1"]
    asked = warm("run", "--algos", "dpo,unlucky", *words, PYTHONPATH=site)
    assert asked.code == 2
    assert asked.lines == [
        "xpo-bench: algorithm 'unlucky': plugin unlucky (bad-luck 2.5) is broken: RuntimeError: no such luck"
    ]
    assert asked.out == ""
    assert warm("run", "--algos", "dpo", *words, PYTHONPATH=site).code == 0
    listed = {p["name"]: p for p in warm("list", "plugins", "--json", PYTHONPATH=site).json}
    assert listed["unlucky"]["status"] == "broken"
    assert listed["unlucky"]["error"] == "RuntimeError: no such luck"
    examined = warm("doctor", PYTHONPATH=site)
    assert examined.code == 1
    assert "bad-luck 2.5" in examined.out


def versioned(spec: str) -> str:
    return plain("later").replace("    beta:", f"    spec: ClassVar[object] = {spec}\n    beta:")


def test_a_plugin_made_for_a_later_contract_is_broken_and_says_what_to_do(
    distribution: Distribution, warm: Command
) -> None:
    site = distribution("from-the-future", {"later": versioned(str(SPEC + 1))}, version="9")
    listed = {p["name"]: p for p in warm("list", "plugins", "--json", PYTHONPATH=str(site)).json}
    assert listed["later"]["status"] == "broken"
    assert listed["later"]["error"] == (
        f"ValueError: Plain is made for version {SPEC + 1} of the contract of algorithms, "
        f"this xpo-bench knows 1 to {SPEC}: "
        "upgrade xpo-bench"
    )
    asked = warm("run", "--algos", "later", "--tasks", "bandit", PYTHONPATH=str(site))
    assert asked.code == 2
    assert "plugin later (from-the-future 9) is broken" in asked.lines[0]


def test_a_class_made_for_a_later_contract_is_not_run_either() -> None:
    @dataclass(frozen=True)
    class Later(Algorithm):
        name: ClassVar[str] = "later"
        spec: ClassVar[int] = SPEC + 1

    with pytest.raises(UsageError, match=rf"Later is made for version {SPEC + 1} of the contract"):
        xpo_bench.run(algos=[Later], tasks=["bandit"])


@pytest.mark.parametrize("spec", range(1, SPEC + 1))
def test_a_plugin_made_for_any_known_contract_is_taken(
    load: Load, distribution: Distribution, spec: int
) -> None:
    assert info(load(distribution("today", {"later": versioned(str(spec))})), "later").status == "ok"


@pytest.mark.parametrize("spec", ["0", "'2'", "True", "None"])
def test_what_is_no_version_is_refused(load: Load, distribution: Distribution, spec: str) -> None:
    found = info(load(distribution("odd", {"later": versioned(spec)})), "later")
    assert found.status == "broken"
    assert "Plain.spec must be a version of the contract, a whole number from 1 on" in str(found.error)


def test_a_broken_task_plugin_names_itself(load: Load, distribution: Distribution) -> None:
    source = "from xpo_bench import hookimpl\n@hookimpl\ndef xpo_tasks():\n    return [1]"
    registry = load(distribution("bad-luck", {"unlucky": source}))
    with pytest.raises(UsageError, match=r"task 'unlucky': plugin unlucky \(bad-luck 1\.0\) is broken"):
        registry.task("unlucky")


@pytest.mark.parametrize(("typo", "meant"), [("xpo_algorithm", "xpo_algorithms"), ("xpo_taks", "xpo_tasks")])
def test_a_mistyped_hook_is_refused_with_the_name_that_was_meant(
    load: Load, distribution: Distribution, typo: str, meant: str
) -> None:
    registry = load(distribution("typist", {"typo": plain("mine").replace("xpo_algorithms", typo)}))
    assert info(registry, "typo").status == "broken"
    assert f"unknown hook {typo!r}; did you mean {meant!r}?" in str(info(registry, "typo").error)
    assert "mine" not in registry.algorithms
    assert "dpo" in registry.algorithms


# --------------------------------------------------------------------------- clashes


def test_two_distributions_with_one_plugin_name_are_both_refused(
    load: Load, distribution: Distribution
) -> None:
    distribution("first-party", {"same": plain("one")}, version="1.1")
    site = distribution("second-party", {"same": plain("two")}, version="2.2")
    registry = load(site)
    for name in ("first-party", "second-party"):
        refused = info(registry, "same", name)
        assert refused.status == "refused"
        assert "first-party 1.1" in str(refused.error)
        assert "second-party 2.2" in str(refused.error)
    assert not {"one", "two"} & set(registry.algorithms)
    assert "dpo" in registry.algorithms


def test_two_distributions_with_one_algorithm_name_are_both_refused(
    load: Load, distribution: Distribution
) -> None:
    distribution("first-party", {"one": plain("same")}, version="1.1")
    site = distribution("second-party", {"two": plain("same")}, version="2.2")
    registry = load(site)
    for name in ("one", "two"):
        refused = info(registry, name)
        assert refused.status == "refused"
        assert "one (first-party 1.1)" in str(refused.error)
        assert "two (second-party 2.2)" in str(refused.error)
    with pytest.raises(UsageError, match=r"algorithm 'same': .*first-party 1\.1.*second-party 2\.2"):
        registry.algorithm("same")


def test_a_third_party_cannot_take_a_builtin_name_silently(
    load: Load, distribution: Distribution, warm: Command
) -> None:
    site = distribution("impostor", {"better": plain("dpo")})
    registry = load(site)
    assert info(registry, "better").status == "refused"
    assert info(registry, "dpo").status == "refused"
    assert "ipo" in registry.algorithms
    done = warm("run", "--algos", "dpo", "--tasks", "deterministic", PYTHONPATH=str(site))
    assert done.code == 2
    assert len(done.lines) == 1
    assert "impostor 1.0" in done.err
    assert "xpo-bench 0." in done.err
    remedy = warm(
        "run",
        "--algos",
        "dpo",
        "--tasks",
        "deterministic",
        "--steps",
        "10",
        "--seeds",
        "1",
        "--disable",
        "better",
        PYTHONPATH=str(site),
    )
    assert remedy.code == 0


def test_one_distribution_found_twice_is_one(load: Load, distribution: Distribution) -> None:
    first = distribution("twice", {"again": plain("again")}, folder="a")
    second = distribution("twice", {"again": plain("again")}, folder="b")
    assert info(load(first, second), "again").status == "ok"


# --------------------------------------------------------------------------- disabling


def test_what_is_disabled_is_not_imported(
    load: Load, distribution: Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = distribution("poison", {"poison": "raise AssertionError('imported')"})
    for registry in (load(site, disable=("poison",)), self_disabled(load, site, monkeypatch)):
        assert info(registry, "poison").status == "disabled"
        assert "disabled" in str(info(registry, "poison").error)
        assert "dpo" in registry.algorithms
        with pytest.raises(UsageError, match="is disabled"):
            registry.algorithm("poison")


def self_disabled(load: Load, site: Path, monkeypatch: pytest.MonkeyPatch) -> plugins.Registry:
    monkeypatch.setenv("XPO_BENCH_DISABLE", "nobody, poison")
    return load(site)


def test_the_allow_list_imports_nothing_else(
    distribution: Distribution, variables: Callable[..., dict[str, str]]
) -> None:
    distribution("poison", {"poison": "raise AssertionError('imported')"})
    site = distribution("good", {"good": plain("good")})
    probe = (
        "import sys; from xpo_bench import plugins; r = plugins.load(); "
        "print(sorted(r.algorithms), sorted(r.tasks), 'torch' in sys.modules, "
        "[m for m in sys.modules if m.startswith('xpo_bench_plugins.')], "
        "{p.name: p.status for p in r.plugins}['poison'])"
    )
    env = variables({"PYTHONPATH": str(site), "XPO_BENCH_PLUGINS": "good"})
    done = subprocess.run(
        [sys.executable, "-c", probe], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "['good'] [] False [] disabled"


def test_disable_on_the_command_line(distribution: Distribution, warm: Command) -> None:
    listed = {
        p["name"]: p
        for p in warm("list", "plugins", "--json", "--disable", "dpo", XPO_BENCH_DISABLE="kto").json
    }
    assert (listed["dpo"]["status"], listed["kto"]["status"], listed["ipo"]["status"]) == (
        "disabled",
        "disabled",
        "ok",
    )
    done = warm("run", "--algos", "dpo", "--tasks", "deterministic", "--disable", "dpo")
    assert done.code == 2
    assert done.lines == [
        (
            "xpo-bench: algorithm 'dpo': plugin dpo (xpo-bench 0.1.0) is disabled: disabled by "
            "--disable or XPO_BENCH_DISABLE"
        )
    ]


# --------------------------------------------------------------------------- observers


OBSERVER = """
import json, os
from xpo_bench import hookimpl

@hookimpl
def xpo_run_start(cell):
    raise RuntimeError("clumsy")

@hookimpl
def xpo_step_end(cell, step, metrics):
    with open("seen.jsonl", "a") as file:
        file.write(json.dumps([cell["algorithm"], cell["seed"], step, sorted(metrics)]) + "\\n")

@hookimpl
def xpo_run_end(record):
    with open("seen.jsonl", "a") as file:
        file.write(json.dumps(["end", record["key"], record["status"], "kl"]) + "\\n")
"""


def test_observers_see_every_evaluation_and_cannot_stop_a_run(
    distribution: Distribution, warm: Command, tmp_path: Path
) -> None:
    import json

    site = distribution("watchers", {"watcher": OBSERVER})
    words = ["--algos", "dpo", "--tasks", "deterministic", "--steps", "10", "--seeds", "2", "--json"]
    done = warm("run", *words, PYTHONPATH=str(site))
    assert done.code == 0
    assert "xpo-bench: plugin watcher: xpo_run_start raised RuntimeError: clumsy" in done.err
    seen = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text("utf-8").splitlines()]
    steps = [step for name, seed, step, _ in seen if name == "dpo" and seed == 1]
    assert steps == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert all("kl" in metrics for *_, metrics in seen)
    assert [(key, status) for name, key, status, _ in seen if name == "end"] == [
        (c["key"], "ok") for c in done.json["cells"]
    ]


# --------------------------------------------------------------------------- a package, built and installed


def test_a_package_built_as_a_wheel_and_installed_beside_the_suite(warm: Command, tmp_path: Path) -> None:
    project, target = tmp_path / "their-package", tmp_path / "target"
    (project / "their_package").mkdir(parents=True)
    (project / "their_package" / "__init__.py").touch()
    (project / "their_package" / "my_dpo.py").write_text(pasteable(), "utf-8")
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n\n'
        '[project]\nname = "their-package"\nversion = "3.1"\ndependencies = ["xpo-bench"]\n\n'
        '[project.entry-points.xpo_bench]\nmy-dpo = "their_package.my_dpo"\n\n'
        '[tool.hatch.build.targets.wheel]\npackages = ["their_package"]\n',
        "utf-8",
    )
    python(tmp_path, "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(project))
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    python(
        tmp_path,
        "pip",
        "install",
        "--no-index",
        "--no-deps",
        "--no-compile",
        "--target",
        str(target),
        str(wheel),
    )
    listed = {p["name"]: p for p in warm("list", "plugins", "--json", PYTHONPATH=str(target)).json}
    assert (listed["my-dpo"]["distribution"], listed["my-dpo"]["version"]) == ("their-package", "3.1")
    assert listed["my-dpo"]["status"] == "ok"
    done = warm(
        "run", "--algos", "my-dpo", "--tasks", "deterministic", "--steps", "50", PYTHONPATH=str(target)
    )
    assert done.code == 0, done.err
    assert "my-dpo" in done.out
    assert "Traceback" not in done.err


def python(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
