"""The file of a cell's items, `RUN/items/KEY.parquet`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xpo_bench.runner.columns import read, reals, texts, wholes
from xpo_bench.train.items import COLUMNS, LENGTHS, TEXTS, Items

if TYPE_CHECKING:
    import pyarrow as pa


def item_parquet(items: Items) -> bytes:
    """Items as parquet bytes: text, whole and real columns, nothing where there is nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: texts(items.texts[name]) for name in TEXTS}
    for name, values in items.values.items():
        columns[name] = (wholes if name in LENGTHS else reals)(values, ~np.isnan(values))
    sink = pa.BufferOutputStream()
    table = pa.table({name: columns[name] for name in COLUMNS})
    pq.write_table(table, sink, use_dictionary=["split", "cluster"], write_statistics=False)
    return bytes(sink.getvalue().to_pybytes())


def item_table(root: Path, key: str) -> pa.Table | None:
    """The items of a cell of a run directory; None where it has none, as in runs of earlier versions."""
    path = root / "items" / f"{key}.parquet"
    return read(path) if path.is_file() else None
