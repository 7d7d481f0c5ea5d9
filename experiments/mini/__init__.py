"""Studies of Mini (docs/results/mini.md), on the parts that `recipes.mini` makes.

python -m experiments.mini              the study itself, over several processes, and its page
python -m experiments.mini.corpora      the corpora that it needs, once
python -m experiments.mini.projectors   a comparison of projectors under one training budget
"""
