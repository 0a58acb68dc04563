"""Reading a configuration before the parser that it is for is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from attnlab.errors import AttnlabError


def read_yaml(path: str) -> dict[str, Any]:
    """The content of a configuration; an empty file has none.

    Raises:
        AttnlabError: The file cannot be read, is no YAML, or has no keys at its top.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise AttnlabError(f"Cannot read the configuration '{path}': {error.strerror or error}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise AttnlabError(f"The configuration '{path}' is no YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise AttnlabError(f"The configuration '{path}' is no YAML with keys such as model and data.")
    return content
