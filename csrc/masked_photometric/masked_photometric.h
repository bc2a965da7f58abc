// The mean distance between the colours of two images over a mask, and the gradient.
#pragma once

#include "common/stream.h"
#include "common/tensor_view.h"

namespace focus {

template <typename T>
struct MaskedPhotometricParameters {
    TensorView<T const, 4> target;          // [B, C, H, W]
    TensorView<T const, 4> reconstruction;  // [B, C, H, W]
    TensorView<T const, 4> mask;            // [B, 1, H, W]
    TensorView<T, 1> loss;                  // [1] out
    TensorView<T, 1> sums;                  // [2] out: the loss once more, since whoever gets it may change it, and sum m
    TensorView<double, 3> partial_sums;     // [2, B, ceil(H W / kPixelChunk)] scratch
};

template <typename T>
struct MaskedPhotometricBackwardParameters {
    TensorView<T const, 4> target;          // [B, C, H, W]
    TensorView<T const, 4> reconstruction;  // [B, C, H, W]
    TensorView<T const, 4> mask;            // [B, 1, H, W]
    TensorView<T const, 1> sums;            // [2]
    TensorView<T const, 1> grad_loss;       // [1]
    TensorView<T, 4> grad_target;           // [B, C, H, W] out, optional
    TensorView<T, 4> grad_reconstruction;   // [B, C, H, W] out, optional
    TensorView<T, 4> grad_mask;             // [B, 1, H, W] out, optional
};

template <typename T>
void masked_photometric_cpu(MaskedPhotometricParameters<T> const& p, int threads);
template <typename T>
void masked_photometric_backward_cpu(MaskedPhotometricBackwardParameters<T> const& p, int threads);

#if defined(FOCUS_WITH_CUDA)
void masked_photometric_cuda(MaskedPhotometricParameters<float> const& p, Stream stream);
void masked_photometric_backward_cuda(MaskedPhotometricBackwardParameters<float> const& p, Stream stream);
#endif

}  // namespace focus
