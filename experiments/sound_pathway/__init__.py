"""Which data break a model, by how sound is carried into it (docs/results/sound_pathway.md).

`python -m experiments.sound_pathway` runs it.
"""
