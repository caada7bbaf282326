"""What harnesses say of models and generation is taken as far as the engine has it."""

import pytest

from phi4.engine.sampling import Sampling
from phi4.errors import InputError
from phi4.eval.harness_options import load_named, read_settings


def test_settings_that_the_engine_lacks_are_refused() -> None:
    assert read_settings({"until": "x", "max_gen_toks": 3}) == (Sampling(3), ("x",))
    assert read_settings({"do_sample": True, "temperature": 0.5})[0].temperature == 0.5
    assert read_settings({"do_sample": False, "temperature": 0.5})[0].temperature == 0.0
    assert read_settings({"max_new_tokens": 4, "num_beams": 1, "top_p": None, "until": None}) == (Sampling(4), ())
    with pytest.raises(InputError, match="asks for num_beams"):
        read_settings({"num_beams": 4})
    with pytest.raises(InputError, match="dtype must be one of float32"):
        load_named("nano", None, None, "int3")
