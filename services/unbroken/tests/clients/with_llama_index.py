"""LlamaIndex against the mesh: the address of its /v1 is the argument."""

import sys

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

PROMPT = "[[script id=x tokens=20 gap_us=500 ttft_us=0{}]]"
TEXT = "".join(f"x.{token} " for token in range(20))


def model(name):
    return OpenAILike(model=name, api_base=sys.argv[1], api_key="none", is_chat_model=True, is_function_calling_model=True, max_retries=0)


def say(text: str) -> str:
    """Says it."""
    return text


def ask(more=""):
    return [ChatMessage(role="user", content=PROMPT.format(more))]


llm = model("scripted")
assert llm.chat(ask()).message.content == TEXT
assert "".join(part.delta or "" for part in llm.stream_chat(ask())) == TEXT
assert llm.complete(PROMPT.format("")).text == TEXT

tools = [FunctionTool.from_defaults(say)]
response = llm.chat_with_tools(tools, chat_history=ask(" tool=say"))
[call] = llm.get_tool_calls_from_response(response)
assert call.tool_name == "say" and call.tool_kwargs["text"].startswith("x.1 "), call

try:
    model("nobody").chat(ask())
except Exception as error:
    assert getattr(error, "status_code", 0) == 404, repr(error)
else:
    raise AssertionError("nobody answered")
print("ok")
