"""vectorbt at its best, in two ways: through its Portfolio, and by the engine functions underneath it without any pandas.

In both: chunks of sets, averages from TA-Lib (faster for it than its own), arrays instead of frames where it takes them, memory for orders to
measure, garbage collected between chunks with the clock stopped, an index without time zone, prices not filled, and numbers of trades by
`np.bincount` from its records. What remains in both is its way of working: a table of bars × sets for every step."""
import numpy as np
import pandas as pd
import talib
import vectorbt
from vectorbt.generic import dispatch as generic
from vectorbt.portfolio import dispatch as engine_of
from vectorbt.portfolio.enums import Direction, SizeType, TradeStatus
from vectorbt.records import dispatch as records
from vectorbt.returns import dispatch as ratios
from work import CASH, FAST, FEE, SLIPPAGE, SLOW, YEAR, ranges, read, sets_of

scalar = np.asarray


def table_of(values: np.ndarray, width: int) -> np.ndarray: return np.ascontiguousarray(np.broadcast_to(values[:, None], (len(values), width)))


def above(averages: dict, sets: list) -> np.ndarray:
    out = np.empty((len(next(iter(averages.values()))), len(sets)), bool, order='F')
    for k, one in enumerate(sets): out[:, k] = averages[one[0]] > averages[one[1]]
    return out


def orders_of(market: dict, sets: list, averages: dict, engine: str, bare: bool) -> tuple:
    "from_orders: the exposure of a close, where it is new, is filled at the next open. Order records and, if there is one, the portfolio."
    long, close, open_ = above(averages, sets), market['close'], market['open']
    shape, size = long.shape, np.full(long.shape, np.nan, order='F')
    new = long[:-1].copy(order='F')
    new[1:] ^= long[:-2]
    np.copyto(size[1:], long[:-1], where=new)
    room, before = int(new.sum()) + 1, np.r_[np.nan, close[:-1]]
    if not bare:
        folio = vectorbt.Portfolio.from_orders(
            pd.Series(close, market['index']), size=size, size_type='targetpercent', price=open_[:, None], val_price=before[:, None], fees=FEE,
            slippage=market['slippage'], init_cash=CASH, freq='5min', max_orders=room, fillna_close=False, engine=engine)
        return folio.orders.values, folio
    found, _ = engine_of.simulate_from_orders(
        shape, np.ones(shape[1], np.int64), np.full(shape[1], CASH), np.zeros(shape, np.int64), size=np.ascontiguousarray(size), price=open_[:, None],
        size_type=scalar(SizeType.TargetPercent), fees=scalar(FEE), slippage=scalar(market['slippage']), val_price=before[:, None], close=close[:, None],
        max_orders=room, max_logs=1, engine=engine)
    return found, None


def signals_of(market: dict, sets: list, averages: dict, engine: str, bare: bool) -> tuple:
    "from_signals with a trailing stop: in a market without gaps its entry at a close is ours at the next open, one row earlier."
    long = above(averages, sets)
    entries, exits = long.copy(order='C'), np.zeros(long.shape, bool)
    entries[1:] &= ~long[:-1]
    np.logical_and(long[:-1], ~long[1:], out=exits[1:])
    entries[-1] = exits[-1] = False                # they would be filled at an open that is not there
    stops, prices = np.array([[one[2] for one in sets]]), [market[name][:, None] for name in ('open', 'high', 'low', 'close')]
    room = int(entries.sum()) * 2 + 1
    market['exits'] = exits
    if not bare:
        folio = vectorbt.Portfolio.from_signals(
            pd.Series(market['close'], market['index']), entries, exits, sl_stop=stops, sl_trail=True, open=prices[0], high=prices[1], low=prices[2],
            init_cash=CASH, freq='5min', max_orders=room, fillna_close=False, engine=engine)
        return folio.orders.values, folio
    shape = long.shape
    found, _ = engine_of.simulate_from_signals(
        shape, np.ones(shape[1], np.int64), np.full(shape[1], CASH), np.zeros(shape, np.int64), entries=entries, exits=exits,
        direction=scalar(Direction.LongOnly), open=prices[0], high=prices[1], low=prices[2], close=prices[3], sl_stop=stops, sl_trail=scalar(True),
        max_orders=room, max_logs=1, engine=engine)
    return found, None


def curves(market: dict, orders: np.ndarray, folio, engine: str, width: int) -> tuple:
    "Value, returns after the first bar, value of the position, and trades."
    if folio is not None:
        return folio.value().to_numpy(), folio.returns().to_numpy()[1:], folio.asset_value().to_numpy(), folio.trades.values
    shape, of, cash, close = (len(market['close']), width), records.col_map(orders['col'], width, engine=engine), np.full(width, CASH), table_of(market['close'], width)
    left = engine_of.cash(engine_of.cash_flow(shape, orders, of, False, engine=engine), cash, engine=engine)
    held = engine_of.assets(engine_of.asset_flow(shape, orders, of, Direction.Both, engine=engine), engine=engine)
    held = engine_of.asset_value(close, held, engine=engine)
    value = engine_of.value(left, held, engine=engine)
    return value, ratios.returns(value, cash, engine=engine)[1:], held, engine_of.get_exit_trades(orders, close, of, engine=engine)


def numbers(market: dict, orders: np.ndarray, value: np.ndarray, returns: np.ndarray, held: np.ndarray, trades: np.ndarray, engine: str) -> dict:
    "The metrics of our tables, under our names."
    bars, width = value.shape
    of, pnl, over = trades['col'], trades['pnl'], trades['status'] == TradeStatus.Closed
    total = lambda mask: np.bincount(of[mask], pnl[mask], width)
    count = lambda mask: np.bincount(of[mask], minlength=width)
    won, lost, closed, falls = over & (pnl > 0), over & (pnl < 0), count(over), generic.get_drawdowns(value, engine=engine)
    deepest, longest = np.zeros(width), np.zeros(width)
    np.minimum.at(deepest, falls['col'], falls['valley_val'] / falls['peak_val'] - 1)
    np.maximum.at(longest, falls['col'], falls['end_idx'] - falls['peak_idx'])
    end, traded = value[-1], np.bincount(orders['col'], orders['size'] * orders['price'], width)
    with np.errstate(divide='ignore', invalid='ignore'):
        found = dict(
            initial_equity=np.full(width, CASH), final_equity=end, total_return=end / CASH - 1,
            benchmark_return=np.full(width, market['close'][-1] / market['close'][0] - 1), sharpe=ratios.sharpe_ratio(returns, YEAR, 0., 1, engine=engine),
            sortino=ratios.sortino_ratio(returns, YEAR, 0., engine=engine), calmar=((end / CASH)**(YEAR / (bars - 1)) - 1) / -deepest, max_drawdown=deepest,
            trades=np.bincount(of, minlength=width), win_rate=count(won) / closed, profit_factor=total(won) / -total(lost), expectancy=total(over) / closed,
            fees_paid=np.bincount(orders['col'], orders['fees'], width), turnover=traded / value.mean(axis=0),
            exposure=(np.abs(held) / value).mean(axis=0), longest_drawdown=longest)
    return {name: np.where(np.isfinite(column), column, np.nan) for name, column in found.items()}


def as_of_closes(market: dict, found: dict, trades: np.ndarray):
    "Its position at a close holds the orders of that close, ours those of the opening: one bar less of exposure here, unless the strategy ended the trade."
    last, of = trades['exit_idx'], trades['col']
    told = market['exits'][last, of] & (trades['exit_price'] == market['close'][last])
    found['exposure'] -= np.bincount(of[~told], minlength=len(found['exposure'])) / len(market['close'])


def load(market: str, bars: int | None, slippage: float = SLIPPAGE) -> dict:
    rows = read(market, bars)
    return rows | dict(index=pd.DatetimeIndex(rows.pop('time')), slippage=slippage)


def few(market: dict, bars: int = 600) -> dict: return {name: values if np.isscalar(values) else values[:bars] for name, values in market.items()}


def averages_of(market: dict, sets: list) -> dict: return {window: talib.SMA(market['close'], window) for window in {w for one in sets for w in one[:2]}}


def swept(clock, market: str, axes: list, engine: str, chunk: int, bare: bool, bars: int | None = None) -> dict:
    "A sweep in chunks, each a lap of the clock."
    rows, sets = load(market, bars), sets_of(ranges(*axes))
    simulated, stops = (signals_of, True) if axes[2:] else (orders_of, False)
    def block(rows, sets, averages):
        orders, folio = simulated(rows, sets, averages, engine, bare)
        value, returns, held, trades = curves(rows, orders, folio, engine, len(sets))
        return numbers(rows, orders, value, returns, held, trades, engine), trades
    block(few(rows), sets[:chunk], averages_of(few(rows), sets))
    with clock: averages = averages_of(rows, sets)
    done = []
    for k in range(0, len(sets), chunk):
        with clock: found, trades = block(rows, sets[k:k + chunk], averages)
        if stops: as_of_closes(rows, found, trades)
        done.append(found)
        trades = None
    return {name: np.concatenate([found[name] for found in done]) for name in done[0]}


def probe(clock, market: str, axes: list, engine: str, bare: bool, chunks: list, bars: int | None = None) -> dict:
    "CPU seconds of a small sweep for each size of chunk."
    took = []
    for chunk in chunks:
        own = type(clock)()
        swept(own, market, axes, engine, chunk, bare, bars)
        took.append(sum(own.cpu))
    return dict(chunks=chunks, took=took)


def one(market: dict, averages: dict, engine: str, bare: bool) -> dict:
    "A single run: what happened."
    orders, folio = orders_of(market, [(FAST, SLOW)], averages, engine, bare)
    if folio is not None: curve = dict(equity=folio.value(), position=folio.assets(), cash=folio.cash(), fills=folio.orders.records)
    else:
        of, cash, close, shape = records.col_map(orders['col'], 1, engine=engine), np.full(1, CASH), market['close'][:, None], (len(market['close']), 1)
        left = engine_of.cash(engine_of.cash_flow(shape, orders, of, False, engine=engine), cash, engine=engine)
        held = engine_of.assets(engine_of.asset_flow(shape, orders, of, Direction.Both, engine=engine), engine=engine)
        curve = dict(equity=engine_of.value(left, engine_of.asset_value(close, held, engine=engine), engine=engine), position=held, cash=left)
    return {name: np.asarray(curve[name]).ravel() for name in ('equity', 'position', 'cash')} | dict(
        price=orders['price'], quantity=orders['size'], fee=orders['fees'])


def single(clock, market: str, repeats: int, engine: str, bare: bool, bars: int | None = None) -> dict:
    "From exposures to equity, position, cash and fills; a lap each time."
    rows = load(market, bars)
    averages = averages_of(rows, [(FAST, SLOW)])
    one(few(rows), {window: average[:600] for window, average in averages.items()}, engine, bare)
    for _ in range(repeats):
        with clock: found = one(rows, averages, engine, bare)
    return found


def numbered(clock, market: str, repeats: int, engine: str, bare: bool, bars: int | None = None, averaged: bool = True) -> dict:
    "From averages that are there already to every number; a lap each time."
    rows = load(market, bars)
    averages = averages_of(rows, [(FAST, SLOW)])
    def run(rows, averages):
        orders, folio = orders_of(rows, [(FAST, SLOW)], averages, engine, bare)
        return numbers(rows, orders, *curves(rows, orders, folio, engine, 1), engine)
    run(few(rows), averages_of(few(rows), [(FAST, SLOW)]))
    for _ in range(repeats):
        with clock: found = run(rows, averages if averaged else averages_of(rows, [(FAST, SLOW)]))
    return found


def whole(clock, market: str, repeats: int, engine: str, bare: bool, bars: int | None = None) -> dict:
    "From bars to every number; a lap each time."
    return numbered(clock, market, repeats, engine, bare, bars, averaged=False)


def crossed(clock, market: str, engine: str, bars: int | None = None) -> dict:
    "The strategy and the Portfolio, as the event-driven peers are asked."
    rows = load(market, bars, 0.)
    one(few(rows), averages_of(few(rows), [(FAST, SLOW)]), engine, False)
    with clock: found = one(rows, averages_of(rows, [(FAST, SLOW)]), engine, False)
    return dict(equity=found['equity'])


def first(clock, market: str, axes: list, engine: str, bars: int | None = None) -> dict:
    "A sweep in a process that has compiled nothing yet."
    rows, sets = load(market, bars), sets_of(ranges(*axes))
    orders, folio = orders_of(rows, sets, averages_of(rows, sets), engine, False)
    return numbers(rows, orders, *curves(rows, orders, folio, engine, len(sets)), engine)
