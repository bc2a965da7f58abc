// The backward pass, on the CPU, of the losses that compare two images pixel by pixel.
#pragma once

#include <algorithm>

#include "common/color_difference.h"
#include "common/parallel.h"
#include "common/simd.h"

namespace focus {

// Time that a pass over two images takes one thread, roughly, for each of its colours.
constexpr double kNanosecondsForward = 0.2, kNanosecondsBackward = 0.4;

// Pixels whose gradients are worked on before those of the next ones: seven planes are read and seven written, and the processor sees best
// what comes next where all of them advance together. (Of 32 to 1024 the fastest for images that no cache holds.)
constexpr int kGradientPixels = 128;

// Writes the gradients of the pixels [begin, begin + count) of an image; either image of gradients may be null.
template <typename T>
FOCUS_HD void store_color_gradients(ColorPair<T> const& pair, int64_t begin, int64_t count, T const* factors, T* grad_target,
                                    T* grad_reconstruction) {
    for (int64_t c = 0; c < pair.channels; ++c) {
        int64_t const first = c * pair.area + begin;
        T const *const target = pair.target + first, *const reconstruction = pair.reconstruction + first;
        if (grad_target && grad_reconstruction) {  // in one loop: both are seldom in the cache
            T *const to_target = grad_target + first, *const to_reconstruction = grad_reconstruction + first;
            for (int64_t i = 0; i < count; ++i) {
                to_target[i] = factors[i] * (target[i] - reconstruction[i]);
                to_reconstruction[i] = factors[i] * (reconstruction[i] - target[i]);
            }
            continue;
        }
        for (int64_t i = 0; grad_target && i < count; ++i) grad_target[first + i] = factors[i] * (target[i] - reconstruction[i]);
        for (int64_t i = 0; grad_reconstruction && i < count; ++i) {
            grad_reconstruction[first + i] = factors[i] * (reconstruction[i] - target[i]);
        }
    }
}

// All gradients of a loss: factor(mask, q) is k of color_difference.h, mask_gradient(mask, q) the gradient of the mask.
template <typename T, typename Parameters, typename Factor, typename MaskGradient>
void color_gradients_cpu(Parameters const& p, int threads, Factor const& factor, MaskGradient const& mask_gradient) {
    PixelChunks const chunks(p.mask.size[0], p.mask.stride());
    parallel_for(chunks.count, worthwhile_threads(threads, kNanosecondsBackward * p.target.count()), [&](int64_t chunk) {
        int64_t const b = chunk / chunks.per_image, chunk_begin = chunks.begin(chunk, b),
                      chunk_end = chunk_begin + chunks.size(chunk_begin);
        T factors[kGradientPixels], unused[kGradientPixels];
        vectorized([&]() FOCUS_INLINE {
            ColorPair<T> const pair(p, b);
            int64_t const plane = b * chunks.area, image = plane * pair.channels;
            for (int64_t begin = chunk_begin; begin < chunk_end; begin += kGradientPixels) {
                int64_t const count = std::min<int64_t>(kGradientPixels, chunk_end - begin);
                T const* const mask = p.mask.data + plane + begin;
                T* const grad_mask = p.grad_mask ? p.grad_mask.data + plane + begin : unused;
                with_channels(pair.channels, [&](auto channels) FOCUS_INLINE {
#pragma GCC ivdep
                    for (int64_t i = 0; i < count; ++i) {
                        T const squared = squared_difference<channels>(pair, begin + i);
                        factors[i] = factor(mask[i], squared);
                        grad_mask[i] = mask_gradient(mask[i], squared);
                    }
                });
                store_color_gradients(pair, begin, count, factors, p.grad_target ? p.grad_target.data + image : nullptr,
                                      p.grad_reconstruction ? p.grad_reconstruction.data + image : nullptr);
            }
        });
    });
}

}  // namespace focus
