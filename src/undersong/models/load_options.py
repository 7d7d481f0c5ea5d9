"""Options for loading a model (device, dtype, quantization) and their share of the cache key.

Imports no library, because every command reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from undersong.options import Option, key_values
from undersong.types import UndersongError

DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes per number
QUANTIZED = {8: 1.0, 4: 0.5}  # bits -> bytes per weight of a linear layer


@dataclass(frozen=True)
class LoadOptions:
    """Options for loading a model. `device_map` ("auto") spreads it over several devices; `quantize` is 4 or 8 bits.

    Quantization uses bitsandbytes. Raises UndersongError for an unknown dtype or number of bits.
    """

    RESULT_NEUTRAL: ClassVar[tuple[str, ...]] = ("device", "device_map", "batch_size")  # cannot change a result

    device: Annotated[str, Option("Torch device, such as cpu, cuda or mps.")] = "cpu"
    dtype: Annotated[str, Option("Number format of the weights: float32 | bfloat16 | float16.")] = "float32"
    device_map: Annotated[str | None, Option("auto: spread the model over all devices.")] = None
    attention: Annotated[
        str | None, Option("Attention kernel: sdpa | eager | flash_attention_2. Default: the model's own.")
    ] = None
    quantize: Annotated[int | None, Option("Quantize the weights to 4 or 8 bits (extra `quantize`).")] = None
    batch_size: Annotated[
        int | None,
        Option(
            "Most prompts in memory at a time, halved when memory runs out. Default: 128, and 32 for replies on a CPU.",
            min=1,
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UndersongError(f"There is no dtype {self.dtype!r} for models; take {', '.join(DTYPES)}.")
        if self.quantize is not None and self.quantize not in QUANTIZED:
            raise UndersongError(f"Models are not quantized to {self.quantize} bits; take 4 or 8.")
        if self.batch_size is not None and self.batch_size < 1:
            raise UndersongError(f"A batch cannot have {self.batch_size} prompts; take 1 or more.")

    @property
    def cache_key(self) -> dict[str, Any]:
        """Options that a result depends on besides the weights: part of every artifact's key."""
        return key_values(self, self.RESULT_NEUTRAL)

    @property
    def device_name(self) -> str:
        """The device with the name of its GPU, such as `cuda (NVIDIA H100)`; imports torch unless it is the CPU."""
        if self.device == "cpu" and self.device_map is None:
            return "cpu"
        import torch

        device = self.device if self.device_map is None else "cuda"
        name = "several devices" if self.device_map is not None else self.device
        if not device.startswith("cuda") or not torch.cuda.is_available():
            return name
        return f"{name} ({torch.cuda.get_device_name(device)})"


DEFAULT_LOAD_OPTIONS = LoadOptions()  # the default: float32 on the CPU
