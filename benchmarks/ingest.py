"""Ingest of DICOM slices against a plain loop: time of both, alternating in one run, and our memory.

The reference is what a careful person writes first: pydicom, rescale, `tf.train.Example`, `TFRecordWriter`, one process. Both
sides write the same arrays. Run: `python benchmarks/ingest.py --files 500 --syntax rle`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from medsynth_tf.data.tfrecord_files import GZIP_LEVEL

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the plain loop imports TensorFlow

SIDE = 512
SYNTAXES = {
    "raw": "1.2.840.10008.1.2.1",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg2000": "1.2.840.10008.1.2.4.90",
}


def ct_slice(number: int) -> np.ndarray:
    """A head-like slice in Hounsfield units + 1024: skull, brain, ventricles, air outside, a scanner's noise over all."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    radius = np.hypot(x / 0.7, y / 0.85)
    image = np.where(radius < 1, 1064.0, 50.0)
    image[(radius > 0.9) & (radius < 1)] = 2000
    image[np.hypot((x - 0.15) / 0.1, y / (0.2 + 0.001 * (number % 50))) < 1] = 1030
    image += rng.normal(0, 12, image.shape)
    return image.astype(np.uint16)


def write_slices(folder: Path, count: int, syntax: str) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir()
    for number in range(count):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = generate_uid(), generate_uid()
        dataset.PatientID, dataset.Modality = f"P{number // 10:03d}", "CT"
        dataset.PixelSpacing, dataset.SliceThickness = [0.5, 0.5], 5
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.Rows = dataset.Columns = SIDE
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.PixelData = ct_slice(number).tobytes()
        if SYNTAXES[syntax] != ExplicitVRLittleEndian:
            dataset.compress(SYNTAXES[syntax])
        dataset.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)


def plain_loop(folder: Path, output: Path, compression: str) -> None:
    import pydicom
    import tensorflow as tf
    from pydicom.pixels import apply_rescale

    def feature(value):
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=value))

    output.mkdir()
    # The level that ours has: TensorFlow's own default takes several times as long.
    written = tf.io.TFRecordOptions(compression_type=compression, compression_level=GZIP_LEVEL)
    with tf.io.TFRecordWriter(str(output / "all.tfrecord"), written) as writer:
        for path in sorted(folder.iterdir()):
            dataset = pydicom.dcmread(path)
            image = apply_rescale(dataset.pixel_array, dataset).astype(np.int16)
            features = {
                "id": feature(path.stem.encode()),
                "patient_id": feature(str(dataset.PatientID).encode()),
                "image": feature(image.tobytes()),
                "image/shape": feature([*image.shape, 1]),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def ours(folder: Path, output: Path, compression: str) -> None:
    from medsynth_tf.data.ingest import ingest

    ingest(f"folder:{folder}", output, compression=compression)


def timed_in_process(function, arguments: tuple, warm: tuple) -> tuple[float, float, float]:
    """(seconds, CPU seconds, peak MiB of the process and of its largest child) of a call in a fresh process, less imports."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_timed, args=(sender, function, arguments, warm))
    process.start()
    result = receiver.recv()
    process.join()
    return result


def _timed(sender, function, arguments: tuple, warm: tuple) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        function(*warm[:1], Path(scratch) / "warm", *warm[1:])  # imports are not what is measured
        start, used = time.perf_counter(), _cpu()
        function(*arguments[:1], Path(scratch) / "out", *arguments[1:])
        seconds, cpu = time.perf_counter() - start, _cpu() - used
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    sender.send((seconds, cpu, peak))


def _cpu() -> float:
    """CPU seconds of this process and its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--syntax", choices=SYNTAXES, nargs="+", default=list(SYNTAXES))
    parser.add_argument("--gzip", action="store_true", help="compress the shards, on both sides")
    options = parser.parse_args()
    compression = "GZIP" if options.gzip else ""
    for syntax in options.syntax:
        with tempfile.TemporaryDirectory() as scratch:
            folder, few, fifth = Path(scratch) / "slices", Path(scratch) / "few", Path(scratch) / "fifth"
            write_slices(folder, options.files, syntax)
            write_slices(few, 4, syntax)
            write_slices(fifth, options.files // 5, syntax)
            times: dict[str, list[float]] = {"plain loop": [], "ours": []}
            cpus: dict[str, list[float]] = {"plain loop": [], "ours": []}
            for _ in range(options.rounds):
                for name, function in (("plain loop", plain_loop), ("ours", ours)):
                    seconds, cpu, peak = timed_in_process(function, (folder, compression), (few, compression))
                    times[name].append(seconds)
                    cpus[name].append(cpu)
            _, _, peak_fifth = timed_in_process(ours, (fifth, compression), (few, compression))
            medians = {name: statistics.median(values) for name, values in times.items()}
            work = {name: statistics.median(values) for name, values in cpus.items()}
            print(
                f"{syntax}{' gzip' if compression else ''}, {options.files} slices: plain loop {medians['plain loop']:.2f} s,"
                f" ours {medians['ours']:.2f} s, {medians['plain loop'] / medians['ours']:.2f} times as fast"
                f" (CPU {work['plain loop']:.2f} and {work['ours']:.2f} s: {1000 * work['plain loop'] / options.files:.2f} and"
                f" {1000 * work['ours'] / options.files:.2f} ms a slice; load average {os.getloadavg()[0]:.1f} on"
                f" {len(os.sched_getaffinity(0))} cores);"
                f" ours peaks at {peak_fifth:.0f} MiB for {options.files // 5} files, {peak:.0f} MiB for {options.files}"
            )


if __name__ == "__main__":
    sys.exit(main())
