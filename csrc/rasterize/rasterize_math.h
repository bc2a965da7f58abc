// Coverage, barycentrics and depth of one triangle, and their gradients; see docs/conventions.md for the rules.
#pragma once

#include <cstring>

#include "common/vector.h"
#include "rasterize/rasterize.h"

namespace focus {

// The line through two vertices, as a function that is positive on one side. The end points are put into one order (by x, then y) before
// any arithmetic, and the sign restored after it, so that the two faces of an edge compute exactly opposite numbers: no pixel between
// them is lost. Double precision makes the differences of float coordinates exact and the sign right on and near the pixel grid. No
// target contracts these into multiply-adds (see CMakeLists.txt): the same bits everywhere.
struct Edge {
    double x, y;    // the first end point in the canonical order
    double dx, dy;  // from it to the other
    double sign;    // +1 or -1: what the canonical order did to the direction

    FOCUS_HD double operator()(double px, double py) const { return sign * (dx * (py - y) - dy * (px - x)); }
};

FOCUS_HD Edge make_edge(double ax, double ay, double bx, double by) {
    bool const ordered = ax < bx || (ax == bx && ay <= by);
    Edge edge;
    edge.x = ordered ? ax : bx;
    edge.y = ordered ? ay : by;
    edge.dx = ordered ? bx - ax : ax - bx;
    edge.dy = ordered ? by - ay : ay - by;
    edge.sign = ordered ? 1.0 : -1.0;
    return edge;
}

// A triangle ready to be tested against pixels. `edge[k]` faces vertex k and is >= 0 inside, whatever the winding.
struct Triangle {
    Edge edge[3];
    double z[3];   // depths of the vertices, mm
    PixelBox box;  // pixels that may be covered, inside the image
};

struct Coverage {
    double barycentric[3];  // of the affine map from the screen
    double depth;           // mm
};

FOCUS_HD int first_pixel(double low) {  // the first pixel centre at or right of `low`, at least 0
    if (!(low > 0.0)) return 0;
    return low > 2147483646.0 ? 2147483647 : static_cast<int>(ceil(low));
}

FOCUS_HD int last_pixel(double high, int size) {  // the last pixel centre at or left of `high`, at most size - 1
    if (high < 0.0) return -1;
    return high >= static_cast<double>(size - 1) ? size - 1 : static_cast<int>(floor(high));
}

// False where the face covers nothing: a vertex not finite or not in front of the camera, zero area, culled, or outside the image.
template <typename T>
FOCUS_HD bool make_triangle(T const* screen_vertices, int32_t const* face, Cull cull, int height, int width, Triangle* triangle) {
    double x[3], y[3];
    for (int k = 0; k < 3; ++k) {
        Vector3<T> const v = load3(screen_vertices + int64_t(3) * face[k]);
        if (!is_finite(v) || !(v.z > T(0))) return false;
        x[k] = v.x;
        y[k] = v.y;
        triangle->z[k] = v.z;
    }
    // The box first: it is cheap and most faces of a detailed mesh contain no pixel centre at all.
    double const x_low = fmin(x[0], fmin(x[1], x[2])), x_high = fmax(x[0], fmax(x[1], x[2]));
    double const y_low = fmin(y[0], fmin(y[1], y[2])), y_high = fmax(y[0], fmax(y[1], y[2]));
    triangle->box = {first_pixel(x_low), first_pixel(y_low), last_pixel(x_high, width), last_pixel(y_high, height)};
    if (triangle->box.x_min > triangle->box.x_max || triangle->box.y_min > triangle->box.y_max) return false;

    // Twice the signed area; with y down it is positive for vertices that run clockwise on the screen.
    double const area = make_edge(x[1], y[1], x[2], y[2])(x[0], y[0]);
    if (!(area != 0.0) || !is_finite(area)) return false;
    if (cull == (area > 0.0 ? Cull::kClockwise : Cull::kCounterclockwise)) return false;
    for (int k = 0; k < 3; ++k) {
        int const a = (k + 1) % 3, b = (k + 2) % 3;
        triangle->edge[k] = make_edge(x[a], y[a], x[b], y[b]);
        if (area < 0.0) triangle->edge[k].sign = -triangle->edge[k].sign;
    }
    return true;
}

// Whether the pixel centre lies inside the triangle or on its edges; fills in where.
FOCUS_HD bool cover(Triangle const& triangle, int px, int py, bool perspective_correct, Coverage* coverage) {
    double const e0 = triangle.edge[0](px, py), e1 = triangle.edge[1](px, py), e2 = triangle.edge[2](px, py);
    double const sum = e0 + e1 + e2;
    if (!(e0 >= 0.0 && e1 >= 0.0 && e2 >= 0.0 && sum > 0.0)) return false;
    double const* z = triangle.z;
    double b0 = e0 / sum, b1 = e1 / sum, b2 = e2 / sum;
    if (perspective_correct) {
        double const q0 = b0 / z[0], q1 = b1 / z[1], q2 = b2 / z[2], q = q0 + q1 + q2;
        b0 = q0 / q;
        b1 = q1 / q;
        b2 = q2 / q;
        coverage->depth = 1.0 / q;
    } else {
        coverage->depth = z[0] + b1 * (z[1] - z[0]) + b2 * (z[2] - z[0]);  // exact where the three depths are equal: ties stay ties
    }
    // Rounding may leave the triangle by an ulp of its largest depth: below 0, where the smallest is tiny.
    coverage->depth = fmin(fmax(coverage->depth, fmin(z[0], fmin(z[1], z[2]))), fmax(z[0], fmax(z[1], z[2])));
    coverage->barycentric[0] = b0;
    coverage->barycentric[1] = b1;
    coverage->barycentric[2] = b2;
    return true;
}

// Orders (depth, face) pairs by depth, then by face, as one unsigned number: the bits of positive floats grow with them.
FOCUS_HD unsigned long long nearest_key(float depth, int32_t face) {
    uint32_t bits;
    memcpy(&bits, &depth, sizeof(bits));
    return static_cast<unsigned long long>(bits) << 32 | static_cast<uint32_t>(face);
}

constexpr unsigned long long kNoFace = ~0ull;  // beyond every key

// Gradient of one pixel with respect to the three screen vertices of its face, added to `grad[3 * corner + axis]`.
//
// Affine: p = sum_k b_k v_k with sum_k b_k = 1, so moving vertex k by d moves the barycentrics as moving the pixel by -b_k d would:
//   d b_j / d v_k = -b_k grad_p b_j.   With G = sum_j g_j grad_p b_j the gradient of vertex k is -b_k G.
// Perspective: b'_k = q_k / s with q_k = b_k / z_k, s = sum q, depth = 1 / s; the chain rule leads back to the affine b and to z.
template <typename T>
FOCUS_HD void add_rasterize_gradient(T const* screen_vertices, int32_t const* face, int px, int py, bool perspective_correct,
                                     T const* grad_barycentric, T const* grad_depth, double* grad) {
    double x[3], y[3], z[3];
    for (int k = 0; k < 3; ++k) {
        Vector3<T> const v = load3(screen_vertices + int64_t(3) * face[k]);
        x[k] = v.x;
        y[k] = v.y;
        z[k] = v.z;
    }
    double b[3], gx[3], gy[3], sum = 0.0;
    for (int k = 0; k < 3; ++k) {
        int const i = (k + 1) % 3, j = (k + 2) % 3;
        b[k] = make_edge(x[i], y[i], x[j], y[j])(px, py);
        gx[k] = -(y[j] - y[i]);  // grad_p of the edge function dx * (py - y) - dy * (px - x)
        gy[k] = x[j] - x[i];
        sum += b[k];
    }
    double const scale = 1.0 / sum;
    for (int k = 0; k < 3; ++k) b[k] *= scale;

    double g[3] = {0.0, 0.0, 0.0}, gz[3] = {0.0, 0.0, 0.0};
    if (grad_barycentric) {
        for (int k = 0; k < 3; ++k) g[k] = grad_barycentric[k];
    }
    double const gd = grad_depth ? static_cast<double>(*grad_depth) : 0.0;
    if (perspective_correct) {
        double const s = b[0] / z[0] + b[1] / z[1] + b[2] / z[2];
        double mean = 0.0;  // sum_j g_j b'_j
        for (int k = 0; k < 3; ++k) mean += g[k] * (b[k] / z[k]) / s;
        for (int k = 0; k < 3; ++k) {
            double const gq = (g[k] - mean) / s - gd / (s * s);
            gz[k] = -gq * b[k] / (z[k] * z[k]);
            g[k] = gq / z[k];
        }
    } else {
        for (int k = 0; k < 3; ++k) {
            g[k] += gd * (z[k] - z[0]);  // less z[0], which adds nothing as sum_k b_k = 1, and would drown the differences
            gz[k] = gd * b[k];
        }
    }
    double const big_gx = scale * (g[0] * gx[0] + g[1] * gx[1] + g[2] * gx[2]);
    double const big_gy = scale * (g[0] * gy[0] + g[1] * gy[1] + g[2] * gy[2]);
    for (int k = 0; k < 3; ++k) {
        grad[3 * k + 0] -= b[k] * big_gx;
        grad[3 * k + 1] -= b[k] * big_gy;
        grad[3 * k + 2] += gz[k];
    }
}

}  // namespace focus
