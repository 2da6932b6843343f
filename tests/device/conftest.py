from accelerator import device

__all__ = ["device"]
