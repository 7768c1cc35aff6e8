import pytest
import torch
from small_networks import random_images, small_model

from inference.engines import autocast
from inference.network import predict, resolve_device
from solvers import FixedPointConfig


def test_auto_takes_an_accelerator_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "mps", "tpu"])
def test_a_device_that_is_not_there_is_named_with_what_to_do(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"device '{name}' is not available here; use --device auto or --device cpu"):
        resolve_device(name)


def test_predict_yields_the_output_of_each_batch_in_order():
    model = small_model()
    batches = [random_images(size, seed=size) for size in (3, 1, 2)]
    outputs = list(predict(model, batches))
    assert [len(output.keypoints) for output in outputs] == [3, 1, 2]
    with torch.no_grad():
        for images, output in zip(batches, outputs, strict=True):
            torch.testing.assert_close(output.keypoints, model(images).keypoints, rtol=0, atol=1e-4)


def test_predict_reads_no_batch_before_it_is_asked_for():
    read = []

    def batches():
        for seed in range(2):
            read.append(seed)
            yield random_images(1, seed)

    outputs = predict(small_model(), batches())
    assert read == []
    next(outputs)
    assert read == [0]


def test_predict_builds_no_graph_and_leaves_gradients_on_for_its_caller():
    for output in predict(small_model(), [random_images(1)]):
        assert output.keypoints.is_inference()
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_predict_works_channels_last():
    (output,) = predict(small_model(), [random_images(2)])
    assert output.z_star.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_moves_the_keypoints_only_a_little():
    model = small_model(solver=FixedPointConfig(max_evals=6, tol=0))
    images = random_images(4)
    (exact,) = predict(model, [images], "fp32")
    (rounded,) = predict(model, [images], "bf16")
    moved = (rounded.keypoints - exact.keypoints).norm(dim=2).mean()
    assert 0 < moved < 0.02
    assert rounded.keypoints.dtype == torch.float32


def test_autocast_is_on_for_bf16_alone():
    for precision, enabled in (("fp32", False), ("bf16", True)):
        with autocast(torch.device("cpu"), precision):
            assert torch.is_autocast_enabled("cpu") == enabled
            assert torch.get_autocast_dtype("cpu") == torch.bfloat16
