// What the losses that compare two images pixel by pixel have in common: the squared difference q = sum_c (T_c - R_c)^2 of two colours, and
// the gradient k (T_c - R_c) with respect to T_c, and its negative with respect to R_c, that follows from a factor k per pixel.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/macros.h"

namespace focus {

constexpr int kPixelChunk = 1024;  // pixels of one image whose terms are summed together

// A batch of images cut into chunks of kPixelChunk pixels, none of which spans two images.
struct PixelChunks {
    FOCUS_HD PixelChunks(int64_t batch, int64_t image_area)
        : area(image_area), per_image((image_area + kPixelChunk - 1) / kPixelChunk), count(batch * per_image) {}
    // First pixel of a chunk in its image b = chunk / per_image, and the number of pixels of a chunk that begins there.
    FOCUS_HD int64_t begin(int64_t chunk, int64_t b) const { return (chunk - b * per_image) * kPixelChunk; }
    FOCUS_HD int64_t size(int64_t begin) const { return area - begin < kPixelChunk ? area - begin : kPixelChunk; }

    int64_t area, per_image, count;
};

// Two images of [C, area]: colour c of the pixel with this index in its plane lies at c * area + index.
template <typename T>
struct ColorPair {
    template <typename Parameters>
    FOCUS_HD ColorPair(Parameters const& p, int64_t b)
        : target(p.target.data + b * p.target.stride()),
          reconstruction(p.reconstruction.data + b * p.target.stride()),
          channels(p.target.size[1]),
          area(p.target.size[2] * p.target.size[3]) {}

    T const *target, *reconstruction;
    int64_t channels, area;
};

// Channels is 3, or 0 for a number known at run time. The same bits wherever it is computed, so a threshold on it is decided alike.
template <int Channels, typename T>
FOCUS_HD T squared_difference(ColorPair<T> const& pair, int64_t index) {
    int64_t const channels = Channels ? Channels : pair.channels;
    T sum = T(0);
    for (int64_t c = 0; c < channels; ++c) {
        T const difference = pair.target[c * pair.area + index] - pair.reconstruction[c * pair.area + index];
        sum += difference * difference;
    }
    return sum;
}

// Calls body with the Channels of the functions above as a constant.
template <typename Body>
FOCUS_HD void with_channels(int64_t channels, Body const& body) {
    if (channels == 3) {
        body(std::integral_constant<int, 3>{});
    } else {
        body(std::integral_constant<int, 0>{});
    }
}

}  // namespace focus
