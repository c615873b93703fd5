import sys

import pytest

from jscale.checkpoint.testing import write_hugging_face
from jscale.models.testing import TINY_CONFIG, random_tensors


@pytest.fixture(scope="session")
def tensors():
    """The weights of the tiny model by their Hugging Face names."""
    return random_tensors(TINY_CONFIG)


@pytest.fixture
def hf_directory(tmp_path, tensors):
    """The tiny model as `save_pretrained` would write it, in two shards."""
    directory = tmp_path / "tiny"
    write_hugging_face(directory, TINY_CONFIG, tensors, num_shards=2)
    return directory


@pytest.fixture(scope="session", autouse=True)
def orbax_may_end_late():
    """Orbax closes its event loop before TensorStore's last callbacks call into it."""
    told = sys.unraisablehook

    def hook(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            told(unraisable)

    sys.unraisablehook = hook
    yield
    sys.unraisablehook = told
