"""Generate replies with vLLM: a program that runs in vLLM's own environment and imports nothing of this package.

python vllm_worker.py JOB REPLIES

JOB is a JSON file with `model`, `revision`, `dtype`, `adapter` (a PEFT folder, or null), `limit` (new tokens), `stops`
(token ids), `progress` (a file that gets one byte for each reply as soon as it is there) and `prompts`, each with `ids`
and `audio` (an .npy file of samples at `rate`, or null). REPLIES gets one JSON object per prompt, in order:
`prompt_ids` as vLLM read them, `ids` of the reply, and `finish`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

MAX_LORA_RANKS = (8, 16, 32, 64, 128, 256)  # that vLLM can be built for


def lora_options(folder: str | None) -> dict[str, Any]:
    """The engine's options for an adapter of this rank; none without an adapter."""
    if folder is None:
        return {}
    with open(f"{folder}/adapter_config.json", encoding="utf-8") as file:
        rank = json.load(file)["r"]
    return {"enable_lora": True, "max_lora_rank": next(size for size in MAX_LORA_RANKS if size >= rank)}


def counting_bar(path: str) -> Any:
    """Progress bar that vLLM moves, which appends one byte for each finished reply to a file."""
    from tqdm import tqdm

    class CountingBar(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            if str(self.desc).startswith("Processed prompts"):  # and not the one that prepares them
                with open(path, "ab") as file:
                    file.write(b"." * int(n or 0))
            return super().update(n)

    return CountingBar


def main(job_path: str, replies_path: str) -> None:
    """Generate all replies of a job in one call, greedily."""
    import numpy as np
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    with open(job_path, encoding="utf-8") as file:
        job = json.load(file)
    engine = LLM(
        model=job["model"],
        revision=job["revision"],
        dtype=job["dtype"],
        trust_remote_code=False,
        limit_mm_per_prompt={"audio": 1},
        generation_config="vllm",
        **lora_options(job["adapter"]),
    )
    prompts = [
        {"prompt_token_ids": prompt["ids"]}
        | ({"multi_modal_data": {"audio": [(np.load(prompt["audio"]), job["rate"])]}} if prompt["audio"] else {})
        for prompt in job["prompts"]
    ]
    sampling = SamplingParams(temperature=0, max_tokens=job["limit"], stop_token_ids=job["stops"], detokenize=False)
    lora = LoRARequest("adapter", 1, job["adapter"]) if job["adapter"] else None
    outputs = engine.generate(prompts, sampling, lora_request=lora, use_tqdm=counting_bar(job["progress"]))
    with open(replies_path, "w", encoding="utf-8") as file:
        for output in outputs:
            (reply,) = output.outputs
            record = {"prompt_ids": list(output.prompt_token_ids), "ids": list(reply.token_ids)}
            file.write(json.dumps(record | {"finish": reply.finish_reason}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
