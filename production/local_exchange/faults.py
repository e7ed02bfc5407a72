"""What goes wrong between a client and the venue: faults set from outside, counted as they fire, and never part of the books.

A fault has a route (`POST /api/v3/order`, `WS order.place`; `*` stands for anything), a kind, what the kind needs, and how often it fires:

    lose_request     the request never arrives, and the connection breaks
    lose_response    it is done, and the connection breaks before the answer
    truncate         it is done, and the answer breaks off in the middle
    delay            seconds: it arrives that much later
    delay_after      seconds: it is done at once, and the answer comes that much later
    http             status, or [status, body] or [status, body, headers]: answered so, and not done
    http_after       the same, and done
    garbage          text (HTML if none is given): answered with status 200 and that, and done
    stale            done, and answered with what the same route answered last time; waits until there is such an answer
    patch            {path: value}: done, and the answer has other values in those places; paths such as `status` or `-1.4`
    rows             [row, …]: done, and the tail of a list in another order, from the oldest row named; [-2, -1, -1] repeats the last, [-3, -1] drops one

`Weather` draws faults by chance instead. `Faults` also holds what ails the venue as a whole: its clock, its limits, its sockets.
"""
import json
import random
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase

from trading_lib.core.errors import BadInput, did_you_mean

HTML = '<html><head><title>Bad Gateway</title></head><body>nginx</body></html>'
KINDS = ('lose_request', 'lose_response', 'truncate', 'delay', 'delay_after', 'http', 'http_after', 'garbage', 'stale', 'patch', 'rows')
BY_CHANCE = (('lose_request', None), ('lose_response', None), ('truncate', None), ('delay', .05), ('delay_after', .05), ('http', 503), ('http_after', 502),
             ('garbage', None))


@dataclass(frozen=True)
class Fault:
    "One thing that goes wrong on a route."
    route: str
    kind: str                  # one of `KINDS`
    arg: object = None
    times: int | None = 1      # None is until it is cleared

    def __post_init__(self):
        said = f'fault {self.kind} on {self.route}'
        if self.kind not in KINDS: raise BadInput(f'there is no fault {self.kind}{did_you_mean(str(self.kind), KINDS)}')
        if not isinstance(self.route, str) or not self.route: raise BadInput(f'{said}: the route is a method and a path, such as POST /api/v3/order')
        if self.times is not None and (isinstance(self.times, bool) or not isinstance(self.times, int) or self.times < 1):
            raise BadInput(f'{said}: times was {self.times!r}; it is a whole number from 1, or null for until it is cleared')
        if wrong := _wrong(self.kind, self.arg): raise BadInput(f'{said}: arg was {self.arg!r}; {wrong}')

    def fits(self, route: str) -> bool: return fnmatchcase(route, self.route)


def _wrong(kind: str, arg: object) -> str:
    "What such a fault needs, where this is not it."
    number = isinstance(arg, int | float) and not isinstance(arg, bool)
    match kind:
        case 'delay' | 'delay_after': return '' if number and 0 <= arg <= 3600 else 'it is seconds, from 0 to 3600'
        case 'http' | 'http_after':
            status, *more = arg if isinstance(arg, list | tuple) and arg else [arg]
            fine = isinstance(status, int) and 200 <= status < 600 and len(more) < 3 and (len(more) < 2 or isinstance(more[1], dict))
            return '' if fine else 'it is a status from 200 to 599, or [status, body, headers]'
        case 'garbage': return '' if arg is None or isinstance(arg, str) else 'it is text'
        case 'patch': return '' if isinstance(arg, dict) and arg and all(isinstance(path, str) for path in arg) else 'it is an object of paths and values'
        case 'rows':
            fine = isinstance(arg, list | tuple) and arg and all(isinstance(row, int) and row < 0 for row in arg)
            return '' if fine else 'it is a list of rows, counted from the end: -1 is the last'
    return '' if arg is None else 'it needs none'


@dataclass(frozen=True)
class Weather:
    "A share of all requests meets a fault drawn by chance."
    rate: float                                 # the share, from 0 to 1
    seed: int = 0                               # the same seed and the same requests draw the same faults
    routes: tuple[str, ...] = ('*',)
    kinds: tuple[str, ...] = tuple(kind for kind, _ in BY_CHANCE)

    def __post_init__(self):
        if isinstance(self.rate, bool) or not isinstance(self.rate, int | float) or not 0 <= self.rate <= 1:
            raise BadInput(f'rate was {self.rate!r}; it is a share from 0 to 1')
        if not isinstance(self.seed, int): raise BadInput(f'seed was {self.seed!r}; it is a whole number')
        for name in ('routes', 'kinds'):
            given = getattr(self, name)
            if not isinstance(given, list | tuple) or not given or not all(isinstance(each, str) for each in given):
                raise BadInput(f'{name} was {given!r}; it is a list')
            object.__setattr__(self, name, tuple(given))
        for kind in self.kinds:
            if kind not in dict(BY_CHANCE): raise BadInput(f'{kind} cannot be drawn by chance{did_you_mean(kind, dict(BY_CHANCE))}')


@dataclass
class Ailments:
    "What ails the venue as a whole. None of it is in the log."
    skew: int = 0                        # ms that its clock is ahead of the market's
    maintenance: bool = False            # everything is answered with 503
    weight_limit: int | None = None      # request weight in `weight_window_s`; more is answered with 429
    weight_window_s: float = 60.
    banned_until: int = 0                # venue time in ms; until then everything is answered with 418
    muted: list[str] = field(default_factory=list)     # streams that send nothing: btcusdt@kline_1h, user, or * for all
    revoked: list[str] = field(default_factory=list)   # API keys that are not let in any more
    can_withdraw: bool = False           # do the keys say that they may take money out?


class Faults:
    "Everything that is wrong in front of a local exchange."

    def __init__(self):
        self.routes: frozenset[str] = frozenset()   # those that are served; empty before anything is
        self.clear()

    def clear(self):
        "All is well again, and the counts begin anew."
        self.waiting: list[list] = []               # [fault, how often it will still fire]
        self.weather: list[tuple[Weather, random.Random]] = []
        self.fired: Counter = Counter()             # (route, kind) → how often
        self.venue = Ailments()
        self.last: dict[str, bytes] = {}            # route → the last good answer, for `stale`
        self.events: deque[str] = deque()           # what happens to the next fills of the user stream: drop, repeat, hold
        self._window, self._used, self._held = 0., 0, None

    # Faults of single requests

    def add(self, *faults: Fault | Weather):
        "Set faults; those that are set stay. Raises `BadInput` for a route that is not served."
        for fault in faults: self._known(fault)
        for fault in faults:
            if isinstance(fault, Weather): self.weather.append((fault, random.Random(fault.seed)))
            else: self.waiting.append([fault, fault.times])

    def serve(self, routes: Iterable[str]):
        "These routes are served from now on."
        self.routes |= frozenset(routes)
        for fault, _ in [*self.waiting, *self.weather]: self._known(fault)

    def _known(self, fault: Fault | Weather):
        for route in fault.routes if isinstance(fault, Weather) else (fault.route,):
            if self.routes and not any(fnmatchcase(served, route) for served in self.routes):
                raise BadInput(f'there is no route {route}{did_you_mean(route, self.routes)}')

    def strike(self, route: str) -> Fault | None:
        "What happens to this request, if anything; it counts as fired."
        for entry in self.waiting:
            fault, left = entry
            if not fault.fits(route) or fault.kind == 'stale' and route not in self.last: continue
            if left is not None:
                entry[1] -= 1
                if not entry[1]: self.waiting.remove(entry)
            break
        else:
            fault = next(filter(None, (self._drawn(weather, chance, route) for weather, chance in self.weather)), None)
        if fault: self.fired[route, fault.kind] += 1
        return fault

    def _drawn(self, weather: Weather, chance: random.Random, route: str) -> Fault | None:
        if not any(fnmatchcase(route, each) for each in weather.routes) or chance.random() >= weather.rate: return None
        kind = chance.choice(weather.kinds)
        return Fault(route, kind, dict(BY_CHANCE)[kind])

    # The venue as a whole

    def ail(self, **what: object):
        "Set some of `Ailments`; raises `BadInput` for an unknown one or a value that cannot be."
        for name, value in what.items(): self.check_ailment(name, value)
        for name, value in what.items(): setattr(self.venue, name, value)
        if 'weight_limit' in what: self._window = float('-inf')   # what was used before does not count

    @staticmethod
    def check_ailment(name: str, value: object):
        if name not in AILMENTS: raise BadInput(f'there is no field {name}{did_you_mean(name, AILMENTS)}')
        if name in ('maintenance', 'can_withdraw'): fine, wanted = isinstance(value, bool), 'it is true or false'
        elif name in ('muted', 'revoked'): fine, wanted = isinstance(value, list) and all(isinstance(each, str) for each in value), 'it is a list of names'
        elif name == 'weight_window_s': fine, wanted = isinstance(value, int | float) and not isinstance(value, bool) and value > 0, 'it is seconds above 0'
        else:
            number = isinstance(value, int) and not isinstance(value, bool)
            fine, wanted = number or name == 'weight_limit' and value is None, 'it is a whole number'
        if not fine: raise BadInput(f'{name} was {value!r}; {wanted}')

    def weigh(self, weight: int, now_s: float) -> float:
        "Add to the weight of this window; the seconds to wait where that is too much, else 0."
        window = self.venue.weight_window_s
        if now_s - self._window >= window: self._window, self._used = now_s, 0
        self._used += weight
        limit = self.venue.weight_limit
        return max(window - (now_s - self._window), .001) if limit is not None and self._used > limit else 0.

    @property
    def used_weight(self) -> int: return self._used

    def mutes(self, stream: str) -> bool: return stream in self.venue.muted or '*' in self.venue.muted

    def passed(self, event: str, fill: bool) -> list[str]:
        "What is sent of the user stream where this event is due. Fills are dropped, repeated, or held back until after the next event."
        what = self.events.popleft() if fill and self.events else ''
        if what: self.fired['user stream', what] += 1
        if what == 'hold' and self._held is None:
            self._held = event
            return []
        held, self._held = self._held, None
        return {'drop': [], 'repeat': [event, event]}.get(what, [event]) + ([held] if held else [])

    # In JSON

    def read(self, given: object):
        "Set what a request asks for: a list of faults and weathers, or an empty object to clear them all. Raises `BadInput`."
        if given == {}: return self.clear()
        if not isinstance(given, list) or not given:
            raise BadInput('faults are a list of {"route", "kind", "arg", "times"} or {"rate", "seed", "routes", "kinds"}, or {} to clear them')
        self.add(*map(_read, given))

    def json(self) -> dict:
        "What is set, and how often each has fired."
        return dict(faults=[asdict(fault) | dict(left=left) for fault, left in self.waiting], weather=[asdict(weather) for weather, _ in self.weather],
                    fired=[dict(route=route, kind=kind, times=times) for (route, kind), times in self.fired.items()],
                    venue=asdict(self.venue), user_events=list(self.events))


AILMENTS = tuple(each.name for each in fields(Ailments))


def _read(given: object) -> Fault | Weather:
    "One fault of a request."
    if not isinstance(given, dict): raise BadInput(f'a fault was {given!r}; it is an object')
    kind = Weather if 'rate' in given else Fault
    known = [each.name for each in fields(kind)]
    for name in given:
        if name not in known: raise BadInput(f'a fault has no {name}{did_you_mean(name, known)}')
    if kind is Fault and not {'route', 'kind'} <= given.keys(): raise BadInput(f'a fault needs a route and a kind; given: {json.dumps(given)}')
    return kind(**given)


def patched(fault: Fault, answer: str) -> str:
    "An answer with other values, or its rows in another order."
    value = json.loads(answer)
    if fault.kind == 'rows':
        if isinstance(value, list) and value:
            rows = [row for row in fault.arg if -row <= len(value)]
            tail = -min(rows, default=0)
            value = value[:len(value) - tail] + [value[row] for row in rows]
    else:
        for path, new in fault.arg.items(): _put(value, path.split('.'), new)
    return json.dumps(value, separators=(',', ':'))


def _put(value: object, path: list[str], new: object):
    "Set one place; a place that is not there is left."
    *way, last = path
    for name in way:
        try: value = value[int(name) if isinstance(value, list) else name]
        except (LookupError, TypeError, ValueError): return
    if isinstance(value, Mapping): value[last] = new
    elif isinstance(value, list) and last.lstrip('-').isdigit() and -len(value) <= int(last) < len(value): value[int(last)] = new
