"""results.json -> one self-contained HTML file that loads nothing, and Markdown for pull requests.

Does not know how numbers were made.
"""

from undersong.report.beside import write_multi_study_report
from undersong.report.markdown import defense_table_lines, write_markdown
from undersong.report.page import render_html, write_report

__all__ = ["defense_table_lines", "render_html", "write_multi_study_report", "write_markdown", "write_report"]
