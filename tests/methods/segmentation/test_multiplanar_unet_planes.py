"""Card 20: planes, their sampling, sparse annotation, and which planes are trained on."""

import nibabel
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.data.readers.nifti import read_nifti
from medsynth_tf.methods.segmentation.multiplanar_unet.augmentation import augment
from medsynth_tf.methods.segmentation.multiplanar_unet.config import AugmentationConfig
from medsynth_tf.methods.segmentation.multiplanar_unet.data import DrawnPlanes, batches, examples_of
from medsynth_tf.methods.segmentation.multiplanar_unet.planes import (
    UNKNOWN,
    AnnotatedVolume,
    PlaneSampler,
    annotated_volumes,
    labelled_example,
    plane_set,
    sample,
)
from medsynth_tf.methods.segmentation.multiplanar_unet.views import view_frames
from medsynth_tf.ops import planes as geometry
from medsynth_tf.ops.planes import Geometry, Plane
from medsynth_tf.ops.resampling import sample_linear, sample_nearest
from tests.methods.segmentation.volumes import Volumes

OBLIQUE = np.array([[0.8, -0.6, 0.1], [0.55, 0.9, 0.0], [0.0, 0.2, 2.4]])  # not even at right angles


def settings(**overrides):
    base = {
        "planes": {"annotation": 4, "training": 12, "size": 16},
        "network": {"filters": 2, "levels": 2},
        "comparator": {"size": 8, "stride": 4, "filters": 2, "levels": 1},
        "training": {"batch_size": 4},
        "data.split_fractions": [0.34, 0.33, 0.33],
    }
    return ms.load_config("multiplanar_unet", overrides={**base, **overrides})


def all_of_it(**overrides):
    return settings(**{"data.split_fractions": [1.0, 0.0, 0.0], **overrides})


def whole_volume(volume, labels, axes=None, annotation=()):
    place = Geometry(volume.shape, np.eye(3) if axes is None else axes)
    seen = geometry.planes_through(place, annotation)
    return AnnotatedVolume(volume, labels, np.where(seen, labels, np.uint8(UNKNOWN)), -7.0, place, tuple(annotation))


def intersection(first: Plane, second: Plane) -> tuple[np.ndarray, np.ndarray] | None:
    """The line in which two planes meet: a point on it and its unit direction n1 × n2, float64 [3] each; None if they are parallel."""
    direction = np.cross(first.normal, second.normal)
    length = np.linalg.norm(direction)
    if length < 1e-9:
        return None
    system = np.stack([first.normal, second.normal, direction / length])
    return np.linalg.solve(system, np.array([first.offset, second.offset, 0.0])), direction / length


# -- M3, M4, M5: sampling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 1.3)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_m3_a_plane_through_voxel_centres_is_the_slice_exactly(axis, spacing):
    rng = np.random.default_rng(axis)
    shape = (9, 9, 9)
    volume, labels = rng.normal(size=shape).astype(np.float32), rng.integers(0, 2, shape).astype(np.uint8)
    place = Geometry.of_spacing(shape, spacing)
    frame = geometry.axis_frame(axis)
    for number in (0, 3, 8):
        offset = (number - 4) * spacing[axis]
        # one pixel size cannot fit two spacings: a row along u, and one along v
        for step, other in ((1, (axis + 1) % 3), (2, (axis + 2) % 3)):
            points = geometry.grid_points(frame, offset * frame[:, 0], (9, 9), spacing[other])
            line = points[:, 4] if step == 1 else points[4]
            wanted = np.take(np.moveaxis(volume, (axis, other), (0, 1))[number], 4, axis=1)
            indices = place.indices(line)
            np.testing.assert_array_equal(geometry.sample_linear(volume, indices, -9.0), wanted)
            codes = np.take(np.moveaxis(labels, (axis, other), (0, 1))[number], 4, axis=1)
            np.testing.assert_array_equal(geometry.sample_nearest(labels, indices, UNKNOWN), codes)
    if len(set(spacing)) == 1:
        config = settings(**{"planes.size": 8, "space": "voxel"})
        sampler = PlaneSampler(Geometry.of_spacing((8, 8, 8), (1, 1, 1)), config, rng)
        image, codes = sample(
            whole_volume(volume[:8, :8, :8], labels[:8, :8, :8]), sampler.indices(Plane(frame, 0.5)), full=True
        )
        cut = np.moveaxis(volume[:8, :8, :8], (axis, (axis + 1) % 3, (axis + 2) % 3), (0, 1, 2))[4]
        np.testing.assert_array_equal(image, cut)
        assert codes.shape == (8, 8)


def test_m3_frames_are_rotations():
    rng = np.random.default_rng(0)
    frames = [geometry.random_frame(rng) for _ in range(50)] + [geometry.axis_frame(axis) for axis in range(3)]
    frames += [geometry.random_frame(rng, np.array([0.0, 0.0, 2.0]))]
    for frame in frames:
        np.testing.assert_allclose(frame.T @ frame, np.eye(3), atol=1e-12)
        assert np.linalg.det(frame) == pytest.approx(1.0)
    np.testing.assert_allclose(frames[-1][:, 0], [0, 0, 1], atol=1e-12)


@pytest.mark.parametrize("axes", [np.eye(3), np.diag([3.0, 0.5, 1.0]), OBLIQUE], ids=["isotropic", "anisotropic", "sheared"])
def test_m4_a_ramp_in_millimetres_comes_back_on_any_plane(axes):
    rng = np.random.default_rng(1)
    shape = (12, 20, 16)
    place = Geometry(shape, axes)
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    gradient = rng.normal(size=3)
    ramp = (voxels - place.middle) @ axes.T @ gradient + 2.0  # of millimetres from the centre, not of indices
    for _ in range(20):
        frame, centre = geometry.random_frame(rng), 2.0 * rng.normal(size=3)
        points = geometry.grid_points(frame, centre, (24, 24), 0.37)
        indices = place.indices(points)
        within = ((indices >= 0) & (indices <= np.array(shape) - 1)).all(-1)
        assert within.sum() > 20
        found = ndimage.map_coordinates(ramp, np.moveaxis(indices, -1, 0), order=1)
        sampled = geometry.sample_linear(ramp, indices, -99.0)
        np.testing.assert_allclose(sampled[within], (points @ gradient + 2.0)[within], atol=1e-5)
        np.testing.assert_allclose(sampled[within], found[within], atol=1e-5)
        # the graph's sampler, which segmentation uses, agrees inside and out
        graph = sample_linear(tf.constant(ramp, tf.float32), tf.unstack(tf.constant(indices), axis=-1), -99.0).numpy()
        np.testing.assert_allclose(graph, sampled, atol=1e-4)


def test_m4_beyond_the_outer_half_voxel_is_fill_and_within_it_the_border_goes_on():
    volume = np.arange(4, dtype=np.float32).reshape(4, 1, 1)
    indices = np.array([[-0.51, 0, 0], [-0.5, 0, 0], [-0.2, 0, 0], [2.25, 0.4, -0.4], [3.5, 0, 0], [3.51, 0, 0]])
    wanted = [-7, 0, 0, 2.25, 3, -7]
    np.testing.assert_allclose(geometry.sample_linear(volume, indices, -7.0), wanted, atol=1e-6)
    np.testing.assert_allclose(
        sample_linear(tf.constant(volume), tf.unstack(tf.constant(indices), axis=-1), -7.0), wanted, atol=1e-6
    )


def oblique_nifti(path, shape=(20, 16, 8), zooms=(0.8, 1.1, 2.5)):
    """A file whose axes are turned against the world's, flipped, and unlike in size; its values are a ramp in the world."""
    turn = geometry.random_frame(np.random.default_rng(4))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(zooms) @ np.diag([-1, 1, 1])
    affine[:3, 3] = [-70.0, 31.0, 12.0]
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    gradient = np.array([0.3, -1.0, 0.5])
    ramp = (places @ affine[:3, :3].T + affine[:3, 3]) @ gradient
    nibabel.save(nibabel.Nifti1Image(ramp.astype(np.float32), affine), path)
    return gradient


def world_and_ours(path):
    """The canonical affine of a file turned to our axes (z, y, x), and the geometry of its record."""
    record = read_nifti(path)
    affine = nibabel.as_closest_canonical(nibabel.load(path)).affine[:, [2, 1, 0, 3]]
    return affine, Geometry.of_spacing(record["image"].shape[:3], record["spacing"]), record["image"][..., 0]


def test_m4_an_oblique_anisotropic_file_is_sampled_in_the_worlds_millimetres(tmp_path):
    gradient = oblique_nifti(tmp_path / "oblique.nii.gz")
    affine, place, image = world_and_ours(tmp_path / "oblique.nii.gz")
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    rng = np.random.default_rng(0)
    for _ in range(10):
        points = geometry.grid_points(geometry.random_frame(rng), rng.normal(size=3), (12, 12), 0.6)
        world = affine[:3, :3] @ place.middle + affine[:3, 3] + points @ directions.T
        indices = place.indices(points)
        within = ((indices >= 0) & (indices <= np.array(place.shape) - 1)).all(-1)
        sampled = geometry.sample_linear(image, indices, 0.0)
        np.testing.assert_allclose(sampled[within], (world @ gradient)[within], atol=1e-4)


def test_the_real_files_axes_are_at_right_angles_so_that_spacing_says_all(shared_data):
    files = sorted((shared_data / "nifti").glob("*.nii.gz"))
    assert files
    for path in files:
        affine, place, _ = world_and_ours(path)
        turn = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        np.testing.assert_allclose(turn.T @ turn, np.eye(3), atol=2e-3, err_msg=path.name)
        corner = np.array(place.shape) - 1.0
        ours = place.axes @ (corner - place.middle)
        world = affine[:3, :3] @ (corner - place.middle)
        np.testing.assert_allclose(turn @ ours, world, atol=0.05, err_msg=path.name)  # millimetres at the far corner


def test_m5_labels_are_nearest_and_images_trilinear():
    rng = np.random.default_rng(2)
    labels = rng.choice([0, 1, UNKNOWN], (10, 10, 10)).astype(np.uint8)
    image = rng.normal(size=(10, 10, 10)).astype(np.float32)
    sampler = PlaneSampler(Geometry.of_spacing(labels.shape, (1, 1, 1)), settings(), rng)
    fractional = False
    for _ in range(20):
        indices = sampler.indices(sampler.plane())
        codes = geometry.sample_nearest(labels, indices, UNKNOWN)
        assert set(np.unique(codes)) <= {0, 1, UNKNOWN}
        np.testing.assert_array_equal(
            sample_nearest(tf.constant(labels), tf.unstack(tf.constant(indices), axis=-1), UNKNOWN), codes
        )
        values = geometry.sample_linear(image, indices, 0.0)[geometry.inside(indices, image.shape)]
        fractional |= bool((~np.isin(values, image)).mean() > 0.9)
    assert fractional


def test_m5_records_labels_become_two_codes_and_unknown():
    config = all_of_it(foreground=[2])
    source = Volumes(1, unknown=True)
    _, volume, _ = next(annotated_volumes(source, config, "train", 0))
    assert set(np.unique(volume.full)) == {0, UNKNOWN}, "code 1 is not the structure asked for"
    _, volume, _ = next(annotated_volumes(source, all_of_it(), "train", 0))
    assert set(np.unique(volume.full)) == {0, 1, UNKNOWN}
    assert (volume.full[:, :, :9] == UNKNOWN).all()


# -- M6: lines ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.8, 1.0)])
def test_m6_annotation_of_a_plane_is_the_line_where_planes_meet(spacing):
    rng = np.random.default_rng(3)
    shape = (24, 30, 26)
    labels = np.zeros(shape, np.uint8)
    place = Geometry.of_spacing(shape, spacing)
    config = settings(**{"planes.size": 32})
    sampler = PlaneSampler(place, config, rng)
    drawn = 0
    for _ in range(30):
        annotated, training = sampler.plane(), sampler.plane()
        if abs(annotated.normal @ training.normal) > 0.9:
            continue
        volume = whole_volume(labels.astype(np.float32), labels, place.axes, [annotated])
        indices = sampler.indices(training)
        _, codes = sample(volume, indices)
        points = (indices - place.middle) @ place.axes.T
        point, direction = intersection(annotated, training)
        for plane in (annotated, training):
            assert abs(plane.normal @ direction) < 1e-12
            assert plane.normal @ (point + 3.0 * direction) == pytest.approx(plane.offset)
        away = points - point
        distance = np.linalg.norm(away - (away @ direction)[..., None] * direction, axis=-1)
        inside = geometry.inside(indices, shape)
        sine = np.linalg.norm(np.cross(annotated.normal, training.normal))
        # half a voxel of thickness and the nearest voxel's half diagonal, seen at the angle in which the planes meet
        reach = (0.5 * place.thickness(annotated.normal) + 0.5 * np.abs(place.axes.T @ annotated.normal).sum()) / sine
        assert (distance[codes != UNKNOWN] <= reach + 1e-9).all()
        assert not (codes != UNKNOWN)[~inside].any()
        near = inside & (distance < 0.2)
        assert (codes[near] != UNKNOWN).sum() >= 0.4 * near.sum()
        drawn += near.sum()
    assert drawn > 50


def test_m6_parallel_planes_leave_nothing_and_lines_are_at_most_the_annotated_planes():
    frame = geometry.axis_frame(0)
    labels = np.zeros((20, 20, 20), np.uint8)
    volume = whole_volume(labels.astype(np.float32), labels, None, [Plane(frame, -4.5)])
    config = settings(**{"planes.size": 20})
    sampler = PlaneSampler(volume.place, config, np.random.default_rng(0))
    _, codes = sample(volume, sampler.indices(Plane(frame, 3.5)))
    assert (codes == UNKNOWN).all()
    assert intersection(Plane(frame, -4.5), Plane(frame, 3.5)) is None
    # three annotated slices along one axis, cut by a plane along another: three lines of exactly one pixel
    planes = [Plane(frame, offset) for offset in (-6.5, 0.5, 4.5)]
    volume = whole_volume(labels.astype(np.float32), labels, None, planes)
    assert (volume.sparse != UNKNOWN).sum() == 3 * 400
    _, codes = sample(volume, sampler.indices(Plane(geometry.axis_frame(1), 0.5)))
    assert ndimage.label(codes != UNKNOWN)[1] == 3
    assert (codes != UNKNOWN).sum() == 3 * 20


def test_m6_thickness_is_counted_in_voxels_along_the_normal():
    place = Geometry.of_spacing((21, 21, 21), (2.0, 0.5, 1.0))
    for axis, spacing in enumerate((2.0, 0.5, 1.0)):
        frame = geometry.axis_frame(axis)
        assert geometry.planes_through(place, [Plane(frame, 3 * spacing)]).sum() == 21 * 21
        assert geometry.planes_through(place, [Plane(frame, 0.0)], thickness=3.0).sum() == 3 * 21 * 21
    plane = Plane(geometry.random_frame(np.random.default_rng(0)), 1.0)
    whole = geometry.planes_through(place, [plane])
    np.testing.assert_array_equal(geometry.planes_through(place, [plane], chunk=500), whole)
    voxels = np.stack(np.meshgrid(*(np.arange(21) - 10,) * 3, indexing="ij"), -1) @ place.axes.T
    np.testing.assert_array_equal(whole, np.abs(voxels @ plane.normal - 1.0) <= 0.5 * place.thickness(plane.normal))


# -- M8, M9, M10: sets of planes ------------------------------------------------------------------------------------------------


def test_m8_pixels_outside_the_volume_never_have_a_label():
    for training in (0, 12):
        examples = plane_set(Volumes(2), all_of_it(**{"planes.training": training, "planes.size": 32}), "train", 0)
        outside = examples.image == examples.fill[:, None, None]
        assert outside.mean() > 0.2
        assert (examples.label[outside] == UNKNOWN).all()


def test_m9_without_training_planes_the_annotated_planes_are_all_there_is():
    config = all_of_it(**{"planes.training": 0, "planes.annotation": 5})
    examples = plane_set(Volumes(3), config, "train", 0)
    assert examples.image.shape == (5, 16, 16)
    inside = examples.image != examples.fill[:, None, None]
    assert ((examples.label != UNKNOWN) == inside).all(), "all of each plane has a label"
    per_volume = plane_set(
        Volumes(3), all_of_it(**{"planes.training": 0, "planes.annotation": 5, "planes.per_volume": True}), "train", 0
    )
    assert len(per_volume.image) == 15


def test_m9_with_training_planes_no_full_plane_is_ever_shown():
    config = all_of_it(**{"planes.training": 40, "planes.annotation": 2, "planes.size": 32})
    examples = plane_set(Volumes(1, shape=(30, 30, 30)), config, "train", 0)
    assert len(examples.image) == 40
    labelled = (examples.label != UNKNOWN).sum((1, 2))
    inside = (examples.image != examples.fill[:, None, None]).sum((1, 2))
    assert (labelled >= config.planes.minimum_labelled).all()
    # two lines; a plane nearly parallel to an annotated one may have a broad one, but none has all
    assert np.median(labelled / inside) < 0.2
    assert (labelled < inside).all()


def test_m10_the_same_seed_gives_the_same_planes_and_another_one_others():
    config = all_of_it()
    first, again, other = (plane_set(Volumes(3), config, "train", seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.label, again.label)
    assert not np.array_equal(first.image, other.image)
    # within a run: two passes over the batches show the same planes, in other orders
    plain = all_of_it(**{"augmentation.enabled": False})
    shown = [b["image"].numpy() for b in batches(first, plain, 0, 0, None, True).take(6)]
    passes = [np.sort(np.concatenate(part).reshape(12, -1), axis=0) for part in (shown[:3], shown[3:])]
    np.testing.assert_array_equal(passes[0], passes[1])
    assert not np.array_equal(shown[0], shown[3])
    late = next(iter(batches(first, plain, 0, 4, None, True)))
    np.testing.assert_array_equal(late["image"], shown[4])


def test_m10_annotated_planes_do_not_depend_on_how_many_are_resampled():
    sparse = [
        next(annotated_volumes(Volumes(1), all_of_it(**{"planes.training": n}), "train", 0))[1].sparse for n in (0, 12, 99)
    ]
    np.testing.assert_array_equal(sparse[0], sparse[1])
    np.testing.assert_array_equal(sparse[0], sparse[2])


def test_m16_annotated_pixels_are_counted_and_lines_have_few_of_them():
    source = Volumes(2, shape=(30, 30, 30))
    counts = {}
    for n_a, n_t in ((4, 12), (4, 24), (16, 0)):
        config = all_of_it(**{"planes.annotation": n_a, "planes.training": n_t, "planes.size": 32})
        examples = plane_set(source, config, "train", 0)
        counts[n_a, n_t] = examples.annotated_pixels
        assert examples.annotated_pixels == sum(int((label < 2).sum()) for label in examples.label)
        model = ms.create("multiplanar_unet", config)
        model.stages(source)[0].begin()
        assert model.annotated_pixels == examples.annotated_pixels, "what the run reports"
    assert 1.5 * counts[4, 12] < counts[4, 24] < 2.5 * counts[4, 12]
    assert counts[4, 12] < 0.3 * counts[16, 0]


def test_m13_normals_are_uniform_over_all_directions():
    rng = np.random.default_rng(0)
    normals = np.stack([geometry.random_frame(rng) for _ in range(20000)])  # [N, 3, 3]
    for column in range(3):
        n = normals[:, :, column]
        assert np.abs(n.mean(0)).max() < 0.02  # standard error 0.004
        np.testing.assert_allclose(n.T @ n / len(n), np.eye(3) / 3, atol=0.015)


def test_one_volume_is_read_at_a_time_and_only_annotated_ones():
    source = Volumes(6)
    config = all_of_it(**{"planes.annotation": 1, "planes.training": 5})
    plane_set(source, config, "train", 0)
    assert len(source.reads) == 1


# -- other ways to draw ---------------------------------------------------------------------------------------------------------


def test_redrawn_planes_are_new_in_each_pass_and_repeat_from_any_step():
    config = all_of_it(**{"planes.draw": "redraw", "planes.training": 8, "augmentation.enabled": False})
    examples = examples_of(Volumes(2), config, "train", 0, training=True)
    assert isinstance(examples, DrawnPlanes)
    shown = [b["image"].numpy() for b in batches(examples, config, 0, 0, None, True).take(4)]
    assert not any(np.array_equal(a, b) for a, b in zip(shown[:2], shown[2:]))
    np.testing.assert_array_equal(next(iter(batches(examples, config, 0, 3, None, True)))["image"], shown[3])
    assert examples.annotated_pixels == sum((v.sparse != UNKNOWN).sum() for _, v in examples.volumes)


def test_live_planes_lie_near_the_views_and_half_a_batch_has_foreground():
    config = all_of_it(**{"planes.draw": "live", "planes.jitter": 0.05})
    examples = examples_of(Volumes(2), config, "train", 0, training=True)
    drawn = [examples.example(i)[1] for i in range(24)]
    for batch in range(6):
        assert all((codes == 1).any() for codes in drawn[4 * batch : 4 * batch + 2])
    sampler = PlaneSampler(Geometry.of_spacing((14, 16, 18), (1, 1, 1)), config, np.random.default_rng(0))
    normals = np.stack([frame[:, 0] for frame in view_frames(config)])
    for _ in range(30):
        assert np.abs(sampler.plane(normals).normal @ normals.T).max() > 0.97
    with pytest.raises(DataError, match="needs foreground"):
        examples_of(Volumes(2), config.replace({"foreground": [7]}), "train", 0, training=True)


def test_axis_aligned_planes_have_the_axes_for_normals():
    config = all_of_it(**{"planes.orientation": "axis_aligned"})
    sampler = PlaneSampler(Geometry.of_spacing((14, 16, 18), (1, 1, 1)), config, np.random.default_rng(0))
    normals = np.stack([sampler.plane().normal for _ in range(40)])
    assert set(map(tuple, normals)) == set(map(tuple, np.eye(3)))
    np.testing.assert_array_equal(view_frames(config)[1], geometry.axis_frame(1))


def test_volumes_that_cannot_be_used_are_refused_in_words():
    config = all_of_it()
    with pytest.raises(DataError, match="'v0' has no mask"):
        plane_set(Volumes(1, parts=("spacing",)), config, "train", 0)
    with pytest.raises(DataError, match="set space to 'voxel'"):
        plane_set(Volumes(1, parts=("mask",)), config, "train", 0)
    assert len(plane_set(Volumes(1, parts=("mask",)), config.replace({"space": "voxel"}), "train", 0).image) == 12
    with pytest.raises(DataError, match="annotated pixels"):
        plane_set(Volumes(1), config.replace({"planes.minimum_labelled": 250}), "train", 0)
    with pytest.raises(DataError, match="split 'val' is empty"):
        list(annotated_volumes(Volumes(1), config, "val", 0))
    with pytest.raises(ConfigError, match=r"multiple of 2\^network.levels"):
        settings(**{"planes.size": 18})
    with pytest.raises(ConfigError, match="three axis-aligned views"):
        settings(**{"planes.orientation": "axis_aligned", "views.count": 4})


# -- augmentation ---------------------------------------------------------------------------------------------------------------

NONE = {"rotation": 0.0, "scale": (1.0, 1.0), "brightness": 0.0, "contrast": (1.0, 1.0), "gamma": (1.0, 1.0), "noise": 0.0}


@pytest.mark.parametrize("dimensions", [2, 3])
def test_augmentation_moves_image_and_labels_alike_and_brings_in_no_label(dimensions):
    shape = (16,) * dimensions
    label = tf.constant(np.random.default_rng(0).integers(0, 2, shape), tf.uint8)
    image = tf.cast(label, tf.float32)  # the image says where its labels belong
    config = AugmentationConfig(**{**NONE, "rotation": 180.0, "scale": (0.8, 1.25), "probability": 1.0})
    far = 0
    for seed in range(10):
        moved, codes = augment(image, label, tf.constant(-5.0), tf.constant(seed, tf.int64), config, (True,) * dimensions)
        moved, codes = moved.numpy(), codes.numpy()
        outside = moved == -5.0
        assert ((codes == UNKNOWN) == outside).all()
        far += outside.sum()
        sure = ~outside & ((moved < 1e-3) | (moved > 1 - 1e-3))
        np.testing.assert_array_equal(codes[sure], np.rint(moved[sure]))
    assert far > 0


def test_augmentation_of_nothing_is_nothing_and_mirrors_are_exact():
    rng = np.random.default_rng(1)
    image, label = rng.normal(size=(8, 8)).astype(np.float32), rng.integers(0, 2, (8, 8)).astype(np.uint8)

    def run(config, seed, flips):
        return [
            v.numpy()
            for v in augment(
                tf.constant(image), tf.constant(label), tf.constant(0.0), tf.constant(seed, tf.int64), config, flips
            )
        ]

    moved, codes = run(AugmentationConfig(probability=0.0), 0, (True, True))
    np.testing.assert_allclose(moved, image, atol=1e-6)
    np.testing.assert_array_equal(codes, label)
    always = AugmentationConfig(**{**NONE, "probability": 1.0})
    moved, codes = run(always, 0, (False, True))
    np.testing.assert_allclose(moved, image[:, ::-1], atol=1e-6)
    np.testing.assert_array_equal(codes, label[:, ::-1])
    for change in ({"brightness": 0.1}, {"contrast": (0.8, 0.9)}, {"gamma": (1.4, 1.5)}, {"noise": 0.05}):
        moved, codes = run(AugmentationConfig(**{**NONE, "probability": 1.0, **change}), 3, (False, False))
        np.testing.assert_array_equal(codes, label)
        assert 1e-4 < np.abs(moved - image).max() < 2.0, change
        again, _ = run(AugmentationConfig(**{**NONE, "probability": 1.0, **change}), 3, (False, False))
        np.testing.assert_array_equal(moved, again)


def test_a_cube_of_the_comparator_holds_labels_and_lies_anywhere():
    config = all_of_it(**{"model": "unet3d", "planes.training": 6, "training.batch_size": 1})
    examples = plane_set(Volumes(2), config, "train", 0)
    assert examples.image.shape == (6, 8, 8, 8)
    assert ((examples.label != UNKNOWN).sum((1, 2, 3)) >= 8).all()
    _, volume, rng = next(annotated_volumes(Volumes(2), config, "train", 0))
    sampler = PlaneSampler(volume.place, config, rng)
    image, codes = labelled_example(volume, sampler, config, Volumes(2).keys()[0])
    assert image.shape == codes.shape == (8, 8, 8)
    plain = plane_set(Volumes(2), config.replace({"planes.training": 0}), "train", 0)
    assert plain.image.shape == (4, 8, 8, 8)
