"""Recorded tables: CSV files that are read whole, with the columns they should have, or refused by name."""
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from asymmlib.base.files import atomic_write, open_regular

__all__ = ["read_table", "replace_rows", "write_table"]


def read_table(path: Path | str, columns: Iterable[str], types: Mapping[str, type] | type | None = None,
               absent: pd.DataFrame | None = None) -> pd.DataFrame:
    """Read a CSV file that was written whole, with a line end at its end, as a DataFrame.

    columns: names that it has at least, with a value in every row. types: {column: dtype} for those that pandas would
    guess wrongly; `str` for every value as it stands in the file. absent: what to return where there is no such file,
    in place of raising `FileNotFoundError`. Raises `ValueError` that names the file where it is cut off, not of UTF-8,
    has other columns or rows of another length, or is no regular file, such as a pipe.
    """
    try:
        with open_regular(path) as file:
            content = file.read()
    except FileNotFoundError:
        if absent is not None:
            return absent
        raise FileNotFoundError(f"no table {path}") from None
    try:
        if not content.endswith(b"\n"):
            raise ValueError("its last line is cut off")
        frame = pd.read_csv(io.BytesIO(content), dtype=types, keep_default_na=types is not str, encoding="utf-8",
                            index_col=False, on_bad_lines="error")
    except (ValueError, OverflowError, MemoryError) as error:  # pandas' own are ValueErrors
        raise ValueError(_told(path, error)) from error
    missing = [name for name in columns if name not in frame]
    empty = [name for name in columns if name in frame and frame[name].isna().any()]
    if missing or empty:
        raise ValueError(_told(path, f"no column {', '.join(missing)}" if missing
                               else f"rows without a value of {', '.join(empty)}"))
    return frame


def write_table(table: pd.DataFrame, path: Path | str) -> None:
    """Store a table as CSV with five digits of each float, whole or not at all."""
    _store(_text(table), path)


def replace_rows(table: pd.DataFrame, path: Path | str, replaced: Callable[[pd.DataFrame], pd.Series],
                 columns: Iterable[str] = ()) -> None:
    """Store rows as `write_table` does, before those that the file holds already; of these no letter changes.

    replaced: from the file's rows (all values as text) to True for each in whose place the new ones come. columns: as
    `read_table` takes them. Raises `ValueError` that names a file which is no such table.
    """
    read_table(path, columns, absent=table)
    old = read_table(path, (), str, absent=table.iloc[:0])
    kept = old[~replaced(old)].reindex(columns=list(table))
    _store(_text(table) + kept.to_csv(index=False, header=False, lineterminator="\n"), path)


def _text(table):
    return table.to_csv(index=False, float_format="%.5g", lineterminator="\n")


def _store(text, path):
    with atomic_write(Path(path)) as file:
        file.write(text.encode())


def _told(path, reason):
    return f"{path} is damaged or another table ({reason}): put a good copy back, or remove it to have it made anew"
