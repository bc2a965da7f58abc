// The negative log-likelihood of the pixels that a Gaussian about the reconstruction explains, the mask of those pixels, and the gradient.
#pragma once

#include "common/stream.h"
#include "common/tensor_view.h"

namespace focus {

template <typename T>
struct OutlierRobustParameters {
    TensorView<T const, 4> target;          // [B, C, H, W]
    TensorView<T const, 4> reconstruction;  // [B, C, H, W]
    TensorView<T const, 4> mask;            // [B, 1, H, W]
    double sigma;                           // > 0, standard deviation of each colour
    double cutoff;                          // > 0, in sigma: beyond it a pixel is an outlier
    TensorView<T, 1> loss;                  // [1] out
    TensorView<T, 4> inlier;                // [B, 1, H, W] out: the mask, 0 at outliers
    TensorView<double, 2> partial_sums;     // [B, ceil(H W / kPixelChunk)] scratch
};

template <typename T>
struct OutlierRobustBackwardParameters {
    TensorView<T const, 4> target;          // [B, C, H, W]
    TensorView<T const, 4> reconstruction;  // [B, C, H, W]
    TensorView<T const, 4> mask;            // [B, 1, H, W]
    double sigma;
    double cutoff;
    TensorView<T const, 1> grad_loss;      // [1]
    TensorView<T, 4> grad_target;          // [B, C, H, W] out, optional
    TensorView<T, 4> grad_reconstruction;  // [B, C, H, W] out, optional
    TensorView<T, 4> grad_mask;            // [B, 1, H, W] out, optional
};

template <typename T>
void outlier_robust_cpu(OutlierRobustParameters<T> const& p, int threads);
template <typename T>
void outlier_robust_backward_cpu(OutlierRobustBackwardParameters<T> const& p, int threads);

#if defined(FOCUS_WITH_CUDA)
void outlier_robust_cuda(OutlierRobustParameters<float> const& p, Stream stream);
void outlier_robust_backward_cuda(OutlierRobustBackwardParameters<float> const& p, Stream stream);
#endif

}  // namespace focus
