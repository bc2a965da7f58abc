// Small vectors for host and device, as far as the kernels need them.
#pragma once

#include <math.h>  // not <cmath>: this one brings the float overloads into the global namespace, as device code has them

#include <cstdint>

#include "common/macros.h"

namespace focus {

// T is a number, or on the host Lanes of numbers (simd.h).
template <typename T>
struct Vector3 {
    T x, y, z;
};

// The type of the numbers in T.
template <typename T>
struct ScalarOf {
    using Type = T;
};

template <typename T>
using Scalar = typename ScalarOf<T>::Type;

template <typename T>
FOCUS_HD Vector3<T> load3(T const* pointer) {
    return {pointer[0], pointer[1], pointer[2]};
}

template <typename T>
FOCUS_HD void store3(T* pointer, Vector3<T> a) {
    pointer[0] = a.x;
    pointer[1] = a.y;
    pointer[2] = a.z;
}

template <typename T>
FOCUS_HD Vector3<T> operator+(Vector3<T> a, Vector3<T> b) {
    return {a.x + b.x, a.y + b.y, a.z + b.z};
}

template <typename T>
FOCUS_HD Vector3<T> operator-(Vector3<T> a, Vector3<T> b) {
    return {a.x - b.x, a.y - b.y, a.z - b.z};
}

template <typename T>
FOCUS_HD Vector3<T> operator*(T s, Vector3<T> a) {
    return {s * a.x, s * a.y, s * a.z};
}

template <typename T>
FOCUS_HD T dot(Vector3<T> a, Vector3<T> b) {
    return a.x * b.x + a.y * b.y + a.z * b.z;
}

template <typename T>
FOCUS_HD Vector3<T> cross(Vector3<T> a, Vector3<T> b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

template <typename T>
FOCUS_HD auto is_finite(T a) {
    return a - a == T{};  // inf - inf and NaN - NaN are NaN; holds without -ffast-math, which no target of ours uses
}

template <typename T>
FOCUS_HD bool is_finite(Vector3<T> a) {
    return is_finite(a.x) && is_finite(a.y) && is_finite(a.z);
}

template <typename T>
FOCUS_HD T square_root(T a) {
    return sqrt(a);
}

}  // namespace focus
