"How the command speaks: the answer on stdout, everything else on stderr."
import json
import sys
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from trading_lib.core.errors import BadInput

stdout: ContextVar = ContextVar('stdout')   # for answers; what a strategy prints goes to stderr, or it would spoil them


def say(text: str):
    "Something a person may want to know; never part of the answer."
    print(text, file=sys.stderr, flush=True)


def answer(data: dict, as_json: bool, text: str | Callable[[], str] = ''):
    "The answer, on stdout: JSON for programs, text for people."
    print(json.dumps(data, default=str, allow_nan=False) if as_json else text() if callable(text) else text or _lines(data), file=stdout.get(sys.stdout), flush=True)


def _lines(data: dict) -> str:
    "A flat dictionary as aligned lines."
    width = max(map(len, data), default=0)
    return '\n'.join(f'{name:<{width}}  {plain(value)}' for name, value in data.items())


def plain(value: Any) -> str:
    "One value as people read it."
    if isinstance(value, float): return f'{value:,.4f}'
    if isinstance(value, dict): return ', '.join(f'{k}={v}' for k, v in value.items()) or '-'
    return '-' if value is None else str(value)


def table(rows: list[dict], empty: str = 'nothing yet') -> str:
    "Rows as an aligned table."
    if not rows: return empty
    cells = [list(rows[0]), *([plain(v) for v in row.values()] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)


def pairs(items: list[str] | None, what: str) -> dict[str, str]:
    "`name=value` items as a dictionary."
    found = {}
    for item in items or []:
        name, equals, value = item.partition('=')
        if not equals or not name: raise BadInput(f'{what} was {item!r}; write it as name=value')
        if name.strip() in found: raise BadInput(f'{what} was given twice for {name.strip()}: {found[name.strip()]} and {value.strip()}; give it once')
        found[name.strip()] = value.strip()
    return found


def moment(value: Any) -> Any:
    "Times as ISO text; what is not known is None."
    return None if value is None or value != value else value.isoformat(timespec='seconds') if hasattr(value, 'isoformat') else value


@contextmanager
def stages_of(what: str):
    "On a terminal a bar with rate and time left for each stage, as a function of its name, what is done and of how much; elsewhere silence."
    if not sys.stderr.isatty(): yield lambda stage, done, total: None; return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    parts = TextColumn('{task.description}'), BarColumn(40), MofNCompleteColumn(), TextColumn('{task.fields[rate]}'), TimeRemainingColumn()
    with Progress(*parts, console=Console(stderr=True), transient=True) as bar:
        tasks = {}
        def tell(stage, done, total):
            if stage not in tasks: tasks[stage] = bar.add_task(stage, total=total, rate='')
            speed = bar.tasks[list(tasks).index(stage)].speed
            bar.update(tasks[stage], completed=done, total=total, rate=f'{speed or 0:,.0f} {what}/s')
        yield tell


@contextmanager
def progress_of(what: str):
    "The same for a single stage: a function of what is done and of how much."
    with stages_of(what) as tell: yield lambda done, total: tell('', done, total)
