"""A process that has loaded the libraries and forks for each command: loading takes longer than most do.

Orders come as lines of JSON, and a list of exit statuses goes out for each. The processes of one command find
each other as those of a launcher do, by LOCAL_RANK and a port. An order may have an environment, and a signal
that its processes get when a file is there, or their groups, with their loaders' workers.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import segmentation_models_pytorch  # noqa: F401
import timm  # noqa: F401
from lightning.pytorch.utilities import rank_zero_only
from torch.utils import tensorboard  # noqa: F401

import attnlab.cli.trainer  # noqa: F401
from attnlab.cli import main

LONGEST = 300


def work(order: dict[str, Any], rank: int) -> int:
    """Run the order's command; what it says goes into a file of its own."""
    signal.alarm(LONGEST)
    os.setpgid(0, 0)
    os.chdir(order["folder"])
    log = os.open(f"{order['log']}{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= order["environment"]
    if order["processes"] > 1:
        os.environ |= {"LOCAL_RANK": str(rank), "MASTER_PORT": str(order["port"])}
        rank_zero_only.rank = rank
    try:
        main(order["words"])
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


# A shell's background job ignores it, and so would the children.
signal.signal(signal.SIGINT, signal.default_int_handler)
for line in sys.stdin:
    order = json.loads(line)
    children = []
    for rank in range(order["processes"]):
        if (child := os.fork()) == 0:
            status = work(order, rank)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        children.append(child)
    if order["signal"] is not None:
        number, awaited, *group = order["signal"]
        while not any(Path(order["folder"]).glob(awaited)):
            time.sleep(0.01)
        for child in children:
            (os.killpg if group else os.kill)(child, number)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
