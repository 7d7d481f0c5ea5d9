"""Stop a Trainer when `undersong watch` has written STOP: for transformers 4.5x and 5, TRL and PEFT.

Imports nothing of undersong. If UNDERSONG_WATCH is set, it is the command that starts the watch, such as
`/opt/undersong/bin/undersong watch OUTPUT_DIR --model ORG/NAME --device cuda:1 --idle 60`.
"""

import os
import shlex
import subprocess
from pathlib import Path

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

TRAINER_ONLY = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "PYTHONPATH")  # they would make the watch a part of this training


class StopFile(TrainerCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        if (command := os.environ.get("UNDERSONG_WATCH")) and state.is_world_process_zero:
            words = [args.output_dir if word == "OUTPUT_DIR" else word for word in shlex.split(command)]
            environment = {name: value for name, value in os.environ.items() if name not in TRAINER_ONLY}
            subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL)

    def on_step_end(self, args, state, control, **kwargs):
        file = Path(args.output_dir, "STOP")
        (stop,) = broadcast_object_list([file.exists()])  # all processes stop at one step, or they wait for each other
        if stop:
            control.should_training_stop = True
            if state.is_world_process_zero:
                print(f"Stopped at step {state.global_step} by {file}: {file.read_text()}")
        return control
