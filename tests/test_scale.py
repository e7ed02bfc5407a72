"A cluster gives the rows that this machine would have given, whoever dies on the way."
import json
import logging
import multiprocessing
import os
import signal
import sys
from multiprocessing import forkserver
from time import monotonic, sleep
from typing import Annotated

import numpy as np
import pandas as pd
import pytest
from annotated_types import Interval

pytest.importorskip('distributed')
import dask
from distributed import CancelledError, Client, LocalCluster
from distributed.comm import CommClosedError

from trading_lib.backtest import scale
from trading_lib.backtest.ledger import Ledger
from trading_lib.backtest.measure import Prepared
from trading_lib.backtest.scale import blocks_on
from trading_lib.backtest.sweep import block_of, sweep
from trading_lib.core.errors import BadInput, Unreachable
from trading_lib.execution.costs import Costs
from trading_lib.market.synthetic import synthetic_market
from trading_lib.risk.stops import Stops
from trading_lib.signals.indicators import sma
from trading_lib.strategies.contract import find, strategy
from trading_lib.strategies.trend import sma_cross

Window = Annotated[int, Interval(ge=2, le=400)]


@strategy
def slow(bars, window: Window = 20, wait: float = 0., deadly: bool = False):
    "An average that takes its time, and may take its worker along."
    sleep(wait)
    if deadly: os.kill(os.getpid(), signal.SIGKILL)
    return bars.close > sma(bars.close, window)


@pytest.fixture(scope='module')
def sample(): return synthetic_market(seed=11, bars=600, symbols=('BTC/USDT',)).samples['BTC/USDT']


@pytest.fixture(scope='module')
def client():
    multiprocessing.set_forkserver_preload(['trading_lib.backtest.scale', 'distributed.nanny'])   # once, and not in each worker
    forkserver.ensure_running()
    with dask.config.set({'distributed.scheduler.allowed-failures': 0, 'distributed.worker.multiprocessing-method': 'forkserver'}), \
         LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=60) as cluster, \
         Client(cluster) as client: yield client


def equal(client, prepared: Prepared, blocks: list[list[dict]]):
    "Every row as it is here, bit by bit."
    found = list(blocks_on(client, prepared, blocks))
    assert sorted(number for number, _ in found) == [*range(len(blocks))]
    for number, columns in found:
        here = block_of(prepared, blocks[number])
        assert list(columns) == list(here)
        for name in here: np.testing.assert_array_equal(columns[name], here[name], name)
    return found


def windows(count: int, **other) -> list[list[dict]]: return [[dict(window=2 + 4 * k + i) | other for i in range(4)] for k in range(count)]


def test_each_row_is_that_of_this_machine(client, sample):
    sets = [dict(fast=fast, slow=slow) for fast in range(5, 100, 5) for slow in range(10, 100, 10)]
    prepared = Prepared(sma_cross, sample, Costs(10, 5), 700., Stops(trailing_stop=.02))
    found = equal(client, prepared, [sets[k:k + 8] for k in range(0, len(sets), 8)])
    refused = np.concatenate([columns['refused'] for _, columns in found])
    assert 'fast was 95 and slow 90; fast must be the smaller' in refused and '' in refused


def test_a_strategy_from_a_file_goes_with_all_it_imports(client, sample, tmp_path):
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools' / '__init__.py').write_text('')
    line = 'from trading_lib.signals import sma\ndef line(bars, window): return sma(bars.close, window)\n'
    (tmp_path / 'tools' / 'lines.py').write_text(line)
    head = 'from trading_lib.strategies import strategy\nfrom tools.lines import line\n'
    text = '@strategy\ndef mine(bars, window: int = 5):\n    "Mine."\n    return bars.close > line(bars, window)\n'
    (tmp_path / 'mine.py').write_text(head + text)
    cells = [dict(cell_type='code', source=[source]) for source in (f'#| export\n{head}', '1 / 0', f'#| export\n{text}')]
    (tmp_path / 'mine.ipynb').write_text(json.dumps(dict(cells=cells)))
    for file in ('mine.py', 'mine.ipynb'): equal(client, Prepared(find(f'{tmp_path / file}:mine'), sample), windows(3))


def test_a_strategy_of_this_module_travels_whole_and_needs_become_columns(client, sample):
    equal(client, Prepared(slow, sample), windows(3))


def test_a_set_that_fails_is_a_row_that_says_why(client, sample):
    @strategy
    def breaks(bars, window: int = 3): return sma(bars.close, 5) > 1 / (window - 4)
    found = equal(client, Prepared(breaks, sample), windows(2))
    assert sum('ZeroDivisionError' in why for _, columns in found for why in columns['refused']) == 1


def test_a_sweep_on_a_cluster_is_the_sweep(client, sample, tmp_path):
    ranges = dict(fast='5:40:5', slow='20:60:10', trailing_stop='none,.02')
    call = dict(strategy=sma_cross, sample=sample, ranges=ranges, costs=Costs(10, 5), block=6)
    here, seen, ledger = sweep(**call), [], Ledger(tmp_path / 'ledger')
    there = sweep(**call, client=client, cache=tmp_path / 'cache', ledger=ledger, progress=lambda done, total: seen.append((done, total)))
    pd.testing.assert_frame_equal(there.table, here.table, check_exact=True)
    assert there.trials == ledger.count('sma_cross') == len(here.table) == 80 and seen[-1] == (80, 80) and seen == sorted(seen)
    assert sweep(**call, client='tcp://127.0.0.1:1', cache=tmp_path / 'cache', ledger=ledger).computed == 0   # nothing is left to ask anybody


def test_what_is_left_is_cancelled_when_nobody_wants_it(client, sample):
    going = blocks_on(client, Prepared(slow, sample), windows(40, wait=.1))
    next(going)
    with pytest.raises(KeyboardInterrupt): going.throw(KeyboardInterrupt)
    until = monotonic() + 10
    busy = lambda dask_scheduler: sum(state.state in ('processing', 'queued') for state in dask_scheduler.tasks.values())
    working = lambda: client.run_on_scheduler(busy)
    while working() and monotonic() < until: sleep(.05)
    assert working() == 0
    equal(client, Prepared(slow, sample), windows(2))


@pytest.mark.parametrize('name', ['trading_lib', 'numpy', 'python'])
def test_workers_in_another_house_refuse_and_say_what_differs(client, sample, monkeypatch, name):
    monkeypatch.setattr(scale, '_house', lambda mine=scale._house(): mine | {name: '0.0.7'})
    with pytest.raises(BadInput, match=rf'process \d+, has {name} \S+ and you have 0\.0\.7; install the same'):
        list(blocks_on(client, Prepared(slow, sample), windows(1)))


def test_a_worker_that_is_older_than_its_library_refuses(monkeypatch):
    import psutil
    monkeypatch.setattr(psutil.Process, 'create_time', lambda self: 1e10)
    scale._same_house(scale._house())
    monkeypatch.setattr(psutil.Process, 'create_time', lambda self: 1e9)
    with pytest.raises(BadInput, match='started before its trading_lib was last changed; restart it'): scale._same_house(scale._house())


def test_other_code_under_the_same_name_is_refused(client, sample, monkeypatch):
    prepared = Prepared(sma_cross, sample)
    prepared.strategy.__dict__['digest'] = 'f' * 64
    with pytest.raises(BadInput, match='sma_cross is other code on the worker'): list(blocks_on(client, prepared, [[dict(fast=5)]]))


def test_workers_that_are_killed_cost_only_their_tasks_one_or_all_at_once(client, sample):
    prepared, blocks = Prepared(slow, sample), windows(24, wait=.02)
    found = {}
    for number, columns in blocks_on(client, prepared, blocks):
        doomed = {0: 1, 12: 2}.get(len(found), 0)
        for pid in [*client.run(os.getpid).values()][:doomed] if doomed else []: os.kill(pid, signal.SIGKILL)
        assert number not in found
        found[number] = columns
    for number, sets in enumerate(blocks):
        here = block_of(prepared, [one | dict(wait=0.) for one in sets])
        for name in here: np.testing.assert_array_equal(found[number][name], here[name])


def test_a_set_that_kills_its_workers_is_found_and_no_other_row_suffers(client, sample):
    prepared, blocks = Prepared(slow, sample), windows(5)
    blocks[2][1] |= dict(deadly=True)
    found = dict(blocks_on(client, prepared, blocks))
    assert found[2]['refused'][1] == 'it killed every worker that tried it (1)' and np.isnan(found[2]['sharpe'][1])
    for number, sets in enumerate(blocks):
        for name, values in block_of(prepared, [one | dict(deadly=False) for one in sets]).items():
            rest = [k for k in range(4) if (number, k) != (2, 1)]
            np.testing.assert_array_equal(found[number][name][rest], values[rest])


def test_a_cluster_that_is_not_there_is_one_line(sample, monkeypatch):
    prepared, began = Prepared(sma_cross, sample), monotonic()
    wrong = [(address, BadInput, 'write its address') for address in ('10.0.0.5:8786', 'what://x', 'tcp://127.0.0.1:x')]
    for address, kind, said in [('tcp://127.0.0.1:1', Unreachable, 'no Dask scheduler answers at tcp://127.0.0.1:1; start one with'), *wrong]:
        with pytest.raises(kind, match=said) as error: list(blocks_on(address, prepared, [[dict(fast=5)]]))
        assert '\n' not in str(error.value)
    assert monotonic() - began < 30
    monkeypatch.setitem(sys.modules, 'distributed', None)
    with pytest.raises(BadInput, match=r"install it with: pip install '.\[dask\]'"): list(blocks_on('tcp://10.0.0.5:8786', prepared, [[dict(fast=5)]]))


@pytest.mark.parametrize('error', [CommClosedError('lost'), CancelledError('lost'), ConnectionResetError('lost')])
def test_a_scheduler_that_is_lost_while_data_is_sent_is_one_line(client, sample, monkeypatch, error):
    def scatter(*args, **kwargs): raise error
    monkeypatch.setattr(client, 'scatter', scatter)
    with pytest.raises(Unreachable, match='went away; what was done is kept'): list(blocks_on(client, Prepared(slow, sample), windows(1)))


def test_a_scheduler_that_dies_while_data_is_sent_is_one_line_and_no_traceback(sample, capfd):
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=':0', silence_logs=60) as cluster:
        with scale._connected(cluster.scheduler_address) as client:
            level = logging.getLogger('distributed.client').level
            sending = scale._Spread(client, os.urandom(2**20), windows(1))
            cluster.close()
            with pytest.raises(Unreachable, match='went away'): list(sending.run())
    assert level > logging.CRITICAL >= logging.getLogger('distributed.client').level
    assert 'Traceback' not in capfd.readouterr().err


def test_a_cluster_without_workers_or_that_goes_away_is_one_line(sample):
    with LocalCluster(n_workers=0, threads_per_worker=2, processes=False, dashboard_address=':0', silence_logs=60) as cluster:
        with pytest.raises(Unreachable, match='has no workers; start one with: dask worker'):
            list(blocks_on(cluster.scheduler_address, Prepared(slow, sample), windows(1)))
        cluster.scale(1)
        with Client(cluster) as client: client.wait_for_workers(1)
        going = blocks_on(cluster.scheduler_address, Prepared(slow, sample), windows(40, wait=.1))
        next(going)
        cluster.close()
        with pytest.raises(Unreachable, match='went away; what was done is kept'): list(going)
