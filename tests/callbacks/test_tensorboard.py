"""What stands where in TensorBoard."""

from __future__ import annotations

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from attnlab.callbacks.tensorboard import ScoresFirst


def test_rates_stand_with_the_training_and_epochs_nowhere(tmp_path):
    logger = ScoresFirst(str(tmp_path), name="", version="run")
    logger.log_metrics({"lr-SGD/head": 0.5, "train/loss": 2.0, "epoch": 3, "score/acc": 0.25}, 7)
    logger.save()
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    found = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert found == {"train/lr-SGD/head": [(7, 0.5)], "train/loss": [(7, 2.0)], "score/acc": [(7, 0.25)]}
