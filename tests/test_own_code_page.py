"""Every block of docs/in-your-own-code.md, top to bottom, in a folder of its own."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/in-your-own-code.md"


def blocks_of_the_page() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


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
    *blocks, yolo = blocks_of_the_page()
    assert len(blocks) == 8
    assert "ultralytics" in yolo
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    assert (tmp_path / "out.png").is_file()


def test_a_yolo_keeps_its_attention_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ultralytics", reason="Ultralytics is not installed")
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            (tmp_path / folder / split).mkdir(parents=True)
        for name in ("a", "b"):
            picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
            Image.fromarray(picture).save(tmp_path / "images" / split / f"{name}.jpg")
            (tmp_path / "labels" / split / f"{name}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    data = f"path: {tmp_path}\ntrain: images/train\nval: images/val\nnames: {{0: thing}}\n"
    (tmp_path / "my_data.yaml").write_text(data)
    names: dict[str, object] = {}
    first = "import attnlab\nfrom attnlab.attention import attention_modules\n"
    block = blocks_of_the_page()[-1].replace("plots=False", f"plots=False, project={str(tmp_path)!r}")
    exec(compile(first + block, PAGE.name, "exec"), names)
    (written,) = tmp_path.rglob("last.pt")
    again = names["YOLO"](written).model  # type: ignore[operator]
    assert sum(".attention." in key for key in again.state_dict()) > 0
