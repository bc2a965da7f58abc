// n_v = s_v / |s_v| with s_v = sum over the faces (a, b, c) of v of (b - a) x (c - a), whose length is twice the face's area.
#pragma once

#include "common/vector.h"
#include "vertex_normals/vertex_normals.h"

namespace focus {

// Here and below V is Vector3 or, on the host, Padded (simd.h).
template <typename V>
FOCUS_HD V normal_of(V a, V b, V c) {
    return cross(b - a, c - a);
}

// d L / d (a corner of the face) from the gradient g of the face's normal, which is the sum of grad_sums over its three vertices, and
// the two corners that follow. For m = (b - a) x (c - a):  d b: (c - a) x g,  d c: g x (b - a),  d a: minus both; cyclic, so one formula
// serves every corner.
template <typename V>
FOCUS_HD V corner_gradient_of(V next, V last, V g) {
    return cross(next - last, g);
}

// False where the normal is not finite, as it is with a vertex that is not: the face then counts for none of its vertices.
template <typename T>
FOCUS_HD bool face_normal(T const* vertices, int32_t const* face, Vector3<T>* normal) {
    *normal =
        normal_of(load3(vertices + int64_t(3) * face[0]), load3(vertices + int64_t(3) * face[1]), load3(vertices + int64_t(3) * face[2]));
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
    T const zero{}, x = s.x < zero ? -s.x : s.x, y = s.y < zero ? -s.y : s.y, z = s.z < zero ? -s.z : s.z;
    T const larger = y > z ? y : z, scale = x > larger ? x : larger;
    Vector3<T> const unit{s.x / scale, s.y / scale, s.z / scale};
    T const inverse = Scalar<T>(1) / square_root(dot(unit, unit)), length = inverse / scale;
    auto const valid = (scale > zero) & is_finite(scale) & is_finite(length);
    *inverse_length = valid ? length : zero;
    return {valid ? inverse * unit.x : zero, valid ? inverse * unit.y : zero, valid ? inverse * unit.z : zero};
}

// d L / d s_v from d L / d n_v: the part of the gradient across the normal, over the length.
template <typename T>
FOCUS_HD Vector3<T> normal_sum_gradient(Vector3<T> sum, Vector3<T> grad_normal) {
    T inverse_length;
    Vector3<T> const normal = normalized(sum, &inverse_length);
    Vector3<T> const across = inverse_length * (grad_normal - dot(grad_normal, normal) * normal);
    T const zero{};
    auto const none = inverse_length == zero;  // and not 0 times a gradient that may be NaN
    return {none ? zero : across.x, none ? zero : across.y, none ? zero : across.z};
}

template <typename T>
FOCUS_HD Vector3<T> corner_gradient(T const* vertices, T const* grad_sums, int32_t const* face, int corner) {
    Vector3<T> normal;
    if (!face_normal(vertices, face, &normal)) return {T(0), T(0), T(0)};
    Vector3<T> const g =
        load3(grad_sums + int64_t(3) * face[0]) + load3(grad_sums + int64_t(3) * face[1]) + load3(grad_sums + int64_t(3) * face[2]);
    Vector3<T> const next = load3(vertices + int64_t(3) * face[(corner + 1) % 3]);
    Vector3<T> const last = load3(vertices + int64_t(3) * face[(corner + 2) % 3]);
    return corner_gradient_of(next, last, g);
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

// How the normal of vertex v moves. That of a face, (b - a) x (c - a), moves by (db - da) x (c - a) + (b - a) x (dc - da); what takes a
// gradient from a normal to the sum across it takes a tangent from the sum to the normal.
template <typename T>
FOCUS_HD void vertex_normal_tangent(VertexNormalsTangentParameters<T> const& p, int64_t b, int64_t v) {
    int64_t const image = b * p.vertices.stride();
    T const *const vertices = p.vertices.data + image, *const tangents = p.vertices_tangent.data + image;
    Vector3<T> sum{T(0), T(0), T(0)}, moved{T(0), T(0), T(0)}, normal;
    for (int32_t i = p.offsets.data[v]; i < p.offsets.data[v + 1]; ++i) {
        int32_t const* const face = p.faces.data + int64_t(3) * (p.corners.data[i] / 3);
        if (!face_normal(vertices, face, &normal)) continue;
        sum = sum + normal;
        Vector3<T> const a = load3(vertices + int64_t(3) * face[0]), da = load3(tangents + int64_t(3) * face[0]);
        Vector3<T> const ab = load3(vertices + int64_t(3) * face[1]) - a, ac = load3(vertices + int64_t(3) * face[2]) - a;
        moved = moved + cross(load3(tangents + int64_t(3) * face[1]) - da, ac) + cross(ab, load3(tangents + int64_t(3) * face[2]) - da);
    }
    store3(p.normals_tangent.data + image + 3 * v, normal_sum_gradient(sum, moved));
}

}  // namespace focus
