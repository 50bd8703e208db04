"""The official OpenAI SDK against the mesh: the address of its /v1 is the argument."""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
prompt = "[[script id={} tokens=30 gap_us=500 ttft_us=0]]"
text = "".join(f"s.{token} " for token in range(30))

models = [model.id for model in client.models.list()]
assert "scripted" in models, models

answer = client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": prompt.format("s")}])
assert answer.choices[0].message.content == text, answer
assert answer.choices[0].finish_reason == "stop"
assert answer.usage.completion_tokens == 30

chunks = list(
    client.chat.completions.create(
        model="scripted",
        messages=[{"role": "user", "content": [{"type": "text", "text": prompt.format("s")}]}],
        stream=True,
        stream_options={"include_usage": True},
    )
)
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
assert chunks[0].choices[0].delta.role == "assistant"
assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
assert chunks[-1].usage.completion_tokens == 30 and not chunks[-1].choices
assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1

resumable = client.chat.completions.create(
    model="scripted",
    messages=[{"role": "user", "content": prompt.format("s")}],
    stream=True,
    extra_headers={"X-Unbroken-Resume": "1", "Idempotency-Key": "sdk-1"},
)
assert "".join(chunk.choices[0].delta.content or "" for chunk in resumable) == text, "ids and retry do not disturb it"

short = client.chat.completions.create(model="scripted", max_completion_tokens=5, messages=[{"role": "user", "content": prompt.format("s")}])
assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 5), short

tool = {"type": "function", "function": {"name": "say", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}}}
asked = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "[[script id=s tokens=9 gap_us=0 reasoning=2 tool=say]]"}]
called = client.chat.completions.create(model="scripted", messages=asked, tools=[tool], tool_choice="auto", parallel_tool_calls=False)
[call] = called.choices[0].message.tool_calls
assert (called.choices[0].finish_reason, called.choices[0].message.content) == ("tool_calls", None), called
assert called.choices[0].message.reasoning_content == "s.0 s.1 " and called.usage.completion_tokens_details.reasoning_tokens == 2, called
with client.chat.completions.stream(model="scripted", messages=asked, tools=[tool], tool_choice="required") as stream:
    streamed = stream.get_final_completion().choices[0].message.tool_calls[0]
assert streamed.function.arguments == call.function.arguments, streamed
result = {"role": "tool", "tool_call_id": call.id, "content": "done"}
said = client.chat.completions.create(model="scripted", messages=[*asked, called.choices[0].message, result], user="u", store=False, metadata={})
assert said.choices[0].finish_reason, said

likely = client.chat.completions.create(model="scripted", messages=asked[:1] + [{"role": "user", "content": "x"}], max_tokens=3, logprobs=True, top_logprobs=2)
assert [len(token.top_logprobs) for token in likely.choices[0].logprobs.content] == [2, 2, 2], likely

legacy = client.completions.create(model="scripted", prompt=[prompt.format("s"), prompt.format("s")], max_tokens=30, logprobs=1)
assert [choice.text for choice in legacy.choices] == [text, text] and legacy.choices[1].index == 1, legacy
assert "".join(legacy.choices[0].logprobs.tokens) == text and legacy.usage.completion_tokens == 60, legacy
pieces = client.completions.create(model="scripted", prompt=prompt.format("s"), max_tokens=30, stream=True, stream_options={"include_usage": True})
pieces = list(pieces)
assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == text and pieces[-1].usage.completion_tokens == 30
by_ids = client.completions.create(model="scripted", prompt=[5, 6, 7], max_tokens=3)
assert (by_ids.usage.prompt_tokens, by_ids.choices[0].finish_reason) == (3, "length"), by_ids

several = client.chat.completions.create(model="scripted", n=3, seed=7, max_tokens=4, messages=[{"role": "user", "content": "Hello"}])
assert [choice.index for choice in several.choices] == [0, 1, 2]

for wrong, expected in [
    ({"model": "nobody"}, openai.NotFoundError),
    ({"messages": []}, openai.BadRequestError),
    ({"temperature": 9}, openai.BadRequestError),
    ({"max_tokens": -1}, openai.BadRequestError),
]:
    try:
        client.chat.completions.create(**({"model": "scripted", "messages": [{"role": "user", "content": "x"}]} | wrong))
    except expected as error:
        assert error.body["message"] and error.body["type"], error.body
    else:
        raise AssertionError(f"{wrong} was taken")

with client.chat.completions.create(
    model="scripted", stream=True, messages=[{"role": "user", "content": "[[script id=s tokens=100000 gap_us=1000 ttft_us=0]]"}]
) as stream:
    for number, _ in enumerate(stream):
        if number == 5:
            break
print("ok")
