"""`python -m ealign.evaluate ... --plan`: what is asked, taken, and how long.

All that an evaluation would read is read but the weights; an adapter is, as its
shapes stand nowhere else. Models that are evaluated are there one after another
and then the judge, so a program has nothing beside it.
"""

import dataclasses
from collections.abc import Sequence

import jax

from ealign.assembly import evaluation, graders
from ealign.assembly import subjects as subjects_lib
from ealign.assembly.subjects import Subject
from ealign.evals import suites as suites_lib
from ealign.fields import Config
from ealign.models import flops
from ealign.plan import compiling, show, suites
from ealign.plan.inference import Held, placed
from ealign.runtime import mesh as mesh_lib
from ealign.runtime.errors import visible
from ealign.workdir.folder import Folder


@dataclasses.dataclass(frozen=True)
class _Alike:
  """Models of one shape, with questions of one size: they share programs."""

  names: list[str]
  model: object
  weights: object
  held: Held
  needs: list

  @property
  def title(self) -> str:
    more = len(self.names) - 1
    return self.names[0] + f' +{more}' * bool(more)


def plan(
  config: Config,
  found: Sequence[Subject],
  folder: Folder,
  *,
  slice_name: str = '',
) -> None:
  """Prints what an evaluation would be, and writes it to plan.json there.

  Args:
    config: its sections eval, mesh, data and model.
    found: the models.
    folder: of the evaluation.
    slice_name: such as 'v5e:4x4'; '': the devices that are here.

  Raises:
    UserError: a file, model, mesh or slice cannot be used, libtpu is missing,
      or the folder cannot be written.
    Unfit: a program does not fit, or wastes its chips.
  """
  mesh = mesh_lib.make(
    **dataclasses.asdict(config.mesh), devices=compiling.devices(slice_name)
  )
  subjects_lib.check_rows(mesh, config.eval.batch)
  screen = show.console()
  show.config(screen, compiling.own(config))
  asked = suites_lib.read(config.eval, config.data.max_mib)
  told = evaluation.costs(asked, found, config.eval)
  own = evaluation.of_itself(config, found, asked)
  told += [f'note: {line}' for line in own]
  for line in told:
    screen.print(visible(line), soft_wrap=True)
  screen.print()
  judge = _judge(config, found[0], asked)
  reads = judge and subjects_lib.outlined(judge, mesh)
  alike = _alike(config, found, asked, reads, mesh)
  sizes = {x.title: f'{flops.parameters(x.model):,}' for x in alike}
  show.pairs(screen, f'parameters; mesh {dict(mesh.shape)}', sizes)
  listed = _listed(alike, judge, reads, config, mesh)
  made = compiling.compiled(listed, screen, slice_name)
  facts = {'slice': slice_name, 'asked': told}
  facts['models'] = {x.title: x.names for x in alike}
  facts['judge'] = config.eval.judge if judge is None else judge.name
  facts['suites_s'] = show.suites(screen, suites.seconds(made))
  held = Held(config, mesh, {})
  compiling.conclude(held, made, screen, facts, folder)


def _judge(config: Config, first: Subject, asked) -> Subject | None:
  """What reads the answers; None: nothing does, or nothing that is here."""
  if not any(suite.judge.asks for suite, _ in asked):
    return None
  found = graders.reader(config, first)
  if config.eval.judge.startswith('other:'):
    subjects_lib.check(found)
  return found


def _alike(config, found, asked, reads, mesh) -> list[_Alike]:
  """The models by what is compiled for them."""
  groups: dict = {}
  for subject in found:
    model, weights = subjects_lib.outlined(subject, mesh)
    shapes = weights(model.config)
    judge = reads and reads[0]
    needs = suites.needs(asked, model, judge, config.eval, mesh)
    leaves, tree = jax.tree.flatten(shapes)
    sizes = tuple(suites.size(need) for need in needs)
    key = model.config, tree, tuple((x.shape, x.dtype) for x in leaves), sizes
    if key not in groups:
      own = dataclasses.replace(config, model=subject.base)
      held = Held(own, mesh, {'frozen': placed(mesh, shapes)})
      groups[key] = _Alike([], model.config, weights, held, needs)
    groups[key].names.append(subject.name)
  return [*groups.values()]


def _listed(alike, judge, reads, config, mesh) -> list:
  """The programs, each with what is there while it runs."""
  listed = []
  for own in alike:
    of = own.title if len(alike) > 1 else ''
    whose = lambda model, own=own, **arms: own.weights(model)
    needs = [suites.times(need, len(own.names)) for need in own.needs]
    made = suites.asked(own.held, needs, own.model, whose, of=of)
    listed += [(own.held, program) for program in made]
  if judge is None:
    return listed
  (model, weights), own = reads, dataclasses.replace(config, model=judge.base)
  there = {'frozen': placed(mesh, weights(model.config))}
  held = Held(own, mesh, there)
  needs = [
    suites.times(need, len(each.names)) for each in alike for need in each.needs
  ]
  made = suites.judged(held, needs, model.config, weights, 'frozen')
  return listed + [(held, program) for program in made]
