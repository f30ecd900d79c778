"""ealign chat: what is asked, shown and judged, and what ends it."""

import io
import json
import signal
import types

import jax
import pytest
import runs

from ealign import config as config_lib
from ealign.assembly import weights as assembled
from ealign.cli import chat, speakers, talk
from ealign.models import weights as weights_lib
from ealign.runtime.errors import UserError

QUESTION = 'How do I store the soup?'


class Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.fixture
def terminal(monkeypatch):
  monkeypatch.setattr('sys.stdin', Terminal())


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
  """A folder as two arms leave it that have not learnt anything."""
  root = tmp_path_factory.mktemp('runs') / 'demo'
  config = runs.small(**{'conscience.threshold': 'auto:0.05'})
  spec = config.model
  model, _ = assembled.read_model(spec)
  adapter = assembled.new_adapter(config, model)
  for name in ('sft', 'taught'):
    (root / name).mkdir(parents=True)
    (root / name / 'config.json').write_text(config_lib.to_json(config))
    (root / name / 'DONE').write_text('{}')
    path = root / name / 'adapter.safetensors'
    weights_lib.save_adapter(path, adapter, assembled.lora_scale(config))
  found = json.dumps({'threshold': {'value': 0.25}})
  (root / 'taught' / 'run.json').write_text(found)
  arms = {'arms': {'sft': {}, 'taught': {}}}
  (root / 'config.json').write_text(json.dumps(arms))
  return root


def run(*argv):
  return chat.main(['chat', *argv])


def test_arms_answer_and_are_judged(demo, terminal, capsys):
  few = ('--max_tokens=12', '--seed=3')
  assert run(f'--run={demo}', f'--prompt={QUESTION}', *few) == 0
  said = capsys.readouterr().out.splitlines()
  assert said[0] == '== sft' and said[3] == '== taught'
  assert said[1] == said[4] and said[1].startswith('  ')
  # sft has no run.json: nobody found its threshold.
  words = 'was cut', 'no threshold was found', 'threshold 0.2500'
  assert any(x in said[2] for x in words[:2])
  assert any(x in said[5] for x in words[::2])


def test_arms_stand_beside_each_other(demo, terminal, capsys, monkeypatch):
  asked = f'--run={demo}', f'--prompt={QUESTION}', '--max_tokens=12'
  assert run(*asked, '--layout=stacked') == 0
  stacked = capsys.readouterr().out
  monkeypatch.setenv('COLUMNS', '100')
  assert run(*asked, '--layout=columns') == 0
  rows = capsys.readouterr().out.splitlines()
  assert rows[0].split() == ['==', 'sft', '==', 'taught']
  halves = [row[:49].strip() for row in rows], [row[51:] for row in rows]
  for half in halves:
    said = ' '.join(' '.join(half).split())
    part = stacked.split('== ')[1 + halves.index(half)]
    assert said == ' '.join(f'== {part}'.split())
  monkeypatch.setenv('COLUMNS', '60')
  assert run(*asked, '--layout=columns') == 0
  assert capsys.readouterr().out == stacked
  assert run(*asked, '--layout=rows') == 2
  assert 'auto, columns, stacked' in capsys.readouterr().err


def test_a_streamed_answer_is_that_of_the_engine(demo, terminal):
  config, chosen = chat.read(['chat', f'--run={demo}', '--only=t*'])
  (one,) = speakers.find(config, chosen | {'max_tokens': 16})
  assert one.name == 'taught' and one.level == 0.25
  asked, key = [{'role': 'user', 'content': QUESTION}], jax.random.key(1)
  *_, last = speakers.answer(one, asked, key=key)
  (whole,) = one.engine.answer([asked], sample=one.sample, key=key)
  assert last.answer.ids == whole.answer.ids and last.chat == whole.chat
  (own,) = one.conscience.frozen.answer([asked], sample=one.sample, key=key)
  assert own.answer.ids == whole.answer.ids  # the adapter changes nothing
  said = speakers.verdict(one, last)
  assert ('cut' in said) == (last.answer.stop == 'length')
  ended = one.engine.model.exchanges([[*asked, last.chat[-1]]])[0]
  assert 'P(flag) = 0.' in speakers.verdict(one, ended)
  with pytest.raises(UserError, match='no room is left; /reset'):
    long = [{'role': 'user', 'content': QUESTION * 200}]
    next(speakers.answer(one, long, key=key))


def test_a_model_beside_a_run_and_a_question_from_a_pipe(
  demo, monkeypatch, capsys
):
  monkeypatch.setattr('sys.stdin', io.StringIO(f'{QUESTION}\n'))
  argv = f'--run={demo}', '--only=sft', '--model=ealign:world/base'
  assert run(*argv, '--max_tokens=4', '--temperature=0') == 0
  said = capsys.readouterr().out.splitlines()
  assert [x for x in said if x[:2] == '=='] == ['== sft', '== base']


@pytest.mark.parametrize(
  'argv, said',
  [
    ((), '--run or --model is missing'),
    (('--model=,', '--prompt=x'), '--run or --model is missing'),
    (('--run=none', '--prompt=x'), 'is no folder of a run'),
    (('--run=DEMO', '--only=sfd'), 'no such arm (arms: sft, taught). Did you'),
    (('--run=DEMO', '--config.model.path=x'), 'a run is what it was made of'),
    (('--run=DEMO', '--workdir=x'), '--workdir: is not of ealign.chat'),
    (('--run=DEMO', '--sweep=x'), '--sweep: is of ealign.launch'),
    (('--run=DEMO', '--max_token=1'), 'did you mean --max_tokens?'),
    (('--run=DEMO', '--max_tokens=0'), '--max_tokens=0: must be at least 1'),
    (('--run=DEMO', '--temperature=-1'), 'must be at least 0'),
    (('--run=DEMO', '--threshold=0'), 'must be above 0 and at most 1'),
    (('--run=DEMO', '--config.conscience.framing=goood'), 'must be one of'),
    (('--model=none', '--prompt=x'), "'none'"),
  ],
)
def test_slips(demo, terminal, capsys, argv, said):
  assert run(*(x.replace('DEMO', str(demo)) for x in argv)) == 2
  found = capsys.readouterr()
  assert said in found.err and 'Traceback' not in found.err


def test_an_empty_pipe(monkeypatch, demo, capsys):
  monkeypatch.setattr('sys.stdin', io.StringIO(' \n'))
  assert run(f'--run={demo}') == 2
  assert 'there is no question' in capsys.readouterr().err


# ---- The talk itself, with speakers of cardboard ----------------------------


class Cardboard:
  """Says the texts it is given, and remembers what it was asked."""

  def __init__(self, monkeypatch, *texts, acts=None):
    self.asked, self.texts, self.acts = [], list(texts), acts
    monkeypatch.setattr(speakers, 'answer', self.answer)
    monkeypatch.setattr(speakers, 'verdict', lambda speaker, exchange: 'fine')

  def answer(self, speaker, messages, *, key):
    self.asked.append((speaker.name, [m['content'] for m in messages]))
    text = self.texts.pop(0) if self.texts else 'yes'
    if isinstance(text, Exception):
      raise text
    for end in range(1, len(text) + 1):
      reply = {'role': 'assistant', 'content': text[:end]}
      made = {'text': text[:end], 'chat': [*messages, reply]}
      yield types.SimpleNamespace(**made)
      if self.acts:
        self.acts.pop(0)()


def converse(monkeypatch, lines, names='a', chosen=None):
  """The exit code of a talk in which these lines are typed."""
  typed = iter(lines)

  def type_(prompt):
    line = next(typed, EOFError())
    if isinstance(line, BaseException):
      raise line
    return line

  monkeypatch.setattr('builtins.input', type_)
  found = [types.SimpleNamespace(name=name) for name in names]
  return talk.converse(found, chosen or {})


def test_chats_go_on_apart_and_are_forgotten(monkeypatch, capsys):
  one = Cardboard(monkeypatch, 'A1', 'B1', 'A2', 'B2')
  lines = ['q1', ' ', 'q2', '/reset', 'q3', '/help', '/halp', '/quit', 'never']
  assert converse(monkeypatch, lines, 'ab', {'system': 's'}) == 0
  assert one.asked == [
    ('a', ['s', 'q1']),
    ('b', ['s', 'q1']),
    ('a', ['s', 'q1', 'A1', 'q2']),
    ('b', ['s', 'q1', 'B1', 'q2']),
    ('a', ['s', 'q3']),
    ('b', ['s', 'q3']),
  ]
  said = capsys.readouterr().out
  assert said.count('/reset  forgets') == 2
  assert '/halp: no such command' in said
  assert '== a\n  A1\n-- fine\n== b\n  B1\n-- fine\n' in said


def test_what_a_model_says_does_not_reach_the_terminal(monkeypatch, capsys):
  Cardboard(monkeypatch, '\x1b[2J\x07\n== b\n-- fine\r\u202eok')
  assert converse(monkeypatch, ['q', '/\x1b]0;']) == 0
  said = capsys.readouterr().out
  assert not {'\x1b', '\x07', '\r', '\u202e'} & set(said)
  assert '\n  == b\n  -- fine' in said
  assert [x for x in said.splitlines() if x[:2] in ('==', '--')] == [
    '== a',
    '-- fine',
  ]


def test_ctrl_c_ends_one_answer(monkeypatch, capsys):
  interrupt = lambda: signal.raise_signal(signal.SIGINT)
  nothing = lambda: None
  one = Cardboard(monkeypatch, 'long', 'next', acts=[nothing, interrupt])
  one.acts += [nothing] * 4
  lines = ['q1', KeyboardInterrupt(), 'q2']
  assert converse(monkeypatch, lines) == 0
  said = capsys.readouterr().out
  assert '  lon [stopped]\n' in said and said.count('-- fine') == 1
  assert '/quit, or Ctrl-D, ends' in said
  assert one.asked[1] == ('a', ['q1', 'lon', 'q2'])


@pytest.fixture
def wide(monkeypatch):
  monkeypatch.setenv('COLUMNS', '100')
  return {'layout': 'columns'}


def test_beside_each_other_one_without_room_ends_nothing(
  monkeypatch, capsys, wide
):
  one = Cardboard(monkeypatch, UserError('no room'), '== a\n-- fine', 'x', 'y')
  assert converse(monkeypatch, ['q1', 'q2'], 'ab', wide) == 0
  rows = capsys.readouterr().out.splitlines()[1:]  # below the names
  assert rows[0] == '== a'.ljust(51) + '== b'
  assert rows[1] == ' ' * 53 + '== a' and rows[2] == ' ' * 53 + '-- fine'
  assert rows[3] == '-- no room'.ljust(51) + '-- fine'
  assert one.asked[2:] == [('a', ['q2']), ('b', ['q1', '== a\n-- fine', 'q2'])]


def test_beside_each_other_ctrl_c_ends_all_answers(monkeypatch, capsys, wide):
  nothing = lambda: None
  interrupt = lambda: signal.raise_signal(signal.SIGINT)
  one = Cardboard(monkeypatch, 'long', 'text', 'x', 'y')
  one.acts = [nothing, nothing, interrupt, *[nothing] * 4]
  assert converse(monkeypatch, ['q1', 'q2'], 'ab', wide) == 0
  said = capsys.readouterr().out
  assert said.count('[stopped]') == 2 and said.count('-- fine') == 2
  assert one.asked[2][1][1] in ('lo', 'lon')


def test_beside_each_other_a_verdict_that_fails_is_told(
  monkeypatch, capsys, wide
):
  Cardboard(monkeypatch, 'A', 'B')

  def verdict(speaker, exchange):
    if speaker.name == 'a':
      raise UserError('none fits')
    return 'fine'

  monkeypatch.setattr(speakers, 'verdict', verdict)
  assert converse(monkeypatch, ['q1'], 'ab', wide) == 0
  assert '-- none fits'.ljust(51) + '-- fine' in capsys.readouterr().out


@pytest.mark.parametrize(
  'signals, code',
  [((signal.SIGINT, signal.SIGINT), 130), ((signal.SIGTERM,), 143)],
)
def test_what_ends_the_talk(monkeypatch, capsys, signals, code):
  def act():
    for number in signals:
      signal.raise_signal(number)

  Cardboard(monkeypatch, 'long', acts=[act])
  assert converse(monkeypatch, ['q1', 'q2']) == code
  assert 'Traceback' not in capsys.readouterr().err


def test_a_question_without_room_ends_nothing(monkeypatch, capsys):
  one = Cardboard(monkeypatch, UserError('no room'), 'yes')
  assert converse(monkeypatch, ['q1', 'q2']) == 0
  assert '-- no room' in capsys.readouterr().out
  assert one.asked[1] == ('a', ['q2'])


def test_a_reader_who_leaves(monkeypatch):
  gone = lambda *_, **__: (_ for _ in ()).throw(BrokenPipeError)
  Cardboard(monkeypatch, 'yes')
  monkeypatch.setattr(talk, 'turn', gone)
  monkeypatch.setattr(talk.preempt, 'unread', lambda: 141)
  assert converse(monkeypatch, ['q1']) == 141


def test_a_cell_is_chosen_without_its_commas():
  cells = ['lam=0,seed=0', 'lam=0,steps=2,seed=0']
  with pytest.raises(UserError, match=r'arms: lam=0\?seed=0, lam=0\?steps'):
    speakers._named(['lam=0'], cells)
  assert speakers._named(['lam=0?seed=0'], cells) == cells[:1]


def test_pieces_are_whole_characters():
  texts = ['a', 'a\ufffd', 'a\ufffd\ufffd', 'aé', 'aéb']
  assert ''.join(talk.pieces(iter(texts))) == 'aéb'
  assert list(talk.pieces(iter(texts)))[:3] == ['a', '', '']
  assert ''.join(talk.pieces(iter(['x', 'x\ufffd']))) == 'x\ufffd'
  # A tokenizer that takes a blank back, and one that starts anew.
  assert ''.join(talk.pieces(iter(['a', 'a ', 'a.', 'a .b']))) == 'a .b'
  assert ''.join(talk.pieces(iter([]))) == ''
