"""Plans of studies: artifacts, cost and statistical power."""
