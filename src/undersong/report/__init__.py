"""results.json -> one self-contained HTML file, without network or script.  Does not know how numbers were made."""

from undersong.report.page import render, write_report

__all__ = ["render", "write_report"]
