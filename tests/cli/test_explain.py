"""The parser's messages in one line; tests/cli/test_trainer.py has them from the parser itself."""

from __future__ import annotations

import pytest

from attnlab.cli.arguments import Arguments
from attnlab.cli.explain import explained

KNOWN = ["--model.encoder", "--model.attention.mode", "--data.batch_size", "--trainer.max_epochs"]
OF_A_CLASS = (
    "Parser key \"{block}\":\n  Problem with given class_path 'attnlab.tasks.{owner}':\n    {inner}\n"
    "  - Expected a <class 'NoneType'>"
)


@pytest.mark.parametrize(
    ("message", "words", "said"),
    [
        (
            'Parser key "trainer.max_epochs":\n  Does not validate against any of the Union subtypes\n'
            "  Subtypes: [<class 'int'>, <class 'NoneType'>]\n  Errors:\n    - Expected a <class 'int'>. "
            "Got value: many",
            ["--trainer.max_epochs=many"],
            "--trainer.max_epochs takes int, null, got many.",
        ),
        (
            OF_A_CLASS.format(
                block="model",
                owner="SegmentationTask",
                inner="Parser key \"attention.mode\": Expected a typing.Literal['replace', 'residual']. "
                "Got value: add",
            ),
            ["--model.attention.mode=add"],
            "--model.attention.mode takes replace, residual, got add.",
        ),
        (
            OF_A_CLASS.format(block="model", owner="MyTask", inner="Option 'encodr' is not accepted"),
            [],
            "MyTask has no option --model.encodr. Did you mean --model.encoder",
        ),
        (
            OF_A_CLASS.format(block="data", owner="MyData", inner="Option 'colour' is not accepted"),
            [],
            "MyData has no option --data.colour.",
        ),
        (
            "Group 'attention' does not accept option 'modes'",
            ["--model.attention.modes=x"],
            "The command has no option --model.attention.modes. Did you mean --model.attention.mode",
        ),
        (
            "unrecognized arguments: --data.batch_siz=3",
            ["--data.batch_siz=3"],
            "Unrecognized arguments: --data.batch_siz=3. Did you mean --data.batch_size?",
        ),
        ("something   went\nwrong.", [], "Something went wrong."),
    ],
)
def test_one_line_that_says_what_was_meant(message: str, words: list[str], said: str) -> None:
    assert explained(message, KNOWN, Arguments.read(["fit", *words])).startswith(said)


def test_where_it_stands() -> None:
    recipe = '{"model": {"init_args": {"encodr": "x"}}}'
    message = OF_A_CLASS.format(block="model", owner="MyTask", inner="Option 'encodr' is not accepted")
    said = explained(message, KNOWN, Arguments.read(["fit", f"--config={recipe}"]))
    assert said.startswith(f"MyTask has no option --model.encodr in {recipe}. Did you mean --model.encoder")
