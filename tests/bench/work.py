"What is measured, whoever does it: the market, the parameter sets, the costs. Numpy alone, so that every peer can read it."
from itertools import product

import numpy as np

CASH, YEAR = 10_000., 365 * 24 * 12.     # initial equity, and bars of five minutes in a year
FEE, SLIPPAGE = .001, .0002              # of notional, and against us; peers that have no such slippage are compared without
FAST, SLOW, WINDOW = 20, 100, 500        # of single runs, and the bars that a bot shows its strategy


def ranges(fasts: int, slows: int, stops: int = 0) -> dict[str, list]:
    "Values of each parameter: fast averages of 2 to 101 bars, slow ones of 105 to 354, and trailing stops up to a half if any are wanted."
    found = dict(fast=[1 + 100 // fasts * (k + 1) for k in range(fasts)], slow=[105 + 250 // slows * k for k in range(slows)])
    return found | (dict(trailing_stop=[(k + 1) * .5 / max(stops, 50) for k in range(stops)]) if stops else {})


def sets_of(axes: dict[str, list]) -> list[tuple]: return list(product(*axes.values()))


def read(path: str, bars: int | None = None) -> dict[str, np.ndarray]:
    "The market: `time` in nanoseconds since 1970, then open, high, low, close and volume."
    with np.load(path) as file: return {name: file[name][:bars] for name in file}


def differ(ours: dict, theirs: dict, within: float, who: str) -> float:
    "The largest relative difference between two sets of results; ends the run where it is above `within`."
    worst = 0.
    for name in sorted(ours.keys() & theirs.keys()):
        a, b = np.broadcast_arrays(np.asarray(ours[name], float), np.asarray(theirs[name], float))
        with np.errstate(invalid='ignore'): off = np.abs(a - b) / np.maximum(np.maximum(np.abs(a), np.abs(b)), 1e-12)
        off = np.where((a == b) | np.isnan(a) & np.isnan(b), 0., off)
        if not (off <= within).all():
            at = np.unravel_index(np.nan_to_num(off, nan=np.inf).argmax(), off.shape)
            raise SystemExit(f'{name} {at} is {b[at]!r} by {who} and {a[at]!r} by ours; times of different work mean nothing')
        worst = max(worst, float(off.max(initial=0.)))
    return worst
