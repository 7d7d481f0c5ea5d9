"""undersong finds the harm beneath harmless audio: it audits audio language models around benign fine-tuning."""

__version__ = "0.1.0"
