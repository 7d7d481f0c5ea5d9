"""results.json -> one self-contained HTML file, without network or script, and Markdown for pull requests.

Does not know how numbers were made.
"""

from undersong.report.markdown import write_markdown
from undersong.report.page import render, write_report

__all__ = ["render", "write_markdown", "write_report"]
