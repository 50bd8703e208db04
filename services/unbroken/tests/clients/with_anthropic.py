"""The official Anthropic SDK against the mesh: its address is the argument. Every event is checked against the SDK's own types."""

import sys

import anthropic
from pydantic import TypeAdapter

client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0)
PROMPT = "[[script id={} tokens={} gap_us=500 ttft_us=0 reasoning={}{}]]"
TOOL = {"name": "say", "description": "Says it.", "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}}}


def oracle(name, first, last):
    return "".join(f"{name}.{token} " for token in range(first, last))


def ask(text, **more):
    return {"model": "scripted", "max_tokens": 100, "messages": [{"role": "user", "content": text}]} | more


def strict(kind, value):
    """The value, read again by its type without leniency."""
    TypeAdapter(kind).validate_python(value.model_dump(warnings="error"))
    return value


message = strict(anthropic.types.Message, client.messages.create(**ask(PROMPT.format("s", 30, 2, ""), system=[{"type": "text", "text": "Be brief."}])))
assert [block.type for block in message.content] == ["thinking", "text"], message
assert (message.content[0].thinking, message.content[1].text) == (oracle("s", 0, 2), oracle("s", 2, 30)), message
assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 30), message

events = list(client.messages.create(**ask(PROMPT.format("s", 30, 2, "")), stream=True))
for event in events:
    strict(anthropic.types.RawMessageStreamEvent, event)
kinds = [event.type for event in events if event.type != "content_block_delta"]
block = ["content_block_start", "content_block_stop"]
assert kinds == ["message_start", *block, *block, "message_delta", "message_stop"], kinds
deltas = [event.delta for event in events if event.type == "content_block_delta"]
assert "".join(delta.thinking for delta in deltas if delta.type == "thinking_delta") == oracle("s", 0, 2)
assert "".join(delta.text for delta in deltas if delta.type == "text_delta") == oracle("s", 2, 30)
assert events[-2].usage.output_tokens == 30 and events[-2].delta.stop_reason == "end_turn"

with client.messages.stream(**ask(PROMPT.format("t", 9, 0, " tool=say"), tools=[TOOL], tool_choice={"type": "auto"})) as stream:
    final = stream.get_final_message()
[call] = final.content
assert (call.type, call.name, call.input, final.stop_reason) == ("tool_use", "say", {"text": oracle("t", 1, 8)}, "tool_use"), final
choice = {"type": "tool", "name": "say", "disable_parallel_tool_use": True}
forced = client.messages.create(**ask("Say something.", tools=[TOOL], tool_choice=choice))
assert forced.content[0].name == "say" and isinstance(forced.content[0].input["text"], str), forced

result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "done"}]}]}
said = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": final.content}, result]
assert client.messages.create(**ask("", messages=said, tools=[TOOL])).content[0].type == "text"

assert client.messages.create(**ask(PROMPT.format("s", 30, 0, ""), max_tokens=5)).stop_reason == "max_tokens"
met = client.messages.create(**ask(PROMPT.format("s", 30, 0, ""), stop_sequences=["s.7"]))
assert (met.stop_reason, met.stop_sequence, met.content[0].text) == ("stop_sequence", "s.7", oracle("s", 0, 7)), met

counted = client.messages.count_tokens(model="scripted", messages=[{"role": "user", "content": "one two three"}], tools=[TOOL])
assert counted.input_tokens == 3, counted

for wrong, expected in [
    ({"model": "nobody"}, anthropic.NotFoundError),
    ({"messages": []}, anthropic.BadRequestError),
    ({"max_tokens": 0}, anthropic.BadRequestError),
]:
    try:
        client.messages.create(**(ask("x") | wrong))
    except expected as error:
        assert error.body["type"] == "error" and error.body["error"]["message"] and error.request_id, error.body
    else:
        raise AssertionError(f"{wrong} was taken")
print("ok")
