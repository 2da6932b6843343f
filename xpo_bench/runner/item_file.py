"""The file of a cell's items, `RUN/items/KEY.parquet`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xpo_bench.train.items import COLUMNS, LENGTHS, TEXTS, Items

if TYPE_CHECKING:
    import pyarrow as pa


def item_parquet(items: Items) -> bytes:
    """Items as parquet bytes: text, whole and real columns, nothing where there is nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(items.texts[name], pa.string()) for name in TEXTS}
    for name, values in items.values.items():
        column = pa.array(values, pa.float64(), from_pandas=True)  # NaN is nothing
        columns[name] = column.cast(pa.int64()) if name in LENGTHS else column
    sink = pa.BufferOutputStream()
    table = pa.table({name: columns[name] for name in COLUMNS})
    pq.write_table(table, sink, use_dictionary=["split", "cluster"], write_statistics=False)
    return bytes(sink.getvalue().to_pybytes())


def item_table(root: Path, key: str) -> pa.Table | None:
    """The items of a cell of a run directory; None where it has none, as in runs of earlier versions."""
    import pyarrow.parquet as pq

    path = root / "items" / f"{key}.parquet"
    return pq.read_table(path) if path.is_file() else None
