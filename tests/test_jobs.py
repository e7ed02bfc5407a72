"""A notebook as a job: what goes in is checked, what comes out is kept, and what goes wrong is one line."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from production.jobs import checked, inputs_of, run_notebook
from trading_lib.core.errors import BadInput, Refused, TradingError
from trading_lib.market.store import write_file
from trading_lib.market.synthetic import synthetic_market

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / 'research' / '01_strategy_report.ipynb'
PARAMETERS = "n: int = 2   # how many\nrate: float = .5\nname: str = 'a'\ndeep: bool = False\nmore: dict = {}"


def written(folder: Path, *code: str) -> Path:
    cells = [new_markdown_cell('# Does it run?'), new_code_cell(PARAMETERS, metadata=dict(tags=['parameters'])), *map(new_code_cell, code)]
    path = folder / 'question.ipynb'
    kernel = dict(name='python3', display_name='python3', language='python')
    nbformat.write(new_notebook(cells=cells, metadata=dict(kernelspec=kernel)), path)
    return path


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    "A project of its own, so that trials and runs stay out of the real one."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    return tmp_path


def test_text_from_a_command_line_becomes_the_type_of_the_parameter(tmp_path):
    given = dict(n='3', rate='1e-3', name='5', deep='true', more='{"fast": 10}')
    assert checked(inputs_of(written(tmp_path)), given, 'question') == dict(n=3, rate=.001, name='5', deep=True, more=dict(fast=10))


@pytest.mark.parametrize('given, said', [
    (dict(rtae=1), 'has no parameter rtae; did you mean rate?'),
    (dict(n='many'), "n was 'many'; it must be an int"),
    (dict(n=2.5), 'n was 2.5'),
    (dict(rate='nan'), 'it must be a finite number'),
    (dict(deep='perhaps'), 'it must be true or false'),
    (dict(more='fast=10'), 'it must be a JSON object such as {"fast": 10}'),
    (dict(more=[1]), 'it must be a JSON object'),
])
def test_an_unknown_or_ill_typed_parameter_is_refused_before_anything_is_written(tmp_path, given, said):
    with pytest.raises(BadInput) as refused: run_notebook(written(tmp_path), given, tmp_path / 'runs')
    assert said in str(refused.value)
    assert not (tmp_path / 'runs').exists()


@pytest.mark.parametrize('content', [None, 'not json', '[]', '{"cells": 3}'])
def test_what_is_no_notebook_is_one_line(tmp_path, content):
    path = tmp_path / 'x.ipynb'
    if content is not None: path.write_text(content)
    with pytest.raises(BadInput, match='notebook'): run_notebook(path, {}, tmp_path / 'runs')


def test_a_parameters_cell_that_computes_is_refused(tmp_path):
    path = written(tmp_path)
    path.write_text(path.read_text().replace('n: int = 2', 'n: int = len(name)'))
    with pytest.raises(BadInput, match='its parameters cell must hold lines such as'): inputs_of(path)


def test_a_run_is_kept_with_its_notebook_page_and_record(home):
    facts = "from IPython.display import JSON\nJSON(dict(answer=f'{n * rate}', summary=dict(data_fingerprint='f00')))"
    path = written(home, 'import sys\nsys.executable', facts)
    notebook = nbformat.read(path, 4)
    notebook.cells[-1].metadata['tags'] = ['result']
    nbformat.write(notebook, path)
    run = run_notebook(path, dict(n='4'), home / 'runs')
    record = json.loads((run.folder / 'record.json').read_text())
    assert (record['status'], record['parameters']['n'], record['parameters']['rate'], record['data_fingerprint']) == ('done', 4, .5, 'f00')
    assert run.answer == '2.0'
    assert sorted(p.name for p in run.folder.iterdir()) == ['question.ipynb', 'record.json', 'report.html']
    executed = nbformat.read(run.folder / 'question.ipynb', 4)
    shown = [o.data['text/plain'] for c in executed.cells if c.cell_type == 'code' for o in c.outputs if 'text/plain' in o.get('data', {})]
    assert repr(sys.executable) in shown, 'the kernel must be this interpreter'
    assert [p.name for p in (home / 'runs').iterdir()] == [run.folder.name]


@pytest.mark.parametrize('code, error, said', [
    ("1 / 0", TradingError, 'ZeroDivisionError: division by zero (cell'),
    ("from trading_lib.core.errors import BadInput\nraise BadInput('fast was 9; make it less')", BadInput, 'fast was 9; make it less (cell'),
    ("from trading_lib.core.errors import Refused\nraise Refused('the gate is closed')", Refused, 'the gate is closed'),
    ("import os\nos._exit(9)", TradingError, 'the kernel died'),
])
def test_a_failing_notebook_is_recorded_and_its_error_keeps_its_meaning(home, code, error, said):
    path = written(home, "'before'", code, "'after'")
    with pytest.raises(TradingError) as failed: run_notebook(path, {}, home / 'runs')
    assert type(failed.value) is error
    assert said in str(failed.value) and '\n' not in str(failed.value)
    (folder,) = (home / 'runs').iterdir()
    record = json.loads((folder / 'record.json').read_text())
    assert record['status'] == 'failed' and said in record['error']
    assert "'before'" in (folder / 'question.ipynb').read_text()


WAITS = """import os, time
from pathlib import Path
Path('busy').write_text(str(os.getpid()))
while True: time.sleep(.05)"""
SEEN_LATE = """import atexit, os, signal, subprocess
project = os.getppid()
inherited, held = os.pipe()   # closes with the kernel
subprocess.Popen(['sh', '-c', f'cat; sleep 1.5; kill -CONT {project}'], stdin=inherited, stdout=subprocess.DEVNULL, start_new_session=True)
atexit.register(os.kill, project, signal.SIGSTOP)"""


@pytest.mark.parametrize('before', ["'before'", SEEN_LATE], ids=['at once', 'kernel found dead late'])
def test_ctrl_c_in_a_cell_is_one_line_and_keeps_what_was_executed(home, before):
    assert interrupted(home, before, times=1) == (130, '', 'error: interrupted\n')
    (folder,) = (home / 'runs').iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ['question.ipynb', 'record.json', 'report.html']
    assert json.loads((folder / 'record.json').read_text())['status'] == 'interrupted'
    assert before.splitlines()[0] in (folder / 'question.ipynb').read_text()


def test_a_second_ctrl_c_is_one_line_too(home):
    assert interrupted(home, "'before'", times=2) == (130, '', 'error: interrupted\n')
    assert not [p for p in (home / 'runs').iterdir() if p.name.startswith('.')]


def interrupted(home: Path, before: str, times: int) -> tuple[int, str, str]:
    "Exit code, stdout and stderr of `trading run` after a Ctrl-C in a cell, as a terminal sends it; the kernel must be gone then."
    command = [sys.executable, '-m', 'production.cli', 'run', str(written(home, before, WAITS))]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        kernel = int(appears(home / 'busy'))
        for again in range(times):
            time.sleep(.3 * again)
            os.killpg(run.pid, signal.SIGINT)
        out, err = run.communicate(timeout=60)
    finally:
        run.kill()
        run.wait()
    assert gone(kernel)
    return run.returncode, out, err


def appears(path: Path) -> str:
    "What a file holds, as soon as it holds something."
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if path.exists() and (said := path.read_text()): return said
        time.sleep(.05)
    raise AssertionError(f'{path} did not appear')


def gone(process: int) -> bool:
    until = time.monotonic() + 10
    while Path(f'/proc/{process}').exists() and time.monotonic() < until: time.sleep(.05)
    return not Path(f'/proc/{process}').exists()


def test_an_unwritable_folder_is_one_line(home):
    (home / 'runs').write_text('a file is in the way')
    with pytest.raises(BadInput, match='cannot be written'): run_notebook(written(home), {}, home / 'runs')


def test_nothing_is_said_where_there_is_no_terminal(home, capfd):
    run_notebook(written(home), {}, home / 'runs')
    assert capfd.readouterr() == ('', '')


def test_a_terminal_sees_which_section_is_worked_on(home, capfd, monkeypatch):
    monkeypatch.setenv('FORCE_COLOR', '1')
    run_notebook(written(home), {}, home / 'runs', progress=True)
    out, err = capfd.readouterr()
    assert out == '' and 'Does it run?' in err


def test_the_strategy_report_runs_on_a_file_and_answers_its_question(home):
    write_file(synthetic_market(seed=3, bars=1500).samples['BTC/USDT'], home / 'coin.parquet')
    run = run_notebook(REPORT, dict(data=str(home / 'coin.parquet'), params='{"fast": 8}', fee_bps='7.5'), home / 'runs')
    found = run.result
    assert found['summary']['params'] == dict(fast=8, slow=50) and found['fee_bps'] == 7.5 and found['summary']['bars'] == 1500
    assert found['verdict']['verdict'] == 'pass' and found['answer'].split(':')[0] in ('Yes', 'No', 'Not proven')
    assert found['summary']['trials'] > 20, 'the sets nearby and the other costs count as trials'
    assert run.data_fingerprint == found['summary']['data_fingerprint']
    page = run.page.read_text()
    assert page.count('class="plotly-graph-div"') == 8 and found['answer'] in page
    assert 'src="http' not in page and page.count('plotly.js v') == 1


def test_the_strategy_report_refuses_a_parameter_set_in_one_line(home):
    with pytest.raises(BadInput, match='fast was 90 and slow 50; fast must be the smaller'):
        run_notebook(REPORT, dict(params=dict(fast=90)), home / 'runs')
