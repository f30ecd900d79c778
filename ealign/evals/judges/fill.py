"""A judge's prompt, filled with a question and an answer that is hostile text.

A prompt names `{question}` and `{answer}`, and `{mark}` if it fences them by a
mark of its own: a word that nobody who wrote the text can know, as it is made
of the text's hash. All are put in at once, so that an answer with '{question}'
in it stays as it is; and never by str.format, as answers hold braces.

A prompt without `{mark}`, such as those of public files, is used as it is. It
often sets the text between lines of its own, as [ANSWER START] and
[ANSWER END]; where the judged text writes such a line itself its brackets
become round ones. Nothing else of an answer is changed.

Beyond this the text can do nothing to the judge's chat: `data.chat` never makes
a special token of it, so it cannot end the turn it stands in.
"""

import hashlib
import re

from ealign.runtime.errors import UserError

_NAMES = re.compile(r'\{(question|answer|mark|right|wrong)\}')
_ROUND = str.maketrans('[]<>{}', '()()()')
_LONGEST = 40  # characters of a line that is taken for a mark


def fill(prompt: str, question: str, answer: str, **more: str) -> str:
  """The prompt with question and answer in their places.

  more: `right` and `wrong`, reference answers, for a judge that has them.
  """
  fence = fences(prompt)
  texts = more | {
    'question': apart(question, fence),
    'answer': apart(answer, fence),
    'mark': mark(question, answer),
  }
  put = lambda found: texts.get(found[1], found[0])
  return _NAMES.sub(put, prompt)


def mark(question: str, answer: str) -> str:
  """Twelve letters and digits that an exchange of these texts cannot hold."""
  text = f'{len(question)} {question}{answer}'.encode('utf-8', 'replace')
  return hashlib.sha256(text).hexdigest()[:12]


def fences(prompt: str) -> tuple[str, ...]:
  """The lines by which a prompt sets off what is put into it.

  They stand right before and after a line with a name alone, and are short. A
  prompt with `{mark}` needs none.
  """
  if '{mark}' in prompt:
    return ()
  lines = [line.strip() for line in prompt.split('\n')]
  found = []
  for i, line in enumerate(lines):
    if _NAMES.fullmatch(line):
      found += lines[max(0, i - 1) : i] + lines[i + 1 : i + 2]
  short = (line for line in found if 3 <= len(line) <= _LONGEST)
  # A sentence is no mark: it ends as one, or it is put in itself.
  marks = (x for x in short if not x.endswith((':', '.')) and '{' not in x)
  return tuple(dict.fromkeys(marks))


def apart(text: str, fence: tuple[str, ...]) -> str:
  """The text, in which no line of the fence stands."""
  for line in fence:
    words = r'\s*'.join(re.escape(word) for word in _pieces(line))
    text = re.sub(words, lambda found: _other(found[0]), text, flags=re.I)
  return text


def _pieces(line: str) -> list[str]:
  """Words and single marks: between them blanks may vary."""
  return re.findall(r'\w+|[^\w\s]', line)


def _other(found: str) -> str:
  changed = found.translate(_ROUND)
  return changed if changed != found else ' '.join(found)


def check(prompt, where: str) -> str:
  """A judge's prompt as it was given.

  Raises:
    UserError: it is no text, or has no place for the answer.
  """
  if not isinstance(prompt, str) or not prompt.strip():
    raise UserError(f'{where}: must be text, not {str(prompt)[:40]!r}')
  if '{answer}' not in prompt:
    raise UserError(
      f'{where}: has no {{answer}}, where the judged text belongs: put it in'
    )
  return prompt
