"""inspect_ai: a model provider for audio LLMs, undersong's sets as tasks, its judges as scorers, studies as logs.

`registry` is what inspect_ai loads by its entry point; it loads no torch.
"""
