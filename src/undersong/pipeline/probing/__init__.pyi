from .options import (
    ProbeOptions as ProbeOptions,
)
from .run import (
    run_probe as run_probe,
)
