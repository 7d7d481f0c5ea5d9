"""`watch`: the safety of a training's checkpoints, measured from outside the trainer's environment."""
