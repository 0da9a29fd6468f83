"""The official OpenAI library against the stand-in. Takes the stand-in's URL."""

import json
import sys

import httpx
import openai

import expect

URL = sys.argv[1] + "/v1"
MODEL = "gpt-4o-mini"
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

client = openai.OpenAI(base_url=URL, api_key="sk-test", max_retries=0)


def ask(text, on=client, **more):
    messages = [{"role": "user", "content": text}]
    return on.chat.completions.create(model=MODEL, messages=messages, **more)


def stream(text, **more):
    return ask(text, stream=True, stream_options={"include_usage": True}, **more)


def whole():
    answer = ask("greet")
    expect.that("text", answer.choices[0].message.content == expect.GREETING, answer)
    expect.that("stop", answer.choices[0].finish_reason == "stop")
    usage = answer.usage
    expect.that("prompt tokens", usage.prompt_tokens == 14, usage)
    expect.that("cached tokens", usage.prompt_tokens_details.cached_tokens == 3)
    expect.that("all tokens", usage.completion_tokens == 7 and usage.total_tokens == 21)
    expect.that("request id", answer._request_id.startswith("req_"))
    headers = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "greet"}]
    ).headers
    expect.that("limit", int(headers["x-ratelimit-remaining-requests"]) > 0)
    expect.that("length", ask("too much to say").choices[0].finish_reason == "length")
    expect.that("filter", ask("forbidden words").choices[0].finish_reason == "content_filter")
    thought = ask("think first").choices[0].message
    expect.that("thought", thought.model_extra["reasoning_content"] == "Two and two.")
    expect.that("models", MODEL in [model.id for model in client.models.list()])


def streamed():
    for scenario in ["greet", "greet in single bytes"]:
        chunks = list(stream(scenario))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        expect.that(f"streamed {scenario}", text == expect.GREETING, text)
        expect.that("in pieces", len(chunks) > 4, len(chunks))
        expect.that("usage comes last", chunks[-1].choices == [])
        expect.that("streamed usage", chunks[-1].usage.total_tokens == 21)
        expect.that("no usage before", all(c.usage is None for c in chunks[:-1]))
    bare = list(ask("greet", stream=True))
    expect.that("usage only when asked for", all(c.usage is None for c in bare))
    expect.that("finish", bare[-1].choices[0].finish_reason == "stop")


def tools():
    question = {"role": "user", "content": "weather in two cities"}

    def turn(message):
        calls = message.tool_calls
        expect.that("two calls", [call.function.name for call in calls] == ["get_weather"] * 2)
        arguments = [json.loads(call.function.arguments) for call in calls]
        wanted = [{"city": "Paris", "note": expect.NOTE}, {"city": "Oslo"}]
        expect.that("arguments", arguments == wanted, arguments)
        expect.that("ids differ", calls[0].id != calls[1].id)
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": f"{a['city']} sunny"}
            for call, a in zip(calls, arguments)
        ]
        said = message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})
        for call in said["tool_calls"]:
            for extra in set(call) - {"id", "type", "function"}:
                del call[extra]
            call["function"] = {k: call["function"][k] for k in ("name", "arguments")}
        return [question, said, *results]

    create = client.chat.completions.create
    first = create(model=MODEL, messages=[question], tools=[TOOL]).choices[0]
    expect.that("stops for tools", first.finish_reason == "tool_calls")
    expect.that("text beside calls", first.message.content == "I look.")
    transcript = turn(first.message)
    second = create(model=MODEL, messages=transcript, tools=[TOOL]).choices[0].message
    expect.that("sees the result", second.content == "It is: Oslo sunny", second)

    # The library's own accumulator puts the fragments together.
    with client.chat.completions.stream(model=MODEL, messages=[question], tools=[TOOL]) as events:
        kinds = {event.type for event in events}
        final = events.get_final_completion().choices[0]
    expect.that("tool events", "tool_calls.function.arguments.delta" in kinds, kinds)
    turn(final.message)

    broken = ask("malformed arguments", tools=[TOOL]).choices[0].message.tool_calls[0]
    expect.that("malformed", broken.function.arguments == '{"city": "Par')

    unanswered = transcript[:-1]
    expect.raises(
        "each call needs its result",
        openai.BadRequestError,
        lambda: create(model=MODEL, messages=unanswered, tools=[TOOL]),
        lambda error: "did not have response messages" in error.message
        and error.param == "messages",
    )


def errors():
    def retry_after(error):
        return error.response.headers["retry-after"] == "7" and error.code == "rate_limit_exceeded"

    expect.raises("429", openai.RateLimitError, lambda: ask("busy"), retry_after)
    patient = client.with_options(max_retries=1)
    answer = expect.takes("retry-after is kept", 1, 5, lambda: ask("busy once", on=patient))
    expect.that("retried", answer.choices[0].message.content == "Now I have time.")
    expect.raises("401", openai.AuthenticationError, lambda: ask("wrong key"))
    bare = {"model": MODEL, "messages": [{"role": "user", "content": "greet"}]}
    keyless = httpx.post(f"{URL}/chat/completions", json=bare)
    expect.that("no key", keyless.status_code == 401, keyless.text)
    expect.raises("404", openai.NotFoundError, lambda: ask("no such model"))
    expect.raises(
        "503",
        openai.InternalServerError,
        lambda: ask("overloaded"),
        lambda error: error.status_code == 503,
    )
    expect.raises(
        "context",
        openai.BadRequestError,
        lambda: ask("too long a story"),
        lambda error: error.code == "context_length_exceeded",
    )
    expect.raises("mid-stream error", openai.APIError, lambda: list(stream("breaks in mid-stream")))
    expect.raises(
        "cut", openai.APIConnectionError, lambda: list(stream("cut in mid-stream"))
    )
    expect.raises("empty", openai.BadRequestError, lambda: ask(""))
    expect.raises(
        "unknown field", openai.BadRequestError, lambda: ask("greet", extra_body={"top_k": 3})
    )


whole()
streamed()
tools()
errors()
expect.done()
