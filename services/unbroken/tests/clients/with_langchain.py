"""LangChain against the mesh: the address of its /v1 is the argument."""

import sys

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

ADDRESS = {"base_url": sys.argv[1], "api_key": "none", "max_retries": 0}
PROMPT = "[[script id=l tokens=20 gap_us=500 ttft_us=0{}]]"
TEXT = "".join(f"l.{token} " for token in range(20))


@tool
def say(text: str) -> str:
    """Says it."""
    return text


chat = ChatOpenAI(model="scripted", **ADDRESS)
answer = chat.invoke(PROMPT.format(""))
assert (answer.content, answer.usage_metadata["output_tokens"]) == (TEXT, 20), answer
chunks = list(chat.stream(PROMPT.format("")))
assert "".join(chunk.content for chunk in chunks) == TEXT, chunks

asked = [HumanMessage(PROMPT.format(" tool=say"))]
called = chat.bind_tools([say]).invoke(asked)
[call] = called.tool_calls
assert call["name"] == "say" and call["args"]["text"].startswith("l.1 "), called
done = chat.bind_tools([say]).invoke([*asked, called, ToolMessage(say.invoke(call["args"]), tool_call_id=call["id"])])
assert done.tool_calls or done.content, done
streamed = None
for chunk in chat.bind_tools([say]).stream(asked):
    streamed = chunk if streamed is None else streamed + chunk
assert streamed.tool_calls[0]["args"] == call["args"], streamed

assert OpenAI(model="scripted", max_tokens=20, **ADDRESS).invoke(PROMPT.format("")) == TEXT
vectors = OpenAIEmbeddings(model="scripted", check_embedding_ctx_length=False, **ADDRESS).embed_documents(["a", "b"])
assert len(vectors) == 2 and vectors[0] != vectors[1]

try:
    ChatOpenAI(model="nobody", **ADDRESS).invoke("x")
except Exception as error:
    assert getattr(error, "status_code", 0) == 404, repr(error)
else:
    raise AssertionError("nobody answered")
print("ok")
