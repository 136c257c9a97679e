"""The train step of pm_dcgan in PyTorch, layer for layer, for benchmarks/methods.py. Runs in .bench-venv, not in the project."""

import joint
import torch
from protocol import Average, serve
from torch import nn
from torch.nn import functional as F

KERNELS = {2: 4, 3: 5}


class Generator(nn.Module):
    def __init__(self, latent, channels, filters, start, strides):
        super().__init__()
        layers, steps, width = [], len(strides), latent
        for index in range(steps + 1):
            last, stride = index == steps, strides[index - 1] if index else 1
            out = channels if last else filters * 2 ** (steps - 1 - index)
            kernel, padding = (KERNELS[stride], 1) if index else (start, 0)
            layers.append(nn.ConvTranspose2d(width, out, kernel, stride, padding, bias=False))
            layers += [nn.Tanh()] if last else [nn.BatchNorm2d(out), nn.ReLU()]
            width = out
        self.layers = nn.Sequential(*layers)

    def forward(self, latent):
        return self.layers(latent[:, :, None, None])


class Discriminator(nn.Module):
    def __init__(self, channels, filters, start, strides):
        super().__init__()
        layers, width = [], channels
        for index, stride in enumerate(reversed(strides)):
            out = min(filters * 2**index, max(filters, 512))
            layers.append(nn.Conv2d(width, out, KERNELS[stride], stride, 1, bias=False))
            layers += [nn.BatchNorm2d(out)] if index else []
            layers.append(nn.LeakyReLU(0.2))
            width = out
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, start, bias=False))

    def forward(self, x):
        return self.layers(x).flatten()


class Twin:
    def __init__(self, c):
        self.c, plan = c, c["plan"]
        self.generator = Generator(c["latent_size"], c["channels"], c["generator_filters"], *plan)
        self.discriminator = Discriminator(c["channels"], c["discriminator_filters"], *plan)
        self.networks = {"generator": self.generator, "discriminator": self.discriminator}
        o = c["optimiser"]
        self.optimizer_g, self.optimizer_d = (
            torch.optim.Adam(part.parameters(), o["learning_rate"], (o["beta_1"], o["beta_2"]))
            for part in self.networks.values()
        )
        self.average = Average(self.generator.parameters(), c["training"]["ema_decay"])

    def judged(self, x):
        noise = self.c["stabilisers"]["instance_noise"]
        return self.discriminator(x + noise * torch.randn_like(x) if noise else x)

    def step(self, image, label_map):
        real = joint.joined(image, label_map, self.c["channels"])
        fake = self.generator(torch.randn(len(real), self.c["latent_size"]))
        on_real, on_fake = self.judged(real), self.judged(fake.detach())
        loss_d = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        self.optimizer_d.zero_grad()
        loss_d.backward()
        self.optimizer_d.step()
        loss_g = F.softplus(-self.judged(fake)).mean()
        parameters = list(self.generator.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss_g, parameters)):
            parameter.grad = gradient
        self.optimizer_g.step()
        self.average.update()
        return float(loss_d.detach()) + float(loss_g.detach())


if __name__ == "__main__":
    serve(Twin, joint.batch)
