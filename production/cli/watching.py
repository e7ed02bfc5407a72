"What happened, who was told, what is held, and a copy of it all."
import os
from pathlib import Path
from typing import Annotated

import typer

from production.cli.asking import Json, settings, words
from production.cli.speaking import answer, table

WIDTH = 90   # of what a row of the audit says, for people

app = typer.Typer()
alerts = typer.Typer(invoke_without_command=True)
audit = typer.Typer(invoke_without_command=True)
app.add_typer(alerts, name='alerts', help='What people were told, or should have been.')
app.add_typer(audit, name='audit', help='Who did what, and whether anybody touched the record.')

Who = Annotated[str, typer.Option(help='Who decides this, for the record.', callback=words)]
ME = os.environ.get('USER', 'operator')
Newest = Annotated[int, typer.Option('--limit', help='How many to show, the newest.', min=1, max=10**9)]


@alerts.callback()
def history(context: typer.Context, limit: Newest = 20,
            state: Annotated[str | None, typer.Option(help='Only those that are pending, sent, failed or acknowledged.')] = None, as_json: Json = False):
    "What people were told, or should have been, the newest first."
    if context.invoked_subcommand: return
    from production.watching import alert_report
    rows = alert_report(settings(), limit, state)
    answer(dict(alerts=rows), as_json, lambda: table([{k: v for k, v in row.items() if k not in ('text', 'channels')} for row in rows], 'no alerts yet'))


@alerts.command()
def ack(number: Annotated[int, typer.Argument(metavar='ID', help='The number of the alert.', min=1, max=2**62)], who: Who = ME, as_json: Json = False):
    "Say that you have seen an alert: it is escalated no further."
    from production.control import acknowledge
    answer(acknowledge(settings(), number, who), as_json)


@alerts.command()
def test(who: Who = ME, as_json: Json = False):
    "Send a test alert to every channel now. Ends with 1 if one does not take it, or if there is none."
    from production.alerts import tried
    said = tried(settings(), who)
    rows = [dict(channel=name, taken='yes' if told['taken'] else 'no', said=told['said']) for name, told in said.items()]
    answer(dict(channels=said), as_json, lambda: table(rows, 'no channels; name them in [alerts] of settings.ini'))
    return int(not said or not all(told['taken'] for told in said.values()))


@alerts.command()
def replay(who: Who = ME, as_json: Json = False):
    "Try the alerts again that were given up."
    from production.control import replay
    answer(replay(settings(), who), as_json)


@alerts.command()
def send(as_json: Json = False):
    "Send what is waiting, where no bot runs to do it. Ends with 1 if something is left."
    from production.watching import send_waiting
    found = send_waiting(settings())
    answer(found, as_json)
    return int(found['left'] > 0)


@audit.callback()
def trail(context: typer.Context, limit: Newest = 20, event: Annotated[str | None, typer.Option(help='Only this kind, such as halt or fence.')] = None, as_json: Json = False):
    "Who did what, the newest last."
    if context.invoked_subcommand: return
    from production.watching import audit_report
    rows = audit_report(settings(), event, limit)
    answer(dict(audit=rows), as_json, lambda: table([row | dict(detail=_short(row['detail']), digest=row['digest'][:12]) for row in rows], 'nothing was done yet'))


@audit.command()
def verify(end: Annotated[str | None, typer.Option(help='An end that was written down elsewhere, as ROW:DIGEST.')] = None,
           backup: Annotated[Path | None, typer.Option(help='A backup whose end must be part of the audit.')] = None, as_json: Json = False):
    "Check every link of the audit. Ends with 1 and the first broken row if one does not hold."
    from production.watching import verified
    found = verified(settings(), end, backup)
    whole = f'{found["rows"]} rows, all linked; the end, to be written down elsewhere: {found["last"]}:{found["digest"]}'
    answer(found, as_json, lambda: whole if found['broken'] is None else f'row {found["broken"]} is broken: {found["why"]}')
    return int(found['broken'] is not None)


@app.command()
def positions(as_json: Json = False):
    "What each bot holds, what that cost, and what it has earned at its last close."
    from production.watching import position_report
    rows = position_report(settings())
    answer(dict(positions=rows), as_json, lambda: table(rows, 'no bot has run yet; see: trading paper --help'))


@app.command()
def backup(to: Annotated[Path | None, typer.Argument(metavar='[DEST]', help='A folder, or a file that is not there yet; var/backups if not given.')] = None, as_json: Json = False):
    "Copy the journal, also while a bot writes it, and check the copy."
    from production.backup import backup
    made = backup(settings(), to)
    answer(made, as_json, lambda: f'{made["file"]}\n{_rows(made)}')


@app.command()
def restore(file: Annotated[Path, typer.Argument(help='A file that `trading backup` made.')],
            into: Annotated[str | None, typer.Option(metavar='URL', help='A path or a database that is empty; the journal of settings.ini if not given.')] = None,
            as_json: Json = False):
    "Bring a backup back into an empty place, and check what arrived."
    from production.backup import restore
    found = restore(file, into or settings().journal_url)
    answer(found, as_json, lambda: f'{found["into"]} holds the journal as of {found["made"]}\n{_rows(found)}')


@app.command()
def migrate(as_json: Json = False):
    "Bring the journal to the revision that this program needs."
    from production.watching import migrated
    answer(migrated(settings()), as_json)


def _rows(made: dict) -> str: return ', '.join(f'{count["rows"]} {name}' for name, count in made['tables'].items() if count['rows'] and name != 'audit_end')


def _short(detail: dict) -> str:
    "What fits in a line; all of it is in --json."
    text = ', '.join(f'{name}={len(value) if isinstance(value, list) else value}' for name, value in detail.items() if value not in (None, '', []))
    return text if len(text) <= WIDTH else text[:WIDTH - 1] + '…'
