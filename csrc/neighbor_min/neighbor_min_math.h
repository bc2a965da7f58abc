// With e(x, x') = m(x) T(x) - m(x') R(x'):  d(x) = min over x' of |e(x, x')|, and n(x) the x' of that minimum.
//
// Let w(x) = dL/dd(x) / d(x) (for the square: 2 dL/d(d^2)), 0 where d is 0, and f(x) = w(x) e(x, n(x)), which pulls at both ends:
//     dL/dT(x)  =  m(x) f(x)
//     dL/dR(x') = -m(x') sum of f(x) over the x with n(x) = x'
//     dL/dm(x)  =  T(x) . f(x) - R(x) . sum of f(x'') over the x'' with n(x'') = x
#pragma once

#include <math.h>

#include "common/macros.h"
#include "neighbor_min/neighbor_min.h"

namespace focus {

// One image of the batch; planes of channels lie `area` apart.
template <typename T>
struct MaskedPair {
    template <typename Parameters>
    FOCUS_HD MaskedPair(Parameters const& p, int64_t b)
        : target(p.target.data + b * p.target.stride()),
          reconstruction(p.reconstruction.data + b * p.target.stride()),
          mask(p.mask ? p.mask.data + b * p.mask.stride() : nullptr),
          channels(p.target.size[1]),
          height(p.target.size[2]),
          width(p.target.size[3]),
          area(height * width) {}

    FOCUS_HD T mask_at(int64_t pixel) const { return mask ? mask[pixel] : T(1); }

    // Component c of e. It counts here that no product is contracted (CMakeLists.txt): fma(m, T, -(m * R)) leaves the rounding of m * R
    // where T equals R: a distance that should be 0, and whose gradient would point where that rounding points.
    FOCUS_HD T difference(int64_t c, int64_t pixel, int64_t there) const {
        return mask_at(pixel) * target[c * area + pixel] - mask_at(there) * reconstruction[c * area + there];
    }

    // Channels is 3, or 0 for a number known at run time.
    template <int Channels>
    FOCUS_HD T squared_distance(int64_t pixel, int64_t there) const {
        int64_t const count = Channels ? Channels : channels;
        T sum = T(0);
        for (int64_t c = 0; c < count; ++c) {
            T const e = difference(c, pixel, there);
            sum += e * e;
        }
        return sum;
    }

    T const *target, *reconstruction, *mask;  // mask may be null
    int64_t channels, height, width, area;
};

// Whether a candidate replaces the nearest so far: strictly nearer, so that ties go to the first; NaN, which then stays.
template <typename T>
FOCUS_HD bool replaces(T squared, T nearest) {
    return !(squared >= nearest) & (nearest == nearest);
}

// w of above. A NaN distance has a NaN gradient.
template <typename T>
FOCUS_HD T pull(T squared, T grad, int power) {
    if (power == 2) return T(2) * grad;
    return squared == T(0) ? T(0) : grad / T(sqrt(squared));
}

// dL / d(term of a pixel) of a loss.
template <typename T>
FOCUS_HD T loss_gradient(NeighborMinBackwardParameters<T> const& p) {
    return p.mean ? p.grad_loss.data[0] / T(p.argmin.count()) : p.grad_loss.data[0];
}

// The way to the pixel that an argmin names.
struct Offset {
    int y, x;
};

FOCUS_HD Offset offset_of(int argmin, int window) { return {argmin / window - window / 2, argmin % window - window / 2}; }

// Values of argmin that the forward pass never writes lead to some pixel of the image, too, when it is read; forces that end outside of it
// are dropped.
FOCUS_HD int64_t clamped(int64_t index, int64_t size) { return index < 0 ? 0 : index >= size ? size - 1 : index; }

}  // namespace focus
