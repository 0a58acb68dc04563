"""What the segmentation task does besides the steps that the command line's tests run."""

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from attnlab.errors import AttnlabError
from attnlab.tasks import AttentionConfig, SegmentationTask
from attnlab.tasks.segmentation import class_map

TINY = {"architecture": "DeepLabV3Plus", "encoder": "tu-test_resnet", "class_names": ["a", "b", "c"]}


@pytest.fixture
def task() -> SegmentationTask:
    torch.manual_seed(0)
    return SegmentationTask(**TINY, attention=AttentionConfig("ela_t", at="stage")).eval()


def evaluation_batch(sizes: list[tuple[int, int]], counted: list[bool]) -> dict[str, object]:
    """Images of several sizes, padded to the largest."""
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    image, mask = torch.zeros(len(sizes), 3, height, width), torch.full((len(sizes), height, width), 255)
    generator = torch.Generator().manual_seed(1)
    for i, (h, w) in enumerate(sizes):
        image[i, :, :h, :w] = torch.randn(3, h, w, generator=generator)
        mask[i, :h, :w] = torch.randint(0, 3, (h, w), generator=generator)
    size = torch.tensor(sizes)
    return {"image": image, "mask": mask, "size": size, "mask_size": size, "counted": torch.tensor(counted)}


def test_class_map_is_argmax():
    logits = torch.randn(2, 21, 33, 17)
    logits[0, :, :5] = 0.5  # ties
    assert torch.equal(class_map(logits), logits.argmax(1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_class_map_has_no_class_where_the_logits_are_not_finite(value):
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 1, 0, 0] = value
    logits[0, 0, 1, 1] = -float("inf")  # A class that is ruled out.
    assert class_map(logits).tolist() == [[[255, 0], [0, 1]]]
    assert (class_map(torch.full((1, 3, 2, 2), -float("inf"))) == 255).all()


def test_an_image_is_scored_the_same_in_any_company(task):
    batch = evaluation_batch([(40, 60), (64, 48), (33, 35)], [True, True, True])
    with torch.no_grad():
        together = task.validation_step(batch, 0)["predictions"]
        for i, (h, w) in enumerate(batch["size"].tolist()):
            logits = task.network(batch["image"][i : i + 1, :, :h, :w])
            assert torch.equal(together[i].long(), logits.argmax(1)[0])
    assert task.val_scores.compute().sum() == 40 * 60 + 64 * 48 + 33 * 35


def test_an_image_that_does_not_count_is_not_scored(task):
    batch = evaluation_batch([(40, 60), (64, 48)], [True, False])
    with torch.no_grad():
        first, second = task.test_step(batch, 0)["predictions"]
    assert first.shape == (40, 60)
    assert second is None
    assert task.test_scores.compute().sum() == 40 * 60


def test_hparams_are_plain_and_build_the_same_task(task):
    again = SegmentationTask(**task.hparams)
    assert again.attention == task.attention
    assert dict(again.hparams) == dict(task.hparams)
    assert list(again.state_dict()) == list(task.state_dict())


def test_number_of_classes_alone_will_do_and_none_will_not():
    named = {key: value for key, value in TINY.items() if key != "class_names"}
    assert SegmentationTask(**named, num_classes=2).class_names == ["class 0", "class 1"]
    with pytest.raises(AttnlabError, match="number of classes is not known"):
        SegmentationTask(**named)


def test_statistics_of_attention_are_never_frozen(monkeypatch):
    attention = AttentionConfig("ca", at="stage")
    task = SegmentationTask(**TINY, attention=attention, bn_momentum=0.01, freeze_backbone_bn=True)
    schedule = LambdaLR(torch.optim.SGD(task.parameters(), lr=0.1), lambda step: 1.0)
    monkeypatch.setattr(task, "lr_schedulers", lambda: schedule)
    task._configured_groups = schedule.optimizer.param_groups
    task.train().on_train_epoch_start()
    frozen = [layer for layer in task.backbone.modules() if not layer.training]
    assert frozen
    assert all(layer.momentum == 0.01 for layer in frozen)
    new = [m for name, m in task.named_modules() if ".attention." in name and hasattr(m, "running_mean")]
    assert new
    assert all(layer.training and layer.momentum == 0.1 for layer in new)
