"""What MkDocs calls: pages that are generated are added, and links of pages lead inside the site."""

from __future__ import annotations

from typing import Any

import outside_links
import page_of_notebook
import page_of_study
import page_of_verbs
from mkdocs.structure.files import File

GENERATED = {
    "reference/study.md": page_of_study.page,
    "reference/commands.md": page_of_verbs.page,
    "tutorial-python.md": page_of_notebook.page,
}


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages and those outside `docs/` that pages lead to."""
    pages = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    _outside.update(outside_links.reached(pages))
    for place, path in _outside.items():
        files.append(File.generated(config, place, content=outside_links.page_of(path)))
    for place, page in GENERATED.items():
        files.append(File.generated(config, place, content=page()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links as they are in the site."""
    place = page.file.src_uri
    return outside_links.for_site(markdown, _outside.get(place, f"docs/{place}"))


_outside: dict[str, str] = {}
