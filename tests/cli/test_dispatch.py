"""What is answered before any library is loaded, in a fresh process; and an installed wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The library's import is reported by the interpreter itself, whoever asks for it.
WITHOUT_TORCH = """
import sys
from attnlab.cli import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    print("TORCH" if "torch" in sys.modules else "NO LIBRARY", stop.code)
else:
    print("TORCH" if "torch" in sys.modules else "NO LIBRARY", 0)
"""


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--help"], 0, "attention sites NETWORK"),
        (["--version"], 0, "attnlab "),
        (["attention", "list", "--help"], 0, "--channels"),
        (["profile", "--help"], 0, "main.py profile --config voc_deeplab_ela"),
        (["fitt"], 2, "Did you mean 'fit'"),
        (["attention", "lst"], 2, "Did you mean list"),
        (["profile", "--atention", "se"], 2, "Did you mean --attention"),
        (["fit", "--config", "nowhere.yaml"], 2, "Cannot read the recipe 'nowhere.yaml'"),
        (["fit", "--config=broken.yaml"], 2, "'broken.yaml' is not valid YAML"),
        (["fit", "--config=quickstart"], 2, "or 'quickstart_segmentation'"),
        (["fit", "--config=old.yaml"], 2, "Did you mean 'classification'"),
        (["test", "--ckpt_path=nowhere.ckpt"], 2, "No checkpoint at nowhere.ckpt"),
        (["predict", "--ckpt_path", "best"], 2, "There is no 'best' checkpoint"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_answered_without_a_library(tmp_path, words, status, said):
    (tmp_path / "broken.yaml").write_text("a: [1")
    (tmp_path / "old.yaml").write_text("task: clasification")
    command = [sys.executable, "-c", WITHOUT_TORCH, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"NO LIBRARY {status}"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_wheel_has_the_recipes(tmp_path):
    """Unpacked elsewhere, it finds them by name; a file of that name comes first."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("no uv on the path, which builds the wheel")
    build = [uv, "build", "--wheel", "--quiet", "--out-dir", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    names = {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert {path.name for path in (tmp_path / "site/attnlab/configs").glob("*.yaml")} == names
    code = "from attnlab import recipes; print(recipes.__file__, recipes.find('voc_deeplab_ela'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        str(tmp_path / "site/attnlab/recipes.py"),
        str(tmp_path / "site/attnlab/configs/voc_deeplab_ela.yaml"),
    ]
