"""One text column of a Parquet file, as batches of bytes; pyarrow reads it."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pylm.errors import DataError

BATCH_ROWS = 1024  # some MB of web pages: a block for one thread


def text_batches(path: str, field: str) -> Iterator[tuple[bytes, npt.NDArray[np.uint64]]]:
    """Yield batches of documents: their bytes joined, and where each ends, shape (n_documents,), uint64.

    Raises DataError, its message without the path, when pyarrow is missing, the file is damaged, the column is not
    there or not of text, or a row is null.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(
            "Parquet is read by pyarrow, which is not installed: pip install 'pylm[parquet]'"
        ) from None
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if field not in names:
                raise DataError(f"expected a column {field!r} (--field), found {', '.join(names) or 'none'}")
            if not _is_text(file.schema_arrow.field(field).type):
                found = file.schema_arrow.field(field).type
                raise DataError(f"expected text in column {field!r} (--field), found {found}")
            n_rows = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=[field]):
                column = batch.column(0)
                if column.null_count:
                    row = n_rows + column.is_null().index(True).as_py() + 1
                    raise DataError(f"row {row}: expected text in column {field!r}, found null")
                n_rows += len(column)
                yield _joined(column.cast(pa.large_string()))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"expected a Parquet file with text in column {field!r}, found {error}") from None


def _is_text(kind: "pa.DataType") -> bool:  # type: ignore[name-defined] # noqa: F821
    import pyarrow.types as types

    value = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(value) or types.is_large_string(value) or types.is_string_view(value))


def _joined(column: "pa.LargeStringArray") -> tuple[bytes, npt.NDArray[np.uint64]]:  # type: ignore[name-defined] # noqa: F821
    _, offsets_buffer, data = column.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[column.offset : column.offset + len(column) + 1]
    begin, end = int(offsets[0]), int(offsets[-1])
    text = data.slice(begin, end - begin).to_pybytes() if data is not None else b""
    return text, (offsets[1:] - begin).astype(np.uint64)
