"""The commands that look: alerts, audit, positions, backup and restore, as their users meet them."""
import asyncio
import json
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import text
from test_audit import busy, populated, raw

from production import control
from production.cli import main
from production.journal import Journal
from trading_lib.core.settings import Settings


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    "An empty project folder."
    (tmp_path / 'settings.ini').write_text('')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def trading(capsys):
    "Run a command; gives exit code, its JSON, and stderr."
    def run(*argv):
        code = main([*map(str, argv), '--json'])
        done = capsys.readouterr()
        return code, json.loads(done.out), done.err
    return run


@pytest.fixture
def busy_place(place):
    with Journal.open(Settings.load(place).journal_url) as journal: busy(journal)
    return place


def test_before_anything_has_happened_there_is_nothing_to_show(place, trading):
    assert trading('alerts')[:2] == (0, dict(alerts=[]))
    assert trading('audit')[:2] == (0, dict(audit=[]))
    assert trading('positions')[:2] == (0, dict(positions=[]))
    assert trading('alerts', 'send')[:2] == (0, dict(left=0))
    for words in (['alerts', 'ack', 1], ['alerts', 'replay'], ['audit', 'verify'], ['backup'], ['migrate'], ['restore', 'none.db']):
        code, said, err = trading(*words)
        assert code == 2 and err.count('\n') == 1 and 'error' in said, words
    assert not (place / 'var' / 'journal.db').exists()


def test_an_alert_is_listed_acknowledged_and_in_the_audit(busy_place, trading):
    rows = trading('alerts')[1]['alerts']
    assert [row['rule'] for row in rows] == ['halt'] + ['fill'] * 5 and rows[0]['severity'] == 'critical' and 'news' in rows[0]['text']
    assert [len(trading('alerts', '--limit', 2)[1]['alerts']), len(trading('alerts', '--state', 'sent')[1]['alerts'])] == [2, 0]
    assert trading('alerts', 'ack', rows[0]['id'], '--who', 'bert')[1]['acknowledged_by'] == 'bert'
    assert trading('alerts')[1]['alerts'][0]['state'] == 'acknowledged'
    assert trading('audit', '--event', 'acknowledge')[1]['audit'][0]['actor'] == 'bert'
    assert trading('alerts', 'ack', 99)[0] == 2 and trading('alerts', '--state', 'snet')[1]['error'].endswith('did you mean sent?')


def test_what_waits_is_sent_without_a_bot_and_a_test_says_what_each_channel_answered(busy_place, trading, monkeypatch):
    assert trading('alerts', 'test')[0] == 1   # nobody would be told
    from test_alerts import served
    with served() as server:
        monkeypatch.setenv('TRADING__ALERTS__CHANNELS', 'ops')
        assert 'TRADING_ALERT_OPS' in trading('alerts', 'test')[1]['error']
        monkeypatch.setenv('TRADING_ALERT_OPS', f'json://{server.address}')
        assert trading('alerts', 'test')[:2] == (0, dict(channels=dict(ops=dict(taken=True, said=''))))
        assert trading('alerts', 'send')[:2] == (0, dict(left=0))
        assert len(server.heard) == 3   # the test, the halt, five fills together
    assert {row['state'] for row in trading('alerts')[1]['alerts']} == {'sent'}
    assert trading('alerts', 'replay')[1]['replayed'] == 0


async def test_a_living_runner_writes_what_a_command_asks(busy_place):
    settings = Settings.load(busy_place)
    with Journal.open(settings.journal_url) as journal:
        async def no(*_): pytest.fail('nobody asked for that')
        async with control.listening(journal, no, no):
            said = await asyncio.to_thread(control.acknowledge, settings, 1, 'bert')
            assert (said['by'], said['acknowledged_by']) == ('the runner', 'bert')
            assert (await asyncio.to_thread(control.replay, settings, 'bert'))['replayed'] == 0
        assert journal.history()[-1]['state'] == 'acknowledged'


def test_the_audit_is_verified_and_the_first_broken_row_ends_with_1(busy_place, trading):
    code, found, _ = trading('audit', 'verify')
    assert code == 0 and found['broken'] is None and found['rows'] == 17
    assert trading('audit', 'verify', '--end', f'{found["last"]}:{found["digest"]}')[0] == 0
    assert trading('audit', 'verify', '--end', f'{found["last"]}:{"0" * 64}')[:1] == (1,)
    assert trading('audit', 'verify', '--end', 'x')[0] == 2
    engine = raw(busy_place / 'var' / 'journal.db')
    with engine.begin() as c:
        c.execute(text('drop trigger audit_no_update'))
        c.execute(text("update audit set detail = '{}' where id = 7"))
    engine.dispose()
    code, found, _ = trading('audit', 'verify')
    assert (code, found['broken']) == (1, 7) and 'edited' in found['why']


def test_a_backup_comes_back_and_is_part_of_the_audit_that_went_on(busy_place, trading):
    code, made, _ = trading('backup')
    assert code == 0 and Path(made['file']).parent == busy_place / 'var' / 'backups' and made['tables']['fill']['rows'] == 5
    trading('resume')
    assert trading('audit', 'verify', '--backup', made['file'])[0] == 0
    assert trading('restore', made['file'])[0] == 1   # the place is taken
    code, back, _ = trading('restore', made['file'], '--into', busy_place / 'there.db')
    assert code == 0 and back['tables'] == made['tables']


def test_positions_say_what_was_paid_and_earned(busy_place, trading):
    [held] = trading('positions')[1]['positions']
    paid = 5 * Decimal('0.01') * Decimal('42000.5')
    assert Decimal(held['average_cost']) == round(paid / Decimal('0.04995'), 18) and Decimal(held['realised']) == 0
    assert Decimal(held['realised']) + Decimal(held['unrealised']) == Decimal(held['equity']) - 10_000
    assert held['fees'] == dict(BTC='0.00005') and held['strategy'] == 'sma_cross'


def test_an_older_journal_is_named_with_its_remedy_and_brought_along(place, trading):
    (place / 'var').mkdir()
    populated(place / 'var' / 'journal.db')
    code, said, _ = trading('status')
    assert code == 1 and 'trading migrate' in said['error']
    assert trading('migrate')[0] == 0 and trading('status')[0] == 0 and trading('audit', 'verify')[0] == 0


@pytest.mark.parametrize('words', [['alerts'], ['audit'], ['audit', 'verify'], ['positions'], ['backup'], ['alerts', 'test']])
def test_people_get_text(busy_place, capsys, words):
    main(words)
    said = capsys.readouterr()
    assert said.out.strip() and '{' not in said.out and 'None' not in said.out
