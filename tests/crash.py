"""The proof by breaking: a bot is killed again and again, at named points and at any moment, while requests fail, answers are lost and the
tail of its journal is cut off as a power cut would. In the end its books must be those of a run in which nothing broke, to the last digit.

    python tests/crash.py --runs 500 --out docs/crashes.md

Two controls show that the proof has teeth: without the look-up, and without the fence, runs must go bad.
"""
import argparse
import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from test_runner import BARS, FIRST, TIMES, books, exchange, mandate  # noqa: E402

from production.journal import UNRESOLVED, Journal  # noqa: E402
from production.local_exchange.child import start_child  # noqa: E402
from production.runner import PREFIX, Runner  # noqa: E402

POINTS = {   # where a bot kills itself, and after which call that is
    'enrolled': ('Journal', 'enrol'), 'books verified': ('Journal', 'verify'), 'decided': ('Journal', 'decide'), 'fenced, not sent': ('Journal', 'fence'),
    'sent': ('Gateway', 'submit'), 'looked up': ('Gateway', 'lookup'), 'adopted': ('Journal', 'adopt'), 'settled': ('Journal', 'settle')}
ROUTES = ['GET /api/v3/*', 'POST /api/v3/*', 'DELETE /api/v3/*']
RATE = .15            # of requests meet a fault
POWER = .3            # of deaths take the tail of the journal with them
MOST = 80             # lives of one run
SECRET = 'local-secret'


@dataclass
class Outcome:
    "What became of one run."
    seed: int
    control: str = ''
    deaths: Counter = field(default_factory=Counter)   # by where
    power: int = 0                                     # of them with a journal cut off
    faults: Counter = field(default_factory=Counter)   # by kind
    orders: int = 0
    bad: list[str] = field(default_factory=list)       # what is not as it should be

    @property
    def kills(self) -> int: return sum(self.deaths.values())


# one life of a bot, in a process of its own

def _live(url: str, journal: Path, point: str | None, count: int, control: str, late: bool):
    "Trade until the last bar, or until the named point is reached so often. Never returns."
    import aiohttp

    from production.gateway import Gateway, connect
    from production.local_exchange.client import rewire
    if point: _die_at(dict(Journal=Journal, Gateway=Gateway)[POINTS[point][0]], POINTS[point][1], count)
    if control: _weaken(control)

    async def main() -> str:
        gateway = await connect('binance', 'local-key', SECRET, 10**6, timeout_s=.3 if late else 2, redirect=lambda client: rewire(client, url))
        async with aiohttp.ClientSession() as http:
            async def release(bar):
                async with http.post(f'{url}/control/release', json=dict(through=bar)) as answer: await answer.read()
                await asyncio.sleep(.05)   # time to be killed in
            with Journal.open(journal) as book: return await Runner(mandate(attempts=50, order_window_ms=1500 if late else 200), gateway, book, release).run(TIMES[-2])

    code = 1
    sys.stderr = sys.stdout = open(os.devnull, 'w')
    try: code = dict(done=0, signal=3)[asyncio.run(main())]
    except BaseException as error: (journal.parent / 'last words').write_text(f'{type(error).__name__}: {error}')
    finally: os._exit(code)


def _die_at(owner: type, name: str, count: int):
    "Have the process kill itself after the call, the so-manieth time."
    whole, calls = getattr(owner, name), Counter()
    def over():
        calls['n'] += 1
        if calls['n'] == count: os.kill(os.getpid(), signal.SIGKILL)
    async def asked(*args, **more):
        try: return await whole(*args, **more)
        finally: over()
    def done(*args, **more):
        try: return whole(*args, **more)
        finally: over()
    setattr(owner, name, asked if asyncio.iscoroutinefunction(whole) else done)


def _weaken(control: str):
    "Take out what the proof is about."
    if control == 'no look-up':
        async def nothing(self, order, intent): return None
        Runner._found = nothing
    if control == 'no fence':
        async def once(self, order, intent): return await self.gateway.lookup(order)
        Runner._found = once


def cut(journal: Path, chance: random.Random) -> bool:
    "Emulate a power cut: drop some of the newest frames of the write-ahead log. A kill alone loses nothing."
    log = Path(f'{journal}-wal')
    if not log.exists() or log.stat().st_size <= 32: return False
    page = int.from_bytes(log.read_bytes()[8:12], 'big')
    frames = (log.stat().st_size - 32) // (page + 24)
    with open(log, 'r+b') as file: file.truncate(32 + (frames - chance.randint(1, min(frames, 12))) * (page + 24))
    return True


# a run: many lives

def run(seed: int, folder: Path, kills: int = 6, control: str = '') -> Outcome:
    """Break a bot at least so often, then let it finish, and judge.

    In every fifth run, and in those without a fence, some orders arrive late: after the bot has lost patience, within the time for which
    they were signed."""
    import ccxt.pro  # noqa: F401  so that a fork has it
    chance, done, journal, late = random.Random(seed), Outcome(seed, control), folder / 'j.db', control == 'no fence' or seed % 5 == 0
    child = start_child([BARS], folder / 'venue', first=FIRST, slippage='0.0005')
    try:
        weather = dict(rate=RATE, seed=seed, routes=ROUTES)
        if late: _post(child.url, 'faults', [dict(route='POST /api/v3/order', kind='delay', arg=.8, times=4)])
        _post(child.url, 'faults', [weather])
        code = None
        while code != 0:
            if sum(done.deaths.values()) + done.faults['lives'] > MOST: done.bad.append(f'not finished after {MOST} lives: {_words(folder)}'); break
            free = done.kills >= kills
            if free: _post(child.url, 'faults', {})
            point = None if free or chance.random() < .4 else chance.choice(list(POINTS))
            code, by_itself = _life(child.url, journal, point, chance, control, late, None if free else chance.uniform(.1, .7))
            if code == -signal.SIGKILL:
                done.deaths[point if by_itself else 'any moment'] += 1
                if chance.random() < POWER: done.power += cut(journal, chance)
            elif code != 0:
                done.faults['lives'] += 1
                if free or done.faults['lives'] > 20: done.bad.append(f'ended with {code}: {_words(folder)}'); break
            done.faults.update({fired['kind']: 0 for fired in _get(child.url)['fired']})
            for fired in _get(child.url)['fired']: done.faults[fired['kind']] = max(done.faults[fired['kind']], fired['times'])
    finally: child.stop()
    del done.faults['lives']
    done.bad += judge(journal, folder / 'venue')
    done.orders = len(books(journal)['orders']) if journal.exists() else 0
    return done


def _life(url: str, journal: Path, point: str | None, chance: random.Random, control: str, late: bool, patience_s: float | None) -> tuple[int, bool]:
    "Fork a bot and see it end; its exit code, and whether it ended by itself."
    pid = os.fork()
    if not pid: _live(url, journal, point, chance.randint(1, 4), control, late)
    deadline = time.monotonic() + (30 if patience_s is None else 2 if point else patience_s)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended: return os.waitstatus_to_exitcode(status), True
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), False
        time.sleep(.005)


def _words(folder: Path) -> str:
    with suppress(OSError): return (folder / 'last words').read_text()[:300]
    return 'no last words'


def _post(url: str, what: str, given: object):
    request = urllib.request.Request(f'{url}/control/{what}', json.dumps(given).encode(), {'Content-Type': 'application/json'})
    with urllib.request.urlopen(request) as answer: answer.read()


def _get(url: str) -> dict:
    with urllib.request.urlopen(f'{url}/control/faults') as answer: return json.load(answer)


# the judgement

_whole: dict = {}   # the books of the run in which nothing broke


def unbroken() -> dict:
    "The books of the same run undisturbed."
    if not _whole:
        from local_venue import venue
        async def calm(path):
            there = exchange()
            async with venue(there) as (gateway, _):
                with Journal.open(path) as journal: await Runner(mandate(), gateway, journal, there.release).run(TIMES[-2])
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(calm(Path(folder) / 'j.db'))
            _whole.update(books(Path(folder) / 'j.db'))
    return _whole


def judge(path: Path, venue: Path) -> list[str]:
    "Every invariant that does not hold, in words; nothing if all is well."
    if not path.exists(): return ['there is no journal']
    from production.journal.tables import HEAD
    bad, there = [], exchange(log=venue / 'exchange.log')
    try:
        placed = [state for state in there.venue.orders.values() if state.order.client_id.startswith(PREFIX)]
        names = Counter(state.order.client_id for state in placed)
        with Journal.reader(path) as journal:
            orders, [bot] = {row['client_id']: row for row in journal.orders()}, journal.status()['bots']
            fills, marks, audit = journal.fills(), journal.equity(bot['id']), journal.audit()
            revision = journal.status()['revision']
        bad += [f'{name} is {n} times at the venue' for name, n in names.items() if n > 1]                                         # 1
        bad += [f'{name} is at the venue and not in the journal' for name in names if name not in orders]                          # 2
        for state in placed:                                                                                                       # 3
            ours = orders.get(state.order.client_id)
            booked = sum((fill['quantity'] for fill in fills if fill['client_id'] == state.order.client_id), Decimal(0))
            if ours and not ours['filled'] == state.filled == booked: bad.append(f'{state.order.client_id}: {ours["filled"]} here, {state.filled} there, fills {booked}')
        found, wanted = books(path), unbroken()                                                                                    # 4
        bad += [f'{what} differ from the undisturbed run' for what in wanted if found[what] != wanted[what]]
        held = there.venue.held('USDT'), there.venue.held('BTC')                                                                   # 5
        if (bot['cash'], bot['position']) != held: bad.append(f'{bot["cash"]} and {bot["position"]} here, {held[0]} and {held[1]} there')
        bars = [mark['bar'] for mark in marks]                                                                                     # 7
        if len(set(bars)) != len(bars) or any(mark['outcome'] not in ('traded', 'held', 'skipped') for mark in marks): bad.append('a bar was decided twice, or without an outcome')
        bad += [f'{name} is still {row["status"]}' for name, row in orders.items() if row['status'] in UNRESOLVED]                 # 8
        resting = {there.venue.orders[id].order.client_id for ids in there.venue.resting.values() for id in ids}
        if resting != {name for name, row in orders.items() if row['status'] in ('OPEN', 'PARTIALLY_FILLED')}: bad.append('open orders differ')
        sendings: dict[str, list[dict]] = {}                                                                                       # 11
        for row in audit:
            if row['event'] == 'fence': sendings.setdefault(row['detail']['client_id'], []).append(row['detail'])
        for name, sent in sendings.items():
            if any(b['sent_at'] <= a['sent_at'] + a['window'] for a, b in zip(sent, sent[1:], strict=False)): bad.append(f'{name} was sent again before its fence')
        with sqlite3.connect(f'file:{path}?mode=ro', uri=True) as db:                                                              # 13
            if db.execute('pragma integrity_check').fetchone() != ('ok',): bad.append('the journal is not whole')
        if revision != HEAD: bad.append(f'the journal is at {revision}')
        if SECRET.encode() in path.read_bytes(): bad.append('the secret is in the journal')                                        # 16
        if min(there.venue.free.values()) < 0: bad.append('the venue gave more than there was')                                    # 17
    except Exception as error: bad.append(f'{type(error).__name__}: {error}')   # a judge that breaks has found something
    finally: there.close()
    return bad


# the table

def page(outcomes: list[Outcome], controls: list[Outcome]) -> str:
    "What was done to the bot, and what came of it."
    deaths, faults = sum((o.deaths for o in outcomes), Counter()), sum((o.faults for o in outcomes), Counter())
    bad = [o for o in outcomes if o.bad]
    rows = [f'| killed: {where} | {n:,} | {sum(bool(o.deaths[where]) for o in bad)} |' for where, n in deaths.most_common()]
    rows += [f'| request: {kind.replace("_", " ")} | {n:,} | {sum(bool(o.faults[kind]) for o in bad)} |' for kind, n in faults.most_common()]
    rows += [f'| journal cut off after a kill | {sum(o.power for o in outcomes):,} | {sum(bool(o.power) for o in bad)} |']
    named = sorted({o.control for o in controls})
    told = [f'| {name} | {sum(o.control == name for o in controls)} | {sum(o.control == name and bool(o.bad) for o in controls)} |' for name in named]
    lines = ['# Breaking it', '', '> Written by `tests/crash.py`, of which `make soak` does five hundred runs; nothing here is typed in by hand.', '',
             f'**{len(outcomes)} runs, {sum(o.kills for o in outcomes):,} kills, {sum(o.orders for o in outcomes):,} orders: {len(bad)} bad.**', '',
             f'A bot trades {len(TIMES) - FIRST} bars through unmodified ccxt on the local exchange, in a process of its own. {RATE:.0%} of its requests meet a fault. It is killed '
             f'at a named point or at any moment, and after {POWER:.0%} of the kills the newest part of its journal is cut off, as a power cut would. It is started again until '
             'the last bar is settled. A run is bad where anything is not as in a run without trouble, in `Decimal`: orders, fills, decisions, equity of every bar, '
             'balances; where a client id is twice at the venue, an order is resent before its fence, or one of the other invariants in `tests/crash.py` fails.', '',
             '| what was done | times | bad runs with it |', '| --- | ---: | ---: |', *rows, '', '## Controls', '',
             'The same without what makes it safe. These must go bad, or the proof would prove nothing.', '', '| taken out | runs | bad |', '| --- | ---: | ---: |', *told, '']
    return '\n'.join(lines)


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ask.add_argument('--runs', type=int, default=20)
    ask.add_argument('--seed', type=int, default=1)
    ask.add_argument('--controls', type=int, default=6, help='runs of each control')
    ask.add_argument('--out', type=Path, help='a page with the table')
    given, outcomes, controls = ask.parse_args(), [], []
    for k in range(given.runs): outcomes.append(_one(given.seed + k))
    for control in ('no look-up', 'no fence'): controls += [_one(given.seed + k, control) for k in range(given.controls)]
    if given.out: given.out.write_text(page(outcomes, controls))
    else: print(page(outcomes, controls))
    return int(any(o.bad for o in outcomes) or any(not any(o.bad for o in controls if o.control == name) for name in {o.control for o in controls}))


def _one(seed: int, control: str = '') -> Outcome:
    with tempfile.TemporaryDirectory(prefix='crash-') as folder: done = run(seed, Path(folder), control=control)
    print(f'{control or "run"} {seed}: {done.kills} kills, {done.power} cuts, {sum(done.faults.values())} faults, {done.orders} orders: {"; ".join(done.bad) or "well"}', file=sys.stderr, flush=True)
    return done


if __name__ == '__main__': sys.exit(main())
