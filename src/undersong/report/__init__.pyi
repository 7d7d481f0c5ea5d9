from .answer import (
    answer_lines as answer_lines,
)
from .markdown import (
    defense_table_lines as defense_table_lines,
)
from .markdown import (
    escape_markdown as escape_markdown,
)
from .markdown import (
    markdown_table as markdown_table,
)
from .markdown import (
    write_markdown as write_markdown,
)
from .multi_study import (
    write_multi_study_report as write_multi_study_report,
)
from .page import (
    render_html as render_html,
)
from .page import (
    write_report as write_report,
)
