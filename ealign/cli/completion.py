"""Prints what completes the words of `ealign` in a shell.

usage: ealign completion bash|zsh|fish

  bash  ealign completion bash > \\
          ~/.local/share/bash-completion/completions/ealign
  zsh   ealign completion zsh > DIR/_ealign, with DIR in $fpath
  fish  ealign completion fish > ~/.config/fish/completions/ealign.fish

It completes commands, flags, fields, their choices, configs and folders. The
words are those of the installed version: print it again after an update.
"""

import shlex
import sys

import ealign
from ealign.cli import start
from ealign.cli.commands import COMMANDS

USAGE = __doc__[__doc__.index('usage:') :].rstrip()

_BASH = r"""# bash completion of ealign {version}
_ealign() {
  local line="${COMP_LINE:0:COMP_POINT}" word command rest flag value found
  local breaks=''
  local -a flags=() fields=() more=() choices=() names=()
  word="${line##*[[:space:]]}"
  read -r _ command rest <<<"$line"
  COMPREPLY=()
  if [[ -z $rest && $command == "$word" ]]; then
    mapfile -t COMPREPLY < <(compgen -W '{commands}' -- "$word")
    return
  fi
  case $command in
{cases}
  esac
  case $command in
    {configured}) fields=({fields}) ;;
  esac
  flag="${word%%=*}" value="${word#*=}"
  if [[ $word == --*=* ]]; then
    case ${flag#--} in
{choices}
    config)
      mapfile -t names < <(
        compgen -W '{configs}' -- "$value"
        compgen -f -- "$value" | while read -r found; do
          if [[ -d $found ]]; then printf '%q/\n' "$found"
          elif [[ $found == *.py ]]; then printf '%q\n' "$found"; fi
        done
      ) ;;
    {files})
      mapfile -t names < <(compgen -f -- "$value" | while read -r found; do
        if [[ -d $found ]]; then printf '%q/\n' "$found"
        else printf '%q\n' "$found"; fi
      done) ;;
    {folders})
      mapfile -t names < <(compgen -d -- "$value" | while read -r found; do
        printf '%q/\n' "$found"
      done) ;;
    esac
    [[ ${#choices[@]} == 0 ]] ||
      mapfile -t names < <(compgen -W "${choices[*]}" -- "$value")
    COMPREPLY=("${names[@]/#/$flag=}")
  elif [[ $word == --config.* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "${fields[*]/#/--config.}" -- "$word")
  else
    mapfile -t COMPREPLY < <(compgen -W "${more[*]} ${flags[*]}" -- "$word")
  fi
  [[ ${#COMPREPLY[@]} != 1 || ${COMPREPLY[0]} != *[=/.] ]] ||
    compopt -o nospace 2>/dev/null
  # Readline replaces only what stands behind the last of these.
  [[ $COMP_WORDBREAKS != *=* ]] || breaks+='='
  [[ $COMP_WORDBREAKS != *:* ]] || breaks+=':'
  if [[ -n $breaks ]]; then
    found="${word%"${word##*[$breaks]}"}"
    COMPREPLY=("${COMPREPLY[@]#"$found"}")
  fi
}
complete -F _ealign ealign
"""

_ZSH = r"""#compdef ealign
# zsh completion of ealign {version}
_ealign() {
  local -a flags fields more choices
  if (( CURRENT == 2 )); then
    compadd -- {commands}
    return
  fi
  case ${words[2]} in
{cases}
  esac
  case ${words[2]} in
    {configured}) fields=({fields}) ;;
  esac
  if [[ $PREFIX == --*=* ]]; then
    local flag=${${PREFIX%%=*}#--}
    compset -P '*='
    case $flag in
{choices}
    config) compadd -- {configs}; _files -g '*.py' ;;
    {files}) _files ;;
    {folders}) _files -/ ;;
    esac
    compadd -a choices
  elif [[ $PREFIX == --config.* ]]; then
    compadd -S '' -- --config.$^fields
  else
    compadd -S '' -- ${(M)flags:#*[=.]}
    compadd -- $more ${flags:#*[=.]}
  fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _ealign "$@"
else
  compdef _ealign ealign
fi
"""


def main(argv: list[str] | None = None) -> int:
  """Prints the script of a shell; returns the exit code."""
  argv = sys.argv[1:] if argv is None else argv
  if start.HELP & set(argv):
    return start.show(USAGE)
  if len(argv) != 1 or argv[0] not in SHELLS:
    given = ' '.join(argv) or 'nothing'
    print(
      f'completion: {given!r}: must be one of {", ".join(SHELLS)}\n{USAGE}',
      file=sys.stderr,
    )
    return 2
  from ealign.cli import words

  return start.show(SHELLS[argv[0]](words.read()))


def of_bash(words) -> str:
  """The script for bash."""
  return _filled(_BASH, words)


def of_zsh(words) -> str:
  """The script for zsh."""
  return _filled(_ZSH, words)


def of_fish(words) -> str:
  """The script for fish."""
  lines = [f'# fish completion of ealign {ealign.__version__}']
  lines.append('complete -c ealign -f')
  for name, command in COMMANDS.items():
    about = f'-a {name} -d {shlex.quote(command.about)}'
    lines.append(f'complete -c ealign -n __fish_use_subcommand {about}')
  for name in COMMANDS:
    on = f"complete -c ealign -n '__fish_seen_subcommand_from {name}'"
    lines += [f'{on} -a {word}' for word in words.more.get(name, ())]
    for flag, valued in words.flags[name]:
      lines.append(f'{on} -l {flag}{_of_fish(words, flag) if valued else ""}')
    if name in words.configured:
      for field in words.fields:
        more = _of_fish(words, f'config.{field}')
        lines.append(f'{on} -l config.{field}{more}')
  return '\n'.join(lines)


def _of_fish(words, flag: str) -> str:
  """What a flag of fish takes."""
  from ealign.cli.words import FILES, FOLDERS

  if flag in words.choices:
    return f' -x -a {shlex.quote(" ".join(words.choices[flag]))}'
  if flag == 'config':
    given = " (__fish_complete_suffix .py)'"
    return f" -x -a '{' '.join(words.configs)}{given}"
  if flag in FOLDERS:
    return " -x -a '(__fish_complete_directories)'"
  return ' -r -F' if flag in FILES else ' -x'


def _filled(text: str, words) -> str:
  """A script for bash or zsh with the words in it."""
  from ealign.cli.words import FILES, FOLDERS

  cases = []
  for name in COMMANDS:
    flags = [f'--{n}{"=" * valued}' for n, valued in words.flags[name]]
    flags += ['--config.'] * (name in words.configured)
    more = ' '.join(words.more.get(name, ()))
    cases.append(f'    {name}) more=({more}) flags=({" ".join(flags)}) ;;')
  choices = [
    f'    {flag}) choices=({" ".join(map(shlex.quote, found))}) ;;'
    for flag, found in words.choices.items()
  ]
  values = {
    'version': ealign.__version__,
    'commands': ' '.join(COMMANDS),
    'cases': '\n'.join(cases),
    'configured': '|'.join(words.configured),
    'fields': ' '.join(f'{name}=' for name in words.fields),
    'choices': '\n'.join(choices),
    'configs': ' '.join(words.configs),
    'files': '|'.join(FILES),
    'folders': '|'.join(FOLDERS),
  }
  for name, value in values.items():
    text = text.replace(f'{{{name}}}', value)
  return text.rstrip()


SHELLS = {'bash': of_bash, 'zsh': of_zsh, 'fish': of_fish}
