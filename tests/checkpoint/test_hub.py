"""Finding models by name. The Hub itself is never asked: a cache on disk and a small server here stand in for it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import filter_repo_objects

from phi4.checkpoint.cache import cache_home, cached_directory
from phi4.checkpoint.hub import ALLOWED_FILES, pull_from_hub, resolve
from phi4.errors import CheckpointError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class RefusingHub(BaseHTTPRequestHandler):
    """Knows one gated repository, one without the revision that is asked for, one it breaks off at, and no other."""

    def do_GET(self) -> None:
        if "broken" in self.path:
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            return
        gated, revision = "gated" in self.path, "revisionless/revision/v9" in self.path
        code = "GatedRepo" if gated else "RevisionNotFound" if revision else "RepoNotFound"
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def refusing_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), RefusingHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def test_a_directory_is_itself(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == tmp_path


def test_a_pulled_repository_is_found_without_the_network(hub_cache: Path) -> None:
    snapshot = hub_cache / "models--owner--name/snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    refs = hub_cache / "models--owner--name/refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    assert resolve("owner/name") == snapshot


def test_a_pulled_revision_is_found_by_its_name(hub_cache: Path) -> None:
    snapshot = hub_cache / "models--owner--name/snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    refs = hub_cache / "models--owner--name/refs"
    (refs / "refs/pr").mkdir(parents=True)
    (refs / "refs/pr/1").write_text(COMMIT)
    assert resolve("owner/name@refs/pr/1") == resolve(f"owner/name@{COMMIT}") == snapshot
    with pytest.raises(CheckpointError, match="run `phi4 pull owner/name@v2`"):
        resolve("owner/name@v2")


@pytest.mark.usefixtures("refusing_hub")
def test_a_revision_is_pulled_by_its_name() -> None:
    with pytest.raises(CheckpointError, match="owner/revisionless has no revision 'v9'"):
        pull_from_hub("owner/revisionless@v9")


def test_a_repository_that_was_not_pulled_says_how_to_get_it() -> None:
    with pytest.raises(CheckpointError, match="run `phi4 pull owner/name`"):
        resolve("owner/name")


@pytest.mark.parametrize("model", ["missing", "./missing", "/missing/place", "a/b/c", ""])
def test_a_name_that_is_nothing_says_what_a_model_is(model: str) -> None:
    with pytest.raises(CheckpointError, match="a model is 'nano', a directory, or OWNER/NAME"):
        resolve(model)


@pytest.mark.parametrize("model", ["owner/na me", "owner/--", "owner/name.git"])
def test_an_impossible_repository_name_is_refused(model: str) -> None:
    with pytest.raises(CheckpointError, match="neither a directory nor a pulled model"):
        resolve(model)
    with pytest.raises(CheckpointError, match="must look like OWNER/NAME"):
        pull_from_hub(model)


@pytest.mark.parametrize(
    ("repository", "said"),
    [
        ("owner/name", "not on the Hub, or is private"),
        ("owner/gated", "is gated"),
        ("owner/revisionless", "has no revision 'v9'"),
        ("owner/broken", "owner/broken cannot be downloaded: .*; check the network"),
    ],
)
@pytest.mark.usefixtures("refusing_hub")
def test_what_the_hub_refuses_is_explained(repository: str, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        pull_from_hub(f"{repository}@v9")


def test_neither_pickles_nor_code_are_ever_downloaded() -> None:
    unwanted = ["pytorch_model.bin", "a.pt", "a.pth", "a.pkl", "modeling.py", "sub/run.py", "LICENSE.py", "NOTICE.bin"]
    assert list(filter_repo_objects(unwanted, allow_patterns=ALLOWED_FILES)) == []
    wanted = ["config.json", "model-00001-of-00002.safetensors", "LICENSE", "NOTICE.md", "chat_template.jinja"]
    assert list(filter_repo_objects(wanted, allow_patterns=ALLOWED_FILES)) == wanted


def test_the_cache_follows_its_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PHI4_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_home() == tmp_path / "own"
    monkeypatch.delenv("PHI4_HOME")
    assert cache_home() == tmp_path / "xdg/phi4"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_home() == tmp_path / ".cache/phi4"


def test_a_cached_directory_is_built_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PHI4_HOME", str(tmp_path))
    built = []

    def build(directory: Path) -> None:
        built.append(directory)
        (directory / "file").write_text("x")

    assert cached_directory("thing", build) == cached_directory("thing", build) == tmp_path / "thing"
    assert len(built) == 1


def test_builders_at_the_same_time_end_with_one_whole_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PHI4_HOME", str(tmp_path))
    everybody = threading.Barrier(4)

    def build(directory: Path) -> None:
        everybody.wait(timeout=10)
        (directory / "file").write_text("x")

    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: cached_directory("thing", build), range(4)))
    assert set(paths) == {tmp_path / "thing"}
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]
    assert (tmp_path / "thing/file").read_text() == "x"


def test_a_failed_build_leaves_the_cache_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PHI4_HOME", str(tmp_path))

    def build(directory: Path) -> None:
        raise CheckpointError("no")

    with pytest.raises(CheckpointError, match="no"):
        cached_directory("thing", build)
    assert list(tmp_path.iterdir()) == []
