"""The option that leaves pictures away from predictions: one name for all tasks, and two former ones."""

from __future__ import annotations

import pytest
from PIL import Image

TASKS = {
    "segmentation": ["--model.encoder=tu-test_resnet", "--model.architecture_options.decoder_channels=16"],
    "classification": ["--model.network=timm/test_resnet"],
    "detection": ["--model.network=yolox_nano", "--model.network_options.size=64"],
}
WRITTEN = {"segmentation": "a.png", "classification": "predictions.csv", "detection": "predictions.json"}
DRAWN = {"segmentation": "a_overlay.png", "classification": "predictions.png", "detection": "a.jpg"}


@pytest.fixture
def predict(run, tmp_path):
    """Names of the files that a prediction writes, but for the list of them."""
    Image.new("RGB", (70, 66), "red").save(tmp_path / "a.png")

    def call(task: str, *options: str) -> set[str]:
        outcome = run(
            "predict",
            f"--task={task}",
            *TASKS[task],
            "--random_weights=true",
            "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false",
            "--data.predict_images=a.png",
            *options,
        )
        assert outcome.status == 0, outcome.err
        return {path.name for path in (tmp_path / "predictions").iterdir() if path.name[0] != "."}

    return call


@pytest.mark.parametrize("task", TASKS)
def test_pictures_is_the_name_in_every_task(predict, task):
    assert predict(task, "--predictions.pictures", "false") == {WRITTEN[task]}
    assert predict(task) == {WRITTEN[task], DRAWN[task]}


@pytest.mark.parametrize(("task", "former"), [("segmentation", "overlays"), ("detection", "drawings")])
def test_former_names_still_work(predict, tmp_path, task, former):
    assert predict(task, f"--predictions.{former}", "false") == {WRITTEN[task]}
    file = tmp_path / "old.yaml"
    file.write_text(f"predictions:\n  output_dir: predictions\n  {former}: false\n")
    assert predict(task, "--config=old.yaml") == {WRITTEN[task]}
    # As the config.yaml of a run by a former version has it.
    file.write_text(f"predictions:\n  output_dir: predictions\n  {former}: true\n")
    assert predict(task, "--config=old.yaml", "--predictions.pictures=false") == {WRITTEN[task]}
    assert predict(task, "--config=old.yaml") == {WRITTEN[task], DRAWN[task]}
