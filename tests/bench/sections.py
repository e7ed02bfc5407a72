"What is compared, a section of the page each: measure, hold the results against each other, tell."
import os
import shutil
from collections.abc import Callable
from math import prod

import numpy as np
from lab import Lab, Taken, Work, middle, times
from work import CASH, WINDOW, differ

EQUAL = 1e-9
BARE, FOLIO = 'vectorbt, its engine functions bare', 'vectorbt, Portfolio'


def seconds(value: float) -> str: return f'{value:.3g} s' if value >= 1 else f'{1e3 * value:.3g} ms' if value >= 1e-3 else f'{1e6 * value:.3g} µs'
def large(count: float) -> str: return f'{count:,.0f}'
def within(off: float) -> str: return f'{off:.0e}' if off else '0'
def fold(ratio: float) -> str: return f'{ratio:.0f}×' if ratio >= 10 else f'{ratio:.1f}×'


def table(head: str, rows: list[list]) -> str:
    names = [name.strip() for name in head.split('|')]
    return '\n'.join(['| ' + ' | '.join(map(str, row)) + ' |' for row in [names, ['---'] + ['---:'] * (len(names) - 1), *rows]])


def equal(theirs: dict[str, float]) -> Callable[[dict], None]:
    "A check that everyone found what ours found, each as closely as it says."
    def check(found: dict):
        ours = next(iter(found.values()))
        for name in list(found)[1:]: check.worst[name] = differ(*sensible(ours, found[name]), theirs.get(name, EQUAL), name)
    check.worst = {}
    return check


def sensible(*found: dict) -> list[dict]:
    "Without the sets that lost 99 % of their money: there vectorbt takes orders for none, because their quantities are so small."
    ends = np.asarray(found[0].get('final_equity', CASH))
    return [{name: values[ends >= CASH / 100] if np.ndim(values) and len(values) == ends.size else values for name, values in each.items()} for each in found]


def rows_of(taken: dict[str, list[Taken]], alone: dict[str, float]) -> list[list]:
    ours = next(iter(taken.values()))
    return [[name, seconds(middle(runs)), seconds(middle(runs, 'wall')), large(middle(runs, 'peak_mb')), large(middle(runs, 'peak_mb') - alone[name]),
             '' if runs is ours else fold(times(ours, runs))] for name, runs in taken.items()]


def best(lab: Lab, size, market: str, axes: tuple, bare: bool) -> dict:
    "Engine and chunk with which vectorbt is fastest here."
    found = {}
    for engine in ('rust', 'numba'):
        probed = lab.run(Work('vbt.probe', dict(market=market, axes=axes, engine=engine, bare=bare, chunks=size.chunks))).found
        found |= {(engine, int(chunk)): took for chunk, took in zip(probed['chunks'], probed['took'], strict=True)}
        lab.say(f'{"bare" if bare else "Portfolio"}, {engine}: ' + ', '.join(f'{took:.3g} s in chunks of {chunk}' for chunk, took in zip(probed['chunks'], probed['took'], strict=True)))
    engine, chunk = min(found, key=found.get)
    return dict(engine=engine, chunk=chunk, bare=bare)


def swept(lab: Lab, size, axes: tuple, probe: tuple) -> tuple:
    "Ours and both ways of vectorbt through the same sets, and what each needs for a single set."
    market = lab.market(size.bars)
    ways = {FOLIO: best(lab, size, market, probe, False), BARE: best(lab, size, market, probe, True)}
    call = lambda axes: {'ours': Work('ours.swept', dict(market=market, axes=axes))} | {
        name: Work('vbt.swept', dict(market=market, axes=axes, **way)) for name, way in ways.items()}
    check = equal({})
    taken = lab.turns(call(axes), size.rounds, check)
    alone = {name: middle(runs, 'peak_mb') for name, runs in lab.turns(call((1,) * len(axes)), 1).items()}
    how = ' and '.join(f'{name.removeprefix("vectorbt, ")} with its {way["engine"].capitalize()} engine in chunks of {way["chunk"]}' for name, way in ways.items())
    rates = fold(times(taken['ours'], taken[FOLIO])), fold(times(taken['ours'], taken[BARE]))
    return table('| CPU | wall | peak MB | above one set, MB | ours is faster', rows_of(taken, alone)), rates, how, max(check.worst.values())


def sweep(lab: Lab, size) -> str:
    rows, rates, how, worst = swept(lab, size, size.axes, size.probe)
    return f'''## Sweep: {large(prod(size.axes))} sets × {large(size.bars)} bars

**{rates[0]} as fast as vectorbt's Portfolio, {rates[1]} as fast as its engine functions called bare.**

`sweep('sma_cross', …)`, fee 10 and slippage 2 basis points: averages, exposures, simulation and every metric of a sweep's table but funding, which these
bars do not have. All results agreed to {worst:.0e} before any time was read. vectorbt was fastest as {how}; that is what is shown.

{rows}
'''


def stops(lab: Lab, size) -> str:
    rows, rates, how, worst = swept(lab, size, size.stops, (*size.probe, 2))
    return f'''## Sweep with trailing stops: {large(prod(size.stops))} sets × {large(size.bars)} bars

**{rates[0]} as fast as vectorbt's Portfolio, {rates[1]} as fast as its engine functions called bare.**

The same with a trailing stop as a third parameter, against `from_signals(sl_trail=True)`. In a market without gaps, free of costs, its entry at a close is
ours at the next open, one row earlier, and both look at a stop from the bar after that; so all metrics are equal, to {worst:.0e} (exposure
after taking off the bar of the entry where the strategy did not end the trade: its positions hold the orders of a close; the clock is stopped for that). vectorbt was fastest as {how}.

{rows}
'''


def single(lab: Lab, size) -> str:
    "One run, from exposures and from bars."
    market, told = lab.market(size.single), []
    rates = {}
    for does, what in (('numbered', 'exposures to every metric'), ('whole', 'bars to every metric'), ('single', 'exposures to equity, position, cash and fills')):
        works = {'ours': Work(f'ours.{does}', dict(market=market, repeats=7))} | {
            name: Work(f'vbt.{does}', dict(market=market, repeats=7, engine='rust', bare=bare)) for name, bare in ((FOLIO, False), (BARE, True))}
        check = equal({})
        taken = lab.turns(works, size.rounds, check)
        lap = lambda runs, what='laps_cpu': float(np.median([lap for each in runs for lap in getattr(each, what)]))
        rate = lambda runs, ours=taken['ours']: float(np.median([np.median(b.laps_cpu) / np.median(a.laps_cpu) for a, b in zip(ours, runs, strict=True)]))
        told += [[f'{what}: {name}', seconds(lap(runs)), seconds(lap(runs, 'laps_wall')), large(middle(runs, 'peak_mb')), '' if name == 'ours' else fold(rate(runs))]
                 for name, runs in taken.items()]
        rates[does] = fold(rate(taken[FOLIO])), fold(rate(taken[BARE]))
    return f'''## One run of {large(size.single)} bars

**To every metric {rates['numbered'][0]} as fast as vectorbt's Portfolio with its Rust engine ({rates['numbered'][1]} as its engine functions called bare); to the curves {rates['single'][0]} ({rates['single'][1]}).**

Exposures that are there already to every metric (`Prepared(…).metrics`) or to curves and fills (`simulate`), and `backtest(…).metrics` from the bars on, where the
two averages of TA-Lib are most of what ours takes; the median of seven runs in each process. The bare functions answer with arrays, the others with pandas. Results agreed to {EQUAL:.0e} or better.

{table('from | CPU | wall | peak MB | ours is faster', told)}
'''


def events(lab: Lab, size) -> str:
    "Bar by bar, beside the engines that go from event to event."
    market, few = lab.market(size.bars), lab.market(size.venue)
    works = {'kernel': Work('ours.kernel', dict(market=market)), 'replay, floats': Work('ours.replayed', dict(market=market)),
             'vectorbt, Portfolio, Rust': Work('vbt.crossed', dict(market=market, engine='rust'))} | {
             peer: Work(f'others.{peer}', dict(market=market), peer) for peer in ('backtesting', 'nautilus_trader', 'backtrader')}
    check = equal(dict(backtesting=1e-6, nautilus_trader=1e-6))
    taken = lab.turns(works, size.rounds, check)
    venue = lab.turns({'kernel': Work('ours.kernel', dict(market=few)), 'venue': Work('ours.at_a_venue', dict(market=few))}, size.rounds, off := equal(dict(venue=1e-6)))['venue']
    row = lambda name, runs, bars, worst: [name, seconds(middle(runs) / bars), seconds(middle(runs, 'wall') / bars), large(bars / middle(runs)), large(middle(runs, 'peak_mb')), worst]
    rows = [row(f'{name} {lab.versions.get(name, "")}'.strip(), runs, size.bars, within(check.worst[name]) if name in check.worst else '') for name, runs in taken.items()]
    rows.insert(2, row(f'replay at a venue, Decimal, {large(size.venue)} bars', venue, size.venue, within(off.worst['venue'])))
    absent = ''.join(f'\n`{name}` is not in the table: it {why}.' for name, why in lab.missing.items())
    speed, slower = size.bars / middle(taken['replay, floats']), middle(venue) / size.venue / (middle(taken['replay, floats']) / size.bars)
    return f'''## Bar by bar: one symbol, {large(size.bars)} bars

**Replay goes through {large(speed)} bars a second; in Decimal, with a venue's filters and the strategy asked anew at every close, {fold(slower)} slower.**

`sma_cross` with market orders, fee 10 basis points, no slippage, in a market without gaps, where a fill at a close and one at the next open cost the same; times are
CPU time a bar, from the bars on, strategy included. Equity is compared at every close: backtrader agrees as far as floats do; backtesting.py
and nautilus_trader trade whole hundred-millionths of a coin, and so does the venue. Their quantities are worked out at the close from what cash pays with its
fee. nautilus_trader has an environment of its own, for on Python 3.11 it wants an older pandas.

{table('| CPU a bar | wall a bar | bars a second | peak MB | equity differs by', rows)}
{absent}'''


def growth(lab: Lab, size) -> str:
    "Ten times the bars, ten times the sets."
    bars, sets, rows = size.growth, size.steps, []
    axes, middle_bars = sets[len(sets) - 2], bars[len(bars) // 2]
    steps = [(count, axes) for count in bars] + [(middle_bars, each) for each in sets]
    for count, each in steps:
        call = dict(market=lab.market(count), axes=each)
        taken = lab.turns({'ours': Work('ours.swept', call), BARE: Work('vbt.swept', call | dict(engine='rust', chunk=10, bare=True))}, 1, equal({}))
        ours, theirs = taken['ours'], taken[BARE]
        rows.append([f'{large(count)} × {large(prod(each))}', seconds(middle(ours)), seconds(middle(ours) / count / prod(each)), large(middle(ours, 'peak_mb')),
                     seconds(middle(theirs)), large(middle(theirs, 'peak_mb')), fold(times(ours, theirs))])
    head = 'bars × sets | CPU | a bar and set | peak MB | vectorbt bare, CPU | its peak MB | ours is faster'
    return f'''## Growth: ten times the bars, ten times the sets

Results are equal as above, but for sets that lost 99 % of their money, as some do in ten years of five minutes: vectorbt takes such small orders for none.

{table(head, rows)}
'''


def many(lab: Lab, size, axes: tuple | None = None, name: str = 'Many sets') -> str:
    "A large sweep, and what it does to memory."
    axes = axes or size.many
    done = lab.run(Work('ours.many', dict(market=lab.market(size.many_bars), axes=axes)))
    peaks, grown = done.found['peaks'], float(done.found['peaks'][-1] - done.found['peaks'][0])
    return f'''## {name}: {large(prod(axes))} × {large(size.many_bars)} bars

**{seconds(done.wall)} ({seconds(done.cpu)} of CPU), {seconds(done.cpu / prod(axes))} a set; memory grew by {large(grown)} MB from the first tenth to the last.**

Fast and slow averages and trailing stops. The finished table of {large(float(done.found["rows"]))} rows takes {large(float(done.found["table_mb"]))} MB; the process never had more than {large(done.peak_mb)} MB.
Peak after each tenth, in MB: {', '.join(large(each) for each in peaks)}.
'''


def million(lab: Lab, size) -> str: return many(lab, size, (100, 100, 100), 'A million sets')


def decisions(lab: Lab, size) -> str:
    "One live decision."
    took = lab.run(Work('ours.decisions', dict(market=lab.market(1_500 + WINDOW), repeats=size.decisions))).found['took'] / 1e9
    rows = [[name, *(seconds(np.percentile(each, share)) for share in (50, 99, 99.9))] for name, each in
            zip(('a decision', 'its two averages in bare TA-Lib'), took, strict=True)]
    return f'''## A live decision

**{rows[0][1]} in the middle, {rows[0][2]} at the 99th percentile, from a window of {WINDOW} bars to the exposure wanted.**

`sma_cross` through `decider`, as a bot asks it: a frame of bars, the contract checked, the last exposure. Wall time of {large(size.decisions)} decisions.

{table('| median | 99 % | 99.9 %', rows)}
'''


def cold(lab: Lab, size) -> str:
    "The first sweep of all, nothing compiled."
    axes, market = (2, 2), lab.market(min(size.bars, 20_000))
    fresh = lab.folder / 'fresh'
    shutil.copytree(lab.root / 'trading_lib', fresh / 'trading_lib', ignore=shutil.ignore_patterns('__pycache__'))
    works, rows = {'ours': Work('ours.first', dict(market=market, axes=axes))}, []
    for engine in ('rust', 'numba'): works[f'vectorbt, {engine.capitalize()}'] = Work('vbt.first', dict(market=market, axes=axes, engine=engine))
    for name, work in works.items():
        said = [name]
        for _ in range(size.rounds if name == 'ours' else 1):
            for path in fresh.rglob('__pycache__'): shutil.rmtree(path)
            cache = lab.folder / f'compiled-{len(os.listdir(lab.folder))}'
            cache.mkdir()
            where = dict(NUMBA_CACHE_DIR=str(cache), PYTHONPATH=str(fresh))
            said.append((lab.started(work, **where), lab.started(work, **where)))
            lab.say(f'{name}: first {said[-1][0].wall:.3g} s, second {said[-1][1].wall:.3g} s')
        rows.append([name, *(seconds(middle([pair[k] for pair in said[1:]], what)) for k in (0, 1) for what in ('wall', 'cpu'))])
    return f'''## The first sweep after installation

**{rows[0][1]}, from starting Python to the finished table; {rows[0][3]} ever after.**

{4} sets on {large(min(size.bars, 20_000))} bars with an empty cache of compiled code (`NUMBA_CACHE_DIR`) and a copy of the library without a `__pycache__`, then once more. vectorbt is its
Portfolio with the same metrics.

{table('| first, wall | first, CPU | second, wall | second, CPU', rows)}
'''


ALL = dict(sweep=sweep, stops=stops, single=single, events=events, growth=growth, many=many, million=million, decisions=decisions, cold=cold)
USUAL = [name for name in ALL if name != 'million']
