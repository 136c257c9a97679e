"""phantom:cells: nuclei are where the map says, apart from one another, and stains go by laboratory."""

import numpy as np
from scipy import ndimage

from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.data.phantoms.cells import EPITHELIAL, SPINDLE


def test_tumour_has_more_and_rounder_nuclei_than_stroma():
    source = PhantomSource("cells", 32)
    counts = {0: [], 1: []}
    for key in source.keys():
        mask = source.read(key)["mask"]
        counts[key.label].append([ndimage.label(mask == kind)[1] for kind in (EPITHELIAL, SPINDLE)])
    stroma, tumour = (np.mean(counts[label], 0) for label in (0, 1))
    assert tumour[0] > 2 * stroma[0]
    assert stroma[1] > tumour[1]
    assert [key.patient_id for key in source.keys()][7:9] == ["cells-patient-000000", "cells-patient-000001"]


def test_nuclei_are_darker_than_what_is_around_them_and_do_not_touch():
    source = PhantomSource("cells", 8, size=128)
    for key in source.keys():
        record = source.read(key)
        grey, mask = record["image"].mean(-1), record["mask"]
        assert grey[mask > 0].mean() < grey[mask == 0].mean() - 40
        together, apart = ndimage.label(mask > 0)[1], sum(ndimage.label(mask == kind)[1] for kind in (1, 2, 3))
        assert together == apart


def test_laboratories_differ_in_colour_and_not_in_anatomy():
    one, four = PhantomSource("cells", 8), PhantomSource("cells", 8, labs=4)
    colours = []
    for a, b in zip(one.keys(), four.keys()):
        first, second = one.read(a), four.read(b)
        np.testing.assert_array_equal(first["mask"], second["mask"])
        colours.append(second["image"].mean((0, 1)))
    within = np.abs(np.array(colours[:4]) - np.array(colours[4:])).mean()
    between = np.abs(np.array(colours[:4]) - np.roll(colours[:4], 1, 0)).mean()
    assert between > 1.5 * within
