"""Answers that are held to a JSON schema and to a regular expression."""

from phi4 import Assistant

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}

if __name__ == "__main__":
    assistant = Assistant.load("nano", packs=())
    grammars = assistant.grammars
    print(assistant.ask("The capital of France, as JSON?", constrain=grammars.json_schema(SCHEMA)).text)
    print(assistant.ask("What colour is the sky?", constrain=grammars.regex("red|green|blue")).text)
