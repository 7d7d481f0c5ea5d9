"""Reading of a results.json, which another program or version may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.escaping import describe_error
from undersong.regular_files import check_regular_file
from undersong.store.hashing import hash_file
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.results.schema import Results

MAX_INTEGER = 2**63  # counts are smaller, and arithmetic on larger ones overflows


RESULTS_ADVICE = "give the results.json that `undersong run` wrote"


def read_results_file(path: Path, advice: str = RESULTS_ADVICE) -> dict[str, Any]:
    """Read the JSON object in a results.json, unchecked; `parse_results` checks it.

    `advice` ends the message of an error.

    Raises:
        UndersongError: There is no such file, it cannot be read, or it holds no JSON object.
    """
    if not path.exists():
        raise UndersongError(f"There is no file {path}; {advice}.")
    check_regular_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_int=_bounded_integer)
    except OSError as error:
        raise UndersongError(f"{path} cannot be read ({error.strerror}); {advice}.") from error
    except UnicodeDecodeError:
        raise UndersongError(f"{path} is not a text file; {advice}.") from None
    except (ValueError, RecursionError) as error:
        raise UndersongError(f"{path} is not JSON that can be read ({describe_error(error)}); {advice}.") from error
    if not isinstance(content, dict):
        raise UndersongError(f"{path} holds no JSON object; {advice}.")
    return content


def check_table_beside(path: Path, results: Results, table: Path) -> None:
    """Check that a table has the bytes that were written with the results beside it; earlier versions recorded no hash.

    Args:
        path: The results.json.
        results: Its content.
        table: The table, such as verdicts.parquet.

    Raises:
        UndersongError: The table is another.
    """
    digest = None if results.provenance is None else results.provenance.files.get(table.name)
    if digest is not None and hash_file(table) != digest:
        raise UndersongError(
            f"{table} is not what undersong wrote with {path.name} (its SHA-256 differs); take both files from one run "
            "of the study, or run it again."
        )


def _bounded_integer(digits: str) -> int:
    if len(digits) > len(str(MAX_INTEGER)):
        raise ValueError(f"a whole number has {len(digits):,} digits")
    return int(digits)
