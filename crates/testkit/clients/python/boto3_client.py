"""AWS's own library against the stand-in. Takes the stand-in's URL."""

import sys

import boto3
import botocore.exceptions
import urllib3
from botocore.config import Config

import expect

URL = sys.argv[1]
MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
ARN = "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/" + MODEL
KEY_ID = "AKIATESTKIT00000000A"
TOOLS = {
    "tools": [
        {
            "toolSpec": {
                "name": "get_weather",
                "description": "Tells the weather.",
                "inputSchema": {
                    "json": {
                        "type": "object",
                        "properties": {"city": {"type": "string"}, "note": {"type": "string"}},
                        "required": ["city"],
                    }
                },
            }
        }
    ]
}


def connect(service="bedrock-runtime", key_id=KEY_ID, secret=None, token=None, attempts=1):
    retries = {"total_max_attempts": attempts, "mode": "standard"}
    return boto3.client(
        service,
        region_name="eu-central-1",
        endpoint_url=URL,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret or f"secret/of+{key_id}",
        aws_session_token=token,
        config=Config(retries=retries),
    )


client = connect()


def user(text):
    return {"role": "user", "content": [{"text": text}]}


def ask(text, on=client, model=MODEL, **more):
    return on.converse(modelId=model, messages=[user(text)], **more)


def stream(text, on=client, **more):
    return on.converse_stream(modelId=MODEL, messages=[user(text)], **more)["stream"]


def collect(events):
    """Puts a stream together as AWS's guide does."""
    message, blocks, stop, metadata, kinds = {}, {}, None, None, []
    for event in events:
        ((kind, body),) = event.items()
        kinds.append(kind)
        if kind == "messageStart":
            message["role"] = body["role"]
        elif kind == "contentBlockStart":
            blocks[body["contentBlockIndex"]] = dict(body["start"]["toolUse"], input="")
        elif kind == "contentBlockDelta":
            index, delta = body["contentBlockIndex"], body["delta"]
            if "text" in delta:
                blocks[index] = blocks.get(index, "") + delta["text"]
            elif "toolUse" in delta:
                blocks[index]["input"] += delta["toolUse"]["input"]
            else:
                blocks.setdefault(index, {}).setdefault("reasoning", []).append(delta["reasoningContent"])
        elif kind == "messageStop":
            stop = body["stopReason"]
        elif kind == "metadata":
            metadata = body
    return message, blocks, stop, metadata, kinds


def whole():
    answer = ask("greet", system=[{"text": "Be kind."}], inferenceConfig={"maxTokens": 9, "temperature": 0.5})
    said = answer["output"]["message"]
    expect.that("text", said == {"role": "assistant", "content": [{"text": expect.GREETING}]}, answer)
    expect.that("stop", answer["stopReason"] == "end_turn")
    usage = answer["usage"]
    expect.that("tokens", (usage["inputTokens"], usage["outputTokens"]) == (11, 7), usage)
    expect.that("cached tokens", usage["cacheReadInputTokens"] == 3)
    expect.that("total", usage["totalTokens"] == 21)
    expect.that("request id", answer["ResponseMetadata"]["RequestId"].startswith("00000000-"))
    expect.that("an ARN as model", ask("greet", model=ARN)["stopReason"] == "end_turn")
    expect.that("length", ask("too much to say")["stopReason"] == "max_tokens")
    expect.that("refusal", ask("forbidden words")["stopReason"] == "guardrail_intervened")
    thought, text = ask("think first")["output"]["message"]["content"]
    thought = thought["reasoningContent"]["reasoningText"]
    expect.that("thought", thought["text"] == "Two and two." and thought["signature"], thought)
    expect.that("after thought", text == {"text": "Four."})
    models = connect("bedrock").list_foundation_models()["modelSummaries"]
    expect.that("models", "claude-sonnet-5" in [model["modelId"] for model in models])


def streamed():
    for scenario in ["greet", "greet in single bytes"]:
        message, blocks, stop, metadata, kinds = collect(stream(scenario))
        expect.that(f"streamed {scenario}", blocks == {0: expect.GREETING}, blocks)
        expect.that("role", message == {"role": "assistant"})
        expect.that("in pieces", kinds.count("contentBlockDelta") > 2, kinds)
        expect.that("order", kinds[0] == "messageStart" and kinds[-3:] == ["contentBlockStop", "messageStop", "metadata"])
        expect.that("streamed stop", stop == "end_turn")
        expect.that("streamed usage", metadata["usage"]["outputTokens"] == 7, metadata)
        expect.that("latency", metadata["metrics"]["latencyMs"] > 0)
    _, blocks, _, _, _ = collect(stream("think first"))
    parts = blocks[0]["reasoning"]
    expect.that("streamed thought", "".join(p.get("text", "") for p in parts) == "Two and two.", parts)
    expect.that("signature at the end", list(parts[-1]) == ["signature"], parts)
    _, blocks, _, _, _ = collect(stream("malformed arguments"))
    expect.that("malformed", blocks[0]["input"] == '{"city": "Par', blocks)


def tools():
    question = user("weather in two cities")

    def transcript(said, calls):
        results = [
            {"toolResult": {"toolUseId": call["toolUseId"], "content": [{"text": f"{city} sunny"}]}}
            for call, city in zip(calls, ["Paris", "Oslo"])
        ]
        return [question, {"role": "assistant", "content": said}, {"role": "user", "content": results}]

    first = client.converse(modelId=MODEL, messages=[question], toolConfig=TOOLS)
    expect.that("stops for tools", first["stopReason"] == "tool_use")
    said = first["output"]["message"]["content"]
    calls = [block["toolUse"] for block in said if "toolUse" in block]
    wanted = [{"city": "Paris", "note": expect.NOTE}, {"city": "Oslo"}]
    expect.that("inputs", [call["input"] for call in calls] == wanted, calls)
    messages = transcript(said, calls)
    second = client.converse(modelId=MODEL, messages=messages, toolConfig=TOOLS)
    expect.that("sees the result", second["output"]["message"]["content"][0]["text"] == "It is: Oslo sunny", second)

    _, blocks, stop, _, _ = collect(client.converse_stream(modelId=MODEL, messages=[question], toolConfig=TOOLS)["stream"])
    expect.that("streamed call", stop == "tool_use" and blocks[1]["name"] == "get_weather", blocks)
    expect.that("fragments", blocks[2]["input"] == '{"city":"Oslo"}', blocks)
    expect.that("same ids", blocks[2]["toolUseId"] != blocks[1]["toolUseId"])

    half = [*messages[:2], {"role": "user", "content": messages[2]["content"][:1]}]
    more = {"modelId": MODEL, "toolConfig": TOOLS}
    expect.raises(
        "each call needs its result",
        client.exceptions.ValidationException,
        lambda: client.converse(messages=half, **more),
        lambda error: "Expected toolResult blocks at messages.2.content" in str(error),
    )
    expect.raises(
        "tools must be told",
        client.exceptions.ValidationException,
        lambda: client.converse(modelId=MODEL, messages=messages),
        lambda error: "toolConfig field must be defined" in str(error),
    )
    expect.raises(
        "turns alternate",
        client.exceptions.ValidationException,
        lambda: client.converse(messages=[question, question], **more),
        lambda error: "must alternate" in str(error),
    )


def errors():
    known = client.exceptions

    def status(number):
        return lambda error: error.response["ResponseMetadata"]["HTTPStatusCode"] == number

    def code(name):
        return lambda error: error.response["Error"]["Code"] == name

    expect.raises("429", known.ThrottlingException, lambda: ask("busy"), status(429))
    answer = ask("busy once", on=connect(attempts=2))
    expect.that("retried", answer["output"]["message"]["content"][0]["text"] == "Now I have time.")
    expect.raises("404", known.ResourceNotFoundException, lambda: ask("no such model"), status(404))
    expect.raises("503", known.ServiceUnavailableException, lambda: ask("overloaded"), status(503))
    expect.raises(
        "context", known.ValidationException, lambda: ask("too long a story"), lambda error: "too long" in str(error)
    )
    expect.raises("blank", known.ValidationException, lambda: ask(" "), status(400))
    # The status of the stream was 200, so only the frame tells what happened.
    expect.raises(
        "mid-stream error",
        botocore.exceptions.EventStreamError,
        lambda: collect(stream("breaks in mid-stream")),
        code("serviceUnavailableException"),
    )
    expect.raises("cut", urllib3.exceptions.ProtocolError, lambda: collect(stream("cut in mid-stream")))


def signatures():
    refused = botocore.exceptions.ClientError

    def code(name):
        return lambda error: error.response["Error"]["Code"] == name

    lent = "ASIATESTKIT00000000B"
    token = "IQoJb3JpZ2luX2VjE+/=="
    expect.that("lent key", ask("greet", on=connect(key_id=lent, token=token))["stopReason"] == "end_turn")
    expect.raises(
        "lent key without its token", refused, lambda: ask("greet", on=connect(key_id=lent)), code("UnrecognizedClientException")
    )
    expect.raises(
        "unknown key", refused, lambda: ask("greet", on=connect(key_id="NOBODY")), code("UnrecognizedClientException")
    )
    expect.raises(
        "wrong secret", refused, lambda: ask("greet", on=connect(secret="wrong")), code("InvalidSignatureException")
    )
    # The library sends its bearer token over TLS alone, and the stand-in has none.
    url = f"{URL}/model/{MODEL}/converse"
    headers = {"authorization": "Bearer bedrock-api-key-test"}
    answer = urllib3.request("POST", url, json={"messages": [user("greet")]}, headers=headers)
    expect.that("bearer token", answer.json()["stopReason"] == "end_turn", answer.data)
    nobody = urllib3.request("POST", url, json={"messages": [user("greet")]})
    expect.that("nobody", nobody.headers["x-amzn-errortype"].startswith("MissingAuthenticationTokenException"))


whole()
streamed()
tools()
errors()
signatures()
expect.done()
