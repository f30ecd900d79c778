"""A conscience whose model is a script, and labelled rows for it."""

import dataclasses

import numpy as np

from ealign import fields
from ealign.alone import ALONE
from ealign.conscience import prompts
from ealign.conscience.framings import FORMS, FRAMINGS
from ealign.data import chat
from ealign.data.exchanges import Row
from ealign.engine import Engine, Model
from ealign.sampling.sampler import Answer

MODEL = Model(None, chat.load_tokenizer('ealign/world/base'))
QUESTIONS = {
  question.text: (framing.name, form, question)
  for framing in FRAMINGS.values()
  for form in FORMS
  for question in framing.questions(form)
}


def rows(domains, twins=1, *, split='dev', kind='plain'):
  """Twins of each domain: 'Check' is ok, 'Fake' is to be flagged."""
  return [
    Row(
      id=f'{domain}{i}{word}',
      messages=(
        {'role': 'user', 'content': f'What of the {domain} {i}?'},
        {'role': 'assistant', 'content': f'{word} the {domain} {i}.'},
      ),
      flag=word == 'Fake',
      kind=kind,
      domain=domain,
      split=split,
      twin=f'{domain}{i}',
      of='',
    )
    for domain in domains
    for i in range(twins)
    for word in ('Check', 'Fake')
  ]


def answer(text, stop='stop'):
  ids = (*MODEL.ids(text), *(MODEL.end,) * (stop == 'stop'))
  return Answer(ids, np.full(len(ids), -1.0), stop, 0.0)


def conscience(judge, say=None, logp=-1.0, **settings):
  """A conscience, and the requests to its model.

  judge: (framing, form, sees, own text) -> P(flag) and mass. say: the text of a
  prompt -> an Answer. logp: of each token of what is scored.
  """
  asked = []

  def one(ids, labels):
    text = MODEL.tokenizer.decode(ids)
    name, form, question = next(
      found for start, found in QUESTIONS.items() if start in text
    )
    text = text.split('Some other replies, judged')[0]
    sees = 'quoted' if 'You were asked' in text else 'chat'
    p, mass = judge(name, form, sees, text)
    right = {question.flag[0]: p * mass, question.ok[0]: (1 - p) * mass}
    return [right.get(label, 0) for label in labels]

  def label_logps(request):
    asked.append(request)
    labels = [MODEL.text(ids) for ids in request.labels]
    found = [one(ids, labels) for ids in request.prompts]
    with np.errstate(divide='ignore'):
      return np.log(np.array(found, float).reshape(-1, len(labels)))

  def generate(request):
    asked.append(request)
    return [say(MODEL.tokenizer.decode(ids)) for ids in request.prompts]

  def pair_logps(request):
    asked.append(request)
    of = lambda pair: (len(pair.chosen), len(pair.rejected))
    return logp * np.array([of(p) for p in request.pairs], float)

  backend = dataclasses.replace(
    ALONE, label_logps=label_logps, generate=generate, pair_logps=pair_logps
  )
  engine = Engine(MODEL, {}, backend)
  framing = FRAMINGS[settings.pop('framing', 'ethical')]
  review = fields.Review(**settings.pop('review', {}))
  return prompts.Conscience(
    framing=framing,
    settings=fields.Conscience(review=review, **settings),
    sample=fields.Sample(),
    dpo=fields.DPO(),
    policy=engine,
    frozen=engine,
  ), asked
