"""Sharded and distributed stages for corpora that exceed memory or one day of compute."""
