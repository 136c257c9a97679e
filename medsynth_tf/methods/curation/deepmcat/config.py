"""Settings of deepmcat. Defaults are the paper's, else DeepCluster's, which it builds on; [D] where both are silent."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings, setting


@dataclasses.dataclass(frozen=True)
class InputConfig(Settings):
    """From a record's image to what the network sees."""

    channels: Literal[1, 3] = setting(1, help="grey images are repeated, or coloured ones made grey")
    loaded_size: int = setting(256, help="middle squares of images are resized to it; views are cut from these", minimum=8)
    size: int = setting(224, help="side of views", minimum=8)
    filter: Literal["raw", "sobel"] = setting(
        "raw", help="raw images, or DeepCluster's two Sobel derivatives of the grey image"
    )
    normalisation: Literal["per_image", "global"] = setting(
        "per_image", help="z-scores of each view on its own, or by mean and deviation of all training images"
    )


@dataclasses.dataclass(frozen=True)
class AugmentationConfig(Settings):
    """Random views; mirroring stands in `data`."""

    rotation: float = setting(30.0, help="largest angle either way, degrees [D]", minimum=0.0, maximum=180.0)
    area: tuple[float, float] = setting(
        (0.3, 1.0),
        help="share of the image that a crop keeps; DeepCluster's 0.08 can lose the heart [D]",
        above=0.0,
        maximum=1.0,
    )
    aspect: tuple[float, float] = setting((0.75, 4.0 / 3.0), help="width over height of crops, log-uniform", above=0.0)

    def check(self) -> None:
        """Ranges are in order."""
        for name in ("area", "aspect"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"augmentation.{name} = {[low, high]}: the first must not be above the second")


@dataclasses.dataclass(frozen=True)
class NetworkConfig(Settings):
    """The network; by default VGG-16 with batch norm."""

    stages: tuple[tuple[int, ...], ...] = setting(
        ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
        help="channels of convolutions; each group ends in a max-pooling",
        minimum=1,
    )
    pool_size: int = setting(7, help="bins along a side of the adaptive pooling; 1 or 2 for small images", minimum=1)
    hidden: tuple[int, ...] = setting((4096, 4096), help="units of dense layers; the last one's are clustered", minimum=1)
    dense_deviation: float | None = setting(
        0.01,
        help="of hidden dense kernels at the start; null: √(2 / inputs), which small layers need and 4096 inputs come near to [D]",
        above=0.0,
    )
    dropout: float = setting(0.5, help="before the last dense layer", minimum=0.0, below=1.0)


@dataclasses.dataclass(frozen=True)
class ClusteringConfig(Settings):
    """How features become clusters, and clusters a training set."""

    clusters: int = setting(104, help="k; the paper takes 8 for each class that is expected", minimum=2)
    clusterer: Literal["kmeans", "minibatch_kmeans"] = setting("kmeans", help="Lloyd's, or scikit-learn's on mini-batches")
    iterations: int = setting(20, help="of k-means; passes at most of the mini-batch one", minimum=1)
    feature_reduction: Literal["none", "pca"] = setting("none", help="none, or DeepCluster's whitened principal components")
    components: int = setting(256, help="of feature_reduction 'pca'", minimum=1)
    augment: bool = setting(True, help="cluster random views, as the paper does, or the middle of each image")
    sampler: Literal["uniform", "natural"] = setting(
        "uniform", help="train on as many images of each cluster, or on each image once"
    )
    reassign_every: int = setting(1, help="epochs between clusterings", minimum=1)


@dataclasses.dataclass(frozen=True)
class OptimiserConfig(Settings):
    """Stochastic gradient descent at a constant rate; the top layer's is without momentum."""

    learning_rate: float = setting(0.05, above=0.0)
    momentum: float = setting(0.9, help="of all but the top layer", minimum=0.0, below=1.0)
    weight_decay: float = setting(1e-5, help="wd · w is added to each gradient", minimum=0.0)


@dataclasses.dataclass(frozen=True)
class DeepMCATConfig(MethodConfig):
    """All settings. One of `training.epochs` is a pass over as many images as there are."""

    slug: ClassVar[str] = "deepmcat"

    input: InputConfig = setting(InputConfig)
    augmentation: AugmentationConfig = setting(AugmentationConfig)
    network: NetworkConfig = setting(NetworkConfig)
    clustering: ClusteringConfig = setting(ClusteringConfig)
    optimiser: OptimiserConfig = setting(OptimiserConfig)

    def check(self) -> None:
        """Sizes fit; centroids are those of the weights that are served."""
        if self.input.size > self.input.loaded_size:
            raise ConfigError(f"input.size = {self.input.size}: must be at most input.loaded_size = {self.input.loaded_size}")
        if self.input.size < 2 ** len(self.network.stages):
            raise ConfigError(
                f"input.size = {self.input.size}: too small for {len(self.network.stages)} poolings of network.stages"
            )
        if not self.network.stages or not all(self.network.stages) or not self.network.hidden:
            raise ConfigError("network.stages and network.hidden: each needs a layer at least")
        if self.clustering.feature_reduction == "pca" and self.clustering.components > self.network.hidden[-1]:
            raise ConfigError(
                f"clustering.components = {self.clustering.components}: features have {self.network.hidden[-1]} dimensions"
            )
        if self.training.ema_decay is not None:
            raise ConfigError("training.ema_decay: centroids belong to the weights they were found with; leave it null")

    @property
    def rounds(self) -> int:
        """Clusterings that are trained on."""
        return -(-self.training.epochs // self.clustering.reassign_every)

    def epochs_of_round(self, number: int) -> int:
        """Epochs until the next clustering."""
        return min(self.clustering.reassign_every, self.training.epochs - number * self.clustering.reassign_every)

    @property
    def planes(self) -> int:
        """Channels of what the network sees."""
        return 2 if self.input.filter == "sobel" else self.input.channels

    @property
    def feature_size(self) -> int:
        """Dimensions that are clustered."""
        reduced = self.clustering.feature_reduction == "pca"
        return self.clustering.components if reduced else self.network.hidden[-1]
