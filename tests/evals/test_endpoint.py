"""The endpoint judge: order, what is kept, what it costs, how it stops."""

import json
import math
import threading
import time

import pytest
from replied import CHAT, at, body, chats, endless, parse

from ealign.evals.judges import endpoint
from ealign.evals.judges.endpoint import cost, pool, retries
from ealign.evals.judges.endpoint.kept import Kept
from ealign.runtime.errors import Preempted, UserError

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
  assert [round(x.score, 9) for x in found] == list(range(60))


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
    text = request['messages'][0]['content']
    if 'Answer 0' in text:  # it runs alone
      return json.dumps(body([('85', 0.9)])).encode()
    if 'Answer 1' in text:
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


def test_an_error_of_another_exit_code_keeps_it():
  def send(request):
    raise Preempted('SIGTERM')

  with pytest.raises(Preempted, match='SIGTERM; 0 of 1 replies are kept'):
    at(send).scale([CHAT])


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
  assert f'to ask: 20 requests, about {guess.read:,} tokens' in lines[0]
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
  assert [round(x.score, 9) for x in found] == list(range(60))


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
