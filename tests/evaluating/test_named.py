"""What the arguments of `evaluate` name."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from xpo_bench import UsageError
from xpo_bench.evaluating.named import series_of
from xpo_bench.evaluating.plan import parse_betas


def model(folder: Path) -> Path:
    """The least that is taken for a model: a configuration, and weights that are whole."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    return folder


def test_checkpoints_are_in_numeric_order_however_they_are_called(tmp_path: Path) -> None:
    for name in ("checkpoint-100", "checkpoint-20", "checkpoint-9"):
        model(tmp_path / "a" / name)
    for name in ("global_step10", "step-2", "notes"):
        model(tmp_path / "b" / name)
    (tmp_path / "a" / "logs").mkdir()
    a, b = series_of([str(tmp_path / "a"), f"x={tmp_path / 'b'}"], None)
    assert (a.name, [p.step for p in a.points]) == ("a", [9, 20, 100])
    assert (b.name, [p.step for p in b.points]) == ("x", [2, 10])


def test_names_are_those_of_directories_and_of_runs_of_checkpoints(tmp_path: Path) -> None:
    model(tmp_path / "My Model")
    for step in (1, 2):
        model(tmp_path / "run" / f"checkpoint-{step}")
    paths = [tmp_path / "My Model", *(tmp_path / "run" / f"checkpoint-{step}" for step in (2, 1))]
    first, run = series_of([str(p) for p in paths], None)
    assert first.name == "my-model"
    assert run.name == "run"  # two of its checkpoints, named one by one, are one run
    assert [p.step for p in run.points] == [1, 2]


def test_a_checkpoint_that_is_named_twice_is_one_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        model(tmp_path / "run" / f"checkpoint-{step}")
    monkeypatch.chdir(tmp_path)
    (run,) = series_of(["run/", "run/checkpoint-2", str(tmp_path / "run" / "checkpoint-1")], None)
    assert [p.step for p in run.points] == [1, 2]


def test_a_β_without_a_name_is_that_of_the_others() -> None:
    for given in ("dpo=0.1,0.2", "0.2,dpo=0.1"):
        assert parse_betas(given, ["dpo", "ipo"]) == {"dpo": 0.1, "ipo": 0.2}
    assert parse_betas("dpo=0.1", ["dpo", "ipo"]) == {"dpo": 0.1}
    for given in ("0.1,0.2", "dpo=0.1,dpo=0.2"):
        with pytest.raises(UsageError, match="two numbers"):
            parse_betas(given, ["dpo"])


def test_several_runs_of_one_name_are_told_apart_by_their_seed(tmp_path: Path) -> None:
    places = [model(tmp_path / name / "final") for name in "ab"]
    found = series_of([f"dpo={place}" for place in places], None)
    assert [(s.name, s.seed) for s in found] == [("dpo", 0), ("dpo", 1)]
    with pytest.raises(UsageError, match=r"called final, as .* is; give both a name"):
        series_of([str(place) for place in places], None)


def test_a_path_may_hold_an_equals_sign(tmp_path: Path) -> None:
    place = model(tmp_path / "beta=0.1")
    (only,) = series_of([str(place)], None)
    assert only.name == "beta-0.1"


def test_policies_of_this_suite_say_who_they_are(tmp_path: Path) -> None:
    for seed in (3, 5):
        place = model(tmp_path / f"dpo-{seed}")
        (place / "xpo_bench.json").write_text(
            json.dumps({"algorithm": "dpo", "seed": seed, "steps": 20, "tokenizer": "own"})
        )
    found = series_of([str(tmp_path / f"dpo-{seed}") for seed in (3, 5)], None)
    assert [(s.name, s.seed, s.stream, s.points[0].step) for s in found] == [
        ("dpo", 3, "dpo", 20),
        ("dpo", 5, "dpo", 20),
    ]
    with pytest.raises(UsageError, match="another policy of dpo at seed 1"):
        series_of([str(tmp_path / f"dpo-{seed}") for seed in (3, 5)], 1)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("DPO={}/a", "the name 'DPO' must match"),
        ("dpo=", "nothing stands after the ="),
        ("{}/nowhere", "no such directory"),
        ("{}/empty", "holds no checkpoint"),
        ("{}/file", "is a file"),
    ],
)
def test_what_names_nothing_is_refused_in_one_line(tmp_path: Path, argument: str, message: str) -> None:
    model(tmp_path / "a")
    (tmp_path / "empty" / "logs").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=message) as refused:
        series_of([argument.format(tmp_path)], None)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.write_bytes(f.read_bytes()[:-2]), "incomplete or corrupt"),
        (lambda f: f.write_bytes(b""), "incomplete or corrupt"),
        (lambda f: f.unlink(), "has no weights"),
        (lambda f: f.rename(f.with_name("pytorch_model.bin")), "is pickled.*convert it: python -c"),
        (lambda f: (f.unlink(), (f.parent / "global_step5").mkdir()), "zero_to_fp32.py"),
        (lambda f: (f.unlink(), (f.parent / "pytorch_model_fsdp_0").mkdir()), "accelerate merge-weights"),
        (lambda f: (f.parent / "adapter_config.json").write_text("{}"), "an adapter .* and whole weights"),
        (
            lambda f: (f.parent / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})
            ),
            "model-00001-of-00002.safetensors is missing, one of 1 shards",
        ),
    ],
)
def test_checkpoints_that_are_not_whole_are_refused(tmp_path: Path, spoil: object, message: str) -> None:
    place = model(tmp_path / "run" / "checkpoint-5")
    spoil(place / "model.safetensors")  # type: ignore[operator]
    with pytest.raises(UsageError, match=message):
        series_of([str(tmp_path / "run")], None)


def test_a_hub_id_is_the_files_of_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--policy"
    model(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("xpo_bench.checkpoints._hub_answers", lambda _: False)
    (only,) = series_of(["someone/policy"], None)
    assert only.name == "policy"
    assert only.points[0].shown == "someone/policy"
    assert only.points[0].revision == commit
    with pytest.raises(UsageError, match="someone/else: no such directory, and no hub id"):
        series_of(["someone/else"], None)
