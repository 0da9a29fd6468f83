"""The official Anthropic library against the stand-in. Takes the stand-in's URL."""

import sys

import anthropic
import httpx2

import expect

URL = sys.argv[1]
MODEL = "claude-sonnet-5"
TOOL = {
    "name": "get_weather",
    "description": "Tells the weather.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "note": {"type": "string"}},
        "required": ["city"],
    },
}

client = anthropic.Anthropic(base_url=URL, api_key="sk-ant-test", max_retries=0)


def ask(text, on=client, **more):
    messages = [{"role": "user", "content": text}]
    return on.messages.create(model=MODEL, max_tokens=100, messages=messages, **more)


def whole():
    answer = ask("greet", system="Be kind.")
    expect.that("text", answer.content[0].text == expect.GREETING, answer)
    expect.that("stop", answer.stop_reason == "end_turn")
    usage = answer.usage
    expect.that("tokens", (usage.input_tokens, usage.output_tokens) == (11, 7), usage)
    expect.that("cached tokens", usage.cache_read_input_tokens == 3)
    expect.that("request id", answer._request_id.startswith("req_"))
    expect.that("length", ask("too much to say").stop_reason == "max_tokens")
    expect.that("refusal", ask("forbidden words").stop_reason == "refusal")
    thought = ask("think first").content
    expect.that("thought", [block.type for block in thought] == ["thinking", "text"])
    expect.that("thinking", thought[0].thinking == "Two and two.")
    expect.that("models", MODEL in [model.id for model in client.models.list()])


def streamed():
    for scenario in ["greet", "greet in single bytes"]:
        messages = [{"role": "user", "content": scenario}]
        with client.messages.stream(model=MODEL, max_tokens=100, messages=messages) as events:
            pieces = list(events.text_stream)
            final = events.get_final_message()
        expect.that(f"streamed {scenario}", "".join(pieces) == expect.GREETING, pieces)
        expect.that("in pieces", len(pieces) > 2, pieces)
        expect.that("streamed usage", final.usage.output_tokens == 7, final.usage)
        expect.that("streamed input", final.usage.input_tokens == 11)
        expect.that("streamed stop", final.stop_reason == "end_turn")
    raw = [event.type for event in ask("greet", stream=True)]
    expect.that("order", raw[:2] == ["message_start", "content_block_start"], raw)
    expect.that("end", raw[-3:] == ["content_block_stop", "message_delta", "message_stop"], raw)


def tools():
    question = {"role": "user", "content": "weather in two cities"}
    more = {"model": MODEL, "max_tokens": 100, "tools": [TOOL]}

    def turn(message):
        expect.that("stops for tools", message.stop_reason == "tool_use")
        expect.that("text beside calls", message.content[0].text == "I look.")
        calls = [block for block in message.content if block.type == "tool_use"]
        wanted = [{"city": "Paris", "note": expect.NOTE}, {"city": "Oslo"}]
        expect.that("inputs", [call.input for call in calls] == wanted, calls)
        said = [block.model_dump(include={"type", "text", "id", "name", "input"}) for block in message.content]
        results = [
            {"type": "tool_result", "tool_use_id": c.id, "content": f"{c.input['city']} sunny"}
            for c in calls
        ]
        return [
            question,
            {"role": "assistant", "content": said},
            {"role": "user", "content": results},
        ]

    transcript = turn(client.messages.create(messages=[question], **more))
    second = client.messages.create(messages=transcript, **more)
    expect.that("sees the result", second.content[0].text == "It is: Oslo sunny", second)

    # The library's own accumulator puts the fragments together.
    with client.messages.stream(messages=[question], **more) as events:
        kinds = {event.type for event in events}
        turn(events.get_final_message())
    expect.that("fragments", "input_json" in kinds, kinds)

    half = [*transcript[:2], {"role": "user", "content": transcript[2]["content"][:1]}]
    expect.raises(
        "each call needs its result",
        anthropic.BadRequestError,
        lambda: client.messages.create(messages=half, **more),
        lambda error: "ids were found without" in error.message,
    )
    expect.raises(
        "each result needs its call",
        anthropic.BadRequestError,
        lambda: client.messages.create(messages=[question, transcript[2]], **more),
        lambda error: "unexpected `tool_use_id`" in error.message,
    )


def errors():
    bare = {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "greet"}]}

    def retry_after(error):
        return error.response.headers["retry-after"] == "7"

    expect.raises("429", anthropic.RateLimitError, lambda: ask("busy"), retry_after)
    patient = client.with_options(max_retries=1)
    answer = expect.takes("retry-after is kept", 1, 5, lambda: ask("busy once", on=patient))
    expect.that("retried", answer.content[0].text == "Now I have time.")
    expect.raises("401", anthropic.AuthenticationError, lambda: ask("wrong key"))
    expect.raises("404", anthropic.NotFoundError, lambda: ask("no such model"))
    expect.raises(
        "529",
        anthropic._exceptions.OverloadedError,
        lambda: ask("overloaded"),
        lambda error: error.body["error"]["type"] == "overloaded_error",
    )
    expect.raises(
        "context",
        anthropic.BadRequestError,
        lambda: ask("too long a story"),
        lambda error: "prompt is too long" in error.message,
    )
    # The status of the stream was 200, so only the body tells what happened.
    expect.raises(
        "mid-stream error",
        anthropic.APIStatusError,
        lambda: list(ask("breaks in mid-stream", stream=True)),
        lambda error: error.body["error"]["type"] == "overloaded_error",
    )
    expect.raises(
        "cut", httpx2.RemoteProtocolError, lambda: list(ask("cut in mid-stream", stream=True))
    )
    expect.raises("empty", anthropic.BadRequestError, lambda: ask(""))
    expect.raises(
        "no temperature since 2026-10-21",
        anthropic.BadRequestError,
        lambda: ask("greet", extra_body={"temperature": 1.0}),
        lambda error: "temperature: Extra inputs are not permitted" in error.message,
    )
    earlier = {**bare, "model": "claude-sonnet-4-6", "temperature": 0.5}
    headers = {"anthropic-version": "2023-06-01", "x-api-key": "k"}
    warm = httpx2.post(f"{URL}/v1/messages", json=earlier, headers=headers)
    expect.that("the version before takes a temperature", warm.status_code == 200, warm.text)
    keyless = httpx2.post(f"{URL}/v1/messages", json=bare, headers={"anthropic-version": "2023-06-01"})
    expect.that("no key", keyless.status_code == 401, keyless.text)
    versionless = httpx2.post(f"{URL}/v1/messages", json=bare, headers={"x-api-key": "k"})
    expect.that("no version", versionless.status_code == 400, versionless.text)


whole()
streamed()
tools()
errors()
expect.done()
