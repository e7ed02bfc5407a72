"""Notebooks as jobs: checked parameters in, a folder with the executed notebook, a page and a record out."""
import ast
import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal

from trading_lib.core.errors import BadInput, Refused, TradingError, did_you_mean

HINTS = dict(str=str, int=int, float=float, bool=bool, dict=dict, list=list, Literal=Literal)   # what a parameters cell may say
QUIET = ['--log-level=50']   # a kernel talks of its sockets and its shutdown on our stderr; what a cell does wrong arrives as a message


@dataclass(frozen=True)
class Input:
    "One line of a notebook's parameters cell: `fee_bps: float = 10.   # basis points of notional`."
    name: str
    hint: Any
    default: Any

    def check(self, value: Any) -> Any:
        "The value in its own type; text is understood, because a command line has nothing else. Raises `BadInput`."
        from pydantic import ConfigDict, TypeAdapter, ValidationError
        if self.hint in (dict, list) and isinstance(value, str): value = self._json(value)
        try: return TypeAdapter(self.hint, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
        except ValidationError: raise BadInput(f'{self.name} was {value!r}; it must be {self._kind()}') from None

    def _json(self, text: str) -> Any:
        try: return json.loads(text)
        except ValueError: raise BadInput(f'{self.name} was {text!r}; it must be {self._kind()}') from None

    def _kind(self) -> str:
        if self.hint is dict: return 'a JSON object such as {"fast": 10}'
        if self.hint is list: return 'a JSON list such as [10, 20]'
        return {str: 'a text', int: 'an int', float: 'a finite number', bool: 'true or false'}.get(self.hint, str(self.hint))


@dataclass(frozen=True)
class RunRecord:
    "What happened, as record.json says it."
    notebook: str               # the executed notebook's file name, in `folder`
    source: str                 # the notebook that was run
    folder: Path
    parameters: dict            # every one, defaults included
    status: str                 # done, failed or interrupted
    started: str                # UTC
    finished: str
    duration_s: float
    revision: str | None        # of the code, in git
    data_fingerprint: str | None
    result: dict                # what the notebook's cell tagged `result` showed
    error: str | None = None

    @property
    def page(self) -> Path: return self.folder / 'report.html'

    @property
    def answer(self) -> str: return self.result.get('answer', f'{self.notebook}: {self.status}')

    def json(self) -> dict: return asdict(self) | dict(folder=str(self.folder))


def run_notebook(notebook: Path | str, params: dict, runs: Path | str, progress: bool | None = None) -> RunRecord:
    """Execute a notebook with parameters and keep everything under `runs`; raises what stopped it, after keeping that too.

    The folder appears whole, under its final name, or not at all. `progress`: cells on stderr; on a terminal if not given."""
    notebook, runs = Path(notebook), Path(runs)
    chosen = checked(inputs_of(notebook), params, notebook.name)
    started = datetime.now(UTC)
    name = f'{started:%Y%m%dT%H%M%SZ}-{notebook.stem}-{token_hex(3)}'
    with _workshop(runs) as work:
        error = _execute(notebook, work / notebook.name, chosen, _watcher(notebook, progress))
        record = _record(notebook, work, runs / name, chosen, started, error)
        from trading_lib.reporting.page import to_html
        if (work / notebook.name).is_file(): (work / 'report.html').write_text(to_html(work / notebook.name), encoding='utf-8')
        (work / 'record.json').write_text(json.dumps(record.json(), indent=1), encoding='utf-8')
        work.rename(runs / name)
    if isinstance(error, TradingError): raise type(error)(f'{error}; kept in {runs / name}')
    if error: raise error
    return record


# ── what a notebook takes ──

def inputs_of(notebook: Path) -> dict[str, Input]:
    "The parameters of a notebook, from its cell tagged `parameters`; raises `BadInput` where that cannot be read."
    try:
        cells = json.loads(notebook.read_text(encoding='utf-8'))['cells']
        tagged = [''.join(c['source']) for c in cells if 'parameters' in c['metadata'].get('tags', [])]
    except FileNotFoundError: raise BadInput(f'there is no notebook {notebook}') from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(f'{notebook} is no notebook; it must be an .ipynb file') from None
    try: return {i.name: i for source in tagged[:1] for i in map(_input, ast.parse(source).body) if i}
    except (SyntaxError, ValueError, NameError, TypeError):
        raise BadInput(f'{notebook.name}: its parameters cell must hold lines such as `fee_bps: float = 10.` and nothing else') from None


def _input(line: ast.stmt) -> Input | None:
    "One assignment of the parameters cell, annotated or not."
    target = line.target if isinstance(line, ast.AnnAssign) else line.targets[0] if isinstance(line, ast.Assign) else None
    if not isinstance(target, ast.Name): return None
    default = ast.literal_eval(line.value)
    hint = eval(ast.unparse(line.annotation), {'__builtins__': HINTS}) if isinstance(line, ast.AnnAssign) else type(default)
    return Input(target.id, hint, default)


def checked(inputs: dict[str, Input], given: dict, where: str) -> dict:
    "Every parameter with its value; raises `BadInput` for a name the notebook does not have (papermill would ignore it)."
    for name in given:
        if name not in inputs: raise BadInput(f'{where} has no parameter {name}{did_you_mean(name, inputs)}')
    return {i.name: i.check(given[i.name]) if i.name in given else i.default for i in inputs.values()}


# ── running it ──

def _execute(notebook: Path, out: Path, params: dict, watch: Callable) -> TradingError | KeyboardInterrupt | None:
    "Run it through papermill, keeping what was executed; what went wrong comes back as one error."
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill import execute_notebook
    from papermill.exceptions import PapermillExecutionError
    try:
        with tempfile.TemporaryDirectory() as private:
            execute_notebook(str(notebook), str(out), parameters=params, progress_bar=False, kernel_name='python3', language='python',
                             kernel_manager_class=_kernels(private), on_cell_start=watch)
    except PapermillExecutionError as error: return _as_ours(error, notebook)
    except (DeadKernelError, CellTimeoutError, RuntimeError) as error:
        return TradingError(f'{notebook.name}: the kernel died ({error}); is there memory left?')
    except KeyboardInterrupt as error: return error
    finally: watch(None, None)
    return None


def _kernels(private: str) -> type:
    "A kernel manager that starts this very interpreter, whatever kernels and start-up files somebody has at home."
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class OwnKernel(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(**get_kernel_dict(QUIET), env=dict(PLOTLY_RENDERER='plotly_mimetype', IPYTHONDIR=private))

        @default('connection_file')
        def _own_connection_file(self) -> str: return os.path.join(private, 'kernel.json')

        async def shutdown_kernel(self, now: bool = False, restart: bool = False):
            "After a Ctrl-C the cell is still waited for, and that wait would end in a traceback when it finds the kernel gone: it ends first."
            waits = asyncio.all_tasks() - {asyncio.current_task()}
            for wait in waits: wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            await super().shutdown_kernel(now, restart)
    return OwnKernel


def _as_ours(error: Any, notebook: Path) -> TradingError:
    "A failed cell as one line: what the cell raised, if it was ours, keeps its meaning and exit code."
    ours = dict(BadInput=BadInput, Damaged=BadInput, Refused=Refused).get(error.ename, TradingError)
    said = error.evalue if ours is not TradingError else f'{error.ename}: {error.evalue}'
    return ours(f'{" ".join(str(said).split())} (cell {error.cell_index + 1} of {notebook.name})')


def _watcher(notebook: Path, progress: bool | None) -> Callable:
    "Called before each cell: one line on the terminal, redrawn, with the section that is being worked on."
    if not (sys.stderr.isatty() if progress is None else progress): return lambda cell, cell_index: None
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    titles = _sections(notebook)
    columns = TextColumn('{task.description}'), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(notebook.stem, total=len(titles))
    bar.start()

    def watch(cell, cell_index):
        if cell is None: bar.stop()
        else: bar.update(task, completed=cell_index, description=titles[min(cell_index, len(titles) - 1)])
    return watch


def _sections(notebook: Path) -> list[str]:
    "For each cell the heading above it."
    titles, now = [], notebook.stem
    for cell in json.loads(notebook.read_text(encoding='utf-8'))['cells']:
        found = re.search(r'^#+ (.+)$', ''.join(cell['source']), re.M) if cell['cell_type'] == 'markdown' else None
        now = found[1] if found else now
        titles.append(now[:40])
    return titles


# ── writing it down ──

@contextmanager
def _workshop(runs: Path):
    "A hidden folder beside the others, gone unless it was renamed."
    try:
        runs.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=runs, prefix='.unfinished-'))
    except OSError as error: raise BadInput(f'{runs} cannot be written: {error.strerror}; make room or set paths.runs') from None
    try: yield work
    except OSError as error: raise BadInput(f'{runs}: the run could not be kept: {error.strerror}; make room or set paths.runs') from None
    finally: shutil.rmtree(work, ignore_errors=True)


def _record(notebook: Path, work: Path, folder: Path, params: dict, started: datetime, error: BaseException | None) -> RunRecord:
    finished, result = datetime.now(UTC), _result(work / notebook.name)
    return RunRecord(
        notebook=notebook.name, source=str(notebook), folder=folder, parameters=params,
        status='done' if error is None else 'interrupted' if isinstance(error, KeyboardInterrupt) else 'failed',
        started=started.isoformat(timespec='seconds'), finished=finished.isoformat(timespec='seconds'),
        duration_s=round((finished - started).total_seconds(), 1), revision=revision(notebook.resolve().parent),
        data_fingerprint=result.get('summary', {}).get('data_fingerprint'), result=result, error=str(error) if error else None)


def _result(executed: Path) -> dict:
    "What the cell tagged `result` showed for machines; nothing if it was not reached."
    cells = json.loads(executed.read_text(encoding='utf-8'))['cells'] if executed.is_file() else []
    for cell in cells:
        if 'result' in cell['metadata'].get('tags', []):
            for output in cell['outputs']:
                if found := output.get('data', {}).get('application/json'): return found
    return {}


def revision(folder: Path) -> str | None:
    "The git revision of a folder, with a mark if tracked files were changed; None outside a checkout."
    import subprocess
    def git(*words): return subprocess.run(['git', '-C', str(folder), *words], capture_output=True, text=True)
    try: head = git('rev-parse', 'HEAD')
    except FileNotFoundError: return None
    return head.stdout.strip() + ('+changed' if git('status', '--porcelain', '-uno').stdout else '') if head.returncode == 0 else None
