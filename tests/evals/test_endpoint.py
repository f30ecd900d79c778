"""The endpoint judge: hostile replies, retries, costs, what is kept.

All but the last part runs without the package `openai`.
"""

import email.utils
import json
import math
import threading
import time

import numpy as np
import pytest

from ealign.evals.judges import endpoint
from ealign.evals.judges.endpoint import cost, pool, replies, retries
from ealign.evals.judges.endpoint.kept import Kept
from ealign.evals.judges.endpoint.replies import Malformed, NoLogprobs, Reply
from ealign.runtime.errors import UserError

CHAT = [{'role': 'user', 'content': 'How well does this answer?'}]
KEY = 'sk-secret-0123456789'


def chats(n):
  return [
    ({'role': 'user', 'content': f'Answer {i}: fine.'},) for i in range(n)
  ]


def body(top, path=None, **more):
  """A chat completion whose first token has these likeliest tokens."""
  entry = lambda t, p: {'token': t, 'logprob': math.log(p), 'bytes': None}
  path = path or [top[0][0]]
  first = {'top_logprobs': [entry(*pair) for pair in top]}
  steps = [{'token': t, 'logprob': -0.1, 'top_logprobs': []} for t in path]
  steps[0] |= first
  choice = {
    'index': 0,
    'message': {'role': 'assistant', 'content': ''.join(path)},
    'finish_reason': 'length',
    'logprobs': {'content': steps},
  }
  return {
    'id': 'chatcmpl-1',
    'object': 'chat.completion',
    'created': 1,
    'model': 'judge-1',
    'system_fingerprint': 'fp_1',
    'choices': [choice],
    'usage': {'prompt_tokens': 50, 'completion_tokens': 1, 'total_tokens': 51},
  } | more


def parse(data):
  return replies.parse(json.dumps(data).encode())


def with_choice(**more):
  data = body([('85', 0.9)])
  data['choices'][0] |= more
  return data


def endless(top=(('85', 0.9),), **how):
  """A `send` that replies the same to all, and the requests it got."""
  asked = []

  def send(request):
    asked.append(request)
    return json.dumps(body(list(top), **how)).encode()

  return send, asked


def at(send, path=None, **how):
  how = {'say': lambda _: None, 'workers': 4} | how
  return endpoint.Endpoint('m', send, Kept(path), **how)


# What a reply says.


def test_the_score_is_the_mean_over_the_mass_by_hand():
  top = [('80', 0.5), ('90', 0.25), ('CODE', 0.125), ('the', 0.0625)]
  send, asked = endless(top)
  (found,) = at(send).scale([CHAT])
  assert found.mean == pytest.approx((80 * 0.5 + 90 * 0.25) / 0.75)
  assert found.mass == pytest.approx(0.75)
  assert found.words == pytest.approx((0.125, 0.0))
  assert found.mode == 'top20'
  fixed = {'temperature': 0, 'seed': 0, 'logprobs': True, 'top_logprobs': 20}
  assert asked == [{'model': 'm', 'messages': CHAT, 'max_tokens': 1} | fixed]


def test_the_score_agrees_with_the_fields_own_reading():
  """An independent reading: int() of each token, as others write it."""
  rng = np.random.default_rng(0)
  for _ in range(50):
    tokens = [str(k) for k in rng.choice(140, 15, replace=False)]
    tokens += ['CODE', 'The', '-3', '8.5', '']
    ps = rng.dirichlet(np.ones(20))
    reply = parse(body(list(zip(tokens, ps, strict=True))))
    total = mass = 0.0
    for token, p in zip(tokens, ps, strict=True):
      try:
        value = int(token)
      except ValueError:
        continue
      if 0 <= value <= 100:
        total, mass = total + value * p, mass + p
    found = replies.numbers(reply)
    assert sum(found.values()) == pytest.approx(mass)
    mean = sum(k * p for k, p in found.items()) / mass
    assert mean == pytest.approx(total / mass)


def test_no_numbers_have_no_mean():
  send, _ = endless([('REF', 0.9), ('I', 0.05)])
  (found,) = at(send).scale([CHAT])
  assert math.isnan(found.mean) and found.mass == 0
  assert found.words == pytest.approx((0.0, 0.9))


@pytest.mark.parametrize(
  'token, value',
  [
    ('85', 85),
    (' 85', 85),
    ('85\n', 85),
    ('\u258185', 85),
    ('\u012085', 85),
    ('\u00a085', 85),
    ('0', 0),
    ('100', 100),
    ('101', None),
    ('999', None),
    ('-1', None),
    ('+5', None),
    ('8_5', None),
    ('8.5', None),
    ('85%', None),
    ('8 5', None),
    ('\u0668\u0665', None),
    ('\u00b2', None),
    ('', None),
    (' ', None),
    ('9' * 5000, None),
  ],
)
def test_what_a_number_is(token, value):
  assert replies.number(token) == value


def test_spellings_of_a_number_add_up_and_repeated_tokens_do_not():
  top = [('85', 0.4), (' 85', 0.2), ('\u258185', 0.1), ('85', 0.4)]
  assert replies.numbers(parse(body(top))) == pytest.approx({85: 0.7})


def broken():
  top = [('85', 0.9)]
  good = body(top)
  step = good['choices'][0]['logprobs']['content'][0]
  of = lambda **more: with_choice(logprobs={'content': [step | more]})
  entry = lambda logp: of(top_logprobs=[{'token': '85', 'logprob': logp}])
  without = lambda name: {k: v for k, v in good.items() if k != name}
  return {
    'no choices': (without('choices'), "'choices' is missing"),
    'choices null': (good | {'choices': None}, "'choices' is missing"),
    'choices empty': (good | {'choices': []}, '"choices" is empty'),
    'choices text': (good | {'choices': 'x'}, "'choices' is of type str"),
    'choice text': (good | {'choices': ['x']}, 'no object'),
    'a list': ([good], 'no object'),
    'a number': (7, 'no object'),
    'null': (None, 'no object'),
    'error': ({'error': {'message': 'Overloaded'}}, 'an error: Overloaded'),
    'logprobs text': (with_choice(logprobs='x'), "'logprobs' is of type str"),
    'content text': (
      with_choice(logprobs={'content': 'x'}),
      "'content' is of type str",
    ),
    'step null': (with_choice(logprobs={'content': [None]}), 'no object'),
    'token missing': (of(token=None), "'token' is missing"),
    'top a dict': (of(top_logprobs={'85': -1}), 'of type dict'),
    'entry text': (of(top_logprobs=['85']), 'no object'),
    'entry without token': (of(top_logprobs=[{'logprob': -1}]), 'is missing'),
    'nan': (entry(math.nan), 'a log-probability is nan'),
    'inf': (entry(math.inf), 'a log-probability is inf'),
    'positive': (entry(2.5), 'a log-probability is 2.5'),
    'text': (entry('-1'), 'a log-probability is -1'),
    'true': (entry(True), 'a log-probability is True'),
    'all impossible': (entry(None), 'add up to 0'),
    'all -inf': (entry(-math.inf), 'add up to 0'),
    'too much': (body([('85', 0.9), ('80', 0.9)]), 'add up to 1.8'),
  }


@pytest.mark.parametrize('name', broken())
def test_a_malformed_reply_is_named(name):
  data, said = broken()[name]
  with pytest.raises(Malformed, match='.') as error:
    parse(data)
  assert said in str(error.value)


@pytest.mark.parametrize(
  'raw, said',
  [
    (b'', 'nothing'),
    (b'{"choices": [', '{"choices": ['),
    (b'<html><title>502  Bad\n Gateway</title>', "page '502 Bad Gateway'"),
    (b'<!DOCTYPE html><p>x', 'an HTML page'),
    (b'\xff\xfe\x00bad', '\\x00'),
    (b'\x1b[31mred', '\\x1b[31mred'),
    (b'[' * 100_000, '[[['),
    (b'{"a": ' + b'9' * 5000 + b'}', '{"a": 999'),
  ],
)
def test_what_is_no_json_is_named_and_escaped(raw, said):
  with pytest.raises(Malformed) as error:
    replies.parse(raw)
  assert said in str(error.value) and len(str(error.value)) < 250
  assert '\x1b' not in str(error.value)


def test_without_log_probabilities_there_is_nothing_to_judge_by():
  step = body([('85', 0.9)])['choices'][0]['logprobs']['content'][0]
  for logprobs in (
    None,
    {'content': None},
    {'content': []},  # and the reason is 'length'
    {'content': [step | {'top_logprobs': []}]},
    {'content': [step | {'top_logprobs': None}]},
  ):
    with pytest.raises(NoLogprobs):
      parse(with_choice(logprobs=logprobs))
  said = lambda: parse(with_choice(logprobs=None))
  send = lambda _: said()
  with pytest.raises(UserError, match='gives no log-probabilities') as error:
    at(send).scale([CHAT])
  assert 'the same command continues' in str(error.value)


def test_an_empty_or_a_filtered_reply_is_no_score():
  empty = parse(with_choice(finish_reason='stop', logprobs={'content': []}))
  withheld = parse(with_choice(finish_reason='content_filter', logprobs=None))
  assert empty.top == withheld.top == ()
  assert withheld.filtered and not empty.filtered


def test_impossible_tokens_are_left_out_and_rounding_is_forgiven():
  data = body([('85', 0.9), ('80', 0.05), ('70', 0.04)])
  entries = data['choices'][0]['logprobs']['content'][0]['top_logprobs']
  entries[0]['logprob'], entries[1]['logprob'] = 1e-6, None
  entries[2]['logprob'] = -9999.0
  assert replies.numbers(parse(data)) == {85: 1.0, 70: 0.0}


@pytest.mark.parametrize(
  'usage',
  [None, [], {}, {'prompt_tokens': 5}, 'x']
  + [{'prompt_tokens': n, 'completion_tokens': 1} for n in (-1, 2.5, True)]
  + [{'prompt_tokens': 10**30, 'completion_tokens': 1}],
)
def test_an_unsound_count_is_guessed(usage):
  reply = parse(body([('85', 0.9)], usage=usage))
  guess = cost.guess(CHAT, 1)
  assert reply.usage is None and cost.of(reply, guess) == guess


def test_names_of_another_type_are_none():
  reply = parse(body([('85', 0.9)], model=3, system_fingerprint=None))
  assert (reply.served, reply.fingerprint) == ('', '')


# Labels.


def test_labels_by_their_first_tokens_by_hand():
  top = [(' A', 0.5), ('B', 0.25), ('\u2581A', 0.125), ('C', 0.0625)]
  logps = at(endless(top)[0]).labels([CHAT], ('A', 'B', 'D'))
  assert logps.dtype == np.float32 and logps.shape == (1, 3)
  expected = [math.log(0.625), math.log(0.25), -math.inf]
  assert logps[0] == pytest.approx(expected)


def test_a_label_of_several_tokens_counts_by_its_first():
  labels = ('complied', 'partly', 'refused')
  top = [('com', 0.5), ('ref', 0.3), ('part', 0.1)]
  send, asked = endless(top, path=['com', 'plied'])
  logps = at(send).labels([CHAT], labels)
  assert np.exp(logps[0]) == pytest.approx([0.5, 0.1, 0.3])
  assert asked[0]['max_tokens'] == 8


def test_a_sampled_token_that_went_on_otherwise_is_not_the_label():
  top = [('no', 0.6), ('full', 0.3), ('pa', 0.05)]
  said = parse(body(top, path=['no', 'thing']))
  assert replies.label_ps(said, ['none', 'full']) == pytest.approx([0, 0.3])
  said = parse(body(top, path=['no', 'ne']))
  assert replies.label_ps(said, ['none', 'full']) == pytest.approx([0.6, 0.3])


@pytest.mark.parametrize(
  'labels, said',
  [
    (('Unsafe', 'Unclear'), "both begin with its token 'Un'"),
    (('no', 'none'), "'none' begins with 'no'"),
    (('A', 'A'), "'A' begins with 'A'"),
  ],
)
def test_labels_that_begin_alike_are_refused_with_a_remedy(labels, said):
  send, _ = endless([('Un', 0.6), ('no', 0.3)])
  with pytest.raises(UserError, match='such as letters') as error:
    at(send).labels([CHAT], list(labels))
  assert said in str(error.value)


def test_a_blank_token_is_no_label():
  ps = replies.label_ps(parse(body([(' ', 0.6), ('\n', 0.3)])), ['A', 'B'])
  assert ps == [0.0, 0.0]


def test_no_prompts_are_no_request():
  send, asked = endless()
  assert at(send).scale([]) == [] and not asked
  assert at(send).labels([], ('A', 'B')).shape == (0, 2)


# Split numbers.


def split_send(second):
  def send(request):
    path = ['8', *second][: request['max_tokens']]
    return json.dumps(body([('8', 0.6), ('9', 0.3)], path=path)).encode()

  return send


def test_a_tokenizer_that_splits_numbers_is_told_once():
  lines = []
  grader = at(split_send(['5', '.']), say=lines.append)
  grader.scale(chats(5))
  grader.scale(chats(7))
  told = [text for text in lines if 'first digit' in text]
  assert len(told) == 1


def test_numbers_that_are_one_digit_are_not_told():
  for second in (['.'], [' points'], ['\n']):
    lines = []
    at(split_send(second), say=lines.append).scale(chats(3))
    assert not [text for text in lines if 'first digit' in text]


def test_split_by_hand():
  of = lambda *path: replies.split(Reply(path=path))
  assert of('8', '5') is True and of('85', '.') is False
  assert of('8', '.') is None and of('I', '8', '5') is None
  assert of('1', '0', '0') is True and of() is None


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
  assert found.mean == 85 and len(asked) == 3
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
  assert [x.mean for x in found] == [85] * 3 and len(asked) == 4
  assert asked[-1]['max_completion_tokens'] == 1


# What is kept.


def numbered(asked=None, fail_at=()):
  """A server that says the number in the prompt, in whatever order."""

  def send(request):
    n = int(request['messages'][0]['content'].split()[1][:-1])
    if asked is not None:
      asked.append(n)
    if n in fail_at:
      raise UserError('HTTP 400: no')
    time.sleep(0.001 * (n * 7 % 5))
    return json.dumps(body([(str(n), 0.9)])).encode()

  return send


def test_results_are_in_the_order_of_the_prompts():
  found = at(numbered(), workers=8).scale(chats(60))
  assert [round(x.mean, 9) for x in found] == list(range(60))


def test_equal_prompts_are_asked_once_and_replied_each():
  send, asked = endless()
  assert len(at(send).scale([CHAT] * 9)) == 9 and len(asked) == 1


def test_what_is_kept_is_not_asked_again(tmp_path):
  path, asked = tmp_path / 'x' / 'replies.jsonl', []
  first = at(numbered(asked), path).scale(chats(20))
  assert sorted(asked) == list(range(20))
  again = at(numbered(asked), path)
  assert again.scale(chats(20)) == first and len(asked) == 20
  more = again.scale(chats(25))
  assert more[:20] == first and len(asked) == 25
  again.labels(chats(1), ('A', 'B'))  # of one token: the same request
  assert len(asked) == 25


def test_another_question_model_or_server_is_asked(tmp_path):
  path, (send, asked) = tmp_path / 'r.jsonl', endless()
  for how in ({}, {'address': 'http://a/v1'}, {'address': 'http://b/v1'}):
    at(send, path, **how).scale([CHAT])
  endpoint.Endpoint('n', send, Kept(path), say=str).scale([CHAT])
  at(send, path).ask([CHAT], written=2)
  at(send, path).scale([[CHAT[0] | {'role': 'system'}]])
  assert len(asked) == 6


def test_a_file_cut_anywhere_costs_one_reply_at_most(tmp_path):
  path = tmp_path / 'replies.jsonl'
  some = chats(16)[10:]
  first = at(numbered(), path).scale(some)
  whole = path.read_bytes()
  for cut in range(0, len(whole), 37):
    path.write_bytes(whole[:cut])
    intact = whole[:cut].count(b'}\n')
    asked = []
    assert at(numbered(asked), path).scale(some) == first
    assert len(asked) in (6 - intact, 5 - intact)
    asked.clear()
    assert at(numbered(asked), path).scale(some) == first
    assert not asked, 'the line behind a half line was lost'


def test_broken_lines_are_left_out(tmp_path):
  path = tmp_path / 'replies.jsonl'
  at(numbered(), path).scale(chats(11)[10:])
  (line,) = filter(None, path.read_text().split('\n'))
  row, bad = json.loads(line), []
  for change in (
    {'top': [['85', math.nan]]},
    {'top': [['85', 3.0]]},
    {'top': [['85']]},
    {'top': None},
    {'top': [['85', 'x']]},
    {'path': 5},
    {'usage': ['a', 'b']},
    {'usage': 4},
    {'spent': [1] * 9},
    {'spent': None},
    {'spent': [math.inf, 0, 0, 0]},
  ):
    bad.append(json.dumps(row | change))
  bad += ['[]', 'null', '7', '[' * 10**5, '\x00', '{"key": "a"}']
  path.write_text('\n'.join(bad))
  assert Kept(path).replies == {} and Kept(path).spent == cost.Spent()
  path.write_text('\n'.join([*bad, line, *bad]))
  assert len(Kept(path).replies) == 1


def test_a_reply_survives_the_file(tmp_path):
  path = tmp_path / 'r.jsonl'
  top = [('85', 0.5), ('\u2028', 0.2), ('\ud800', 0.1), ('"\n\\', 0.05)]
  reply = parse(body(top))
  Kept(path).add('k', reply, cost.Spent(1, 50, 1))
  found = Kept(path)
  assert found.replies == {'k': reply}
  assert found.spent == cost.Spent(1, 50, 1)
  assert found.replies['k'].fingerprint == 'fp_1'


def test_what_was_replied_before_a_failure_is_kept(tmp_path):
  path, asked = tmp_path / 'r.jsonl', []
  grader = at(numbered(asked, fail_at={12}), path, workers=3)
  with pytest.raises(UserError) as error:
    grader.scale(chats(40))
  kept = len(Kept(path).replies)
  assert 12 <= kept < 16 and len(asked) == kept + 1
  text = str(error.value)
  assert text.startswith("eval.judge='openai:m': HTTP 400: no; ")
  assert f'{kept} of 40 replies are kept, the same command continues' in text
  again = []
  at(numbered(again), path).scale(chats(40))
  assert not set(again) & (set(asked) - {12}) and len(again) == 40 - kept


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot be used'):
    at(endless()[0], tmp_path / 'file' / 'r.jsonl').scale([CHAT])


def test_ctrl_c_waits_for_no_server_and_keeps_what_arrived(tmp_path):
  """As a signal does it: raised where the main thread waits for replies."""
  path, hang = tmp_path / 'r.jsonl', threading.Event()

  def send(request):
    if 'Answer 5' in request['messages'][0]['content']:
      hang.wait(30)
    return json.dumps(body([('85', 0.9)])).encode()

  def say(text):
    pass

  grader = at(send, path, workers=2, say=say)
  add, count = grader.kept.add, []

  def interrupted(*args):
    add(*args)
    count.append(args)
    if len(count) == 8:
      raise KeyboardInterrupt

  grader.kept.add = interrupted
  begun = time.monotonic()
  with pytest.raises(KeyboardInterrupt):
    grader.scale(chats(40))
  hang.set()
  assert time.monotonic() - begun < 5
  assert 8 <= len(Kept(path).replies) <= 9


def test_after_a_failure_those_who_wait_stop_waiting():
  def send(request):
    if 'Answer 0' in request['messages'][0]['content']:
      time.sleep(0.05)
      raise UserError('HTTP 401: no')
    raise retries.Again('HTTP 503: busy', 200.0)

  begun = time.monotonic()
  with pytest.raises(UserError, match='401'):
    at(send, workers=4).scale(chats(9))
  assert time.monotonic() - begun < 5


def test_no_more_run_at_once_than_there_are_workers():
  now, most, lock = [0], [0], threading.Lock()

  def work(job):
    with lock:
      now[0] += 1
      most[0] = max(most[0], now[0])
    time.sleep(0.005)
    with lock:
      now[0] -= 1
    return job

  found = {}
  stop = threading.Event()
  pool.each(range(30), work, found.__setitem__, workers=3, stop=stop)
  assert found == {i: i for i in range(30)} and most[0] == 3
  assert not stop.is_set()


# Costs.


def test_a_price_is_two_numbers():
  price = endpoint.Price.of('2.50,10')
  assert price == endpoint.Price(2.5, 10.0)
  spent = cost.Spent(2, 1_000_000, 500_000)
  assert spent.dollars(price) == pytest.approx(2.5 + 5.0)
  assert spent.text(price) == (
    '2 replies, 1,000,000 tokens read, 500,000 written, $7.50'
  )


@pytest.mark.parametrize(
  'text', ['', '1', '1,2,3', 'a,b', '-1,2', 'nan,1', 'inf,1']
)
def test_what_is_no_price_is_named(text):
  with pytest.raises(UserError, match=f"--price='{text}': must be the dollars"):
    endpoint.Price.of(text)


def test_a_guess_by_the_length_of_the_text():
  messages = [{'role': 'user', 'content': 'x' * 400}] * 2
  assert cost.guess(messages, 1) == cost.Spent(1, 2 * 104 + 3, 1, 1)


def test_what_it_will_cost_is_said_before_and_what_it_did_after(tmp_path):
  lines = []
  price = endpoint.Price(1000.0, 1000.0)  # a dollar is 1,000 tokens
  how = {'price': price, 'say': lines.append}
  at(numbered(), tmp_path / 'r', **how).scale(chats(20))
  guess = sum((cost.guess(c, 1) for c in chats(20)), cost.Spent())
  assert f'20 requests, about {guess.read:,} tokens' in lines[0]
  assert lines[-1].endswith(
    'in all 20 replies, 1,000 tokens read, 20 written, $1.02'
  )
  lines.clear()
  at(numbered(), tmp_path / 'r', **how).scale(chats(20))
  assert not lines, 'nothing is asked, so nothing is said'
  at(numbered(), tmp_path / 'r', **how).scale(chats(21))
  assert '20 replies of before are kept' in lines[0]


@pytest.mark.parametrize('workers', [1, 8])
def test_the_cap_stops_before_it_is_passed(tmp_path, workers):
  price = endpoint.Price(1000.0, 1000.0)  # a reply costs 5.1 cents
  asked, how = [], {'price': price, 'cap': 1.0, 'workers': workers}
  grader = at(numbered(asked), tmp_path / 'r', **how)
  with pytest.raises(UserError, match=r'above the cap of \$1: ') as error:
    grader.scale(chats(60))
  spent = Kept(tmp_path / 'r').spent
  assert 0.75 < spent.dollars(price) <= 1.0
  assert len(asked) == spent.replies
  assert f'{spent.replies} of 60 replies are kept' in str(error.value)
  assert spent.text(price) in str(error.value) or workers > 1
  # The cap is of all that was ever spent in this file.
  asked.clear()
  with pytest.raises(UserError, match='raise the cap'):
    at(numbered(asked), tmp_path / 'r', **how).scale(chats(60))
  assert len(asked) <= 2
  how['cap'] = 100.0
  found = at(numbered(asked), tmp_path / 'r', **how).scale(chats(60))
  assert [round(x.mean, 9) for x in found] == list(range(60))


def test_several_systems_behind_one_name_are_told():
  lines, count = [], []

  def send(request):
    count.append(1)
    print_ = f'fp_{len(count) % 2}'
    data = body([('85', 0.9)], system_fingerprint=print_)
    return json.dumps(data).encode()

  at(send, say=lines.append, workers=1).scale(chats(6))
  assert any(
    '2 systems replied: judge-1 fp_0, judge-1 fp_1' in text for text in lines
  )


def test_the_prompt_is_the_chat_without_half_characters():
  grader = at(endless()[0])
  (turn,) = grader.model.prompt(
    [{'role': 'user', 'content': 'a\ud800b', 'extra': 1}]
  )
  assert turn == {'role': 'user', 'content': 'a?b'}


def test_an_estimate_before_anything_is_asked():
  send, asked = endless()
  assert at(send).estimate([CHAT, CHAT]).replies == 2 and not asked
