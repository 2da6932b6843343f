"""Arrow columns from numbers and texts, made of their buffers, and the file that holds them read again.

`pyarrow.array` asks whether what it is given belongs to pandas, and imports pandas to find out, which takes
longer than a table's cell is trained for; so does `pyarrow.parquet.read_table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa


def reals(values: NDArray[np.float64], known: NDArray[np.bool_]) -> pa.Array:
    """A column of doubles, shape (rows,), with nothing where it is not `known`."""
    return _fixed(np.asarray(values, np.float64), known)


def wholes(values: NDArray[np.float64], known: NDArray[np.bool_]) -> pa.Array:
    """A column of 64-bit integers from whole numbers, shape (rows,), with nothing where it is not `known`."""
    return _fixed(np.where(known, values, 0).astype(np.int64), known)


def _fixed(values: NDArray[np.float64] | NDArray[np.int64], known: NDArray[np.bool_]) -> pa.Array:
    import pyarrow as pa

    absent = int(len(known) - np.count_nonzero(known))
    # Arrow's bitmap of validity: a bit per row, the first row in the lowest bit
    valid = pa.py_buffer(np.packbits(known, bitorder="little")) if absent else None
    data = pa.py_buffer(np.ascontiguousarray(values))
    kind = pa.float64() if values.dtype == np.float64 else pa.int64()
    return pa.Array.from_buffers(kind, len(values), [valid, data], absent)


def texts(values: Sequence[str]) -> pa.Array:
    """A column of text."""
    import pyarrow as pa

    encoded = [text.encode() for text in values]
    ends = np.fromiter(accumulate(map(len, encoded), initial=0), np.int64, len(encoded) + 1)
    if ends[-1] > np.iinfo(np.int32).max:  # offsets of this type have 32 bits
        return pa.array(values, pa.string())
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers, 0)


def read(path: Path) -> pa.Table:
    """The table of one parquet file.

    Raises:
        OSError, ValueError: it cannot be read, or is none.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:
        return file.read(use_threads=False)  # a cell's files are small: handing them on takes longer
