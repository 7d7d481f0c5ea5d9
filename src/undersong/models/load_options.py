"""Options for loading a model (device, dtype, quantization) and their share of the cache key.

Imports no library, because every command reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from undersong.types import UndersongError

DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes per number
QUANTIZED = {8: 1.0, 4: 0.5}  # bits -> bytes per weight of a linear layer


@dataclass(frozen=True)
class LoadOptions:
    """Options for loading a model. `device_map` ("auto") spreads it over several devices; `quantize` is 4 or 8 bits.

    Quantization uses bitsandbytes. Raises UndersongError for an unknown dtype or number of bits.
    """

    device: str = "cpu"
    dtype: str = "float32"
    device_map: str | None = None
    attn_implementation: str | None = None
    quantize: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UndersongError(f"There is no dtype {self.dtype!r} for models; take {', '.join(DTYPES)}.")
        if self.quantize is not None and self.quantize not in QUANTIZED:
            raise UndersongError(f"Models are not quantized to {self.quantize} bits; take 4 or 8.")

    @property
    def cache_key(self) -> dict[str, Any]:
        """The options that results depend on besides the weights; part of every artifact's key."""
        return {"dtype": self.dtype, "attention": self.attn_implementation, "quantize": self.quantize}


DEFAULT_LOAD_OPTIONS = LoadOptions()  # the default: float32 on the CPU
