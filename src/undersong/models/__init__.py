"""Audio language models: families, loading, audio features, adapters."""
