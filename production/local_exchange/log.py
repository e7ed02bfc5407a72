"""The commands a venue has accepted, one JSON line each, written down before they are answered."""
import errno
import fcntl
import json
import os
from pathlib import Path

from trading_lib.core.errors import BadInput, Damaged


class CommandLog:
    "Append-only; opening one that exists gives back its commands. The first line says what the commands were given to."

    def __init__(self, path: Path, header: dict):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self.path, 'ab+', buffering=0)
        try: fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError: raise BadInput(f'{self.path}: another local exchange is writing it; stop that one or choose another log') from None
        self.commands = self._read(header)

    def _read(self, header: dict) -> list[dict]:
        self.file.seek(0)
        *whole, torn = self.file.read().split(b'\n')
        if torn: self.file.truncate(sum(len(line) + 1 for line in whole))   # a power cut in mid-line: that command was never answered
        if not whole:
            self.append(header, durable=True)
            return []
        try: found, *commands = map(json.loads, whole)
        except ValueError: raise Damaged(f'{self.path}: a line in it is not JSON; move the file away to start afresh') from None
        if found != header:
            differs = ', '.join(key for key in header | found if found.get(key) != header.get(key))
            raise Damaged(f'{self.path}: was written under another market ({differs} differ); give it the same bars, or move it away')
        return commands

    def append(self, command: dict, durable: bool):
        "Write one command; on return it survives a kill, and where `durable` a power cut."
        line = json.dumps(command, separators=(',', ':')).encode() + b'\n'
        end = self.file.seek(0, os.SEEK_END)
        try:
            if self.file.write(line) < len(line): raise OSError(errno.ENOSPC, 'no space left on device')
            if durable: os.fsync(self.file.fileno())
        except OSError as error:
            self.file.truncate(end)   # half a line in the middle would spoil the whole log
            raise BadInput(f'{self.path}: cannot be written ({error.strerror}); make room and start again') from error

    def close(self):
        self.file.close()
