"""The programs that ask the suites of a run and judge the answers."""

import dataclasses

from ealign.data import messages
from ealign.engine import Model
from ealign.evals import suites
from ealign.evals.judges import fill
from ealign.evals.judges.prompts import WORDS, Prompts
from ealign.fields import Config, Sample
from ealign.plan import programs
from ealign.plan.programs import Program, Shapes
from ealign.sampling import labels, scale
from ealign.sampling import tree as tree_lib
from ealign.sampling.prompts import bucket

NAMES = {
  'ask': 'reads the questions of suites',
  'answer': 'samples an answer to each, all tokens',
  'judge': 'reads answers and scores them from 0 to 100',
}


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What the suites of a run are asked with.

  prompt: tokens of the longest question, padded. new: of the longest answer.
  judged: of the longest prompt of the judge, padded; 0: none scores from 0 to
  100. labels: what it may say, as tokens.
  """

  prompt: int
  new: int
  judged: int = 0
  labels: tuple[tuple[int, ...], ...] = ()


def sizes(config: Config, model: Model, judge: Model) -> Sizes | None:
  """The sizes of a run's suites; None where it has none.

  Raises:
    UserError: a file of questions is not there, or broken.
  """
  asked = suites.read(config.eval, config.data.max_mib)
  if not asked:
    return None
  rows = [row for _, own in asked for row in own]
  longest = max(len(model.prompt(row['messages'])) for row in rows)
  new = max(suite.max_new_tokens for suite, _ in asked)
  texts = [
    fill.fill(prompt, messages.request(row['messages']), '')
    for row in rows
    if 'judge_prompts' in row
    for prompt in Prompts().of(row)
  ]
  remote = config.eval.judge.startswith('openai:')
  if not texts or remote:
    return Sizes(bucket(longest), new)
  turns = ([{'role': 'user', 'content': text}] for text in texts)
  judged = bucket(max(len(judge.prompt(turn)) for turn in turns) + new)
  said = scale.exact(judge.ids, judge.end, WORDS).labels
  return Sizes(bucket(longest), new, judged, said)


def listed(run: Shapes, own: Sizes, judge=None) -> list[Program]:
  """The programs of the suites; rows are those of `eval.batch`.

  judge: the Config of a second model that judges; else the frozen one does.
  """
  rows, sample = run.config.eval.batch, Sample(max_new_tokens=own.new)
  asked = programs.gathered(run.model, run.mesh, run.of_policy, rows, own.new)
  names = ('ask', 'answer')
  found = [*programs.sampled(run, asked, sample, rows, own.prompt, names)]
  if own.judged:
    frozen, holds = run.of_frozen, 'judge' if judge else 'frozen'
    by = programs.gathered(judge or run.model, run.mesh, frozen, rows)
    tree = tree_lib.of(own.labels, rest=True)
    what = labels.Asked(others=True, rest=True)
    shape = rows, own.judged
    made = programs.scoring(run, 'judge', by, shape, tree, holds, what)
    found.append(made)
  return found
