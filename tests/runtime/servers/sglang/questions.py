"""What servers are asked, and what one without a plan answers: started once for each family, whatever tests compare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .server import Server, serving

SHORT, LONG = list(range(5, 15)), list(range(7, 47))  # on both sides of a range's end
FOUR = [list(range(start, start + 9)) for start in (50, 60, 70, 80)]
CHUNKED = [94 - n % 90 for n in range(600)]  # no prefix that another prompt has left in the cache
PROMPTS = {"short": SHORT, "long": LONG, "chunked": CHUNKED}
BATCH = [list(range(start, start + 12)) for start in (20, 40, 60, 80)]
# Counts of tokens that two ranks divide evenly and that they do not, in every range; three prompts at once.
COUNTS = (1, 7, 8, 13, 16, 19, 28, 41)
THREE = [list(range(start, start + 7)) for start in (50, 60, 70)]


def answers(server: Server) -> list[list[int]]:
    """Tokens for prompts on both sides of a range's end, and for four prompts at once."""
    one = [server.generate(prompt)["output_ids"] for prompt in (SHORT, LONG)]
    return one + [answer["output_ids"] for answer in server.generate(FOUR)]


def logprobs(server: Server) -> list[float]:
    """Of every token of a prompt but the first. Not of the tokens that follow: INT8 may choose others at a near tie."""
    answer = server.generate(list(range(9, 49)), return_logprob=True, logprob_start_len=0)
    return [row[0] for row in answer["meta_info"]["input_token_logprobs"][1:]]


def counted(server: Server) -> tuple[list[list[int]], list[float]]:
    """Tokens that follow prompts of all counts, and the log-probabilities of the prompts' own and of those."""
    tokens, near = [], []
    for count in COUNTS:
        answer = server.generate(list(range(9, 9 + count)), return_logprob=True, logprob_start_len=0)
        tokens.append(answer["output_ids"])
        near += [row[0] for row in answer["meta_info"]["input_token_logprobs"][1:]]
        near += [row[0] for row in answer["meta_info"]["output_token_logprobs"]]
        tokens.append(server.generate([90 - token for token in range(count)])["output_ids"])
    return tokens + [answer["output_ids"] for answer in server.generate(THREE)], near


@dataclass(frozen=True)
class Stock:
    """What a server without a plan says to all of the above."""

    answers: list[list[int]]
    logprobs: list[float]
    counted: tuple[list[list[int]], list[float]]
    tokens: dict[str, list[int]]  # by name of PROMPTS
    batch: list[list[int]]


def ask_stock(model: Path, folder: Path) -> Stock:
    """Start a server without a plan, ask it everything, end it."""
    with serving(model, folder) as server:
        assert server.get("/server_info")["internal_states"][0].get("commplan") is None
        return Stock(
            answers(server),
            logprobs(server),
            counted(server),
            {name: server.generate(prompt)["output_ids"] for name, prompt in PROMPTS.items()},
            [answer["output_ids"] for answer in server.generate(BATCH)],
        )
