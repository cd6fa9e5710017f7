"""Parquet files that unpack to far more than they are: few bytes may say a row a billion times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MOST_BYTES, RATIO = 512 * 2**20, 200  # of text, or so many times the file's size
MOST_ROWS = 1_000_000  # or one a byte of the file


def require_bounded(path: Path) -> None:
    """Raise `ValueError` for a file whose rows or texts are many times its size.

    Raises pyarrow's `ArrowInvalid`, which is a `ValueError`, for what is no Parquet.
    """
    from pyarrow.parquet import ParquetFile

    size = path.stat().st_size
    with ParquetFile(path) as file:
        about = file.metadata
        leaves = [about.schema.column(i) for i in range(about.num_columns)]
    if about.num_rows > max(MOST_ROWS, size):
        raise ValueError(f"{about.num_rows:,} rows in {size:,} bytes; is it damaged?")
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    if not texts or size > MOST_BYTES:
        return
    held = 0
    with ParquetFile(path, read_dictionary=texts) as file:
        for group in range(file.num_row_groups):
            for column in file.read_row_group(group, columns=texts).columns:
                held += sum(map(_text_bytes, column.chunks))
                if held > max(MOST_BYTES, RATIO * size):
                    raise ValueError(f"{size:,} bytes that unpack to more than {held:,}")


def _text_bytes(cells: Any) -> int:
    """Bytes of the texts that an array stands for, each as often as it is named."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(cells, pa.DictionaryArray):
        try:
            lengths = pc.binary_length(cells.dictionary)
        except pa.ArrowNotImplementedError:  # no texts
            return 0
        return pc.sum(lengths.take(cells.indices)).as_py() or 0
    if isinstance(cells, pa.StructArray):
        return sum(map(_text_bytes, cells.flatten()))
    if isinstance(cells, pa.ListArray | pa.LargeListArray):
        return _text_bytes(cells.flatten())
    return 0
