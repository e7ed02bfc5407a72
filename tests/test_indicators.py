"""Indicators: TA-Lib's numbers, nothing from the future, and no memory where none is promised."""
import time

import numpy as np
import pandas as pd
import pytest
import talib
from talib import abstract

from trading_lib.core.errors import BadInput
from trading_lib.signals import indicators as ind
from trading_lib.signals.features import price_features


def walk(n=600, seed=0):
    rng = np.random.default_rng(seed)
    index = pd.date_range('2024-01-01T05:00', periods=n, freq='h', tz='UTC', name='time')
    close = pd.Series(100 * np.exp(rng.normal(0, .01, n).cumsum()), index, name='close')
    bars = pd.DataFrame(dict(open=close.shift(1, fill_value=100.)))
    bars['high'] = np.maximum(bars.open, close) * (1 + rng.exponential(.002, n))
    bars['low'] = np.minimum(bars.open, close) * (1 - rng.exponential(.002, n))
    return bars.assign(close=close, volume=rng.lognormal(3, 1, n))


BARS = walk()
EVERY = {
    'sma': lambda b: ind.sma(b.close, 20), 'wma': lambda b: ind.wma(b.close, 20), 'ema': lambda b: ind.ema(b.close, 20),
    'bollinger': lambda b: ind.bollinger(b.close, 20, 2.5), 'zscore': lambda b: ind.zscore(b.close, 20), 'roc': lambda b: ind.roc(b.close, 10),
    'rsi': lambda b: ind.rsi(b.close, 14), 'macd': lambda b: ind.macd(b.close), 'atr': lambda b: ind.atr(b), 'adx': lambda b: ind.adx(b),
    'stochastic': lambda b: ind.stochastic(b), 'donchian': lambda b: ind.donchian(b, 20), 'obv': lambda b: ind.obv(b),
    'vwap of a window': lambda b: ind.vwap(b, 24), 'vwap of the day': lambda b: ind.vwap(b),
    'window mean': lambda b: ind.window_mean(b.close, 20), 'window std': lambda b: ind.window_std(b.close, 20),
    'rsi of four hours': lambda b: ind.on_timeframe(b, '4h', lambda s: ind.rsi(s.close)),
    'channel of a day': lambda b: ind.on_timeframe(b, '1d', lambda s: ind.donchian(s, 5)),
    'features': price_features,
}
by_name = pytest.mark.parametrize('indicator', EVERY.values(), ids=EVERY.keys())


@by_name
def test_an_indicator_says_nothing_different_about_the_past_when_the_future_changes(indicator):
    whole = indicator(BARS)
    for cut in (80, 200, 333, 599):
        assert indicator(BARS[:cut]).equals(whole[:cut])
        crash = pd.concat([BARS[:cut], BARS[cut:] * .5])
        assert indicator(crash)[:cut].equals(whole[:cut])


@by_name
def test_an_indicator_keeps_the_index_and_leaves_its_bars_alone(indicator):
    bars = BARS.copy()
    assert indicator(bars).index.equals(BARS.index)
    assert bars.equals(BARS)


def test_wrapped_indicators_are_talibs_numbers():
    o, h, l, c, v = (BARS[k].to_numpy() for k in ('open', 'high', 'low', 'close', 'volume'))
    upper, middle, lower = talib.BBANDS(c, 20, 2.5, 2.5)
    for mine, theirs in ((EVERY['sma'](BARS), talib.SMA(c, 20)), (EVERY['wma'](BARS), talib.WMA(c, 20)), (EVERY['ema'](BARS), talib.EMA(c, 20)),
                         (EVERY['rsi'](BARS), talib.RSI(c, 14)), (EVERY['roc'](BARS), talib.ROCP(c, 10)), (EVERY['atr'](BARS), talib.ATR(h, l, c, 14)),
                         (EVERY['adx'](BARS), talib.ADX(h, l, c, 14)), (EVERY['obv'](BARS), talib.OBV(c, v)),
                         (EVERY['bollinger'](BARS), np.column_stack([lower, middle, upper])),
                         (EVERY['macd'](BARS), np.column_stack(talib.MACD(c, 12, 26, 9))),
                         (EVERY['stochastic'](BARS), np.column_stack(talib.STOCH(h, l, c, 14, 3, 0, 3, 0)))):
        np.testing.assert_allclose(mine.to_numpy(), theirs, rtol=1e-12, atol=0)


def test_averages_and_ranges_equal_a_second_opinion():
    b, c = BARS, BARS.close
    pd.testing.assert_series_equal(ind.sma(c, 20), c.rolling(20).mean(), rtol=1e-10)
    weights = np.arange(1, 21) / 210
    pd.testing.assert_series_equal(ind.wma(c, 20), c.rolling(20).apply(lambda x: x @ weights), rtol=1e-10)
    ema = c.to_numpy().copy(); ema[19] = c[:20].mean()
    for t in range(20, len(c)): ema[t] = ema[t-1] + 2/21 * (c.iloc[t] - ema[t-1])
    np.testing.assert_allclose(ind.ema(c, 20)[19:], ema[19:], rtol=1e-10)
    pd.testing.assert_series_equal(ind.window_std(c, 20), c.rolling(20).std(ddof=0), rtol=1e-7)
    channel = ind.donchian(b, 20)
    pd.testing.assert_series_equal(channel.upper, b.high.rolling(20).max().shift(1), check_names=False)
    pd.testing.assert_series_equal(channel.lower, b.low.rolling(20).min().shift(1), check_names=False)
    typical = (b.high + b.low + b.close) / 3
    wanted = (typical * b.volume).rolling(24).sum() / b.volume.rolling(24).sum()
    pd.testing.assert_series_equal(ind.vwap(b, 24), wanted, rtol=1e-9, check_names=False)


def test_rsi_and_atr_equal_wilders_own_recursion():
    change = BARS.close.diff().to_numpy()[1:]
    gain, loss = np.clip(change, 0, None), np.clip(-change, 0, None)
    up, down = gain[:14].mean(), loss[:14].mean()
    for t in range(14, len(change)): up, down = (13*up + gain[t])/14, (13*down + loss[t])/14
    assert ind.rsi(BARS.close).iloc[-1] == pytest.approx(100 * up/(up + down), rel=1e-10)
    before = BARS.close.shift(1)
    true_range = np.maximum(BARS.high, before) - np.minimum(BARS.low, before)
    atr = true_range[1:15].mean()
    for t in range(15, len(BARS)): atr = (13*atr + true_range.iloc[t])/14
    assert ind.atr(BARS).iloc[-1] == pytest.approx(atr, rel=1e-10)


def test_every_function_of_talib_can_be_called_by_name():
    bars = BARS.assign(periods=10.)   # one of them reads its windows from a column
    called = 0
    for name in talib.get_functions():
        if name in ('ACOS', 'ASIN'): bars = bars.assign(close=BARS.close / BARS.close.max())
        inputs = [c for cs in abstract.Function(name).info['input_names'].values() for c in ([cs] if isinstance(cs, str) else cs)]
        if not set(inputs) <= set(bars): continue
        out = ind.ta(name, bars)
        assert out.index.equals(bars.index), name
        called += 1
    assert called >= 150


def test_leading_holes_are_waited_out_and_other_inputs_are_understood():
    late = BARS.close.copy(); late[:30] = np.nan
    pd.testing.assert_series_equal(ind.sma(late, 5)[30:], ind.sma(BARS.close[30:], 5), rtol=1e-12)
    assert ind.sma(late, 5)[:34].isna().all()
    assert ind.sma(BARS[['open', 'close']], 5).close.equals(ind.sma(BARS.close, 5))
    assert (ind.sma(BARS.to_numpy()[:, 3], 5)[4:] == ind.sma(BARS.close, 5).to_numpy()[4:]).all()   # not contiguous
    assert ind.sma(pd.Series([1, 2, 3]), 2).tolist()[1:] == [1.5, 2.5]                              # integers
    assert len(ind.sma(BARS.close[:0], 5)) == 0 and ind.sma(BARS.close[:3], 5).isna().all()
    assert ind.zscore(BARS.close[:3], 5).isna().all() and ind.window_std(BARS.close[:3], 5).isna().all()


@pytest.mark.parametrize('start', [1, 7, 250, 433])
def test_window_sums_do_not_remember_what_was_before_the_window(start):
    seen = BARS.close[start:start + 120]
    for f in (ind.window_mean, ind.window_std, ind.zscore):
        assert f(seen, 20)[19:].equals(f(BARS.close, 20)[start + 19:start + 120])


def test_a_market_that_stands_still_has_no_zscore():
    still = BARS.close.copy(); still[300:400] = 31_415.9
    assert ind.zscore(still, 20)[320:400].isna().all()
    assert ind.zscore(still, 20)[:300].notna().sum() == 281


def test_a_slower_timeframe_appears_when_its_bar_has_closed_and_not_before():
    slow = ind.on_timeframe(BARS, '4h', lambda s: s.close.rename('x'))
    closes = BARS.close[BARS.index.hour % 4 == 3]
    for at, value in closes[1:].items():
        assert slow[at] == value and slow.get(at - pd.Timedelta('1h')) != value
    assert slow.name == 'x'


def test_nothing_traded_means_no_vwap():
    dead = BARS.copy(); dead.loc[dead.index[100:150], 'volume'] = 0.
    assert ind.vwap(dead, 24)[123:150].isna().all() and ind.vwap(dead, 24)[150:].notna().all()


def test_what_talib_refuses_is_bad_input():
    for call in (lambda: ind.sma(BARS.close, 0), lambda: ind.rsi(BARS.close, 1), lambda: ind.window_mean(BARS.close, 0),
                 lambda: ind.ta('nonsense', BARS), lambda: ind.ta('atr', BARS.close), lambda: ind.ta('rsi', BARS, timeperiod=1)):
        with pytest.raises(BadInput) as told: call()
        assert '\n' not in str(told.value)


def test_an_average_of_500_bars_costs_no_more_than_a_fraction_of_a_millisecond():
    close = BARS.close[:500]
    def once():
        began = time.perf_counter(); ind.sma(close, 50)
        return time.perf_counter() - began
    assert np.median([once() for _ in range(200)]) < 5e-4
