import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conversations import MODES, conversation
from full_disk import no_file_above
from phi4.checkpoint.convert import convert
from phi4.checkpoint.initialise import initialise
from phi4.checkpoint.inspect import inspect_checkpoint
from phi4.checkpoint.keymap import modality_of
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.quantise import SCHEMES, quantise
from phi4.checkpoint.rounding import round_weight
from phi4.checkpoint.weights import load_model, save_model
from phi4.config import ADAPTED_LINEARS
from phi4.engine.whole_pass import score
from phi4.errors import CheckpointError, ConfigError
from phi4.json_file import read_json
from phi4.model.quantised import QuantisedWeight
from phi4.verify import verify

EditTensors = Callable[[Path, Callable[[dict[str, torch.Tensor]], object]], None]
EditJson = Callable[[Path, dict[str, Any]], None]

MAPS = Path("/proc/self/maps")
EIGHT = {**dict.fromkeys(ADAPTED_LINEARS, 8), "embed_tokens": 8}
CODES = "model.layers.0.mlp.down_proj.base_layer.weight.codes"


@pytest.fixture(scope="module", params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def quantised(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory, scheme: str) -> Path:
    directory = tmp_path_factory.mktemp("quantised") / scheme
    quantise(tiny_directory, directory, SCHEMES[scheme])
    return directory


@pytest.fixture
def broken(tiny_directory: Path, tmp_path: Path) -> Path:
    """A quantised model for one test to break."""
    quantise(tiny_directory, tmp_path / "broken", SCHEMES["mixed"])
    return tmp_path / "broken"


def test_linears_and_table_are_quantised_and_nothing_else(tiny_directory: Path, quantised: Path, scheme: str) -> None:
    before, model = open_checkpoint(tiny_directory).tensors, load_model(quantised).model
    after = open_checkpoint(quantised).tensors
    packed = {name: part for name, part in model.named_modules() if isinstance(part, QuantisedWeight)}
    assert before.keys() - after.keys() == packed.keys()
    assert all(torch.equal(before[name].read(), after[name].read()) for name in before.keys() & after.keys())
    for name, part in packed.items():
        bits = 4 if part.steps is not None else 8
        stored = before[name].read()
        expected = round_weight(stored, bits)
        assert torch.equal(part.codes, expected.codes)
        assert torch.equal(part.scales, expected.scales)
        whole = part.packed.rows(torch.arange(stored.shape[0]))
        assert (whole - stored).norm() < (0.08 if bits == 4 else 0.01) * stored.norm()


@pytest.mark.parametrize(("scheme", "expected"), [("4bit", 0), ("8bit", 30)])
def test_schemes_of_one_size_treat_all_linears_alike(scheme: str, expected: int) -> None:
    bits = SCHEMES[scheme].linear_bits(30)
    assert {name: own.count(8) for name, own in bits.items()} == dict.fromkeys(ADAPTED_LINEARS, expected)


def test_mixed_has_8_bits_where_4_hurt_most() -> None:
    bits = SCHEMES["mixed"].linear_bits(30)
    eight = {name: [layer for layer, own in enumerate(of) if own == 8] for name, of in bits.items()}
    assert eight == {
        "self_attn.qkv_proj": [*range(30)],
        "self_attn.o_proj": [0, 1, 2, 26, 27, 28, 29],
        "mlp.gate_up_proj": [0, 1, 28, 29],
        "mlp.down_proj": [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29],
    }


def test_codes_and_scales_keep_their_types_when_others_are_converted(quantised: Path) -> None:
    state = load_model(quantised, dtype=torch.float32).model.state_dict()
    for name, tensor in open_checkpoint(quantised).tensors.items():
        if not tensor.dtype.is_floating_point or name.endswith(".scales"):
            assert state[name].dtype == tensor.dtype
            assert torch.equal(state[name], tensor.read())


@pytest.mark.parametrize("mode", MODES)
def test_packs_of_the_base_fit_its_quantised_form(
    packed_directory: Path, quantised: Path, scheme: str, mode: str, tmp_path: Path
) -> None:
    quantise(packed_directory / "base", tmp_path / "base", SCHEMES[scheme])
    packs = [packed_directory / "vision.safetensors", packed_directory / "speech.safetensors"]
    joined, whole = load_model(tmp_path / "base", packs=packs), load_model(quantised)
    inputs = [conversation(whole.config, mode, 12, seed=1)]
    assert torch.equal(score(joined.model, inputs)[0], score(whole.model, inputs)[0])
    assert (
        inspect_checkpoint(tmp_path / "base").base_digest == inspect_checkpoint(packed_directory / "base").base_digest
    )


@pytest.fixture(scope="module")
def all_quantised(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("quantised") / "all_quantised"
    quantise(tiny_directory, directory, SCHEMES["4bit"], encoders=True, adapters=True)
    return directory


def test_linears_of_encoders_and_adapters_are_quantised_if_asked(tiny_directory: Path, all_quantised: Path) -> None:
    before, model = open_checkpoint(tiny_directory).tensors, load_model(all_quantised).model
    packed = {
        name: part
        for name, part in model.named_modules()
        if isinstance(part, QuantisedWeight) and modality_of(name) != "language"
    }
    linears = {name.split(".", 2)[2] for name in packed}
    for own in (
        "layers.0.self_attn.q_proj",
        "layers.2.mlp.fc2",
        "blocks.1.conv.glu.pointwise",
        "blocks.0.conv.output",
        "layers.1.mlp.down_proj.lora_A.vision",
        "layers.0.self_attn.o_proj.lora_B.speech",
    ):
        assert f"{own}.weight" in linears
    assert not any("subsampling" in name or "projector" in name or "patch" in name for name in linears)
    for name, part in packed.items():
        stored = before[name].read().flatten(1).float()
        whole = part.packed.rows(torch.arange(part.packed.shape[0]))
        outputs, inputs = stored.shape
        assert (whole[:outputs, :inputs] - stored).norm() < 0.01 * stored.norm()
        assert whole[outputs:].count_nonzero() == whole[:, inputs:].count_nonzero() == 0


@pytest.mark.parametrize("mode", MODES)
def test_quantised_modalities_are_near_and_go_with_their_packs(
    tiny_directory: Path, all_quantised: Path, mode: str, tmp_path: Path
) -> None:
    plain, whole = load_model(tiny_directory), load_model(all_quantised)
    convert(all_quantised, tmp_path / "split", "packs")
    packs = [tmp_path / "split" / f"{name}.safetensors" for name in ("vision", "speech")]
    joined = load_model(tmp_path / "split" / "base", packs=packs)
    inputs = conversation(whole.config, mode, 12, seed=1)
    adapter = plain.model.adapter_for(frozenset(medium.modality for medium in inputs.media))
    for medium in inputs.media:
        exact, found, again = (one.model.encode(medium, adapter).float() for one in (plain, whole, joined))
        assert 0 < (found - exact).norm() < 0.05 * exact.norm()
        assert torch.equal(found, again)
    assert torch.equal(score(joined.model, [inputs])[0], score(whole.model, [inputs])[0])


def test_other_bits_of_encoders_are_refused(all_quantised: Path, tmp_path: Path, edit_json: EditJson) -> None:
    shutil.copytree(all_quantised, tmp_path / "broken")
    edit_json(tmp_path / "broken" / "config.json", {"img_processor": {"linear_bits": 3}})
    with pytest.raises(ConfigError, match="linear_bits of an encoder or adapter is 3"):
        load_model(tmp_path / "broken")


def test_packs_of_another_base_are_refused(packed_directory: Path, tmp_path: Path) -> None:
    initialise("tiny", tmp_path / "other", seed=1)
    convert(tmp_path / "other", tmp_path / "split", "packs")
    quantise(tmp_path / "split" / "base", tmp_path / "base", SCHEMES["4bit"])
    with pytest.raises(CheckpointError, match="was made for the base"):
        load_model(tmp_path / "base", packs=[packed_directory / "vision.safetensors"])


def test_saved_and_split_again_it_is_the_same(quantised: Path, tmp_path: Path) -> None:
    loaded = load_model(quantised)
    save_model(loaded.model, loaded.config, tmp_path / "saved", companions=quantised)
    convert(quantised, tmp_path / "split", "packs")
    packs = [tmp_path / "split" / f"{name}.safetensors" for name in ("vision", "speech")]
    state = loaded.model.state_dict()
    for again in (load_model(tmp_path / "saved"), load_model(tmp_path / "split" / "base", packs=packs)):
        assert again.model.state_dict().keys() == state.keys()
        assert all(torch.equal(tensor, state[name]) for name, tensor in again.model.state_dict().items())
    with pytest.raises(CheckpointError, match="converted layout holds no quantised"):
        convert(quantised, tmp_path / "native", "converted")


@pytest.mark.skipif(not MAPS.exists(), reason="this system does not list what is mapped")
def test_weights_are_read_where_the_file_is_mapped(quantised: Path) -> None:
    model = load_model(quantised).model
    lines = [line for line in MAPS.read_text().splitlines() if line.endswith(f"{quantised}/model.safetensors")]
    spans = [[int(address, 16) for address in line.split()[0].split("-")] for line in lines]
    for part in model.modules():
        if isinstance(part, QuantisedWeight):
            assert all(any(first <= tensor.data_ptr() < last for first, last in spans) for tensor in part.buffers())


def test_other_types_of_activations_leave_the_codes(quantised: Path) -> None:
    model = load_model(quantised).model
    scales = {name: tensor for name, tensor in model.state_dict().items() if name.endswith(".scales")}
    model.to(torch.float32)
    assert model.dtype == torch.float32
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in scales.items())


def test_a_head_of_its_own_is_quantised_too(
    model_directory: Path, edit_json: EditJson, edit_tensors: EditTensors, tmp_path: Path
) -> None:
    edit_json(model_directory / "config.json", {"tie_word_embeddings": False})
    table = "model.embed_tokens.weight"
    edit_tensors(
        model_directory / "model.safetensors", lambda tensors: tensors.update({"lm_head.weight": -tensors[table]})
    )
    quantise(model_directory, tmp_path / "out", SCHEMES["8bit"])
    exact, rounded = load_model(model_directory, dtype=torch.float32), load_model(tmp_path / "out", dtype=torch.float32)
    assert isinstance(rounded.model.head_weight, QuantisedWeight)
    inputs = [conversation(exact.config, "text", 12, seed=1)]
    expected, found = (score(loaded.model, inputs)[0] for loaded in (exact, rounded))
    assert (found - expected).norm() < 0.05 * expected.norm()


def test_the_layout_of_transformers_is_quantised_into_the_released_one(
    tiny_directory: Path, converted_directory: Path, tmp_path: Path
) -> None:
    for name, source in (("released", tiny_directory), ("converted", converted_directory)):
        quantise(source, tmp_path / name, SCHEMES["4bit"])
    one, other = (tmp_path / name / "model.safetensors" for name in ("released", "converted"))
    assert one.read_bytes() == other.read_bytes()


def test_progress_ends_at_the_whole(tiny_directory: Path, tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    quantise(tiny_directory, tmp_path / "out", SCHEMES["4bit"], lambda done, total: reports.append((done, total)))
    assert reports == sorted(reports)
    assert reports[-1][0] == reports[-1][1]


def test_what_is_interrupted_leaves_nothing(tiny_directory: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantise(tiny_directory, tmp_path / "out", SCHEMES["4bit"], interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_and_the_error_names_the_directory(tiny_directory: Path, tmp_path: Path) -> None:
    with no_file_above(100_000), pytest.raises(OSError, match=r"File too large: .*/out"):
        quantise(tiny_directory, tmp_path / "out", SCHEMES["4bit"])
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_files_is_left_alone(tiny_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        quantise(tiny_directory, tmp_path, SCHEMES["4bit"])
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_modalities_of_8_bits_stay_as_they_are_when_the_rest_is_quantised(
    packed_directory: Path, all_quantised: Path, tmp_path: Path
) -> None:
    """An exact base with packs of 8 bits inside becomes what the exact model becomes when all of it is quantised."""
    convert(all_quantised, tmp_path / "split", "packs")
    packs = [tmp_path / "split" / f"{name}.safetensors" for name in ("vision", "speech")]
    convert(packed_directory / "base", tmp_path / "joined", "released", packs)
    expected = load_model(all_quantised).model.state_dict()
    for adapters in (False, True):
        quantise(tmp_path / "joined", tmp_path / f"out-{adapters}", SCHEMES["4bit"], adapters=adapters)
        found = load_model(tmp_path / f"out-{adapters}").model.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.mark.parametrize("part", ["encoders", "adapters"])
def test_parts_that_a_language_model_lacks_are_not_quantised_in_silence(
    packed_directory: Path, tmp_path: Path, part: str
) -> None:
    with pytest.raises(CheckpointError, match="without encoders and adapters"):
        quantise(packed_directory / "base", tmp_path / "out", SCHEMES["4bit"], **{part: True})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("folder", ["vision-lora", "speech-lora"])
def test_a_model_that_lacks_an_adapter_is_refused_before_anything_is_rounded(
    converted_directory: Path, tmp_path: Path, folder: str
) -> None:
    source = Path(shutil.copytree(converted_directory, tmp_path / "source"))
    shutil.rmtree(source / folder)
    reports: list[tuple[int, int]] = []
    with pytest.raises(CheckpointError, match="both modalities with their adapters, and this model lacks one"):
        quantise(source, tmp_path / "out", SCHEMES["4bit"], lambda done, total: reports.append((done, total)))
    assert reports == []
    assert not (tmp_path / "out").exists()


def test_what_is_quantised_is_not_quantised_again(quantised: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="quantised already"):
        quantise(quantised, tmp_path / "twice", SCHEMES["4bit"])
    assert not (tmp_path / "twice").exists()


def test_values_that_are_no_numbers_are_refused(
    model_directory: Path, edit_tensors: EditTensors, tmp_path: Path
) -> None:
    name = "model.embed_tokens.weight"
    edit_tensors(model_directory / "model.safetensors", lambda tensors: tensors[name][3].fill_(torch.nan))
    with pytest.raises(CheckpointError, match=r"embed_tokens.weight .* no numbers"):
        quantise(model_directory, tmp_path / "out", SCHEMES["4bit"])
    assert not (tmp_path / "out").exists()


def test_a_flipped_code_is_found_when_the_directory_is_inspected_or_verified(
    broken: Path, edit_tensors: EditTensors
) -> None:
    inspect_checkpoint(broken)
    edit_tensors(broken / "model.safetensors", lambda tensors: tensors[CODES].view(-1)[5].bitwise_xor_(1))
    with pytest.raises(CheckpointError, match="they are damaged"):
        inspect_checkpoint(broken)
    with pytest.raises(CheckpointError, match="they are damaged"):
        verify(broken)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quant_method": "awq"}, "'awq'.*phi4 quantize"),
        ({"version": 2}, "update phi4 if its version is newer"),
        ({"bits": {}}, "bits must be 4 or 8"),
        ({"bits": {**EIGHT, "mlp.down_proj": [8, 4, 4]}}, r"its 2 layers, not {'mlp.down_proj': \[8, 4, 4\]}"),
        ({"bits": {**EIGHT, "mlp.down_proj": [8, 6]}}, r"'mlp.down_proj': \[8, 6\]"),
        ({"bits": {**EIGHT, "embed_tokens": [8, 8]}}, "'embed_tokens'"),
        ({"bits": 4}, "bits"),
        ({"base_digest": "abc"}, "64 hexadecimal digits, not 'abc'"),
        ({"base_digest": None}, "base_digest"),
    ],
)
def test_a_broken_description_is_refused(
    broken: Path, edit_json: EditJson, changes: dict[str, Any], message: str
) -> None:
    described = read_json(broken / "config.json")["quantization_config"]
    edit_json(broken / "config.json", {"quantization_config": {**described, **changes}})
    with pytest.raises(ConfigError, match=message):
        load_model(broken)


def test_codes_of_another_type_or_shape_are_refused(broken: Path, edit_tensors: EditTensors) -> None:
    weights = broken / "model.safetensors"
    edit_tensors(weights, lambda tensors: tensors.update({CODES: tensors[CODES].bfloat16()}))
    with pytest.raises(CheckpointError, match=r"of another type: .*down_proj.*bfloat16 instead of torch.uint8"):
        load_model(broken)
    edit_tensors(weights, lambda tensors: tensors.update({CODES: tensors[CODES][:1].byte().contiguous()}))
    with pytest.raises(CheckpointError, match="misshapen"):
        load_model(broken)


def test_steps_that_lead_out_of_a_byte_are_refused(broken: Path, edit_tensors: EditTensors) -> None:
    steps = "model.layers.0.self_attn.o_proj.base_layer.weight.steps"
    weights = broken / "model.safetensors"

    def damage(tensors: dict[str, torch.Tensor]) -> None:
        tensors[steps][-1, -1, :, 3] = torch.tensor([17, 1])

    edit_tensors(weights, damage)
    with pytest.raises(CheckpointError, match=r"broken/model.safetensors: .*o_proj.*steps is damaged.* 256"):
        load_model(broken)


def test_scales_that_are_no_numbers_are_refused(broken: Path, edit_tensors: EditTensors) -> None:
    scales = CODES.replace("codes", "scales")
    edit_tensors(broken / "model.safetensors", lambda tensors: tensors[scales][5].fill_(torch.nan))
    with pytest.raises(CheckpointError, match=r"broken/model.safetensors: .*down_proj.*scales is damaged.*no numbers"):
        load_model(broken)


def test_a_truncated_file_is_refused(broken: Path) -> None:
    weights = broken / "model.safetensors"
    with weights.open("rb+") as file:
        file.truncate(weights.stat().st_size - 1)
    with pytest.raises(CheckpointError, match="truncated"):
        load_model(broken)


def test_whole_numbers_may_be_written_with_a_point(tiny_directory: Path, edit_json: EditJson, tmp_path: Path) -> None:
    quantise(tiny_directory, tmp_path / "out", SCHEMES["8bit"])
    described = read_json(tmp_path / "out" / "config.json")["quantization_config"]
    bits = dict.fromkeys(EIGHT, 8.0)
    edit_json(tmp_path / "out" / "config.json", {"quantization_config": {**described, "bits": bits}})
    load_model(tmp_path / "out")


def test_bytes_where_numbers_belong_are_refused(model_directory: Path, edit_tensors: EditTensors) -> None:
    norm = "model.norm.weight"
    edit_tensors(model_directory / "model.safetensors", lambda tensors: tensors.update({norm: tensors[norm].byte()}))
    with pytest.raises(CheckpointError, match=r"model.norm.weight torch.uint8 instead of numbers with a fraction"):
        load_model(model_directory)


def test_without_its_description_it_is_no_model(broken: Path, edit_json: EditJson) -> None:
    edit_json(broken / "config.json", {"quantization_config": None})
    with pytest.raises(CheckpointError, match="unknown"):
        load_model(broken)


def test_sizes_that_do_not_fill_groups_are_refused(tiny_directory: Path, edit_json: EditJson, broken: Path) -> None:
    edit_json(broken / "config.json", {"intermediate_size": 130})
    with pytest.raises(ConfigError, match="multiples of 16 and 32"):
        load_model(broken)
