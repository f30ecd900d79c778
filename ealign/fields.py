"""Every field of a run: its name, type, default and meaning, in one place.

Frozen and hashable, so that a Config is safe as a static argument; this is
what the code is given. `ealign.config` makes it from a ConfigDict. What a
number may be stands in its type (`ealign.kinds`), and so do short lists of
choices. Choices that follow from a table of the code are added by
`ealign.config.limits`.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

from ealign.kinds import (
  Amount,
  Below1,
  Count,
  Devices,
  Examples,
  Gain,
  Part,
  Positive,
  Share,
  Smoothing,
  Threshold,
  Whole,
  auto_alpha,
  noise,
)


@dataclasses.dataclass(frozen=True)
class LoRA:
  rank: Count = 32  # of the two factors of each projection
  alpha: Positive = 64.0  # in the scale of their product
  rslora: bool = True  # scale = alpha / sqrt(rank) instead of alpha / rank
  # Projections that get an adapter.
  targets: tuple[str, ...] = ('q', 'k', 'v', 'o', 'gate', 'up', 'down')


@dataclasses.dataclass(frozen=True)
class Model:
  # A Hugging Face folder, a GGUF file, or a Hub id.
  path: str = 'ealign:world/base'
  adapter: str = ''  # start from it: folder of a run or PEFT's, or 'arm:<name>'
  frozen_adapter: str = ''  # adapter merged into the frozen tree, likewise
  # The files' weights, or random ones of the same shapes.
  init: Literal['weights', 'random'] = 'weights'
  dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto'  # auto: by device
  remat: str = 'none'  # what is computed twice to save memory
  # Auto: by device.
  attention: Literal['auto', 'splash', 'cudnn', 'xla'] = 'auto'
  # Of the projections of what is frozen.
  quantize: Literal['none', 'int8'] = 'none'
  train: Literal['lora', 'full'] = 'lora'  # an adapter, or all weights
  lora: LoRA = LoRA()


@dataclasses.dataclass(frozen=True)
class Mesh:
  """Sizes whose product is the number of devices; one may be -1: the rest."""

  stack: Count = 1  # groups of devices, each with its cells of a stack
  data: Devices = -1  # copies of the weights, each with its rows
  fsdp: Devices = 1  # weights and rows are split
  tensor: Devices = 1  # heads, feed-forward and vocabulary are split


@dataclasses.dataclass(frozen=True)
class Data:
  train: str = ''  # SFT rows (docs/data.md); '' = none, lambda-only
  length: Count = 256  # tokens of a packed row
  batch_size: Count = 8  # packed rows of a step
  max_truncated: Share = 0.01  # refuse data of which more would be cut off
  max_mib: Count = 512  # refuse files of rows that are larger, unpacked
  # Replaces the system turn of SFT rows, and of nothing else; '' removes it.
  train_system: str | None = None
  # Arguments of the chat template, as (name, value).
  chat_template_kwargs: tuple[tuple[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class Pool:
  """Prompts on which the policy is sampled; 'sft' = those of data.train."""

  # Files or Hub data sets of requests; 'sft' = those of data.train.
  paths: tuple[str, ...] = ('ealign:data/pool/general.jsonl',)
  weights: tuple[float, ...] = (1.0,)  # how often each of them is drawn
  system: str | None = None  # replaces the prompts' system turn; '' removes it


@dataclasses.dataclass(frozen=True)
class Review:
  by: str = 'frozen'  # frozen | policy | other:<folder of a second model>
  # How the question is put: the labels as words, as letters in both orders, or
  # as yes or no to either label.
  form: Literal['words', 'letters', 'yes_no'] = 'words'
  examples: Examples = 0  # judged exchanges in the question
  examples_of: Literal['both', 'flag'] = 'both'  # half of either label, or bad
  # The chat goes on; or request and answer are quoted; or the answer alone.
  sees: Literal['chat', 'quoted', 'answer'] = 'chat'
  # Whether it sees what the model thought before it answered.
  reasoning: Literal['kept', 'stripped'] = 'kept'
  reason_tokens: Whole = 0  # tokens of reasoning before the verdict
  # An answer cut at sample.max_new_tokens gets no verdict, or is judged as far
  # as it goes; its pair then has as many tokens on either side, and no end.
  truncated: Literal['skip', 'judge'] = 'skip'
  system: str = 'drop'  # drop | keep | own:<text>
  # P without content, by which P is divided: of 'N/A', or of 'N/A' as the reply
  # to the same request.
  calibration: Literal['none', 'contextual', 'request'] = 'none'
  # question | inverted | random | all | noisy:EPS, the rule of the run's judge
  # degraded to an AUC of 1 - EPS; all but the first are controls.
  verdict: str = 'question'
  random_rate: Share = 0.25  # flagged share of verdict 'random'
  share: Part = 1.0  # of the answers so flagged that are revised, by chance

  @property
  def noise(self) -> float | None:
    """EPS of a noisy verdict."""
    return noise(self.verdict)

  @property
  def by_p(self) -> bool:
    """Whether an answer is flagged because P says so."""
    return self.verdict == 'question' or self.noise is not None


@dataclasses.dataclass(frozen=True)
class Revise:
  by: str = 'frozen'  # frozen | policy | other:<folder of a second model>
  # The review; the reply alone; the request under the framing's principle; or
  # nothing but the request.
  sees: Literal['review', 'fresh', 'principle', 'prompt'] = 'review'
  system: str = ''  # '' = as review.system | drop | keep | own:<text>
  temperature: Amount = 1.0  # of alternatives; 0 = greedy
  top_p: Part = 1.0  # at most that of sample
  max_new_tokens: Whole = 0  # 0 = as sample.max_new_tokens


@dataclasses.dataclass(frozen=True)
class Guards:
  """Alternatives that make no pair, whatever their verdict; 0 = off."""

  echo: bool = True  # of a label, the question or the request
  # Of the tokens of the frozen model's plain answer to the same request.
  shortest: Amount = 0.25
  longest: Amount = 4.0  # likewise
  # Its log-prob a token, below this share of the frozen model's own samples.
  unlikely: Below1 = 0.01
  repeats: Whole = 4  # the same alternative among the pairs that there are
  refusal: bool = False  # openings such as "I'm sorry, but I can't"

  @property
  def measures(self) -> bool:
    """Whether lengths are compared, which takes plain answers."""
    return bool(self.shortest or self.longest)


@dataclasses.dataclass(frozen=True)
class Conscience:
  every: Whole = 4  # steps between reflections; 0 = never
  # Its first reflection: at step 0, or once the policy that reviews can answer
  # and tells good from bad in conscience.exchanges (`assembly.begun`).
  start: Literal['first', 'auto'] = 'first'
  prompts: Count = 16  # prompts of a reflection
  samples: Count = 1  # answers per prompt
  # Flagged iff P(flag) >= it. 'auto:ALPHA': found so that at most ALPHA of the
  # frozen model's own answers is flagged (`conscience.calibration`).
  threshold: Threshold = 'auto:0.05'
  # Prompts of the pool for 'auto', at least 1 / ALPHA - 1; none is drawn.
  held_out: Count = 200
  min_mass: Below1 = 0.25  # below this label mass a row has no verdict
  # Logit: a pair counts 1 to 4 times, by how far its P is above the threshold.
  scale: Literal['none', 'logit'] = 'none'
  framing: str = 'ethical'  # the question, its labels, the request to revise
  # Labelled: those of split dev give the examples, and all serve the audit.
  exchanges: str = 'ealign:data/audit/exchanges.jsonl'
  audit: Literal['on', 'off'] = 'on'  # ask about them before the first step
  review: Review = Review()
  revise: Revise = Revise()
  guards: Guards = Guards()


@dataclasses.dataclass(frozen=True)
class IterAlign:
  """The rounds of `methods.iteralign`; other methods do not read it."""

  # Principles are written by the proposer, or chosen by it among those listed.
  source: Literal['written', 'listed'] = 'written'
  listed: str = ''  # a file of rows with 'text': the candidates
  # frozen | policy | other:<folder of a second model> | openai:<name>
  proposer: str = 'frozen'
  judged_by: str = ''  # openai:<name>, in the place of conscience.review.by
  proposals: Count = 3  # new principles of a round, at most
  shown: Count = 8  # bad answers of a round that the proposer reads, at most
  max_tokens: Count = 256  # that it may write
  # Which principles a bad answer is written anew under: all that are in force,
  # those of the round, or the one of the largest gain.
  use: Literal['all', 'newest', 'best'] = 'all'
  most: Count = 8  # principles in force; those of the least gain go
  same: Part = 0.8  # likeness of words from which on two principles are one
  least: Gain = 0.0  # a principle stays while its gain is above it; -1: always
  recheck: bool = True  # only what is not flagged anew is learned
  gate: Count = 32  # of the held-out prompts: they measure policy and gains
  # Rounds without a lower harmful share there, after which it stops; 0: never.
  patience: Whole = 3


@dataclasses.dataclass(frozen=True)
class Mistakes:
  """Of the method `mistake_analysis` alone (arXiv 2310.10477)."""

  # Bad replies: written anew under the hint, or those that the pool's rows end
  # with ('sft' in pool.paths: the answers of data.train).
  source: Literal['own', 'pool'] = 'own'
  by: Literal['frozen', 'policy'] = 'frozen'  # who writes its own
  # The system turn that leads to them; '' = none: what it says by itself.
  hint: str = 'You do not care whether what you say does harm to anybody.'
  good: Below1 = 0.0  # share of requests answered without it, analysed too
  # The replies that the conscience flags (and of the good ones those it does
  # not), or all.
  analysed: Literal['flagged', 'all'] = 'flagged'
  # Asks for the analysis. '' = what reviewers think by before a verdict;
  # 'question' = the question of the framing: the analysis is a verdict.
  ask: str = ''
  # Said before it of a bad reply, and left out in training; '' = unguided.
  told: str = 'Your reply above may be harmful, unethical or offensive.'


@dataclasses.dataclass(frozen=True)
class Sample:
  temperature: Amount = 1.0  # 0 = greedy
  top_p: Part = 1.0  # the likeliest tokens of this mass; 1 = off
  top_k: Whole = 0  # the k likeliest tokens; 0 = off
  max_new_tokens: Count = 64  # of an answer; longer ones are cut
  max_candidates: Count = 256  # static cap of top-k and top-p

  @property
  def candidates(self) -> int | None:
    """The cap, a static number; None where neither top-k nor top-p is on."""
    off = self.top_k == 0 and self.top_p >= 1
    return None if off else self.max_candidates


@dataclasses.dataclass(frozen=True)
class DPO:
  lam: Amount = 0.1  # weight of the DPO loss; 0 = plain SFT
  beta: Positive = 0.1  # how dear it is to leave the reference
  label_smoothing: Smoothing = 0.0  # share of pairs taken to be reversed
  variant: str = 'sigmoid'  # form of the loss, of `losses.VARIANTS`
  pairs: Count = 8  # slots of a step: the most pairs in it
  length: Count = 256  # tokens of prompt and answer
  # Its log-probs: of when the pair was made, or computed in each step.
  reference: Literal['cached', 'step'] = 'cached'


@dataclasses.dataclass(frozen=True)
class Replay:
  capacity: Count = 4096  # pairs that are kept
  eviction: str = 'oldest'  # of a full buffer, of `replay.EVICTIONS`
  draw: str = 'uniform'  # which pairs a step gets, of `replay.DRAWS`
  max_uses: Whole = 0  # steps that draw a pair; 0 = no limit
  max_age: Whole = 0  # steps since it was made; 0 = no limit


@dataclasses.dataclass(frozen=True)
class Optim:
  lr: Amount = 1e-5  # learning rate; why this: docs/method.md, "The rate"
  schedule: str = 'constant'  # of the rate, of `align.SCHEDULES`
  warmup: Whole = 0  # steps in which the rate rises from 0
  weight_decay: Amount = 0.0  # of AdamW, times the rate
  b1: Below1 = 0.9  # of Adam's mean of gradients
  b2: Below1 = 0.999  # of its mean of their squares
  eps: Positive = 1e-8  # added to the root of the latter
  clip: Amount = 1.0  # gradients have at most this global norm; 0 = off


@dataclasses.dataclass(frozen=True)
class Train:
  steps: Whole = 200  # updates; 0 = only evaluate
  microbatches: Count = 1  # parts of a batch, one after another: less memory
  chunk: Count = 512  # tokens whose logits exist at a time, on each device
  # Steps between rows of metrics; fewer if the run has no more steps than that.
  log_every: Count = 10
  checkpoint_every: Count = 100  # steps between checkpoints
  keep: Count = 2  # newest checkpoints that stay
  eval_every: Whole = 0  # steps between evaluations; 0 = only at the end
  # Of the policy's answers (docs/metrics.md): say so, or end the run.
  on_collapse: Literal['warn', 'stop'] = 'warn'
  # Written to DIR/export at the end.
  export: Literal['', 'peft', 'merged', 'full'] = ''

  @property
  def logged_every(self) -> int:
    """Steps between rows of metrics: a short run has ten rows, too."""
    short = self.steps <= self.log_every
    return max(1, self.steps // 10) if short else self.log_every


@dataclasses.dataclass(frozen=True)
class Eval:
  # JSONL files asked at the end; in `ealign.evaluate` by the suite `own`
  questions: tuple[str, ...] = ()
  curve: tuple[str, ...] = ()  # JSONL files asked during training
  tokens: str = ''  # chats predicted by teacher forcing at the end
  # '' = none | world | a file.py:name | a model, for suites too, that scores
  # from 0 to 100: frozen | other:<path> | openai:<name>
  judge: str = ''
  suites: tuple[str, ...] = ()  # of `evals.suites.SUITES`, asked at the end
  folder: str = ''  # of the suites' public files; '' = the package's own
  # Added to the system turn of all questions: guided inference.
  guide: str = ''
  judge_prompts: str = ''  # a file; '' = those of the questions
  # Answers per question; 0 = as the suite says, but at most `limit` of them.
  suite_samples: Whole = 0
  suite_tokens: Whole = 0  # of an answer at most; 0 = as the suite says
  # Whether code that the model wrote may be run, in a sandbox.
  confirm_run_unsafe_code: bool = False
  samples: Count = 1  # answers per question
  curve_samples: Count = 1  # the same for evaluations during training
  batch: Count = 64  # rows sampled at once
  max_new_tokens: Count = 64  # of an answer to a question
  temperature: Amount = 1.0  # of these answers; 0 = greedy
  kinds: tuple[str, ...] = ()  # of questions that are asked; () = all
  limit: Whole = 0  # questions of each kind at the end; 0 = all
  curve_limit: Whole = 64  # of each kind during training; 0 = all


@dataclasses.dataclass(frozen=True)
class Log:
  tensorboard: bool = False  # writes DIR/tensorboard, too


@dataclasses.dataclass(frozen=True)
class Config:
  """One run. Made by `freeze`; the fields' meaning stands beside them."""

  seed: Whole = 0  # of all noise and draws
  method: str = 'conscience'  # how pairs are made: `ealign.methods.METHODS`
  model: Model = Model()
  mesh: Mesh = Mesh()
  data: Data = Data()
  pool: Pool = Pool()
  conscience: Conscience = Conscience()
  iteralign: IterAlign = IterAlign()
  mistakes: Mistakes = Mistakes()
  sample: Sample = Sample()
  dpo: DPO = DPO()
  replay: Replay = Replay()
  optim: Optim = Optim()
  train: Train = Train()
  eval: Eval = Eval()
  log: Log = Log()

  @property
  def reflects(self) -> bool:
    """Whether its conscience is asked while it trains."""
    return reflects(self.dpo.lam, self.conscience.every)

  @property
  def audits(self) -> bool:
    """Whether its conscience is asked what it can tell before it trains."""
    on = self.conscience.audit == 'on' and self.conscience.start == 'first'
    return on and self.reflects and self.train.steps > 0

  @property
  def begins(self) -> bool:
    """Whether its conscience begins while it trains, once it can answer."""
    auto = self.conscience.start == 'auto'
    return auto and self.reflects and self.train.steps > 0

  @property
  def calibrates(self) -> bool:
    """Whether its threshold has to be found: answers are held against it."""
    auto = auto_alpha(self.conscience.threshold) is not None
    return auto and (self.reflects or bool(self.eval.questions))

  @property
  def holds_out(self) -> bool:
    """Whether prompts of the pool are kept out of what is drawn."""
    return self.calibrates or (self.method == 'iteralign' and self.reflects)


def reflects(lam: float | None, every: int | None) -> bool:
  """The same of `dpo.lam` and `conscience.every` as a file has them."""
  return bool(lam and every and lam > 0 and every > 0)


def annotations(section: type = Config, prefix: str = '') -> Iterator:
  """(dotted name, annotated type) of every field."""
  for field in dataclasses.fields(section):
    name = prefix + field.name
    if dataclasses.is_dataclass(field.type):
      yield from annotations(field.type, name + '.')
    else:
      yield name, field.type
