"""Results as pandas data frames, for whoever has pandas: nothing here needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from undersong.types import UndersongError

if TYPE_CHECKING:
    import pyarrow as pa


def import_pandas() -> Any:
    """The library, or a sentence that it is not there."""
    try:
        import pandas as pandas_module
    except ImportError:
        raise UndersongError("A data frame needs pandas, which is not installed; pip install pandas.") from None
    return pandas_module


def to_data_frame(table: pa.Table) -> Any:
    """A table as a pandas.DataFrame."""
    import_pandas()  # pyarrow's own error is of another kind
    return table.to_pandas()
