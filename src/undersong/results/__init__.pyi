from .files import (
    read_results_file as read_results_file,
)
from .schema import (
    PromptSetRate as PromptSetRate,
)
from .schema import (
    Results as Results,
)
from .schema import (
    RunResult as RunResult,
)
from .schema import (
    parse_results as parse_results,
)
from .schema_mechanism import (
    LayerMeasurement as LayerMeasurement,
)
from .schema_mechanism import (
    MechanismRecord as MechanismRecord,
)
