"""What a warm parent and its children do, whatever they are for. Standard library only.

`trainer.warm` forks the processes of a run, `trainer.zygote` the workers of models; both import once, fork, and
let a child take the place of a process that was started for its order.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn


def settle() -> None:
    """Call it when everything is imported: the collector of a child must not copy every page."""
    gc.collect()
    gc.freeze()


def lend(files: Mapping[int, int]) -> None:
    """Put open files in the places of others: {our number: the file that goes there}."""
    for ours, theirs in files.items():
        os.dup2(theirs, ours)
        os.close(theirs)


def step_into(order: Mapping[str, Any]) -> None:
    """Take on the environment and the folder of an order, and nothing of the parent's."""
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    tempfile.tempdir = None  # it may have been looked up in the parent's environment


def end_with(work: Callable[[], int], tell: Callable[[int], None] | None = None) -> NoReturn:
    """Do the work and leave with its code: never back into the code of the parent. `tell` hears the code first."""
    code = 1
    try:
        code = work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            if tell is not None:
                tell(code)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
