// For each pixel the distance between its colour and the nearest colour of the reconstruction in a window round it, that distance summed
// into a loss, and the gradient of both.
#pragma once

#include "common/stream.h"
#include "common/tensor_view.h"

namespace focus {

constexpr int kLargestWindow = 15;                               // 15 * 15 offsets fit the uint8 argmin
constexpr int kNeighborTileHeight = 8, kNeighborTileWidth = 32;  // pixels whose distances are summed together

template <typename T>
struct NeighborMinParameters {
    TensorView<T const, 4> target;          // [B, C, H, W]
    TensorView<T const, 4> reconstruction;  // [B, C, H, W]
    TensorView<T const, 4> mask;            // [B, 1, H, W], optional: absent stands for ones
    int window;                             // odd, side of the window in pixels
    int power;                              // 1 or 2: of the distance that is summed into the loss
    bool mean;                              // divides the loss by the number of pixels
    TensorView<uint8_t, 3> argmin;          // [B, H, W] out: (dy + window / 2) * window + dx + window / 2
    TensorView<T, 3> distance;              // [B, H, W] out, optional
    TensorView<T, 1> loss;                  // [1] out, optional
    TensorView<double, 3> partial_sums;     // [B, ceil(H / 8), ceil(W / 32)] scratch, given with the loss
};

template <typename T>
struct NeighborMinBackwardParameters {
    TensorView<T const, 4> target;          // [B, C, H, W]
    TensorView<T const, 4> reconstruction;  // [B, C, H, W]
    TensorView<T const, 4> mask;            // [B, 1, H, W], optional
    int window;
    int power;  // as in the forward pass; 1 with grad_distance
    bool mean;
    TensorView<uint8_t const, 3> argmin;   // [B, H, W]
    TensorView<T const, 3> grad_distance;  // [B, H, W]: either this
    TensorView<T const, 1> grad_loss;      // [1]: or this
    TensorView<T, 4> grad_target;          // [B, C, H, W] out, optional
    TensorView<T, 4> grad_reconstruction;  // [B, C, H, W] out, optional
    TensorView<T, 4> grad_mask;            // [B, 1, H, W] out, optional
};

template <typename T>
void neighbor_min_cpu(NeighborMinParameters<T> const& p, int threads);
template <typename T>
void neighbor_min_backward_cpu(NeighborMinBackwardParameters<T> const& p, int threads);

#if defined(FOCUS_WITH_CUDA)
void neighbor_min_cuda(NeighborMinParameters<float> const& p, Stream stream);
void neighbor_min_backward_cuda(NeighborMinBackwardParameters<float> const& p, Stream stream);
#endif

}  // namespace focus
