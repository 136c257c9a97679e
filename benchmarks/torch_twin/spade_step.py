"""The train step of semantic_retina in PyTorch, layer for layer, for benchmarks/methods.py. Runs in .bench-venv, not in the project."""

import itertools

import torch
from protocol import Average, serve
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


class SPADE(nn.Module):
    def __init__(self, features, planes, hidden, norm):
        super().__init__()
        self.norm = nn.BatchNorm2d(features, affine=False) if norm == "batch" else nn.InstanceNorm2d(features, affine=False)
        self.shared = nn.Conv2d(planes, hidden, 3, padding=1)
        self.gamma_beta = nn.Conv2d(hidden, 2 * features, 3, padding=1)

    def forward(self, x, label):
        gamma, beta = self.gamma_beta(F.relu(self.shared(label))).chunk(2, 1)
        return self.norm(x) * (1 + gamma) + beta


class Block(nn.Module):
    def __init__(self, features, filters, planes, hidden, norm):
        super().__init__()
        middle = min(features, filters)
        self.spade_0, self.conv_0 = (
            SPADE(features, planes, hidden, norm),
            spectral_norm(nn.Conv2d(features, middle, 3, padding=1)),
        )
        self.spade_1, self.conv_1 = SPADE(middle, planes, hidden, norm), spectral_norm(nn.Conv2d(middle, filters, 3, padding=1))
        self.learned = features != filters
        if self.learned:
            self.spade_s = SPADE(features, planes, hidden, norm)
            self.conv_s = spectral_norm(nn.Conv2d(features, filters, 1, bias=False))

    def forward(self, x, label):
        shortcut = self.conv_s(self.spade_s(x, label)) if self.learned else x
        y = self.conv_0(F.leaky_relu(self.spade_0(x, label), 0.2))
        return shortcut + self.conv_1(F.leaky_relu(self.spade_1(y, label), 0.2))


class Generator(nn.Module):
    def __init__(self, size, filters, hidden, norm, style, planes, plan):
        super().__init__()
        doublings = sum(doubled for _, doubled in plan)
        self.side, self.width = size // 2**doublings, 16 * filters
        self.entry = nn.Linear(style, self.side**2 * self.width) if style else nn.Conv2d(planes, self.width, 3, padding=1)
        self.style, self.plan = style, plan
        widths = [self.width, *(width for width, _ in plan)]
        self.blocks = nn.ModuleList(Block(a, b, planes, hidden, norm) for a, b in itertools.pairwise(widths))
        self.to_image = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, label, style):
        factor = label.shape[-1] // self.side
        planes = label[:, :, ::factor, ::factor]
        x = self.entry(style).view(-1, self.width, self.side, self.side) if self.style else self.entry(planes)
        for block, (_, doubled) in zip(self.blocks, self.plan):
            if doubled:
                x, factor = F.interpolate(x, scale_factor=2, mode="nearest"), factor // 2
                planes = label[:, :, ::factor, ::factor]
            x = block(x, planes)
        return torch.tanh(self.to_image(F.leaky_relu(x, 0.2)))


class Patch(nn.Module):
    def __init__(self, channels, filters, layers):
        super().__init__()
        self.layers = nn.ModuleList()
        for index in range(layers):
            width, stride = filters * min(2**index, 8), 2 if index < layers - 1 else 1
            if index == 0:
                self.layers.append(nn.Sequential(nn.Conv2d(channels, width, 4, stride, 2), nn.LeakyReLU(0.2)))
            else:
                convolution = spectral_norm(nn.Conv2d(channels, width, 4, stride, 2, bias=False))
                self.layers.append(nn.Sequential(convolution, nn.InstanceNorm2d(width), nn.LeakyReLU(0.2)))
            channels = width
        self.layers.append(nn.Conv2d(channels, 1, 4, 1, 2))

    def forward(self, x):
        outputs = []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        return outputs


class Encoder(nn.Module):
    def __init__(self, style, filters, size):
        super().__init__()
        layers, channels = [], 3
        for multiple in (1, 2, 4, 8, 8, 8):
            width = multiple * filters
            layers += [
                spectral_norm(nn.Conv2d(channels, width, 3, 2, 1, bias=False)),
                nn.InstanceNorm2d(width),
                nn.LeakyReLU(0.2),
            ]
            channels = width
        self.size, self.layers = size, nn.Sequential(*layers)
        flat = channels * (size // 64) ** 2
        self.mean, self.log_variance = nn.Linear(flat, style), nn.Linear(flat, style)

    def forward(self, x):
        if x.shape[-1] != self.size:
            x = F.interpolate(x, [self.size, self.size], mode="bilinear")
        x = self.layers(x).flatten(1)
        return self.mean(x), self.log_variance(x)


class Twin:
    def __init__(self, c):
        self.c = c
        classes = len(c["labels"]) + 1
        self.classes = classes
        style = c["style"]["size"] if c["style"]["enabled"] else 0
        g, d = c["generator"], c["discriminator"]
        plan = [tuple(item) for item in c["plan"]]
        self.generator = Generator(c["image_size"], g["filters"], g["hidden_filters"], g["norm"], style, classes, plan)
        self.encoder = Encoder(style, c["style"]["filters"], c["style"]["image_size"]) if style else None
        self.scales = nn.ModuleList(Patch(classes + 3, d["filters"], d["layers"]) for _ in range(d["scales"]))
        o = c["optimiser"]
        betas = (o["beta_1"], o["beta_2"])
        trained = [*self.generator.parameters(), *(self.encoder.parameters() if self.encoder else [])]
        self.optimizer_g = torch.optim.Adam(trained, o["generator_learning_rate"], betas)
        self.optimizer_d = torch.optim.Adam(self.scales.parameters(), o["discriminator_learning_rate"], betas)
        self.trained = trained
        self.average = Average(self.generator.parameters(), c["training"]["ema_decay"])
        self.networks = {"generator": self.generator, "discriminator": self.scales, "encoder": self.encoder}

    def step(self, image, label_map):
        losses = self.c["losses"]
        codes = torch.where(label_map == 255, self.classes - 1, label_map.long())
        planes = F.one_hot(codes, self.classes).permute(0, 3, 1, 2).float()
        real = image.permute(0, 3, 1, 2).float() / 127.5 - 1
        style, total = None, 0.0
        if self.encoder:
            mean, log_variance = self.encoder(real)
            style = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
            total = losses["kl"] * (0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)).mean()
        fake = self.generator(planes, style)
        x = torch.cat([torch.cat([planes, fake], 1), torch.cat([planes, real], 1)])
        loss_d, n = 0.0, len(fake)
        for index, scale in enumerate(self.scales):
            if index:
                x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
            outputs = scale(x)
            total = total - outputs[-1][:n].mean() / len(self.scales)
            matching = sum((f[n:].detach() - f[:n]).abs().mean() for f in outputs[:-1])
            total = total + losses["feature_matching"] * matching / len(self.scales)
            loss_d = loss_d + (F.relu(1 - outputs[-1][n:]).mean() + F.relu(1 + outputs[-1][:n]).mean()) / len(self.scales)
        total = total + losses["l1"] * (real - fake).abs().mean()
        gradients_g = torch.autograd.grad(total, self.trained, retain_graph=True)
        gradients_d = torch.autograd.grad(loss_d, list(self.scales.parameters()))
        for parameter, gradient in zip(self.trained, gradients_g):
            parameter.grad = gradient
        for parameter, gradient in zip(self.scales.parameters(), gradients_d):
            parameter.grad = gradient
        self.optimizer_g.step()
        self.optimizer_d.step()
        self.average.update()
        return float(total.detach()) + float(loss_d.detach())


def batch(config):
    count, size = config["training"]["batch_size"], config["image_size"]
    image = torch.randint(0, 256, [count, size, size, 3], dtype=torch.uint8)
    return image, torch.randint(0, len(config["labels"]), [count, size, size], dtype=torch.uint8)


if __name__ == "__main__":
    serve(Twin, batch)
