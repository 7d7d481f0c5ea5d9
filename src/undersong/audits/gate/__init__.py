"""The gate for continuous integration: limits on rates and on their rises."""
