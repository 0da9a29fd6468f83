"""The official slack_sdk against the stand-in. Takes the stand-in's URL.

The test beside it waits for the line "listening", sends an envelope, and expects it acknowledged.
"""

import sys
import threading

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.signature import SignatureVerifier
from slack_sdk.socket_mode import SocketModeClient
from slack_sdk.socket_mode.response import SocketModeResponse

API = sys.argv[1] + "/"
BOT, APP = "xoxb-stand-in", "xapp-stand-in"
CHANNEL = "C00000001"

client = WebClient(token=BOT, base_url=API)


def refused(error, call, **arguments):
    try:
        call(**arguments)
    except SlackApiError as caught:
        assert caught.response["error"] == error, caught
        return caught.response
    raise AssertionError(f"no {error}")


# Signatures: the timestamp, the body and the signature come from our signer.
timestamp, body, signature = sys.argv[2:5]
verifier = SignatureVerifier("stand-in-signing-secret")
assert verifier.generate_signature(timestamp=timestamp, body=body) == signature
assert verifier.is_valid(body=body, timestamp=timestamp, signature=signature)
assert not verifier.is_valid(body=body + "x", timestamp=timestamp, signature=signature)

# The Web API.
assert client.auth_test()["user_id"] == "UBOT00001"
metadata = {"event_type": "agentrunner_message", "event_payload": {"key": "k1"}}
first = client.chat_postMessage(channel=CHANNEL, text="one", metadata=metadata)
section = {"type": "section", "text": {"type": "mrkdwn", "text": "*two*"}}
second = client.chat_postMessage(channel=CHANNEL, thread_ts=first["ts"], text="two", blocks=[section])
client.chat_update(channel=CHANNEL, ts=second["ts"], text="three", blocks=[section])
replies = client.conversations_replies(channel=CHANNEL, ts=first["ts"], include_all_metadata=True)
assert [message["text"] for message in replies["messages"]] == ["one", "three"], replies
assert replies["messages"][0]["metadata"]["event_payload"]["key"] == "k1"
assert replies["messages"][1]["thread_ts"] == first["ts"]
history = client.conversations_history(channel=CHANNEL)
assert [message["text"] for message in history["messages"]] == ["one"], history
assert client.chat_postEphemeral(channel=CHANNEL, user="U00000001", text="psst")["message_ts"]
client.chat_delete(channel=CHANNEL, ts=second["ts"])
assert client.chat_postMessage(channel="U00000001", text="hi")["channel"] == "D00000001"

refused("message_not_found", client.chat_update, channel=CHANNEL, ts="1.000001", text="x")
refused("channel_not_found", client.chat_postMessage, channel="nowhere", text="x")
refused("no_text", client.chat_postMessage, channel=CHANNEL, text="")
refused("msg_too_long", client.chat_update, channel=CHANNEL, ts=first["ts"], text="x" * 4001)
long = {"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3001}}
refused("invalid_blocks", client.chat_postMessage, channel=CHANNEL, text="x", blocks=[long])
refused("invalid_auth", WebClient(token="xoxb-other", base_url=API).auth_test)
refused("not_allowed_token_type", WebClient(token=APP, base_url=API).auth_test)
limited = refused("ratelimited", client.chat_delete, channel=CHANNEL, ts=first["ts"])
assert limited.status_code == 429 and limited.headers["Retry-After"] == "7", limited.headers

# Socket Mode, with the client that needs no other library.
heard, done = [], threading.Event()


def listener(socket, request):
    heard.append(request)
    socket.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
    done.set()


socket = SocketModeClient(app_token=APP, web_client=WebClient(token=BOT, base_url=API))
socket.socket_mode_request_listeners.append(listener)
socket.connect()
assert done.wait(30), "no envelope"
assert heard[0].type == "events_api" and heard[0].payload["event"]["type"] == "app_mention"
assert heard[0].payload["event_id"] == "Ev1"
socket.close()
print("1 passed, 0 failed")
