"""The tables of docs/serving.md are those of the program."""

import re
from pathlib import Path

import typer.main
from starlette.routing import Route

from phi4.cli import app
from phi4.server.app import build_app
from server.running import Running

# Options in the examples that are not ours.
CURL_OPTIONS = {"--silent", "--fail", "--header", "--data", "--form"}
PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()


def test_every_path_is_in_the_table(server: Running) -> None:
    routes = [route for route in build_app(server.service).routes if isinstance(route, Route)]
    served = {
        f"{method} {route.path.replace(':path', '')}"
        for route in routes
        for method in (route.methods or ())
        if method != "HEAD"
    }
    assert set(re.findall(r"^\| `((?:GET|POST) [^`]+)`", PAGE, re.MULTILINE)) == {
        one for one in served if "/page/" not in one
    }


def test_every_limit_is_in_the_table_with_its_default() -> None:
    command = typer.main.get_command(app).get_command(None, "serve")  # type: ignore[attr-defined]
    options = {parameter.opts[0]: parameter.default for parameter in command.params}
    documented = dict(re.findall(r"^\| `(--[\w-]+)` \| ([^|]+?) \|", PAGE, re.MULTILINE))
    assert {name for name in options if name.startswith(("--max-", "--drain"))} <= documented.keys()
    for name, default in documented.items():
        own = options[name]
        assert own is None or default == own or float(default) == float(own)
    assert set(re.findall(r"--[a-z][\w-]+(?=[`\s])", PAGE)) - options.keys() <= CURL_OPTIONS


def test_every_number_is_in_the_table(server: Running) -> None:
    text = server.send("/metrics").body.decode()
    exposed = set(re.findall(r"^# TYPE (\w+) (?:gauge|counter|histogram)", text, re.MULTILINE))
    assert set(re.findall(r"`(phi4_\w+)`", PAGE)) == {name for name in exposed if not name.endswith("_created")}
