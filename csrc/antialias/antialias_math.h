// Where a silhouette edge crosses the segment between two neighbouring pixel centres, and how that blends them; see docs/ops.md.
#pragma once

#include <cmath>

#include "antialias/antialias.h"
#include "common/macros.h"

namespace focus {

// Pixel centres P, inside the nearer face, and N beyond its silhouette. Lengths along the segment from P to N.
struct Crossing {
    double t;           // of the edge, in [0, 1]
    double weight;      // |t - 1/2|: the share of the one colour in the other's pixel
    bool owner;         // the pixel asked for is P
    bool blended;       // the pixel asked for is the one whose colour changes: N for t > 1/2, else P
    int corner[2];      // of the face of P: the ends of the edge
    double grad[2][2];  // d t / d (x, y) of these
};

// Depth of a face at a pixel centre, linear on the screen.
template <typename T>
FOCUS_HD double screen_depth(T const* vertices, int32_t const* face, int x, int y) {
    double e[3], sum = 0.0;
    for (int k = 0; k < 3; ++k) {
        T const* const a = vertices + int64_t(3) * face[(k + 1) % 3];
        T const* const b = vertices + int64_t(3) * face[(k + 2) % 3];
        e[k] = (double(b[0]) - a[0]) * (y - double(a[1])) - (double(b[1]) - a[1]) * (x - double(a[0]));
        sum += e[k];
    }
    double const z0 = vertices[int64_t(3) * face[0] + 2];
    return z0 + e[1] / sum * (vertices[int64_t(3) * face[1] + 2] - z0) + e[2] / sum * (vertices[int64_t(3) * face[2] + 2] - z0);
}

template <typename T>
FOCUS_HD double side_of(T const* a, T const* b, T const* v) {
    return (double(b[0]) - a[0]) * (double(v[1]) - a[1]) - (double(b[1]) - a[1]) * (double(v[0]) - a[0]);
}

// Whether no other face at the edge opposite corner k lies on the far side of it: at the border of the mesh, and where it folds over.
template <typename P, typename T>
FOCUS_HD bool is_silhouette(P const& p, T const* vertices, int32_t face, int k) {
    int32_t const* const own = p.faces.data + int64_t(3) * face;
    int32_t const a = own[(k + 1) % 3], b = own[(k + 2) % 3];
    T const *const va = vertices + int64_t(3) * a, *const vb = vertices + int64_t(3) * b;
    double const own_side = side_of(va, vb, vertices + int64_t(3) * own[k]);
    for (int32_t i = p.offsets.data[a]; i < p.offsets.data[a + 1]; ++i) {
        int32_t const corner = p.corners.data[i], other = corner / 3;
        if (other == face) continue;
        int32_t const next = p.faces.data[int64_t(3) * other + (corner + 1) % 3];
        int32_t const last = p.faces.data[int64_t(3) * other + (corner + 2) % 3];
        if (next != b && last != b) continue;
        double const side = side_of(va, vb, vertices + int64_t(3) * (next == b ? last : next));
        if (own_side > 0.0 ? side < 0.0 : side > 0.0) return false;
    }
    return true;
}

// The pair of pixel (x, y) of image b and its neighbour at one step along `axis` (0: x, 1: y), `step` +1 or -1. False: no blending.
template <typename P>
FOCUS_HD bool find_crossing(P const& p, int64_t b, int x, int y, int axis, int step, Crossing* crossing) {
    int const height = int(p.face_index.size[1]), width = int(p.face_index.size[2]);
    int const nx = axis == 0 ? x + step : x, ny = axis == 0 ? y : y + step;
    if (nx < 0 || ny < 0 || nx >= width || ny >= height) return false;
    int32_t const* const image = p.face_index.data + b * p.face_index.stride();
    int32_t const here = image[int64_t(y) * width + x], there = image[int64_t(ny) * width + nx];
    if (here == there) return false;
    bool const covered = here >= 0 && here < p.faces.size[0], other_covered = there >= 0 && there < p.faces.size[0];
    if (!covered && !other_covered) return false;
    auto const* const vertices = p.screen_vertices.data + b * p.screen_vertices.stride();
    bool owner = covered;
    if (covered && other_covered) {
        double const depth = screen_depth(vertices, p.faces.data + int64_t(3) * here, x, y);
        double const other = screen_depth(vertices, p.faces.data + int64_t(3) * there, nx, ny);
        owner = depth < other || (depth == other && here < there);
    }
    int32_t const f = owner ? here : there;
    int32_t const* const face = p.faces.data + int64_t(3) * f;
    double const direction = owner ? step : -step;
    double const along = axis == 0 ? (owner ? x : nx) : (owner ? y : ny), across = axis == 0 ? y : x;
    int exit = -1;
    double t = 0.0;
    for (int k = 0; k < 3; ++k) {
        auto const* const va = vertices + int64_t(3) * face[(k + 1) % 3];
        auto const* const vb = vertices + int64_t(3) * face[(k + 2) % 3];
        double const av = va[1 - axis], bv = vb[1 - axis];
        if ((av <= across) == (bv <= across)) continue;
        double const au = va[axis], w = (across - av) / (bv - av);
        double const length = direction * (au + w * (double(vb[axis]) - au) - along);
        if (exit < 0 || length > t) {
            t = length;
            exit = k;
        }
    }
    if (exit < 0 || !(t <= 1.0)) return false;
    if (t < 0.0) t = 0.0;  // rounding: P lies in its face
    int const ca = (exit + 1) % 3, cb = (exit + 2) % 3;
    auto const* const va = vertices + int64_t(3) * face[ca];
    auto const* const vb = vertices + int64_t(3) * face[cb];
    double const du = double(vb[axis]) - va[axis], dv = double(vb[1 - axis]) - va[1 - axis];
    // Each edge blends along one axis only: along both, an oblique edge would count twice.
    if (axis == 0 ? fabs(du) > fabs(dv) : fabs(du) >= fabs(dv)) return false;
    if (!is_silhouette(p, vertices, f, exit)) return false;
    double const w = (across - va[1 - axis]) / dv, slope = du / dv;
    crossing->t = t;
    crossing->weight = fabs(t - 0.5);
    crossing->owner = owner;
    crossing->blended = owner == (t <= 0.5);
    crossing->corner[0] = ca;
    crossing->corner[1] = cb;
    crossing->grad[0][axis] = direction * (1.0 - w);
    crossing->grad[1][axis] = direction * w;
    crossing->grad[0][1 - axis] = -slope * crossing->grad[0][axis];
    crossing->grad[1][1 - axis] = -slope * crossing->grad[1][axis];
    return true;
}

// The crossings of a pixel with its neighbours left, right, above and below; weight 0 where there is none.
struct Blend {
    double in[4];   // share of the neighbour's colour in this pixel
    double out[4];  // share of this pixel's colour in the neighbour's
};

FOCUS_HD int64_t neighbor_offset(int i, int64_t width) { return (i < 2 ? 1 : width) * (i % 2 ? 1 : -1); }

template <typename P>
FOCUS_HD bool find_blend(P const& p, int64_t b, int x, int y, Blend* blend) {
    bool any = false;
    for (int i = 0; i < 4; ++i) {
        Crossing crossing;
        bool const found = find_crossing(p, b, x, y, i / 2, i % 2 ? 1 : -1, &crossing);
        blend->in[i] = found && crossing.blended ? crossing.weight : 0.0;
        blend->out[i] = found && !crossing.blended ? crossing.weight : 0.0;
        any = any || found;
    }
    return any;
}

// One pixel of all channels.
template <typename T>
FOCUS_HD void antialias_pixel(AntialiasParameters<T> const& p, int64_t b, int x, int y) {
    int64_t const width = p.face_index.size[2], area = p.face_index.stride(), channels = p.image.size[1];
    Blend blend;
    bool const any = find_blend(p, b, x, y, &blend);
    for (int64_t c = 0; c < channels; ++c) {
        int64_t const i = (b * channels + c) * area + y * width + x;
        double value = p.image.data[i];
        for (int n = 0; any && n < 4; ++n) {
            if (blend.in[n] > 0.0) value += blend.in[n] * (double(p.image.data[i + neighbor_offset(n, width)]) - p.image.data[i]);
        }
        p.values.data[i] = static_cast<T>(value);
    }
}

template <typename T>
FOCUS_HD void antialias_image_gradient(AntialiasBackwardParameters<T> const& p, int64_t b, int x, int y) {
    int64_t const width = p.face_index.size[2], area = p.face_index.stride(), channels = p.image.size[1];
    Blend blend;
    bool const any = find_blend(p, b, x, y, &blend);
    for (int64_t c = 0; c < channels; ++c) {
        int64_t const i = (b * channels + c) * area + y * width + x;
        double grad = p.grad_values.data[i];
        for (int n = 0; any && n < 4; ++n) {
            grad -= blend.in[n] * p.grad_values.data[i];
            if (blend.out[n] > 0.0) grad += blend.out[n] * p.grad_values.data[i + neighbor_offset(n, width)];
        }
        p.grad_image.data[i] = static_cast<T>(grad);
    }
}

// d L / d (x, y) of the corners of the face at (x, y), from the pairs that look at it, added to grad[2 * corner + axis].
// Whichever pixel is blended, d L / d t = sum_c g_c (P_c - N_c) with g the gradient of that pixel's value.
template <typename T>
FOCUS_HD void add_antialias_gradient(AntialiasBackwardParameters<T> const& p, int64_t b, int x, int y, double* grad) {
    int64_t const width = p.face_index.size[2], area = p.face_index.stride(), channels = p.image.size[1];
    for (int n = 0; n < 4; ++n) {
        Crossing crossing;
        if (!find_crossing(p, b, x, y, n / 2, n % 2 ? 1 : -1, &crossing) || !crossing.owner) continue;
        int64_t const here = b * channels * area + y * width + x, there = here + neighbor_offset(n, width);
        double grad_t = 0.0;
        for (int64_t c = 0; c < channels; ++c) {
            double const difference = double(p.image.data[here + c * area]) - p.image.data[there + c * area];
            grad_t += p.grad_values.data[(crossing.blended ? here : there) + c * area] * difference;
        }
        for (int end = 0; end < 2; ++end) {
            for (int axis = 0; axis < 2; ++axis) grad[2 * crossing.corner[end] + axis] += grad_t * crossing.grad[end][axis];
        }
    }
}

}  // namespace focus
