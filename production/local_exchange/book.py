"""A recorded order book, as it stood at any moment: Binance's raw messages, one a line, each after the time it was received.

A snapshot (`lastUpdateId bids asks`), the changes after it (`depthUpdate`) and the trades. What is taken from it by an order of ours comes back
with the next change: the recording does not know of us. The form is that of hftbacktest's collector.
"""
import gzip
import json
from bisect import bisect_right
from decimal import Decimal
from pathlib import Path

import pandas as pd

from trading_lib.core.errors import BadInput
from trading_lib.core.time import timeframe_delta
from trading_lib.market.bars import Sample

Levels = list[tuple[Decimal, Decimal]]   # price and size, the best first


class RecordedBook:
    "The book of one market over a stretch of time."

    def __init__(self, path: Path):
        self.path, self.snapshot, self.changes, self.trades = Path(path), None, [], []
        try:
            with gzip.open(path, 'rt') if self.path.suffix == '.gz' else open(path) as lines: self._read(lines)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f'{path}: is no recorded order book ({type(error).__name__}: {error}); it is lines of a time and a raw message of Binance') from error
        if self.snapshot is None or not self.changes: raise BadInput(f'{path}: has no snapshot of the book, or no changes after it')
        self.changes = [change for change in self.changes if change['u'] > self.snapshot['lastUpdateId']]
        self.times = [change['E'] for change in self.changes]
        self._rewind()

    def _read(self, lines):
        for line in lines:
            said = json.loads(line.partition(' ')[2])
            said = said.get('data', said)
            if 'lastUpdateId' in said: self.snapshot = self.snapshot or said
            elif said.get('e') == 'depthUpdate': self.changes.append(said)
            elif said.get('e') == 'trade': self.trades.append((said['T'], Decimal(said['p']), Decimal(said['q'])))

    @property
    def fingerprint(self) -> str: return f'{self.snapshot["lastUpdateId"]}-{self.changes[-1]["u"]}-{len(self.changes)}'

    def _rewind(self):
        self._done, self._sides = 0, [{Decimal(price): Decimal(size) for price, size in self.snapshot[side]} for side in ('bids', 'asks')]

    def upto(self, at: int) -> int:
        "How many changes were known then, in epoch ms."
        return bisect_right(self.times, at)

    def at(self, at: int, levels: int | None = None) -> tuple[int, Levels, Levels]:
        "The number of the last change, the bids and the asks at a time in epoch ms; before the first change they are the snapshot's."
        wanted = self.upto(at)
        if wanted < self._done: self._rewind()
        for change in self.changes[self._done:wanted]:
            for side, name in zip(self._sides, 'ba', strict=True):
                for price, size in change[name]:
                    if Decimal(size): side[Decimal(price)] = Decimal(size)
                    else: side.pop(Decimal(price), None)
        self._done = wanted
        number = self.changes[wanted - 1]['u'] if wanted else self.snapshot['lastUpdateId']
        bids, asks = self._sides
        return number, sorted(bids.items(), reverse=True)[:levels], sorted(asks.items())[:levels]

    def bars(self, symbol: str, timeframe: str) -> Sample:
        "The whole bars of its trades, so that a venue may play both."
        length = timeframe_delta(timeframe)
        frame = pd.DataFrame(self.trades, columns=['time', 'price', 'size']).astype({'price': float, 'size': float})
        frame.index = pd.to_datetime(frame.time, unit='ms', utc=True).dt.as_unit('ns').rename('time')
        bars = frame.price.resample(length).ohlc().assign(volume=frame['size'].resample(length).sum())
        whole = (bars.index >= frame.index[0]) & (bars.index + length <= frame.index[-1])
        return Sample(bars[whole].dropna(), symbol, timeframe, str(self.path))
