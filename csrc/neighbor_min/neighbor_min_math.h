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

// One component of e. It counts here that no product is contracted (CMakeLists.txt): fma(m, T, -(m * R)) leaves the rounding of m * R where
// T equals R, a distance that should be 0 and the direction of whose gradient would be noise.
template <typename T>
FOCUS_HD T masked_difference(T mask, T target, T mask_there, T reconstruction_there) {
    return mask * target - mask_there * reconstruction_there;
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

// The way to the pixel that an argmin names.
struct Offset {
    int y, x;
};

FOCUS_HD Offset offset_of(int argmin, int window) { return {argmin / window - window / 2, argmin % window - window / 2}; }

// Values of argmin that the forward pass never writes lead to some pixel of the image, too.
FOCUS_HD int64_t clamped(int64_t index, int64_t size) { return index < 0 ? 0 : index >= size ? size - 1 : index; }

}  // namespace focus
