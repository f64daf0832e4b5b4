"""Answers as an SGLang server does, at once and with made-up tokens.

    python fake_server.py BEHAVIOUR ... --port N

BEHAVIOUR: serves | off (a little wrong) | fails (ends before it listens) | dies (on its sixth request)
         | forks (a child ignores SIGTERM)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

asked = 0


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.tell({"attention_backend": "none"} if self.path == "/server_info" else None)

    def do_POST(self) -> None:
        global asked  # noqa: PLW0603
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked += 1
        if sys.argv[1] == "dies" and asked == 6:
            print("a kernel gave up", flush=True)
            os._exit(9)
        time.sleep(0.0005 * body["sampling_params"]["max_new_tokens"])
        self.tell([answer(prompt, body["sampling_params"]["max_new_tokens"]) for prompt in body["input_ids"]])

    def tell(self, answer: object) -> None:
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


def answer(prompt: list[int], new: int) -> dict[str, object]:
    """Logprobs that a server which is `off` gets a little wrong."""
    step = 1.001 if sys.argv[1] == "off" else 1.0
    before = [[None, prompt[0], None], *([-step, token, None] for token in prompt[1:])]
    after = [[-step, 7, None] for _ in range(new)]
    return {"output_ids": [7] * new, "meta_info": {"input_token_logprobs": before, "output_token_logprobs": after}}


if __name__ == "__main__":
    if sys.argv[1] == "fails":
        sys.exit("no such kernel image is available")
    if sys.argv[1] == "forks":
        subprocess.Popen(
            [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"]
        )
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Answers).serve_forever()
