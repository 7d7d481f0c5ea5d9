"""The options of every verb that loads a model."""

from __future__ import annotations

from typing import Annotated

import typer

Device = Annotated[str, typer.Option("--device", help="A torch device.")]
Dtype = Annotated[str, typer.Option("--dtype", help="float32 | bfloat16 | float16.")]
DeviceMap = Annotated[str | None, typer.Option("--device-map", help="auto: spread the model over what there is.")]
Attention = Annotated[
    str | None, typer.Option("--attention", help="sdpa | eager | flash_attention_2; default: the model's own.")
]
Quantize = Annotated[int | None, typer.Option("--quantize", help="4 or 8 bits (extra `quantize`).")]
MODEL_HELP = "organism:NAME, mini, a folder, or a Hugging Face id (ORG/NAME@REVISION)"
ModelName = Annotated[str, typer.Option("--model", help=f"{MODEL_HELP}.")]
# What `corpora.open_corpus` takes.
MANIFEST_HELP = "JSONL, CSV, Parquet, a folder of audio, conversations, hf:OWNER/NAME, or organism:NAME"
