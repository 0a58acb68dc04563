"""Every block of docs/in-your-own-code.md, top to bottom, in a folder of its own."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/in-your-own-code.md"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnlab.cli import main

    monkeypatch.chdir(tmp_path)
    main(
        [
            "fit",
            f"--config={ROOT / 'configs/quickstart_segmentation.yaml'}",
            *("--data.root=shapes", "--data.num_train=4", "--data.num_val=2", "--data.batch_size=2"),
            *("--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--trainer.accelerator=cpu"),
        ]
    )
    last = next(tmp_path.rglob("last.ckpt"))
    last.rename(tmp_path / "best.ckpt")
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "photo.jpg")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 8
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    assert (tmp_path / "out.png").is_file()
