"""Settings of rhvae. Defaults are those of the authors' released models of toy images; the paper itself gives few numbers."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from medsynth_tf.core.config import DataConfig, MethodConfig
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings, setting
from medsynth_tf.data.study_config import StudyConfig

SAMPLERS = {
    "vae": ("prior", "gmm"),
    "rhvae": ("metric_hmc", "random_walk", "wrapped_normal", "prior", "gmm"),
    "vamp": ("vamp", "gmm"),
}


@dataclasses.dataclass(frozen=True)
class NetworkConfig(Settings):
    """Encoder, decoder and metric network."""

    kind: Literal["mlp", "conv"] = setting("mlp", help="one hidden dense layer, or strided convolutions")
    hidden: int = setting(400, help="units of the hidden layer of dense networks and of the metric network", minimum=1)
    filters: tuple[int, ...] = setting((32, 64, 128, 128), help="of the convolutions, each of which halves the size", minimum=1)
    dense: int = setting(256, help="units between convolutions and latent vector", minimum=1)
    metric_pooling: int = setting(1, help="images are averaged over squares of this side for the metric network", minimum=1)
    initialiser: Literal["torch", "glorot"] = setting("torch", help="of all weights; torch: U(±1/√fan_in), biases too")


@dataclasses.dataclass(frozen=True)
class MetricConfig(Settings):
    """G⁻¹(z) = Σ_i M_i exp(-‖z - c_i‖²/T²) + λ I."""

    temperature: float = setting(1.5, help="T; 0.8 suits two latent dimensions", above=0.0)
    regularisation: float = setting(1e-3, help="λ", above=0.0)
    store: Literal["refresh", "accumulate"] = setting(
        "refresh", help="stored centroids and matrices: of one pass with the best weights, or as the training steps left them"
    )
    centroids: int = setting(
        512, help="most training images of a class that are kept as centroids; the paper keeps all", minimum=1
    )


@dataclasses.dataclass(frozen=True)
class FlowConfig(Settings):
    """The Hamiltonian flow that posterior samples go through in training."""

    steps: int = setting(3, help="K, leapfrog steps", minimum=0)
    step_size: float = setting(0.01, help="ε; 0.001 for images of 1000 pixels and more", above=0.0)
    beta_zero_sqrt: float = setting(0.3, help="√β_0 of the tempering; 1: none", above=0.0, maximum=1.0)
    fixed_point_iterations: int = setting(3, help="for each implicit equation", minimum=1)
    momentum_init: Literal["cholesky_G", "reference"] = setting(
        "cholesky_G", help="N(0, G(z_0)); 'reference': by the factor of the image's own matrix, as in the authors' code"
    )
    elbo: Literal["exact", "reference"] = setting(
        "exact",
        help="'reference' leaves out the momentum's own entropy, as the authors' code does; with 'cholesky_G' matrices then only grow",
    )
    gradient: Literal["full", "detached"] = setting(
        "full", help="'detached': none through the first leapfrog equation, as in the authors' code; cheaper"
    )


@dataclasses.dataclass(frozen=True)
class SamplingConfig(Settings):
    """How latent vectors are drawn once the model is trained."""

    sampler: Literal["metric_hmc", "random_walk", "wrapped_normal", "prior", "gmm", "vamp"] = setting(
        "metric_hmc", help="HMC on √det G⁻¹ is the paper's; prior, gmm (of encoded images) and vamp are baselines"
    )
    steps: int = setting(100, help="of the Markov chains of metric_hmc and random_walk", minimum=1)
    leapfrog_steps: int = setting(15, help="of a trajectory of metric_hmc", minimum=1)
    step_size: float = setting(0.03, help="of its leapfrog", above=0.0)
    hmc_gradient: Literal["exact", "reference"] = setting(
        "exact", help="of log √det G⁻¹; 'reference': what the authors' code has in its place"
    )
    proposal_deviation: float = setting(0.5, help="σ of velocities N(0, σ² I) of random_walk and wrapped_normal", above=0.0)
    geodesic_steps: int = setting(10, help="of the exponential map", minimum=1)
    geodesic_sign: Literal["hamilton", "reference"] = setting(
        "hamilton", help="'reference' turns the momentum's equation round, as the authors' code does"
    )
    bounds: Literal["box", "ball", "none"] = setting(
        "box", help="the compact set S: outside the centroids' box, or ball around their mean, all proposals are refused"
    )
    bounds_margin: float = setting(3.0, help="by how many T the box or ball is larger than the centroids'", minimum=0.0)
    mixture_components: int = setting(10, help="Gaussians of sampler gmm, at most one for two images", minimum=1)


@dataclasses.dataclass(frozen=True)
class VampConfig(Settings):
    """The VampPrior of model 'vamp' (Tomczak and Welling, arXiv:1705.07120)."""

    pseudo_inputs: int = setting(50, help="K, learned images whose posteriors make the prior", minimum=1)


@dataclasses.dataclass(frozen=True)
class RHVAEConfig(MethodConfig):
    """A generator for each class."""

    slug: ClassVar[str] = "rhvae"

    image_size: tuple[int, int] = setting((28, 28), help="height and width in pixels", minimum=4)
    channels: Literal[1, 3] = setting(1, help="of the images")
    classes: int = setting(10, help="labels, each of which has a model of its own; 1: one model of all images", minimum=1)
    model: Literal["rhvae", "vae", "vamp"] = setting("rhvae", help="with a learned metric; plain; with a VampPrior")
    latent_size: int = setting(10, help="D, latent dimensions", minimum=1)
    network: NetworkConfig = setting(NetworkConfig)
    metric: MetricConfig = setting(MetricConfig)
    flow: FlowConfig = setting(FlowConfig)
    vamp: VampConfig = setting(VampConfig)
    sampling: SamplingConfig = setting(SamplingConfig)
    study: StudyConfig = setting(StudyConfig)
    learning_rate: float = setting(1e-3, help="of Adam", above=0.0)
    patience: int = setting(50, help="epochs without a lower training loss after which a class's training ends", minimum=1)
    binarise: bool = setting(False, help="training images are drawn from Bernoulli(pixel) at each step")
    data: DataConfig = setting(DataConfig(flip_horizontal=False))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (*self.image_size, self.channels)

    @property
    def conditional(self) -> bool:
        """Whether there are classes to choose from."""
        return self.classes > 1

    def check(self) -> None:
        """Sizes divide, the sampler belongs to the model, nothing is asked for that has no effect."""
        if self.sampling.sampler not in SAMPLERS[self.model]:
            allowed = ", ".join(SAMPLERS[self.model])
            raise ConfigError(f"sampling.sampler = '{self.sampling.sampler}': model '{self.model}' has {allowed}")
        divisor = 2 ** len(self.network.filters)
        if self.network.kind == "conv" and any(side % divisor for side in self.image_size):
            raise ConfigError(f"image_size = {self.image_size}: must be multiples of 2^(number of network.filters) = {divisor}")
        if self.model == "rhvae" and any(side % self.network.metric_pooling for side in self.image_size):
            raise ConfigError(f"image_size = {self.image_size}: must be multiples of network.metric_pooling")
        if self.training.ema_decay is not None:
            raise ConfigError("training.ema_decay: rhvae ends with the weights of its best epoch and keeps no average of them")
