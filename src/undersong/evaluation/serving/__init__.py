"""Black-box models: served behind an OpenAI-compatible API, or recorded replies."""
