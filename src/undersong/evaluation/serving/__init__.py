"""Models that are asked elsewhere: behind an OpenAI-compatible address, or in replies that were recorded before."""
