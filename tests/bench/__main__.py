"""Side by side with the peers: `python tests/bench` measures everything and writes docs/benchmarks.md, in about a quarter of an hour on two quiet cores.

Every piece of work runs in a fresh process, the candidates take turns, and what they found is compared before any time is told."""
import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import page
import sections
from lab import Lab

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Size:
    "How much work: bars, and how many values each parameter takes."
    rounds: int
    bars: int
    axes: tuple          # of the sweep
    stops: tuple         # of the sweep with stops
    probe: tuple         # of the search for the best chunk
    chunks: tuple
    single: int          # bars of a single run
    growth: tuple        # bars, each ten times the one before; the last of `steps` is at the middle of them
    steps: tuple         # sets, likewise
    many: tuple          # axes of many sets
    many_bars: int
    venue: int           # bars of the replay in Decimal
    decisions: int


SIZES = dict(
    full=Size(3, 100_000, (20, 50), (10, 10, 10), (10, 10), (10, 25, 50, 100), 500_000, (10_000, 100_000, 1_000_000), ((2, 5), (10, 10), (20, 50)),
              (20, 50, 20), 30_000, 5_000, 5_000),
    quick=Size(2, 20_000, (10, 20), (5, 10, 4), (10, 10), (10, 100), 200_000, (2_000, 20_000), ((2, 5), (10, 10)), (10, 20, 10), 30_000, 1_000, 1_000),
    toy=Size(1, 1_500, (2, 2), (2, 1, 2), (2, 2), (2,), 1_500, (500, 1_500), ((1, 2), (2, 2)), (2, 5, 2), 1_000, 200, 50))


def main() -> int:
    ask = argparse.ArgumentParser(prog='python tests/bench', description=__doc__.split('\n')[0])
    ask.add_argument('--quick', action='store_const', dest='size', const='quick', default='full', help='a smaller page in two minutes')
    ask.add_argument('--size', choices=list(SIZES))
    ask.add_argument('--only', default=','.join(sections.USUAL), help=f'sections, of {", ".join(sections.ALL)}; the others of the page stay')
    ask.add_argument('--out', type=Path, default=None, help='the page; docs/benchmarks.md for the full size, else none')
    ask.add_argument('--no-peers', action='store_true', help='install nothing; peers that are not there say so')
    told = ask.parse_args()
    if unknown := set(told.only.split(',')) - set(sections.ALL): ask.error(f'there is no section {unknown.pop()}; there are {", ".join(sections.ALL)}')
    out = told.out or (ROOT / 'docs' / 'benchmarks.md' if told.size == 'full' else None)
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), ROOT, install=not told.no_peers)
        written = {name: sections.ALL[name](lab, SIZES[told.size]) for name in sections.ALL if name in told.only.split(',')}
        text = page.page(written, lab, out.read_text(encoding='utf-8') if out and out.exists() else '')
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding='utf-8')
    sys.stdout.write(text)
    return 0


if __name__ == '__main__': sys.exit(main())
