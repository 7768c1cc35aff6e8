from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from datasets.wflw import read_faces
from training import turned_quality
from training.augmentation import Augmentation
from training.augmentation_config import AugmentationConfig
from training.data import DISAGREEMENT_COLUMN, FaceList, TrainingFaces, label_weight, read_training_lists
from training.sampling import Draw, PoseSampler, pose_weights, profile_measure, share_weights
from utils.errors import InputError, OptionError
from utils.images import IMAGENET_MEAN, IMAGENET_STD
from utils.processes import initialise_worker

SIZE = 64
AUGMENTATION = Augmentation(AugmentationConfig(), SIZE)


def faces_with_nose_at(x: np.ndarray) -> np.ndarray:
    """Landmarks of faces whose contour points 4 and 28 are at x = 0 and 1 and whose nose tip is at x, all at y = 0."""
    landmarks = np.zeros((len(x), 98, 2))
    landmarks[:, 28, 0] = 1
    landmarks[:, 54, 0] = x
    return landmarks


def write_quality(root: Path, text: str) -> None:
    (root / "label_quality.tsv").write_text(text)


def load(dataset: TrainingFaces, sampler: PoseSampler, workers: int) -> list[torch.Tensor]:
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=workers, worker_init_fn=initialise_worker)
    return [torch.cat(columns) for columns in zip(*loader, strict=True)]


def test_samples_do_not_depend_on_the_number_of_workers(precropped_wflw):
    dataset = TrainingFaces(read_faces(precropped_wflw, "train"), AUGMENTATION, seed=3)
    sampler = PoseSampler(np.arange(1.0, 7.0), 12, seed=3)
    sampler.set_epoch(2)
    alone, shared = load(dataset, sampler, 0), load(dataset, sampler, 2)
    assert alone[0].shape == (12, 3, SIZE, SIZE)
    for first, second in zip(alone, shared, strict=True):
        assert torch.equal(first, second)


def test_sample_is_fixed_by_seed_epoch_and_position(precropped_wflw):
    faces = read_faces(precropped_wflw, "train")
    dataset = TrainingFaces(faces, AUGMENTATION, seed=1)
    landmarks = dataset[Draw(2, epoch=4, position=7)].landmarks
    assert torch.equal(landmarks, TrainingFaces(faces, AUGMENTATION, seed=1)[Draw(2, 4, 7)].landmarks)
    assert not torch.equal(landmarks, TrainingFaces(faces, AUGMENTATION, seed=2)[Draw(2, 4, 7)].landmarks)
    assert not torch.equal(landmarks, dataset[Draw(2, 5, 7)].landmarks)
    assert not torch.equal(landmarks, dataset[Draw(2, 4, 8)].landmarks)
    assert torch.equal(dataset[2].landmarks, dataset[Draw(2, 0, 2)].landmarks)


def test_dataset_iterates_over_every_face_once(precropped_wflw):
    dataset = TrainingFaces(read_faces(precropped_wflw, "train"), AUGMENTATION)
    assert len(list(dataset)) == len(dataset) == 6
    assert torch.equal(dataset[-1].image, dataset[5].image)


def test_image_is_normalised_as_for_imagenet(precropped_wflw):
    sample = TrainingFaces(read_faces(precropped_wflw, "train"), AUGMENTATION)[0]
    pixels = 255 * (
        sample.image * torch.tensor(IMAGENET_STD)[:, None, None] + torch.tensor(IMAGENET_MEAN)[:, None, None]
    )
    assert sample.image.dtype == sample.landmarks.dtype == sample.weight.dtype == torch.float32
    assert (pixels - pixels.round()).abs().max() < 1e-3
    assert pixels.min() > -0.5
    assert pixels.max() < 255.5


def test_two_views_are_different_pictures_of_nearly_the_same_crop(precropped_wflw):
    sample = TrainingFaces(read_faces(precropped_wflw, "train"), AUGMENTATION)[Draw(1, 0, 1, views=2)]
    assert sample.image.shape == (2, 3, SIZE, SIZE)
    assert sample.landmarks.shape == (2, 98, 2)
    assert sample.weight.shape == ()
    assert 0 < (sample.landmarks[0] - sample.landmarks[1]).abs().max() < 0.2
    assert not torch.equal(sample.image[0], sample.image[1])
    moved = sample.landmarks[0] @ sample.motion[:, :2].T + sample.motion[:, 2]
    torch.testing.assert_close(moved, sample.landmarks[1], atol=1e-5, rtol=0)


def test_the_sampler_asks_for_views_by_epoch_and_position_on_every_process():
    def views(epoch: int, position: int) -> int:
        return 1 + (epoch + position // 4) % 2

    for rank in range(2):
        sampler = PoseSampler(np.ones(5), 16, rank=rank, world_size=2, views=views)
        sampler.set_epoch(1)
        assert [draw.views for draw in sampler] == [2, 2, 1, 1, 2, 2, 1, 1]


def test_a_list_is_named_with_its_root_and_perhaps_its_share():
    assert FaceList.parse("a:b/c:train") == FaceList(Path("a:b/c"), "train", None)
    assert FaceList.parse("faces:train=0.25") == FaceList(Path("faces"), "train", 0.25)
    for text in ("train", ":train", "faces:", "faces:train=", "faces:train=1", "faces:train=x", "faces:train=nan"):
        with pytest.raises(InputError, match="ROOT:SPLIT"):
            FaceList.parse(text)


def test_shares_are_kept_and_the_rest_is_divided_by_weight():
    weights = np.array([1.0, 3, 5, 5, 2, 2])
    numbers = np.array([0, 0, 1, 1, 2, 2])
    shared = share_weights(weights, numbers, [None, 0.5, None])
    np.testing.assert_allclose(shared, [0.0625, 0.1875, 0.25, 0.25, 0.125, 0.125])
    np.testing.assert_allclose(share_weights(weights, numbers, [None] * 3), weights / 18)
    with pytest.raises(OptionError, match="sum to 1"):
        share_weights(weights, numbers, [None, 0.5, 0.5])


def test_turned_faces_beyond_sixty_degrees_weigh_less(precropped_wflw, tmp_path):
    folder = tmp_path / "WFLW_images" / "turned"
    folder.mkdir(parents=True)
    for name in ("00000_40_a.jpg", "00001_-85_b_c.jpg"):
        (folder / name).touch()
    assert turned_quality.write_quality(tmp_path) == 2
    assert (tmp_path / "label_quality.tsv").read_text().splitlines()[1:] == [
        "turned/00000_40_a.jpg\t2.0000",
        "turned/00001_-85_b_c.jpg\t5.0000",
    ]
    assert label_weight(turned_quality.label_disagreement(85)) == pytest.approx(0.4)
    assert label_weight(turned_quality.label_disagreement(72.5)) == pytest.approx(0.7)
    (folder / "c.jpg").touch()
    with pytest.raises(InputError, match=r"c\.jpg"):
        turned_quality.write_quality(tmp_path)


def test_sampling_follows_the_weights_to_within_one_draw():
    weights = np.array([0.0, 1.0, 2.0, 3.5, 10.0])
    for epoch in range(5):
        sampler = PoseSampler(weights, 101, seed=1)
        sampler.set_epoch(epoch)
        counts = np.bincount([draw.index for draw in sampler], minlength=5)
        assert counts.sum() == 101
        assert counts[0] == 0
        assert (np.abs(counts - 101 * weights / weights.sum()) < 1).all()


def test_order_is_shuffled_and_differs_between_epochs_and_seeds():
    def order(seed: int, epoch: int) -> list[int]:
        sampler = PoseSampler(np.ones(50), 50, seed)
        sampler.set_epoch(epoch)
        return [draw.index for draw in sampler]

    assert order(0, 0) == order(0, 0)
    assert sorted(order(0, 0)) == sorted(order(0, 1)) == list(range(50))
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert order(0, 0) != sorted(order(0, 0))


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_processes_share_the_samples_of_a_single_one(world_size):
    weights = np.arange(1.0, 9.0)
    alone = list(PoseSampler(weights, 24, seed=5))
    shards = [list(PoseSampler(weights, 24, seed=5, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert [draw for together in zip(*shards, strict=True) for draw in together] == alone


def test_processes_get_equally_many_samples_where_they_do_not_divide_the_epoch():
    samplers = [PoseSampler(np.ones(10), 10, rank=rank, world_size=4) for rank in range(4)]
    assert [len(list(sampler)) for sampler in samplers] == [len(sampler) for sampler in samplers] == [3] * 4
    draws = sorted((draw for sampler in samplers for draw in sampler), key=lambda draw: draw.position)
    assert [draw.position for draw in draws] == list(range(12))
    assert {draw.index for draw in draws} == set(range(10))


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
def test_resume_in_an_epoch_continues_with_its_next_sample(rank, world_size):
    sampler = PoseSampler(np.arange(1.0, 6.0), 20, seed=2, rank=rank, world_size=world_size)
    sampler.set_epoch(3)
    whole = list(sampler)
    sampler.set_epoch(3, start=8)
    assert list(sampler) == whole[8 // world_size :]
    assert len(sampler) == 12 // world_size
    sampler.set_epoch(4)
    assert len(sampler) == 20 // world_size


def test_profile_measure_by_hand():
    # Distances 0.5 and 0.5; 0.9 and 0.1; 0.2 and 0.8.
    landmarks = faces_with_nose_at(np.array([0.5, 0.9, 0.2]))
    np.testing.assert_allclose(profile_measure(landmarks), [0, 0.8, 0.6], atol=1e-12)
    np.testing.assert_allclose(profile_measure(7 * landmarks + 3), profile_measure(landmarks), atol=1e-12)


def test_pose_weights_by_hand():
    weights = pose_weights(faces_with_nose_at(np.array([0.5, 0.675, 0.9])), boost=9)
    np.testing.assert_allclose(weights, [1, 2, 9])  # m = 0, 0.35, 0.8
    np.testing.assert_array_equal(pose_weights(faces_with_nose_at(np.array([0.5, 0.9])), boost=1), [1, 1])


def test_pose_sampling_raises_near_profiles():
    landmarks = faces_with_nose_at(np.r_[np.linspace(0.5, 0.7, 97), [0.9, 0.92, 0.95]])
    profiles = profile_measure(landmarks) > 0.7
    drawn = [draw.index for draw in PoseSampler(pose_weights(landmarks), 2000)]
    assert profiles.mean() == 0.03
    assert profiles[drawn].mean() > 0.15


def test_label_weight_by_hand():
    assert [label_weight(value) for value in (0.0, 1.0, 2.0, 4.0, 8.0)] == [1, 1, 1, 0.5, 0.25]


def test_lists_are_joined_with_the_quality_of_their_labels(precropped_wflw, raw_wflw):
    write_quality(
        precropped_wflw, f"image\tsplit\t{DISAGREEMENT_COLUMN}\ntrain_1.png\ttrain\t4.0\ntrain_2.png\ttrain\t1\n"
    )
    faces, weights, numbers = read_training_lists([FaceList(precropped_wflw, "train"), FaceList(raw_wflw, "train")])
    assert len(faces) == 12
    assert numbers.tolist() == [0] * 6 + [1] * 6
    np.testing.assert_array_equal(weights, [1, 0.5] + [1] * 10)
    assert TrainingFaces(faces, AUGMENTATION, weights)[1].weight == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image\tscore\na.png\t1\n", f"label_quality.tsv, line 1: no column {DISAGREEMENT_COLUMN}"),
        (f"image\t{DISAGREEMENT_COLUMN}\na.png\t1\nb.png\tgood\n", "label_quality.tsv, line 3: .*'good'"),
        (f"image\t{DISAGREEMENT_COLUMN}\na.png\n", "label_quality.tsv, line 2"),
        (f"image\t{DISAGREEMENT_COLUMN}\na.png\t-1\n", "label_quality.tsv, line 2"),
    ],
)
def test_damaged_quality_file_is_an_error_with_its_line(precropped_wflw, text, message):
    write_quality(precropped_wflw, text)
    with pytest.raises(InputError, match=message):
        read_training_lists([FaceList(precropped_wflw, "train")])


def test_no_faces_is_an_error(precropped_wflw):
    with pytest.raises(InputError, match="no list of faces"):
        read_training_lists([])
    with pytest.raises(InputError, match="no faces"):
        TrainingFaces([], AUGMENTATION)
    (precropped_wflw / "train.txt").write_text("\n")
    with pytest.raises(InputError, match=r"train\.txt"):
        read_training_lists([FaceList(precropped_wflw, "train")])


def test_label_line_of_the_wrong_width_is_an_error_with_its_line(precropped_wflw):
    path = precropped_wflw / "train.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1].rsplit(" ", 1)[0]]))
    with pytest.raises(InputError, match=r"train.txt, line 2: .*195"):
        read_training_lists([FaceList(precropped_wflw, "train")])


def test_corrupt_image_is_an_error_that_names_it(precropped_wflw):
    dataset = TrainingFaces(read_faces(precropped_wflw, "train"), AUGMENTATION)
    path = precropped_wflw / "train" / "train_4.png"
    path.write_bytes(path.read_bytes()[:100])
    assert dataset[3].image.shape == (3, SIZE, SIZE)
    with pytest.raises(InputError, match=r"train_4\.png"):
        dataset[4]


def test_face_that_cannot_be_cropped_is_an_error_that_names_its_image(precropped_wflw):
    dataset = TrainingFaces(read_faces(precropped_wflw, "train"), AUGMENTATION)
    dataset.faces[2].landmarks[:] = dataset.faces[2].landmarks[0]
    with pytest.raises(InputError, match=r"train_2\.png"):
        dataset[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"seed": -1}, "seed"), ({"weights": np.ones(2)}, "label weights")],
)
def test_wrong_dataset_option_is_an_error_that_names_it(precropped_wflw, options, message):
    with pytest.raises(InputError, match=message):
        TrainingFaces(read_faces(precropped_wflw, "train"), AUGMENTATION, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": np.zeros(3)}, "weights"),
        ({"weights": np.array([1, np.nan])}, "weights"),
        ({"samples_per_epoch": 0}, "samples_per_epoch"),
        ({"rank": 2, "world_size": 2}, "rank"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_sampler_option_is_an_error_that_names_it(options, message):
    with pytest.raises(OptionError, match=message):
        PoseSampler(**{"weights": np.ones(3), "samples_per_epoch": 4, **options})


def test_start_that_no_run_can_have_reached_is_an_error():
    sampler = PoseSampler(np.ones(3), 8, world_size=2)
    for start in (-2, 3, 10):
        with pytest.raises(OptionError, match=f"start {start}"):
            sampler.set_epoch(0, start)
    with pytest.raises(OptionError, match="boost"):
        pose_weights(faces_with_nose_at(np.array([0.5])), boost=0.5)
