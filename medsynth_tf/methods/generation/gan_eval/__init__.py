"""The four GANs that "Evaluating GANs in Medical Imaging" compares, and the comparison (Tronchin et al., DGM4MICCAI at MICCAI 2021)."""
