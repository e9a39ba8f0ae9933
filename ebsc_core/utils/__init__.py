"""Provide helpers that do not depend on clustering: errors, files, devices, distributed training."""
