"One piece of work in a process of its own: `python child.py MODULE.FUNCTION ARGUMENTS RESULTS.npz [PEER]` prints what it took, as JSON."
import gc
import json
import resource
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time

import numpy as np


class Clock:
    "Counts CPU and wall seconds inside `with`, garbage collection outside; one lap each time."
    def __init__(self): self.cpu, self.wall = [], []

    def __enter__(self):
        gc.collect()
        gc.disable()
        self.began = process_time(), perf_counter()

    def __exit__(self, *_):
        cpu, wall = process_time(), perf_counter()
        self.cpu.append(cpu - self.began[0])
        self.wall.append(wall - self.began[1])
        gc.enable()


def peak_mb() -> float:
    "The most memory this program has had; what the system counts as its maximum includes the program that it was forked from."
    try: return next(int(line.split()[1]) for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM')) / 1024
    except OSError: return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == 'darwin' else 1024)


def main(does: str, arguments: str, results: str, peer: str = '') -> dict:
    "Do it, and say what it took."
    try: told = dict(version=version(import_module(peer).__name__)) if peer else {}
    except ImportError as error: return dict(absent=str(error))
    module, _, name = does.partition('.')
    clock = Clock()
    found = getattr(import_module(module), name)(clock, **json.loads(arguments))
    np.savez(results, **found)
    return told | dict(cpu=clock.cpu, wall=clock.wall, peak_mb=peak_mb())


if __name__ == '__main__': print(json.dumps(main(*sys.argv[1:])))
