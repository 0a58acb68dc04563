"""What every task has from the one base: the guard, freezing, layout, compiling, the summary."""

import copy
import itertools
import re

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning

from attnlab.data import (
    ShapesClassificationDataModule,
    ShapesDetectionDataModule,
    ShapesSegmentationDataModule,
)
from attnlab.errors import AttnlabError
from attnlab.tasks import AttentionConfig, ClassificationTask, DetectionTask, SegmentationTask
from attnlab.tasks.layout import memory_format

SMALL = {"num_train": 12, "num_val": 6, "image_size": 64, "num_workers": 0, "batch_size": 4}
TASKS = {
    "classification": (
        ClassificationTask,
        {"network": "timm/test_resnet"},
        ShapesClassificationDataModule,
        {},
    ),
    "segmentation": (
        SegmentationTask,
        {"architecture": "DeepLabV3Plus", "encoder": "tu-test_resnet"},
        ShapesSegmentationDataModule,
        {"crop_size": 64},
    ),
    "detection": (
        DetectionTask,
        {"network": "yolox_nano", "network_options": {"size": 64}},
        ShapesDetectionDataModule,
        {},
    ),
}


@pytest.fixture(params=TASKS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The root of each task's data, drawn once."""
    return tmp_path_factory.mktemp("shapes")


def data_of(kind, drawn):
    _, _, data, options = TASKS[kind]
    return data(root=str(drawn / kind), **SMALL, **options)


def task_of(kind, data, **options):
    torch.manual_seed(0)
    cls, own, _, _ = TASKS[kind]
    at = AttentionConfig("ela_t", at="auto", mode="rezero")
    return cls(**{"attention": at, **own, "class_names": data.class_names, **options})


def trainer_of(tmp_path, *callbacks, **options):
    return L.Trainer(
        **{"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1, **options},
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
    )


class Broken(L.Callback):
    """Makes the weights undefined at one step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            with torch.no_grad():
                next(pl_module.parameters()).fill_(float("nan"))


def names_in(dataset):
    """The names of a training set's images."""
    items = getattr(dataset, "items", dataset)
    return [item.name for item in items] if isinstance(items, list) else list(items.names)


def test_a_loss_that_is_no_number_stops_every_task_and_names_the_images(kind, drawn, tmp_path):
    data = data_of(kind, drawn)
    task = task_of(kind, data)
    with pytest.raises(AttnlabError) as caught:
        trainer_of(tmp_path, Broken(1)).fit(task, datamodule=data)
    message = str(caught.value)
    assert re.search(r"not finite in epoch 0, step 1: .*\w+ nan", message)
    assert any(name in message for name in names_in(data.dataset("train")))
    assert "--model.optimizer.lr" in message


class Watch(L.Callback):
    """Copies the weights at the end of each epoch."""

    def __init__(self):
        self.seen = []

    def on_train_start(self, trainer, pl_module):
        self.seen.append(copy.deepcopy(pl_module.network.state_dict()))

    def on_train_epoch_end(self, trainer, pl_module):
        self.seen.append(copy.deepcopy(pl_module.network.state_dict()))


class StopAfter(L.Callback):
    """Ends training after so many epochs, without the schedule knowing."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_the_backbone_is_frozen_for_the_first_epochs_and_no_longer(kind, drawn, tmp_path):
    data = data_of(kind, drawn)
    task = task_of(kind, data, freeze_backbone_epochs=1)
    watch = Watch()
    trainer_of(tmp_path, watch, max_epochs=2).fit(task, datamodule=data)
    names = {id(p): name for name, p in task.network.named_parameters()}
    attention = {names[id(p)] for p in task.attention_parameters()}
    backbone = {names[id(p)] for p in task.backbone_parameters()} - attention
    head = set(names.values()) - backbone - attention
    first, second = (changed(*pair) for pair in itertools.pairwise(watch.seen))
    assert not first & backbone
    assert first & attention
    assert first & head
    # Nor do statistics move, or the frozen features would not stay what they are.
    frozen = {id(m) for m in task.batchnorms()}
    statistics = {f"{name}.running_mean" for name, m in task.network.named_modules() if id(m) in frozen}
    assert statistics
    assert not first & statistics
    assert second & backbone
    assert second & statistics


def test_a_run_resumed_while_the_backbone_is_frozen_goes_on_as_if_never_stopped(drawn, tmp_path):
    data = data_of("segmentation", drawn)
    straight, broken = (task_of("segmentation", data, freeze_backbone_epochs=2) for _ in range(2))
    trainer_of(tmp_path, max_epochs=3).fit(straight, datamodule=data)
    first = trainer_of(tmp_path, StopAfter(1), max_epochs=3)
    first.fit(broken, datamodule=data_of("segmentation", drawn))
    first.save_checkpoint(tmp_path / "half.ckpt")
    again = task_of("segmentation", data, freeze_backbone_epochs=2)
    trainer_of(tmp_path, max_epochs=3).fit(
        again, datamodule=data_of("segmentation", drawn), ckpt_path=tmp_path / "half.ckpt", weights_only=True
    )
    assert not changed(straight.network.state_dict(), again.network.state_dict())


def test_lightnings_backbone_finetuning_works(kind, drawn, tmp_path):
    data = data_of(kind, drawn)
    task, watch = task_of(kind, data), Watch()
    finetuning = BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=1e-3)
    trainer = trainer_of(tmp_path, finetuning, watch, max_epochs=2)
    trainer.fit(task, datamodule=data)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    names = {id(p): name for name, p in task.network.named_parameters()}
    # It lets the scales and offsets of BatchNorm train from the start.
    norms = {id(p) for layer in task.batchnorms() for p in layer.parameters()}
    backbone = {names[id(p)] for p in task.backbone.parameters() if id(p) not in norms}
    first, second = (changed(*pair) for pair in itertools.pairwise(watch.seen))
    assert not first & backbone
    assert second & backbone
    assert trainer.optimizers[0].param_groups[-1]["lr"] == pytest.approx(1e-3)

    # Resumed after it has thawed the backbone, that is trained on.
    again, watch = task_of(kind, data), Watch()
    finetuning = BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=1e-3)
    trainer = trainer_of(tmp_path, finetuning, watch, max_epochs=3)
    trainer.fit(again, datamodule=data_of(kind, drawn), ckpt_path=tmp_path / "two.ckpt", weights_only=False)
    assert changed(*watch.seen) & backbone


@pytest.mark.parametrize(
    ("wanted", "attention", "device", "precision", "last"),
    [
        (True, "my.Own", "cuda", "32-true", True),
        (False, "ela_t", "cpu", "32-true", False),
        ("auto", "ela_t", "cpu", "32-true", True),
        ("auto", "none", "cpu", "bf16-mixed", True),
        ("auto", "ela_t", "cuda", "bf16-mixed", True),
        ("auto", "ela_t", "cuda", "16-true", True),
        ("auto", "ela_t", "cuda", "32-true", False),
        ("auto", "my.Own", "cpu", "32-true", False),
        ("auto", "ela_t", "mps", "32-true", False),
    ],
)
def test_the_rule_of_the_layout(wanted, attention, device, precision, last):
    found = memory_format(wanted, attention, device, precision)
    assert found == (torch.channels_last if last else torch.contiguous_format)


def test_the_layout_reaches_the_maps_and_changes_no_number(kind, drawn, tmp_path):
    data = data_of(kind, drawn)
    losses = {}
    for wanted in (False, "auto"):
        task, layouts = task_of(kind, data, channels_last=wanted), set()
        conv = next(
            m for m in task.backbone.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size[0] == 3
        )
        conv.register_forward_hook(
            lambda module, args, y, seen=layouts: seen.add(y.is_contiguous(memory_format=torch.channels_last))
        )
        trainer = trainer_of(tmp_path, limit_train_batches=1)
        trainer.fit(task, datamodule=data)
        losses[wanted] = trainer.callback_metrics["train/loss"]
        assert layouts == {wanted == "auto"}
    torch.testing.assert_close(losses["auto"], losses[False], rtol=5e-3, atol=0)


class Flattens(torch.nn.Module):
    """Attention of one's own, as many are written: by a view that maps with channels innermost have not."""

    def __init__(self, channels):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(channels))

    def forward(self, x):
        b, c, h, w = x.shape
        means = x.view(b * c, h * w).mean(-1).view(b, c)
        return x * (means * self.scale).sigmoid()[:, :, None, None]


def test_own_attention_that_flattens_its_map_trains_by_default(kind, drawn, tmp_path):
    data = data_of(kind, drawn)
    own = AttentionConfig(f"{__name__}.Flattens", at="auto")
    trainer_of(tmp_path, limit_train_batches=1).fit(task_of(kind, data, attention=own), datamodule=data)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        trainer_of(tmp_path, limit_train_batches=1).fit(
            task_of(kind, data, attention=own, channels_last=True), datamodule=data
        )


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=pytest.mark.slow if k == "segmentation" else pytest.mark.nightly) for k in TASKS],
)
def test_compiling_keeps_the_keys_and_the_numbers(kind, drawn, tmp_path):
    data = data_of(kind, drawn)
    plain, compiled = task_of(kind, data), task_of(kind, data, compile=True)
    losses = []
    for task in (plain, compiled):
        trainer = trainer_of(tmp_path, limit_train_batches=1)
        trainer.fit(task, datamodule=data)
        losses.append(trainer.callback_metrics["train/loss"])
    assert list(plain.state_dict()) == list(compiled.state_dict())
    # Compiled, dropout draws other numbers.
    torch.testing.assert_close(*losses, rtol=2e-2, atol=0)


def test_bn_momentum_reaches_the_backbone_of_every_task(kind, drawn):
    task = task_of(kind, data_of(kind, drawn), bn_momentum=0.3)
    layers = list(task.batchnorms())
    assert layers
    assert {layer.momentum for layer in layers} == {0.3}


@pytest.mark.parametrize(("option", "value"), [("bn_momentum", 1.5), ("freeze_backbone_epochs", -1)])
def test_options_out_of_range_are_refused(kind, drawn, option, value):
    with pytest.raises(AttnlabError, match=f"--model.{option} is {value}"):
        task_of(kind, data_of(kind, drawn), **{option: value})


@pytest.mark.parametrize(("classes", "listed"), [(40, 40), (41, 10)])
def test_the_summary_lists_all_classes_or_the_worst_ten(kind, classes, listed):
    cls, own, _, _ = TASKS[kind]
    task = cls(**{**own, "class_names": [f"c{k}" for k in range(classes)]})
    figures = {f"c{k}": (k * 7 % classes) / classes for k in range(classes)}
    task.headline = lambda stage, result: []
    task.listed_figures = lambda result: figures
    task.results["val"] = type("Result", (), {"absent": []})()
    rows = [row for row in task.summary("val") if row[0] != "of the classes"]
    assert len(rows) == listed
    assert len(rows) == classes or [value for _, value in rows] == [f"{k / classes:.4f}" for k in range(10)]
    assert task.summary("val", per_class=False) == []
    assert task.summary("test") == []


def test_data_of_another_task_are_refused(drawn):
    task = ClassificationTask("resnet18", num_classes=5)
    trainer = L.Trainer(max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    data = ShapesDetectionDataModule(str(drawn / "another"), **SMALL)
    with pytest.raises(AttnlabError, match="data for detection, but the task is classification"):
        trainer.fit(task, datamodule=data)
