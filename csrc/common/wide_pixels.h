// The pixels of one plane that a thread of a CUDA kernel works on together: four that follow one another, 16 bytes, the most that one
// instruction moves. Where the addresses do not allow that (kWide = false) they are moved one by one: the same pixels for the same
// thread, so that sums over them have the same bits wherever the tensors lie.
#pragma once

#include <cstdint>

#include "common/color_difference.h"
#include "common/launch.h"

namespace focus {

constexpr int kTogether = 4;
static_assert(kPixelChunk % kTogether == 0);

// `count` of them are in the image: kTogether, and fewer only at its end, where kWide is false. The others are 0.
struct Pixels {
    float values[kTogether];

    FOCUS_HD float& operator[](int i) { return values[i]; }
    FOCUS_HD float operator[](int i) const { return values[i]; }
};

template <bool kWide>
__device__ Pixels load_pixels(float const* from, int count) {
    if constexpr (kWide) {
        float4 const four = *reinterpret_cast<float4 const*>(from);
        return {{four.x, four.y, four.z, four.w}};
    } else {
        Pixels pixels = {};
        for (int i = 0; i < kTogether; ++i) {
            if (i < count) pixels[i] = from[i];
        }
        return pixels;
    }
}

// What is written is not read again by the same kernel, hence __stcs; and nvcc takes a plain store of a float4 apart, where it knows the
// four numbers singly.
template <bool kWide>
__device__ void store_pixels(float* to, Pixels const& pixels, int count) {
    if constexpr (kWide) {
        __stcs(reinterpret_cast<float4*>(to), make_float4(pixels[0], pixels[1], pixels[2], pixels[3]));
    } else {
        for (int i = 0; i < kTogether; ++i) {
            if (i < count) to[i] = pixels[i];
        }
    }
}

// The colours of a thread's pixels. With three channels each is read once; with another number of them (Channels = 0) when it is needed.
template <int Channels, bool kWide>
class ColorPixels {
  public:
    __device__ ColorPixels(ColorPair<float> const& pair, int64_t index, int count) : pair_(pair), index_(index), count_(count) {
        for (int c = 0; c < Channels; ++c) {
            target_[c] = load_pixels<kWide>(pair.target + c * pair.area + index, count);
            reconstruction_[c] = load_pixels<kWide>(pair.reconstruction + c * pair.area + index, count);
        }
    }

    // squared_difference of each.
    __device__ Pixels squared_differences() const {
        Pixels sum = {};
        for_channels([&](int64_t, Pixels const& target, Pixels const& reconstruction) {
            for (int i = 0; i < kTogether; ++i) {
                float const difference = target[i] - reconstruction[i];
                sum[i] += difference * difference;
            }
        });
        return sum;
    }

    // factor * (T - R) and its negative, as store_color_gradients writes them, into images that may be null.
    __device__ void store_gradients(Pixels const& factors, float* grad_target, float* grad_reconstruction) const {
        for_channels([&](int64_t c, Pixels const& target, Pixels const& reconstruction) {
            int64_t const first = c * pair_.area + index_;
            Pixels grad;
            for (int i = 0; i < kTogether; ++i) grad[i] = factors[i] * (target[i] - reconstruction[i]);
            if (grad_target) store_pixels<kWide>(grad_target + first, grad, count_);
            for (int i = 0; i < kTogether; ++i) grad[i] = factors[i] * (reconstruction[i] - target[i]);
            if (grad_reconstruction) store_pixels<kWide>(grad_reconstruction + first, grad, count_);
        });
    }

  private:
    template <typename Body>
    __device__ void for_channels(Body const& body) const {
        if constexpr (Channels > 0) {
            for (int c = 0; c < Channels; ++c) body(c, target_[c], reconstruction_[c]);
        } else {
            for (int64_t c = 0; c < pair_.channels; ++c) {
                int64_t const first = c * pair_.area + index_;
                body(c, load_pixels<kWide>(pair_.target + first, count_), load_pixels<kWide>(pair_.reconstruction + first, count_));
            }
        }
    }

    ColorPair<float> const& pair_;
    int64_t index_;
    int count_;
    Pixels target_[Channels > 0 ? Channels : 1], reconstruction_[Channels > 0 ? Channels : 1];
};

// Calls body(index, count) for the pixels of a chunk, kTogether at a time, with the threads of the block.
template <typename Body>
__device__ void for_pixels_of_chunk(int64_t begin, int64_t size, Body const& body) {
    for (int64_t i = begin + kTogether * threadIdx.x; i < begin + size; i += kTogether * blockDim.x) {
        int64_t const left = begin + size - i;
        body(i, static_cast<int>(left < kTogether ? left : kTogether));
    }
}

// Whether pixels can be moved by one instruction, in planes of `area` pixels that follow one another from these addresses on.
template <typename... Views>
bool fit_wide_pixels(int64_t area, Views const&... views) {
    return area % kTogether == 0 && ((reinterpret_cast<uintptr_t>(views.data) % sizeof(float4) == 0) && ...);
}

// Calls body with the Channels and the kWide of the functions above as constants.
template <typename Body>
void with_pixels(int64_t channels, bool wide, Body const& body) {
    using std::bool_constant, std::integral_constant;
    if (channels != 3) return body(integral_constant<int, 0>{}, bool_constant<false>{});
    if (wide) return body(integral_constant<int, 3>{}, bool_constant<true>{});
    body(integral_constant<int, 3>{}, bool_constant<false>{});
}

}  // namespace focus
