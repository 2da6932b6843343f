"""TensorBoard event files, one folder per cell: curves while it runs, final metrics at the end."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from xpo_bench import Tracker, UsageError, hookimpl


class TensorBoard(Tracker):
    """Event files in `RUN/tracking/tensorboard/ALGORITHM-TASK-sSEED-KEY/`.

    A scalar per metric, `final/METRIC` at the end, and the configuration as text. Needs the extra
    `tensorboard`. Each write opens its file anew: a thousand cells side by side hold no thousand files open.
    """

    name: ClassVar[str] = "tensorboard"

    def __init__(self, run: Path) -> None:
        super().__init__(run)
        try:
            import tensorboard.summary.writer.record_writer  # noqa: F401
        except ImportError as error:
            raise UsageError(f"--track tensorboard: {error}; pip install 'xpo-bench[tensorboard]'") from None

    def run_start(self, cell: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.text.summary_v2 import text_pb

        folder = self._file(cell).parent
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        config = json.dumps(
            {"algorithm": cell["algorithm"], "task": cell["task"], "seed": cell["seed"]}
            | dict(cell["config"])
        )
        self._write(
            cell, Event(file_version="brain.Event:2"), Event(step=0, summary=text_pb("config", config))
        )

    def step_end(self, cell: Mapping[str, Any], step: int, metrics: Mapping[str, float]) -> None:
        self._scalars(cell, step, metrics)

    def run_end(self, cell: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        finals = {f"final/{name}": value for name, value in record["metrics"].items() if value is not None}
        self._scalars(cell, int(record["timing"].get("steps") or 0), finals)

    def _scalars(self, cell: Mapping[str, Any], step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in sorted(values.items())]
        self._write(cell, Event(step=step, summary=Summary(value=scalars)))

    def _file(self, cell: Mapping[str, Any]) -> Path:
        who = f"{cell['algorithm']}-{cell['task']}-s{cell['seed']}-{cell['key'][:8]}"
        return self.folder / re.sub(r"[^\w.-]", "_", who) / f"events.out.tfevents.{cell['key']}"

    def _write(self, cell: Mapping[str, Any], *events: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        with self._file(cell).open("ab") as file:
            writer = RecordWriter(file)
            for event in events:
                event.wall_time = time.time()
                writer.write(event.SerializeToString())


@hookimpl
def xpo_trackers() -> list[type[Tracker]]:
    return [TensorBoard]
