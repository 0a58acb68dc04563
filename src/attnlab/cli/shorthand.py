"""Short forms of options written out: ``--model.attention=cbam``, ``--lr 0.1``, ``--batch-size 8``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches

# Names that other tools and older versions of Lightning use for an option.
OTHER_NAMES = {
    name: option
    for option, names in {
        "trainer.max_epochs": "epochs max_epochs num_epochs n_epochs trainer.epochs",
        "trainer.max_steps": "max_steps steps trainer.steps",
        "trainer.devices": "devices gpus num_gpus trainer.gpus trainer.num_gpus",
        "trainer.accelerator": "accelerator trainer.device",
        "trainer.precision": "precision",
        "trainer.strategy": "strategy",
        "trainer.accumulate_grad_batches": "accumulate_grad_batches",
        "trainer.gradient_clip_val": "gradient_clip_val grad_clip clip_grad",
        "model.optimizer.lr": "lr learning_rate base_lr model.lr model.learning_rate optimizer.lr",
        "model.optimizer.weight_decay": "weight_decay wd model.weight_decay optimizer.weight_decay",
        "model.optimizer.momentum": "momentum model.momentum",
        "model.optimizer": "optimizer optim opt",
        "model.schedule": "schedule scheduler lr_scheduler sched model.scheduler model.lr_scheduler",
        "model.attention": "attention attn model.attn",
        "model.weights": "weights pretrained_weights",
        "model.encoder": "encoder",
        "model.architecture": "architecture arch",
        "model.network": "network",
        "data.batch_size": "batch_size batch bs model.batch_size",
        "data.num_workers": "num_workers workers data.workers trainer.num_workers",
        "data.root": "root data_root data_dir data_path dataset_dir data.data_dir data.dir data.path",
        "data.predict_images": "predict_images images",
        "data.class_names": "class_names",
        "predictions.output_dir": "output_dir out_dir predictions.out_dir",
        "seed_everything": "seed",
        "ckpt_path": "ckpt checkpoint_path resume resume_from resume_from_checkpoint "
        "trainer.resume_from_checkpoint",
        "config": "cfg",
    }.items()
    for name in names.split()
}

# Options whose values the parser knows in one spelling only.
IN_SMALL_LETTERS = ("--model.attention.mode", "--model.schedule", "--model.schedule.name", "--task")
OF_THE_MODEL = ("attention.", "optimizer.", "schedule.", "loss.")


def with_proper_names(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Rename options to the parser's own names.

    Hyphens in a flag become underscores, and a flag in `OTHER_NAMES` becomes the option it stands for.

    Args:
        argv: Arguments as typed.

    Returns:
        The arguments, and the renamed flags: as typed, and the option's name.
    """
    taken: dict[str, str] = {}
    result = []
    for argument in argv:
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--"):
            result.append(argument)
            continue
        name = flag[2:].replace("-", "_")
        if name.startswith("model.init_args."):
            name = f"model.{name.removeprefix('model.init_args.')}"
        option = OTHER_NAMES.get(name, f"model.{name}" if name.startswith(OF_THE_MODEL) else name)
        if option != name:
            taken[flag] = f"--{option}"
        result.append(f"--{option}{equals}{value}")
    for position, argument in enumerate(result):
        flag, equals, value = argument.partition("=")
        if flag not in IN_SMALL_LETTERS:
            continue
        # Single words only: a block or a file name keeps its spelling.
        if equals and value.isidentifier():
            result[position] = f"{flag}={value.lower()}"
        elif not equals and position + 1 < len(result) and result[position + 1].isidentifier():
            result[position + 1] = result[position + 1].lower()
    return result, taken


def expand(argv: Sequence[str]) -> list[str]:
    """Write short flags in full.

    ``--model.attention=cbam`` becomes ``--model.attention.name=cbam`` and, since the options of another
    module do not suit this one, an empty ``--model.attention.options``. ``--model.attention.reduction=8``,
    not being a key of the block itself, becomes ``--model.attention.options.reduction=8``. The name goes
    first, whatever the order typed.

    Args:
        argv: Arguments as typed.
    """
    from attnlab.tasks import AttentionConfig, OptimizerConfig, ScheduleConfig

    blocks = {
        "model.attention": AttentionConfig,
        "model.optimizer": OptimizerConfig,
        "model.schedule": ScheduleConfig,
    }
    arguments = list(argv)
    for block, config in blocks.items():
        arguments = _expand_block(arguments, f"--{block}", {field.name for field in fields(config)})
    return arguments


def _expand_block(arguments: list[str], flag: str, keys: set[str]) -> list[str]:
    result: list[str] = []
    name: list[str] = []
    first: int | None = None
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        key, has_value, value = argument.partition("=")
        if key == flag or key.startswith(f"{flag}."):
            first = len(result) if first is None else first
        if key == flag:
            if not has_value and position < len(arguments):
                value = arguments[position]
                position += 1
            if value.lstrip().startswith("{") or value.endswith((".yaml", ".json")):
                result.append(f"{flag}={value}")
            else:
                name = [f"{flag}.name={value}"] + ([f"{flag}.options={{}}"] if "options" in keys else [])
        elif key.startswith(f"{flag}.") and "options" in keys:
            option = key.removeprefix(f"{flag}.").split(".")[0]
            # A misspelled key of the block is left for the parser to reject.
            own = option in keys or option == "help" or get_close_matches(option, keys, cutoff=0.8)
            inside = key if own else f"{flag}.options.{key[len(flag) + 1 :]}"
            result.append(f"{inside}{has_value}{value}")
        else:
            result.append(argument)
    if first is None:
        return result
    return result[:first] + name + result[first:]
