import pytest
import torch
from safetensors import safe_open

from utils.safetensors_format import from_bytes, to_bytes

TENSORS = {"b": torch.arange(6, dtype=torch.float16).view(2, 3), "a": torch.tensor([7], dtype=torch.int64)}
METADATA = {"zeta": "1", "alpha": '{"x": "é"}'}


def test_tensors_and_metadata_come_back():
    tensors, metadata = from_bytes(to_bytes(TENSORS, METADATA))
    assert metadata == METADATA and set(tensors) == {"a", "b"}
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor)


def test_equal_content_makes_equal_bytes_whatever_the_order_of_the_metadata():
    reordered = dict(reversed(METADATA.items()))
    assert len({to_bytes(TENSORS, metadata) for metadata in (METADATA, reordered) for _ in range(4)}) == 1


def test_safetensors_reads_the_file(tmp_path):
    path = tmp_path / "tensors.safetensors"
    path.write_bytes(to_bytes(TENSORS, METADATA))
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == METADATA and torch.equal(file.get_tensor("b"), TENSORS["b"])


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: c[:7], lambda c: c[:-1], lambda c: b"\xff" * 9 + c[9:]])
def test_other_content_is_refused(damage):
    with pytest.raises(ValueError):
        from_bytes(damage(to_bytes(TENSORS, METADATA)))
