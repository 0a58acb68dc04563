"""The classification task through the command line: the whole way, bad input, several processes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import attnlab
from attnlab.checkpoints import OF_DATA
from tests.cli.conftest import (
    Outcome,
    checkpoint,
    csv_logger,
    scalars,
    weights_of,
    write_class_folders,
)

FIRST = ["--trainer.limit_test_batches=6", "--data.eval_batch_size=25"]
QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
WEIGHTS = Path(__file__).parents[3] / "shared" / "weights" / "mobilenet_v2_imagenet_dequantized.pth"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six classes; seven pictures each to train on and three to validate, of various sizes."""
    return write_class_folders(tmp_path / "pictures", classes=6, train=7, val=3)


@pytest.fixture
def small(folder: Path) -> list[str]:
    """Options of a run that takes seconds."""
    return [
        "--task=classification",
        "--model.network=timm/test_resnet",
        "--model.attention=ela_t",
        "--model.attention.at=stage",
        "--data=ImageFolderDataModule",
        f"--data.root={folder}",
        "--data.crop_size=32",
        "--data.batch_size=8",
        "--data.eval_batch_size=4",
        "--data.num_workers=0",
        "--trainer.max_epochs=1",
        *QUIET,
    ]


class TestOneRun:
    def test_the_whole_way(self, run, small, tmp_path):
        outcome = run("fit", *small)
        assert outcome.status == 0, outcome.err
        assert "best val/top1" in outcome.out
        pictures = tmp_path / "lightning_logs/version_0/pictures"
        names = {"val.png", "val_mistakes.png", "val_confusion.png"}
        assert names <= {path.name for path in pictures.iterdir()}

        outcome = run("fit", *small, "--ckpt_path=last", "--trainer.max_epochs=2")
        assert outcome.status == 0, outcome.err
        assert not (tmp_path / "lightning_logs/version_1").exists()

        # From here on the checkpoint alone knows task, network, attention and data.
        outcome = run("test", "--ckpt_path=best", *QUIET)
        assert outcome.status == 0, outcome.err
        assert "test top-1" in outcome.out
        assert "accuracy class2" in outcome.out
        assert "ela_t at" in outcome.out
        (table,) = tmp_path.rglob("classes_test.csv")
        with table.open() as file:
            rows = list(csv.DictReader(file))
        assert [(row["synset"], row["images"]) for row in rows] == [(f"class{k}", "3") for k in range(6)]
        assert run("validate", "--ckpt_path=best", *QUIET).status == 0

    def test_predict_needs_no_data_set(self, run, trained, folder, tmp_path):
        trained()
        folder.rename(tmp_path / "gone")
        for k, size in enumerate([(40, 30), (20, 50), (64, 64)]):
            Image.fromarray(np.full((*size, 3), 60 * k, np.uint8)).save(tmp_path / f"photo{k}.png")
        given = ["--ckpt_path=last", f"--data.predict_images={tmp_path}/photo*.png", "--predictions.top=3"]
        outcome = run("predict", *given, *QUIET)
        assert outcome.status == 0, outcome.err
        with (tmp_path / "predictions/predictions.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [Path(row["image"]).name for row in rows] == ["photo0.png", "photo1.png", "photo2.png"]
        for row in rows:
            shares = [float(row[f"probability_{rank}"]) for rank in (1, 2, 3)]
            assert shares == sorted(shares, reverse=True)
            assert {row[f"class_{rank}"] for rank in (1, 2, 3)} < {f"class{k}" for k in range(6)}

    def test_a_checkpoint_remembers_its_classes(self, trained, tmp_path):
        trained()
        content = torch.load(checkpoint(tmp_path), weights_only=True)
        assert content["hyper_parameters"]["_class_path"].endswith(".ClassificationTask")
        assert content[OF_DATA]["classes"] == {f"class{k}": f"class{k}" for k in range(6)}

    def test_other_folders_than_it_was_trained_on(self, run, trained, tmp_path):
        trained()
        other = write_class_folders(tmp_path / "other", classes=5, train=3, val=2)
        outcome = run("test", "--ckpt_path=last", f"--data.root={other}", *QUIET)
        assert outcome.status == 2
        assert "class5" in outcome.err

    @pytest.mark.parametrize("task", ["classification", "captioning"])
    def test_a_checkpoint_of_before_tasks_were_classes(self, run, trained, tmp_path, task):
        trained()
        content = torch.load(checkpoint(tmp_path), weights_only=True)
        content["attnlab"]["task"] = task
        data = content.pop(OF_DATA)
        content["attnlab"]["data"] = {"class_path": data.pop("_class_path"), "init_args": data}
        for key in ("_class_path", "_instantiator"):
            del content["hyper_parameters"][key]
        torch.save(content, tmp_path / "other.ckpt")
        outcome = run("test", "--ckpt_path=other.ckpt", *QUIET)
        if task == "classification":
            assert outcome.status == 0, outcome.err
            assert attnlab.load(tmp_path / "other.ckpt").class_names[5] == "class5"
        else:
            assert outcome.status == 2
            assert "is for the task 'captioning'" in outcome.err

    def test_another_task_than_the_checkpoints(self, run, trained):
        trained()
        outcome = run("test", "--task=segmentation", "--ckpt_path=last", *QUIET)
        assert outcome.status == 2
        assert "The checkpoint was saved by ClassificationTask" in outcome.err


def test_another_data_module_starts_from_its_own_defaults(trained, tmp_path):
    """Not from those of the drawn pictures, which are the task's default data."""
    trained()
    options = torch.load(checkpoint(tmp_path), weights_only=True)[OF_DATA]
    assert options["eval_resize"] == "auto"


class TestRecipes:
    def test_mixing_smoothing_and_the_average_of_the_weights(self, run, small, tmp_path):
        """What modern.yaml lays over a recipe, resumed and tested."""
        modern = Path(__file__).parents[2] / "configs" / "modern.yaml"
        given = [*small, f"--config={modern}", "--model.schedule.warmup_steps=2"]
        assert run("fit", *given).status == 0
        content = torch.load(checkpoint(tmp_path), weights_only=True)
        average, current = content["state_dict"], content["current_model_state"]
        assert average.keys() == current.keys()
        assert any(not torch.equal(average[key], current[key]) for key in average)
        assert content["hyper_parameters"]["mixing"]["cutmix_alpha"] == 1.0
        assert run("fit", *given, "--ckpt_path=last", "--trainer.max_epochs=2").status == 0
        outcome = run("test", *given, "--ckpt_path=last")
        assert outcome.status == 0, outcome.err

    def test_the_learning_rate_follows_the_global_batch(self, run, small, tmp_path):
        more = [
            "--model.optimizer.lr=0.1",
            "--model.optimizer.lr_scaling=linear",
            "--model.schedule=constant",
        ]
        assert run("fit", *small, *more, "--trainer.accumulate_grad_batches=2").status == 0
        content = torch.load(checkpoint(tmp_path), weights_only=True)
        rates = {group["lr"] for group in content["optimizer_states"][0]["param_groups"]}
        assert len(rates) == 1
        assert rates.pop() == pytest.approx(0.1 * 16 / 256)

    def test_pretrained_weights_with_another_classifier(self, run, small, tmp_path, caplog):
        from attnlab.models import build_classifier

        source = build_classifier("timm/test_resnet", 11).network
        torch.save(source.state_dict(), tmp_path / "eleven.pth")
        frozen = [
            "--model.weights=eleven.pth",
            "--model.attention.mode=rezero",
            "--model.freeze_backbone_bn=true",
        ]
        outcome = run("fit", *small, *frozen)
        assert outcome.status == 0, outcome.err
        assert "6 classes here, 11 in the file" in caplog.text
        after = weights_of(checkpoint(tmp_path))
        running = {k: v for k, v in source.state_dict().items() if "running" in k}
        assert running
        assert all(torch.equal(after[f"network.{key}"], value) for key, value in running.items())


class TestRepeatability:
    def test_a_seed_makes_two_runs_alike_whatever_the_workers(self, run, trained, small, tmp_path):
        trained()
        for more in (["--data.num_workers=2"], ["--seed_everything=1"]):
            outcome = run("fit", *small, *more)
            assert outcome.status == 0, outcome.err
        first, second, other = (weights_of(checkpoint(tmp_path, version=v)) for v in range(3))
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert not all(torch.equal(first[key], other[key]) for key in first)

    @pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.nightly)])
    def test_scores_are_those_of_one_process(self, run, launch, trained, small, tmp_path, processes):
        """18 images over two and four processes: uneven shares, and fillers that do not count."""
        trained()
        given = [*small, f"--ckpt_path={checkpoint(tmp_path)}"]
        assert run("test", *given, *csv_logger("one")).status == 0
        launch(processes, "test", *given, *csv_logger("many"))
        one, many = scalars(tmp_path / "logs/one"), scalars(tmp_path / "logs/many")
        exact = {key: value for key, value in one.items() if not key.endswith("loss")}
        assert {"test/top1", "test/top5", "test_accuracy/class0"} <= exact.keys()
        assert {key: many[key] for key in exact} == exact
        assert many["test/loss"] == pytest.approx(one["test/loss"], rel=1e-5)

    def test_predictions_of_many_processes_are_in_order(self, run, launch, trained, small, tmp_path):
        trained()
        given = [
            *small,
            f"--ckpt_path={checkpoint(tmp_path)}",
            f"--data.predict_images={tmp_path}/pictures/val",
        ]
        assert run("predict", *given, "--predictions.output_dir=one").status == 0
        launch(2, "predict", *given, "--predictions.output_dir=many")
        assert len(list((tmp_path / "many").glob("*.csv"))) == 1
        one, many = (list(csv.DictReader((tmp_path / d / "predictions.csv").open())) for d in ("one", "many"))
        assert [row["image"] for row in many] == [row["image"] for row in one]
        assert len(one) == 18
        assert [row["class_1"] for row in many] == [row["class_1"] for row in one]


class TestBadInput:
    """One error, status 2, before any training."""

    @pytest.fixture
    def refused(self, run, small, tmp_path):
        def call(*more: object) -> Outcome:
            outcome = run("fit", *small, *more)
            assert outcome.status == 2, outcome.out + outcome.err
            assert outcome.err.count("error:") == 1
            assert "Traceback" not in outcome.err
            assert not list(tmp_path.rglob("*.ckpt"))
            return outcome

        return call

    def test_class_folders_that_differ(self, refused, folder):
        (folder / "val" / "class3").rename(folder / "val" / "klass3")
        error = refused().err
        assert "class3" in error
        assert "klass3" in error

    def test_an_empty_class(self, refused, folder):
        for path in (folder / "train" / "class2").iterdir():
            path.unlink()
        assert "class2" in refused().err

    @pytest.mark.filterwarnings("ignore:.*cannot be used")
    def test_files_that_are_no_images_and_cut_ones(self, refused, run, small, folder):
        (folder / "train/class0/00.jpg").write_text("not a picture")
        cut = folder / "val/class1/01.jpg"
        cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
        assert "00.jpg" in refused().err
        (folder / "train/class0/00.jpg").unlink()
        assert "01.jpg" in refused().err
        outcome = run("fit", *small, "--data.on_bad_image=skip")
        assert outcome.status == 0, outcome.err
        assert "bad images skipped" in outcome.out

    @pytest.mark.parametrize(
        ("flag", "message"),
        [
            ("--model.network=resnet19", "resnet18"),
            ("--model.network=timm/vit_tiny_patch16_224", "not a CNN"),
            ("--model.network_options={chanels: [8, 8, 8, 8]}", "chanels"),
            ("--data.root=nowhere", "nowhere"),
            ("--data.eval_resize=16", "eval_resize"),
            ("--model.weights=nowhere.pth", "Weights file not found"),
            ("--model.label_smoothing=2", "label_smoothing"),
        ],
    )
    def test_options(self, refused, flag, message):
        assert message in refused(flag).err

    def test_weights_that_do_not_fit(self, refused, tmp_path):
        from attnlab.models import build_classifier

        torch.save(build_classifier("resnet18", 6).network.state_dict(), tmp_path / "r18.pth")
        assert "do not fit" in refused("--model.weights=r18.pth").err
        more = ["--model.network=resnet18", "--model.stem_stride=1", "--model.weights=r18.pth"]
        assert "--model.stem_stride" in refused(*more).err

    def test_an_image_smaller_than_the_crop_where_none_is_resized(self, refused, folder):
        Image.new("RGB", (20, 31)).save(folder / "val/class0/00.jpg")
        error = refused("--data.eval_resize=none").err
        assert "00.jpg" in error
        assert "20 x 31" in error

    def test_top5_of_fewer_than_five_classes(self, run, small, tmp_path):
        few = write_class_folders(tmp_path / "few", classes=3, train=4, val=2)
        outcome = run("fit", *small, f"--data.root={few}", "--checkpoint.monitor=val/top5")
        assert outcome.status == 2
        assert "at least five classes" in outcome.err
        outcome = run("fit", *small, f"--data.root={few}")
        assert outcome.status == 0, outcome.err
        assert "needs at least five classes" in outcome.out


class TestRealWeights:
    """MobileNetV2 on one real picture a class: 77.4 % top-1 with these weights, 82.7 % of the first 150."""

    @pytest.mark.parametrize(
        ("attention", "low", "high"),
        [
            (["--model.attention=ela_l", "--model.attention.mode=rezero", *FIRST], 0.819, 0.834),
            pytest.param([], 0.769, 0.779, marks=pytest.mark.nightly),
            pytest.param(
                ["--model.attention=ela_l", "--model.attention.mode=rezero"],
                0.769,
                0.779,
                marks=pytest.mark.nightly,
            ),
            pytest.param(
                ["--model.attention=ela_l", "--model.attention.mode=replace"],
                0.0,
                0.3,
                marks=pytest.mark.nightly,
            ),
        ],
        ids=["first", "none", "rezero", "replace"],
    )
    def test_imagenet_sample(self, run, shared_data, attention, low, high):
        if not WEIGHTS.is_file():
            pytest.skip("the real weights are not at ../shared/weights")
        outcome = run(
            "test",
            "--task=classification",
            "--model.network=mobilenet_v2",
            f"--model.weights={WEIGHTS}",
            *attention,
            "--data=ImageNetDataModule",
            f"--data.root={shared_data / 'imagenet-sample'}",
            "--data.eval_resize=none",
            "--data.mean=[0.5,0.5,0.5]",
            "--data.std=[0.5,0.5,0.5]",
            "--data.num_workers=0",
            *csv_logger("real"),
            *QUIET,
        )
        assert outcome.status == 0, outcome.err
        assert low <= scalars(Path("logs/real"))["test/top1"] <= high
