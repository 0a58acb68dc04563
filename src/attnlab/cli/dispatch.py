"""The command line: dispatches to Lightning's subcommands and attnlab's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from errno import EACCES, EDQUOT, EEXIST, EFBIG, ENOSPC, ENOTDIR, EPERM, EROFS
from pathlib import Path

from attnlab import __version__
from attnlab.errors import AttnlabError, unknown

TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
OWN_COMMANDS = ("attention", "profile")
INTERRUPTED, TERMINATED = 130, 143
CANNOT_WRITE = (ENOSPC, EDQUOT, EFBIG, EROFS, EACCES, EPERM, ENOTDIR, EEXIST)

HELP = """\
usage: python main.py COMMAND [options]

attnlab: what does this attention module do for my CNN, and at what cost?

train and use a network for classification, segmentation or detection
  fit        Train from a YAML:        python main.py fit --config quickstart_segmentation
  validate   Score on the val split:   python main.py validate --ckpt_path best
  test       Score on the test split:  python main.py test --ckpt_path best
  predict    Run on any images:        python main.py predict --ckpt_path best --data.predict_images photos/

look at attention
  attention list            Every module: paper, options, parameters, MACs
  attention show NAME       One module: its options and defaults, and how to set it in a YAML
  attention sites NETWORK   Where a placement puts it in a network, and what it costs there
  profile NETWORK ...       What each module costs in a network: parameters, MACs, memory, time

Every command explains its options:  python main.py fit --help
The command line overrides the YAML, and the YAML overrides what a checkpoint remembers:
  --model ClassificationTask|SegmentationTask|DetectionTask    the task, if no YAML names one
  --model.attention=cbam --model.attention.reduction=8         another attention module, with an option of it
  --model.network=mobilenet_v2                                 another classifier or detector
  --model.encoder=mobilenet_v2                                 another backbone for segmentation
  --ckpt_path last|best|FILE                                   resume, test or predict from a checkpoint

-h, --help     this page
--version      print the version
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        argv: The arguments after the program name (default: this process's).

    Raises:
        SystemExit: With status 2 for invalid input, 130 after Ctrl-C, 143 after SIGTERM.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if str(Path.cwd()) not in sys.path:
        # Makes modules in the working directory importable. Appended, so that none shadows a library.
        sys.path.append(str(Path.cwd()))
    try:
        _run(arguments[0] if arguments else "--help", arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as head, has closed the pipe; keep Python from complaining again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        status = _status_of_signal(error)
        if isinstance(error, KeyboardInterrupt):
            print("Interrupted.", file=sys.stderr)
        if status is not None:
            raise SystemExit(status) from None
        if isinstance(error, SystemExit):
            raise
        message = _readable(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2) from error


def _run(command: str, arguments: list[str]) -> None:
    if command in ("-h", "--help", "help"):
        print(HELP, end="")
    elif command == "--version":
        print(f"attnlab {__version__}")
    elif command in OWN_COMMANDS:
        from attnlab.cli.commands import run

        run(arguments)
    elif command in TRAINER_COMMANDS:
        from attnlab.cli.arguments import Arguments

        read = Arguments.read(arguments)
        from attnlab.cli.trainer import AttnlabCLI

        AttnlabCLI.run_command(read)
    else:
        raise unknown("command", command, (*TRAINER_COMMANDS, *OWN_COMMANDS), "See python main.py --help.")


def _status_of_signal(error: BaseException) -> int | None:
    """128 + the signal's number, if a signal ended the command, whatever failed then; else None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            return INTERRUPTED
        if isinstance(cause, SystemExit) and cause.code == TERMINATED:
            return TERMINATED
        cause = cause.__context__
    return None


def _readable(error: BaseException) -> str | None:
    """The message, if it is an error the user can fix; else None, for a traceback."""
    cause: BaseException | None = error
    while cause is not None:
        # The parser wraps a constructor's error, and a failure may cause another during clean-up.
        if isinstance(cause, AttnlabError):
            return _own_text(cause)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
        where = f" ({error.filename})" if error.filename else ""
        return (
            f"Cannot write: {error.strerror}{where}. Free some space or choose another folder: "
            "--trainer.logger.init_args.save_dir for logs and checkpoints, --predictions.output_dir for "
            "predictions."
        )
    return None


def _own_text(error: AttnlabError) -> str:
    """The message itself, even if it came back from a worker process inside a traceback."""
    text = str(error)
    marker = f"{AttnlabError.__name__}: "
    return text.rsplit(marker, 1)[-1].strip() if "Original Traceback" in text else text
