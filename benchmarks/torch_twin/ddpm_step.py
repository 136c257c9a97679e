"""The train step of pm_ddpm in PyTorch, layer for layer, for benchmarks/methods.py. Runs in .bench-venv, not in the project."""

import joint
import torch
from protocol import Average, serve
from torch import nn
from torch.nn import functional as F

TIME = 256


class Double(nn.Module):
    def __init__(self, width, filters, middle=None, residual=False):
        super().__init__()
        middle = middle or filters
        self.residual = residual
        self.layers = nn.Sequential(
            nn.Conv2d(width, middle, 3, padding=1, bias=False),
            nn.GroupNorm(1, middle),
            nn.GELU(),
            nn.Conv2d(middle, filters, 3, padding=1, bias=False),
            nn.GroupNorm(1, filters),
        )

    def forward(self, x):
        return F.gelu(x + self.layers(x)) if self.residual else self.layers(x)


class Attention(nn.Module):
    def __init__(self, channels, heads=4):
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(channels)
        self.into, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.feed = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels)
        )

    def forward(self, x):
        b, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        split = [p.view(b, h * w, self.heads, -1).transpose(1, 2) for p in self.into(self.norm(tokens)).chunk(3, -1)]
        mixed = F.scaled_dot_product_attention(*split).transpose(1, 2).reshape(b, h * w, c)
        tokens = self.out(mixed) + tokens
        return (self.feed(tokens) + tokens).transpose(1, 2).view(b, c, h, w)


class Block(nn.Module):
    def __init__(self, width, filters, middle=None):
        super().__init__()
        self.same, self.change = Double(width, width, residual=True), Double(width, filters, middle)
        self.encoding = nn.Linear(TIME, filters)

    def forward(self, x, encoding):
        return self.change(self.same(x)) + self.encoding(F.silu(encoding))[:, :, None, None]


class UNet(nn.Module):
    def __init__(self, channels, size, network):
        super().__init__()
        widths, bottleneck = network["widths"], network["bottleneck"]
        levels = len(widths) - 1
        self.entry = Double(channels, widths[0])
        self.down = nn.ModuleList(Block(widths[i], widths[i + 1]) for i in range(levels))
        self.middle = nn.Sequential(
            Double(widths[-1], bottleneck), Double(bottleneck, bottleneck), Double(bottleneck, widths[-1])
        )
        self.up, below, outputs, sides = (
            nn.ModuleList(),
            widths[-1],
            list(widths[1:]),
            [size // 2 ** (i + 1) for i in range(levels)],
        )
        for i in range(levels):
            total, filters = widths[levels - 1 - i] + below, widths[max(levels - 2 - i, 0)]
            self.up.append(Block(total, filters, total // 2))
            below = filters
            outputs.append(filters)
            sides.append(size // 2 ** (levels - 1 - i))
        places = [f"{way}_{i}" for way in ("down", "up") for i in range(levels)]
        wanted = places if network["attention"] is None else network["attention"]
        most = network["most_attention_side"]
        self.attention = nn.ModuleDict(
            {place: Attention(width) for place, side, width in zip(places, sides, outputs) if place in wanted and side <= most}
        )
        self.exit = nn.Conv2d(below, channels, 1)
        self.register_buffer("frequencies", 10000 ** (-2 * torch.arange(TIME // 2) / TIME))

    def attended(self, place, x):
        return self.attention[place](x) if place in self.attention else x

    def forward(self, x, t):
        angles = t.float()[:, None] * self.frequencies
        encoding = torch.cat([angles.sin(), angles.cos()], -1)
        x, skips = self.entry(x), []
        for i, block in enumerate(self.down):
            skips.append(x)
            x = self.attended(f"down_{i}", block(F.max_pool2d(x, 2), encoding))
        x = self.middle(x)
        for i, block in enumerate(self.up):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = self.attended(f"up_{i}", block(torch.cat([skips.pop(), x], 1), encoding))
        return self.exit(x)


class Twin:
    def __init__(self, c):
        self.c = c
        self.network = UNet(c["channels"], c["image_size"], c["network"])
        self.networks = {"network": self.network}
        o, s = c["optimiser"], c["schedule"]
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), o["learning_rate"], (o["beta_1"], o["beta_2"]), weight_decay=o["weight_decay"]
        )
        self.average = Average(self.network.parameters(), c["training"]["ema_decay"])
        self.alpha_bar = torch.cumprod(1 - torch.linspace(s["beta_start"], s["beta_end"], s["steps"]), 0)

    def step(self, image, label_map):
        real = joint.joined(image, label_map, self.c["channels"])
        t = torch.randint(1, len(self.alpha_bar) + 1, [len(real)])
        left = self.alpha_bar[t - 1][:, None, None, None]
        noise = torch.randn_like(real)
        velocity = self.c["network"]["predicts"] == "velocity"
        target = left.sqrt() * noise - (1 - left).sqrt() * real if velocity else noise
        loss = F.mse_loss(self.network(left.sqrt() * real + (1 - left).sqrt() * noise, t), target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.average.update()
        return float(loss.detach())


if __name__ == "__main__":
    serve(Twin, joint.batch)
