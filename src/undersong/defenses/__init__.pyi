from .recommendation import (
    defense_cost as defense_cost,
)
from .recommendation import (
    is_safe as is_safe,
)
from .recommendation import (
    recommend as recommend,
)
from .run import (
    prepare_defenses as prepare_defenses,
)
from .run import (
    run_defenses as run_defenses,
)
from .tradeoff import (
    ARM_KEYS as ARM_KEYS,
)
from .tradeoff import (
    DefenseCondition as DefenseCondition,
)
from .tradeoff import (
    safety_utility_tradeoff as safety_utility_tradeoff,
)
