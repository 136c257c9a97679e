"""The table of methods. Only names stand here; a method's modules are imported when it is asked for."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medsynth_tf.core.config import MethodConfig, read_yaml
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.names import look_up


@dataclasses.dataclass(frozen=True)
class MethodInfo:
    """What can be said of a method without importing it."""

    slug: str
    family: str
    class_name: str
    title: str
    task: str
    modality: str
    reference: str

    @property
    def package(self) -> str:
        """The dotted name of the method's package, which holds config.py and model.py."""
        return f"medsynth_tf.methods.{self.family}.{self.slug}"

    def config_class(self) -> type[MethodConfig]:
        """The method's configuration class; importing it does not import TensorFlow."""
        return getattr(importlib.import_module(f"{self.package}.config"), f"{self.class_name}Config")

    def model_class(self) -> Any:
        """The method's Keras model class."""
        return getattr(importlib.import_module(f"{self.package}.model"), self.class_name)


_METHODS = (
    MethodInfo(
        slug="deepmcat",
        family="curation",
        class_name="DeepMCAT",
        title="DeepMCAT: Large-Scale Deep Clustering for Medical Image Categorization",
        task="categories of images",
        modality="MR",
        reference="Kart, Bai, Glocker, Rueckert: DALI at MICCAI 2021, arXiv:2110.00109",
    ),
    MethodInfo(
        slug="dr_gan",
        family="translation",
        class_name="DRGAN",
        title="DR-GAN: Conditional Generative Adversarial Network for Fine-Grained Lesion Synthesis on Diabetic Retinopathy Images",
        task="masks and grade to photograph",
        modality="fundus",
        reference="Zhou, Wang, He, Cui, Zhu, Liu, Shao: IEEE JBHI 2022, arXiv:1912.04670",
    ),
    MethodInfo(
        slug="fbpaug",
        family="augmentation",
        class_name="FBPAug",
        title="Zero-Shot Domain Adaptation in CT Segmentation by Filtered Back Projection Augmentation",
        task="CT segmentation",
        modality="CT",
        reference="Saparov, Kurmukov, Shirokikh, Belyaev: DART at MICCAI 2021, arXiv:2107.08543",
    ),
    MethodInfo(
        slug="gan_eval",
        family="generation",
        class_name="GANEval",
        title="Evaluating GANs in Medical Imaging",
        task="images of a class, compared",
        modality="CT",
        reference="Tronchin, Sicilia, Cordelli, Ramella, Soda: DGM4MICCAI workshop at MICCAI 2021",
    ),
    MethodInfo(
        slug="heatmap_landmark",
        family="landmarks",
        class_name="HeatmapLandmark",
        title="Improved Heatmap-Based Landmark Detection",
        task="landmarks in frames",
        modality="endoscopy",
        reference="Yao, Guo, Zhang, Li: DGM4MICCAI and DALI workshops at MICCAI 2021",
    ),
    MethodInfo(
        slug="multiplanar_unet",
        family="segmentation",
        class_name="MultiPlanarUNet",
        title="How Few Annotations are Needed for Segmentation Using a Multi-planar U-Net?",
        task="segmentation of volumes",
        modality="volume",
        reference="Laprade, Perslev, Sporring: DALI at MICCAI 2021; multi-planar U-Net: Perslev et al., MICCAI 2019",
    ),
    MethodInfo(
        slug="pm_dcgan",
        family="generation",
        class_name="PMDCGAN",
        title="Generating Synthetic Fundus Images and Masks of Pathological Myopia: DCGAN",
        task="photograph with masks",
        modality="fundus",
        reference="Makinde, Saeed: University of Calgary, 2024; DCGAN: Radford et al., arXiv:1511.06434",
    ),
    MethodInfo(
        slug="pm_ddpm",
        family="generation",
        class_name="PMDDPM",
        title="Generating Synthetic Fundus Images and Masks of Pathological Myopia: DDPM",
        task="photograph with masks",
        modality="fundus",
        reference="Makinde, Saeed: University of Calgary, 2024; DDPM: Ho et al., arXiv:2006.11239; DDIM: Song et al., arXiv:2010.02502",
    ),
    MethodInfo(
        slug="rhvae",
        family="generation",
        class_name="RHVAE",
        title="Data Augmentation with Variational Autoencoders and Manifold Sampling",
        task="images of a class",
        modality="any",
        reference="Chadebec, Allassonnière: DALI workshop at MICCAI 2021; RHVAE: Chadebec, Mantoux, Allassonnière, arXiv:2010.11518",
    ),
    MethodInfo(
        slug="semantic_retina",
        family="translation",
        class_name="SemanticRetina",
        title="Synthesis of Diabetic Retina Fundus Images Using Semantic Label Generation",
        task="label map to photograph",
        modality="fundus",
        reference="Son, Alansary, Rueckert, Kainz, Hou: Imperial College London, 2021; SPADE: Park et al., arXiv:1903.07291",
    ),
    MethodInfo(
        slug="simcfs",
        family="detection",
        class_name="SimCFS",
        title="Compound Figure Separation of Biomedical Images with Side Loss",
        task="panels of figures",
        modality="figures",
        reference="Yao, Qu, Liu, Deng, Tian, Xu, Jha, Bao, Zhao, Fogo, Landman, Chang, Yang, Huo: DGM4MICCAI at MICCAI 2021",
    ),
    MethodInfo(
        slug="tvps",
        family="augmentation",
        class_name="TVPS",
        title="Beyond MixUps: Task-Guided Variational Partial Synthesis for Fundus Image Analysis",
        task="augmentation for classification",
        modality="fundus",
        reference="Li, Long, Wang, Chen, Liu: Nankai University and Tianjin Eye Hospital, 2025",
    ),
    MethodInfo(
        slug="us_style",
        family="translation",
        class_name="USStyle",
        title="Ultrasound Variational Style Transfer to Generate Images Beyond the Observed Domain",
        task="content in another style",
        modality="ultrasound",
        reference="Hung, Galeotti: Carnegie Mellon University, DGM4MICCAI at MICCAI 2021",
    ),
)
METHODS: Mapping[str, MethodInfo] = {info.slug: info for info in _METHODS}


def list_methods() -> list[MethodInfo]:
    """All methods of the library, by slug."""
    return [METHODS[slug] for slug in sorted(METHODS)]


def method_info(slug: str) -> MethodInfo:
    """What is known of the method.

    Raises:
        UnknownNameError: there is no such method; the nearest is named.
    """
    return look_up(METHODS, slug, "method")


def configs_folder() -> Path:
    """Where the profiles are: `$MEDSYNTH_CONFIGS`, the checkout's `configs/`, or the installed copy of it."""
    candidates = [
        Path(__file__).resolve().parents[2] / "configs",
        Path(sys.prefix) / "share" / "medsynth_tf" / "configs",
    ]
    if "MEDSYNTH_CONFIGS" in os.environ:
        candidates.insert(0, Path(os.environ["MEDSYNTH_CONFIGS"]))
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise ConfigError(f"no folder of configurations found; looked at {', '.join(map(str, candidates))}")


def load_config(slug: str, profile: str | Path = "small", overrides: Mapping[str, Any] | None = None) -> MethodConfig:
    """A method's configuration.

    Args:
        slug: the method.
        profile: `paper`, `small`, another file name in `configs/<slug>/`, or the path of a YAML file.
        overrides: settings to replace, keys dotted: `{"training.epochs": 3}`.

    Raises:
        UnknownNameError: no such method. ConfigError: no such profile, or a setting that is not allowed.
    """
    config_class = method_info(slug).config_class()
    path = Path(profile)
    if path.suffix not in (".yaml", ".yml"):
        folder = configs_folder() / slug
        path = folder / f"{profile}.yaml"
        if not path.is_file():
            profiles = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
            raise ConfigError(f"method '{slug}' has no profile '{profile}'; profiles: {profiles}")
    return config_class.from_yaml(path, overrides)


def load_any_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> MethodConfig:
    """The configuration in a YAML file that names its own method (`method: slug`), as run folders and exports hold.

    Raises:
        ConfigError: the file names no method, or a setting is not allowed.
    """
    values = read_yaml(path)
    if "method" not in values:
        raise ConfigError(f"{path}: no 'method' entry says which method this configuration is for")
    return method_info(values["method"]).config_class().from_mapping(values, overrides, origin=str(path))
