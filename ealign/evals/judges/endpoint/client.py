"""Sends a request with the package `openai`, for its settings and its proxies.

The body is read here, up to a size and a time, and parsed by `replies`: what a
server sends is not trusted. The key stays in the client; what others say of an
error has it cut out.
"""

import os
import time
import urllib.parse
from collections.abc import Callable, Mapping

from ealign.evals.judges.endpoint.retries import Again, failure
from ealign.runtime.errors import UserError

ADDRESS = 'https://api.openai.com/v1'
BODY = 4 * 2**20  # bytes; a reply with 20 x 16 log-probabilities has 50,000


def address() -> str:
  """Where OPENAI_BASE_URL points, without a user, a password or a query.

  Raises:
    UserError: it is no address.
  """
  text = os.environ.get('OPENAI_BASE_URL', '').strip() or ADDRESS
  try:
    url = urllib.parse.urlsplit(text)
    host, port = url.hostname, url.port
  except ValueError:
    host = None
  if not host or url.scheme not in ('http', 'https'):
    raise UserError(
      f'OPENAI_BASE_URL must be an address such as {ADDRESS} or '
      'http://localhost:8000/v1'
    )
  host = f'[{host}]' if ':' in host else host
  host = f'{host}:{port}' if port else host
  return f'{url.scheme}://{host}{url.path.rstrip("/")}'


def key(where: str) -> str:
  """The key in OPENAI_API_KEY, which no message shows.

  Raises:
    UserError: there is none, or it cannot be sent.
  """
  found = os.environ.get('OPENAI_API_KEY', '').strip()
  if not found:
    raise UserError(
      f'{where}: OPENAI_API_KEY is not set; set it to your key, or to any word '
      'for a server of your own that asks for none'
    )
  if not (found.isascii() and found.isprintable() and ' ' not in found):
    raise UserError(f'{where}: OPENAI_API_KEY has characters no key has')
  return found


def sender(
  where: str, *, seconds: float
) -> tuple[Callable[[Mapping], bytes], Callable[[str], str], str]:
  """(send, hide, address) for an `Endpoint`.

  `send` raises what `retries.failure` returns, `Again` for a connection that
  failed or took longer than `seconds`.

  Raises:
    UserError: the package, the key or a sound address is missing.
  """
  try:
    import openai
  except ImportError:
    raise UserError(
      f"{where}: needs the package openai; pip install 'ealign[openai]'"
    ) from None
  secret, host = key(where), address()
  base = os.environ.get('OPENAI_BASE_URL', '').strip() or ADDRESS
  secrets = [secret, urllib.parse.urlsplit(base).password]
  client = openai.OpenAI(
    api_key=secret, base_url=base, max_retries=0, timeout=seconds
  )
  create = client.chat.completions.with_streaming_response.create

  def send(request: Mapping) -> bytes:
    until = time.monotonic() + seconds
    try:
      with create(**request) as response:
        return _read(response.iter_bytes(), until, seconds)
    except (Again, UserError):
      raise
    except openai.APIStatusError as error:
      response = error.response
      raise failure(
        error.status_code, dict(response.headers), response.content
      ) from None
    except openai.APITimeoutError:
      raise Again(f'no reply within {seconds:g} s') from None
    except Exception as error:  # also of the HTTP library, whichever it is
      cause = error.__cause__ or error
      raise Again(f'{type(error).__name__}: {cause}') from None

  def hide(text: str) -> str:
    for word in filter(None, secrets):
      text = text.replace(word, '[key]')
    return text

  return send, hide, host


def _read(chunks, until: float, seconds: float) -> bytes:
  body = bytearray()
  for chunk in chunks:
    body += chunk
    if len(body) > BODY:
      raise UserError(f'a reply of more than {BODY:,} bytes; this is no judge')
    if time.monotonic() > until:
      raise Again(f'no whole reply within {seconds:g} s')
  return bytes(body)
