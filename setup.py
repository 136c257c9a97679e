"""Packaging of medsynth_tf: three importable packages and the `medsynth` command.

The version bounds follow the platform the project verifies together (see README, "Platform"); `requirements.lock` pins all
of them exactly for Python 3.10 on Linux.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "([^"]+)"', (HERE / "medsynth_tf" / "version.py").read_text(), re.M).group(1)

CORE = [
    "tensorflow>=2.15.1,<2.16",
    "keras>=2.15.0,<2.16",
    "tensorflow-probability>=0.23,<0.24",
    "tensorflow-addons>=0.23,<0.24",
    "tensorflow-gan>=2.1,<2.2",
    "setuptools<80",  # tensorflow-gan imports pkg_resources, which setuptools 80 dropped
    "numpy<2",
    "scipy",
    "scikit-image",
    "scikit-learn",
    "matplotlib",
    "pillow",
    "pycocotools",  # average precision by COCO's own code
    "nibabel",
    "pydicom>=3",
    "pylibjpeg",  # decodes JPEG lossless and JPEG 2000 DICOM
    "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg",
    "pyyaml",
    "tqdm",
]

# Beam 2.62 dropped dill, which TFX 1.15 imports. Ingest is a Beam pipeline too.
TFX = ["tfx>=1.15.1,<1.16", "apache-beam<2.62", "kfp>=2,<2.6", "pip"]
SERVING = [
    "tensorflow-serving-api>=2.15.1,<2.16",
    "grpcio-health-checking",
    "grpcio-reflection",
    "apache-beam<2.62",
]
DEV = [
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "hypothesis",
    "ruff",
    "mypy",
    "types-PyYAML",
    "types-tqdm",
    "nbclient",
    "ipykernel",
]

setup(
    name="medsynth_tf",
    version=VERSION,
    description="Published methods for synthesising, translating, extending and judging medical images, in TensorFlow",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["medsynth_tf*", "tfx_pipelines*", "serving*"]),
    package_data={"medsynth_tf": ["py.typed"], "serving": ["deploy/**/*"]},
    data_files=[
        (f"share/medsynth_tf/{folder.relative_to(HERE)}", [str(p.relative_to(HERE)) for p in sorted(folder.glob("*.yaml"))])
        for folder in sorted((HERE / "configs").glob("*"))
        if folder.is_dir()
    ],
    python_requires=">=3.10,<3.12",
    install_requires=CORE,
    extras_require={
        "tfx": TFX,
        "serving": SERVING,
        "dev": DEV,
        "gpu": ["tensorflow[and-cuda]>=2.15.1,<2.16"],
    },
    entry_points={
        "console_scripts": ["medsynth=medsynth_tf.cli.main:main", "medsynth-model-server=serving.server:main"],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.10",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
