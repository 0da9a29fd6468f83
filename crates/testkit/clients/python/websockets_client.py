"""The `websockets` library follows an execution: `websockets_client.py ws://host:port EXECUTION WAITING KEY`.

EXECUTION is over or will be soon, WAITING stays as it is. KEY may read both.
"""

import json
import sys

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import expect
from expect import raises, that

BASE, EXECUTION, WAITING, KEY = sys.argv[1:]
HEADERS = {"X-API-Key": KEY}


def url(execution, query=""):
    return f"{BASE}/ws/tasks/{execution}{query}"


def read(socket):
    """All messages, and how it was closed."""
    messages = []
    try:
        while True:
            messages.append(json.loads(socket.recv(timeout=20)))
    except ConnectionClosed as closed:
        return messages, closed.rcvd


def steps(messages):
    return [message for message in messages if message["event"] == "step"]


def everything():
    with connect(url(EXECUTION), additional_headers=HEADERS) as socket:
        messages, close = read(socket)
    that("ids of the steps", [step["id"] for step in steps(messages)] == ["1", "2"], messages)
    that("data is JSON", steps(messages)[0]["data"]["kind"] == "model_call", messages)
    that("the last event", messages[-1]["event"] == "done", messages)
    that("done has no id", "id" not in messages[-1], messages)
    that("closed as done", (close.code, close.reason) == (1000, "done"), close)
    with connect(url(EXECUTION, "?after=1"), additional_headers=HEADERS) as socket:
        messages, _ = read(socket)
    that("after the first", [step["id"] for step in steps(messages)] == ["2"], messages)


def browser():
    """A browser can't send headers; it shows the key as a protocol, and gets ours back, without the key."""
    protocols = ["agentrunner.v1", f"agentrunner.key.{KEY}"]
    with connect(url(EXECUTION), subprotocols=protocols) as socket:
        that("the protocol", socket.subprotocol == "agentrunner.v1", socket.subprotocol)
        messages, close = read(socket)
    that("told the same", messages[-1]["event"] == "done" and close.code == 1000, messages, close)


def refused():
    def status(wanted):
        return lambda error: error.response.status_code == wanted

    def dial(target, **options):
        return lambda: connect(target, **options)

    origin = {"origin": "https://evil.example.com", "additional_headers": HEADERS}
    wrong = ["agentrunner.v1", "agentrunner.key.wrong"]
    nobody = "0190c2f4-a1b2-7c3d-8e4f-5a6b7c8d9e0f"
    raises("no key", InvalidStatus, dial(url(EXECUTION)), status(401))
    raises("a wrong key", InvalidStatus, dial(url(EXECUTION), subprotocols=wrong), status(401))
    raises("a key in the address", InvalidStatus, dial(url(EXECUTION, f"?key={KEY}")), status(401))
    raises("another origin", InvalidStatus, dial(url(EXECUTION), **origin), status(403))
    missing = dial(url(nobody), additional_headers=HEADERS)
    raises("no such execution", InvalidStatus, missing, status(404))
    bad = dial(url(EXECUTION, "?after=x"), additional_headers=HEADERS)
    raises("no such id", InvalidStatus, bad, status(400))


def talkative():
    for what, text in [("a message", "hello"), ("a huge message", "x" * 100_000)]:
        with connect(url(WAITING), additional_headers=HEADERS) as socket:
            socket.send(text)
            _, close = read(socket)
        # What is too long is not read: then there may be no word of farewell.
        that(what, close is None or close.code in (1008, 1009), close)


def alive():
    with connect(url(WAITING), additional_headers=HEADERS) as socket:
        that("a ping is answered", socket.ping().wait(20))


everything()
browser()
refused()
talkative()
alive()
expect.done()
