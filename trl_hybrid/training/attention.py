"""Which of torch's attention kernels training uses."""


def turn_off_cudnn_attention() -> None:
    """Keep cuDNN's attention out of this process; torch takes its flash and memory-efficient kernels instead.

    On Hopper and Blackwell torch prefers cuDNN's. Its backward gives NaN on Hopper where a row's length leaves 64 when
    divided by 128, there is a mask and the logits are strongly negative (trl#7181, pytorch#196678), and it builds a
    plan for each new shape, which costs up to half a second each while answers of all lengths are generated.

    Say it before training: `torch.backends.cuda.enable_cudnn_sdp(False)` is all that it does.
    """
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


def prefers_cudnn_attention(index: int = 0) -> bool:
    """Return whether torch would take cuDNN's attention on a GPU now.

    Args:
        index: Of the GPU.
    """
    import torch

    return (
        torch.backends.cuda.cudnn_sdp_enabled()
        and torch.backends.cudnn.is_available()
        and torch.cuda.get_device_capability(index)[0] in (9, 10)  # where torch's order of kernels puts it first
    )
