"""The official Ollama library against the stand-in. Takes the stand-in's URL."""

import sys

import httpx
import ollama

import expect

MODEL = "llama3.2:latest"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "note": {"type": "string"}},
            "required": ["city"],
        },
    },
}

client = ollama.Client(host=sys.argv[1])


def ask(text, **more):
    return client.chat(model=MODEL, messages=[{"role": "user", "content": text}], **more)


def status(code):
    return lambda error: error.status_code == code and bool(error.error)


def whole():
    answer = ask("greet")
    expect.that("text", answer.message.content == expect.GREETING, answer)
    expect.that("done", answer.done and answer.done_reason == "stop")
    expect.that("tokens", (answer.prompt_eval_count, answer.eval_count) == (14, 7), answer)
    expect.that("length", ask("too much to say").done_reason == "length")
    thought = ask("think first", think=True).message
    expect.that("thought", (thought.thinking, thought.content) == ("Two and two.", "Four."))
    expect.that("models", MODEL in [model.model for model in client.list().models])


def streamed():
    for scenario in ["greet", "greet in single bytes"]:
        parts = list(ask(scenario, stream=True))
        text = "".join(part.message.content for part in parts)
        expect.that(f"streamed {scenario}", text == expect.GREETING, text)
        expect.that("in pieces", len(parts) > 3, len(parts))
        expect.that("only the last is done", [p.done for p in parts].index(True) == len(parts) - 1)
        expect.that("streamed usage", (parts[-1].prompt_eval_count, parts[-1].eval_count) == (14, 7))


def tools():
    question = {"role": "user", "content": "weather in two cities"}

    def turn(messages):
        calls = [call.function for message in messages for call in message.tool_calls or []]
        wanted = [{"city": "Paris", "note": expect.NOTE}, {"city": "Oslo"}]
        expect.that("arguments", [dict(call.arguments) for call in calls] == wanted, calls)
        said = {
            "role": "assistant",
            "content": "".join(message.content or "" for message in messages),
            "tool_calls": [{"function": {"name": c.name, "arguments": c.arguments}} for c in calls],
        }
        expect.that("text beside calls", said["content"] == "I look.", said)
        results = [
            {"role": "tool", "tool_name": c.name, "content": f"{c.arguments['city']} sunny"}
            for c in calls
        ]
        return [question, said, *results]

    more = {"model": MODEL, "tools": [TOOL]}
    transcript = turn([client.chat(messages=[question], **more).message])
    second = client.chat(messages=transcript, **more)
    expect.that("sees the result", second.message.content == "It is: Oslo sunny", second)
    turn([part.message for part in client.chat(messages=[question], stream=True, **more)])
    expect.raises(
        "each call needs its result",
        ollama.ResponseError,
        lambda: client.chat(messages=transcript[:-1], **more),
        status(400),
    )


def errors():
    expect.raises("429", ollama.ResponseError, lambda: ask("busy"), status(429))
    expect.raises("404", ollama.ResponseError, lambda: ask("no such model"), status(404))
    expect.raises("503", ollama.ResponseError, lambda: ask("overloaded"), status(503))
    expect.raises("400", ollama.ResponseError, lambda: ask("too long a story"), status(400))
    expect.raises(
        "mid-stream error",
        ollama.ResponseError,
        lambda: list(ask("breaks in mid-stream", stream=True)),
        lambda error: "busy" in error.error,
    )
    expect.raises(
        "cut", httpx.RemoteProtocolError, lambda: list(ask("cut in mid-stream", stream=True))
    )


whole()
streamed()
tools()
errors()
expect.done()
