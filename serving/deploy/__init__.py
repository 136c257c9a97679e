"""Deployment of exported models on TensorFlow Serving's official image: compose files and Kubernetes manifests."""

from serving.deploy.render import Deployment, render

__all__ = ["Deployment", "render"]
