"""The official OpenAI SDK reads one answer while its worker dies: the address of the mesh's /v1 is the argument."""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
prompt = "[[script id=s tokens=60 gap_us=20000 ttft_us=0]]"
stream = client.chat.completions.create(
    model="scripted", messages=[{"role": "user", "content": prompt}], stream=True, stream_options={"include_usage": True}
)
text = ""
for chunk in stream:
    for choice in chunk.choices:
        text += choice.delta.content or ""
    if text.endswith("s.9 "):
        print("now", flush=True)  # the moment to kill
    if chunk.usage:
        print(f"{chunk.usage.completion_tokens} tokens", flush=True)
assert text == "".join(f"s.{token} " for token in range(60)), text
print("whole", flush=True)
