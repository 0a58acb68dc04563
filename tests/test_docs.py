"""README, the pages and the docstrings that become a page: links, menus, length, and what runs."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from attnlab.attention import list_attentions

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [README, ROOT / "CONTRIBUTING.md", *PAGES]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))

SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
"""What mkdocs is told. Mkdocs itself is no part of the tests' environment."""


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", read(path), re.MULTILINE | re.DOTALL)


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(path: Path) -> set[str]:
    """The headings of a page as addresses, as mkdocs and GitHub both make them of plain ones."""
    found = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", read(path), flags=re.M | re.S), re.M)
    plain = (unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode() for title in found)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in plain}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_local_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(read(path))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        assert page.exists(), f"{path.name}: {target}"
        if anchor:
            assert anchor in anchors(page), f"{path.name}: {target}"


def menu(entries: Any) -> Iterator[str]:
    if isinstance(entries, str):
        yield entries
    else:
        for entry in entries.values() if isinstance(entries, dict) else entries:
            yield from menu(entry)


def test_each_page_is_in_the_menu_once():
    assert sorted(menu(SITE["nav"])) == [str(page.relative_to(DOCS)) for page in PAGES]


def test_the_site_needs_no_other_host():
    assert SITE["theme"]["font"] is False
    assert "extra_javascript" not in SITE
    for style in SITE["extra_css"]:
        assert "url(" not in read(DOCS / style)


class TestReadme:
    def test_it_is_at_most_half_of_what_it_was(self):
        # 146 lines and 1049 words, before the pages had taken over what is theirs.
        assert len(read(README).splitlines()) <= 73
        assert len(read(README).split()) <= 524

    def test_the_two_commands(self):
        assert [block.strip() for block in blocks(README, "bash")] == [
            "pip install uv && uv run main.py fit --config configs/quickstart_segmentation.yaml",
            "pip install uv && uv run pytest",
        ]

    def test_python_in_four_lines(self):
        (block,) = blocks(README, "python")
        assert len([line for line in block.splitlines() if line]) == 4
        ast.parse(block)

    def test_the_number_of_modules(self):
        numbers = re.findall(r"\[(\d+) modules\]", read(README))
        assert [int(number) for number in numbers] == [len(set(list_attentions()) - {"none"})]


def attention_block(path: Path) -> dict[str, Any]:
    return yaml.safe_load(blocks(path, "yaml")[0])["model"]["init_args"]["attention"]


@pytest.mark.parametrize("path", [README, DOCS / "index.md"], ids=lambda path: path.name)
def test_the_first_yaml_block_is_read_whole_on_a_phone(path):
    assert set(attention_block(path)) == {"name", "at", "mode", "options"}
    assert max(map(len, blocks(path, "yaml")[0].splitlines())) <= 48


@pytest.mark.parametrize("path", [*TEXTS, *CONFIGS], ids=lambda path: path.name)
def test_recipes_that_are_named_exist(path):
    for name in re.findall(r"configs/([\w.]+\.yaml)", read(path)):
        assert (ROOT / "configs" / name) in CONFIGS, name


@pytest.mark.parametrize(
    ("recipes", "host"),
    [
        ("imagenet_*", "https://image-net.org"),
        ("coco_*", "images.cocodataset.org"),
        ("voc_*", "host.robots.ox.ac.uk/pascal/VOC"),
        ("voc_yolox_*", "https://github.com/bubbliiiing/yolox-pytorch/releases/download/v1.0/yolox_nano.pth"),
        ("tinyimagenet_*", "cs231n.stanford.edu"),
    ],
)
def test_recipes_say_where_their_files_come_from(recipes, host):
    paths = list((ROOT / "configs").glob(f"{recipes}.yaml"))
    assert paths
    assert [path.name for path in paths if host not in read(path)] == []


def test_the_architecture_names_files_and_functions_that_there_are():
    text = read(DOCS / "architecture.md")
    files = {
        str(path.relative_to(ROOT)): path for path in (*ROOT.glob("src/**/*.py"), *ROOT.glob("tests/**/*.py"))
    }
    files["main.py"] = ROOT / "main.py"

    def found(name: str) -> list[Path]:
        return [path for key, path in files.items() if key == name or key.endswith(f"/{name}")]

    for name in re.findall(r"[\w/]+\.py\b", text):
        assert found(name) or name.startswith("my_pkg/"), name
    for name, function in re.findall(r"`([\w/]+\.py)`[,:]\s`(?![\w/]+\.py)([\w.]+)[`(]", text):
        last = function.rpartition(".")[2]
        assert any(re.search(rf"(def|class) {last}\b", read(path)) for path in found(name)), (name, function)


def test_no_page_speaks_of_the_former_form():
    for path in (README, *PAGES):
        text = read(path)
        assert "--task" not in text or path.name == "architecture.md", path.name
        for block in blocks(path, "yaml"):
            content = yaml.safe_load(block)
            assert set(content) <= {"model", "data", "trainer"}, path.name
            for name in {"model", "data"} & set(content):
                assert set(content[name]) <= {"class_path", "init_args"}, path.name


def test_how_to_pages_begin_with_a_command_that_needs_nothing():
    for name in (
        "quickstart",
        "train-on-imagenet",
        "train-a-detector",
        "use-a-checkpoint",
        "several-processes",
    ):
        assert "configs/quickstart_" in blocks(DOCS / f"{name}.md", "bash")[0], name


def test_the_parameter_groups_of_the_page_on_modes():
    scope: dict[str, Any] = {}
    exec(blocks(DOCS / "modes.md", "python")[-1], scope)
    rest, new = (group["params"] for group in scope["optimizer"].param_groups)
    names = {id(p): name for name, p in scope["network"].named_parameters()}
    assert {names[id(p)] for p in new} == {name for name in names.values() if ".attention" in name}
    assert len(new) + len(rest) == len(names)


@cache
def docstrings() -> list[tuple[str, str]]:
    """Place and text of each docstring of the package."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return [
        (f"{path.relative_to(ROOT)}, {getattr(node, 'name', 'module')}", ast.get_docstring(node) or "")
        for path in sorted((ROOT / "src").rglob("*.py"))
        for node in ast.walk(ast.parse(read(path)))
        if isinstance(node, kinds)
    ]


def test_docstrings_are_markdown():
    """The API page and ``attention show`` print a role and the ``::`` of reStructuredText as they stand."""
    for where, text in docstrings():
        assert not re.search(r":[a-z]+:`", text), f"{where}: write the name in backticks, without a role"
        assert not re.search(r"::$", text, re.MULTILINE), f"{where}: one colon is enough before a block"


def test_prompts_are_not_taken_for_quotations():
    """Under ``Example:`` a prompt is shown as three nested quotations; the section is ``Examples:``."""
    for where, text in docstrings():
        if ">>>" in text:
            assert re.search(r"^Examples:\n\s+>>>", text, re.MULTILINE), where


def test_flags_stay_in_one_piece():
    import mkdocs_hooks

    page = "<p>a --b</p><code>fit --model.attention=cbam x--y</code>"
    assert mkdocs_hooks.on_page_content(page, page=None) == (
        '<p>a --b</p><code>fit <span class="flag">--model.attention</span>=cbam x--y</code>'
    )
