"""results.json -> one self-contained HTML file that loads nothing, and Markdown for pull requests.

Does not know how numbers were made.
"""

from undersong.report.beside import write_beside
from undersong.report.markdown import defenses, write_markdown
from undersong.report.page import render, write_report

__all__ = ["defenses", "render", "write_beside", "write_markdown", "write_report"]
