"""Sources: where records come from, how they are split, and how they stream into `tf.data`."""

from __future__ import annotations

import abc
import concurrent.futures
import dataclasses
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.names import suggestion
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.records import OPTIONAL, SPLITS, Record, RecordSpec, encode

_INT64_MAX = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class RecordKey:
    """What is known of a record before it is read."""

    id: str
    patient_id: str
    split: str | None = None
    label: int | None = None


class Source(abc.ABC):
    """Records by key. Subclasses give `keys`, `read` and `describe`; the rest follows from them."""

    @abc.abstractmethod
    def keys(self) -> list[RecordKey]:
        """All records, sorted as the source finds best, always the same; no pixels are read.

        Raises:
            DataError: the source cannot be listed.
        """

    @abc.abstractmethod
    def read(self, key: RecordKey) -> Record:
        """One record; safe to call from several threads.

        Raises:
            DataError: it cannot be read; the message names the file and the reason.
        """

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Plain values for a manifest or model card: `kind`, `count`, and what else opens the source again."""

    def digest(self, key: RecordKey) -> str:
        """sha256 of a record's contents, in hexadecimal."""
        return hashlib.sha256(encode(self.read(key))).hexdigest()

    def optional_names(self, keys: Sequence[RecordKey]) -> frozenset[str]:
        """The optional names that all these records have; subclasses whose records differ find it without reading pixels."""
        return frozenset(self.read(keys[0])) & frozenset(OPTIONAL)

    def fingerprint(self) -> str:
        """sha256 over the ids and contents of all records, independent of their order; reads everything, in parallel."""
        keys = self.keys()
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
            return fingerprint_of({key.id: digest for key, digest in zip(keys, threads.map(self.digest, keys))})

    def split(self, name: str, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> list[RecordKey]:
        """The records of one split, in the order of `keys()`.

        Args:
            name: `train`, `val`, `test`, or `all`.
            fractions: shares of patients that are in no split yet; see `assign_splits`.
            seed: the same seed gives the same split on every machine.

        Raises:
            DataError: no such split, or the source puts a patient into two.
        """
        keys = self.keys()
        if name == "all":
            return keys
        if name not in SPLITS:
            raise DataError(f"unknown split '{name}'" + suggestion(name, (*SPLITS, "all")))
        splits = assign_splits(keys, fractions, seed)
        return [key for key in keys if splits[key.patient_id] == name]

    def spec(self, keys: Sequence[RecordKey]) -> RecordSpec:
        """What the records have in common: types and rank are the first one's, optional names those that all have.

        Raises:
            DataError: there are no keys, or the first record cannot be read.
        """
        if not keys:
            raise DataError(f"no records in {self.describe()}: nothing to read")
        return RecordSpec.of(self.read(keys[0]), self.optional_names(keys))

    def stream(
        self,
        keys: Sequence[RecordKey],
        seed: int = 0,
        shuffle: bool = True,
        epochs: int | None = None,
        skip: int = 0,
        *,
        workers: int | None = None,
        anew: bool = False,
        choose: Callable[[Any], Any] | None = None,
    ) -> Any:
        """A `tf.data.Dataset` of single records: dicts of tensors as `RecordSpec.signature` says, and `index` int64.

        Args:
            keys: which records.
            seed: of the order; pass e goes by (seed, e) alone.
            shuffle: whether each pass has an order of its own; else all go by `keys`.
            epochs: passes; None goes on for ever.
            skip: records of the whole stream to leave out at its start; none of them is read.
            workers: records read at the same time; None lets tf.data choose.
            anew: each time the data set is iterated it begins with another pass, as Keras's `fit` on a finite one expects.
            choose: a graph function from the index in the stream to a position among `keys`, both int64, instead of passes over them.

        A record that cannot be read ends the iteration with a `tf.errors.OpError` whose text holds the DataError.
        """
        import tensorflow as tf

        keys = list(keys)
        spec = self.spec(keys)
        order = stream_order(len(keys), seed, shuffle, epochs, skip, anew, choose)
        load = self._loader(keys, spec)

        def element(index: tf.Tensor, position: tf.Tensor) -> dict[str, tf.Tensor]:
            return {**load(position), "index": index}

        return order.map(element, workers or tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    def _loader(self, keys: list[RecordKey], spec: RecordSpec) -> Any:
        """A graph function from a position in `keys` to a record's tensors."""
        import tensorflow as tf

        signature = spec.signature()

        def read(position: Any) -> list[Any]:
            key = keys[int(position)]
            record = self.read(key)
            spec.check(record, f"record '{key.id}'")
            return [record[name].encode() if isinstance(record[name], str) else record[name] for name in spec.names]

        def load(position: Any) -> dict[str, Any]:
            values = tf.numpy_function(read, [position], [signature[name].dtype for name in spec.names])
            return {name: tf.ensure_shape(value, signature[name].shape) for name, value in zip(spec.names, values)}

        return load


def stream_order(
    count: int,
    seed: int,
    shuffle: bool,
    epochs: int | None,
    skip: int,
    anew: bool = False,
    choose: Callable[[Any], Any] | None = None,
) -> Any:
    """A `tf.data.Dataset` of (index in the stream, position among `count` records).

    Each pass is a permutation computed from (seed, pass) number by number, so nothing is kept in memory and a skip costs
    nothing however far it goes. With `anew`, each iteration begins with a pass drawn at random. `choose` is that of `Source.stream`.
    """
    import tensorflow as tf

    end = _INT64_MAX if epochs is None else epochs * count

    def position(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if choose is not None:
            return index, choose(index)
        if not shuffle:
            return index, index % count
        key = tf.stack([tf.constant(derive_seed(seed, "stream"), tf.int64), index // count])
        return index, tf.random.experimental.index_shuffle(index % count, key, tf.constant(count - 1, tf.int64))

    if not anew:
        return tf.data.Dataset.range(skip, end).map(position)
    if epochs is None:
        raise ValueError("anew: an endless stream is never begun again")

    def begun_at(drawn: tf.Tensor) -> tf.data.Dataset:
        first = (drawn % 2**31) * count
        return tf.data.Dataset.range(first + skip, first + end)

    starts = tf.data.Dataset.random(seed=derive_seed(seed, "passes"), rerandomize_each_iteration=True).take(1)
    return starts.flat_map(begun_at).map(position)


def fingerprint_of(digests: dict[str, str]) -> str:
    """sha256 over `{id: digest}`, whatever its order."""
    total = hashlib.sha256()
    for identity in sorted(digests):
        total.update(f"{identity}\0{digests[identity]}\n".encode())
    return total.hexdigest()


def assign_splits(keys: Sequence[RecordKey], fractions: Sequence[float], seed: int) -> dict[str, str]:
    """The split of each patient.

    Patients whose records name a split have that one. The others are put in an order that depends on (seed, patient id) alone
    and dealt out in shares as near to `fractions` (train, val, test) as whole patients allow, by largest remainder. A split
    with a share above 0 gets at least one patient as long as there are enough for all such splits.

    Raises:
        DataError: a patient is in two splits, a record names an unknown split, or the fractions are not shares of 1.
    """
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"split fractions {tuple(fractions)}: expected three shares, train, val, test, that sum to 1")
    named: dict[str, set[str]] = defaultdict(set)
    for key in keys:
        if key.split is not None and key.split not in SPLITS:
            raise DataError(f"record '{key.id}': unknown split '{key.split}'" + suggestion(key.split, SPLITS))
        named[key.patient_id].update({key.split} if key.split else ())
    for patient, splits in named.items():
        if len(splits) > 1:
            raise DataError(f"patient '{patient}' is in two splits: {', '.join(sorted(splits))}")
    assigned = {patient: next(iter(splits)) for patient, splits in named.items() if splits}
    free = sorted((p for p, splits in named.items() if not splits), key=lambda p: (derive_seed(seed, "split", p), p))
    start = 0
    for split, count in zip(SPLITS, _shares(len(free), fractions)):
        assigned.update(dict.fromkeys(free[start : start + count], split))
        start += count
    return assigned


def _shares(total: int, fractions: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `total`, nearest to the fractions; none is 0 where its fraction is not, if it can be."""
    exact = [total * fraction for fraction in fractions]
    counts = [int(share + 1e-9) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    wanted = [i for i, fraction in enumerate(fractions) if fraction > 0]
    for i in wanted:
        if counts[i] == 0 and total >= len(wanted):
            counts[max(range(len(counts)), key=lambda j: counts[j])] -= 1
            counts[i] = 1
    return counts
