"Fresh processes, one for each piece of work, and environments of their own for the peers."
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

HERE = Path(__file__).resolve().parent
LOCKS = dict(backtesting='requirements-bench.lock', backtrader='requirements-bench.lock', nautilus_trader='requirements-bench-nautilus.lock')


class Absent(Exception):
    "A peer is not here; the text says why."


@dataclass(frozen=True)
class Taken:
    "What one process took, and found."
    laps_cpu: list
    laps_wall: list
    peak_mb: float
    found: dict

    @property
    def cpu(self) -> float: return sum(self.laps_cpu)
    @property
    def wall(self) -> float: return sum(self.laps_wall)


@dataclass(frozen=True)
class Work:
    "A candidate: a function of one of the modules here, and its arguments."
    does: str                                        # 'ours.swept'
    arguments: dict = field(default_factory=dict)
    peer: str = ''                                   # whose environment it needs; our own without


@dataclass
class Lab:
    folder: Path         # for what processes hand over
    root: Path           # of the project
    install: bool = True
    markets: dict = field(default_factory=dict)    # bars → file
    missing: dict = field(default_factory=dict)    # peer → why
    versions: dict = field(default_factory=dict)   # peer → its version

    def say(self, text: str): print(f'-- {text}', file=sys.stderr, flush=True)

    def market(self, bars: int) -> str:
        "A file with so many bars of the book's synthetic market, in which every bar opens where the last one closed."
        if bars not in self.markets:
            from trading_lib.market.synthetic import synthetic_market
            made = synthetic_market(seed=1, bars=bars, symbols=('BTC/USDT',), timeframe='5m').samples['BTC/USDT'].bars
            assert (made.open.to_numpy()[1:] == made.close.to_numpy()[:-1]).all()
            self.markets[bars] = str(self.folder / f'{bars}.npz')
            np.savez(self.markets[bars], time=made.index.as_unit('ns').asi8, **{name: made[name].to_numpy() for name in made})
        return self.markets[bars]

    def python(self, peer: str) -> Path:
        "The interpreter of a peer, installed from its lock if need be; raises `Absent`."
        if not peer: return Path(sys.executable)
        lock = self.root / LOCKS[peer]
        home = self.root / '.venv' / lock.stem
        python, ready = home / 'bin' / 'python', home / f'ready-{sha256(lock.read_bytes()).hexdigest()[:16]}'
        if ready.exists(): return python
        if not self.install: raise Absent('not installed')
        self.say(f'installing {lock.name} into .venv/{lock.stem}')
        uv = [sys.executable, '-m', 'uv', '--quiet']
        said = subprocess.run([*uv, 'venv', '--clear', '--python', sys.executable, home], capture_output=True, text=True)
        for more in ([], ['--system-certs']):    # behind a company's certificates, with those of the system
            if said.returncode == 0 or more:
                said = subprocess.run([*uv, 'pip', 'install', *more, '--python', python, '--only-binary', ':all:', '--require-hashes', '-r', lock],
                                      capture_output=True, text=True)
            if said.returncode == 0: break
        if said.returncode: raise Absent('does not install: ' + ' '.join(said.stderr.split())[-200:])
        ready.touch()
        return python

    def run(self, work: Work, **environment: str) -> Taken:
        "One process; what it does wrong ends everything, but a peer that does not import is only absent."
        results = self.folder / 'results.npz'
        python = self.python(work.peer)
        call = [python, HERE / 'child.py', work.does, json.dumps(work.arguments), results, work.peer]
        done = subprocess.run(call, capture_output=True, text=True, env=os.environ | dict(PYTHONDONTWRITEBYTECODE='') | environment)   # imports as people have them
        if done.returncode: raise SystemExit(f'{work.does} {work.arguments} failed:\n{done.stderr}')
        told = json.loads(done.stdout.splitlines()[-1])
        if 'absent' in told: raise Absent(f'does not import: {told["absent"]}')
        if work.peer: self.versions[work.peer] = told['version']
        with np.load(results) as file: found = dict(file)
        return Taken(told['cpu'], told['wall'], told['peak_mb'], found)

    def started(self, work: Work, **environment: str) -> Taken:
        "The same, but timed from outside: the interpreter, the imports and everything else."
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
        done = self.run(work, **environment)
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter() - began
        return Taken([after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime], [wall], done.peak_mb, done.found)

    def turns(self, works: dict[str, Work], rounds: int, check=lambda found: None) -> dict[str, list[Taken]]:
        "Everyone once, then the check of what they found, then everyone again; a candidate that is absent is left out, and says why in `missing`."
        taken = {name: [] for name in works}
        for k in range(rounds):
            for name in list(taken):
                try: taken[name].append(self.run(works[name]))
                except Absent as reason:
                    self.missing[name] = str(reason)
                    del taken[name]
                    continue
                self.say(f'{works[name].does}, round {k + 1} of {rounds}, {name}: {taken[name][-1].cpu:.3g} s')
            if k == 0: check({name: runs[0].found for name, runs in taken.items()})
        return taken


def middle(runs: list[Taken], what: str = 'cpu') -> float: return median(getattr(each, what) for each in runs)


def times(ours: list[Taken], theirs: list[Taken], what: str = 'cpu') -> float:
    "How many times as long they took: the median of what each round says."
    return median(getattr(b, what) / getattr(a, what) for a, b in zip(ours, theirs, strict=True))
