// Neighbouring pixels of one plane, which a thread of a CUDA kernel reads and writes together: four are 16 bytes, the most that one
// instruction moves.
#pragma once

#include <cstdint>

#include "common/color_difference.h"
#include "common/launch.h"

namespace focus {

template <int kCount>
struct Pixels {
    float values[kCount];

    FOCUS_HD float& operator[](int i) { return values[i]; }
    FOCUS_HD float operator[](int i) const { return values[i]; }
};

template <int kCount>
__device__ Pixels<kCount> load_pixels(float const* from) {
    static_assert(kCount == 1 || kCount == 4);
    if constexpr (kCount == 1) {
        return {{*from}};
    } else {
        float4 const four = *reinterpret_cast<float4 const*>(from);
        return {{four.x, four.y, four.z, four.w}};
    }
}

template <int kCount>
__device__ void store_pixels(float* to, Pixels<kCount> const& pixels) {
    if constexpr (kCount == 1) {
        *to = pixels[0];
    } else {
        *reinterpret_cast<float4*>(to) = float4{pixels[0], pixels[1], pixels[2], pixels[3]};
    }
}

// squared_difference of the pixels from `index` on.
template <int Channels, int kCount>
__device__ Pixels<kCount> squared_differences(ColorPair<float> const& pair, int64_t index) {
    int64_t const channels = Channels ? Channels : pair.channels;
    Pixels<kCount> sum = {};
    for (int64_t c = 0; c < channels; ++c) {
        auto const target = load_pixels<kCount>(pair.target + c * pair.area + index);
        auto const reconstruction = load_pixels<kCount>(pair.reconstruction + c * pair.area + index);
        for (int i = 0; i < kCount; ++i) {
            float const difference = target[i] - reconstruction[i];
            sum[i] += difference * difference;
        }
    }
    return sum;
}

// Gradients of the pixels from `index` on, as store_color_gradients writes them.
template <int Channels, int kCount>
__device__ void store_wide_color_gradients(ColorPair<float> const& pair, int64_t index, Pixels<kCount> const& factors, float* grad_target,
                                           float* grad_reconstruction) {
    int64_t const channels = Channels ? Channels : pair.channels;
    for (int64_t c = 0; c < channels; ++c) {
        int64_t const first = c * pair.area + index;
        auto const target = load_pixels<kCount>(pair.target + first), reconstruction = load_pixels<kCount>(pair.reconstruction + first);
        Pixels<kCount> grad;
        for (int i = 0; i < kCount; ++i) grad[i] = factors[i] * (target[i] - reconstruction[i]);
        if (grad_target) store_pixels(grad_target + first, grad);
        for (int i = 0; i < kCount; ++i) grad[i] = factors[i] * (reconstruction[i] - target[i]);
        if (grad_reconstruction) store_pixels(grad_reconstruction + first, grad);
    }
}

// Whether pixels can be moved four at once in rows of `count` pixels that follow one another from these addresses on.
template <typename... Views>
bool fit_wide_pixels(int64_t count, Views const&... views) {
    return count % 4 == 0 && ((reinterpret_cast<uintptr_t>(views.data) % 16 == 0) && ...);
}

}  // namespace focus
