"""The places people work in: JupyterLab and the Voila dashboards, started with the right folder and a clear word when a port is taken."""
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from trading_lib.core.errors import BadInput

PROJECT = Path(__file__).resolve().parents[1]


def free_port(host: str, port: int):
    "Nothing if the port can be listened on; raises `BadInput` with the next free one."
    try: _listen(host, port)
    except OSError as error:
        if error.errno not in (98, 48): raise BadInput(f'{host}:{port} cannot be listened on: {error.strerror}; name another --host or --port') from None
        raise BadInput(f'port {port} is in use; choose another with --port {_listen(host, 0)}') from None


def _listen(host: str, port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return probe.getsockname()[1]


def loopback(host: str, expose: bool = False):
    "Nothing for this machine's own addresses; raises `BadInput` for others unless that is wanted."
    if not expose and host not in ('127.0.0.1', 'localhost', '::1'):
        raise BadInput(f'host was {host}, which other machines reach, and there is no password; say --expose if that is wanted, behind a proxy with a login')


def open_lab(root: Path, host: str, port: int, ready: Callable[[str], None]) -> int:
    "JupyterLab on the project's folder, until it is stopped. It has a token of its own."
    free_port(host, port)
    ready(f'http://{host}:{port}/lab')
    root_user = ['--allow-root'] if hasattr(os, 'geteuid') and os.geteuid() == 0 else []   # as in a container; Jupyter would refuse
    return _run([sys.executable, '-m', 'jupyterlab', f'--ServerApp.root_dir={root}', f'--ip={host}', f'--port={port}', *root_user], root)


def open_dashboards(root: Path, host: str, port: int, expose: bool, ready: Callable[[dict[str, str]], None]) -> int:
    "Voila on research/dashboards, until it is stopped. Who reaches it from elsewhere may not name files of this machine."
    loopback(host, expose)
    free_port(host, port)
    folder = PROJECT / 'research' / 'dashboards'
    ready({page.stem: f'http://{host}:{port}/voila/render/{page.name}' for page in sorted(folder.glob('*.ipynb'))})
    return _run([sys.executable, '-m', 'voila', str(folder), '--no-browser', f'--Voila.ip={host}', f'--port={port}',
                 '--VoilaConfiguration.show_tracebacks=False', '--VoilaConfiguration.preheat_kernel=True', '--KernelManager.transport_encryption=auto',
                 '--Voila.log_level=ERROR'], root, TRADING_DASHBOARD_OWN_FILES='0' if expose else '1')


def _run(command: list[str], root: Path, **more: str) -> int:
    "A long-running child, in the project's folder, with its packages importable from any notebook."
    path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get('PYTHONPATH')]))
    with subprocess.Popen(command, cwd=root, env=dict(os.environ, PYTHONPATH=path, **more)) as child:
        try: return child.wait()
        except KeyboardInterrupt:
            child.wait()   # it got the same Ctrl-C, and puts its things away
            return 0
