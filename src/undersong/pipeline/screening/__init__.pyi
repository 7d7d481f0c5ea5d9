from .options import (
    ScreeningOptions as ScreeningOptions,
)
from .options import (
    ScreeningRequest as ScreeningRequest,
)
from .options import (
    parse_axes as parse_axes,
)
from .options import (
    parse_columns as parse_columns,
)
from .options import (
    parse_harm_sets as parse_harm_sets,
)
from .output import (
    ScreeningResult as ScreeningResult,
)
from .rehearsal_plan import (
    plan_screening as plan_screening,
)
from .run import (
    DEFAULT_OPTIONS as DEFAULT_OPTIONS,
)
from .run import (
    run_screening as run_screening,
)
