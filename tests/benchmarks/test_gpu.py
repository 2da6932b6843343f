"""The hour on a GPU: a part that fails, hangs or dies costs itself alone; what a bare machine lacks."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from checkout import benchmark

gpu, check, parts, page = (benchmark(f"gpu.{name}") for name in ("__main__", "check", "parts", "page"))

WRITES = """
import json, sys
from pathlib import Path
Path(sys.argv[-1]).write_text(json.dumps([{'at': 1.5}]))
"""
DOCUMENT: dict[str, Any] = {
    "device": "cpu",
    "rehearsal": True,
    "card": None,
    "commit": None,
    "command": "python -m benchmarks.gpu",
    "python": "3.12.3",
    "packages": {"torch": "2.11.0"},
}


def part(name: str, code: str, seconds: float = 120) -> Any:
    """A part that runs Python."""
    return parts.Part(name, f"what {name} finds", seconds, (sys.executable, "-c", WRITES + code))


def measured(folder: Path, *given: Any, minutes: float = 12) -> tuple[int, dict[str, Any]]:
    code = gpu.measure(given, "cpu", minutes, folder, dict(DOCUMENT))
    document = json.loads((folder / "gpu.json").read_text("utf-8"))
    return code, {p["part"]: p for p in document["parts"]}


def test_every_part_fails_for_itself(tmp_path: Path) -> None:
    code, found = measured(
        tmp_path,
        part("fine", "print('told')"),
        part("wrong", "raise SystemExit('no such kernel')"),
        part("killed", "import os; os.kill(os.getpid(), 9)"),
        part("hangs", "import time; time.sleep(600)", seconds=2),
        part("last", "print('told')"),
    )
    assert code == 1
    assert {name: p["status"] for name, p in found.items()} == {
        "fine": "ok", "wrong": "failed", "killed": "failed", "hangs": "timeout", "last": "ok",
    }  # fmt: skip
    assert all(p["rows"] == [{"at": 1.5}] for p in found.values())  # what was written before the end is kept
    assert "no such kernel" in found["wrong"]["error"]
    assert "error" not in found["fine"]
    written = (tmp_path / "gpu.md").read_text("utf-8")
    assert "device: cpu. A rehearsal" in written
    assert "| wrong | what wrong finds | failed |" in written


def test_all_fine_is_0(tmp_path: Path) -> None:
    assert measured(tmp_path, part("fine", ""))[0] == 0


def test_the_numbers_are_there_after_every_part(tmp_path: Path) -> None:
    file = str(tmp_path / "gpu.json")
    look = f"print('seen', [p['part'] for p in json.load(open({file!r}))['parts']])"
    measured(tmp_path, part("one", ""), part("two", look))
    assert "seen ['one']" in (tmp_path / "gpu.log").read_text("utf-8")


def test_what_a_part_started_ends_with_it(tmp_path: Path) -> None:
    """A grandchild that ignores being asked, too."""
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    code = (
        "import subprocess, time; "
        f"child = subprocess.Popen([sys.executable, '-c', {stubborn!r}]); "
        f"Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid)); time.sleep(600)"
    )
    measured(tmp_path, part("hangs", code, seconds=6))
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            if Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z":
                time.sleep(0.05)
                continue
        break
    assert time.monotonic() < deadline


def test_time_that_is_over(tmp_path: Path) -> None:
    """The limits shrink with the time for all, and what no time is left for is not begun."""
    code, found = measured(
        tmp_path, part("one", "import time; time.sleep(600)"), part("two", ""), minutes=0.1
    )
    assert found["one"]["limit_s"] == pytest.approx(1)
    assert (found["one"]["status"], found["two"]["status"]) == ("timeout", "no time left")
    assert code == 1


def test_names_of_parts() -> None:
    assert [p.name for p in parts.chosen(["packed", "tests"])] == ["tests", "packed"]
    with pytest.raises(ValueError, match="fast: no such part; there are tests, first"):
        parts.chosen(["fast"])
    assert sum(p.seconds for p in parts.PARTS) <= 60 * gpu.WHOLE_MINUTES


def test_folders_of_modules_are_found_from_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "site")
    assert parts.environment(parts.PARTS[0])["PYTHONPATH"] == os.path.abspath("site")


def test_cells_of_a_table() -> None:
    rows = [{"a": 1234.5678, "b": True}, {"c": ["x", "y"], "a": 123456.7}]
    assert page.table(rows)[2:] == ["| 1235 | True |  |", "| 123,457 |  | x, y |"]


def test_what_a_bare_machine_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(check.BARE) == 0
    printed = capsys.readouterr().out
    assert "torch: 2.11.0" in printed
    assert "transformers: 5.17.0" in printed
    for name in ("pydantic==", "pydantic-core==", "datasets==", "rapidfuzz=="):
        assert name in printed.partition("\nhere:")[0]
    download = next(line for line in printed.splitlines() if "pip download" in line)
    assert "--python-version 3.12" in download
    assert "torch==" not in download


def test_what_is_there_in_a_version_that_does_not_do(tmp_path: Path) -> None:
    file = tmp_path / "have.txt"
    file.write_text("# theirs\ntorch==2.4.0\ntransformers\n", "utf-8")
    found = check.carried(["xpo-bench"], check.freeze(file), {"click": "8.1.8"})
    assert found.conflicts == ["xpo-bench wants torch>=2.9, there is torch 2.4.0"]
    assert "transformers" not in found.missing
    assert found.missing["click"] == "8.1.8"
    assert "numpy" in found.missing


@pytest.mark.parametrize(
    "names",
    [["first"], pytest.param([p.name for p in parts.PARTS], marks=pytest.mark.slow)],
    ids=["quick", "all"],
)
def test_rehearsal(tmp_path: Path, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The same parts through the same code, at small sizes."""
    words = [
        "--device",
        "cpu",
        "--minutes",
        "40",
        "--parts",
        ",".join(names),
        "--write",
        str(tmp_path / "out"),
    ]
    assert gpu.main(words) == 0, (tmp_path / "out" / "gpu.md").read_text("utf-8")
    document = json.loads((tmp_path / "out" / "gpu.json").read_text("utf-8"))
    assert document["rehearsal"]
    assert [p["part"] for p in document["parts"]] == names
    assert all(p["rows"] for p in document["parts"])
    assert document["packages"]["torch"]
