"""Every field of a run: its name, type, default and meaning, in one place.

Frozen and hashable, so that a Config is safe as a static argument; this is
what the code is given. `ealign.config` makes it from a ConfigDict.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class LoRA:
  rank: int = 32
  alpha: float = 64.0
  rslora: bool = True  # scale = alpha / sqrt(rank) instead of alpha / rank
  targets: tuple[str, ...] = ('q', 'k', 'v', 'o', 'gate', 'up', 'down')


@dataclasses.dataclass(frozen=True)
class Model:
  path: str = 'ealign:world/base'  # a Hugging Face folder, or a Hub id
  adapter: str = ''  # start from it: folder of a run or PEFT's, or 'arm:<name>'
  frozen_adapter: str = ''  # adapter merged into the frozen tree, likewise
  init: str = 'weights'  # weights | random
  dtype: str = 'auto'  # float32 | bfloat16 | auto: by device
  remat: str = 'none'  # none | dots | full
  attention: str = 'auto'  # splash | cudnn | xla | auto: by device
  quantize: str = 'none'  # none | int8: projections of what is frozen
  train: str = 'lora'  # lora | full
  lora: LoRA = LoRA()


@dataclasses.dataclass(frozen=True)
class Mesh:
  """Sizes whose product is the number of devices; one may be -1: the rest."""

  arm: int = 1  # groups of devices, each with its arms of a grid's program
  data: int = -1  # copies of the weights, each with its rows
  fsdp: int = 1  # weights and rows are split
  tensor: int = 1  # heads, feed-forward and vocabulary are split


@dataclasses.dataclass(frozen=True)
class Data:
  train: str = ''  # SFT rows (docs/data.md); '' = none, lambda-only
  length: int = 256  # tokens of a packed row
  batch_size: int = 8  # packed rows of a step
  max_truncated: float = 0.01  # refuse data of which more does not fit
  # Replaces the system turn of SFT rows, and of nothing else; '' removes it.
  train_system: str | None = None
  chat_template_kwargs: tuple[tuple[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class Pool:
  """Prompts on which the policy is sampled; 'sft' = those of data.train."""

  paths: tuple[str, ...] = ('ealign:world/data/pool.jsonl',)
  weights: tuple[float, ...] = (1.0,)
  system: str | None = None  # replaces the prompts' system turn; '' removes it


@dataclasses.dataclass(frozen=True)
class Review:
  by: str = 'frozen'  # frozen | policy | other:<folder of a second model>
  sees: str = 'chat'  # chat | quoted | answer
  reasoning: str = 'kept'  # kept | stripped
  reason_tokens: int = 0  # tokens of reasoning before the verdict
  system: str = 'drop'  # drop | keep | own:<text>
  calibration: str = 'none'  # none | contextual
  verdict: str = 'question'  # question | inverted | random | all
  random_rate: float = 0.25  # flagged share of verdict 'random'


@dataclasses.dataclass(frozen=True)
class Revise:
  by: str = 'frozen'  # frozen | policy | other:<folder of a second model>
  sees: str = 'review'  # review | fresh | prompt
  temperature: float = 1.0


@dataclasses.dataclass(frozen=True)
class Conscience:
  every: int = 4  # steps between reflections; 0 = never
  prompts: int = 16  # prompts of a reflection
  samples: int = 1  # answers per prompt
  threshold: float = 0.5  # flagged iff P(flag) >= threshold
  min_mass: float = 0.25  # below this label mass a row has no verdict
  framing: str = 'ethical'  # a known framing, or a .json or .yaml file
  review: Review = Review()
  revise: Revise = Revise()


@dataclasses.dataclass(frozen=True)
class Sample:
  temperature: float = 1.0  # 0 = greedy
  top_p: float = 1.0  # 1 = off
  top_k: int = 0  # 0 = off
  max_new_tokens: int = 64
  max_candidates: int = 256  # static cap of top-k and top-p

  @property
  def candidates(self) -> int | None:
    """The cap, a static number; None where neither top-k nor top-p is on."""
    off = self.top_k == 0 and self.top_p >= 1
    return None if off else self.max_candidates


@dataclasses.dataclass(frozen=True)
class DPO:
  lam: float = 0.1  # weight of the DPO loss; 0 = plain SFT
  beta: float = 0.1
  label_smoothing: float = 0.0
  variant: str = 'sigmoid'  # sigmoid | ipo | sft (on alternatives only)
  pairs: int = 8  # pair slots of a step
  length: int = 256  # tokens of prompt and answer
  reference: str = 'cached'  # cached | step


@dataclasses.dataclass(frozen=True)
class Replay:
  capacity: int = 4096
  eviction: str = 'oldest'  # oldest | reservoir | newest | flagged
  draw: str = 'uniform'  # uniform | newest
  max_uses: int = 0  # 0 = no limit
  max_age: int = 0  # steps; 0 = no limit


@dataclasses.dataclass(frozen=True)
class Optim:
  lr: float = 1e-4
  schedule: str = 'constant'  # constant | linear | cosine
  warmup: int = 0  # steps
  weight_decay: float = 0.0
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  clip: float = 1.0  # global norm; 0 = off


@dataclasses.dataclass(frozen=True)
class Train:
  steps: int = 200
  microbatches: int = 1
  chunk: int = 512  # tokens whose logits exist at a time, on each device
  log_every: int = 10
  checkpoint_every: int = 100
  keep: int = 2  # checkpoints
  eval_every: int = 0  # 0 = only at the end
  export: str = ''  # peft | merged | full: written to DIR/export at the end


@dataclasses.dataclass(frozen=True)
class Eval:
  questions: tuple[str, ...] = ()  # JSONL files asked at the end
  curve: tuple[str, ...] = ()  # JSONL files asked during training
  tokens: str = ''  # chats predicted by teacher forcing at the end
  judge: str = ''  # '' = none | world | a file.py:name
  samples: int = 1  # answers per question
  curve_samples: int = 1  # the same for evaluations during training
  batch: int = 64  # rows sampled at once
  max_new_tokens: int = 64
  temperature: float = 1.0
  kinds: tuple[str, ...] = ()  # () = all
  limit: int = 0  # questions of each kind at the end; 0 = all
  curve_limit: int = 64  # of each kind during training; 0 = all


@dataclasses.dataclass(frozen=True)
class Log:
  tensorboard: bool = False


@dataclasses.dataclass(frozen=True)
class Config:
  """One run. Made by `freeze`; the fields' meaning stands beside them."""

  seed: int = 0
  model: Model = Model()
  mesh: Mesh = Mesh()
  data: Data = Data()
  pool: Pool = Pool()
  conscience: Conscience = Conscience()
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


def reflects(lam: float | None, every: int | None) -> bool:
  """The same of `dpo.lam` and `conscience.every` as a file has them."""
  return bool(lam and every and lam > 0 and every > 0)
