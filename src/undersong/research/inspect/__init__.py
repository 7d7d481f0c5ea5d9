"""inspect_ai integration: a model provider for audio LLMs, prompt sets as tasks, judges as scorers, studies as logs."""
