"""Judges map prompts and replies to verdicts; `registry.make_judge` makes one from its name."""
