// Rows of images as the CPU kernels keep them.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "common/simd.h"
#include "neighbor_min/neighbor_min_math.h"

namespace focus {

// An integer as wide as T, so that a comparison of T selects it without conversion in vector code.
template <typename T>
using CodeOf = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;

// Before each row that is kept, and after it: more than half of the largest window. Rows begin where registers of 64 bytes do.
constexpr int64_t kMargin = 16;

// Room for a row that is worked on in whole registers.
FOCUS_HD int64_t padded(int64_t width) { return (width + 15) / 16 * 16; }

// Memory that begins at a multiple of 64 bytes.
template <typename T>
class AlignedMemory {
  public:
    explicit AlignedMemory(int64_t count, T value = T(0)) : memory_(count + 64 / sizeof(T), value) {
        auto const rest = reinterpret_cast<uintptr_t>(memory_.data()) % 64;
        begin_ = memory_.data() + (rest ? (64 - rest) / sizeof(T) : 0);
    }
    AlignedMemory(AlignedMemory const&) = delete;
    AlignedMemory& operator=(AlignedMemory const&) = delete;

    T* data() { return begin_; }

  private:
    std::vector<T> memory_;
    T* begin_;
};

// A row of an image with its ends repeated; of one without channels there are distances all the same.
template <typename Parameters>
int64_t row_room(Parameters const& p) {
    return std::max<int64_t>(1, p.target.size[1]) * (padded(p.target.size[3]) + 2 * kMargin);
}

// Calls body(c) for every channel: Channels is 3, or 0 for `channels` known at run time.
template <int Channels, typename Body>
FOCUS_HD void for_channels(int64_t channels, Body const& body) {
    if constexpr (Channels > 0) {
        unrolled<Channels>(body);
    } else {
        for (int64_t c = 0; c < channels; ++c) body(c);
    }
}

// One image, and rows of it that are kept: [C, stride], pixel x at kMargin + x.
template <typename T>
struct ImageRows : MaskedPair<T> {
    template <typename Parameters>
    FOCUS_HD ImageRows(Parameters const& p, int64_t b, T const* row_of_ones)
        : MaskedPair<T>(p, b), window(p.window), radius(window / 2), stride(padded(this->width) + 2 * kMargin), ones(row_of_ones) {}

    FOCUS_HD T const* mask_row(int64_t y) const { return this->mask ? this->mask + y * this->width : ones; }
    FOCUS_HD int64_t size() const { return this->channels * stride; }

    // Row y of `planes` times the mask. Its ends are repeated beyond it: no minimum changes by that, and a place beyond an end stands for
    // the one that it repeats. Returns whether all of it is finite.
    FOCUS_HD bool load(T const* planes, int64_t y, T* out) const {
        int64_t const width = this->width;
        T const* const mask = mask_row(y);
        CodeOf<T> odd = 0;
        for (int64_t c = 0; c < this->channels; ++c) {
            T const* const from = planes + c * this->area + y * width;
            T* const to = out + c * stride + kMargin;
#pragma GCC ivdep
            for (int64_t x = 0; x < width; ++x) {
                T const value = mask[x] * from[x], zero = value - value;
                to[x] = value;
                odd |= -CodeOf<T>(zero != zero);
            }
            for (int64_t x = 1; x <= radius; ++x) {
                to[-x] = to[0];
                to[width - 1 + x] = to[width - 1];
            }
        }
        return odd == 0;
    }

    // Asks for what is read next, while there is enough to compute: of one channel, these rows of the target and the reconstruction.
    FOCUS_HD void prefetch(int64_t c, int64_t target_y, int64_t reconstruction_y) const {
        auto const row = [&](T const* plane, int64_t y) FOCUS_INLINE {
            if (y >= this->height) return;
            constexpr int64_t kLine = 64 / sizeof(T);
            for (int64_t x = 0; x < this->width; x += kLine) __builtin_prefetch(plane + y * this->width + x, 0, 2);
        };
        if (c == 0 && this->mask) row(this->mask, reconstruction_y);
        if (c >= this->channels) return;
        row(this->target + c * this->area, target_y);
        row(this->reconstruction + c * this->area, reconstruction_y);
    }

    int64_t window, radius, stride;
    T const* ones;
};

}  // namespace focus
