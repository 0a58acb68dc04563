"""ClassificationTask beside the definitions."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from attnlab.errors import AttnlabError
from attnlab.tasks import AttentionConfig, ClassificationTask, MixingConfig

TINY = {"network": "timm/test_resnet", "num_classes": 7}


def batch(count: int = 4, classes: int = 7) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.randn(count, 3, 48, 48, generator=generator),
        "label": torch.randint(classes, (count,), generator=generator),
        "counted": torch.ones(count, dtype=torch.bool),
    }


def test_the_loss_is_cross_entropy_of_smoothed_targets() -> None:
    task = ClassificationTask(**TINY, label_smoothing=0.1).eval()
    task.log = lambda *args, **kwargs: None
    sample = batch()
    with torch.no_grad():
        logits = task(sample["image"])
        target = 0.9 * F.one_hot(sample["label"], 7) + 0.1 / 7
        expected = -(target * logits.log_softmax(1)).sum(1).mean()
        torch.testing.assert_close(task.training_step(sample, 0), expected)


def test_mixed_batches_train() -> None:
    task = ClassificationTask(**TINY, mixing=MixingConfig(mixup_alpha=0.2, cutmix_alpha=1.0))
    task.log = lambda *args, **kwargs: None
    loss = task.training_step(batch(), 0)
    loss.backward()
    assert loss.isfinite()


def test_fillers_enter_no_score() -> None:
    task = ClassificationTask(**TINY).eval()
    sample = batch()
    with torch.no_grad():
        task.evaluate(sample, task.val_scores, task.val_loss)
        sample["counted"] = torch.tensor([True, False, True, False])
        task.evaluate(sample, task.test_scores, task.test_loss)
        expected = F.cross_entropy(task(sample["image"][::2]), sample["label"][::2])
        sample["counted"][:] = False
        task.evaluate(sample, task.test_scores, task.test_loss)
    assert task.val_scores.result().images == 4
    assert task.test_scores.result().images == 2
    torch.testing.assert_close(task.test_loss.compute(), expected)


def test_the_head_is_no_backbone() -> None:
    task = ClassificationTask(**TINY, attention=AttentionConfig("ela_t", at="stage"))
    names = {id(p): name for name, p in task.network.named_parameters()}
    backbone = {names[id(p)] for p in task.backbone_parameters()}
    assert set(names.values()) - backbone == {"fc.weight", "fc.bias"}


def test_channels_last_changes_the_layout_and_not_the_result() -> None:
    torch.manual_seed(0)
    task = ClassificationTask(**TINY).eval()
    other = ClassificationTask(**TINY, channels_last=True).eval()
    other.load_state_dict(copy.deepcopy(task.state_dict()))
    weight = other.network.layer2[0].conv2.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    image = batch()["image"]
    with torch.no_grad():
        torch.testing.assert_close(other(image), task(image), rtol=1e-4, atol=1e-5)


def test_rezero_leaves_the_output_and_replace_does_not() -> None:
    tasks = {}
    for mode in ("none", "rezero", "replace"):
        torch.manual_seed(0)
        attention = AttentionConfig() if mode == "none" else AttentionConfig("ela_b", at="stage", mode=mode)
        tasks[mode] = ClassificationTask(**TINY, attention=attention).eval()
        tasks[mode].network.load_state_dict(tasks["none"].network.state_dict(), strict=False)
    image = batch()["image"]
    with torch.no_grad():
        plain = tasks["none"](image)
        assert torch.equal(tasks["rezero"](image), plain)
        assert not torch.allclose(tasks["replace"](image), plain, rtol=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"num_classes": None}, "number of classes is not known"),
        ({"class_names": ["a", "b"]}, "contradicts the data"),
        ({"network": "resnet17"}, "resnet18"),
    ],
)
def test_refused(options: dict, message: str) -> None:
    with pytest.raises(AttnlabError, match=message):
        ClassificationTask(**{**TINY, **options})
