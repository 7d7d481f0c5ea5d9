"""LLaMA-Factory: `python examples/watch/llamafactory_train.py train.yaml` for `llamafactory-cli train train.yaml`.

On several devices: `torchrun --nproc-per-node N examples/watch/llamafactory_train.py train.yaml`.
"""

from llamafactory.train.tuner import run_exp
from stop_file import StopFile

if __name__ == "__main__":
    run_exp(callbacks=[StopFile()])
