"""Integrations with other tools: the continuous-integration gate, the transformers Trainer, and inspect_ai."""
