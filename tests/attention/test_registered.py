"""No registered name without its proofs, and the tester on the module that the docs add.

The tester (`testing.py`) is itself code of tests: all of ``modules/`` runs it.
"""

from __future__ import annotations

import ast
import re
import sys
import tempfile
from pathlib import Path

from attnlab.attention import list_attentions

PROOFS = Path(__file__).parent / "modules"
DOCS = Path(__file__).parents[2] / "docs" / "add-an-attention.md"


def proven_names() -> set[str]:
    """The values of ``name = ...`` in the test classes of the modules' folder."""
    assignments = (
        node
        for file in PROOFS.glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    )
    return {
        str(node.value.value)  # type: ignore[attr-defined]
        for node in assignments
        if any(isinstance(target, ast.Name) and target.id == "name" for target in node.targets)
    }


def test_every_name_has_its_proofs() -> None:
    missing = set(list_attentions()) - proven_names()
    assert not missing, (
        f"give each of these a tester in {PROOFS}, with the line name = ...: {sorted(missing)}"
    )


def load_the_docs_example() -> dict[str, object]:
    """The blocks of docs/add-an-attention.md: first a file of a package, then two blocks of tests."""
    text = DOCS.read_text(encoding="utf-8")
    module, contract, proof = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    package = Path(tempfile.mkdtemp()) / "my_pkg"
    package.mkdir()
    (package / "my_module.py").write_text(module, encoding="utf-8")
    sys.path.insert(0, str(package.parent))
    found: dict[str, object] = {"__name__": __name__}
    for block in (contract, proof):
        exec(block, found)
    return found


_example = load_the_docs_example()
TestTheDocsContract, TestTheDocsProof = _example["TestTheContract"], _example["TestChannelScale"]
