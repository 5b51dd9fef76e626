"""The class that xpconv began from, the yardstick of the benchmark: its loops as they were, without its checks."""

from __future__ import annotations

import numpy as np


class Conv:
    def __init__(self, weight, bias, stride=1):
        self.weight, self.bias, self.stride = weight, bias, stride
        self.kernel_h, self.kernel_w = weight.shape[2:]
        self.dweight, self.dbias = None, None
        self.cache = {}

    def get_region(self, height, width):
        h1 = height * self.stride
        h2 = h1 + self.kernel_h
        w1 = width * self.stride
        w2 = w1 + self.kernel_w
        return h1, h2, w1, w2

    def convolve_forward_step(self, X_n):
        _, xH, xW = X_n.shape
        hZ = int((xH - self.kernel_h) / self.stride + 1)
        wZ = int((xW - self.kernel_w) / self.stride + 1)
        Z = np.zeros((len(self.weight), hZ, wZ))
        for d in range(len(Z)):
            for i in range(hZ):
                for j in range(wZ):
                    h1, h2, w1, w2 = self.get_region(i, j)
                    x_loc = X_n[:, h1:h2, w1:w2]
                    Z[d, i, j] = np.sum(x_loc * self.weight[d]) + self.bias[d]
        return Z

    def forward(self, X):
        self.cache["X"] = X
        (N, _, xH, xW), (depth, _, wH, wW) = X.shape, self.weight.shape
        Z = np.zeros((N, depth, (xH - wH) // self.stride + 1, (xW - wW) // self.stride + 1))
        for n in range(len(Z)):
            Z[n, :, :, :] = self.convolve_forward_step(X[n])
        return Z

    def backward(self, dZ):
        dX = np.zeros(self.cache["X"].shape)
        self.dweight, self.dbias = np.zeros(self.weight.shape), np.zeros(self.bias.shape)
        (N, depth, height, width) = dZ.shape
        for n in range(N):
            for h in range(height):
                for w in range(width):
                    for d in range(depth):
                        h1, h2, w1, w2 = self.get_region(h, w)
                        dX[n, :, h1:h2, w1:w2] += self.weight[d, :, :, :] * dZ[n, d, h, w]
                        self.dweight[d, :, :, :] += self.cache["X"][n, :, h1:h2, w1:w2] * dZ[n, d, h, w]
                        self.dbias[d] += dZ[n, d, h, w]
        return dX
