"""Black-box models: behind an OpenAI-compatible API, or recorded replies."""
