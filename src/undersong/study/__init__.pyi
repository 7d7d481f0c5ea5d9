from .defaults import (
    default_max_new_tokens as default_max_new_tokens,
)
from .evaluation import (
    ComprehensionSettings as ComprehensionSettings,
)
from .evaluation import (
    EvaluationSettings as EvaluationSettings,
)
from .evaluation import (
    PromptSet as PromptSet,
)
from .json_schema import (
    study_json_schema as study_json_schema,
)
from .load import (
    StudyFile as StudyFile,
)
from .load import (
    load_studies as load_studies,
)
from .load import (
    load_study as load_study,
)
from .load import (
    packaged_study as packaged_study,
)
from .load import (
    parse_study as parse_study,
)
from .load import (
    with_models as with_models,
)
from .load import (
    with_seeds as with_seeds,
)
from .schema import (
    SelectionRuleSettings as SelectionRuleSettings,
)
from .schema import (
    SelectionSettings as SelectionSettings,
)
from .schema import (
    Study as Study,
)
from .schema import (
    TuningSettings as TuningSettings,
)
