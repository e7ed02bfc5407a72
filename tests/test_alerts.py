"""Alerts: raised with what they tell of, sent beside trading, to servers of our own that speak each service's protocol as far as a sender hears it."""
import asyncio
import json
import re
import socket
import time
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest
from local_venue import postgres
from sqlalchemy import text

from production import alerts as outgoing
from production.alerts import Sender, channel, messages, quiet_until, send_now, sending, tried
from production.journal import Bot, Journal
from production.journal.telling import Alerts
from trading_lib.core.errors import BadInput, Refused
from trading_lib.core.settings import FIELDS, AlertRules, AlertTemplates, Settings
from trading_lib.execution.orders import Fill, Order, OrderState, advance

D, HOUR, ROOT = Decimal, 3_600_000, Path(__file__).parents[1]
NOON = 1_700_049_600_000   # 2023-11-15 12:00 UTC


class Clock:
    "Time that passes when we say so."
    def __init__(self): self.ms = NOON
    def __call__(self): return self.ms
    def pass_s(self, seconds): self.ms += int(seconds * 1000)


def set_up(monkeypatch, tmp_path, **alerting) -> Settings:
    for key, value in alerting.items(): monkeypatch.setenv(f'TRADING__ALERTS__{key.upper()}', str(value))
    return Settings.load(tmp_path)


@pytest.fixture(params=['sqlite', 'postgresql'])
def where(request, tmp_path):
    if request.param == 'sqlite': yield tmp_path / 'journal.db'
    else:
        with postgres() as address: yield address


@pytest.fixture
def clock(): return Clock()


@pytest.fixture
def journal(tmp_path, clock):
    with Journal.open(tmp_path / 'journal.db', now=clock) as journal: yield journal


def enrolled(journal): return journal.enrol('d' * 64, 'main', 'binance', 'BTC/USDT', '1h', 0, D(10_000), D(0), 'sma_cross').id


def decided(journal, bot, bar, target=1., orders=(), close='43210', **more):
    return journal.decide(bot, bar, **dict(inputs='', target=target, outcome='traded', reason='', close=D(close), orders=orders) | more)


def order(name='tw-1', side='buy', quantity='0.012', kind='market', **more): return Order(name, 'BTC/USDT', side, kind, D(quantity), **more)


def filled(order, *prices):
    part = order.quantity / len(prices)
    fills = [Fill(order.client_id, f'{order.client_id}-{i}', order.symbol, order.side, part, D(price), D(0), 'USDT', 1) for i, price in enumerate(prices)]
    return advance(OrderState(order), fills=fills, id='1')


class Told:
    "A channel that writes down what it is sent, and can be told to fail or to hang."
    def __init__(self): self.heard, self.broken, self.hang_s, self.tries = [], False, 0, 0
    def send(self, severity, title, text):
        self.tries += 1
        time.sleep(self.hang_s)
        if self.broken: return False, 'no route'
        self.heard.append((severity, title, text))
        return True, ''


async def stepped(sender):
    sender.step()
    if sender.busy: await asyncio.wait(list(sender.busy.values()))


def sender_of(journal, settings, **channels):
    journal.alerts = Alerts.of(settings)
    return Sender(journal, channels)


# raising

def test_each_event_raises_its_alert_with_every_field_filled_in(journal, clock):
    bot = enrolled(journal)
    journal.state(bot, 'READY')
    decided(journal, bot, 13 * HOUR, orders=[order(), order('tw-2'), order('tw-3'), order('tw-4')])
    journal.adopt('tw-1', filled(order(), '43210'))
    journal.reject('tw-2', 'LOT_SIZE')
    journal.adopt('tw-3', OrderState(order('tw-3'), 'REJECTED', reason='MIN_NOTIONAL'))
    journal.fence('tw-4', 1, 1)
    clock.pass_s(61)
    journal.notice({})
    decided(journal, bot, 14 * HOUR, None, reason='sma_cross returned 1.5')
    decided(journal, bot, 15 * HOUR, 0., close='1000')
    clock.pass_s(4 * 3600)
    journal.notice({bot: NOON})
    journal.halt('anna', 'news')
    journal.resume('bert', 'it was nothing')
    journal.state(bot, 'STOPPED')
    for rule in ('limit', 'parity', 'sentiment'): journal.alert(rule, 'x', about='BTC', what='something')
    raised = journal.history()[::-1]
    assert [a['rule'] for a in raised] == ['start', 'fill', 'rejected', 'rejected', 'unknown', 'strategy_error', 'daily_loss', 'stale_data', 'halt', 'resume', 'stop',
                                           'limit', 'parity', 'sentiment']
    assert {a['rule'] for a in raised} | {'test'} == set(FIELDS) == set(AlertRules.model_fields) == set(AlertTemplates.model_fields)
    text = '\n'.join(f'{a["title"]}: {a["text"]}' for a in raised)
    assert 'None' not in text and '{' not in text and '  ' not in text and ': \n' not in text
    assert [a['severity'] for a in raised if a['rule'] in ('fill', 'halt', 'rejected')] == ['info', 'warning', 'warning', 'critical']


def test_a_trade_is_explained_in_plain_language(journal):
    bot = enrolled(journal)
    decided(journal, bot, 12 * HOUR, 0.)
    decided(journal, bot, 13 * HOUR, 1., orders=[order()], reason='cut')
    journal.adopt('tw-1', filled(order(), '43210', '43220.5'))
    [alert] = journal.history()
    assert alert['title'] == 'Bought 0.012 BTC at 43,215.25'
    assert alert['text'] == ('Bought 0.012 BTC at 43,215.25 (main, binance) because sma_cross went from flat to long at the close of 1970-01-01 14:00 UTC, at 43,210: cut')
    decided(journal, bot, 14 * HOUR, -.25, orders=[order('tw-2', 'sell')])
    journal.adopt('tw-2', filled(order('tw-2', 'sell'), '43000'))
    assert 'Sold 0.012 BTC at 43,000' in journal.history()[0]['title'] and 'went from long to short 0.25' in journal.history()[0]['text']
    decided(journal, bot, 15 * HOUR, -.25, orders=[order('tw-3', kind='stop', stop_price=D('44000'))])
    journal.adopt('tw-3', filled(order('tw-3', kind='stop', stop_price=D('44000')), '44001'))
    assert 'because its stop order at 44,000 was reached' in journal.history()[0]['text']


def test_an_alert_is_committed_with_its_event_or_not_at_all(where):
    with Journal.open(where) as journal:
        bot = enrolled(journal)
        decided(journal, bot, HOUR, orders=[order()])
        with pytest.raises(Refused): journal.adopt('tw-1', OrderState(order(), 'FILLED', filled=D('0.012')))   # without its fills
        assert journal.history() == []
        journal.adopt('tw-1', filled(order(), '43210'))
        assert [a['rule'] for a in journal.history()] == ['fill']


def test_what_is_noticed_often_is_told_once(journal, clock):
    bot = enrolled(journal)
    decided(journal, bot, HOUR, orders=[order()])
    journal.fence('tw-1', 1, 1)
    for _ in range(3):
        clock.pass_s(100)
        journal.notice({})
    for _ in range(3): journal.adopt('tw-1', filled(order(), '43210'))
    for _ in range(2): journal.alert('sentiment', 'btc-2024', about='BTC', what='fear')
    assert [a['rule'] for a in journal.history()][::-1] == ['unknown', 'fill', 'sentiment']


def test_a_day_that_cost_too_much_is_told_once_and_the_next_day_begins_anew(journal, tmp_path, monkeypatch):
    journal.alerts = Alerts.of(set_up(monkeypatch, tmp_path, daily_loss_pct='2.5'))
    bot = enrolled(journal)
    with journal._session() as s: s.get_one(Bot, bot).position = D(1)
    for bar, close in enumerate([10_000, 9_600, 9_490, 9_000] + [9_000] * 21 + [8_000]): decided(journal, bot, bar * HOUR, 0., close=str(close))
    told = [a for a in journal.history() if a['rule'] == 'daily_loss'][::-1]
    assert [a['title'] for a in told] == ['BTC/USDT lost 2.55 % on 1970-01-01', 'BTC/USDT lost 5.26 % on 1970-01-02']


def test_a_bot_that_has_just_become_ready_has_no_stale_data(journal, clock):
    bot, ready = enrolled(journal), {}
    decided(journal, bot, HOUR, 0.)
    journal.state(bot, 'READY')
    clock.pass_s(10 * 3600)
    journal.notice(ready)
    clock.pass_s(2.9 * 3600)
    journal.notice(ready)
    assert [a['rule'] for a in journal.history()] == ['start']
    clock.pass_s(.2 * 3600)
    journal.notice(ready)
    assert [a['rule'] for a in journal.history()] == ['stale_data', 'start']
    journal.state(bot, 'HALTED')
    journal.notice(ready)
    assert ready == {}


def test_rules_say_how_severe_and_templates_how_it_is_put(journal, tmp_path, monkeypatch):
    monkeypatch.setenv('TRADING__ALERT_RULES__HALT', 'off')
    monkeypatch.setenv('TRADING__ALERT_RULES__FILL', 'critical')
    (tmp_path / 'settings.ini').write_text('[alert_templates]\nfill = {done} {quantity:>8}\n    Price {price}.\n')
    journal.alerts = Alerts.of(Settings.load(tmp_path))
    bot = enrolled(journal)
    decided(journal, bot, HOUR, orders=[order()])
    journal.adopt('tw-1', filled(order(), '43210'))
    journal.halt('anna', 'news')
    [alert] = journal.history()
    assert (alert['severity'], alert['title'], alert['text']) == ('critical', 'Bought    0.012', 'Price 43,210.')


def test_the_templates_that_are_given_can_all_be_filled_in(): AlertTemplates(**AlertTemplates().model_dump())


@pytest.mark.parametrize(('key', 'value', 'said'), [
    ('ALERT_RULES__FILLED', 'info', 'alert_rules has no key filled; did you mean fill'),
    ('ALERT_RULES__FILL', 'loud', "alert_rules.fill was 'loud'"),
    ('ALERT_TEMPLATES__HALT', '{whom}', 'there is no field whom; did you mean who'),
    ('ALERT_TEMPLATES__HALT', '{who', 'cannot be filled in'),
    ('ALERT_TEMPLATES__HALT', '{who.secret}', 'cannot be filled in'),
    ('ALERTS__CHANNELS', 'ops:warn', 'there is no severity warn; did you mean warning'),
    ('ALERTS__CHANNELS', 'slack://T1/B2/C3', 'a channel is a name'),
    ('ALERTS__QUIET', '10pm', '22:00-07:00'),
    ('ALERTS__RETRIES', '0', "alerts.retries was '0'")])
def test_what_cannot_be_meant_is_refused_when_the_settings_are_read(tmp_path, monkeypatch, key, value, said):
    monkeypatch.setenv(f'TRADING__{key}', value)
    with pytest.raises(BadInput, match=re.escape(said)) as caught: Settings.load(tmp_path)
    assert 'T1/B2' not in str(caught.value)


# sending

async def test_each_channel_gets_each_alert_once(journal, clock, tmp_path, monkeypatch):
    a, b = Told(), Told()
    sender = sender_of(journal, set_up(monkeypatch, tmp_path, channels='a, b:warning', batch_s=0), a=a, b=b)
    journal.halt('anna', 'news')
    journal.alert('sentiment', 1, about='BTC', what='fear')
    for _ in range(3):
        await stepped(sender)
        clock.pass_s(60)
    assert [h[1] for h in a.heard] == ['Trading halted by anna', 'Sentiment: BTC'] and [h[1] for h in b.heard] == ['Trading halted by anna']
    assert '#1, 2023-11-15 12:00 UTC; when you have seen it: trading alerts ack 1' in a.heard[0][2]
    assert [(x['state'], x['attempts'], x['next_try']) for x in journal.history()] == [('sent', 1, None)] * 2


async def test_information_waits_for_company_and_is_sent_as_one(journal, clock, tmp_path, monkeypatch):
    told = Told()
    sender = sender_of(journal, set_up(monkeypatch, tmp_path, channels='a', batch_s=30), a=told)
    journal.alert('sentiment', 0, about='0', what='fear')
    await stepped(sender)
    for i in range(1, 25):
        clock.pass_s(1)
        journal.alert('sentiment', i, about=str(i), what='fear')
        await stepped(sender)
    assert told.heard == []
    clock.pass_s(6)
    await stepped(sender)
    [(severity, title, text)] = told.heard
    assert (severity, title) == ('info', '25 alerts') and text.count('Sentiment') == 20 and text.endswith('and 5 more: trading alerts')
    assert {a['state'] for a in journal.history()} == {'sent'}


async def test_a_channel_is_sent_so_many_messages_a_minute_and_nothing_is_lost(journal, clock, tmp_path, monkeypatch):
    told = Told()
    sender = sender_of(journal, set_up(monkeypatch, tmp_path, channels='a', per_minute=3), a=told)
    for i in range(10):
        journal.halt('anna', f'news {i}')
        await stepped(sender)
    assert len(told.heard) == 3
    passed = time.monotonic() + 61
    monkeypatch.setattr(outgoing.time, 'monotonic', lambda: passed)
    await stepped(sender)
    assert [h[1] for h in told.heard][3:] == ['7 alerts, the worst critical']
    assert {a['state'] for a in journal.history()} == {'sent'}


async def test_in_quiet_hours_only_what_is_critical_is_sent(journal, clock, tmp_path, monkeypatch):
    told = Told()
    sender = sender_of(journal, set_up(monkeypatch, tmp_path, channels='a', quiet='11:30-13:00'), a=told)
    journal.resume('nobody')
    journal.halt('anna', 'news')
    journal.resume('bert')
    await stepped(sender)
    assert [h[1] for h in told.heard] == ['Trading halted by anna']
    clock.pass_s(3599)
    await stepped(sender)
    assert len(told.heard) == 1
    clock.pass_s(1)
    await stepped(sender)
    assert [h[1] for h in told.heard][1:] == ['Trading resumed by bert']


@pytest.mark.parametrize(('quiet', 'minutes_left'), [('', None), ('11:00-13:00', 60), ('12:00-12:01', 1), ('12:01-13:00', None), ('22:00-07:00', None), ('13:00-12:30', 30)])
def test_quiet_hours_may_cross_midnight(quiet, minutes_left):
    until = quiet_until(quiet, NOON)
    assert until == (None if minutes_left is None else NOON + minutes_left * 60_000)


def test_quiet_hours_before_midnight_end_on_the_next_day():
    assert quiet_until('22:00-07:00', NOON + 11 * HOUR) == NOON + 19 * HOUR


async def test_what_is_critical_is_escalated_until_somebody_acknowledges_it(journal, clock, tmp_path, monkeypatch):
    ops, phone, boss = Told(), Told(), Told()
    sender = sender_of(journal, set_up(monkeypatch, tmp_path, channels='ops; phone; boss', escalate_min=10), ops=ops, phone=phone, boss=boss)
    journal.halt('anna', 'news')
    journal.resume('anna')
    for _ in range(19):
        await stepped(sender)
        clock.pass_s(60)
    assert [len(c.heard) for c in (ops, phone, boss)] == [2, 1, 0]
    assert journal.acknowledge(1, 'bert')['acknowledged_by'] == journal.acknowledge(1, 'carl')['acknowledged_by'] == 'bert'
    for _ in range(30):
        await stepped(sender)
        clock.pass_s(60)
    assert [len(c.heard) for c in (ops, phone, boss)] == [2, 1, 0]
    assert journal.history()[-1]['state'] == 'acknowledged'
    assert [(row['actor'], row['detail']['alert']) for row in journal.audit('acknowledge')] == [('bert', 1)]
    with pytest.raises(BadInput, match='there is no alert 99'): journal.acknowledge(99, 'bert')


async def test_a_dead_first_channel_does_not_stop_the_escalation(journal, clock, tmp_path, monkeypatch):
    ops, phone = Told(), Told()
    ops.broken = True
    sender = sender_of(journal, set_up(monkeypatch, tmp_path, channels='ops; phone', escalate_min=1, retries=2), ops=ops, phone=phone)
    journal.halt('anna', 'news')
    for _ in range(10):
        await stepped(sender)
        clock.pass_s(10)
    assert len(phone.heard) == 1 and journal.history()[0]['state'] == 'failed' and journal.history()[0]['results']['ops']['said'] == 'no route'


async def test_an_acknowledgement_while_it_is_being_sent_holds(where, tmp_path, monkeypatch):
    with Journal.open(where) as journal:
        told = Told()
        told.hang_s = .1
        sender = sender_of(journal, set_up(monkeypatch, tmp_path, channels='a'), a=told)
        journal.halt('anna', 'news')
        sender.step()
        journal.acknowledge(1, 'bert')
        await asyncio.wait(list(sender.busy.values()))
        [alert] = journal.history()
        assert (alert['state'], alert['next_try'], alert['results']['a']['done']) == ('acknowledged', None, True)


async def test_an_hour_without_a_network_loses_and_doubles_nothing(where, clock, tmp_path, monkeypatch):
    with Journal.open(where, now=clock) as journal:
        told = Told()
        told.broken = True
        sender = sender_of(journal, set_up(monkeypatch, tmp_path, channels='a', per_minute=10**6), a=told)
        began = clock.ms
        while clock.ms < began + HOUR:
            if clock.ms % 60_000 == 0: journal.halt('anna', f'news {clock.ms}')
            await stepped(sender)
            clock.pass_s(10)
        assert told.heard == [] and told.tries < 1500
        told.broken = False
        for _ in range(31):
            await stepped(sender)
            clock.pass_s(10)
        numbers = re.findall(r'#(\d+)', ' '.join(text for _, _, text in told.heard))
        assert sorted(map(int, numbers)) == list(range(1, 61)) and {a['state'] for a in journal.history()} == {'sent'}


async def test_what_was_given_up_is_a_dead_letter_until_it_is_replayed(journal, clock, tmp_path, monkeypatch):
    a, b = Told(), Told()
    a.broken = True
    sender = sender_of(journal, set_up(monkeypatch, tmp_path, channels='a, b', retries=3), a=a, b=b)
    journal.halt('anna', 'news')
    for _ in range(100):
        await stepped(sender)
        clock.pass_s(10)
    [alert] = journal.history(state='failed')
    assert (a.tries, len(b.heard), alert['attempts'], alert['next_try']) == (3, 1, 3, None)
    assert journal.replay('bert') == 1 and journal.replay('bert') == 0
    a.broken = False
    await stepped(sender)
    assert (len(a.heard), len(b.heard), journal.history()[0]['state']) == (1, 1, 'sent')


async def test_a_crash_between_sending_and_writing_it_down_sends_it_again(tmp_path, clock, monkeypatch):
    settings, told = set_up(monkeypatch, tmp_path, channels='a'), Told()
    with Journal.open(tmp_path / 'j.db', now=clock) as journal:
        sender = sender_of(journal, settings, a=told)
        journal.halt('anna', 'news')
        monkeypatch.setattr(journal, 'told', lambda *_, **__: None)
        await stepped(sender)
    with Journal.open(tmp_path / 'j.db', now=clock) as journal:
        await stepped(sender_of(journal, settings, a=told))
        assert len(told.heard) == 2 and told.heard[0] == told.heard[1] and journal.history()[0]['state'] == 'sent'


async def test_a_channel_that_hangs_delays_neither_trading_nor_another_channel(journal, clock, tmp_path, monkeypatch):
    slow, quick = Told(), Told()
    slow.hang_s = 1.5
    sender = sender_of(journal, set_up(monkeypatch, tmp_path, channels='slow, quick'), slow=slow, quick=quick)
    bot, took = enrolled(journal), []
    journal.halt('anna', 'news')
    sender.step()
    end = time.monotonic() + 1
    while time.monotonic() < end:
        began = time.monotonic()
        decided(journal, bot, len(took) * HOUR, 1.)
        sender.step()
        took.append(time.monotonic() - began)
        await asyncio.sleep(.01)
    assert len(took) > 20 and sorted(took)[len(took) // 2] < .05
    assert len(quick.heard) == 1 and slow.heard == []
    await asyncio.wait(list(sender.busy.values()))
    assert len(slow.heard) == 1


async def test_one_of_several_runners_on_one_journal_sends(tmp_path, monkeypatch):
    settings, told = set_up(monkeypatch, tmp_path, channels='a', per_minute=1000), Told()
    monkeypatch.setattr(outgoing, 'TICK_S', .01)
    with postgres() as address, Journal.open(address) as first, Journal.open(address) as second:
        senders = [sender_of(journal, settings, a=told) for journal in (first, second)]
        tasks = [asyncio.create_task(sender.run()) for sender in senders]
        for i in range(20):
            second.halt('anna', f'news {i}')
            await asyncio.sleep(.02)
        await asyncio.sleep(.2)
        for task in tasks: task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        first.halt('anna', 'the last')
        for sender in senders: await sender.farewell()
        assert sorted(re.findall(r'#(\d+),', ' '.join(h[2] for h in told.heard)), key=int) == [str(i) for i in range(1, 22)]


async def test_a_sender_whose_connection_broke_lets_another_send(tmp_path, monkeypatch):
    settings = set_up(monkeypatch, tmp_path, channels='a')
    with postgres() as address, Journal.open(address) as first, Journal.open(address) as second:
        a, b = [sender_of(journal, settings, a=Told()) for journal in (first, second)]
        assert [a._alone(), b._alone(), a._alone()] == [True, False, True]
        number = a.lock.connection.scalar(text('select pg_backend_pid()'))
        with second._session() as s: s.execute(text(f'select pg_terminate_backend({number})'))
        assert [b._alone(), a._alone(), b._alone()] == [True, False, True]
        b.lock()


# the services

class Server:
    "An HTTP server that writes down what it is asked."
    def __init__(self, status=200, answer=b'{"ok": true, "status": "success", "message": "Event processed"}'):
        self.heard, server = [], self
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
                server.heard.append((self.headers.get('X-Meant-For', ''), self.path, body.decode(errors='replace')))
                self.send_response(status)
                self.send_header('Content-Length', str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
            do_GET = do_PUT = do_POST
            def log_message(self, *_): pass
        self.http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.address = f'127.0.0.1:{self.http.server_port}'
        Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@contextmanager
def served(**how):
    server = Server(**how)
    try: yield server
    finally: server.close()


def redirected(monkeypatch, server):
    "Every service's host is our server; what host was meant is kept."
    from requests.adapters import HTTPAdapter
    real = HTTPAdapter.send
    def send(self, request, **how):
        meant = urlsplit(request.url)
        if meant.netloc != server.address:
            request.headers['X-Meant-For'] = meant.hostname
            request.url = f'http://{server.address}{meant.path}' + (f'?{meant.query}' if meant.query else '')
        return real(self, request, **how)
    monkeypatch.setattr(HTTPAdapter, 'send', send)


SERVICES = dict(
    slack=('slack://TABCDEFGH/BABCDEFGH/abcdefghijklmnopqrstuvwx/%23trading', 'hooks.slack.com'),
    slack_hook=('https://hooks.slack.com/services/TABCDEFGH/BABCDEFGH/abcdefghijklmnopqrstuvwx', 'hooks.slack.com'),
    telegram=('tgram://123456789:AAabcdefghijklmnopqrstuvwxyz012345678/12315544/', 'api.telegram.org'),
    discord=('discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js', 'discord.com'),
    pagerduty=('pagerduty://A1BRTD4JD@TIiajkdnlazkcOXrIdevi7F', 'events.pagerduty.com'),
    pushover=('pover://uxxxxxxxxxxxxxxxxxxxxxxxxxxxxx@axxxxxxxxxxxxxxxxxxxxxxxxxxxxx', 'api.pushover.net'),
    ntfy=('ntfy://trading', 'ntfy.sh'),
    webhook=('json://{address}/alerts', ''), webhook_xml=('xml://{address}/alerts', ''), webhook_form=('form://{address}/alerts', ''),
    push=('ntfy://{address}/trading', ''), gotify=('gotify://{address}/abcdefghijklmno', ''))


@pytest.mark.parametrize('kind', SERVICES)
def test_each_kind_of_channel_delivers_title_and_text(kind, monkeypatch):
    address, host = SERVICES[kind]
    with served(**dict(answer=b'ok') if 'slack' in address else {}) as server:   # what a Slack hook answers
        redirected(monkeypatch, server)
        monkeypatch.setenv('TRADING_ALERT_OPS', address.format(address=server.address))
        assert channel('ops').send('critical', 'Trading halted by anna', 'Scope everything: a < b & "c"') == (True, '')
    assert [h[0] for h in server.heard] == [host] * len(server.heard)
    everything = ' '.join(f'{path} {body}' for _, path, body in server.heard)
    assert re.search('Trading.halted.by.anna', everything) and 'Scope' in everything


@pytest.mark.parametrize('status', [400, 401, 404, 429, 500, 503])
def test_a_service_that_refuses_says_so(status, monkeypatch):
    with served(status=status) as server:
        monkeypatch.setenv('TRADING_ALERT_OPS', f'json://{server.address}')
        taken, said = channel('ops').send('info', 't', 'x')
    assert not taken and str(status) in said or 'error' in said.lower()


def test_mail_is_delivered(monkeypatch):
    heard = []
    def serve(line: socket.socket):
        peer, _ = line.accept()
        with peer, peer.makefile('rwb') as talk:
            def say(text):
                talk.write(text.encode() + b'\r\n')
                talk.flush()
            say('220 here')
            while words := talk.readline():
                if words.upper().startswith(b'EHLO'): say('250 here')
                elif words.upper().startswith(b'DATA'):
                    say('354 go on')
                    while (row := talk.readline()) != b'.\r\n': heard.append(row.decode())
                    say('250 taken')
                elif words.upper().startswith(b'QUIT'): say('221 bye')
                else:
                    heard.append(words.decode())
                    say('250 fine')
    line = socket.create_server(('127.0.0.1', 0))
    Thread(target=serve, args=(line,), daemon=True).start()
    monkeypatch.setenv('TRADING_ALERT_MAIL', f'mailto://127.0.0.1:{line.getsockname()[1]}?from=bot@example.org&to=anna@example.org')
    assert channel('mail').send('warning', 'Order rejected', 'LOT_SIZE') == (True, '')
    line.close()
    text = ''.join(heard)
    assert 'anna@example.org' in text and 'Subject: Order rejected' in text and 'LOT_SIZE' in text


@pytest.mark.parametrize(('address', 'said'), [('', 'channel ops has no address; set TRADING_ALERT_OPS'), ('slak://s3cret', 'no known service; did you mean slack'),
                                               ('slack://s3cret', 'is not complete'), ('s3cret', 'no known service')])
def test_a_bad_address_is_refused_before_trading_and_never_shown(address, said, tmp_path, monkeypatch):
    settings = set_up(monkeypatch, tmp_path, channels='ops')
    monkeypatch.setenv('TRADING_ALERT_OPS', address)
    async def begin():
        with Journal.open(tmp_path / 'j.db') as journal:
            async with sending(journal, settings): pytest.fail('it began')
    with pytest.raises(BadInput, match=said) as caught: asyncio.run(begin())
    assert 's3cret' not in str(caught.value)


# the whole

def test_messages_are_short_enough_for_every_service():
    from production.journal.tables import Alert
    many = [Alert(id=i, at=NOON, severity='warning', title='Order unknown', text='x' * 500) for i in range(1000)]
    [(group, severity, title, text)] = messages(many, 20)
    assert len(group) == 1000 and title == '1000 alerts, the worst warning' and len(text) < 1900


async def test_what_is_left_is_sent_when_a_runner_stops_and_a_command_sends_the_rest(tmp_path, monkeypatch):
    with served() as server:
        settings = set_up(monkeypatch, tmp_path, channels='ops')
        monkeypatch.setenv('TRADING_ALERT_OPS', f'json://{server.address}')
        with Journal.open(tmp_path / 'j.db') as journal:
            async with sending(journal, settings): journal.alert('sentiment', 1, about='BTC', what='fear')
            assert len(server.heard) == 1 and journal.history()[0]['state'] == 'sent'
            journal.halt('anna', 'without a runner')
            assert await send_now(journal, settings) == 0
    assert json.loads(server.heard[1][2])['title'] == 'Trading halted by anna'


async def test_what_is_raised_while_a_channel_is_busy_is_sent_before_the_end(journal, tmp_path, monkeypatch):
    told = Told()
    told.hang_s = .2
    sender = sender_of(journal, set_up(monkeypatch, tmp_path, channels='a'), a=told)
    journal.halt('anna', 'news')
    sender.step()
    journal.resume('anna')
    await sender.farewell()
    assert [h[1] for h in told.heard] == ['Trading halted by anna', 'Trading resumed by anna'] and sender.busy == {}


async def test_a_service_that_never_answers_holds_a_stopping_runner_up_for_seconds_only(tmp_path, monkeypatch):
    monkeypatch.setattr(outgoing, 'FAREWELL_S', .3)
    line = socket.create_server(('127.0.0.1', 0))   # takes connections and says nothing
    settings = set_up(monkeypatch, tmp_path, channels='ops')
    monkeypatch.setenv('TRADING_ALERT_OPS', f'json://127.0.0.1:{line.getsockname()[1]}?rto=2')
    with Journal.open(tmp_path / 'j.db') as journal:
        began = time.monotonic()
        async with sending(journal, settings): journal.halt('anna', 'news')
        assert time.monotonic() - began < 3
        assert journal.history()[0]['state'] == 'pending'
    line.close()


def test_a_test_alert_goes_to_every_channel_at_once(tmp_path, monkeypatch):
    with served() as good, served(status=500) as bad:
        settings = set_up(monkeypatch, tmp_path, channels='good; bad')
        monkeypatch.setenv('TRADING_ALERT_GOOD', f'json://{good.address}')
        monkeypatch.setenv('TRADING_ALERT_BAD', f'json://{bad.address}')
        answers = tried(settings, 'anna')
    assert answers['good'] == dict(taken=True, said='') and not answers['bad']['taken']
    assert 'anna asked' in good.heard[0][2]


async def test_without_settings_alerts_are_only_written_down(journal):
    async with sending(journal, None): journal.halt('anna', 'news')
    assert journal.history()[0]['state'] == 'pending'


def test_the_settings_and_the_example_environment_that_are_shipped_can_be_read(tmp_path, monkeypatch):
    lines = [line.lstrip('# ') for line in (ROOT / '.env.example').read_text().splitlines()]
    given = dict(line.split('=', 1) for line in lines if re.match(r'TRADING_\w+=', line))
    for name, value in given.items(): monkeypatch.setenv(name, value)
    (tmp_path / 'settings.ini').write_text((ROOT / 'settings.ini').read_text())
    settings = Settings.load(tmp_path)
    assert set(outgoing.channels(Alerts.of(settings))) == {name.removeprefix('TRADING_ALERT_').lower() for name in given if name.startswith('TRADING_ALERT_')} != set()


async def test_a_bot_tells_of_its_start_its_trades_and_its_end(tmp_path, monkeypatch):
    from local_venue import venue
    from test_runner import TIMES, exchange, mandate

    from production.runner import Runner
    there = exchange()
    with served() as server:
        settings = set_up(monkeypatch, tmp_path, channels='ops', batch_s=0, per_minute=1000)
        monkeypatch.setenv('TRADING_ALERT_OPS', f'json://{server.address}')
        async with venue(there) as (gateway, _):
            with Journal.open(tmp_path / 'j.db') as journal:
                assert await Runner(mandate(), gateway, journal, there.release, settings=settings).run(TIMES[-2]) == 'done'
                raised, fills = journal.history()[::-1], len(journal.fills())
                assert journal.verify_audit()['broken'] is None
    assert [a['title'] for a in raised if a['rule'] == 'start'] == ['sma_cross ready on BTC/USDT 1h'] and raised[-1]['rule'] == 'stop'
    assert sum(a['rule'] == 'fill' for a in raised) == fills > 5 and {a['state'] for a in raised} == {'sent'}
    heard = ' '.join(json.loads(body)['message'] + json.loads(body)['title'] for _, _, body in server.heard)
    assert 'sma_cross ready' in heard and 'sma_cross stopped' in heard and re.search('(Bought|Sold) [0-9.]+ BTC at [0-9,.]+', heard)


async def test_fault_68_a_notification_service_that_is_down_or_slow_changes_no_trade_and_loses_no_alert(tmp_path, monkeypatch):
    "The notification service is down or slow → alerts wait in the journal, and trading goes on as if nothing were."
    from local_venue import venue
    from test_runner import TIMES, agree_with_replay, books, exchange, mandate

    from production.runner import Runner
    monkeypatch.setattr(outgoing, 'FAREWELL_S', .2)
    there, line = exchange(), socket.create_server(('127.0.0.1', 0))   # takes connections and never answers
    settings = set_up(monkeypatch, tmp_path, channels='slow, down', batch_s=0)
    monkeypatch.setenv('TRADING_ALERT_SLOW', f'json://127.0.0.1:{line.getsockname()[1]}?rto=2')
    monkeypatch.setenv('TRADING_ALERT_DOWN', 'json://127.0.0.1:9')
    async with venue(there) as (gateway, _):
        with Journal.open(tmp_path / 'j.db') as journal: assert await Runner(mandate(), gateway, journal, there.release, settings=settings).run(TIMES[-2]) == 'done'
    line.close()
    agree_with_replay(books(tmp_path / 'j.db'))
    with Journal.reader(tmp_path / 'j.db') as journal:
        assert {a['state'] for a in journal.history()} == {'pending'} and sum(a['rule'] == 'fill' for a in journal.history()) == len(journal.fills())


async def test_a_fault_in_the_sender_is_seen_and_trading_goes_on(journal, tmp_path, monkeypatch):
    seen = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: seen.append(what['message']))
    monkeypatch.setattr(outgoing, 'TICK_S', .01)
    monkeypatch.setattr(Sender, 'step', lambda self, at_once=False: None if at_once else {}['x'])
    async with sending(journal, set_up(monkeypatch, tmp_path)):
        await asyncio.sleep(.05)
        journal.halt('anna', 'news')
    assert seen == ['alerts are no longer sent']


async def test_a_disk_that_is_full_for_a_while_does_not_end_the_sender(journal, tmp_path, monkeypatch):
    told = Told()
    monkeypatch.setattr(outgoing, 'TICK_S', .01)
    sender, full = sender_of(journal, set_up(monkeypatch, tmp_path, channels='a'), a=told), True
    real = sender.step
    def step(at_once=False):
        if full: raise BadInput('disk full')
        real(at_once)
    monkeypatch.setattr(sender, 'step', step)
    task = asyncio.create_task(sender.run())
    journal.halt('anna', 'news')
    await asyncio.sleep(.1)
    full = False
    await asyncio.sleep(.2)
    task.cancel()
    assert len(told.heard) == 1


BUSY = """
import asyncio, sys
from production import alerts
from production.journal import Journal
from trading_lib.core.settings import Settings
alerts.TICK_S = .01
async def main():
    settings = Settings.load(sys.argv[1])
    with Journal.open(settings.journal_url) as journal:
        async with alerts.sending(journal, settings):
            while (number := len(journal.audit('halt'))) < 60:
                journal.halt('anna', f'news {number}')
                await asyncio.sleep(.005)
asyncio.run(main())
"""


def test_whoever_is_killed_while_sending_loses_no_alert_and_breaks_no_link(tmp_path, monkeypatch):
    import random
    import subprocess
    import sys
    with served() as server:
        settings = set_up(monkeypatch, tmp_path, channels='ops', per_minute=10_000)
        monkeypatch.setenv('TRADING_ALERT_OPS', f'json://{server.address}')
        dice, kills = random.Random(5), 0
        while True:
            with subprocess.Popen([sys.executable, '-c', BUSY, str(tmp_path)], cwd=ROOT) as process:
                began, heard = time.monotonic(), len(server.heard)
                while len(server.heard) == heard and process.poll() is None and time.monotonic() < began + 30: time.sleep(.005)
                try:
                    assert process.wait(dice.uniform(0, .15) if kills < 2 else 30) == 0
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    kills += 1
        told = re.findall(r'#(\d+)', ' '.join(json.loads(body)['message'] for _, _, body in server.heard))
    with Journal.reader(settings.journal_url) as journal:
        raised = journal.history()
        assert journal.verify_audit()['broken'] is None
    assert kills >= 2 and len(raised) == 60 and {a['state'] for a in raised} == {'sent'} and len({a['text'] for a in raised}) == 60
    assert set(map(int, told)) == {a['id'] for a in raised} and len(told) <= 60 + kills * 60
