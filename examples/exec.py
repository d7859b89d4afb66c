#!/usr/bin/env python3
"""Runs a command confined, by JSON-RPC with Stockade's daemon.

    examples/exec.py [-p POLICY] COMMAND [ARGUMENT]...

The command's output comes as it is written, its exit status is ours. Nothing but the standard library.
"""

import base64
import json
import os
import socket
import sys


def raw(text):
    """The bytes that a string, or an object with base64, stands for."""
    return text.encode() if isinstance(text, str) else base64.b64decode(text["base64"])


def text(raw_bytes):
    """A string where that is possible, else base64."""
    try:
        return raw_bytes.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw_bytes).decode()}


def main(arguments):
    policy = "default"
    if arguments[:1] == ["-p"]:
        policy, arguments = arguments[1], arguments[2:]
    path = os.environ.get("STOCKADE_SOCKET") or os.environ.get("XDG_RUNTIME_DIR", "/run") + "/stockade/stockade.sock"
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    lines = connection.makefile("rb")

    def ask(number, method, params):
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        connection.sendall(json.dumps(message).encode() + b"\n")

    ask(1, "initialize", {"clientInfo": {"name": "exec.py"}})
    argv = [text(os.fsencode(argument)) for argument in arguments]
    env = {name: text(os.fsencode(value)) for name, value in os.environ.items()}
    ask(2, "exec", {"argv": argv, "policy": policy, "workspace": text(os.fsencode(os.getcwd())), "env": env})
    for line in lines:
        message = json.loads(line)
        params = message.get("params", {})
        if "error" in message:
            sys.exit(f"exec.py: {message['error']['message']}")
        if message.get("method") == "run/output":
            stream = sys.stdout if params["stream"] == "stdout" else sys.stderr
            stream.buffer.write(raw(params["data"]))
            stream.buffer.flush()
        elif message.get("method") == "run/exited":
            outcome = params["outcome"]
            return outcome.get("code", 128 + outcome["signal"] if "signal" in outcome else 125)
    sys.exit("exec.py: the daemon closed the connection")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
