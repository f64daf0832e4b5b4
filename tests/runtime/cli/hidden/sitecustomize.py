"""First on PYTHONPATH: packages in HIDDEN_PACKAGES are not there, and every process that is started is noted."""

import multiprocessing.process
import os
import sys

_HIDDEN = set(os.environ.get("HIDDEN_PACKAGES", "").split())


class _Hides:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in _HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _noted(start):
    def start_and_note(process):
        with open(os.environ["STARTED_PROCESSES"], "a") as file:
            file.write(f"{process.name}\n")
        return start(process)

    return start_and_note


sys.meta_path.insert(0, _Hides)
multiprocessing.process.BaseProcess.start = _noted(multiprocessing.process.BaseProcess.start)
