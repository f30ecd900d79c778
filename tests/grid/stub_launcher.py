"""A launcher in a process of its own, with a stub in place of training.

  python stub_launcher.py LOG READY SECONDS HANG FLAGS...

It says in READY/<pid> that it is there and waits for READY/go. Each cell takes
SECONDS and is written to LOG; the one called HANG never ends.
"""

import os
import pathlib
import sys
import time
import types

import ealign
from ealign.cli import launch

log, ready = map(pathlib.Path, sys.argv[1:3])
seconds, hang = float(sys.argv[3]), sys.argv[4]


def run(config, folder, *, method, stop, name='', hosts=None, display=None):
  display.start()
  key = f'{name},seed={config.seed}'
  with log.open('a') as file:
    file.write(f'{os.getpid()} {key}\n')
  while key == hang:
    time.sleep(0.01)
  time.sleep(seconds)


stub = types.SimpleNamespace(run=run)
sys.modules['ealign.train'] = ealign.train = stub
launch.compile_cache = lambda: None
(ready / str(os.getpid())).write_text('')
while not (ready / 'go').exists():
  time.sleep(0.01)
sys.exit(launch.main(['launch', *sys.argv[5:]]))
