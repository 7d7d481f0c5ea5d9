"""Mixed models, meta-analysis and variance components."""
