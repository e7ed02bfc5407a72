"The peers that go from bar to bar: backtesting.py, backtrader and nautilus_trader, each in an environment of its own."
import math

import numpy as np
from work import CASH, FAST, FEE, SLOW, read


def averages(close: np.ndarray, window: int) -> np.ndarray:
    "A running mean; infinite until it is known, for a bar is decided on only where every line of backtesting.py is a number."
    total = np.cumsum(np.r_[0., close])
    return np.r_[np.full(window - 1, np.inf), (total[window:] - total[:-window]) / window]


def frame(market: dict, names: str):
    import pandas as pd
    return pd.DataFrame({name: market[column] for name, column in zip(names.split(), ('open', 'high', 'low', 'close', 'volume'), strict=True)},
                        pd.DatetimeIndex(market['time']))


def backtesting(clock, market: str, bars: int | None = None) -> dict:
    "backtesting.py: orders fill at the next open; it buys whole units, here of a hundred-millionth of a coin."
    import warnings
    warnings.simplefilter('ignore')
    from backtesting import Strategy
    from backtesting.lib import FractionalBacktest

    class Cross(Strategy):
        def init(self):
            self.fast, self.slow = (self.I(averages, np.asarray(self.data.Close), window) for window in (FAST, SLOW))
        def next(self):
            above = self.fast[-1] > self.slow[-1]
            if above and not self.position: self.buy()
            if not above and self.position: self.position.close()

    def run(rows): return FractionalBacktest(frame(rows, 'Open High Low Close Volume'), Cross, cash=CASH, commission=FEE, fractional_unit=1e-8).run()
    rows = read(market, bars)
    run({name: column[:3 * SLOW] for name, column in rows.items()})
    with clock: stats = run(rows)
    return dict(equity=stats['_equity_curve'].Equity.to_numpy())


def backtrader(clock, market: str, bars: int | None = None) -> dict:
    "backtrader: market orders fill at the next open; what cash buys is worked out at the close, which is that open."
    import backtrader as bt

    class Cross(bt.Strategy):
        def __init__(self):
            self.above = bt.indicators.SMA(period=FAST) > bt.indicators.SMA(period=SLOW)
            self.curve = []
        def prenext(self): self.curve.append(self.broker.getvalue())
        def next(self):
            self.curve.append(self.broker.getvalue())
            if self.above[0] and not self.position:
                self.buy(size=self.broker.getcash() / (1 + FEE) / self.data.close[0] * (1 - 1e-14))   # it refuses an order that leaves cash at -1e-13
            if not self.above[0] and self.position: self.close()

    def run(rows):
        cerebro = bt.Cerebro(stdstats=False)
        cerebro.broker.setcash(CASH)
        cerebro.broker.setcommission(commission=FEE)
        cerebro.adddata(bt.feeds.PandasData(dataname=frame(rows, 'open high low close volume')))
        cerebro.addstrategy(Cross)
        return np.array(cerebro.run()[0].curve)
    rows = read(market, bars)
    run({name: column[:3 * SLOW] for name, column in rows.items()})
    with clock: curve = run(rows)
    return dict(equity=curve)


def nautilus_trader(clock, market: str, bars: int | None = None) -> dict:
    "nautilus_trader: an order sent at a close fills at once, at that price, which is the next open; quantities have eight decimals."
    from decimal import Decimal

    from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
    from nautilus_trader.config import LoggingConfig
    from nautilus_trader.indicators import SimpleMovingAverage
    from nautilus_trader.model.currencies import BTC, USDT
    from nautilus_trader.model.data import BarType
    from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
    from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
    from nautilus_trader.model.instruments import CurrencyPair
    from nautilus_trader.model.objects import Money, Price, Quantity
    from nautilus_trader.persistence.wranglers import BarDataWrangler
    from nautilus_trader.trading.strategy import Strategy
    venue = Venue('SIM')
    pair = CurrencyPair(InstrumentId(Symbol('BTCUSDT'), venue), Symbol('BTCUSDT'), BTC, USDT, 2, 8, Price.from_str('0.01'), Quantity.from_str('0.00000001'),
                        0, 0, maker_fee=Decimal(str(FEE)), taker_fee=Decimal(str(FEE)))
    every = BarType.from_str('BTCUSDT.SIM-5-MINUTE-LAST-EXTERNAL')

    class Cross(Strategy):
        def on_start(self):
            self.curve, self.held = [], 0.
            self.fast, self.slow = SimpleMovingAverage(FAST), SimpleMovingAverage(SLOW)
            for average in (self.fast, self.slow): self.register_indicator_for_bars(every, average)
            self.subscribe_bars(every)

        def on_bar(self, bar):
            account, close = self.portfolio.account(venue), float(bar.close)
            cash, held = account.balance_total(USDT).as_double(), account.balance_total(BTC)
            coins = held.as_double() if held else 0.
            self.curve.append(cash + coins * close)
            if not self.slow.initialized: return
            above = self.fast.value > self.slow.value
            if above and not coins: self.trade(OrderSide.BUY, math.floor(cash / (1 + FEE) / close * 1e8) / 1e8)
            if not above and coins: self.trade(OrderSide.SELL, coins)

        def trade(self, side, quantity):
            self.submit_order(self.order_factory.market(pair.id, side, Quantity(quantity, 8)))

    def run(rows):
        engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True), run_analysis=False))
        engine.add_venue(venue, OmsType.NETTING, AccountType.CASH, [Money(CASH, USDT)])
        engine.add_instrument(pair)
        engine.add_data(BarDataWrangler(every, pair).process(frame(rows, 'open high low close volume').tz_localize('UTC')))
        cross = Cross()
        engine.add_strategy(cross)
        engine.run()
        curve = np.array(cross.curve)
        engine.dispose()
        return curve
    rows = read(market, bars)
    with clock: curve = run(rows)
    return dict(equity=curve)
