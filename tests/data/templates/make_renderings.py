"""Records what jinja2, set up as transformers sets it up, makes of the templates of this folder.

Usage: python3 make_renderings.py   (jinja2 3.1; writes renderings.jsonl and snippets.jsonl)

The templates are our own, written after the formats that docs and model cards describe. Each line of
renderings.jsonl is a template, an input and either "text" or "error" (the message, when the template
itself raised one; "" for other errors). snippets.jsonl holds one expression or construct a line.
SPDX-License-Identifier: MIT
"""
import datetime
import json
import pathlib
import random

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

FOLDER = pathlib.Path(__file__).parent
NOW = 1753488000  # 2025-07-26 00:00:00 UTC


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("run", [])
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def run(self, caller):
        return caller()


class Raised(jinja2.exceptions.TemplateError):
    pass


def environment():
    def raise_exception(message):
        raise Raised(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(format):
        return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(format)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


WORDS = ("the a weather in Oslo is 12 °C what \"quoted\" it's <b> & {{ x }} {% if %} 你好 世界 naïve Straße 😀 "
         "def f(x): return x*2 \\n C:\\path tab\there /nothink <think> </think> <|user|> [gMASK] 1e5 3.14 ' zażółć").split(" ")


def text(rng, low=1, high=12):
    words = [rng.choice(WORDS) for _ in range(rng.randint(low, high))]
    out = "".join(w + rng.choice([" ", " ", " ", "\n", "  "]) for w in words)
    return out if rng.random() < 0.2 else out.strip()


def value(rng, depth=0):
    kind = rng.randrange(9 if depth < 2 else 7)
    if kind == 0:
        return rng.randint(-5, 10**12)
    if kind == 1:
        return rng.choice([0.5, 1.0, -2.25, 1e22, 1.5e-7, 0.1, 123456789.125, 1e16, 0.0001])
    if kind == 2:
        return rng.choice([True, False, None])
    if kind == 7:
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    if kind == 8:
        return {rng.choice(["city", "n", "名", "a b", "x-y"]): value(rng, depth + 1) for _ in range(rng.randint(0, 3))}
    return text(rng, 0, 4)


SCHEMAS = [
    {"type": "object", "properties": {"city": {"type": "string", "description": "Name of a city"},
                                      "days": {"type": "integer", "minimum": 1, "maximum": 14.5}}, "required": ["city"]},
    {"type": "object", "properties": {}},
    {"type": "object", "properties": {"单位": {"type": "string", "enum": ["摄氏", "华氏"]},
                                      "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "number"}}}}},
     "additionalProperties": False},
]


def tool(rng):
    function = {"name": rng.choice(["get_weather", "search", "运行"]), "description": text(rng, 0, 6), "parameters": rng.choice(SCHEMAS)}
    return {"type": "function", "function": function} if rng.random() < 0.8 else function


def conversation(rng):
    messages = []
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": text(rng)})
    for _ in range(rng.randint(1, 3)):
        content = text(rng)
        if rng.random() < 0.12:
            content = [{"type": "text", "text": text(rng)} for _ in range(rng.randint(1, 2))]
        messages.append({"role": "user", "content": content})
        if rng.random() < 0.35:
            calls = []
            for _ in range(rng.randint(1, 2)):
                call = {"name": rng.choice(["get_weather", "search"]), "arguments": {k: value(rng) for k in rng.sample(["city", "days", "单位", "x"], rng.randint(0, 3))}}
                calls.append({"id": "c1", "type": "function", "function": call} if rng.random() < 0.8 else call)
            message = {"role": "assistant", "content": rng.choice([None, "", text(rng)]), "tool_calls": calls}
            if rng.random() < 0.5:
                message["reasoning_content"] = text(rng)
            messages.append(message)
            for _ in calls:
                messages.append({"role": "tool", "content": text(rng)})
        if rng.random() < 0.7:
            message = {"role": "assistant", "content": text(rng)}
            style = rng.random()
            if style < 0.3:
                message["reasoning_content"] = text(rng)
            elif style < 0.6:
                message["content"] = "<think>\n" + text(rng) + "\n</think>\n\n" + message["content"]
            messages.append(message)
    if rng.random() < 0.05:
        messages.append({"role": "assistant", "content": "again"})
    record = {"messages": messages, "add_generation_prompt": rng.random() < 0.7}
    if rng.random() < 0.4:
        record["tools"] = [tool(rng) for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.6:
        record["enable_thinking"] = rng.random() < 0.5
    if rng.random() < 0.1:
        messages[0]["tools"] = [tool(rng), {"type": "python"}]
    return record


def render(template, record):
    kwargs = {"bos_token": "<s>", "eos_token": "</s>", "tools": None, "documents": None, **record}
    try:
        return {"text": template.render(**kwargs)}
    except Raised as error:
        return {"error": error.message}
    except (jinja2.exceptions.TemplateError, TypeError, ValueError, OverflowError, ZeroDivisionError, AttributeError, KeyError, IndexError):
        return {"error": ""}


def main():
    env = environment()
    rng = random.Random(20250726)
    names = sorted(p.name for p in FOLDER.glob("*.jinja"))
    count = 0
    with open(FOLDER / "renderings.jsonl", "w") as out:
        for name in names:
            template = env.from_string((FOLDER / name).read_text())
            for _ in range(90):
                record = conversation(rng)
                json.dump({"template": name, **record, **render(template, record)}, out, ensure_ascii=False, separators=(",", ":"))
                out.write("\n")
                count += 1
    record = {"messages": [{"role": "user", "content": "Hi <b>\n\u00e9"}, {"role": "assistant", "content": None}], "add_generation_prompt": True}
    with open(FOLDER / "snippets.jsonl", "w") as out:
        for source in (FOLDER / "snippets.txt").read_text().split("\n"):
            if not source:
                continue
            source = json.loads(source) if source.startswith('"') else source
            try:
                result = render(env.from_string(source), record)
            except jinja2.exceptions.TemplateError:
                result = {"error": ""}
            json.dump({"source": source, **result}, out, ensure_ascii=False, separators=(",", ":"))
            out.write("\n")
    print(f"{count} renderings of {len(names)} templates")


if __name__ == "__main__":
    main()
