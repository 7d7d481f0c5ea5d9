from .lora_updates import (
    rewrite_adapter as rewrite_adapter,
)
from .recommendation import (
    Recommendation as Recommendation,
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
    DefenseCondition as DefenseCondition,
)
from .tradeoff import (
    safety_utility_tradeoff as safety_utility_tradeoff,
)
from .tradeoff import (
    with_cost as with_cost,
)
