"""attnlab in one's own code: lazy, any task by its checkpoint alone, the same numbers as the command line."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.optim import SGD

import attnlab
from attnlab.checkpoints import OF_DATA
from attnlab.errors import AttnlabError

ROOT = Path(__file__).parents[1]
TASKS = ("segmentation", "classification", "detection")


class TestLazy:
    @pytest.mark.slow
    def test_attach_needs_torch_alone(self):
        """In a fresh process; and costs little beyond torch, as processor time, so that no load matters."""
        code = (
            "import time, sys, torch; from torch import nn; start = time.process_time(); import attnlab;"
            "net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16));"
            "attnlab.attach; print(time.process_time() - start);"
            "attnlab.attach(net, 'ela_t', at='1');"
            "print([m for m in ('lightning', 'torchvision', 'timm', 'torchmetrics') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds, modules = done.stdout.splitlines()
        assert modules == "[]"
        assert float(seconds) < 3.0  # 0.3 where nothing else runs; the bound only catches another library

    def test_what_there_is(self):
        assert set(attnlab.__all__) <= set(dir(attnlab))
        assert all(getattr(attnlab, name) is not None for name in attnlab.__all__)
        with pytest.raises(AttributeError, match="has no attribute 'atach'"):
            attnlab.atach  # noqa: B018


class TestOptions:
    """attach and build_attention take options in the same two ways."""

    def kernel(self, **given):
        network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16))
        attnlab.attach(network, "ela_t", at="1", **given)
        built = attnlab.build_attention("ela_t", 16, **given)
        sizes = {
            m.kernel_size[0] for n in (network[1], built) for m in n.modules() if isinstance(m, nn.Conv1d)
        }
        assert len(sizes) == 1
        return sizes.pop()

    def test_as_a_mapping_and_as_keywords(self):
        assert self.kernel() == 5
        assert self.kernel(options={"kernel_size": 9}) == self.kernel(kernel_size=9) == 9

    @pytest.mark.parametrize("given", [{"kernel_sise": 9}, {"options": {"kernel_size": 9}, "kernel_size": 7}])
    def test_a_wrong_one(self, given):
        with pytest.raises(AttnlabError, match="kernel_size"):
            self.kernel(**given)
        with pytest.raises(AttnlabError, match="kernel_size"):
            attnlab.build_attention("ela_t", 16, **given)


def test_a_schedule_of_ones_own_loop():
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = attnlab.learning_rate_schedule(optimizer, total_steps=4, config="cosine")
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([1 + np.cos(np.pi * k / 4) for k in range(5)])
    with pytest.raises(AttnlabError, match="Did you mean 'cosine'"):
        attnlab.learning_rate_schedule(optimizer, 4, "cosin")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of each task, after a step on drawn data, and a folder with pictures."""
    from attnlab.cli import main

    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for name, size in (("a.png", (70, 90)), ("b.png", (64, 41))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / "photos" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for task in TASKS:
            main(
                [
                    "fit",
                    f"--config={ROOT / f'configs/quickstart_{task}.yaml'}",
                    *("--data.num_train=10", "--data.num_val=5", "--data.batch_size=5", "--data.root=shapes"),
                    *("--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--trainer.accelerator=cpu"),
                    f"--trainer.logger.init_args.name={task}",
                ]
                + (["--model.network_options.score_threshold=0"] if task == "detection" else [])
            )
    return folder


def checkpoint_of(folder: Path, task: str) -> Path:
    return folder / "lightning_logs" / task / "version_0/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def loaded(trained):
    """`attnlab.load`, once for each task."""
    return cache(lambda task: attnlab.load(checkpoint_of(trained, task)))


@pytest.mark.parametrize("task", TASKS)
class TestLoad:
    def test_predicts_what_the_command_line_does(self, trained, loaded, tmp_path, monkeypatch, task):
        from attnlab.cli import main

        monkeypatch.chdir(tmp_path)
        flags = ["--trainer.accelerator=cpu", f"--data.predict_images={trained / 'photos'}"]
        main(["predict", f"--ckpt_path={checkpoint_of(trained, task)}", *flags])
        paths = [trained / "photos/a.png", trained / "photos/b.png"]
        results = loaded(task).predict(paths)
        written = tmp_path / "predictions"
        if task == "segmentation":
            for path, result in zip(paths, results, strict=True):
                assert np.array_equal(np.array(Image.open(written / path.name)), result.mask.numpy())
        elif task == "classification":
            with (written / "predictions.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
            for row, result in zip(rows, results, strict=True):
                assert row["class_1"] == result.name
                assert float(row["probability_1"]) == pytest.approx(result.top(1)[0][1], rel=1e-5)
        else:
            found = json.loads((written / "predictions.json").read_text())["annotations"]
            for number, result in enumerate(results, 1):
                mine = [entry for entry in found if entry["image_id"] == number]
                assert len(mine) == len(result.scores) > 0
                assert [entry["score"] for entry in mine] == pytest.approx(result.scores.tolist(), abs=1e-6)
                x0, y0, x1, y1 = result.boxes.T
                boxes = torch.stack([x0, y0, x1 - x0, y1 - y0], 1)
                assert torch.allclose(torch.tensor([entry["bbox"] for entry in mine]), boxes, atol=2e-3)

    def test_takes_pictures_in_any_form(self, trained, loaded, task):
        net = loaded(task)
        path = trained / "photos/a.png"
        picture = Image.open(path)
        array = np.array(picture)
        tensor = torch.from_numpy(array).permute(2, 0, 1)
        forms = [str(path), picture, array, tensor, array.astype(np.float32) / 255, tensor.double() / 255]

        name = {"segmentation": "mask", "classification": "probabilities", "detection": "boxes"}[task]
        alone = net.predict(path)
        for result in [*net.predict(forms), net.predict(picture), *net.predict(tensor[None])]:
            # In a batch of another size the last bit may differ.
            torch.testing.assert_close(getattr(result, name), getattr(alone, name), rtol=1e-4, atol=1e-3)
        assert [r.path for r in net.predict(str(trained / "photos"))] == [path, trained / "photos/b.png"]
        # A name that comes twice is two results.
        assert len(net.predict([path, path])) == 2

    def test_saves_a_drawing_but_never_over_the_picture(self, trained, loaded, task, tmp_path):
        result = loaded(task).predict(trained / "photos/a.png")
        before = (trained / "photos/a.png").read_bytes()
        for _ in range(2):
            result.save(tmp_path / "new/out.png")
        assert Image.open(tmp_path / "new/out.png").mode == "RGB"
        with pytest.raises(AttnlabError, match="another name"):
            result.save(trained / "photos/../photos/a.png")
        assert (trained / "photos/a.png").read_bytes() == before

    def test_the_network_is_ready_and_stays_as_it_is(self, trained, task):
        net = attnlab.load(checkpoint_of(trained, task))
        assert not net.task.training
        state = torch.load(checkpoint_of(trained, task), weights_only=True)["state_dict"]
        net.task.train()
        net.predict(trained / "photos/b.png")
        assert net.task.training
        assert all(torch.equal(value, net.task.state_dict()[key]) for key, value in state.items())


class TestRefused:
    @pytest.mark.parametrize(
        ("picture", "message"),
        [
            ("nowhere.jpg", "No such image file"),
            (np.zeros((5, 6, 2), np.uint8), r"\(5, 6, 2\)"),
            (np.full((5, 6, 3), 200.0), "0..1"),
            (np.zeros((5, 6, 3), np.int64), "int64"),
            (3, "int"),
        ],
    )
    def test_what_is_no_picture(self, loaded, picture, message):
        with pytest.raises(AttnlabError, match=message):
            loaded("segmentation").predict(picture)

    @pytest.mark.parametrize("content", [b"", b"PK", None])
    def test_what_is_no_checkpoint(self, tmp_path, content):
        if content is not None:
            (tmp_path / "x.ckpt").write_bytes(content)
        with pytest.raises(AttnlabError, match=r"x\.ckpt"):
            attnlab.load(tmp_path / "x.ckpt")

    @pytest.mark.parametrize("where", ["attention", "data", "transform", "argument", "lambda"])
    def test_a_strangers_code_is_not_run(self, trained, tmp_path, monkeypatch, where):
        """The module would leave a file behind when it is imported."""
        (tmp_path / "strange.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass X: ...")
        monkeypatch.syspath_prepend(tmp_path)
        content = torch.load(checkpoint_of(trained, "segmentation"), weights_only=True)
        options = content[OF_DATA]
        if where == "attention":
            content["hyper_parameters"]["attention"]["name"] = "strange.X"
        elif where == "data":
            options["_class_path"] = "strange.X"
        elif where == "transform":
            options["eval_transforms"] = [{"class_path": "strange.X"}]
        elif where == "argument":
            inner = {"class_path": "strange.X"}
            options["eval_transforms"] = [
                {"class_path": "torchvision.transforms.v2.RandomApply", "init_args": {"transforms": inner}}
            ]
        else:
            options["eval_transforms"] = [
                {"class_path": "torchvision.transforms.v2.Lambda", "init_args": {"lambd": "strange.X"}}
            ]
        torch.save(content, tmp_path / "theirs.ckpt")
        with pytest.raises(AttnlabError, match="trust=True"):
            attnlab.load(tmp_path / "theirs.ckpt")
        assert not (tmp_path / "ran").exists()
