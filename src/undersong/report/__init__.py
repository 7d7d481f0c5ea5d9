"""Reports on results.json: one self-contained HTML page, Markdown for pull requests, and a page that compares several
studies. Imports results and store; computes no result itself.
"""
