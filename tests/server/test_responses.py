"""Response bodies in OpenAI's format."""

import math

from mmgpt.inference.answer import Piece, Token
from mmgpt.server.responses import ResponseBuilder


def test_log_probabilities_are_json():
    top = ((5, "a", -0.1), (6, "b", -math.inf))
    chunk = ResponseBuilder("tiny", logprobs=True).chunk({"content": "a"}, [Token(5, "a\ufffd", -math.inf, top)])
    assert chunk["choices"][0]["logprobs"]["content"] == [
        {
            "token": "a\ufffd",
            "logprob": -9999.0,
            "bytes": None,
            "top_logprobs": [
                {"token": "a", "logprob": -0.1, "bytes": [97]},
                {"token": "b", "logprob": -9999.0, "bytes": [98]},
            ],
        }
    ]


def test_ids_differ():
    assert ResponseBuilder("tiny").id != ResponseBuilder("tiny").id
    assert Piece("a").tokens == ()
