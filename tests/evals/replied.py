"""Chat completions and a server that replies with them, for the tests."""

import json
import math

from ealign.evals.judges import endpoint
from ealign.evals.judges.endpoint import replies
from ealign.evals.judges.endpoint.kept import Kept

CHAT = [{'role': 'user', 'content': 'How well does this answer?'}]
KEY = 'sk-secret-0123456789'


def chats(n):
  return [
    ({'role': 'user', 'content': f'Answer {i}: fine.'},) for i in range(n)
  ]


def body(top, path=None, **more):
  """A chat completion whose first token has these likeliest tokens."""
  entry = lambda t, p: {'token': t, 'logprob': math.log(p), 'bytes': None}
  path = path or [top[0][0]]
  first = {'top_logprobs': [entry(*pair) for pair in top]}
  steps = [{'token': t, 'logprob': -0.1, 'top_logprobs': []} for t in path]
  steps[0] |= first
  choice = {
    'index': 0,
    'message': {'role': 'assistant', 'content': ''.join(path)},
    'finish_reason': 'length',
    'logprobs': {'content': steps},
  }
  return {
    'id': 'chatcmpl-1',
    'object': 'chat.completion',
    'created': 1,
    'model': 'judge-1',
    'system_fingerprint': 'fp_1',
    'choices': [choice],
    'usage': {'prompt_tokens': 50, 'completion_tokens': 1, 'total_tokens': 51},
  } | more


def parse(data):
  return replies.parse(json.dumps(data).encode())


def with_choice(**more):
  data = body([('85', 0.9)])
  data['choices'][0] |= more
  return data


def endless(top=(('85', 0.9),), **how):
  """A `send` that replies the same to all, and the requests it got."""
  asked = []

  def send(request):
    asked.append(request)
    return json.dumps(body(list(top), **how)).encode()

  return send, asked


def at(send, path=None, **how):
  how = {'say': lambda _: None, 'workers': 4} | how
  return endpoint.Endpoint('m', send, Kept(path), **how)
