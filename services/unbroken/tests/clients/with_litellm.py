"""litellm against the mesh, by OpenAI's API and by Anthropic's: the mesh's address is the argument."""

import json
import sys

import litellm

PROMPT = "[[script id=m tokens=20 gap_us=500 ttft_us=0{}]]"
TEXT = "".join(f"m.{token} " for token in range(20))
TOOL = {"type": "function", "function": {"name": "say", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}}}


def ask(provider, more="", **rest):
    base = sys.argv[1] + ("/v1" if provider == "openai" else "")
    messages = [{"role": "user", "content": PROMPT.format(more)}]
    asked = {"model": f"{provider}/scripted", "api_base": base, "api_key": "none", "messages": messages, "max_tokens": 100, "num_retries": 0}
    return litellm.completion(**(asked | rest))


for provider in ["openai", "anthropic"]:
    whole = ask(provider)
    assert (whole.choices[0].message.content, whole.usage.completion_tokens) == (TEXT, 20), whole
    text = "".join(chunk.choices[0].delta.content or "" for chunk in ask(provider, stream=True))
    assert text == TEXT, (provider, text)
    [call] = ask(provider, " tool=say", tools=[TOOL]).choices[0].message.tool_calls
    assert json.loads(call.function.arguments)["text"].startswith("m.1 "), call
    try:
        ask(provider, model=f"{provider}/nobody")
    except litellm.NotFoundError as error:
        assert "nobody" in str(error), repr(error)
    else:
        raise AssertionError("nobody answered")

text = litellm.text_completion(model="text-completion-openai/scripted", api_base=sys.argv[1] + "/v1", api_key="none", prompt=PROMPT.format(""), max_tokens=20)
assert text.choices[0].text == TEXT, text
print("ok")
