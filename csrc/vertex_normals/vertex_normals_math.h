// n_v = s_v / |s_v| with s_v = sum over the faces (a, b, c) of v of (b - a) x (c - a), whose length is twice the face's area.
#pragma once

#include "common/vector.h"
#include "vertex_normals/vertex_normals.h"

namespace focus {

// (b - a) x (c - a). False where it is not finite, as it is with a vertex that is not: the face then counts for none of its vertices.
template <typename T>
FOCUS_HD bool face_normal(T const* vertices, int32_t const* face, Vector3<T>* normal) {
    Vector3<T> const a = load3(vertices + int64_t(3) * face[0]);
    *normal = cross(load3(vertices + int64_t(3) * face[1]) - a, load3(vertices + int64_t(3) * face[2]) - a);
    return is_finite(*normal);
}

template <typename T>
FOCUS_HD Vector3<T> normal_sum(T const* vertices, int32_t const* faces, int32_t const* corners, int32_t begin, int32_t end) {
    Vector3<T> sum{T(0), T(0), T(0)}, normal;
    for (int32_t i = begin; i < end; ++i) {
        if (face_normal(vertices, faces + int64_t(3) * (corners[i] / 3), &normal)) sum = sum + normal;
    }
    return sum;
}

// s / |s|, and 1 / |s|. Scaled first, because the squares of lengths beyond 1e19 or below 1e-19 leave float's range. 0 and 0 where s is
// 0, or so small or large that the inverse has no finite value.
template <typename T>
FOCUS_HD Vector3<T> normalized(Vector3<T> s, T* inverse_length) {
    T const scale = fmax(fabs(s.x), fmax(fabs(s.y), fabs(s.z)));
    Vector3<T> const unit{s.x / scale, s.y / scale, s.z / scale};
    T const inverse = T(1) / sqrt(dot(unit, unit));
    *inverse_length = inverse / scale;
    if (!(scale > T(0)) || !is_finite(scale) || !is_finite(*inverse_length)) {
        *inverse_length = T(0);
        return {T(0), T(0), T(0)};
    }
    return inverse * unit;
}

// d L / d s_v from d L / d n_v: the part of the gradient across the normal, over the length.
template <typename T>
FOCUS_HD Vector3<T> normal_sum_gradient(Vector3<T> sum, Vector3<T> grad_normal) {
    T inverse_length;
    Vector3<T> const normal = normalized(sum, &inverse_length);
    if (inverse_length == T(0)) return {T(0), T(0), T(0)};  // and not 0 times a gradient that may be NaN
    return inverse_length * (grad_normal - dot(grad_normal, normal) * normal);
}

// d L / d (corner k of the face) from the gradient g of its normal, which is the sum of grad_sums over its three vertices.
// For m = (b - a) x (c - a):  d b: (c - a) x g,  d c: g x (b - a),  d a: minus both; cyclic, so one formula serves every corner.
template <typename T>
FOCUS_HD Vector3<T> corner_gradient(T const* vertices, T const* grad_sums, int32_t const* face, int corner) {
    Vector3<T> normal;
    if (!face_normal(vertices, face, &normal)) return {T(0), T(0), T(0)};
    Vector3<T> const g =
        load3(grad_sums + int64_t(3) * face[0]) + load3(grad_sums + int64_t(3) * face[1]) + load3(grad_sums + int64_t(3) * face[2]);
    Vector3<T> const next = load3(vertices + int64_t(3) * face[(corner + 1) % 3]);
    Vector3<T> const last = load3(vertices + int64_t(3) * face[(corner + 2) % 3]);
    return cross(next - last, g);
}

template <typename T>
FOCUS_HD Vector3<T> vertex_gradient(T const* vertices, T const* grad_sums, int32_t const* faces, int32_t const* corners, int32_t begin,
                                    int32_t end) {
    Vector3<T> sum{T(0), T(0), T(0)};
    for (int32_t i = begin; i < end; ++i) {
        sum = sum + corner_gradient(vertices, grad_sums, faces + int64_t(3) * (corners[i] / 3), corners[i] % 3);
    }
    return sum;
}

}  // namespace focus
