"""List the data sets that torchvision reads, as light records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NamedSet:
    """Describe one data set of torchvision."""

    summary: str
    reference: str
    reader: str
    options: str = "SplitOptions"


TORCHVISION = {
    "mnist": NamedSet("MNIST, 70,000 handwritten digits, 28x28 grey", "LeCun et al. 1998", "read_mnist"),
    "fashion-mnist": NamedSet(
        "Fashion-MNIST, 70,000 articles of clothing, 28x28 grey",
        "arXiv:1708.07747",
        "read_fashion_mnist",
    ),
    "cifar10": NamedSet(
        "CIFAR-10, 60,000 photographs of 10 classes, 32x32", "Krizhevsky 2009", "read_cifar10"
    ),
    "cifar100": NamedSet(
        "CIFAR-100, 60,000 photographs of 100 classes, 32x32", "Krizhevsky 2009", "read_cifar100"
    ),
    "stl10": NamedSet(
        "STL-10, 13,000 labelled and 100,000 unlabelled photographs, 96x96",
        "Coates, Ng, Lee 2011",
        "read_stl10",
        "Stl10Options",
    ),
}
