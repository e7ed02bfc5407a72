"The benchmarks in miniature: everyone finds the same. How long they took is nobody's business here."
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent / 'bench'
BARS, WAYS = 1_500, [pytest.param(False, id='its Portfolio'), pytest.param(True, id='its bare functions')]


@pytest.fixture(scope='module')
def bench():
    "The scripts, importable by their plain names while this module runs."
    sys.path.insert(0, str(BENCH))
    yield import_module
    sys.path.remove(str(BENCH))


@pytest.fixture(scope='module')
def lab(bench, tmp_path_factory): return bench('lab').Lab(tmp_path_factory.mktemp('bench'), BENCH.parents[1], install=False)


@pytest.fixture
def done(bench, lab):
    "What a piece of work finds, in this process."
    def run(does, **arguments):
        module, _, name = does.partition('.')
        return getattr(bench(module), name)(bench('child').Clock(), lab.market(BARS), **arguments)
    return run


def test_the_comparison_notices_what_differs(bench):
    differ = bench('work').differ
    assert differ(dict(a=[1., 2., float('nan')], b=1), dict(a=[1., 2.000000001, float('nan')], c=2), 1e-9, 'them') == pytest.approx(5e-10, rel=1e-6)
    for wrong in ([1., 2.1, float('nan')], [1., float('nan'), float('nan')], [1., float('inf'), float('nan')]):
        with pytest.raises(SystemExit, match=r'a \(.*1.*\) is .* by them and .*2.0.* by ours'): differ(dict(a=[1., 2., float('nan')]), dict(a=wrong), 1e-9, 'them')


@pytest.mark.parametrize('bare', WAYS)
@pytest.mark.parametrize('axes', [(2, 2), (2, 1, 2)], ids=['sweep', 'with trailing stops'])
def test_vectorbt_finds_every_metric_of_a_sweep(bench, done, axes, bare):
    ours, theirs = done('ours.swept', axes=axes), done('vbt.swept', axes=axes, engine='rust', chunk=3, bare=bare)
    assert set(ours) - set(theirs) == {'funding_paid'} and not set(theirs) - set(ours)
    assert bench('work').differ(ours, theirs, 1e-9, 'vectorbt') < 1e-9 and ours['trades'].min() > 2 and len(ours['sharpe']) == 4


@pytest.mark.parametrize('bare', WAYS)
def test_vectorbt_finds_the_same_in_a_single_run(bench, done, bare):
    for does in ('single', 'numbered', 'whole'):
        bench('work').differ(done(f'ours.{does}', repeats=1), done(f'vbt.{does}', repeats=1, engine='rust', bare=bare), 1e-9, 'vectorbt')


def test_replay_and_a_venue_find_what_the_kernel_does(bench, done):
    kernel = done('ours.kernel')
    assert bench('work').differ(kernel, done('ours.replayed'), 1e-9, 'replay') < 1e-12
    assert bench('work').differ(dict(equity=kernel['equity'][:300]), done('ours.at_a_venue', bars=300), 1e-6, 'a venue') < 1e-6
    assert bench('work').differ(kernel, done('vbt.crossed', engine='rust'), 1e-9, 'vectorbt') < 1e-12


@pytest.mark.parametrize('peer', ['backtesting', 'nautilus_trader', 'backtrader'])
def test_a_peer_finds_what_the_kernel_does_or_says_why_not(bench, lab, done, peer):
    work = bench('lab').Work(f'others.{peer}', dict(market=lab.market(BARS)), peer)
    try: found = lab.run(work).found
    except bench('lab').Absent as reason: assert str(reason).startswith(('not installed', 'does not'))
    else: assert bench('work').differ(done('ours.kernel'), found, 1e-6, peer) < 1e-6


def test_decisions_and_many_sets_say_what_the_page_tells(done):
    assert done('ours.decisions', repeats=5)['took'].shape == (2, 5)
    many = done('ours.many', axes=(2, 5, 4))
    assert many['rows'] == 40 and len(many['peaks']) > 0


def test_a_section_that_is_measured_again_takes_its_place_on_the_page(bench):
    write = bench('page').page
    first = write(dict(a='## Sweep: 4 sets\n\n**slow**\n\n|a|\n', b='## Other\n\n**calm**\n'), None)
    again = write(dict(a='## Sweep: 9 sets\n\n**fast**\n'), None, first)
    assert [line for line in again.splitlines() if line.startswith(('- ', '## '))] == ['- Sweep: 9 sets: fast', '- Other: calm', '## Sweep: 9 sets', '## Other']
    assert 'slow' not in again and 'calm' in again and write({}, None, again) == again


def test_the_command_writes_a_page(tmp_path):
    call = [sys.executable, BENCH, '--size', 'toy', '--only', 'decisions', '--no-peers', '--out', tmp_path / 'page.md']
    said = subprocess.run(call, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert '## A live decision' in said.stdout and (tmp_path / 'page.md').read_text() == said.stdout
    wrong = subprocess.run([*call[:4], '--only', 'everything'], capture_output=True, text=True)
    assert wrong.returncode == 2 and 'there is no section everything' in wrong.stderr
