"""What MkDocs calls: pages that are generated are added, and links of pages lead inside the site."""

from __future__ import annotations

from typing import Any

import notebook
import outside
import study_keys
import verbs
from mkdocs.structure.files import File

GENERATED = {
    "reference/study.md": study_keys.page,
    "reference/commands.md": verbs.page,
    "tutorial-python.md": notebook.page,
}


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages and those outside `docs/` that pages lead to."""
    pages = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    _outside.update(outside.reached([*pages, "README.md"]))
    for place, path in _outside.items():
        files.append(File.generated(config, place, content=outside.page_of(path)))
    for place, page in GENERATED.items():
        files.append(File.generated(config, place, content=page()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links as they are in the site."""
    place = page.file.src_uri
    return outside.for_site(markdown, _outside.get(place, f"docs/{place}"))


_outside: dict[str, str] = {}
