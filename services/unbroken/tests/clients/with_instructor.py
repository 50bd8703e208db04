"""instructor against the mesh: the address of its /v1 is the argument."""

import sys

import instructor
import openai
from pydantic import BaseModel

PROMPT = "[[script id=i tokens=20 gap_us=500 ttft_us=0{}]]"
TEXT = "".join(f"i.{token} " for token in range(1, 19))


class Said(BaseModel):
    text: str


def ask(more=""):
    return [{"role": "user", "content": PROMPT.format(more)}]


base = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
client = instructor.from_openai(base, mode=instructor.Mode.TOOLS)
said = client.chat.completions.create(model="scripted", messages=ask(), response_model=Said, max_retries=0)
assert said.text == TEXT, said
*_, last = client.chat.completions.create_partial(model="scripted", messages=ask(), response_model=Said, max_retries=0)
assert last.text == TEXT, last

plain = client.chat.completions.create(model="scripted", messages=ask(), response_model=None)
assert plain.choices[0].message.content == "i.0 " + TEXT + "i.19 ", plain

try:
    client.chat.completions.create(model="nobody", messages=ask(), response_model=Said, max_retries=0)
except Exception as error:
    assert "nobody" in str(error), repr(error)
else:
    raise AssertionError("nobody answered")
print("ok")
