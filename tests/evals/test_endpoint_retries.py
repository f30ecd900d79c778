"""When an endpoint is asked again, and when not."""

import email.utils
import json

import pytest
from replied import CHAT, at, body, chats, endless

from ealign.evals.judges.endpoint import replies, retries
from ealign.runtime.errors import UserError

# Retries.


def test_the_pauses_double_up_to_a_limit_and_honour_the_server():
  assert [retries.pause(i, None, 0.0) for i in range(4)] == [1, 2, 4, 8]
  assert retries.pause(20, None, 0.0) == retries.LONGEST_S
  assert retries.pause(2, None, 0.999) == pytest.approx(2.0, abs=0.01)
  assert 7.5 <= retries.pause(0, 7.0, 0.5) <= 8.0
  assert retries.pause(9, 7.0, 0.9) >= 7.0


def test_retry_after_is_a_number_or_a_date():
  now = 1_000_000.0
  date = email.utils.formatdate(now + 30, usegmt=True)
  wait = lambda **headers: retries.asked_to_wait(
    {k.replace('_', '-'): v for k, v in headers.items()}, now
  )
  assert wait(Retry_After='12') == 12
  assert wait(retry_after='1.5') == 1.5
  assert wait(retry_after=date) == 30
  assert wait(retry_after_ms='250', retry_after='9') == 0.25
  assert wait(retry_after='-5') == 0
  past = email.utils.formatdate(now - 30, usegmt=True)
  assert wait(retry_after=past) == 0
  for text in ('', 'soon', 'nan', 'inf', '1e999', '99 May'):
    assert wait(retry_after=text) is None
  assert wait() is None


@pytest.mark.parametrize('status', [408, 409, 429, 500, 502, 503, 529])
def test_what_passes_is_tried_again(status):
  found = retries.failure(status, {'Retry-After': '3'}, b'{"error": "busy"}')
  assert isinstance(found, retries.Again) and found.after == 3
  assert str(found) == f'HTTP {status}: busy'


@pytest.mark.parametrize(
  'status, said',
  [
    (400, ''),
    (401, 'OPENAI_API_KEY'),
    (403, 'may use'),
    (404, 'OPENAI_BASE_URL'),
  ]
  + [(422, ''), (301, '')],
)
def test_what_does_not_pass_ends_at_once(status, said):
  message = 'bad \x1b[31m model\nsecond line'
  raw = json.dumps({'error': {'message': message, 'code': 'x'}}).encode()
  found = retries.failure(status, {}, raw)
  assert isinstance(found, UserError)
  assert f'HTTP {status}: bad \\x1b[31m model' in str(found)
  assert said in str(found) and 'second' not in str(found)


def test_an_empty_account_is_no_passing_failure():
  raw = b'{"error": {"message": "Quota", "code": "insufficient_quota"}}'
  found = retries.failure(429, {}, raw)
  assert isinstance(found, UserError) and 'nothing left' in str(found)


def test_a_filtered_prompt_is_a_reply_without_a_score():
  raw = b'{"error": {"message": "Filtered", "code": "content_filter"}}'
  assert isinstance(retries.failure(400, {}, raw), retries.Filtered)

  def send(request):
    if '3' in request['messages'][0]['content']:
      raise retries.failure(400, {}, raw)
    return json.dumps(body([('85', 0.9)])).encode()

  grader = at(send)
  found = grader.scale(chats(5))
  assert [x.mass > 0 for x in found] == [1, 1, 1, 0, 1]
  assert [r.filtered for r in grader.kept.replies.values()].count(True) == 1


@pytest.mark.parametrize(
  'raw, said',
  [
    (b'{"detail": "Not authorised"}', 'Not authorised'),
    (b'{"message": "No such model"}', 'No such model'),
    (b'{"error": {"message": ""}}', '{"error": {"message": ""}}'),
    (b'<html><head><TITLE>403</TITLE>', "an HTML page '403'"),
    (b'x' * 10**7, 'x' * 200),
    (b'', 'nothing'),
  ],
)
def test_what_a_server_said(raw, said):
  assert replies.shown(raw) == said


def tried(failures, tries=6, **how):
  """(result or error, seconds waited, calls) of a call that fails at first."""
  waited, left = [], list(failures)

  def call():
    if left:
      raise left.pop(0)
    return 'reply'

  def wait(seconds):
    waited.append(seconds)
    return False

  try:
    found = retries.persist(
      call, tries=tries, **{'wait': wait, 'draw': lambda: 0.0} | how
    )
  except (UserError, retries.Stopped) as error:
    found = error
  return found, waited, len(failures) - len(left)


def test_it_is_tried_until_it_replies():
  found, waited, _ = tried([retries.Again('busy')] * 3)
  assert found == 'reply' and waited == [1, 2, 4]


def test_it_is_not_tried_for_ever():
  found, waited, calls = tried([retries.Again('HTTP 503: busy')] * 9, tries=4)
  assert str(found) == 'HTTP 503: busy; this was try 4 of 4'
  assert calls == 4 and waited == [1, 2, 4]


def test_a_server_that_asks_for_an_hour_ends_it():
  found, waited, _ = tried([retries.Again('HTTP 429: slow', 3600.0)])
  assert 'asks to wait for 3,600 s' in str(found) and not waited


def test_a_wait_that_is_called_off_ends_it():
  found, _, calls = tried([retries.Again('busy')] * 9, wait=lambda _: True)
  assert isinstance(found, retries.Stopped) and calls == 1


def test_other_errors_are_not_tried_again():
  found, waited, calls = tried([UserError('HTTP 401: no')])
  assert str(found) == 'HTTP 401: no' and not waited and calls == 1


def test_malformed_replies_are_tried_again_and_then_named(monkeypatch):
  monkeypatch.setattr(retries, 'FIRST_S', 0.001)
  page, (good, asked) = b'<title>Sign in</title>', endless()

  def send(request):
    raw = good(request)
    return page if len(asked) < 3 else raw

  (found,) = at(send).scale([CHAT])
  assert found.score == 85 and len(asked) == 3
  with pytest.raises(UserError, match='try 2 of 2') as error:
    at(lambda _: page, tries=2).scale([CHAT])
  said = "malformed reply: no JSON, but an HTML page 'Sign in'"
  assert said in str(error.value) and '\n' not in str(error.value)


def test_a_model_of_the_newer_kind_gets_the_newer_field(monkeypatch):
  monkeypatch.setattr(retries, 'FIRST_S', 0.001)
  asked = []

  def send(request):
    asked.append(request)
    if 'max_tokens' in request:
      raise UserError("HTTP 400: Use 'max_completion_tokens' instead.")
    return json.dumps(body([('85', 0.9)])).encode()

  found = at(send, workers=1).scale(chats(3))
  assert [x.score for x in found] == [85] * 3 and len(asked) == 4
  assert asked[-1]['max_completion_tokens'] == 1
