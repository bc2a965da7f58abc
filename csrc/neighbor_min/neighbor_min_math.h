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

// One component of e. Never contracted: fma(m, T, -(m * R)) leaves the rounding of m * R where T equals R, a distance that should be 0 and
// the direction of whose gradient would be noise.
template <typename T>
FOCUS_HD T masked_difference(T mask, T target, T mask_there, T reconstruction_there) {
    return subtract_exactly_rounded(multiply_exactly_rounded(mask, target), multiply_exactly_rounded(mask_there, reconstruction_there));
}

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

// A pixel that argmin `index` names, seen from pixel (y, x). Values that the forward pass never writes lead to some pixel of the image.
struct Pixel {
    int64_t y, x;
};

FOCUS_HD Pixel neighbor(int64_t y, int64_t x, int index, int window, int64_t height, int64_t width) {
    int64_t const there_y = y + index / window - window / 2, there_x = x + index % window - window / 2;
    return {there_y < 0 ? 0 : there_y >= height ? height - 1 : there_y, there_x < 0 ? 0 : there_x >= width ? width - 1 : there_x};
}

}  // namespace focus
