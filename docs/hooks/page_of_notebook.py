"""The tutorial notebook as a page: its words as they are, its cells as code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[2] / "examples" / "audit.ipynb"


def cells() -> list[tuple[str, str]]:
    """(kind, source) of every cell: `markdown` or `code`."""
    read: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [(cell["cell_type"], "".join(cell["source"])) for cell in read["cells"]]


def page() -> str:
    """Markdown; links, which the notebook has from its own folder, lead from `docs/`."""
    parts = (
        text.replace("](../docs/", "](") if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells()
    )
    return "\n\n".join(parts) + "\n"
