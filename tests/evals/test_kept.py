"""Label probabilities that are kept, so that an audit goes on."""

import dataclasses
import json
import threading
import time

import numpy as np
import pytest

from ealign.alone import ALONE
from ealign.evals import kept
from ealign.runtime import display
from ealign.runtime.errors import UserError
from ealign.sampling.requests import OTHER, Labels

LABELS = (1, 0), (2, 0), (3, 0)


class Model:
  """Answers by the tokens of a prompt, and counts what it is asked."""

  def __init__(self, most=None):
    self.most, self.asked = most, []

  def __call__(self, request):
    if self.most is not None and len(self.asked) >= self.most:
      raise KeyboardInterrupt
    self.asked.append(request.prompts)
    rows = [[-x / sum(p) for x in (1, 2, 3)] for p in request.prompts]
    logps = np.array(rows, np.float32)
    for row, own in zip(logps, request.own or (), strict=bool(request.own)):
      row[[m for m in range(3) if m not in own]] = -np.inf
    return logps


def backend(path, model, said=None):
  made = dataclasses.replace(ALONE, label_logps=model)
  return kept.keeping(made, path, (said if said is not None else []).append)


def ask(prompts, weights=1.0, **more):
  own = {'config': 'model', 'weights': {'w': np.float32(weights)}}
  return Labels(**own, prompts=prompts, labels=LABELS, rows=2, **more)


PROMPTS = [[5] * n for n in (7, 1, 4, 2, 9)]


def test_what_was_asked_is_not_asked_again(tmp_path):
  path, model, said = tmp_path / 'asked.jsonl', Model(), []
  found = backend(path, model).label_logps(ask(PROMPTS))
  np.testing.assert_array_equal(found, Model()(ask(PROMPTS)))
  # In batches of like lengths.
  sizes = [[len(p) for p in part] for part in model.asked]
  assert sizes == [[1, 2], [4, 7], [9]]
  later = backend(path, Model(most=0), said).label_logps
  np.testing.assert_array_equal(later(ask(PROMPTS[::-1])), found[::-1])
  assert said == ['asked.jsonl: 5 results of before need no computing']


def test_an_audit_that_is_stopped_goes_on(tmp_path):
  path = tmp_path / 'asked.jsonl'
  with pytest.raises(KeyboardInterrupt):
    backend(path, Model(most=2)).label_logps(ask(PROMPTS))
  with path.open('a') as file:
    file.write('["cut o')  # as a process leaves it that was killed
  model = Model()
  found = backend(path, model).label_logps(ask(PROMPTS))
  assert [len(p) for part in model.asked for p in part] == [9]
  backend(path, Model(most=0)).label_logps(ask(PROMPTS))  # that one is kept
  np.testing.assert_array_equal(found, Model()(ask(PROMPTS)))


def test_only_the_same_weights_labels_and_model_are_the_same(tmp_path):
  path = tmp_path / 'asked.jsonl'
  backend(path, Model()).label_logps(ask(PROMPTS))
  for other in (
    ask(PROMPTS, weights=2.0),
    dataclasses.replace(ask(PROMPTS), labels=LABELS[:2]),
    dataclasses.replace(ask(PROMPTS), config='another'),
    ask(PROMPTS, groups=[0] * 5, own=[[0, 1]] * 5),
  ):
    with pytest.raises(KeyboardInterrupt):
      backend(path, Model(most=0)).label_logps(other)


def test_the_same_labels_are_the_same_in_any_company(tmp_path):
  path, own = tmp_path / 'asked.jsonl', {'groups': [0] * 5, 'own': [[1, 2]] * 5}
  first = backend(path, Model()).label_logps(ask(PROMPTS, **own))
  alone = dataclasses.replace(ask(PROMPTS), labels=LABELS[1:])
  found = backend(path, Model(most=0)).label_logps(alone)
  np.testing.assert_array_equal(found, first[:, 1:])


def test_groups_stay_whole_and_labels_that_nobody_wants_stay_unknown(tmp_path):
  groups, own = [0, 1, 2, 1, 0], [[0, 1], [2, 0], [1, 1], [0, 1], [2, 1]]
  path, model = tmp_path / 'asked.jsonl', Model()
  request = ask(PROMPTS, groups=groups, own=own)
  found = backend(path, model).label_logps(request)
  np.testing.assert_array_equal(found, Model()(request))
  assert np.isneginf(found[0, 2]) and np.isneginf(found[2, [0, 2]]).all()
  assert [sorted(map(len, part)) for part in model.asked] == [[1, 2, 4], [7, 9]]
  again = backend(path, Model(most=0)).label_logps(request)
  np.testing.assert_array_equal(again, found)


def test_the_rest_is_kept_and_is_of_all_labels(tmp_path):
  path = tmp_path / 'asked.jsonl'

  def model(request):
    rows = Model()(dataclasses.replace(request, own=None))
    rows = rows[:, : len(request.labels)]
    more = np.full((len(rows), request.columns - rows.shape[1]), -7.0)
    return np.concatenate([rows, more + len(request.labels)], axis=1)

  request = ask(PROMPTS, rest=True, own=[[1, 2]] * 5)
  found = backend(path, model).label_logps(request)
  assert found.shape == (5, 4) and np.all(found[:, 3] == -4.0)
  assert np.isneginf(found[:, 0]).all()
  none = Model(most=0)
  np.testing.assert_array_equal(backend(path, none).label_logps(request), found)
  few = dataclasses.replace(ask(PROMPTS, rest=True), labels=LABELS[1:])
  assert np.all(backend(path, model).label_logps(few)[:, 2] == -5.0)
  for other in (
    ask(PROMPTS, own=[[1, 2]] * 5),
    ask(PROMPTS, rest=True, top=3, own=[[1, 2]] * 5),
    dataclasses.replace(request, labels=(*LABELS, (4, OTHER))),
  ):
    with pytest.raises(KeyboardInterrupt):
      backend(path, none).label_logps(other)


def test_progress_is_told_where_it_takes_long(tmp_path, monkeypatch):
  monkeypatch.setattr(display, '_SELDOM', 0.0)
  said = []
  backend(tmp_path / 'a', Model(), said).label_logps(ask(PROMPTS))
  assert [text.split(',')[0] for text in said] == [
    '  2 of 5 questions',
    '  4 of 5 questions',
  ]


def test_progress_is_told_while_nothing_gets_done(tmp_path, monkeypatch):
  monkeypatch.setattr(display, '_STILL', 0.05)
  said, model, threads = [], Model(), threading.active_count()

  def slow(request):
    until = time.monotonic() + 30
    while not said and time.monotonic() < until:
      time.sleep(0.01)
    return model(request)

  backend(tmp_path / 'a', slow, said).label_logps(ask(PROMPTS))
  assert said[0].startswith('  0 of 5 questions, ')
  assert said[0].endswith('s so far')
  assert threading.active_count() == threads  # it ended with the request


def test_what_is_kept_is_noted_as_soon_as_it_is_in_the_file(tmp_path):
  path, noted = tmp_path / 'asked.jsonl', []

  def note(kept_, of, what):
    lines = path.read_text().split('\n') if path.exists() else []
    assert sum(map(bool, lines)) == kept_
    noted.append((kept_, of, what))

  made = dataclasses.replace(ALONE, label_logps=Model(most=2))
  again = dataclasses.replace(ALONE, label_logps=Model())
  with pytest.raises(KeyboardInterrupt):
    kept.keeping(made, path, print, note=note).label_logps(ask(PROMPTS))
  assert noted == [(n, 5, 'questions') for n in (0, 2, 4)]
  kept.keeping(again, path, print, note=note).label_logps(ask(PROMPTS))
  assert noted[3:] == [(n, 5, 'questions') for n in (4, 5)]


def test_lines_that_are_none_are_left_out(tmp_path):
  path, good = tmp_path / 'asked.jsonl', ['a', [-1.5, float('-inf')]]
  lines = [
    json.dumps(good),
    '3',
    '[' * 200_000,
    f'["d", [1{"0" * 400}]]',
    '{"a": 1}',
    '["b", 2]',
    '["c", [null]]',
    '\xff',
  ]
  path.write_bytes('\n'.join(lines).encode('latin-1'))
  known = kept._read(path)
  assert known['a'] == good[1] and '3' not in known
  for name, value in known.items():  # a result is one of its request's form
    request = ask([[5]], groups=[0], own=[[0, 1]])
    assert (kept._row(kept._LABELS, request, 0, value) is None) == (name != 'a')


def test_a_file_that_cannot_be_kept_is_told(tmp_path):
  with pytest.raises(UserError, match='cannot be used .*: Is a directory'):
    backend(tmp_path, Model())
  gone = backend(tmp_path / 'gone' / 'asked.jsonl', Model())
  with pytest.raises(UserError, match='cannot be used .*: No such file'):
    gone.label_logps(ask(PROMPTS))


def test_a_row_of_another_length_is_read_again(tmp_path):
  path = tmp_path / 'asked.jsonl'
  wanted = backend(path, Model()).label_logps(ask(PROMPTS))
  rows = [json.loads(x) for x in path.read_text().splitlines() if x]
  path.write_text(''.join(json.dumps([n, r[:2]]) + '\n' for n, r in rows))
  found = backend(path, Model()).label_logps(ask(PROMPTS))
  np.testing.assert_array_equal(found, wanted)
