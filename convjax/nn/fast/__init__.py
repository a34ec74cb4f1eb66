"""How a CPU computes a stack of convolutions quickly: Winograd's filtering as matrix products, strided windows.

The results are those of `nn.conv` up to float32 rounding. A reader may skip this package.
"""
