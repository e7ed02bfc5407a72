"""Hands on the wheel, the runner's part: what a person asked for is in the journal, and is done between two bars.

It stands until it is done, also over a crash. Closing a position is an order like any other: written down, fenced, looked up. It passes the latch
because it only reduces.
"""
import asyncio
from decimal import Decimal
from hashlib import sha256

from production.journal import RESTING, UNRESOLVED, Bot, Hand, Intent, Journal
from trading_lib.core.errors import Unreachable
from trading_lib.core.money import floor_to, money
from trading_lib.execution.matching import MarketRules
from trading_lib.execution.orders import Order

PREFIX = 'tw-'
PATIENCE_S = 30   # after which a command is told that it is not done yet
OPEN = 'not done yet; it stands until it is, also over a restart'


def hand_id(bot: Bot, number: int, side: str, quantity: Decimal) -> str:
    "The name of an order that follows from no decision: the so-manieth of its bot."
    asked = f'{bot.dossier}|{bot.account}|{bot.symbol}|{bot.timeframe}|hand|{number}|{side}|{quantity:f}'
    return PREFIX + sha256(asked.encode()).hexdigest()[:30]


def order_of(intent: Intent, symbol: str) -> Order:
    return Order(intent.client_id, symbol, intent.side, intent.kind, intent.quantity, intent.price, intent.stop_price)


def told(rows: list[dict]) -> list[dict]:
    "What was asked, as people are told of it."
    return [dict(account=row['account'], symbol=row['symbol'], what=row['what'], position=f'{row["position"]:f}', said=row['said'] or OPEN) for row in rows]


def booked(rows: list[dict]) -> list[dict]:
    "Differences, as people are told of them."
    return [dict(account=row['account'], symbol=row['symbol'], cash=f'{row["cash"]:+f}', position=f'{row["position"]:+f}', why=row['why']) for row in rows]


class Hands:
    "What a runner does because a person asked."
    journal: Journal
    bot: Bot
    rules: MarketRules
    over = False   # it has ended, and its journal with it

    async def by_hand(self):
        "Everything that was asked for and is not done, in its order."
        if self.doubt and not self.halted: return   # a lost tail of the journal is found first
        asked = self.journal.demands(self.bot.id)
        for hand in asked:
            said = await (self._cancelled(hand.about) if hand.what == 'cancel' else self._flattened(hand))
            self.journal.done(hand.id, said)
            self.say(f'{hand.what} for {hand.who}: {said}')
        if asked:
            self._reread()
            if self.caught_up and not self.halted: await self._confirm()

    async def _cancelled(self, about: str) -> str:
        names = [intent.client_id for intent in self._resting(about)]
        for _ in range(self.mandate.attempts):
            await self._cancel_all(about)
            if not self._resting(about): break
            await asyncio.sleep(min(self.mandate.poll_s, 1))
        became = [self.journal.intent(name) for name in names]
        return ', '.join(f'{intent.client_id} is {intent.status}' for intent in became) or 'nothing was open'

    def _resting(self, about: str = '') -> list[Intent]:
        return [intent for intent in self.journal.intents(self.bot.id, RESTING) if about in ('', intent.client_id)]

    async def _flattened(self, hand: Hand) -> str:
        "Cancel what rests, then sell what is held, or buy it back, until less is left than the venue takes. So many orders, and no more."
        while True:
            await self._cancel_all()
            self._reread()
            order = await self._closing()
            left = f'{self.bot.position:f} {self.rules.base} are left'
            if order is None: return f'flat; {left}, too little to trade or not at the venue' if self.bot.position else 'flat'
            if self.journal.intents(self.bot.id, UNRESOLVED): return 'an order is unknown; a person must look'
            if self.journal.by_hand(self.bot.id, hand.at) >= self.mandate.attempts: break
            intent = self.journal.intend(self.bot.id, order)
            await self._resolve(intent, look_first=True)
            if self.journal.intent(order.client_id).status != 'FILLED': await asyncio.sleep(min(self.mandate.poll_s, 1))
        said = f'{left} after {self.mandate.attempts} orders; close them at the venue, then: trading accept'
        self.journal.alert('limit', f'flatten:{hand.id}', about=f'{self.bot.symbol} is not flat', what=said)
        return said

    async def _closing(self) -> Order | None:
        "The order that makes the bot flat; none where what it holds is dust."
        rules, position = self.rules, self.bot.position
        if position > 0: position = min(position, await self._held())
        quantity = floor_to(abs(position), rules.step)
        if not quantity or quantity < rules.min_quantity or quantity * await self._last_price() < rules.min_notional: return None
        side = 'sell' if position > 0 else 'buy'
        return Order(hand_id(self.bot, self.journal.by_hand(self.bot.id), side, quantity), self.bot.symbol, side, 'market', quantity)

    async def _held(self) -> Decimal:
        "What the venue has: never more than that is sold, whatever the journal counts."
        while True:
            try: return (await self._balances())[1]
            except Unreachable as error: await self._hold_on(error)

    async def _last_price(self) -> Decimal:
        m = self.mandate
        while self.bars.empty:
            try: page = await self.gateway.bars(m.symbol, m.timeframe, await self.gateway.venue_time() - 5 * m.length, 5)
            except Unreachable as error: await self._hold_on(error)
            else: return money(float(page.close.iloc[-1])) if len(page) else Decimal(0)
        return money(float(self.bars.close.iloc[-1]))

    # over the socket

    async def hand(self, request: dict) -> dict | None:
        "What came of a command; none if it is not one."
        match request:
            case {'do': 'halt', 'who': str(who), 'why': str(why), 'flatten': True}: asked = await self.halt(who, why, flatten=True)
            case {'do': 'flatten', 'who': str(who), 'why': str(why), 'symbol': str(symbol)}: asked = self.journal.demand('flatten', who, why, symbol)
            case {'do': 'cancel', 'who': str(who), 'why': str(why), 'about': str(about)}: asked = self.journal.demand('cancel', who, why, about=about)
            case {'do': 'accept', 'who': str(who), 'why': str(why)}: return dict(booked=booked(self.journal.accept(who, why)))
            case {'do': 'dry', 'what': str(what), 'symbol': str(symbol), 'about': str(about)}: return dict(requests=await self.requests(what, symbol, about))
            case _: return None
        return await self._outcome(asked)

    async def _outcome(self, numbers: list[int]) -> dict:
        "Wait until the bot has done it, but not for ever."
        self.wake.set()
        until, rows = asyncio.get_running_loop().time() + PATIENCE_S, self.journal.demanded(numbers)
        while any(row['said'] is None and self.bot and row['bot'] == self.bot.id for row in rows):
            await asyncio.sleep(.05)
            if self.over or self.stopping or asyncio.get_running_loop().time() > until: break
            rows = self.journal.demanded(numbers)
        return dict(bots=told(rows))

    async def requests(self, what: str, symbol: str = '*', about: str = '') -> list[dict]:
        "Exactly what would be sent, in its order; nothing is written and nothing is sent."
        if self.bot is None or symbol not in ('*', self.bot.symbol): return []
        self._reread()
        cancels = [dict(send='cancel', symbol=self.bot.symbol, side=o.side, type=o.kind, quantity=f'{o.quantity - o.filled:f}', client_id=o.client_id, parameters={})
                   for o in self._resting(about)]
        order = await self._closing() if what == 'flatten' else None
        if order is None: return cancels
        kind, quantity, price, parameters = self.gateway._request(order, await self.gateway.venue_time(), self.mandate.order_window_ms)
        return [*cancels, dict(send='order', symbol=order.symbol, side=order.side, type=kind, quantity=quantity, client_id=order.client_id, parameters=parameters)]
