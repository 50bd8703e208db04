"""The Responses and Conversations of the official OpenAI SDK against the mesh: the address of its /v1 is the argument.

The SDK takes whatever comes; so what comes is also held against its types, to the letter.
"""

import json
import sys
import time
import urllib.request

import openai
import pydantic
from openai.types.conversations import Conversation, ConversationItemList
from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent

base = sys.argv[1]
client = openai.OpenAI(base_url=base, api_key="none", max_retries=0)
event_type = pydantic.TypeAdapter(ResponseStreamEvent)


def script(name, tokens=20, more=""):
    return f"[[script id={name} tokens={tokens} gap_us=500 ttft_us=0 {more}]]"


def said(name, tokens):
    return "".join(f"{name}.{token} " for token in tokens)


def raw(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return response.read().decode()


def strictly(kind, text):
    return kind.model_validate_json(text, strict=True)


def events(text):
    """The events of a stream, each held against the SDK's types."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if lines["data"] == "[DONE]":
            assert "event" not in lines
            found.append(None)
            continue
        event = event_type.validate_json(lines["data"], strict=True)
        assert lines["event"] == event.type and "id" not in lines, lines
        assert event.sequence_number == len(found), event
        found.append(event)
    return found


# One response, whole: shown, shown again, its input listed, deleted.
made = client.responses.create(model="scripted", input=script("a"), instructions="Be brief.", metadata={"topic": "trees"})
assert made.output_text == said("a", range(20)) and made.status == "completed", made
assert made.usage.output_tokens == 20 and made.metadata == {"topic": "trees"}
again = strictly(Response, raw(f"/responses/{made.id}"))
assert again == made, (again, made)
items = client.responses.input_items.list(made.id)
assert [item.content[0].text for item in items] == [script("a")]
strictly(ResponseItemList, raw(f"/responses/{made.id}/input_items"))
client.responses.delete(made.id)
try:
    client.responses.retrieve(made.id)
except openai.NotFoundError as error:
    assert error.body["message"] and error.body["type"], error.body
else:
    raise AssertionError("it was deleted")

# Streams, with thoughts, a call, and a cut.
tool = {"type": "function", "name": "look", "description": None, "parameters": {"type": "object", "properties": {}}, "strict": False}
for more, kinds in [("", ["message"]), ("reasoning=5", ["reasoning", "message"]), ("tool=look", ["function_call"])]:
    body = {"model": "scripted", "stream": True, "input": script("b", more=more), "tools": [tool]}
    text = raw("/responses", body)
    stream = events(text)
    assert stream[-1] is None and stream[-2].type == "response.completed"
    assert [event.type for event in stream[:2]] == ["response.created", "response.in_progress"]
    final = stream[-2].response
    assert [item.type for item in final.output] == kinds, final
    assert raw(f"/responses/{final.id}?stream=true") == text, "the same again, to the byte"
    assert strictly(Response, raw(f"/responses/{final.id}")) == final
    with client.responses.stream(model="scripted", input=script("b", more=more), tools=[tool]) as live:
        for _ in live:
            pass
        assert live.get_final_response().output_text == final.output_text
cut = client.responses.create(model="scripted", input=script("c"), max_output_tokens=5)
assert (cut.status, cut.incomplete_details.reason, cut.output_text) == ("incomplete", "max_output_tokens", said("c", range(5)))

# A connection that is lost: the rest comes by its number.
lost, seen = None, 0
for event in client.responses.create(model="scripted", input=script("d", 200), stream=True):
    if event.type == "response.created":
        lost = event.response.id
    if event.type == "response.output_text.delta":
        seen += 1
        if seen == 50:
            break
rest = client.responses.retrieve(lost, stream=True, starting_after=event.sequence_number)
rest = [one.delta for one in rest if one.type == "response.output_text.delta"]
assert said("d", range(50)) + "".join(rest) == said("d", range(200)), "each token once"

# In the background: polled, streamed, cancelled.
job = client.responses.create(model="scripted", input=script("e", 100), background=True)
assert job.status in ("queued", "in_progress"), job
while job.status in ("queued", "in_progress"):
    time.sleep(0.05)
    job = client.responses.retrieve(job.id)
assert (job.status, job.output_text) == ("completed", said("e", range(100)))
job = client.responses.create(model="scripted", input=script("f", 100_000), background=True)
while not client.responses.retrieve(job.id).output_text:
    time.sleep(0.05)
ended = client.responses.cancel(job.id)
assert ended.status == "cancelled" and ended.output_text.startswith("f.0 "), ended.status
assert client.responses.cancel(job.id).status == "cancelled", "once more is no error"
queued = events(raw("/responses", {"model": "scripted", "stream": True, "background": True, "input": script("g")}))
assert [event.type for event in queued[:3]] == ["response.created", "response.queued", "response.in_progress"]

# What came before.
first = client.responses.create(model="scripted", input="Hello")
second = client.responses.create(model="scripted", input="And?", previous_response_id=first.id)
assert second.previous_response_id == first.id and second.usage.input_tokens > first.usage.input_tokens, (first.usage, second.usage)

conversation = client.conversations.create(metadata={"topic": "cats"}, items=[{"role": "user", "content": "My cat is called Miri."}])
strictly(Conversation, raw(f"/conversations/{conversation.id}"))
turn = client.responses.create(model="scripted", input=script("h"), conversation=conversation.id)
assert turn.conversation.id == conversation.id
listed = []
while len(listed) < 3:  # the end of an answer is on its way to the store for a moment
    listed = list(client.conversations.items.list(conversation.id, order="asc", limit=2))
assert [item.content[0].text for item in listed] == ["My cat is called Miri.", script("h"), said("h", range(20))], listed
assert listed[2].id == turn.output[0].id
strictly(ConversationItemList, raw(f"/conversations/{conversation.id}/items"))
one = client.conversations.items.retrieve(listed[0].id, conversation_id=conversation.id)
assert one == listed[0]
added = client.conversations.items.create(conversation.id, items=[{"role": "user", "content": "Bye."}])
assert added.data[0].content[0].text == "Bye."
client.conversations.items.delete(listed[0].id, conversation_id=conversation.id)
assert len(list(client.conversations.items.list(conversation.id))) == 3
assert client.conversations.update(conversation.id, metadata={"topic": "dogs"}).metadata == {"topic": "dogs"}
assert client.conversations.delete(conversation.id).deleted

for wrong, expected in [
    ({"model": "nobody"}, openai.NotFoundError),
    ({"input": []}, openai.BadRequestError),
    ({"temperature": 9}, openai.BadRequestError),
    ({"previous_response_id": "resp_nobody"}, openai.BadRequestError),
    ({"conversation": "conv_nobody"}, openai.NotFoundError),
    ({"background": True, "store": False}, openai.BadRequestError),
]:
    try:
        client.responses.create(**({"model": "scripted", "input": "x"} | wrong))
    except expected as error:
        assert error.body["message"] and error.body["type"], error.body
    else:
        raise AssertionError(f"{wrong} was taken")
print("ok")
