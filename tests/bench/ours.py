"Our side, through the calls that people use."
from time import perf_counter_ns

import numpy as np
import pandas as pd
from work import CASH, FAST, FEE, SLIPPAGE, SLOW, WINDOW, ranges, read

from trading_lib.backtest.kernel import simulate
from trading_lib.backtest.measure import Prepared
from trading_lib.backtest.numbers import METRICS
from trading_lib.backtest.run import backtest
from trading_lib.backtest.sweep import sweep
from trading_lib.execution.costs import Costs
from trading_lib.market.bars import Sample
from trading_lib.strategies.contract import describe
from trading_lib.strategies.trend import sma_cross

COSTS, FEES, FREE, PAIR = Costs(FEE * 1e4, SLIPPAGE * 1e4), Costs(FEE * 1e4, 0.), Costs(0., 0.), dict(fast=FAST, slow=SLOW)
CROSS = describe(sma_cross)


def sample_of(market: str, bars: int | None = None) -> Sample:
    rows = read(market, bars)
    index = pd.DatetimeIndex(rows.pop('time'), tz='UTC', name='time')
    return Sample(pd.DataFrame(rows, index), 'BTC/USDT', '5m', 'benchmark', synthetic=True)


def begin(sample: Sample) -> Sample: return Sample(sample.bars[:600], sample.symbol, sample.timeframe, sample.source, synthetic=True)


def columns(table: pd.DataFrame) -> dict: return {name: table[name].to_numpy() for name in METRICS}


def swept(clock, market: str, axes: list, bars: int | None = None) -> dict:
    "A sweep, with trailing stops where there are any."
    sample, costs = sample_of(market, bars), FREE if axes[2:] else COSTS
    sweep('sma_cross', begin(sample), ranges(*[1 for _ in axes]), costs, CASH)
    with clock: done = sweep('sma_cross', sample, ranges(*axes), costs, CASH)
    return columns(done.table)


def single(clock, market: str, repeats: int, bars: int | None = None) -> dict:
    "From exposures to equity, position, cash and fills."
    sample = sample_of(market, bars)
    target = sma_cross(sample.bars, **PAIR).astype(float)
    simulate(sample.bars[:600], target[:600], COSTS, CASH)
    for _ in range(repeats):
        with clock: run = simulate(sample.bars, target, COSTS, CASH)
    return dict(equity=run.equity.to_numpy(), position=run.position.to_numpy(), cash=run.cash.to_numpy(), price=run.fills.price.to_numpy(),
                quantity=run.fills.quantity.to_numpy(), fee=run.fills.fee.to_numpy())


def numbered(clock, market: str, repeats: int, bars: int | None = None) -> dict:
    "From exposures to every number."
    sample = sample_of(market, bars)
    target = sma_cross(sample.bars, **PAIR)
    for _ in range(repeats + 1):
        with clock: found = Prepared('sma_cross', sample, COSTS, CASH).metrics(target)
    del clock.cpu[0], clock.wall[0]
    return found


def whole(clock, market: str, repeats: int, bars: int | None = None) -> dict:
    "From bars to every number: averages, exposures, simulation, metrics."
    sample = sample_of(market, bars)
    for _ in range(repeats + 1):
        with clock: found = backtest('sma_cross', sample, PAIR, COSTS, CASH).metrics
    del clock.cpu[0], clock.wall[0]
    return found


def kernel(clock, market: str, bars: int | None = None) -> dict:
    "The strategy and the kernel, as the event-driven peers are asked."
    sample = sample_of(market, bars)
    simulate(sample.bars[:600], CROSS.exposures(sample.bars[:600], PAIR), FEES, CASH)
    with clock: run = simulate(sample.bars, CROSS.exposures(sample.bars, PAIR), FEES, CASH)
    return dict(equity=run.equity.to_numpy())


def replayed(clock, market: str, bars: int | None = None) -> dict:
    "The strategy and replay in floats, event by event through the simulated exchange."
    from trading_lib.backtest.replay import replay
    sample = sample_of(market, bars)
    replay(sample.bars[:600], CROSS.exposures(sample.bars[:600], PAIR), FEES, CASH)
    with clock: run = replay(sample.bars, CROSS.exposures(sample.bars, PAIR), FEES, CASH)
    return dict(equity=run.equity.to_numpy())


def at_a_venue(clock, market: str, bars: int | None = None) -> dict:
    "Replay as a bot trades: Decimal, the venue's filters, the strategy asked anew at every close about a window of bars."
    from decimal import Decimal

    from trading_lib.backtest.replay import replay_venue
    from trading_lib.execution.matching import MarketRules
    from trading_lib.strategies.feeds import decider
    sample = sample_of(market, bars)
    rules = MarketRules('BTC/USDT', 'BTC', 'USDT', fee=Decimal('0.001'), step=Decimal('0.00000001'), tick=Decimal('0.01'))
    decide = decider(CROSS, PAIR)
    replay_venue(decide, sample.bars[:20], rules, WINDOW, CASH, buffer=Decimal(0))
    with clock: run = replay_venue(decide, sample.bars, rules, WINDOW, CASH, buffer=Decimal(0))
    return dict(equity=run.equity.to_numpy(float))


def decisions(clock, market: str, repeats: int, bars: int | None = None) -> dict:
    "Nanoseconds of one live decision on a window of bars, again and again; then of the two bare averages in it."
    import talib

    from trading_lib.strategies.feeds import decider
    sample = sample_of(market, bars)
    decide, close = decider(CROSS, PAIR), sample.bars.close.to_numpy()
    ways = (lambda shown: sample.bars.iloc[shown], decide), (lambda shown: close[shown], lambda x: bool(talib.SMA(x, FAST)[-1] > talib.SMA(x, SLOW)[-1]))
    took = np.empty((2, repeats))
    for way, (show, answer) in zip(took, ways, strict=True):
        for k in [*[0] * 20, *range(repeats)]:
            shown = show(slice(k % 1_000, k % 1_000 + WINDOW))
            began = perf_counter_ns()
            answer(shown)
            way[k] = perf_counter_ns() - began
    return dict(took=took)


def many(clock, market: str, axes: list, bars: int | None = None) -> dict:
    "A large sweep; the peak of memory after every tenth of it."
    from child import peak_mb
    sample, peaks = sample_of(market, bars), []
    def watch(done, total):
        if done * 10 // total > len(peaks): peaks.append(peak_mb())
    sweep('sma_cross', begin(sample), ranges(*[1 for _ in axes]), COSTS, CASH)
    with clock: done = sweep('sma_cross', sample, ranges(*axes), COSTS, CASH, progress=watch)
    return dict(peaks=np.array(peaks), rows=len(done.table), table_mb=done.table.memory_usage(index=True).sum() / 2**20)


def first(clock, market: str, axes: list, bars: int | None = None) -> dict:
    "A sweep in a process that has compiled nothing yet."
    return columns(sweep('sma_cross', sample_of(market, bars), ranges(*axes), COSTS, CASH).table)
