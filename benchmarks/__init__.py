"""Ratios inside one run; never timed tests."""
