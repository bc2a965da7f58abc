// The window of 3x3 on images of three colours, in registers of whatever size: the same bits as the loops for any window and any number of
// colours in neighbor_min_cpu.cpp, from fewer instructions. All neighbours of a pixel are compared while its colours are in registers; and
// a pixel gathers the forces that end there, by nine comparisons of codes, where the other loops have each force look for its end.
#pragma once

#include <limits>

#include "neighbor_min/neighbor_min_rows.h"

namespace focus {

// Whether rows are long enough for registers of this size. The last one of a row begins where it ends with the row: what it has in common
// with the one before is computed twice.
template <typename T, int Bytes>
constexpr bool fits_3x3(int64_t width) {
    return width >= RegisterOf<T, Bytes>::kCount;
}

template <typename T, int Bytes, typename Body>
FOCUS_HD void for_registers(int64_t width, Body const& body) {
    constexpr int64_t kCount = RegisterOf<T, Bytes>::kCount;
    int64_t x = 0;
    for (; x + kCount <= width; x += kCount) body(x);
    if (x < width) body(width - kCount);
}

// Of one register of three colours: 0, or NaN where one of them is not finite (or their sum, at the cost of a detour).
template <typename V>
FOCUS_HD V zero_or_nan(V const (&colors)[3]) {
    V const sum = colors[0] + colors[1] + colors[2];
    return sum - sum;
}

template <typename T, int Bytes>
FOCUS_HD bool has_nan(Register<T, Bytes> values) {
    T sum = T(0);
    for (int i = 0; i < RegisterOf<T, Bytes>::kCount; ++i) sum += values[i];
    return sum != sum;
}

// Asks for the next row where a register of this one is read, or written: see QuadRows::prefetch_next_row.
template <int Bytes, bool ForWriting, typename T>
FOCUS_HD void prefetch_below(T const* row, int64_t x, int64_t width) {
    if (x * int64_t(sizeof(T)) % 64 == 0) __builtin_prefetch(row + x + width, ForWriting, 2);
}

// Row y of the reconstruction times the mask, as ImageRows::load has it.
template <int Bytes, typename T>
FOCUS_HD bool load_3x3(ImageRows<T> const& image, int64_t y, T* out) {
    int64_t const width = image.width;
    T const *const mask = image.mask_row(y), *const from = image.reconstruction + y * width;
    Register<T, Bytes> odd = {};
    for_registers<T, Bytes>(width, [&](int64_t x) FOCUS_INLINE {
        Register<T, Bytes> const masks = load_register<Bytes>(mask + x);
        Register<T, Bytes> colors[3];
        unrolled<3>([&](auto c) FOCUS_INLINE {
            prefetch_below<Bytes, false>(from + c * image.area, x, width);
            colors[c] = masks * load_register<Bytes>(from + c * image.area + x);
            store_register<Bytes>(out + c * image.stride + kMargin + x, colors[c]);
        });
        odd += zero_or_nan(colors);
    });
    for (int64_t c = 0; c < 3; ++c) {
        T* const row = out + c * image.stride + kMargin;
        row[-1] = row[0];
        row[width] = row[width - 1];
    }
    return !has_nan<T, Bytes>(odd);
}

// Compares the pixels of row y with their nine neighbours; `rows` are those above, of and below it, the first and the last of the image
// repeated beyond it. False where a colour of the target is not finite: the result is of no use then.
template <int Bytes, typename T>
FOCUS_HD bool compare_3x3(ImageRows<T> const& image, int64_t y, T const* const (&rows)[3], T* nearest, CodeOf<T>* codes) {
    using Values = Register<T, Bytes>;
    using Codes = Register<CodeOf<T>, Bytes>;
    int64_t const width = image.width, stride = image.stride;
    T const *const mask = image.mask_row(y), *const target = image.target + y * width;
    Values odd = {};
    for_registers<T, Bytes>(width, [&](int64_t x) FOCUS_INLINE {
        Values const masks = load_register<Bytes>(mask + x);
        Values own[3];
        unrolled<3>([&](auto c) FOCUS_INLINE {
            prefetch_below<Bytes, false>(target + c * image.area, x, width);
            own[c] = masks * load_register<Bytes>(target + c * image.area + x);
        });
        odd += zero_or_nan(own);
        Values least = Values{} + std::numeric_limits<T>::infinity();
        Codes place = Codes{} + 4;  // the pixel itself, where every distance is infinite
        unrolled<3>([&](auto row) FOCUS_INLINE {
            unrolled<3>([&](auto k) FOCUS_INLINE {
                Values squared;
                unrolled<3>([&](auto c) FOCUS_INLINE {
                    Values const difference = own[c] - load_register<Bytes>(rows[row] + c * stride + kMargin - 1 + x + k);
                    squared = c == 0 ? difference * difference : squared + difference * difference;
                });
                auto const better = squared < least;
                least = better ? squared : least;
                place = better ? Codes{} + CodeOf<T>(3 * row + k) : place;
            });
        });
        store_register<Bytes>(nearest + x, least);
        store_register<Bytes>(codes + x, place);
    });
    // Places above the image stand for the row that is repeated there; those below are never the first.
    for (int64_t x = 0; y == 0 && x < width; ++x) codes[x] += codes[x] < 3 ? 3 : 0;
    return !has_nan<T, Bytes>(odd);
}

// Forces and codes of three rows, row y at y % 3, and one row of codes that name no pixel, for what lies outside of the image.
template <typename T>
struct Forces3x3 {
    explicit Forces3x3(int64_t row_stride) : stride(row_stride), forces(9 * stride), codes(4 * stride, CodeOf<T>(-1)) {}

    T* forces_of(int64_t y) { return forces.data() + y % 3 * 3 * stride; }
    CodeOf<T>* codes_of(int64_t y, int64_t height) { return codes.data() + (y < 0 || y >= height ? 3 : y % 3) * stride; }

    int64_t stride;
    AlignedMemory<T> forces;         // [3, 3, stride], pixel x at kMargin + x
    AlignedMemory<CodeOf<T>> codes;  // [4, stride], likewise; -1 at the ends
};

// Reads the codes of a row. What the forward pass never writes counts as the last place.
template <typename T>
FOCUS_HD void load_codes_3x3(uint8_t const* argmin, int64_t width, CodeOf<T>* codes) {
#pragma GCC ivdep
    for (int64_t x = 0; x < width; ++x) codes[x] = argmin[x] < 8 ? argmin[x] : 8;
}

// sum + value where the mask is set, sum elsewhere. A sum that begins at +0 is never -0, which +0 would change.
template <typename V, typename M>
FOCUS_HD V added_where(M mask, V sum, V value) {
    if constexpr (sizeof(V) == 64) {
        return mask ? sum + value : sum;
    } else {
        return sum + reinterpret_cast<V>(mask & reinterpret_cast<M>(value));
    }
}

// The forces of the pixels of row y, their part of the mask's gradient, and the target's gradient.
template <int Bytes, typename T>
FOCUS_HD void pull_3x3(ImageRows<T> const& image, int64_t y, T const* const (&rows)[3], T const* grad, int power, CodeOf<T> const* codes,
                       T* forces, T* grad_mask, T* grad_target) {
    using Values = Register<T, Bytes>;
    int64_t const width = image.width, stride = image.stride;
    T const *const mask = image.mask_row(y), *const target = image.target + y * width;
    for_registers<T, Bytes>(width, [&](int64_t x) FOCUS_INLINE {
        auto const places = load_register<Bytes>(codes + x);
        Values ends[3];
        unrolled<3>([&](auto c) FOCUS_INLINE { ends[c] = load_register<Bytes>(rows[0] + c * stride + kMargin - 1 + x); });
        unrolled<8>([&](auto before) FOCUS_INLINE {
            constexpr int kPlace = before + 1;
            auto const here = places == kPlace;
            unrolled<3>([&](auto c) FOCUS_INLINE {
                ends[c] = here ? load_register<Bytes>(rows[kPlace / 3] + c * stride + kMargin - 1 + x + kPlace % 3) : ends[c];
            });
        });
        Values const masks = load_register<Bytes>(mask + x), zero = {};
        Values colors[3], force[3], squared = zero;
        unrolled<3>([&](auto c) FOCUS_INLINE {
            prefetch_below<Bytes, false>(target + c * image.area, x, width);
            colors[c] = load_register<Bytes>(target + c * image.area + x);
            force[c] = masks * colors[c] - ends[c];
            squared += force[c] * force[c];
        });
        Values weights = T(2) * load_register<Bytes>(grad + x);  // as `pull`
        if (power == 1) weights = squared == zero ? zero : load_register<Bytes>(grad + x) / square_root_of_register<T, Bytes>(squared);
        Values mask_gradient = zero;
        unrolled<3>([&](auto c) FOCUS_INLINE {
            force[c] = weights * force[c];
            mask_gradient += colors[c] * force[c];
            store_register<Bytes>(forces + c * stride + kMargin + x, force[c]);
            if (!grad_target) return;
            prefetch_below<Bytes, true>(grad_target + c * image.area, x, width);
            store_register<Bytes>(grad_target + c * image.area + x, masks * force[c]);
        });
        store_register<Bytes>(grad_mask + x, mask_gradient);
    });
}

// The gradients of row y from the forces that end there, which are added in the order of the rows that they start from.
template <int Bytes, typename T>
FOCUS_HD void finish_3x3(ImageRows<T> const& image, int64_t y, T const* const (&forces)[3], CodeOf<T> const* const (&codes)[3],
                         T const* pulling, T* grad_reconstruction, T* grad_mask) {
    using Values = Register<T, Bytes>;
    int64_t const width = image.width, stride = image.stride;
    T const *const mask = image.mask_row(y), *const reconstruction = image.reconstruction + y * width;
    for_registers<T, Bytes>(width, [&](int64_t x) FOCUS_INLINE {
        Values sums[3] = {};
        unrolled<3>([&](auto row) FOCUS_INLINE {
            unrolled<3>([&](auto k) FOCUS_INLINE {
                auto const here = load_register<Bytes>(codes[row] + kMargin - 1 + x + k) == CodeOf<T>(8 - 3 * row - k);
                unrolled<3>([&](auto c) FOCUS_INLINE {
                    sums[c] = added_where(here, sums[c], load_register<Bytes>(forces[row] + c * stride + kMargin - 1 + x + k));
                });
            });
        });
        Values const masks = load_register<Bytes>(mask + x);
        Values mask_gradient = load_register<Bytes>(pulling + x);
        unrolled<3>([&](auto c) FOCUS_INLINE {
            mask_gradient -= load_register<Bytes>(reconstruction + c * image.area + x) * sums[c];
            if (!grad_reconstruction) return;
            prefetch_below<Bytes, true>(grad_reconstruction + c * image.area, x, width);
            store_register<Bytes>(grad_reconstruction + c * image.area + x, -masks * sums[c]);
        });
        if (grad_mask) store_register<Bytes>(grad_mask + x, mask_gradient);
    });
}

}  // namespace focus
