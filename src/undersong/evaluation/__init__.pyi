from .comparison import (
    VerdictComparison as VerdictComparison,
)
from .comparison import (
    compare_verdicts as compare_verdicts,
)
from .judges.refusal import (
    refusal_judge as refusal_judge,
)
from .judges.registry import (
    make_judge as make_judge,
)
from .judges.rule_based import (
    REFUSAL_PATTERN as REFUSAL_PATTERN,
)
from .judges.rule_based import (
    FunctionJudge as FunctionJudge,
)
from .judges.rule_based import (
    exact_judge as exact_judge,
)
from .judges.rule_based import (
    keyword_judge as keyword_judge,
)
from .multi_model_comparison import (
    compare_many as compare_many,
)
from .multi_model_comparison import (
    comparison_markdown as comparison_markdown,
)
from .prompts import (
    make_prompts as make_prompts,
)
from .rates import (
    VerdictRate as VerdictRate,
)
from .rates import (
    set_rates as set_rates,
)
from .replies import (
    read_replies as read_replies,
)
from .replies import (
    read_reply_table as read_reply_table,
)
from .replies import (
    write_replies as write_replies,
)
from .utility.wer import (
    WordErrors as WordErrors,
)
from .utility.wer import (
    count_word_errors as count_word_errors,
)
from .utility.wer import (
    sum_word_errors as sum_word_errors,
)
from .verdicts import (
    read_verdicts as read_verdicts,
)
from .verdicts import (
    select_verdicts as select_verdicts,
)
from .verdicts import (
    write_verdicts as write_verdicts,
)
