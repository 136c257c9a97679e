"""Synthetic images in number through a model server: files, masks and a manifest, resumable after any interruption."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from medsynth_tf.core.card import file_sha256, utc_now
from medsynth_tf.core.errors import DataError, ServingError
from medsynth_tf.core.files import replacing_file
from medsynth_tf.core.names import look_up
from medsynth_tf.core.seeds import derive_seed
from serving.client import TLS, Client
from serving.label_maps import fit_label_map
from serving.manifest import Entry, Manifest

if TYPE_CHECKING:
    from medsynth_tf.data.source import RecordKey, Source

SUFFIXES = {"png": ".png", "dicom": ".dcm", "nifti": ".nii.gz"}
SETTINGS_THAT_DECIDE = ("model", "version", "count", "seed", "formats", "masks", "size")

Resize = Callable[[np.ndarray, int, int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class _Job:
    """What every batch of a run shares."""

    client: Client
    source: Source | None  # of label maps; None for a model that makes its own masks
    keys: Sequence[RecordKey]
    labels: Sequence[int]
    folder: Path
    settings: dict[str, Any]
    resize: Resize
    timeout: float
    takes: frozenset[str]
    gives: frozenset[str]

    def batch(self, indices: Sequence[int]) -> list[Entry]:
        """Asks for the images `indices`, writes them with their masks; their entries."""
        seeds = [derive_seed(self.settings["seed"], "synthesize", index) for index in indices]
        inputs = {"seed": np.array(seeds, np.int64)}
        keys = [self.keys[index % len(self.keys)] for index in indices] if self.keys else []
        if "label_map" in self.takes:
            inputs["label_map"] = np.stack([self._mask(key) for key in keys])
        if "grade" in self.takes:  # the record's own; -1 leaves it to the model
            inputs["grade"] = np.array([-1 if key.label is None else key.label for key in keys], np.int64)
        if "label" in self.takes:
            inputs["label"] = np.array([self.labels[index % len(self.labels)] for index in indices], np.int64)
        made = self.client.predict(
            self.settings["model"],
            inputs,
            version=self.settings["version"],
            outputs=[name for name in ("image", "mask", "empty_mask") if name in self.gives],
            timeout=self.timeout,
        )
        masks = inputs.get("label_map", made.get("mask"))
        return [
            self._write(
                index,
                keys[place].id if keys else "",
                None if masks is None else masks[place],
                seeds[place],
                made["image"][place],
                bool(made["empty_mask"][place]) if "empty_mask" in made else False,
            )
            for place, index in enumerate(indices)
        ]

    def _mask(self, key: RecordKey) -> np.ndarray:
        assert self.source is not None
        mask = self.source.read(key).get("mask")
        if mask is None:
            raise DataError(f"record '{key.id}' has no mask to synthesise from")
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise DataError(f"the mask of record '{key.id}' is {mask.dtype} {list(mask.shape)}: expected uint8 [H, W]")
        height, width = self.settings["size"]
        return mask if mask.shape == (height, width) else self.resize(mask, height, width)

    def _write(
        self, index: int, source_id: str, mask: np.ndarray | None, seed: int, image: np.ndarray, empty_mask: bool
    ) -> Entry:
        from medsynth_tf.data.writers import Provenance, write_image

        settings = self.settings
        provenance = Provenance(
            model=settings["model"],
            version=str(settings["version"]),
            seed=seed,
            method=settings["method"],
            created=settings["created"],
        )
        name = f"{index:06d}"
        files = [f"images/{name}{SUFFIXES[kind]}" for kind in settings["formats"]]
        for file in files:
            write_image(self.folder / file, image, provenance)
        if mask is not None:
            files.append(f"masks/{name}.png")
            with replacing_file(self.folder / files[-1]) as temporary:
                Image.fromarray(mask).save(temporary)
        digests = {file: file_sha256(self.folder / file) for file in files}
        return Entry(index, name, source_id, seed, settings["model"], settings["version"], digests, empty_mask)


def synthesize(
    server: str,
    model: str,
    source: Source | None,
    count: int,
    folder: str | Path,
    *,
    seed: int = 0,
    formats: Sequence[str] = ("png",),
    batch_size: int = 8,
    in_flight: int = 3,
    keys: Sequence[RecordKey] | None = None,
    labels: Sequence[int] = (),
    version: int | None = None,
    image_size: tuple[int, int] | None = None,
    resize: Resize = fit_label_map,
    method: str = "",
    token: str | None = None,
    tls: TLS | None = None,
    timeout: float = 300.0,
    progress: bool = True,
) -> int:
    """Writes `count` synthetic images, each with its label map, and a manifest into `folder`.

    Image i is made from mask i (over again when there are more images than masks) with a seed that derives from `seed` and i
    alone; a model that makes image and mask together is given the seed, and a class if it takes one. So a rerun after an
    interruption skips the images that are there, whole, and makes the others as they would have been; neither `batch_size` nor
    `in_flight` changes a pixel.

    Args:
        server: host:port.
        model: its name on the server; its serving_default takes label_map uint8 [B, H, W] and seed int64 [B], where it can also
            grade int64 [B], that of the mask's record, and gives image. Or it takes seed, or seed and label int64 [B], and gives
            image and perhaps mask and empty_mask.
        source: where the label maps are (uint8 `mask`, [H, W], of each record); None for a model that takes none.
        count: number of images.
        folder: gets images/<name>.<suffix>, masks/<name>.png, manifest.jsonl, manifest.csv, synthesis.json.
        seed: base of the images' seeds.
        formats: of "png", "dicom", "nifti".
        batch_size: images a request. in_flight: requests under way at the same time, so that the server is never idle.
        keys: of the records to take the masks from; default: all.
        labels: classes to ask for in turn, of a model that takes label.
        version: of the model; default: the newest, or the one that the run in `folder` began with.
        image_size: (height, width) of the masks; needed only if the model's signature leaves it open.
        resize: fits a mask of another size: (mask, height, width) → mask.
        method: the method's slug for the provenance marks; default: the model's name.
        token, tls: as serving.client.Client.
        timeout: seconds for a request with its retries.
        progress: show a bar with rate and time left.

    Returns:
        How many images this call made; the others were there.

    Raises:
        ServingError: the server refused or failed, or `folder` holds another run. DataError: a record has no usable mask.
    """
    for kind in formats:
        look_up(SUFFIXES, kind, "image format")
    if count < 1 or batch_size < 1 or in_flight < 1 or not formats:
        raise ServingError("count, batch_size and in_flight must be at least 1, and a format given", "INVALID_ARGUMENT")
    if source is not None and keys is None:
        keys = source.keys()
    if source is not None and not keys:
        raise DataError("the source has no records to take masks from")
    manifest = Manifest(Path(folder))
    with manifest.locked(), Client(server, token, tls) as client:
        former = manifest.settings()
        client.wait_ready(model, timeout=timeout)
        wanted = version or (former or {}).get("version")
        if wanted is not None and wanted not in [one.version for one in client.status(model) if one.state == "AVAILABLE"]:
            began = "" if version else f", which the run in {folder} began with"
            raise ServingError(f"{server} does not serve version {wanted} of '{model}'{began}", "NOT_FOUND")
        metadata = client.metadata(model, wanted)
        settings = {
            "model": model,
            "version": metadata.version,
            "count": count,
            "seed": seed,
            "formats": list(formats),
            **_masks(metadata.signatures, source, keys or (), labels, image_size),
            "method": method or model,
            "created": utc_now(),
        }
        if former is None:
            manifest.begin(settings)
        else:
            manifest.require_same(former, settings, SETTINGS_THAT_DECIDE)
            settings = former  # `created` too, so that a resumed run writes the bytes that the killed one would have
        signature = metadata.signatures["serving_default"]
        takes, gives = frozenset(signature.inputs), frozenset(signature.outputs)
        if "label_map" not in takes:
            source, keys = None, ()
        job = _Job(client, source, keys or (), labels, Path(folder), settings, resize, timeout, takes, gives)
        return _run(job, manifest, count, batch_size=batch_size, in_flight=in_flight, progress=progress)


def _run(job: _Job, manifest: Manifest, count: int, *, batch_size: int, in_flight: int, progress: bool) -> int:
    entries = manifest.finished()
    missing = [index for index in range(count) if index not in entries]
    batches = iter([missing[start : start + batch_size] for start in range(0, len(missing), batch_size)])
    bar = tqdm(total=count, initial=len(entries), unit="image", desc=job.settings["model"], disable=not progress)
    with bar, manifest.journal() as journal:
        for done in _in_parallel(job.batch, batches, in_flight):
            journal.add(done)
            entries.update({entry.index: entry for entry in done})
            bar.update(len(done))
    manifest.finish(entries)
    return len(missing)


def _in_parallel(
    work: Callable[[Sequence[int]], list[Entry]], batches: Iterator[Sequence[int]], in_flight: int
) -> Iterator[list[Entry]]:
    """Results of `work` as they are done, with `in_flight` batches under way; the first failure ends it."""
    with futures.ThreadPoolExecutor(in_flight, thread_name_prefix="synthesize") as pool:
        running = {pool.submit(work, batch) for _, batch in zip(range(in_flight), batches)}
        while running:
            done, running = futures.wait(running, return_when=futures.FIRST_COMPLETED)
            for future in done:
                yield future.result()
                running.update(pool.submit(work, batch) for _, batch in zip(range(1), batches))


def _masks(
    signatures: Any,
    source: Source | None,
    keys: Sequence[RecordKey],
    labels: Sequence[int],
    image_size: tuple[int, int] | None,
) -> dict[str, Any]:
    """What decides the masks, as settings of the run: `masks`, a fingerprint, and `size`, that of label maps to be given."""
    signature = signatures.get("serving_default")
    takes = set(signature.inputs) if signature is not None else set()
    if (
        signature is None
        or "image" not in signature.outputs
        or not ({"label_map", "seed"} <= takes or {"seed"} <= takes <= {"seed", "label"})
    ):
        raise ServingError(
            "the model does not make images from label maps or seeds: its serving_default must take label_map and seed, or seed, "
            "or seed and label, and give image",
            "FAILED_PRECONDITION",
        )
    if "label_map" in takes:
        if source is None:
            raise ServingError("the model takes label maps: give a source of them", "INVALID_ARGUMENT")
        return {"masks": _fingerprint(source, keys), "size": list(_mask_size(signature, image_size))}
    if ("label" in takes) != bool(labels):
        asked = "takes a class: give labels" if "label" in takes else "takes no class: give no labels"
        raise ServingError(f"the model {asked}", "INVALID_ARGUMENT")
    return {"masks": f"made by the model, labels {', '.join(map(str, labels)) or 'none'}", "size": []}


def _mask_size(signature: Any, image_size: tuple[int, int] | None) -> tuple[int, int]:
    shape = signature.inputs["label_map"].shape
    fixed = shape[1:] if shape is not None and len(shape) == 3 and None not in shape[1:] else None
    if fixed is not None and image_size not in (None, fixed):
        raise ServingError(f"image_size is {image_size}, the model takes {fixed}", "INVALID_ARGUMENT")
    size = fixed or image_size
    if size is None:
        raise ServingError("the model's signature leaves the size open: give image_size", "INVALID_ARGUMENT")
    return size


def _fingerprint(source: Source, keys: Sequence[RecordKey]) -> str:
    """Of the masks and their order."""
    digest = hashlib.sha256(source.fingerprint().encode())
    for key in keys:
        digest.update(b"\n" + key.id.encode())
    return digest.hexdigest()
