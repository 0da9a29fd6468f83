"""The official OpenAI library against an agent. Takes the orchestrator's URL."""

import sys

import openai

URL = sys.argv[1] + "/v1"
client = openai.OpenAI(base_url=URL, api_key="any", max_retries=0)
GREETING = "Hello from the script."


def ask(text, model="helper", **more):
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": text}]
    return client.chat.completions.create(model=model, messages=messages, **more)


def raises(kind, call, check):
    try:
        call()
    except kind as error:
        assert check(error), error
    else:
        raise AssertionError(f"no {kind}")


assert [model.id for model in client.models.list()] == ["helper", "talker"]
assert client.models.retrieve("helper").owned_by == "agentrunner"

answer = ask("hello", temperature=0.2, max_tokens=50, user="ann")
assert answer.choices[0].message.content == GREETING, answer
assert answer.choices[0].finish_reason == "stop" and answer.model == "helper"
assert answer.usage.total_tokens == 15 and answer.system_fingerprint
raw = client.chat.completions.with_raw_response.create(
    model="helper", messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
)
assert raw.parse().id == "chatcmpl-" + raw.headers["x-execution-id"]

chunks = list(ask("hello", stream=True, stream_options={"include_usage": True}))
text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert text == GREETING, text
assert len(chunks) > 4 and chunks[-1].usage.total_tokens == 15 and chunks[-1].choices == []
assert chunks[-2].choices[0].finish_reason == "stop"
assert all(chunk.usage is None for chunk in chunks[:-1])
assert all(chunk.usage is None for chunk in ask("hello", stream=True))
with client.chat.completions.stream(
    model="helper", messages=[{"role": "user", "content": "hello"}]
) as events:
    assert events.get_final_completion().choices[0].message.content == GREETING

raises(openai.NotFoundError, lambda: ask("hello", model="helpr"), lambda e: e.code == "model_not_found" and "helper" in e.message)
raises(openai.BadRequestError, lambda: ask("hello", n=2), lambda e: e.param == "n")
raises(openai.BadRequestError, lambda: ask(""), lambda e: e.param == "messages")
patient = client.with_options(max_retries=3)
raises(
    openai.InternalServerError,
    lambda: patient.chat.completions.create(model="helper", messages=[{"role": "user", "content": "fail"}]),
    lambda e: e.response.headers["x-should-retry"] == "false",
)
raises(openai.APIError, lambda: list(ask("fail", stream=True)), lambda e: True)

# Responses.
first = client.responses.create(model="helper", input="hello", instructions="Be kind.", metadata={"order": "17"})
assert first.output_text == GREETING and first.status == "completed", first
assert first.usage.total_tokens == 15 and first.metadata == {"order": "17"}
assert first.instructions == "Be kind." and first.previous_response_id is None
second = client.responses.create(
    model="helper",
    previous_response_id=first.id,
    input=[{"role": "user", "content": [{"type": "input_text", "text": "hello again"}]}],
)
assert second.previous_response_id == first.id
again = client.responses.retrieve(second.id)
assert again == second, (again, second)
events = list(client.responses.create(model="helper", input="hello", stream=True))
kinds = [event.type for event in events]
assert kinds[:4] == [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
], kinds
assert kinds[-4:] == [
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
], kinds
deltas = [event for event in events if event.type == "response.output_text.delta"]
assert "".join(delta.delta for delta in deltas) == GREETING and len(deltas) > 1
assert [event.sequence_number for event in events] == list(range(len(events)))
assert events[-1].response.output_text == GREETING and events[-1].response.usage.total_tokens == 15
with client.responses.stream(model="helper", input="hello") as stream:
    assert stream.get_final_response().output_text == GREETING
later = client.responses.create(model="helper", input="hello", background=True)
assert later.status in ("queued", "in_progress", "completed"), later
while later.status in ("queued", "in_progress"):
    later = client.responses.retrieve(later.id)
assert later.output_text == GREETING
failed = list(client.responses.create(model="helper", input="fail", stream=True))
assert failed[-1].type == "response.failed" and failed[-1].response.error.message, failed[-1]
assert client.responses.retrieve(failed[0].response.id).status == "failed"
raises(openai.NotFoundError, lambda: client.responses.retrieve("resp_x"), lambda e: "resp_x" in e.message)
raises(openai.BadRequestError, lambda: client.responses.create(model="helper", input=""), lambda e: e.param == "input")
raises(
    openai.NotFoundError,
    lambda: client.responses.create(model="helper", input="x", previous_response_id="resp_0"),
    lambda e: e.param == "previous_response_id",
)
raises(
    openai.InternalServerError,
    lambda: client.responses.create(model="helper", input="fail"),
    lambda e: e.response.headers["x-should-retry"] == "false",
)
print("passed")
