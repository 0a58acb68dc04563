"""What mkdocs does to a page beside its plugins."""

import re
from typing import Any

_CODE = re.compile(r"<code\b.*?</code>", re.DOTALL)
_FLAG = re.compile(r"(?<![\w&;-])--\w[\w.]*")


def on_page_content(html: str, **_: Any) -> str:
    """Keep ``--flag`` in one piece where a line of code is wrapped: browsers break lines after hyphens.

    Args:
        html: The page's content.

    Returns:
        The same, with a span around each flag in code.
    """
    return _CODE.sub(lambda code: _FLAG.sub(r'<span class="flag">\g<0></span>', code[0]), html)
