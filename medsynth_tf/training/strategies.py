"""From `training.strategy` to a `tf.distribute` strategy."""

from __future__ import annotations

import tensorflow as tf

from medsynth_tf.core.config import TrainingConfig
from medsynth_tf.core.errors import TrainingError


def make_strategy(config: TrainingConfig) -> tf.distribute.Strategy:
    """The strategy of a training configuration.

    'auto': mirrored over several GPUs, else the one device there is. 'mirrored': over all GPUs, or over all logical CPUs where there
    is no GPU. 'multi_worker': one of the processes that the environment variable TF_CONFIG lists.

    Raises:
        TrainingError: the global batch does not divide by the number of replicas.
    """
    if config.strategy == "multi_worker":  # first: it must be made before anything else touches the devices
        return _checked(tf.distribute.MultiWorkerMirroredStrategy(), config)
    gpus = tf.config.list_logical_devices("GPU")
    strategy: tf.distribute.Strategy
    if config.strategy == "mirrored" or (config.strategy == "auto" and len(gpus) > 1):
        devices = gpus or tf.config.list_logical_devices("CPU")
        cross_device = None if gpus else tf.distribute.ReductionToOneDevice()  # NCCL is for GPUs
        strategy = tf.distribute.MirroredStrategy([device.name for device in devices], cross_device)
    elif config.strategy == "cpu":
        strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    elif config.strategy == "one_device" and gpus:
        strategy = tf.distribute.OneDeviceStrategy("/gpu:0")
    else:
        strategy = tf.distribute.get_strategy()
    return _checked(strategy, config)


def _checked(strategy: tf.distribute.Strategy, config: TrainingConfig) -> tf.distribute.Strategy:
    replicas = strategy.num_replicas_in_sync
    if config.batch_size % replicas:
        raise TrainingError(
            f"training.batch_size = {config.batch_size} does not divide by the {replicas} replicas of '{config.strategy}'"
        )
    return strategy


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the run's files: the only one, or the first of several workers."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type is None:
        return True
    spec = resolver.cluster_spec().as_dict()
    return resolver.task_type == "chief" or ("chief" not in spec and resolver.task_type == "worker" and resolver.task_id == 0)
