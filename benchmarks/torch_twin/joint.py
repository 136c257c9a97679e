"""Batches of the joint photograph-and-mask methods: uint8 photograph and label map to float channels in [-1, 1]."""

import torch


def batch(config):
    count, size = config["training"]["batch_size"], config["image_size"]
    image = torch.randint(0, 256, [count, size, size, 3], dtype=torch.uint8)
    return image, torch.randint(0, 2, [count, size, size], dtype=torch.uint8)


def joined(image, label_map, channels):
    parts = [image.permute(0, 3, 1, 2).float() / 127.5 - 1]
    parts += [(label_map == code).float().unsqueeze(1) * 2 - 1 for code in range(1, channels - 2)]
    return torch.cat(parts, 1)
