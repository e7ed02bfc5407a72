"""The places people work in: JupyterLab and the Voila dashboards, started with the right folder and a clear word when a port is taken."""
import os
import socket
import subprocess
import sys
from pathlib import Path

from trading_lib.core.errors import BadInput


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


def open_lab(root: Path, host: str, port: int) -> int:
    "JupyterLab on the project's folder, until it is stopped."
    free_port(host, port)
    root_user = ['--allow-root'] if hasattr(os, 'geteuid') and os.geteuid() == 0 else []   # as in a container; Jupyter would refuse
    return _run([sys.executable, '-m', 'jupyterlab', f'--ServerApp.root_dir={root}', f'--ip={host}', f'--port={port}', *root_user], root)


def open_dashboards(root: Path, host: str, port: int) -> int:
    "Voila on research/dashboards, until it is stopped."
    free_port(host, port)
    folder = root / 'research' / 'dashboards'
    if not folder.is_dir(): raise BadInput(f'there is no {folder}; run this inside the project')
    print(f'dashboards: http://{host}:{port}', file=sys.stderr, flush=True)
    return _run([sys.executable, '-m', 'voila', str(folder), '--no-browser', f'--Voila.ip={host}', f'--port={port}',
                 '--VoilaConfiguration.show_tracebacks=False'], root)


def _run(command: list[str], root: Path) -> int:
    "A long-running child, in the project's folder, with its packages importable from any notebook."
    path = os.pathsep.join(filter(None, [str(root), os.environ.get('PYTHONPATH')]))
    return subprocess.run(command, cwd=root, env=dict(os.environ, PYTHONPATH=path, PLOTLY_RENDERER='plotly_mimetype+notebook')).returncode
