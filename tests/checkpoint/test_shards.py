from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from phi4.checkpoint.shards import TensorSpec, plan_shards, specs_of, write_file, write_weights
from phi4.checkpoint.tensor_files import map_directory, map_file
from phi4.errors import CheckpointError
from phi4.files import new_directory


def random_tensors() -> dict[str, torch.Tensor]:
    return {
        "odd": torch.randn(3).bfloat16(),
        "matrix": torch.randn(4, 5),
        "half": torch.randn(2, 1, 3).half(),
        "empty": torch.zeros(0, 7),
        "scalar": torch.tensor(2.5),
    }


def test_safetensors_reads_what_we_write(tmp_path: Path) -> None:
    tensors = random_tensors()
    write_file(tmp_path / "f.safetensors", specs_of(tensors), tensors.__getitem__)
    read = load_file(tmp_path / "f.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())


def test_every_tensor_starts_where_it_can_be_mapped(tmp_path: Path) -> None:
    tensors = random_tensors()
    write_file(tmp_path / "f.safetensors", specs_of(tensors), tensors.__getitem__)
    for stored in map_file(tmp_path / "f.safetensors").values():
        assert stored.read().data_ptr() % stored.dtype.itemsize == 0


def test_reading_gives_views_of_one_map(tmp_path: Path) -> None:
    tensors = random_tensors()
    write_file(tmp_path / "f.safetensors", specs_of(tensors), tensors.__getitem__)
    stored = map_file(tmp_path / "f.safetensors")
    assert stored["matrix"].read().data_ptr() == stored["matrix"].read().data_ptr()


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    spec = TensorSpec(torch.float32, (2, 2))
    with pytest.raises(CheckpointError, match="w is torch"):
        write_file(tmp_path / "f.safetensors", {"w": spec}, lambda name: torch.zeros(3))
    assert list(tmp_path.iterdir()) == []


def test_shards_are_numbered_and_indexed(tmp_path: Path) -> None:
    tensors = {f"t{i}": torch.full((10,), float(i)) for i in range(5)}
    seen: list[tuple[int, int]] = []
    write_weights(
        tmp_path, specs_of(tensors), tensors.__getitem__, 80, progress=lambda done, total: seen.append((done, total))
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
    ]
    stored = map_directory(tmp_path)
    assert all(torch.equal(stored[name].read(), tensor) for name, tensor in tensors.items())
    assert seen[-1] == (200, 200)


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 60))
def test_shards_keep_order_and_respect_the_limit(sizes: list[int], limit: int) -> None:
    specs = {str(number): TensorSpec(torch.bfloat16, (size,)) for number, size in enumerate(sizes)}
    shards = plan_shards(specs, limit)
    assert [name for shard in shards for name in shard] == list(specs)
    for shard in shards:
        assert len(shard) == 1 or sum(specs[name].num_bytes for name in shard) <= limit


def test_a_new_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fill(partial: Path) -> None:
        (partial / "half").write_text("")
        raise RuntimeError

    with pytest.raises(RuntimeError), new_directory(tmp_path / "model") as partial:
        fill(partial)
    assert list(tmp_path.iterdir()) == []
    with new_directory(tmp_path / "model") as partial:
        (partial / "whole").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_directory_with_files_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    with pytest.raises(CheckpointError, match="not empty"), new_directory(tmp_path):
        pass
    with pytest.raises(CheckpointError, match="not empty"), new_directory(tmp_path / "precious"):
        pass


def test_the_current_directory_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for destination in (Path("."), Path("../here"), tmp_path / "here"):
        with pytest.raises(CheckpointError, match="name a new directory inside it"), new_directory(destination):
            pytest.fail("the block must not run")
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_a_link_to_an_empty_directory_stays_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    monkeypatch.chdir(tmp_path)
    with new_directory(Path("link")) as partial:
        (partial / "file").write_text("x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target/file").read_text() == "x"
