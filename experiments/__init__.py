"""Studies whose results are published under docs/results; nothing that ships depends on them."""
