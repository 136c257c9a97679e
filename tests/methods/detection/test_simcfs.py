"""simcfs: losses, assignment, network, simulator, letterbox, suppression, fusion, precision; each M-item of its card by name."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.data.compound_figures import CompoundFigureSource, SimulatorConfig
from medsynth_tf.methods.detection.simcfs import anchors as anchor_tools
from medsynth_tf.methods.detection.simcfs.augmentation import augment
from medsynth_tf.methods.detection.simcfs.config import ANCHORS, SimCFSConfig
from medsynth_tf.methods.detection.simcfs.detection import crops, decode, fuse, letterbox, suppress
from medsynth_tf.methods.detection.simcfs.objective import inverse_relative_boxes, losses, match, relative_boxes
from medsynth_tf.methods.schedules import LinearWarmup
from medsynth_tf.metrics.detection import average_precision, over_share
from medsynth_tf.networks.yolo import YOLO
from medsynth_tf.ops.boxes import complete_iou, intersection_over_union, overshoot
from tests.methods.tiny import TINY

SOURCE = TINY["simcfs"][1]


def tiny(**overrides):
    return ms.load_config("simcfs", overrides={**TINY["simcfs"][0], **overrides})


def boxes(*rows):
    return tf.constant(rows, tf.float32)


# -- side loss and overlap --------------------------------------------------------------------------------------------------


def test_m1_the_side_loss_is_what_lies_outside_the_truth():
    truth = boxes([2, 3, 10, 12])
    inside = boxes([2, 3, 10, 12], [4, 5, 6, 7], [2, 3, 3, 4])
    np.testing.assert_array_equal(overshoot(inside, truth), np.zeros(3))
    outside = boxes([1, 3, 10, 12], [2, 1, 10, 12], [2, 3, 13, 12], [2, 3, 10, 16], [1, 1, 13, 16])
    np.testing.assert_allclose(overshoot(outside, truth), [1, 2, 3, 4, 10])
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 20, [200, 2, 2]), 1).reshape(200, 4).astype(np.float32)
    contained = (corners[:, :2] >= [2, 3]).all(-1) & (corners[:, 2:] <= [10, 12]).all(-1)
    np.testing.assert_array_equal(overshoot(tf.constant(corners), truth) == 0, contained)


def test_m2_its_gradient_is_one_for_each_side_that_is_outside():
    truth = boxes([2, 3, 10, 12])
    predicted = tf.Variable([[1.0, 4.0, 11.0, 12.5], [3.0, 4.0, 9.0, 11.0]])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(overshoot(predicted, truth))
    np.testing.assert_array_equal(tape.gradient(total, predicted), [[-1, 0, 1, 1], [0, 0, 0, 0]])
    moved = overshoot(predicted + 7.0, truth + 7.0)
    np.testing.assert_allclose(moved, overshoot(predicted, truth), atol=1e-5)
    np.testing.assert_allclose(overshoot(3.0 * predicted, 3.0 * truth), 3.0 * overshoot(predicted, truth), atol=1e-5)


def test_m3_iou_prefers_over_detection_and_the_side_loss_turns_that_round():
    side = 4.0
    truth = boxes([0, 0, side, side])
    for margin, over, under in ((0.1, 0.9070, 0.9025), (0.4, 0.6944, 0.6400)):
        larger = boxes([-margin, -margin, side + margin, side + margin])
        smaller = boxes([margin, margin, side - margin, side - margin])
        found = [float(intersection_over_union(b, truth)[0]) for b in (larger, smaller)]
        np.testing.assert_allclose(found, [over, under], atol=5e-5)

        def loss(box, weight):
            return float(1.0 - complete_iou(box, truth)[0] + weight * overshoot(box, truth)[0])

        assert loss(larger, 0.0) < loss(smaller, 0.0)
        assert loss(larger, 1.0) > loss(smaller, 1.0)


def test_m5_complete_iou_is_one_for_equals_and_its_share_has_no_gradient():
    truth = boxes([2, 3, 10, 12])
    np.testing.assert_allclose(complete_iou(truth, truth), [1.0], atol=1e-5)
    assert float(complete_iou(boxes([20, 30, 28, 33]), truth)[0]) < 0
    first, second = np.array([1.0, 2.0, 7.0, 13.0]), np.array([2.0, 3.0, 30.0, 12.0])
    inner = np.prod(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]))
    iou = inner / (np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]) - inner)
    rho = np.sum(((first[:2] + first[2:]) / 2 - (second[:2] + second[2:]) / 2) ** 2)
    c = np.sum((np.maximum(first[2:], second[2:]) - np.minimum(first[:2], second[:2])) ** 2)
    v = 4 / np.pi**2 * (math.atan(9 / 28) - math.atan(11 / 6)) ** 2
    alpha = v / (v - iou + 1)
    assert float(complete_iou(boxes(first), boxes(second))[0]) == pytest.approx(iou - rho / c - alpha * v, abs=1e-5)

    def numeric(fixed_share):
        """Gradient of CIoU to the last coordinate, α held at its value or not."""

        def value(right):
            b = np.array([1.0, 2.0, 7.0, right])
            inner = np.prod(np.minimum(b[2:], second[2:]) - np.maximum(b[:2], second[:2]))
            iou = inner / (np.prod(b[2:] - b[:2]) + np.prod(second[2:] - second[:2]) - inner)
            rho = np.sum(((b[:2] + b[2:]) / 2 - (second[:2] + second[2:]) / 2) ** 2)
            c = np.sum((np.maximum(b[2:], second[2:]) - np.minimum(b[:2], second[:2])) ** 2)
            v = 4 / np.pi**2 * (math.atan(9 / 28) - math.atan((right - 2.0) / 6)) ** 2
            return iou - rho / c - (alpha if fixed_share else v / (v - iou + 1)) * v

        return (value(13.0 + 1e-5) - value(13.0 - 1e-5)) / 2e-5

    predicted = tf.Variable([first], dtype=tf.float32)
    with tf.GradientTape() as tape:
        total = complete_iou(predicted, boxes(second))[0]
    gradient = float(tape.gradient(total, predicted)[0, 3])
    assert gradient == pytest.approx(numeric(True), abs=2e-4)
    assert abs(numeric(True) - numeric(False)) > 1e-3


def test_m4_the_weights_are_those_of_the_paper():
    paper = SimCFSConfig()
    gains = paper.gains()
    assert gains["box"] == pytest.approx(0.05)
    assert gains["objectness"] == pytest.approx(1.0)
    assert gains["classification"] == pytest.approx(0.5 * 4 / 80)
    assert gains["side"] == pytest.approx(gains["box"] / 30)
    other = tiny(classes=4, image_size=96, losses={"box": 0.5, "objectness": 1.0, "classification": 0.5, "side_ratio": 0.05})
    assert other.levels == 2
    gains = other.gains()
    assert gains["box"] == pytest.approx(0.5 * 3 / 2)
    assert gains["objectness"] == pytest.approx((96 / 640) ** 2 * 3 / 2)
    assert gains["classification"] == pytest.approx(0.5 * 4 / 80 * 3 / 2)
    assert gains["side"] == pytest.approx(gains["box"] / 20)
    model = ms.create("simcfs", tiny())
    parts = {name: tf.constant(float(i + 1)) for i, name in enumerate(("box", "objectness", "classification", "side"))}
    expected = sum(gain * float(parts[name]) for name, gain in model.config.gains().items())
    assert float(model.weighted(parts)) == pytest.approx(expected)


# -- assignment -------------------------------------------------------------------------------------------------------------


def naive_match(box, anchors, grid, stride, ratio):
    """(row, column, anchor) of one box, by loops."""
    top, left, bottom, right = np.asarray(box) / stride
    size = np.array([bottom - top, right - left])
    y, x = (top + bottom) / 2, (left + right) / 2
    found = set()
    for a, anchor in enumerate(np.asarray(anchors) / stride):
        if max(*(size / anchor), *(anchor / size)) >= ratio:
            continue
        row, column = int(y), int(x)
        cells = {(row, column)}
        if x % 1 < 0.5 and column > 0 and x > 1:
            cells.add((row, column - 1))
        if x % 1 > 0.5 and column + 1 < grid[1]:
            cells.add((row, column + 1))
        if y % 1 < 0.5 and row > 0 and y > 1:
            cells.add((row - 1, column))
        if y % 1 > 0.5 and row + 1 < grid[0]:
            cells.add((row + 1, column))
        found |= {(r, c, a) for r, c in cells}
    return found


def test_m6_boxes_go_to_anchors_of_like_size_and_up_to_three_cells():
    rng = np.random.default_rng(0)
    anchors = np.array([[8.0, 12.0], [20.0, 16.0], [60.0, 60.0]], np.float32)
    low = rng.uniform(0, 60, [40, 2])
    drawn = np.concatenate([low, np.minimum(low + rng.uniform(3, 40, [40, 2]), 96)], 1).astype(np.float32)
    labels = np.arange(40) % 3
    found = match(tf.constant(drawn[:, None]), tf.constant(labels[:, None]), tf.constant(anchors), (12, 12), 8.0, 4.0)
    places = found.place.numpy()
    for index, box in enumerate(drawn):
        own = {tuple(place[1:]) for place in places if place[0] == index}
        assert own == naive_match(box, anchors, (12, 12), 8.0, 4.0)
    per_anchor = np.unique(places[:, [0, 3]], axis=0, return_counts=True)[1]
    assert per_anchor.min() >= 1
    assert per_anchor.max() == 3
    assert (places[:, 1:3] >= 0).all()
    assert (places[:, 1:3] < 12).all()
    np.testing.assert_array_equal(found.label, labels[places[:, 0]])
    none = match(tf.zeros([2, 3, 4]), -tf.ones([2, 3], tf.int64), tf.constant(anchors), (12, 12), 8.0, 4.0)
    assert none.place.shape == [0, 4]


def test_m6_what_encodes_a_box_decodes_to_it():
    anchors = tf.constant([[8.0, 12.0], [20.0, 16.0]])
    drawn = boxes([10, 20, 26, 37])
    found = match(drawn[None], tf.constant([[1]], tf.int64), anchors, (12, 12), 8.0, 4.0)
    numbers = inverse_relative_boxes(found.box, found.anchor)
    np.testing.assert_allclose(relative_boxes(numbers, found.anchor), found.box, atol=1e-4)
    # put into the map where it is expected, each of them is the box again
    logits = np.full([1, 12, 12, 2, 9], -20.0, np.float32)
    for place, values in zip(found.place.numpy(), numbers.numpy()):
        logits[tuple(place)] = [*values, 20.0, -20.0, 20.0, -20.0, -20.0]
    all_boxes, scores = decode([tf.constant(logits)], anchors[None])
    sure = scores.numpy()[0].max(-1) > 0.9
    assert sure.sum() == len(found.place)
    np.testing.assert_allclose(all_boxes.numpy()[0][sure], np.repeat(drawn, len(found.place), 0), atol=1e-2)
    assert (scores.numpy()[0][sure].argmax(-1) == 1).all()


def test_the_losses_of_hand_made_maps():
    config = tiny(classes=2)
    anchors = tf.constant([[[8.0, 8.0], [6.0, 12.0]], [[16.0, 16.0], [12.0, 24.0]]])
    drawn, label = boxes([8, 8, 16, 16])[None], tf.constant([[1]], tf.int64)
    maps = [np.full([1, side, side, 2, 7], -30.0, np.float32) for side in (4, 2)]
    for level, stride in enumerate((8.0, 16.0)):
        found = match(drawn, label, anchors[level], maps[level].shape[1:3], stride, 4.0)
        numbers = inverse_relative_boxes(found.box, found.anchor).numpy()
        for place, values in zip(found.place.numpy(), numbers):
            maps[level][tuple(place)] = [*values, 30.0, -30.0, 30.0]
    perfect = losses([tf.constant(m) for m in maps], anchors, drawn, label, config)
    for name, value in perfect.items():
        assert float(value) == pytest.approx(0.0, abs=1e-3), name
    nothing = losses([tf.constant(m) for m in maps], anchors, drawn, -tf.ones_like(label), config)
    assert float(nothing["box"]) == float(nothing["side"]) == float(nothing["classification"]) == 0.0  # and not NaN
    assert float(nothing["objectness"]) > 1.0
    # the truth a pixel smaller on each side: each match overshoots by 4 pixels, in cells of its level
    smaller = boxes([9, 9, 15, 15])[None]
    grid = losses([tf.constant(m) for m in maps], anchors, smaller, label, config)
    pixel = losses([tf.constant(m) for m in maps], anchors, smaller, label, config.replace({"losses.side_units": "pixel"}))
    assert float(grid["side"]) == pytest.approx(4 / 8 + 4 / 16, abs=1e-3)
    assert float(pixel["side"]) == pytest.approx(8.0, abs=2e-2)


# -- network ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "parameters"), [(80, 7_276_605), (1, 7_063_542), (4, 7_071_633)])
def test_m7_yolov5s_has_its_parameters(classes, parameters):
    network = YOLO(5 + classes)
    maps = network(tf.keras.Input([640, 640, 3]))
    assert [m.shape[1:] for m in maps] == [[side, side, 3, 5 + classes] for side in (80, 40, 20)]
    assert sum(int(tf.size(v)) for v in network.trainable_variables) == parameters


def test_m8_focus_takes_the_four_phases():
    network = YOLO(9, width=0.06, levels=2)
    network(tf.keras.Input([32, 32, 3]))
    seen = []
    network.focus.call = lambda x, training=False, call=network.focus.call: seen.append(x) or call(x, training=training)
    image = tf.random.stateless_uniform([1, 32, 32, 3], [1, 2])
    network(image)
    assert seen[0].shape == [1, 16, 16, 12]
    phases = {seen[0].numpy()[0, ..., 3 * i : 3 * i + 3].tobytes() for i in range(4)}
    assert phases == {image.numpy()[0, r::2, c::2].tobytes() for r in (0, 1) for c in (0, 1)}
    heads = [head.bias.numpy().reshape(3, 9) for head in network.heads]
    for bias, stride in zip(heads, (8, 16)):
        np.testing.assert_allclose(bias[:, 4], math.log(8 / (640 / stride) ** 2), rtol=1e-5)
        np.testing.assert_allclose(bias[:, 5:], math.log(0.6 / (4 - 0.99)), rtol=1e-5)


# -- simulator --------------------------------------------------------------------------------------------------------------


def simulated(count=30, **settings):
    bank = ms.open_source("phantom:figure_panels?count=60&least=60&most=160")
    config = SimulatorConfig(**{"mixed": count, "intra": count, "single": 6, **settings})
    source = CompoundFigureSource(bank, bank.keys(), config, 3)
    return source, [source.read(key) for key in source.keys()]


@pytest.fixture(scope="module")
def figures():
    return simulated()


def test_m9_panels_keep_their_aspect_and_do_not_overlap(figures):
    source, records = figures
    shapes = {label: [] for label in range(4)}
    for key in source.bank.keys():
        height, width = source.bank.read(key)["image"].shape[:2]
        shapes[key.label].append(height / width)
    for index, record in enumerate(records):
        found, size = record["boxes"], record["image"].shape[:2]
        assert len(found) >= 1
        assert (found[:, :2] >= 0).all()
        assert (found[:, 2:] <= size).all()
        overlaps = intersection_over_union(found[:, None], found[None]).numpy() - np.eye(len(found))
        assert overlaps.max() <= 1e-6
        extent = found[:, 2:] - found[:, :2]
        for (height, width), label in zip(extent, record["box_labels"]):
            off = np.abs(np.log(height / width) - np.log(shapes[label])).min()
            assert off < 0.02 + 1.0 / min(height, width), (index, height, width)
        kind = source.config.kind(index)
        if kind == "single":
            assert len(found) == 1
            continue
        # row figures have rows of equal top and bottom, column figures columns
        rows = {(top, bottom) for top, bottom in found[:, [0, 2]]}
        columns = {(left, right) for left, right in found[:, [1, 3]]}
        lines, axis = (
            (rows, 0) if len(rows) <= 5 and sorted(rows) == sorted(rows, key=lambda r: r[1]) and apart(rows) else (columns, 1)
        )
        assert apart(lines)
        if kind == "intra":
            assert len(set(record["box_labels"].tolist())) == 1
            for low, high in lines:
                members = np.sort(found[(found[:, axis] == low) & (found[:, axis + 2] == high)][:, [1 - axis, 3 - axis]], 0)
                np.testing.assert_array_equal(members[1:, 0], members[:-1, 1])  # they touch


def apart(lines):
    """Whether intervals do not overlap."""
    ordered = sorted(lines)
    return all(first[1] <= second[0] for first, second in itertools.pairwise(ordered))


def test_m9_both_directions_and_gaps_occur(figures):
    source, records = figures
    gaps, taller = [], []
    for index, record in enumerate(records[: source.config.mixed]):
        found = record["boxes"]
        taller.append(record["image"].shape[0] > record["image"].shape[1])
        low, high = found[:, :2].min(0), found[:, 2:].max(0)
        gaps.append(np.prod(found[:, 2:] - found[:, :2], -1).sum() / np.prod(high - low))
        assert source.read(source.keys()[index])["image"].tobytes() == record["image"].tobytes()
    assert 0 < np.mean(taller) < 1
    white = [(record["image"] == 255).all(-1).mean() for record in records]
    assert max(white) > 0.05


def test_m10_the_grid_of_tsutsui_stretches_panels():
    source, records = simulated(20, style="tsutsui", intra=0, single=0)
    ratios = {label: [] for label in range(4)}
    for key in source.bank.keys():
        height, width = source.bank.read(key)["image"].shape[:2]
        ratios[key.label].append(height / width)
    errors = []
    for record in records:
        for box, label in zip(record["boxes"], record["box_labels"]):
            height, width = box[2:] - box[:2]
            errors.append(np.abs(height / width / np.asarray(ratios[label]) - 1).min())
        overlaps = intersection_over_union(record["boxes"][:, None], record["boxes"][None]).numpy()
        assert (overlaps - np.eye(len(overlaps))).max() <= 1e-6
    assert np.mean(np.asarray(errors) > 0.1) > 0.3  # even against the panel of the class that fits best


def test_m11_the_mixture_is_the_papers_and_the_seeds():
    paper = SimulatorConfig()
    kinds = [paper.kind(i) for i in range(paper.figures)]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"mixed": 5000, "intra": 2000, "single": 2947}
    bank = ms.open_source("phantom:figure_panels?count=20")
    sources = [CompoundFigureSource(bank, bank.keys(), paper, seed) for seed in (1, 1, 2)]
    keys = sources[0].keys()
    assert len(keys) == 9947
    first, again, other = (source.read(keys[6000])["image"] for source in sources)
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)


def test_panels_of_the_background_class_are_pasted_and_not_framed():
    _, records = simulated(12, intra=0, background_label=3)
    assert not any((record["box_labels"] == 3).any() for record in records)
    assert any(len(record["boxes"]) == 0 for record in records[12:]) or any(
        (record["image"][..., 0] == 250).mean() > 0.05 for record in records
    )


# -- letterbox, suppression, fusion -----------------------------------------------------------------------------------------


def test_m12_letterboxes_are_undone_and_crops_are_the_boxes():
    rng = np.random.default_rng(0)
    for height, width in ((300, 411), (411, 300), (64, 64), (1000, 333)):
        image = tf.cast(tf.fill([1, height, width, 3], 200), tf.uint8)
        fitted, how = letterbox(image, 160)
        assert fitted.shape == [1, 160, 160, 3]
        inner = how.forth(boxes([0, 0, height, width])).numpy()[0]
        assert max(inner[2:] - inner[:2]) == pytest.approx(160, abs=1)
        top, left, bottom, right = np.rint(inner).astype(int)
        np.testing.assert_allclose(fitted[0, top + 1 : bottom - 1, left + 1 : right - 1], 200 / 255, atol=1e-3)
        grey = fitted.numpy()[0].copy()
        grey[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = 114 / 255
        np.testing.assert_allclose(grey, 114 / 255, atol=1e-5)
        low = rng.uniform(0, [height / 2, width / 2], [20, 2])
        drawn = np.concatenate([low, low + rng.uniform(5, 30, [20, 2])], 1).astype(np.float32)
        np.testing.assert_allclose(how.back(how.forth(tf.constant(drawn))), drawn, atol=0.01)
    picture = rng.integers(0, 255, [50, 60, 3], dtype=np.uint8)
    cut = crops(picture, np.array([[3.0, 4.0, 13.0, 24.0], [-5.0, 50.0, 10.0, 90.0], [10.0, 10.0, 10.2, 30.0]]))
    assert [c.shape[:2] for c in cut] == [(10, 20), (10, 10)]
    np.testing.assert_array_equal(cut[0], picture[3:13, 4:24])


def test_m14_suppression_is_by_class():
    found = suppress(
        boxes([0, 0, 10, 10], [0, 1, 10, 11], [0, 0, 10, 10.5], [30, 30, 40, 40])[None],
        tf.constant([[[0.9, 0.0], [0.8, 0.0], [0.0, 0.7], [0.1, 0.2]]]),
        0.25,
        0.45,
        5,
    )
    assert int(found["count"][0]) == 2
    np.testing.assert_allclose(found["scores"][0], [0.9, 0.7, 0, 0, 0])
    np.testing.assert_array_equal(found["labels"][0], [0, 1, -1, -1, -1])
    np.testing.assert_allclose(found["boxes"][0, :2], [[0, 0, 10, 10], [0, 0, 10, 10.5]])


def test_m15_fusion_makes_one_box_of_five_equal_ones():
    one = (np.array([[2.0, 3.0, 12.0, 13.0]], np.float32), np.array([0.6], np.float32), np.array([1]))
    models = [(one[0], np.array([score], np.float32), one[2]) for score in (0.5, 0.6, 0.7, 0.8, 0.9)]
    fused = fuse(models, 0.5)
    np.testing.assert_allclose(fused[0], one[0], atol=1e-5)
    np.testing.assert_allclose(fused[1], [0.7], atol=1e-6)
    np.testing.assert_array_equal(fused[2], [1])
    # two models of which one misses: the score is halved; boxes of another class and faint ones stay out
    shifted = (np.array([[2.0, 4.0, 12.0, 14.0], [50.0, 50.0, 60.0, 60.0]]), np.array([0.2, 1e-6]), np.array([1, 1]))
    fused = fuse([one, shifted], 0.5, 1e-4)
    np.testing.assert_allclose(fused[0], [[2.0, 3.25, 12.0, 13.25]], atol=1e-5)  # weighted 3 to 1
    np.testing.assert_allclose(fused[1], [0.4], atol=1e-6)
    other = (one[0], one[1], np.array([2]))
    np.testing.assert_allclose(fuse([one, other], 0.5)[1], [0.3, 0.3], atol=1e-6)
    assert fuse([(one[0][:0], one[1][:0], one[2][:0])] * 2)[0].shape == (0, 4)


# -- average precision ------------------------------------------------------------------------------------------------------


def test_m13_average_precision_of_known_detections():
    truth = [(np.array([[0.0, 0, 10, 10], [20, 20, 30, 40]]), np.array([0, 1])), (np.array([[5.0, 5, 15, 15]]), np.array([0]))]
    perfect = [(b, np.full(len(b), 0.9), n) for b, n in truth]
    found = average_precision(perfect, truth, 3)
    assert found["map"] == pytest.approx(1.0)
    assert found["map_50"] == pytest.approx(1.0)
    assert found["per_class"][:2] == [pytest.approx(1.0), pytest.approx(1.0)]
    assert found["per_class"][2] is None
    duplicates = [(np.concatenate([b, b]), np.full(2 * len(b), 0.9), np.concatenate([n, n])) for b, n in truth]
    # class 0: two true boxes; true and false in turn, so precision 1, ½, ⅔ at recalls ½, ½, 1: envelope 1 up to ½, ⅔ beyond
    expected = (51 * 1.0 + 50 * 2 / 3) / 101
    assert average_precision(duplicates, truth, 3)["map_50"] == pytest.approx((expected + 1.0) / 2, abs=0.01)
    confused = [(b, np.full(len(b), 0.9), (n + 1) % 2) for b, n in truth]
    assert average_precision(confused, truth, 2)["map_50"] == pytest.approx(0.0)
    # IoU 0.7 counts at thresholds .5 … .7: five of ten
    shifted = [(b * np.array([1, 1, 1, 1]), s, n) for b, s, n in perfect]
    shifted = [(np.array([[0.0, 0, 7.0, 10]]), np.array([0.9]), np.array([0]))]
    assert average_precision(shifted, [(np.array([[0.0, 0, 10, 10]]), np.array([0]))], 1)["map"] == pytest.approx(0.5)
    empty = [(np.zeros([0, 4]), np.zeros(0), np.zeros(0, int))]
    assert average_precision(empty, [(np.array([[0.0, 0, 10, 10]]), np.array([0]))], 1)["map"] == pytest.approx(0.0)
    assert average_precision(empty, [(np.zeros([0, 4]), np.zeros(0, int))], 1)["map"] is None


def test_over_share_counts_pixels_outside_and_inside():
    truth = [(np.array([[10.0, 10, 30, 30]]), np.array([0]))]
    outside = [(np.array([[8.0, 10, 30, 33]]), np.array([0.9]), np.array([0]))]
    assert over_share(outside, truth) == 1.0
    mixed = [(np.array([[9.0, 12, 30, 31]]), np.array([0.9]), np.array([0]))]
    assert over_share(mixed, truth) == pytest.approx(0.5)
    assert over_share(truth and [(truth[0][0], np.array([0.9]), truth[0][1])], truth) is None
    weak = [(mixed[0][0], np.array([0.1]), np.array([0]))]
    assert over_share(weak, truth) is None


# -- optimisers, averages, anchors ------------------------------------------------------------------------------------------


def test_m14_weight_decay_is_of_kernels_alone_and_the_average_is_served():
    frozen = tiny(
        **{
            "losses": {"box": 0.0, "objectness": 0.0, "classification": 0.0, "balance": [4.0, 1.0]},
            "optimiser": {
                "kind": "sgd",
                "learning_rate": 0.1,
                "momentum": 0.0,
                "weight_decay": 0.5,
                "warmup_epochs": 0.0,
                "warmup_steps": 0,
            },
        }
    )
    model = ms.create("simcfs", frozen)
    model.compile()
    before = {v.ref(): v.numpy() for v in model.network.trainable_variables}
    batch = next(iter(model.dataset(ms.open_source(SOURCE), frozen, "train", epochs=None)))
    model.train_step(batch)
    for variable in model.network.trainable_variables:
        shrunk = 0.95 if variable.shape.rank == 4 else 1.0
        np.testing.assert_allclose(variable, shrunk * before[variable.ref()], rtol=1e-5, atol=1e-7)
    assert {v.ref() for v in model.kernels} | {v.ref() for v in model.biases} == set(before)
    assert len(model.biases) + len(model.kernels) == len(before)
    kernel = next(v for v in model.kernels if v.shape.rank == 4)
    position = next(i for i, v in enumerate(model.average._followed) if v is kernel)
    decay = 0.5 * (1 - math.exp(-1 / 2000))
    expected = decay * before[kernel.ref()] + (1 - decay) * kernel.numpy()
    np.testing.assert_allclose(model.average.averages[position], expected, rtol=1e-5)
    with model.averaged_weights():
        np.testing.assert_allclose(kernel, expected, rtol=1e-5)


def test_the_warm_up_raises_rates_and_momentum_and_lowers_that_of_biases():
    kernels, biases = (tf.keras.optimizers.SGD(0.01, momentum=tf.Variable(0.9), nesterov=True) for _ in range(2))
    warmup = LinearWarmup([(kernels, 0.0), (biases, 0.1)], 0.01, 100, lambda step: 1.0, (0.8, 0.937))
    assert warmup.values(0, 0.0) == (0.0, 0.8)
    assert warmup.values(50, 0.1) == (pytest.approx(0.055), pytest.approx(0.8685))
    assert warmup.values(500, 0.1) == (pytest.approx(0.01), pytest.approx(0.937))
    kernels.iterations.assign(50)
    warmup.on_train_batch_begin(0)
    assert float(kernels.learning_rate) == pytest.approx(0.005)
    assert float(biases.momentum) == pytest.approx(0.8685)
    # Nesterov's step by a variable momentum is the formula's
    weight = tf.Variable([1.0])
    optimizer = tf.keras.optimizers.SGD(0.1, momentum=tf.Variable(0.5), nesterov=True)
    optimizer.build([weight])
    velocity, value = 0.0, 1.0
    for gradient, momentum in ((1.0, 0.5), (2.0, 0.9)):
        optimizer.momentum.assign(momentum)
        optimizer.apply_gradients([(tf.constant([gradient]), weight)])
        velocity = momentum * velocity - 0.1 * gradient
        value += momentum * velocity - 0.1 * gradient
    assert float(weight[0]) == pytest.approx(value, rel=1e-6)


def test_anchors_are_estimated_anew_where_they_fit_badly():
    rng = np.random.default_rng(0)
    sizes = np.concatenate([rng.normal([300, 12], [20, 1], [60, 2]), rng.normal([9, 200], [0.5, 20], [60, 2])])
    default = np.asarray(ANCHORS).reshape(-1, 2)
    before = anchor_tools.best_possible_recall(sizes, default, 4.0)
    assert before < 0.5
    fitted = anchor_tools.estimate_anchors(sizes, 4, 4.0, 0)
    assert fitted.shape == (4, 2)
    assert anchor_tools.best_possible_recall(sizes, fitted, 4.0) == 1.0
    assert anchor_tools.best_possible_recall(default, default, 4.0) == 1.0
    model = ms.create("simcfs", tiny(**{"network.anchors": [[2, 400, 3, 600], [400, 2, 500, 3]], "network.auto_anchors": True}))
    model.compile()
    old = model.anchors.numpy()
    [stage] = model.stages(ms.open_source(SOURCE))
    stage.begin()
    assert not np.array_equal(old, model.anchors.numpy())
    areas = model.anchors.numpy().prod(-1).ravel()
    assert (np.diff(areas) >= 0).all()


# -- augmentation and data --------------------------------------------------------------------------------------------------


def test_mosaics_and_moves_take_boxes_along():
    """Images of plain rectangles: what is inside a returned box has the rectangle's colour, what is not is grey or white."""
    config = tiny(**{"augmentation": {"hue": 0.0, "saturation": 0.0, "value": 0.0, "mosaic": 0.5}})
    size, count = 64, 8
    images = np.ones([count, size, size, 3], np.float32)
    drawn = np.zeros([count, 3, 4], np.float32)
    rng = np.random.default_rng(0)
    for i in range(count):
        for j in range(2):
            top, left = rng.integers(0, 12), rng.integers(0, 12) + 32 * j
            drawn[i, j] = (top, left, top + 40, left + 18)
            images[i, top : top + 40, left : left + 18] = (1.0, 0.0, 0.0)
    labels = np.tile(np.array([[0, 1, -1]]), (count, 1))
    seeds = tf.range(count, dtype=tf.int64)
    out, moved, kept = augment(
        tf.constant(images), tf.constant(drawn), tf.constant(labels), seeds, config.augmentation, config.data
    )
    red = (out.numpy()[..., 0] > 0.6) & (out.numpy()[..., 1] < 0.4)
    axis = np.arange(size) + 0.5
    for picture, found, names in zip(red, moved.numpy(), kept.numpy()):
        covered = np.zeros([size, size], bool)
        for top, left, bottom, right in found[names >= 0]:
            inside = np.ix_((axis > top + 1) & (axis < bottom - 1), (axis > left + 1) & (axis < right - 1))
            assert picture[inside].all()
            covered[np.ix_((axis > top - 1) & (axis < bottom + 1), (axis > left - 1) & (axis < right + 1))] = True
        assert (picture & ~covered).mean() < 0.02  # only slivers that were dropped
    assert 0 < (kept.numpy() >= 0).sum(1).max() <= 8
    sizes = moved.numpy()[..., 2:] - moved.numpy()[..., :2]
    assert sizes[kept.numpy() >= 0].min() >= 2.0


def test_data_are_simulated_of_panels_or_real_and_are_refused_in_words(tmp_path):
    source = ms.open_source(SOURCE)
    config = tiny()
    batch = next(iter(ms.create("simcfs", config).dataset(source, config, "train", epochs=None)))
    assert {name: value.shape for name, value in batch.items()} == {
        "image": [2, 32, 32, 3],
        "boxes": [2, 12, 4],
        "labels": [2, 12],
        "scale": [2],
        "offset": [2, 2],
        "seed": [2],
    }
    assert ((batch["labels"].numpy() >= 0).sum(1) >= 1).all()
    with pytest.raises(DataError, match="needs records with boxes"):
        real = tiny(training_data="real")
        ms.create("simcfs", real).dataset(source, real, "train")
    with pytest.raises(tf.errors.InvalidArgumentError, match="beyond classes = 2"):
        few = tiny(classes=2)
        list(ms.create("simcfs", few).dataset(source, few, "val"))
    with pytest.raises(ConfigError, match="must be a multiple of 16"):
        tiny(image_size=40)


def test_any_figure_size_is_served_and_boxes_come_back_in_its_pixels():
    model = ms.create("simcfs", tiny(**{"detection.confidence": 0.0}))
    image = tf.cast(tf.random.stateless_uniform([2, 50, 90, 3], [1, 2], 0, 255, tf.int32), tf.uint8)
    found = model.signatures()["serving_default"](image=image)
    count = found["count"].numpy()
    assert (count > 0).all()
    for i in range(2):
        own = found["boxes"].numpy()[i, : count[i]]
        assert (own >= 0).all()
        assert (own[:, [0, 2]] <= 50).all()
        assert (own[:, [1, 3]] <= 90).all()
    panels = model.separate(image[0].numpy())
    assert all(crop.shape[0] and crop.shape[1] for crop, _, _ in panels)
    assert len(model.separate_with([model], image[0].numpy())) <= 2 * len(panels) + 1
