"""Predictors: scores of training samples by what training on them does to a model."""
