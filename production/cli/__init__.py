"""The `trading` command: arguments in, one answer out. What it does lives elsewhere; this package only asks.

Every command takes `--json` (one JSON object on stdout, everything else on stderr) and ends with 0 done, 1 the answer is no,
2 the input was bad, 3 something broke, 130 interrupted. Nothing heavy is imported before a command needs it.
"""
import errno
import json
import os
import sys
from contextlib import nullcontext, redirect_stdout

import typer

from production.cli import data, places, research, trading, watching
from production.cli.speaking import say, stdout
from trading_lib.core.errors import TradingError

app = typer.Typer(name='trading', rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True,
                  help='Research crypto strategies, and trade what you found. The number in the notebook is the number you get.')
for commands in (research, trading, watching, places): app.add_typer(commands.app)
app.add_typer(data.app, name='data')


def failure(error: BaseException) -> tuple[int, str]:
    "Exit code and the one line for whatever was raised."
    if isinstance(error, TradingError): return error.exit_code, str(error)
    if isinstance(error, typer.TyperException): return 2, 'name a command; they are listed by --help' if 'NoArgs' in type(error).__name__ else error.format_message()
    if isinstance(error, (KeyboardInterrupt, typer.Abort)): return 130, 'interrupted'
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT): return 2, f'the disk is full ({error.filename or "no file named"}); free some space and run it again'
    if isinstance(error, PermissionError): return 2, f'{error.filename} may not be written or read by this user; change its permissions or the paths in settings.ini'
    return 3, f'{type(error).__name__}: {error}; for the whole trace set TRADING_TRACE=1'


def main(argv: list[str] | None = None) -> int:
    "Run the command line; never prints a traceback unless TRADING_TRACE is set."
    argv = sys.argv[1:] if argv is None else argv
    stdout.set(sys.stdout)
    try:
        with nullcontext() if '--help' in argv else redirect_stdout(sys.stderr): code = app(argv, standalone_mode=False, prog_name='trading') or 0
        if code == 130: raise KeyboardInterrupt   # typer swallows it
    except BrokenPipeError: os._exit(0)   # the reader went away, as `| head` does
    except BaseException as error:  # the last place that can turn it into a sentence
        if isinstance(error, SystemExit): raise
        if os.environ.get('TRADING_TRACE'): raise
        code, text = failure(error)
        text = ' '.join(str(text).split())
        if '--json' in argv: print(json.dumps(dict(error=text, exit_code=code)))
        say(f'error: {text}')
    return int(code)
